package interop

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gobtrfs/gobtrfs/internal/testenv"
)

// command is the built program.
type command struct{ exe, dir string }

func build(t *testing.T) command {
	t.Helper()
	c := command{exe: filepath.Join(t.TempDir(), "gobtrfs"), dir: testenv.Scratch(t)}
	b := exec.Command("go", "build", "-o", c.exe, "./cmd/gobtrfs")
	b.Dir = testenv.Root(t)
	if out, err := b.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return c
}

// run runs the program in its directory and gives its output and exit status.
func (c command) run(t *testing.T, args ...string) (stdout, stderr string, status int) {
	t.Helper()
	var o, e bytes.Buffer
	cmd := exec.Command(c.exe, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = c.dir, &o, &e
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return o.String(), e.String(), cmd.ProcessState.ExitCode()
}

// ok is run for what must succeed.
func (c command) ok(t *testing.T, args ...string) string {
	t.Helper()
	out, e, status := c.run(t, args...)
	if status != 0 {
		t.Fatalf("gobtrfs %v: status %d\n%s%s", args, status, out, e)
	}
	return out
}

func hash(t *testing.T, name string) string {
	t.Helper()
	f, err := os.Open(name)
	must(t, err)
	defer f.Close()
	h := sha256.New()
	_, err = io.Copy(h, f)
	must(t, err)
	return string(h.Sum(nil))
}

// TestCommand goes through a volume's life by the command alone, and asks both
// checks and the kernel in the end.
func TestCommand(t *testing.T) {
	c := build(t)
	src := filepath.Join(c.dir, "src")
	big := bytes.Repeat([]byte("large file\n"), 30_000)
	must(t, os.MkdirAll(filepath.Join(src, "a", "b"), 0o750))
	must(t, os.WriteFile(filepath.Join(src, "a", "small"), []byte("small\n"), 0o640))
	must(t, os.WriteFile(filepath.Join(src, "a", "b", "big"), big, 0o644))
	must(t, os.Symlink("b/big", filepath.Join(src, "a", "link")))
	must(t, os.Link(filepath.Join(src, "a", "small"), filepath.Join(src, "hard")))

	c.ok(t, "mkfs", "--size", "300M", "-L", "command", "--rootdir", "src", "v.img")
	c.ok(t, "subvolume", "create", "v.img", "/home")
	c.ok(t, "put", "v.img", "src", "/home")
	for _, s := range []string{"/s1", "/s2", "/s3"} {
		c.ok(t, "subvolume", "snapshot", "-r", "v.img", "/home", s)
		c.ok(t, "rm", "v.img", "/home/src/hard")
		c.ok(t, "put", "v.img", "src/a/b/big", "/home/src/hard")
	}
	if got := c.ok(t, "cat", "v.img", "/home/src/a/link", "/home/src/a/small"); got != string(big)+"small\n" {
		t.Errorf("cat gave %d bytes", len(got))
	}
	var list []struct {
		Name, Type string
		Size       int64
		Inode      uint64
		Nlink      int
		Target     string
	}
	must(t, json.Unmarshal([]byte(c.ok(t, "ls", "--json", "v.img", "/home/src/a")), &list))
	if len(list) != 3 || list[1].Name != "link" || list[1].Target != "b/big" || list[2].Size != 6 {
		t.Errorf("ls --json: %+v", list)
	}
	c.ok(t, "get", "v.img", "/s1/src", "back")
	if out, err := exec.Command("diff", "-r", "--no-dereference", src, filepath.Join(c.dir, "back")).CombinedOutput(); err != nil {
		t.Errorf("what came back differs: %v\n%s", err, out)
	}

	image := filepath.Join(c.dir, "v.img")
	before := hash(t, image)
	if out := c.ok(t, "subvolume", "delete", "--dry-run", "v.img", "/s*"); !strings.Contains(out, "3 subvolumes") {
		t.Errorf("dry run: %s", out)
	}
	if hash(t, image) != before {
		t.Error("the dry run changed the volume")
	}
	c.ok(t, "subvolume", "delete", "v.img", "/s1", "/s3")
	out := c.ok(t, "subvolume", "list", "v.img")
	if strings.Contains(out, "s1") || !strings.Contains(out, "s2") || c.ok(t, "subvolume", "list", "--deleted", "v.img") != "" {
		t.Errorf("after the deletion: %s", out)
	}
	c.ok(t, "check", "--data", "v.img")
	judge(t, image)
	t.Run("kernel", func(t *testing.T) {
		mnt := testenv.Mount(t, []string{image})
		got, err := os.ReadFile(filepath.Join(mnt, "home", "src", "hard"))
		if err != nil || !bytes.Equal(got, big) {
			t.Errorf("the kernel reads %d bytes: %v", len(got), err)
		}
		testenv.Umount(t, mnt)
	})
}

// TestMistakes: what goes wrong says so in one line, with the right status, and the
// volume is not touched.
func TestMistakes(t *testing.T) {
	c := build(t)
	c.ok(t, "mkfs", "--size", "200M", "-q", "v.img")
	c.ok(t, "subvolume", "create", "v.img", "/sub")
	c.ok(t, "subvolume", "snapshot", "-r", "v.img", "/sub", "/ro")
	image := filepath.Join(c.dir, "v.img")
	must(t, os.WriteFile(filepath.Join(c.dir, "zeros.img"), make([]byte, 1<<20), 0o644))
	must(t, os.WriteFile(filepath.Join(c.dir, "file"), []byte("x"), 0o644))
	b, err := os.ReadFile(image)
	must(t, err)
	must(t, os.WriteFile(filepath.Join(c.dir, "short.img"), b[:40<<20], 0o644))
	before := hash(t, image)
	for _, m := range []struct {
		status int
		args   string
	}{
		{2, "nonsense"},
		{2, "ls"},
		{2, "subvolume"},
		{2, "mkfs --size lots new.img"},
		{2, "subvolume snapshot v.img /sub"},
		{2, "ls --nonsense v.img /"},
		{1, "ls none.img /"},
		{1, "ls zeros.img /"},
		{1, "mkdir short.img /dir"},
		{1, "ls v.img /none"},
		{1, "cat v.img /sub"},
		{1, "mkdir v.img /none/dir"},
		{1, "put v.img file /ro"},
		{1, "put v.img none /sub"},
		{1, "rm v.img /sub"},
		{1, "rm v.img /none"},
		{1, "subvolume create v.img /sub"},
		{1, "subvolume delete v.img /none"},
		{1, "subvolume delete v.img /sub /none"},
		{1, "subvolume delete v.img /"},
		{1, "mkfs v.img"},
		{1, "mkdir v.img /" + strings.Repeat("n", 256)},
	} {
		out, e, status := c.run(t, strings.Fields(m.args)...)
		if status != m.status {
			t.Errorf("gobtrfs %s: status %d, want %d\n%s%s", m.args, status, m.status, out, e)
		}
		if !strings.HasPrefix(e, "gobtrfs") || strings.Contains(e, "panic") || out != "" {
			t.Errorf("gobtrfs %s says %q and %q", m.args, out, e)
		}
	}
	if out := c.ok(t, "ls", "v.img", "/"); !strings.Contains(out, "sub") {
		t.Errorf("afterwards: %s", out)
	}
	if out, _, status := c.run(t, "check", "short.img"); status != 1 {
		t.Errorf("check of a volume that was cut off: status %d\n%s", status, out)
	}
	c.ok(t, "check", "v.img")
	if hash(t, image) != before {
		t.Error("the volume changed")
	}
}

// TestCheckStatus: the status of check tells sound from damaged.
func TestCheckStatus(t *testing.T) {
	c := build(t)
	for name, want := range map[string]int{"default": 0, "snap30": 0, "bad-meta-both": 1, "bad-data-single": 0} {
		if out, e, got := c.run(t, "check", testenv.ReadImages(t, name)[0]); got != want {
			t.Errorf("check %s: status %d, want %d\n%s%s", name, got, want, out, e)
		}
	}
	if out, _, got := c.run(t, "check", "--data", testenv.ReadImages(t, "bad-data-single")[0]); got != 1 {
		t.Errorf("check --data of damaged data: status %d\n%s", got, out)
	}
}

// TestHalfDropped: the next command that writes finishes a drop that the kernel
// left half-done.
func TestHalfDropped(t *testing.T) {
	c := build(t)
	image := testenv.Image(t, "half-drop")
	if out := c.ok(t, "subvolume", "list", "--deleted", image); !strings.Contains(out, "256") {
		t.Errorf("list --deleted: %q", out)
	}
	_, said, status := c.run(t, "mkdir", image, "/made")
	if status != 0 || said == "" {
		t.Errorf("status %d, said %q", status, said)
	}
	if out := c.ok(t, "subvolume", "list", "--deleted", image); out != "" {
		t.Errorf("left: %q", out)
	}
	judge(t, image)
}
