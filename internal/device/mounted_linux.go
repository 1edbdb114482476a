package device

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// mountedAt returns where the kernel has the target mounted in this mount namespace, or "". For an image file it looks through
// loop devices. What it cannot see, such as other namespaces, is left to O_EXCL.
func mountedAt(path string, info os.FileInfo) string {
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return ""
	}
	devs := map[uint64]bool{}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && !info.Mode().IsRegular() {
		devs[st.Rdev] = true
	}
	if info.Mode().IsRegular() {
		for _, loop := range loopsOf(info) {
			if st, ok := statT(loop); ok {
				devs[st.Rdev] = true
			}
		}
	}
	if len(devs) == 0 {
		return ""
	}
	return findMount(string(table), func(source string) bool {
		st, ok := statT(source)
		return ok && st.Mode&syscall.S_IFMT == syscall.S_IFBLK && devs[st.Rdev]
	})
}

func statT(path string) (*syscall.Stat_t, bool) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, false
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	return st, ok
}

// loopsOf returns the loop devices that serve the file.
func loopsOf(info os.FileInfo) []string {
	var loops []string
	names, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	for _, name := range names {
		backing, err := os.ReadFile(name)
		if err != nil {
			continue
		}
		b, err := os.Stat(strings.TrimSuffix(string(backing), "\n"))
		if err == nil && os.SameFile(b, info) {
			loops = append(loops, "/dev/"+strings.Split(name, "/")[3])
		}
	}
	return loops
}

// findMount returns the mount point of the first line of a mountinfo table whose source is the one wanted. Btrfs has no device
// number of its own there, so the source's name is all there is.
func findMount(table string, wanted func(source string) bool) string {
	for line := range strings.Lines(table) {
		before, after, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " - ")
		head, tail := strings.Fields(before), strings.Fields(after)
		if !ok || len(head) < 5 || len(tail) < 2 {
			continue
		}
		if source := unescape.Replace(tail[1]); strings.HasPrefix(source, "/") && wanted(source) {
			return unescape.Replace(head[4])
		}
	}
	return ""
}

// unescape undoes the octal escapes of mountinfo. It is never changed.
var unescape = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
