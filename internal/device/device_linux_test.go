package device

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// Image files must stay as sparse as their holes allow.
func TestSparse(t *testing.T) {
	path := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, 64<<20); err != nil {
		t.Fatal(err)
	}
	d, err := OpenFile(path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	used := func() int64 {
		if err := d.Flush(); err != nil {
			t.Fatal(err)
		}
		st, ok := statT(path)
		if !ok {
			t.Fatal("no stat")
		}
		return st.Blocks * 512
	}
	if _, err := d.WriteAt(make([]byte, 8<<20), 1<<20); err != nil {
		t.Fatal(err)
	}
	full := used()
	if full > 9<<20 {
		t.Errorf("8 MiB written take %d bytes", full)
	}
	if err := d.Discard(1<<20, 8<<20); err != nil {
		t.Fatal(err)
	}
	if left := used(); full >= 8<<20 && left > 1<<20 {
		t.Errorf("%d bytes are left after discarding all", left)
	}
}

func TestFindMount(t *testing.T) {
	table := "29 1 0:26 / / rw,relatime shared:1 - btrfs /dev/vda1 rw\n" +
		"garbage\n" +
		"40 29 0:30 /@ /mnt/a\\040b rw - btrfs /dev/loop7 rw,subvol=/@\n" +
		"41 29 0:31 / /proc rw - proc proc rw"
	if got := findMount(table, func(s string) bool { return s == "/dev/loop7" }); got != "/mnt/a b" {
		t.Errorf("found %q", got)
	}
	if got := findMount(table, func(s string) bool { return s == "proc" }); got != "" {
		t.Errorf("found %q", got)
	}
}

// A flush that failed once must never succeed again.
func TestFlushErrorStays(t *testing.T) {
	d := &file{flushErr: syscall.EIO}
	if err := d.Flush(); err != syscall.EIO {
		t.Error(err)
	}
}
