package testenv

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// Manifest is what the kernel showed of a volume of the corpus.
type Manifest struct {
	Images        []ManifestImage     `json:"images"`
	MadeWith      json.RawMessage     `json:"made_with"`
	KernelMounts  bool                `json:"kernel_mounts"`
	MountOptions  json.RawMessage     `json:"mount_options"`
	Super         map[string]any      `json:"super"`
	Check         []ManifestCheck     `json:"check"`
	Trees         []ManifestTree      `json:"trees"`
	DeadRoots     json.RawMessage     `json:"roots_with_no_references"`
	Default       uint64              `json:"default_subvolume"`
	Subvolumes    []ManifestSubvolume `json:"subvolumes"`
	Entries       []ManifestEntry     `json:"entries"`
	MissingDevids []uint64            `json:"missing_devids"`
	FromTwin      any                 `json:"from_twin"`
}

// ManifestImage is one image file of a volume.
type ManifestImage struct {
	File  string `json:"file"`
	Size  int64  `json:"size"`
	DevID uint64 `json:"devid"`
}

// ManifestCheck is the verdict of one version of btrfs check.
type ManifestCheck struct {
	Progs string   `json:"progs"`
	Exit  int      `json:"exit"`
	Said  []string `json:"said"`
}

// ManifestTree counts the items of a tree, and in the extent tree the inline
// references.
type ManifestTree struct {
	Tree       string         `json:"tree"`
	Kind       string         `json:"kind"`
	Types      map[string]int `json:"types"`
	InlineRefs map[string]int `json:"inline_refs"`
}

// ManifestSubvolume is a subvolume as the kernel lists it.
type ManifestSubvolume struct {
	ID         uint64 `json:"id"`
	Path       string `json:"path"`
	PathB64    string `json:"path_b64"`
	Parent     uint64 `json:"parent_id"`
	ReadOnly   bool   `json:"ro"`
	UUID       string `json:"uuid"`
	ParentUUID string `json:"parent_uuid"`

	Generation   *uint64 `json:"generation"` // this and what follows: nil where no kernel could tell
	ReceivedUUID *string `json:"received_uuid"`
	Ctransid     *uint64 `json:"ctransid"`
	Otransid     *uint64 `json:"otransid"`
	Stransid     *uint64 `json:"stransid"`
	Rtransid     *uint64 `json:"rtransid"`
	Otime        *string `json:"otime"`
}

// ManifestEntry is one path of one subvolume.
type ManifestEntry struct {
	Subvol       uint64            `json:"subvol"`
	Path         string            `json:"path"`
	PathB64      string            `json:"path_b64"`
	Ino          uint64            `json:"ino"`
	Type         string            `json:"type"`
	Mode         string            `json:"mode"`
	UID          uint32            `json:"uid"`
	GID          uint32            `json:"gid"`
	Size         int64             `json:"size"`
	Nlink        uint32            `json:"nlink"`
	Blocks       int64             `json:"blocks"`
	Mtime        string            `json:"mtime"`
	Ctime        string            `json:"ctime"`
	Btime        string            `json:"btime"`
	SHA256       string            `json:"sha256"`
	SHA256OfData string            `json:"sha256_of_data"`
	Data         [][2]int64        `json:"data"`
	Target       *string           `json:"target"`
	TargetB64    string            `json:"target_b64"`
	Rdev         string            `json:"rdev"`
	Xattrs       map[string]string `json:"xattrs"`
	Flags        json.RawMessage   `json:"flags"`
	Error        any               `json:"error"`
	ReadError    any               `json:"read_error"`
	XattrError   any               `json:"xattr_error"`
	BadBlocks    []int64           `json:"bad_blocks"`
	Stub         bool              `json:"stub"`
	Verity       any               `json:"verity"` // algorithm and digest
}

func imageDir(t testing.TB) string { return filepath.Join(Root(t), "testdata", "corpus", "images") }

// Names lists all volumes of the corpus.
func Names(t testing.TB) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(imageDir(t), "*.img.zst"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no corpus: %v", err)
	}
	var out []string
	for _, f := range files {
		name, _, _ := strings.Cut(filepath.Base(f), ".")
		if len(out) == 0 || out[len(out)-1] != name {
			out = append(out, name)
		}
	}
	sort.Strings(out)
	return out
}

// Image unpacks a volume on one device and gives the path of the copy, which the
// test may change.
func Image(t testing.TB, name string) string {
	t.Helper()
	paths := Images(t, name)
	if len(paths) != 1 {
		t.Fatalf("%s has %d devices", name, len(paths))
	}
	return paths[0]
}

