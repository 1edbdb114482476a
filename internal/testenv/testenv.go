// Package testenv gives tests what lies outside the code under test: the corpus
// of real volumes, btrfs-progs, the kernel's btrfs, seeds.
//
// What is not there is skipped by name, except under CI (environment CI=true),
// where a missing oracle fails the test. Everything that a test takes (mounts,
// loop devices, files) is given back when it ends, also when it fails.
package testenv

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// root finds the directory of go.mod.
var root = sync.OnceValues(func() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", fmt.Errorf("no go.mod above the working directory")
		}
		dir = up
	}
})

// Root gives the directory of the module.
func Root(t testing.TB) string {
	t.Helper()
	dir, err := root()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// CI tells whether this is a run of the continuous integration.
func CI() bool { return os.Getenv("CI") == "true" }

// missing skips the test for want of what, or fails it under CI.
func missing(t testing.TB, what string) {
	t.Helper()
	if CI() {
		t.Fatalf("CI must have %s", what)
	}
	t.Skipf("needs %s", what)
}

// Shared gives the directory of shared material beside the module
// (GOBTRFS_SHARED, or ../shared).
func Shared(t testing.TB) string {
	t.Helper()
	dir := os.Getenv("GOBTRFS_SHARED")
	if dir == "" {
		dir = filepath.Join(Root(t), "..", "shared")
	}
	if _, err := os.Stat(filepath.Join(dir, "corpus")); err != nil {
		missing(t, "the shared corpus beside the module")
	}
	return dir
}

// NeedRoot skips the test unless it runs as root.
func NeedRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		missing(t, "root")
	}
}

// NeedProgs skips the test unless btrfs-progs are there.
func NeedProgs(t testing.TB) {
	t.Helper()
	for _, name := range []string{"btrfs", "mkfs.btrfs"} {
		if _, err := exec.LookPath(name); err != nil {
			missing(t, name+" (btrfs-progs)")
		}
	}
}

// NeedProgram gives the path of a program, or skips the test.
func NeedProgram(t testing.TB, name string) string {
	t.Helper()
	p, err := exec.LookPath(name)
	if err != nil {
		missing(t, "the program "+name)
	}
	return p
}

var kernelReady = sync.OnceValue(func() string {
	if os.Geteuid() != 0 {
		return "root"
	}
	b, err := os.ReadFile("/proc/filesystems")
	if err != nil || !bytes.Contains(b, []byte("\tbtrfs\n")) {
		if exec.Command("modprobe", "btrfs").Run() != nil {
			return "a kernel with btrfs"
		}
	}
	if err := exec.Command("losetup", "-f").Run(); err != nil {
		return "loop devices"
	}
	return ""
})

// NeedKernel skips the test unless the kernel can mount btrfs from loop devices.
func NeedKernel(t testing.TB) {
	t.Helper()
	if what := kernelReady(); what != "" {
		missing(t, what)
	}
}

// Scratch gives a directory for images: on /dev/shm when that is there, so that
// the kernel's flushes cost nothing.
func Scratch(t testing.TB) string {
	t.Helper()
	if fi, err := os.Stat("/dev/shm"); err != nil || !fi.IsDir() {
		return t.TempDir()
	}
	dir, err := os.MkdirTemp("/dev/shm", "gobtrfs-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// Run runs a program and gives what it printed; a failure ends the test.
func Run(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// Seed gives the seed of a random test: def, or GOBTRFS_SEED. When the test
// fails it prints how to run it again.
func Seed(t testing.TB, def int64) int64 {
	t.Helper()
	seed := def
	if s := os.Getenv("GOBTRFS_SEED"); s != "" {
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			t.Fatalf("GOBTRFS_SEED: %v", err)
		}
		seed = n
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("again: GOBTRFS_SEED=%d go test -run '^%s$' .", seed, t.Name())
		}
	})
	return seed
}

// Rounds gives the number of rounds of a random test: def, or GOBTRFS_ROUNDS.
func Rounds(def int) int {
	if n, err := strconv.Atoi(os.Getenv("GOBTRFS_ROUNDS")); err == nil && n > 0 {
		return n
	}
	return def
}
