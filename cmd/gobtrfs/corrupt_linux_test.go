package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"unicode"

	"github.com/gobtrfs/gobtrfs/internal/testenv"
)

// mostMemory is what a command may take, at its peak, whatever the volume says.
const mostMemory = 256 << 20

// placed matches errors that tell where something is wrong.
var placed = regexp.MustCompile(`( at|block|inode|slot|device|chunk|chunk of|qgroup) \d|superblock|\d+ files could|out/`)

// TestCorrupt: on damaged volumes the commands that read end in order, tell where something is wrong, and take no more
// than their share of memory.
func TestCorrupt(t *testing.T) {
	dir := filepath.Join(testenv.Shared(t), "corpus", "corrupt")
	text, err := os.ReadFile(filepath.Join(dir, "corrupt.json"))
	must(t, err)
	var list []struct {
		Name, File string
		Size       int64
	}
	must(t, json.Unmarshal(text, &list))
	for _, c := range list {
		t.Run(c.Name, func(t *testing.T) {
			t.Parallel()
			image := filepath.Join(testenv.Scratch(t), "image")
			must(t, testenv.Unpack(filepath.Join(dir, c.File), image, c.Size))
			readDamaged(t, image)
		})
	}
	for _, name := range testenv.Names(t) {
		if strings.HasPrefix(name, "bad-") || name == "old-roots" {
			t.Run(name, func(t *testing.T) { readDamaged(t, strings.Join(testenv.ReadImages(t, name), ",")) })
		}
	}
}

// readDamaged runs the commands that read on a damaged volume.
func readDamaged(t *testing.T, target string) {
	to := filepath.Join(testenv.Scratch(t), "out")
	for _, args := range [][]string{{"check", target}, {"ls", "-R", "-l", target}, {"restore", "-q", "-s", "-S", "-m", "-x", target, to}} {
		cmd := command(t, args...)
		status := filepath.Join(testenv.Scratch(t), "status")
		cmd.Env = append(cmd.Env, statusFile+"="+status)
		r := finish(t, cmd)
		if r.code != 0 && r.code != 1 || strings.Contains(r.err, "goroutine ") {
			t.Errorf("%s: exit %d\n%s", args[0], r.code, r.err)
		}
		said := r.err
		if args[0] == "check" {
			said += r.out
		}
		wellSaid(t, args[0], strings.ReplaceAll(said, target, ""), r.code == 0)
		peak := peakOf(t, status)
		if peak > mostMemory {
			t.Errorf("%s took %d MiB", args[0], peak>>20)
		}
		t.Logf("%s: exit %d, %d MiB", args[0], r.code, peak>>20)
	}
}

// peakOf is the most memory that a command had. What wait tells is no good: there a child begins with the memory of its parent.
func peakOf(t *testing.T, status string) int64 {
	t.Helper()
	text, err := os.ReadFile(status)
	must(t, err)
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "VmHWM:" {
			kib, err := strconv.ParseInt(f[1], 10, 64)
			must(t, err)
			return kib << 10
		}
	}
	t.Fatalf("no VmHWM in %s", text)
	return 0
}

// wellSaid wants every error to tell where, in characters that a terminal does not obey; and one, unless all was good.
func wellSaid(t *testing.T, verb, text string, good bool) {
	errors := 0
	for line := range strings.Lines(text) {
		if strings.Contains(line, "other copies made good") {
			continue // not an error
		}
		if strings.HasPrefix(line, "gobtrfs ") || strings.HasPrefix(line, "error: ") {
			errors++
			if !placed.MatchString(line) {
				t.Errorf("%s does not tell where: %s", verb, line)
			}
		}
		if strings.ContainsFunc(strings.TrimSuffix(line, "\n"), unicode.IsControl) {
			t.Errorf("%s writes control characters: %q", verb, line)
		}
	}
	if errors == 0 && !good {
		t.Errorf("%s fails and does not say why", verb)
	}
}