// Images unpacks a volume on one or more devices, in the order of its devices.
// The test may change the copies.
func Images(t testing.TB, name string) []string {
	t.Helper()
	scratch := Scratch(t)
	var out []string
	for _, from := range ReadImages(t, name) {
		to := filepath.Join(scratch, filepath.Base(from))
		if err := CopySparse(from, to); err != nil {
			t.Fatal(err)
		}
		out = append(out, to)
	}
	return out
}

// ReadImages gives unpacked images of a volume that the test must not change:
// all tests of this machine share them.
func ReadImages(t testing.TB, name string) []string {
	t.Helper()
	dir := imageDir(t)
	files := []string{filepath.Join(dir, name+".img.zst")}
	if _, err := os.Stat(files[0]); err != nil {
		files, _ = filepath.Glob(filepath.Join(dir, name+".d*.img.zst"))
	}
	if len(files) == 0 {
		t.Fatalf("no volume %q in the corpus", name)
	}
	sort.Strings(files)
	m := ReadManifest(t, name, "")
	var out []string
	for _, f := range files {
		to, err := unpacked(f, sizeOf(m, f))
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, to)
	}
	return out
}

// unpacked gives the shared unpacked form of a packed image, which it makes when
// it is not there yet.
func unpacked(file string, size int64) (string, error) {
	fi, err := os.Stat(file)
	if err != nil {
		return "", err
	}
	dir := filepath.Join(os.TempDir(), fmt.Sprintf("gobtrfs-corpus-%d", os.Getuid()))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	to := filepath.Join(dir, strings.TrimSuffix(filepath.Base(file), ".zst"))
	if old, err := os.Stat(to); err == nil && old.ModTime().After(fi.ModTime()) {
		return to, nil
	}
	tmp, err := os.CreateTemp(dir, "unpack-")
	if err != nil {
		return "", err
	}
	tmp.Close()
	if err := Unpack(file, tmp.Name(), size); err != nil {
		os.Remove(tmp.Name())
		return "", err
	}
	return to, os.Rename(tmp.Name(), to)
}

// sizeOf is the unpacked size of an image; 0 when the manifest does not tell.
func sizeOf(m *Manifest, file string) int64 {
	base := filepath.Base(file)
	for _, i := range m.Images {
		if i.File == base || i.File == strings.TrimSuffix(base, ".zst") {
			return i.Size
		}
	}
	return 0
}

// Unpack unpacks a packed image sparsely; the copy gets size bytes if that is
// more.
func Unpack(from, to string, size int64) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	z, err := zstd.NewReader(in, zstd.WithDecoderMaxWindow(1<<27), zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true))
	if err != nil {
		return err
	}
	defer z.Close()
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	buf, zero := make([]byte, 64<<10), make([]byte, 4096)
	var off int64
	for {
		n, rerr := io.ReadFull(z, buf)
		for i := 0; i < n; i += len(zero) {
			part := buf[i:min(i+len(zero), n)]
			if string(part) == string(zero[:len(part)]) {
				continue
			}
			if _, err := out.WriteAt(part, off+int64(i)); err != nil {
				return err
			}
		}
		off += int64(n)
		if rerr == io.EOF || rerr == io.ErrUnexpectedEOF {
			return out.Truncate(max(off, size))
		}
		if rerr != nil {
			return fmt.Errorf("unpack %s: %w", from, rerr)
		}
	}
}

// ReadManifest reads the manifest of a volume; word is "", "replayed", "cleaned"
// or "recovered".
func ReadManifest(t testing.TB, name, word string) *Manifest {
	t.Helper()
	base := filepath.Join(imageDir(t), name)
	if word != "" {
		base += "." + word
	}
	b, err := readPacked(base + ".manifest.json")
	if err != nil {
		t.Fatal(err)
	}
	m := new(Manifest)
	if err := json.Unmarshal(b, m); err != nil {
		t.Fatalf("manifest of %s: %v", name, err)
	}
	return m
}

// readPacked reads a file, or what is packed in the file with .zst appended.
func readPacked(name string) ([]byte, error) {
	b, err := os.ReadFile(name)
	if !errors.Is(err, os.ErrNotExist) {
		return b, err
	}
	if b, err = os.ReadFile(name + ".zst"); err != nil {
		return nil, err
	}
	z, err := zstd.NewReader(nil, zstd.WithDecoderMaxWindow(1<<27))
	if err != nil {
		return nil, err
	}
	defer z.Close()
	return z.DecodeAll(b, nil)
}
