package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/gobtrfs/gobtrfs/btrfs"
)

// mkfsFlags are the options of mkfs.
type mkfsFlags struct {
	size         sizeFlag
	uuid         string
	subvols      []string
	features     string
	force, quiet bool
	opt          btrfs.MakeOptions
	made         []string // image files that were not there before
}

func mkfsCommand() *cobra.Command {
	var f mkfsFlags
	var node, sector sizeFlag
	cmd := &cobra.Command{
		Use: "mkfs TARGET", Short: "Make a volume", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, name := range []string{"size", "nodesize", "sectorsize"} {
				if f := cmd.Flags().Lookup(name); f.Changed && f.Value.String() == "0" {
					return usagef("mkfs: --%s: a size of 0 makes no sense", name)
				}
			}
			if max(node, sector) > math.MaxInt32 {
				return usagef("mkfs: %s is no size of a block", iec(uint64(max(node, sector))))
			}
			f.opt.Nodesize, f.opt.Sectorsize = uint32(node), uint32(sector)
			if err := f.parse(); err != nil {
				return err
			}
			if err := f.run(cmd, args[0]); err != nil {
				for _, name := range f.made {
					os.Remove(name)
				}
				if errors.Is(err, btrfs.ErrOptions) {
					return usagef("mkfs: %s: %v", args[0], err)
				}
				return fmt.Errorf("mkfs: %s: %w", args[0], err)
			}
			return nil
		},
	}
	fl := cmd.Flags()
	fl.Var(&f.size, "size", "size of each image file (made or grown)")
	fl.StringVarP(&f.opt.Label, "label", "L", "", "label")
	fl.StringVarP(&f.uuid, "uuid", "U", "", "UUID of the volume")
	fl.VarP(&node, "nodesize", "n", "size of tree blocks")
	fl.VarP(&sector, "sectorsize", "s", "size of sectors")
	fl.StringVar(&f.opt.Checksum, "checksum", "", "crc32c, xxhash, sha256 or blake2")
	fl.StringVar(&f.opt.Checksum, "csum", "", "the same")
	fl.StringVarP(&f.opt.Data, "data", "d", "", "profile of data")
	fl.StringVarP(&f.opt.Metadata, "metadata", "m", "", "profile of metadata")
	fl.StringVarP(&f.features, "features", "O", "", "features, with commas; ^ before a name leaves it out")
	fl.StringVarP(&f.opt.RootDir, "rootdir", "r", "", "directory whose contents the volume gets")
	fl.StringArrayVarP(&f.subvols, "subvol", "u", nil, "[rw|ro|default|default-ro]:DIR makes DIR below the rootdir a subvolume")
	fl.StringVar(&f.opt.Compression, "compress", "", "no, zlib[:L], lzo or zstd[:L]")
	fl.BoolVar(&f.opt.Shrink, "shrink", false, "cut the image to what is needed")
	fl.BoolVar(&f.opt.Reproducible, "reproducible", false, "same input, same bytes")
	fl.BoolVarP(&f.force, "force", "f", false, "overwrite an existing file system")
	fl.BoolVarP(&f.quiet, "quiet", "q", false, "say nothing")
	return cmd
}

func (f *mkfsFlags) parse() error {
	if f.uuid != "" {
		u, err := btrfs.ParseUUID(f.uuid)
		if err != nil {
			return usagef("mkfs: %v", err)
		}
		f.opt.UUID = u
	}
	if f.features != "" {
		f.opt.Features = strings.Split(f.features, ",")
	}
	if f.opt.Compression == "no" {
		f.opt.Compression = ""
	}
	for _, s := range f.subvols {
		sv := btrfs.MakeSubvol{Path: s}
		if kind, dir, ok := strings.Cut(s, ":"); ok {
			switch kind {
			case "rw":
			case "ro":
				sv.ReadOnly = true
			case "default":
				sv.Default = true
			case "default-ro":
				sv.Default, sv.ReadOnly = true, true
			default:
				return usagef("mkfs: --subvol %s: the kind is rw, ro, default or default-ro", s)
			}
			sv.Path = dir
		}
		f.opt.Subvols = append(f.opt.Subvols, sv)
	}
	if (len(f.opt.Subvols) > 0 || f.opt.Shrink) && f.opt.RootDir == "" {
		return usagef("mkfs: --subvol and --shrink need --rootdir")
	}
	return nil
}

