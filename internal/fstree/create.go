package fstree

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/gobtrfs/gobtrfs/internal/checksum"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
)

func extrefHash(dir uint64, name []byte) uint32 { return checksum.ExtrefHash(dir, name) }

// Attr is what a new inode begins with.
type Attr struct {
	Mode     uint32 // type and permissions
	UID, GID uint32 // in a directory with the setgid bit, GID is that directory's
	Rdev     uint64 // of devices, as on disk
	Target   []byte // of symbolic links
}

// entryType is the type of a directory entry for a mode; 0 if there is none.
func entryType(mode uint32) uint8 {
	switch mode & ModeType {
	case ModeFile:
		return ondisk.FTFile
	case ModeDir:
		return ondisk.FTDir
	case ModeChar:
		return ondisk.FTChar
	case ModeBlock:
		return ondisk.FTBlock
	case ModeFifo:
		return ondisk.FTFifo
	case ModeSocket:
		return ondisk.FTSock
	case ModeSymlink:
		return ondisk.FTSymlink
	}
	return 0
}

// maxTarget is the longest target of a symbolic link.
const maxTarget = 4095

func (t *Tree) checkAttr(a Attr) error {
	if entryType(a.Mode) == 0 {
		return fmt.Errorf("mode %o: %w", a.Mode, fs.ErrInvalid)
	}
	if a.Mode&ModeType != ModeSymlink {
		return nil
	}
	if len(a.Target) == 0 {
		return fmt.Errorf("empty target: %w", fs.ErrInvalid)
	}
	if len(a.Target) > maxTarget || len(a.Target) > t.maxItem()-ondisk.FileExtentInlineStart {
		return ErrNameTooLong
	}
	return nil
}

// Create makes an inode of any type called name in directory dir.
func (t *Tree) Create(ctx context.Context, dir uint64, name []byte, a Attr) (uint64, error) {
	if err := t.checkAttr(a); err != nil {
		return 0, err
	}
	parent, err := t.vacant(ctx, dir, name)
	if err != nil {
		return 0, err
	}
	prop, err := t.inheritedProp(ctx, dir, parent, a.Mode)
	if err != nil {
		return 0, err
	}
	index, err := t.nextIndex(ctx, dir)
	if err != nil {
		return 0, err
	}
	ino, err := t.nextIno(ctx)
	if err != nil {
		return 0, err
	}
	e := t.edit(ctx)
	e.insert(inodeKey(ino), t.newInode(parent, a, prop).Append(make([]byte, 0, ondisk.InodeItemSize)))
	e.addRef(ino, dir, name, index)
	if prop != nil {
		e.insert(hashKey(ino, ondisk.TypeXattrItem, []byte(propCompression)), t.xattrBody(propCompression, prop))
	}
	if a.Mode&ModeType == ModeSymlink {
		e.insert(ondisk.Key{Objectid: ino, Type: ondisk.TypeExtentData}, ondisk.FileExtent{
			Generation: t.tx.Generation(), RAMBytes: uint64(len(a.Target)), Inline: a.Target,
		}.Append(nil))
	}
	e.addEntry(dir, Entry{Name: name, Location: inodeKey(ino), Type: entryType(a.Mode), Index: index})
	e.dirChanged(dir, len(name))
	return ino, e.done()
}

// newInode is the item of a new inode in directory parent.
func (t *Tree) newInode(parent ondisk.InodeItem, a Attr, prop []byte) ondisk.InodeItem {
	now := t.tx.Now()
	it := ondisk.InodeItem{
		Generation: t.tx.Generation(), Transid: t.tx.Generation(), Nlink: 1,
		UID: a.UID, GID: a.GID, Mode: a.Mode & (ModeType | modeBits), Flags: inheritedFlags(parent.Flags, a.Mode),
		Atime: now, Ctime: now, Mtime: now, Otime: now,
	}
	if parent.Mode&modeSetgid != 0 {
		it.GID = parent.GID
		if a.Mode&ModeType == ModeDir {
			it.Mode |= modeSetgid
		}
	}
	switch a.Mode & ModeType {
	case ModeChar, ModeBlock:
		it.Rdev = a.Rdev
	case ModeSymlink:
		it.Size, it.Nbytes = uint64(len(a.Target)), uint64(len(a.Target))
	}
	if prop != nil {
		it.Flags |= ondisk.InodeCompress
	}
	return it
}

// inheritedFlags are the flags that a directory hands on to files and
// directories in it.
func inheritedFlags(dir uint64, mode uint32) uint64 {
	var f uint64
	isFile := mode&ModeType == ModeFile
	if !isFile && mode&ModeType != ModeDir {
		return 0
	}
	f |= dir & (ondisk.InodeNocompress | ondisk.InodeNodatacow)
	if f&ondisk.InodeNocompress == 0 {
		f |= dir & ondisk.InodeCompress
	}
	if f&ondisk.InodeNodatacow != 0 && isFile {
		f |= ondisk.InodeNodatasum
	}
	return f
}

// inheritedProp is the compression property that a directory hands on, or nil.
func (t *Tree) inheritedProp(ctx context.Context, dir uint64, parent ondisk.InodeItem, mode uint32) ([]byte, error) {
	if m := mode & ModeType; m != ModeFile && m != ModeDir || parent.Flags&ondisk.InodeCompress == 0 {
		return nil, nil
	}
	v, err := Xattr(ctx, t.t, dir, propCompression)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil || CompressionOf(string(v)) == ondisk.CompressNone {
		return nil, err
	}
	return v, nil
}

// Link gives the inode ino another name.
func (t *Tree) Link(ctx context.Context, ino, dir uint64, name []byte) error {
	it, err := ReadInode(ctx, t.t, ino)
	switch {
	case err != nil:
		return err
	case it.Mode&ModeType == ModeDir:
		return place(t.t, ino, ErrIsDir)
	case it.Nlink >= maxLinks:
		return place(t.t, ino, ErrTooManyLinks)
	}
	if _, err := t.vacant(ctx, dir, name); err != nil {
		return err
	}
	if err := t.refRoom(ctx, ino, dir, name); err != nil {
		return err
	}
	index, err := t.nextIndex(ctx, dir)
	if err != nil {
		return err
	}
	e := t.edit(ctx)
	e.addRef(ino, dir, name, index)
	e.addEntry(dir, Entry{Name: name, Location: inodeKey(ino), Type: entryType(it.Mode), Index: index})
	e.dirChanged(dir, len(name))
	e.inode(ino, func(it *ondisk.InodeItem) {
		it.Nlink++
		it.Ctime = t.tx.Now()
	})
	if it.Nlink == 0 { // an open file without a name gets one
		e.delete(orphanKey(ino))
		t.forgetOrphan(ino)
	}
	return e.done()
}

// refRoom checks that the inode can note one more name.
func (t *Tree) refRoom(ctx context.Context, ino, dir uint64, name []byte) error {
	room := func(k ondisk.Key, n int) (bool, error) {
		b, err := t.t.Get(ctx, k)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return false, place(t.t, ino, err)
		}
		return len(b)+n <= t.maxItem(), nil
	}
	ok, err := room(refKey(ino, dir), len(ondisk.AppendInodeRef(nil, ondisk.InodeRef{Name: name})))
	if err == nil && !ok && t.hasExtref() {
		ok, err = room(extrefKey(ino, dir, name), len(ondisk.AppendInodeExtref(nil, ondisk.InodeExtref{Name: name})))
	}
	if err == nil && !ok {
		err = place(t.t, ino, ErrTooManyLinks)
	}
	return err
}
