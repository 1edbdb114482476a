package interop

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gobtrfs/gobtrfs/btrfs"
	"github.com/gobtrfs/gobtrfs/internal/testenv"
)

const workerEnv = "GOBTRFS_TEST_WORKER_IMAGE"

// TestMain is also the program that TestKill kills: with an image named in the
// environment it changes that volume until it dies.
func TestMain(m *testing.M) {
	if image := os.Getenv(workerEnv); image != "" {
		if err := work(image); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

const (
	killFiles = 40 // names that are written in turn
	killKeep  = 6  // snapshots that are kept
)

func killData(n int) []byte {
	r := rand.New(rand.NewPCG(uint64(n), 3))
	b := make([]byte, []int{60, 1500, 5000, 40000, 200000}[r.IntN(5)])
	for i := range b {
		b[i] = byte(r.Uint32() >> 8)
	}
	return b
}

func killName(n int) string { return fmt.Sprintf("live/d%d/f%02d", n%killFiles%3, n%killFiles) }

// work goes on from the state that the volume holds: each step is one commit, and
// after it nothing but a drop.
func work(image string) error {
	v, err := btrfs.Open(ctx, image, btrfs.Options{})
	if err != nil {
		return err
	}
	b, err := v.Top().ReadFile("live/count")
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(string(b))
	for ; err == nil; n++ {
		err = step(v, n+1)
	}
	return errors.Join(err, v.Close())
}

// step brings the volume from state n-1 to state n and says so.
func step(v *btrfs.Volume, n int) error {
	top := v.Top()
	if err := top.MkdirAll(path.Dir(killName(n)), 0o755); err != nil {
		return err
	}
	if err := top.WriteFile(killName(n), killData(n), 0o644); err != nil {
		return err
	}
	if err := top.WriteFile("live/count", []byte(strconv.Itoa(n)), 0o644); err != nil {
		return err
	}
	if n%3 == 0 {
		if _, err := v.Snapshot(ctx, "/live", fmt.Sprintf("/s%d", n), n%2 == 0); err != nil {
			return err
		}
	}
	gone := n%12 == 0 && n > 3*killKeep
	if gone {
		if err := v.DeleteSubvolumes(ctx, expired(n)); err != nil {
			return err
		}
	}
	if err := v.Commit(ctx); err != nil {
		return err
	}
	fmt.Println(n)
	if gone {
		_, err := v.Drop(ctx, btrfs.DropOptions{Budget: 20})
		return err
	}
	return nil
}

// snapshots tells which snapshots there are in state n.
func snapshots(n int) (list []int) {
	for s := 3; s <= n; s += 3 {
		list = append(list, s)
		if s%12 == 0 && s > 3*killKeep {
			list = list[len(list)-killKeep:]
		}
	}
	return list
}

// expired are the paths of those that state n does not have any more.
func expired(n int) (paths []string) {
	list := append(snapshots(n-1), n)
	for _, s := range list[:len(list)-killKeep] {
		paths = append(paths, fmt.Sprintf("/s%d", s))
	}
	return paths
}

// kills is how often TestKill kills: twelve times, or as GOBTRFS_KILLS says.
func kills(t *testing.T) int {
	t.Helper()
	text := os.Getenv("GOBTRFS_KILLS")
	if text == "" {
		return testenv.Rounds(12)
	}
	n, err := strconv.Atoi(text)
	must(t, err)
	return n
}

// TestKill kills a writer at random instants, while it writes, takes snapshots and
// drops them: what is left is always the last committed state, or the one after it
// when the kill came before it could say so. Every fifth time btrfs check is asked too.
func TestKill(t *testing.T) {
	seed := testenv.Seed(t, 11)
	rnd := rand.New(rand.NewPCG(uint64(seed), 5))
	image := fresh(t, 512<<20, btrfs.MakeOptions{Nodesize: []uint32{4096, 16384}[seed%2]})
	with(t, image, btrfs.Options{}, func(v *btrfs.Volume) {
		_, err := v.CreateSubvolume(ctx, "/live")
		must(t, err)
		must(t, v.Top().WriteFile("live/count", []byte("0"), 0o644))
	})
	last := 0
	for i := range kills(t) {
		told := runAndKill(t, image, rnd.IntN(13), time.Duration(rnd.IntN(20_000))*time.Microsecond)
		got := compareKilled(t, image)
		if got < max(last, told) {
			t.Fatalf("the volume is in state %d; %d had been committed", got, max(last, told))
		}
		last = got
		if i%5 == 4 {
			t.Run("btrfs check", func(t *testing.T) { testenv.Check(t, image) })
		}
	}
	t.Logf("state %d in the end", last)
	t.Run("btrfs check", func(t *testing.T) { testenv.Check(t, image) })
}

// runAndKill lets the worker do some steps and a while more, and kills it; with no
// steps at all, the kill may come while it opens the volume. It gives the last state
// that the worker told.
func runAndKill(t *testing.T, image string, steps int, more time.Duration) (told int) {
	t.Helper()
	self, err := os.Executable()
	must(t, err)
	c, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	cmd := exec.CommandContext(c, self)
	cmd.Env = append(os.Environ(), workerEnv+"="+image)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	if steps == 0 {
		time.AfterFunc(more, func() { cmd.Process.Kill() })
	}
	lines := bufio.NewScanner(out)
	for i := 1; lines.Scan(); i++ {
		told, err = strconv.Atoi(strings.TrimSpace(lines.Text()))
		must(t, err)
		if i == steps {
			time.AfterFunc(more, func() { cmd.Process.Kill() })
		}
	}
	if err := cmd.Wait(); err == nil || stderr.Len() > 0 {
		t.Fatalf("the worker was not killed: %v\n%s", err, &stderr)
	}
	return told
}

// compareKilled checks the volume and compares all of it with the state that it says
// it is in.
func compareKilled(t *testing.T, image string) (n int) {
	t.Helper()
	with(t, image, btrfs.Options{ReadOnly: true}, func(v *btrfs.Volume) {
		r, err := v.Check(ctx, btrfs.CheckOptions{Data: true})
		must(t, err)
		if !r.OK() {
			t.Fatalf("gobtrfs check: %v", r.Findings)
		}
		n = compareState(t, v, "live")
		want := map[string]bool{"live": true}
		for _, s := range snapshots(n) {
			name := fmt.Sprintf("s%d", s)
			want[name] = true
			if got := compareState(t, v, name); got != s {
				t.Fatalf("snapshot %s holds state %d", name, got)
			}
		}
		list, err := v.Top().ReadDir(".")
		must(t, err)
		for _, e := range list {
			if !want[e.Name()] {
				t.Fatalf("state %d still has %s", n, e.Name())
			}
		}
		if len(list) != len(want) {
			t.Fatalf("state %d: %d subvolumes, want %d", n, len(list), len(want))
		}
	})
	return n
}

// compareState compares the contents of one subvolume.
func compareState(t *testing.T, v *btrfs.Volume, sub string) (n int) {
	t.Helper()
	b, err := v.Top().ReadFile(sub + "/count")
	must(t, err)
	n, err = strconv.Atoi(string(b))
	must(t, err)
	for k := max(1, n-killFiles+1); k <= n; k++ {
		name := sub + strings.TrimPrefix(killName(k), "live")
		got, err := v.Top().ReadFile(name)
		must(t, err)
		if !bytes.Equal(got, killData(k)) {
			t.Fatalf("state %d: %s does not hold what step %d wrote", n, name, k)
		}
	}
	return n
}