func (f *mkfsFlags) run(cmd *cobra.Command, target string) error {
	names := strings.Split(target, ",")
	var devs []btrfs.Device
	defer func() {
		for _, d := range devs {
			d.Close()
		}
	}()
	for _, name := range names {
		d, err := f.prepare(name)
		if err != nil {
			return err
		}
		devs = append(devs, d)
	}
	p := newProgress(f.quiet)
	f.opt.Progress = func(done, total uint64) { p.tell(bytesState("mkfs", done, total)) }
	res, err := btrfs.Make(cmd.Context(), devs, f.opt)
	p.done()
	if err != nil {
		return err
	}
	if f.opt.Shrink {
		for i, name := range names {
			if err := shrinkFile(name, res.DevSizes[i]); err != nil {
				return err
			}
		}
	}
	if !f.quiet {
		fmt.Fprintf(cmd.OutOrStdout(), "Made %s: uuid %s, %s", target, res.UUID, iec(res.Size))
		if f.opt.RootDir != "" {
			fmt.Fprintf(cmd.OutOrStdout(), ", %d files", res.Files)
		}
		fmt.Fprintf(cmd.OutOrStdout(), " (%s)\n", p.elapsed())
	}
	return nil
}

// prepare makes or grows an image file and opens it; it refuses to overwrite a
// file system unless -f is given.
func (f *mkfsFlags) prepare(name string) (btrfs.Device, error) {
	if err := f.sizeFile(name); err != nil {
		return nil, err
	}
	d, err := btrfs.OpenDevice(name, false)
	switch {
	case errors.Is(err, fs.ErrNotExist) && f.size == 0:
		return nil, fmt.Errorf("%w; --size makes one", err)
	case err != nil:
		return nil, err
	}
	if what := fileSystemOn(d); what != "" && !f.force {
		d.Close()
		return nil, fmt.Errorf("%s holds %s; use -f to overwrite it", name, what)
	}
	return d, nil
}

// sizeFile makes or grows an image file to the size asked for. What is no file of
// that name, such as a partition or an NBD export, has its own size.
func (f *mkfsFlags) sizeFile(name string) error {
	if f.size == 0 {
		return nil
	}
	fi, err := os.Stat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if d, err := btrfs.OpenDevice(name, true); err == nil {
			return d.Close()
		}
	case err != nil:
		return nil // opening it tells more
	case !fi.Mode().IsRegular():
		return nil
	case uint64(fi.Size()) >= uint64(f.size):
		return nil
	}
	file, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	if fi == nil {
		f.made = append(f.made, name)
	}
	if fileSystemOn(file) != "" && !f.force {
		return file.Close() // is refused, and stays as it is
	}
	return errors.Join(file.Truncate(int64(f.size)), file.Close())
}

func shrinkFile(name string, size uint64) error {
	fi, err := os.Stat(name)
	if err != nil || !fi.Mode().IsRegular() || uint64(fi.Size()) <= size {
		return nil // a device, a part of an image, or nothing to cut
	}
	return os.Truncate(name, int64(size))
}

// fileSystemOn names the file system found on r, or "".
func fileSystemOn(r io.ReaderAt) string {
	for _, m := range []struct {
		off  int64
		sign string
		name string
	}{
		{0x10040, "_BHRfS_M", "a btrfs volume"},
		{0x438, "\x53\xef", "an ext2/3/4 file system"},
		{0, "XFSB", "an xfs file system"},
		{0x36, "FAT", "a FAT file system"},
		{0x52, "FAT32", "a FAT file system"},
		{3, "NTFS", "an NTFS file system"},
		{0, "LUKS\xba\xbe", "a LUKS volume"},
		{0x200, "EFI PART", "a GPT partition table"},
		{0x218, "LVM2 001", "an LVM physical volume"},
		{0x400, "\x10\x20\xf5\xf2", "an f2fs file system"},
		{0xff6, "SWAPSPACE2", "swap space"},
		{0x8001, "CD001", "an ISO 9660 file system"},
		{0x1fe, "\x55\xaa", "a partition table or boot sector"},
	} {
		b := make([]byte, len(m.sign))
		if n, _ := r.ReadAt(b, m.off); n == len(b) && string(b) == m.sign {
			return m.name
		}
	}
	return ""
}
