package fstree

import (
	"context"
	"fmt"
	"io/fs"
	"strings"

	"github.com/gobtrfs/gobtrfs/internal/ondisk"
)

// SetAttr is what to change of an inode; nil keeps what is there. Without Ctime
// the time of change is now.
type SetAttr struct {
	Mode                *uint32 // permissions; the type cannot change
	UID, GID            *uint32
	Atime, Mtime, Ctime *ondisk.Timespec
	Otime               *ondisk.Timespec
	Flags               *uint64 // ondisk.InodeNodatasum …
}

// settable are the flags that SetAttr may change.
const settable = ondisk.InodeNodatasum | ondisk.InodeNodatacow | ondisk.InodeNocompress | ondisk.InodeSync | ondisk.InodeImmutable |
	ondisk.InodeAppend | ondisk.InodeNodump | ondisk.InodeNoatime | ondisk.InodeDirsync | ondisk.InodeCompress

// SetAttr changes attributes of an inode.
func (t *Tree) SetAttr(ctx context.Context, ino uint64, a SetAttr) error {
	it, err := ReadInode(ctx, t.t, ino)
	if err != nil {
		return err
	}
	if err := checkFlags(it, a.Flags); err != nil {
		return place(t.t, ino, err)
	}
	return t.EditInode(ctx, ino, func(it *ondisk.InodeItem) {
		it.Ctime = t.tx.Now()
		set(&it.Ctime, a.Ctime)
		set(&it.Atime, a.Atime)
		set(&it.Mtime, a.Mtime)
		set(&it.Otime, a.Otime)
		set(&it.UID, a.UID)
		set(&it.GID, a.GID)
		if a.Mode != nil {
			it.Mode = it.Mode&ModeType | *a.Mode&modeBits
		}
		if a.Flags != nil {
			it.Flags = it.Flags&^settable | *a.Flags&settable
		}
	})
}

func set[T any](to *T, from *T) {
	if from != nil {
		*to = *from
	}
}

// checkFlags refuses flags that contradict each other or the data of the inode.
func checkFlags(it ondisk.InodeItem, flags *uint64) error {
	if flags == nil {
		return nil
	}
	const sums = ondisk.InodeNodatasum | ondisk.InodeNodatacow
	const both = ondisk.InodeCompress | ondisk.InodeNocompress
	f := *flags
	switch {
	case f&both == both, f&ondisk.InodeNodatacow != 0 && f&ondisk.InodeCompress != 0:
		return fmt.Errorf("flags %#x: %w", f, fs.ErrInvalid)
	case it.Mode&ModeType == ModeFile && (f^it.Flags)&sums != 0 && (it.Size > 0 || it.Nbytes > 0):
		return fmt.Errorf("flags %#x of a file with data: %w", f, fs.ErrInvalid)
	case it.Mode&ModeType == ModeSymlink && f&settable != 0:
		return fmt.Errorf("flags of a symbolic link: %w", fs.ErrInvalid)
	}
	return nil
}

// propCompression is the property that chooses the compression of a file, or of
// what is made in a directory.
const (
	propPrefix      = "btrfs."
	propCompression = "btrfs.compression"
)

// CompressionOf is the algorithm that a value of the property means; none for
// "no", "none" and what is unknown. A level may follow a colon.
func CompressionOf(value string) uint8 {
	name, _, _ := strings.Cut(value, ":")
	switch name {
	case "zlib":
		return ondisk.CompressZlib
	case "lzo":
		return ondisk.CompressLZO
	case "zstd":
		return ondisk.CompressZstd
	}
	return ondisk.CompressNone
}

// propFlags gives what a property makes of the inode's flags.
func propFlags(it ondisk.InodeItem, name, value string) (uint64, error) {
	const both = ondisk.InodeCompress | ondisk.InodeNocompress
	m := it.Mode & ModeType
	if name != propCompression || m != ModeFile && m != ModeDir {
		return 0, fmt.Errorf("property %q: %w", name, fs.ErrInvalid)
	}
	switch {
	case value == "no", value == "none":
		return it.Flags&^both | ondisk.InodeNocompress, nil
	case it.Flags&(ondisk.InodeNodatasum|ondisk.InodeNodatacow) != 0 && m == ModeFile,
		CompressionOf(value) == ondisk.CompressNone:
		return 0, fmt.Errorf("property %q=%q: %w", name, value, fs.ErrInvalid)
	}
	return it.Flags&^both | ondisk.InodeCompress, nil
}

