//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"time"
)

// budgets are the bounds of a step that are compared; the default is one of them.
var budgets = []int{1 << 10, 1 << 12, 1 << 13, 1 << 14, 1 << 15, 1 << 16, 1 << 17}

// budget shows what --budget costs: time, memory and commits, with sweeps and without (asking for a rate rules them out, and budgets beyond the
// default).
func (b *bench) budget(v volume) error {
	fmt.Printf("budget %s, medians of %d\n| budget | time | peak memory | commits | without sweeps | peak memory | commits |\n|---|---|---|---|---|---|---|\n", v.name, b.n)
	for _, n := range budgets {
		swept, err := b.budgetCost(v, "--budget", fmt.Sprint(n))
		if err != nil {
			return err
		}
		line := fmt.Sprintf("| %d | %s |", n, swept)
		if n <= 1<<15 {
			read, err := b.budgetCost(v, "--budget", fmt.Sprint(n), "--rate", "1T")
			if err != nil {
				return err
			}
			line += fmt.Sprintf(" %s |", read)
		} else {
			line += " – | – | – |"
		}
		fmt.Println(line)
	}
	return nil
}

// budgetCost deletes all snapshots of a volume with some options, and tells time, memory and commits.
func (b *bench) budgetCost(v volume, options ...string) (string, error) {
	var list []time.Duration
	var peak int64
	var r dropResult
	for range b.n {
		t, mem, res, err := b.jsonDrop(v, options...)
		if err != nil {
			return "", err
		}
		list, peak, r = append(list, t), max(peak, mem), res
	}
	return fmt.Sprintf("%.2f s | %d MiB | %d", median(list).Seconds(), peak>>20, r.Commits), nil
}

// jsonDrop deletes all snapshots of a copy of a volume, and gives what the command tells of it.
func (b *bench) jsonDrop(v volume, options ...string) (took time.Duration, peak int64, r dropResult, err error) {
	paths, err := chosen(v, "all")
	if err != nil {
		return 0, 0, r, err
	}
	work, err := b.copyOf(b.image(v))
	if err != nil {
		return 0, 0, r, err
	}
	args := append(append([]string{"subvolume", "delete", "--json"}, options...), work)
	c := command(b.exe, append(args, paths...)...)
	start := time.Now()
	out, err := c.Output()
	took = time.Since(start)
	if err := errors.Join(err, os.Remove(work)); err != nil {
		return took, 0, r, err
	}
	r, err = readDropResult(out)
	return took, peakOf(c), r, err
}
