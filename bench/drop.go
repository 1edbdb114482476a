//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

// chosen gives the subvolumes that a case deletes, as paths from the top.
func chosen(v volume, what string) ([]string, error) {
	var out []string
	for s := 1; s <= v.snapshots; s++ {
		if what != "second" || s%2 == 0 {
			out = append(out, fmt.Sprintf("/snap/s%d", s))
		}
	}
	switch what {
	case "all", "second":
		return out, nil
	case "original":
		return append(out, "/home"), nil
	}
	return nil, fmt.Errorf("unknown case %q", what)
}

// drop measures deleting snapshots: from the first delete until all are durably
// gone. The kernel is made to commit at once, so its timer is not counted.
func (b *bench) drop(v volume, what string) error {
	paths, err := chosen(v, what)
	if err != nil {
		return err
	}
	var kernel, ours []time.Duration
	var peak int64
	for range b.n {
		if !b.ours {
			t, err := b.kernelDrop(v, paths)
			if err != nil {
				return err
			}
			kernel = append(kernel, t)
		}
		t, mem, err := b.ourDrop(v, paths)
		if err != nil {
			return err
		}
		ours, peak = append(ours, t), max(peak, mem)
	}
	fmt.Printf("drop %s %s, %s, medians of %d: ours %.2f s, peak %d MiB", v.name, what, b.state(), b.n, median(ours).Seconds(), peak>>20)
	if !b.ours {
		fmt.Printf("; kernel %.2f s; ratio %.1f", median(kernel).Seconds(), median(kernel).Seconds()/median(ours).Seconds())
	}
	fmt.Println()
	return nil
}

func (b *bench) kernelDrop(v volume, paths []string) (took time.Duration, err error) {
	work, err := b.copyOf(b.image(v))
	if err != nil {
		return 0, err
	}
	defer os.Remove(work)
	dir, umount, err := b.mount(work, ",commit=1")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, umount()) }()
	if err := b.dropCaches(); err != nil {
		return 0, err
	}
	args := []string{"-q", "subvolume", "delete", "-c"}
	for _, p := range paths {
		args = append(args, filepath.Join(dir, p))
	}
	start := time.Now()
	if err := command("btrfs", args...).Run(); err != nil {
		return 0, err
	}
	for {
		left, err := output("btrfs", "subvolume", "list", "-d", dir)
		if err != nil {
			return 0, err
		}
		if left == "" {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	if err := command("sync", "-f", dir).Run(); err != nil {
		return 0, err
	}
	return time.Since(start), nil
}

func (b *bench) ourDrop(v volume, paths []string) (time.Duration, int64, error) {
	work, err := b.copyOf(b.image(v))
	if err != nil {
		return 0, 0, err
	}
	defer os.Remove(work)
	if err := b.dropCaches(); err != nil {
		return 0, 0, err
	}
	args := []string{"subvolume", "delete", "-q"}
	if b.cold {
		args = append(args, "--direct")
	}
	return timed(b.exe, append(append(args, work), paths...)...)
}

// dryRun measures the forecast beside "btrfs filesystem du -s", which answers
// less.
func (b *bench) dryRun(v volume) error {
	paths, err := chosen(v, "all")
	if err != nil {
		return err
	}
	var ours []time.Duration
	var peak int64
	args := []string{"subvolume", "delete", "--dry-run", "--json"}
	if b.cold {
		args = append(args, "--direct")
	}
	for range b.n {
		if err := b.dropCaches(); err != nil {
			return err
		}
		t, mem, err := timed(b.exe, append(append(args, b.image(v)), paths...)...)
		if err != nil {
			return err
		}
		ours, peak = append(ours, t), max(peak, mem)
	}
	fmt.Printf("dry run %s, %s, medians of %d: ours %.2f s, peak %d MiB", v.name, b.state(), b.n, median(ours).Seconds(), peak>>20)
	if !b.ours {
		dir, umount, err := b.mount(b.image(v), ",ro")
		if err != nil {
			return err
		}
		args = []string{"filesystem", "du", "-s"}
		for _, p := range paths {
			args = append(args, filepath.Join(dir, p))
		}
		t, _, err := timed("btrfs", args...)
		if err := errors.Join(err, umount()); err != nil {
			return err
		}
		fmt.Printf("; btrfs filesystem du -s %.1f s (one run); ratio %.0f", t.Seconds(), t.Seconds()/median(ours).Seconds())
	}
	fmt.Println()
	return nil
}

// growth shows what a freed block costs as the number of snapshots grows, and as the volume does.
func (b *bench) growth(svg string) error {
	rows := []row{
		{title: "V3: snapshots deleted", names: []string{"V3-125", "V3-250", "V3-500", "V3"}, labels: []string{"125", "250", "500", "1,000"}},
		{title: "V1: size of the volume", names: []string{"V1", "V1-2x", "V1-4x"}, labels: []string{"1x", "2x", "4x"}},
	}
	for i := range rows {
		for _, name := range rows[i].names {
			v, _ := volumeNamed(name)
			if err := b.make(v); err != nil {
				return err
			}
			cost, err := b.blockCost(v)
			if err != nil {
				return err
			}
			rows[i].costs = append(rows[i].costs, cost)
		}
	}
	if svg == "" {
		return nil
	}
	return os.WriteFile(svg, []byte(plot(rows)), 0o644)
}

// blockCost deletes all snapshots of a volume and returns the microseconds that each freed block took, median of n.
func (b *bench) blockCost(v volume) (float64, error) {
	var list []time.Duration
	var freed uint64
	var peak int64
	for range b.n {
		t, mem, r, err := b.jsonDrop(v)
		if err != nil {
			return 0, err
		}
		list, peak, freed = append(list, t), max(peak, mem), r.Blocks
	}
	m := median(list)
	cost := float64(m.Microseconds()) / float64(max(freed, 1))
	fmt.Printf("growth %s: %d snapshots, %.2f s, peak %d MiB, %d blocks freed, %.1f µs a block\n", v.name, v.snapshots, m.Seconds(), peak>>20, freed, cost)
	return cost, nil
}

// dropResult is what "subvolume delete --json" tells.
type dropResult struct {
	Blocks  uint64 `json:"tree_blocks_freed"`
	Commits int    `json:"commits"`
}

// readDropResult finds it in what the command prints: one object or several, the result last.
func readDropResult(out []byte) (r dropResult, err error) {
	d := json.NewDecoder(bytes.NewReader(out))
	for {
		if err := d.Decode(&r); errors.Is(err, io.EOF) {
			return r, nil
		} else if err != nil {
			return r, err
		}
	}
}
