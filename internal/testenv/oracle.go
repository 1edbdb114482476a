package testenv

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Loop makes a loop device of an image; it goes when the test ends.
func Loop(t testing.TB, image string) string {
	t.Helper()
	NeedKernel(t)
	dev := strings.TrimSpace(Run(t, "losetup", "--show", "-f", image))
	t.Cleanup(func() { exec.Command("losetup", "-d", dev).Run() })
	return dev
}

// foreign matches what btrfs check says of other devices: it scans them all, and
// those of other tests come and go.
var foreign = regexp.MustCompile(`(?m)^(ERROR|WARNING): cannot scan .*\n`)

// alone checks the devices $2… with a /dev (made below the directory $1) that has
// no others: a test next door may have opened devices of the same volume.
const alone = `umount -a -t btrfs; mount -t tmpfs none "$1" && d=$1 && shift &&
cp -a "$@" /dev/null /dev/urandom "$d" && mount --bind "$d" /dev &&
exec btrfs check --readonly --check-data-csum "$1"`

// Check judges a volume with btrfs check, checksums of data included, and fails
// the test when that finds anything.
func Check(t testing.TB, images ...string) {
	t.Helper()
	if out, ok := TryCheck(t, images...); !ok {
		t.Fatalf("btrfs check %s:\n%s", strings.Join(images, " "), tail(out, 4000))
	}
}

// TryCheck is Check that gives the verdict.
func TryCheck(t testing.TB, images ...string) (output string, ok bool) {
	t.Helper()
	NeedProgs(t)
	args := []string{"btrfs", "check", "--readonly", "--check-data-csum", images[0]}
	if len(images) > 1 {
		NeedKernel(t)
		args = []string{"unshare", "-m", "sh", "-c", alone, "sh", t.TempDir()}
		for _, i := range images {
			loop := strings.TrimSpace(Run(t, "losetup", "--show", "-f", i))
			defer exec.Command("losetup", "-d", loop).Run()
			args = append(args, loop)
		}
	}
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	text := foreign.ReplaceAllString(string(out), "")
	return text, err == nil && !strings.Contains(text, "ERROR:") && !strings.Contains(text, "WARNING:") && strings.Contains(text, "no error found")
}

func tail(s string, n int) string {
	if len(s) > n {
		return "…" + s[len(s)-n:]
	}
	return s
}

// Mount mounts a volume with the kernel and gives the directory; it is unmounted
// when the test ends. Opts are mount options.
func Mount(t testing.TB, images []string, opts ...string) string {
	t.Helper()
	NeedKernel(t)
	NeedProgs(t)
	dir, err := os.MkdirTemp("", "gobtrfs-mnt-")
	if err != nil {
		t.Fatal(err)
	}
	var loops []string
	t.Cleanup(func() {
		exec.Command("umount", dir).Run()
		for _, l := range loops {
			exec.Command("btrfs", "device", "scan", "-u", l).Run()
			exec.Command("losetup", "-d", l).Run()
		}
		os.Remove(dir)
	})
	for _, i := range images {
		loops = append(loops, strings.TrimSpace(Run(t, "losetup", "--show", "-f", i)))
	}
	if len(loops) > 1 {
		Run(t, "btrfs", append([]string{"device", "scan"}, loops...)...)
	}
	o := strings.Join(append([]string{"nodiscard"}, opts...), ",")
	Run(t, "mount", "-t", "btrfs", "-o", o, loops[0], dir)
	return dir
}

// Umount unmounts early; the loop devices stay until the test ends but do not
// hold the file system any more.
func Umount(t testing.TB, dir string) {
	t.Helper()
	source := strings.TrimSpace(Run(t, "findmnt", "-n", "-o", "SOURCE", "--mountpoint", dir))
	Run(t, "sync", "-f", dir)
	Run(t, "umount", dir)
	// Another process that copied the mounts of this one a moment ago may still
	// hold the file system: wait until the device is free.
	for range 200 {
		f, err := os.OpenFile(source, os.O_RDONLY|syscall.O_EXCL, 0)
		if err == nil {
			f.Close()
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatalf("%s is still in use after umount", source)
}

// MakeVolume makes a volume with mkfs.btrfs in an image of size bytes; the kernel
// has mounted it once.
func MakeVolume(t testing.TB, image string, size int64, args ...string) {
	t.Helper()
	NeedProgs(t)
	f, err := os.Create(image)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	Run(t, "mkfs.btrfs", append(append([]string{"-q", "-f"}, args...), image)...)
	if strings.Contains(strings.Join(args, " "), "^free-space-tree") {
		return
	}
	// mkfs.btrfs before 6.19 leaves entries of block groups that it removed in the
	// free space tree; the kernel makes the tree anew.
	dir := Mount(t, []string{image}, "clear_cache", "space_cache=v2")
	Umount(t, dir)
}
