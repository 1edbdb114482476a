//go:build linux

// Command bench measures gobtrfs beside the kernel and btrfs-progs: the same work
// on copies of the same volume, in one run, as ratios. README.md tells how.
//
// The kernel's side needs root, loop devices and btrfs-progs. Nothing here is a
// test: figures depend on the machine.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"syscall"
	"time"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// bench is the state of one run.
type bench struct {
	dir  string // where the volumes are kept
	tmp  string // where copies are worked on
	n    int
	cold bool
	ours bool // leave the others out
	exe  string
}

func run(args []string) error {
	var b bench
	fl := flag.NewFlagSet("bench", flag.ContinueOnError)
	fl.StringVar(&b.dir, "dir", filepath.Join(os.TempDir(), "gobtrfs-bench"), "where the volumes are kept")
	fl.StringVar(&b.tmp, "tmp", "", "where copies are worked on (default: /dev/shm warm, -dir cold)")
	fl.IntVar(&b.n, "n", 3, "runs; medians are printed")
	fl.BoolVar(&b.cold, "cold", false, "direct I/O and empty caches")
	fl.BoolVar(&b.ours, "ours", false, "only gobtrfs")
	volumes := fl.String("volumes", "V1,V3", "volumes to use")
	trees := fl.String("trees", "go,plain,zstd", "read: what to read (with commas)")
	cases := fl.String("cases", "all", "drop: all, original, second (with commas)")
	svg := fl.String("svg", "", "growth: write a plot to this file")
	fl.Usage = func() {
		fmt.Fprintln(fl.Output(), "usage: bench [options] volumes | drop | dry-run | budget | growth | check | mkfs | read")
		fl.PrintDefaults()
	}
	if err := fl.Parse(args); err != nil {
		return err
	}
	if fl.NArg() != 1 {
		fl.Usage()
		return fmt.Errorf("name one job")
	}
	if b.tmp == "" {
		if b.tmp = "/dev/shm"; b.cold {
			b.tmp = b.dir
		}
	}
	if err := os.MkdirAll(b.dir, 0o755); err != nil {
		return err
	}
	if err := b.build(); err != nil {
		return err
	}
	defer os.Remove(b.exe)
	names := strings.Split(*volumes, ",")
	switch fl.Arg(0) {
	case "volumes":
		return b.each(names, func(v volume) error { return b.make(v) })
	case "drop":
		return b.each(names, func(v volume) error {
			for _, c := range strings.Split(*cases, ",") {
				if err := b.drop(v, c); err != nil {
					return err
				}
			}
			return nil
		})
	case "dry-run":
		return b.each(names, b.dryRun)
	case "budget":
		return b.each(names, b.budget)
	case "growth":
		return b.growth(*svg)
	case "check":
		return b.each(names, b.check)
	case "mkfs":
		return b.mkfs()
	case "read":
		return b.read(strings.Split(*trees, ","))
	}
	return fmt.Errorf("unknown job %q", fl.Arg(0))
}

func (b *bench) each(names []string, fn func(v volume) error) error {
	for _, name := range names {
		v, ok := volumeNamed(name)
		if !ok {
			return fmt.Errorf("unknown volume %q", name)
		}
		if err := fn(v); err != nil {
			return err
		}
	}
	return nil
}

// build makes the program that is measured.
func (b *bench) build() error {
	b.exe = filepath.Join(b.dir, "gobtrfs")
	return command("go", "build", "-o", b.exe, "./cmd/gobtrfs").Run()
}

// command is an exec.Cmd that shows what the program says of errors.
func command(name string, args ...string) *exec.Cmd {
	c := exec.Command(name, args...)
	c.Stderr = os.Stderr
	return c
}

// output runs a program and gives what it prints.
func output(name string, args ...string) (string, error) {
	out, err := command(name, args...).Output()
	return strings.TrimSpace(string(out)), err
}

// timed runs a program as a child: time and peak memory.
func timed(name string, args ...string) (time.Duration, int64, error) {
	c := command(name, args...)
	start := time.Now()
	err := c.Run()
	took := time.Since(start)
	if err != nil {
		return took, 0, fmt.Errorf("%s %s: %w", name, strings.Join(args, " "), err)
	}
	return took, peakOf(c), nil
}

// copyOf makes a copy of a volume to work on.
func (b *bench) copyOf(image string) (string, error) {
	to := filepath.Join(b.tmp, filepath.Base(image)+".work")
	err := command("cp", "--sparse=always", image, to).Run()
	if err == nil && b.cold {
		err = command("sync", "-f", to).Run()
	}
	return to, err
}

// dropCaches empties the page cache for a cold run.
func (b *bench) dropCaches() error {
	if !b.cold {
		return nil
	}
	return os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0)
}

func median(list []time.Duration) time.Duration {
	sort.Slice(list, func(i, j int) bool { return list[i] < list[j] })
	return list[len(list)/2]
}

func (b *bench) state() string {
	if b.cold {
		return "cold"
	}
	return "warm"
}

// peakOf is the most memory that a program had which has ended.
func peakOf(c *exec.Cmd) int64 { return c.ProcessState.SysUsage().(*syscall.Rusage).Maxrss << 10 }