// xattrBody is one entry of an XATTR_ITEM.
func (t *Tree) xattrBody(name string, value []byte) []byte {
	return ondisk.AppendDirEntry(nil, ondisk.DirEntry{
		Transid: t.tx.Generation(), Type: ondisk.FTXattr, Name: []byte(name), Data: value,
	})
}

// SetXattr sets an extended attribute.
func (t *Tree) SetXattr(ctx context.Context, ino uint64, name string, value []byte) error {
	if name == propCompression && len(value) == 0 {
		return t.RemoveXattr(ctx, ino, name)
	}
	it, err := ReadInode(ctx, t.t, ino)
	if err != nil {
		return err
	}
	flags := it.Flags
	if strings.HasPrefix(name, propPrefix) {
		if flags, err = propFlags(it, name, string(value)); err != nil {
			return place(t.t, ino, err)
		}
	}
	k := hashKey(ino, ondisk.TypeXattrItem, []byte(name))
	list, err := hashed(ctx, t.t, k)
	if err != nil {
		return err
	}
	body, err := t.replaceXattr(list, name, value)
	if err != nil {
		return place(t.t, ino, err)
	}
	e := t.edit(ctx)
	if list == nil {
		e.insert(k, body)
	} else {
		e.update(k, body)
	}
	e.inode(ino, func(it *ondisk.InodeItem) { it.Flags, it.Ctime = flags, t.tx.Now() })
	if e.err == nil && name == propCompression {
		t.tx.AddIncompat(FeatureOf(CompressionOf(string(value))))
	}
	return e.done()
}

// FeatureOf is the bit that the superblock of a volume has when a compression is
// used.
func FeatureOf(compression uint8) uint64 {
	switch compression {
	case ondisk.CompressLZO:
		return ondisk.IncompatCompressLZO
	case ondisk.CompressZstd:
		return ondisk.IncompatCompressZstd
	}
	return 0
}

// replaceXattr is the item with one attribute set and the others kept.
func (t *Tree) replaceXattr(list []ondisk.DirEntry, name string, value []byte) ([]byte, error) {
	switch {
	case name == "" || strings.IndexByte(name, 0) >= 0:
		return nil, fmt.Errorf("attribute %q: %w", name, fs.ErrInvalid)
	case len(name) > maxName:
		return nil, ErrNameTooLong
	case len(name)+len(value) > t.maxItem()-ondisk.DirEntrySize:
		return nil, fmt.Errorf("attribute %q of %d bytes: %w", name, len(value), ErrTooLarge)
	}
	var body []byte
	for _, d := range list {
		if string(d.Name) != name {
			body = ondisk.AppendDirEntry(body, d)
		}
	}
	body = append(body, t.xattrBody(name, value)...)
	if len(body) > t.maxItem() {
		return nil, fmt.Errorf("attribute %q of %d bytes: %w", name, len(value), ErrTooLarge)
	}
	return body, nil
}

// RemoveXattr removes an extended attribute; fs.ErrNotExist if there is none.
func (t *Tree) RemoveXattr(ctx context.Context, ino uint64, name string) error {
	k := hashKey(ino, ondisk.TypeXattrItem, []byte(name))
	list, err := hashed(ctx, t.t, k)
	if err != nil {
		return err
	}
	if indexOf(list, []byte(name)) < 0 {
		return place(t.t, ino, fmt.Errorf("attribute %q: %w", name, fs.ErrNotExist))
	}
	e := t.edit(ctx)
	e.removeHashed(k, []byte(name))
	e.inode(ino, func(it *ondisk.InodeItem) {
		it.Ctime = t.tx.Now()
		if name == propCompression {
			it.Flags &^= ondisk.InodeCompress | ondisk.InodeNocompress
		}
	})
	return e.done()
}
