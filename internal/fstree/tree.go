package fstree

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/gobtrfs/gobtrfs/internal/btree"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/transaction"
)

// Types of files, as in Mode.
const (
	ModeType    = 0o170000
	ModeSocket  = 0o140000
	ModeSymlink = 0o120000
	ModeFile    = 0o100000
	ModeBlock   = 0o060000
	ModeDir     = 0o040000
	ModeChar    = 0o020000
	ModeFifo    = 0o010000

	modeSetgid = 0o2000
	modeBits   = 0o7777
)

const (
	maxName  = 255
	maxLinks = 65535
)

// Tree is a subvolume's tree that a transaction changes.
type Tree struct {
	tx *transaction.Tx
	t  *btree.Tree
	id ondisk.TreeID

	// KeepOrphans leaves every inode that loses its last name as an orphan, for
	// callers with open files. Otherwise small ones are removed at once.
	KeepOrphans bool
	orphaned    []uint64
}

// Open gives the tree of subvolume id for changing.
func Open(ctx context.Context, tx *transaction.Tx, id ondisk.TreeID) (*Tree, error) {
	t, err := tx.Tree(ctx, id)
	if err != nil {
		return nil, err
	}
	return &Tree{tx: tx, t: t, id: id}, nil
}

// Alive gives ErrDeleted for a subvolume that was deleted. Its tree is read by
// who drops it, without a lock, and must not change any more.
func Alive(ctx context.Context, tx *transaction.Tx, id ondisk.TreeID) error {
	_, err := aliveItem(ctx, tx, id)
	return err
}

// Writable tells why files of a subvolume must not be changed: ErrDeleted,
// ErrReadOnly.
func Writable(ctx context.Context, tx *transaction.Tx, id ondisk.TreeID) error {
	item, err := aliveItem(ctx, tx, id)
	if err == nil && item.Flags&ondisk.RootFlagReadonly != 0 {
		err = ErrReadOnly
	}
	return err
}

func aliveItem(ctx context.Context, tx *transaction.Tx, id ondisk.TreeID) (*ondisk.RootItem, error) {
	item, _, err := tx.RootItem(ctx, id)
	if errors.Is(err, fs.ErrNotExist) || err == nil && item.Refs == 0 {
		return nil, ErrDeleted
	}
	return item, err
}

// Items gives the tree for the functions that read.
func (t *Tree) Items() *btree.Tree { return t.t }

// Orphaned lists the inodes that lost their last name through t and are still
// there.
func (t *Tree) Orphaned() []uint64 { return t.orphaned }

// maxItem is the size of the largest item.
func (t *Tree) maxItem() int { return int(t.t.Nodesize()) - ondisk.HeaderSize - ondisk.ItemSize }

func (t *Tree) hasExtref() bool {
	return t.tx.Super().Incompat&ondisk.IncompatExtendedIref != 0
}

// edit is a change of several items. The first error is kept, and what would
// come after it is not done.
type edit struct {
	*Tree
	ctx context.Context
	err error
}

func (t *Tree) edit(ctx context.Context) *edit { return &edit{Tree: t, ctx: ctx} }

// done ends the change: after an error, the items may contradict each other, so
// the transaction must not be committed.
func (e *edit) done() error {
	if e.err != nil {
		return e.tx.Fail(e.err)
	}
	return nil
}

func (e *edit) insert(k ondisk.Key, data []byte) {
	if e.err == nil {
		e.err = e.t.Insert(e.ctx, k, data)
	}
}

func (e *edit) update(k ondisk.Key, data []byte) {
	if e.err == nil {
		e.err = e.t.Update(e.ctx, k, data)
	}
}

func (e *edit) delete(k ondisk.Key) {
	if e.err == nil {
		e.err = e.t.Delete(e.ctx, k)
	}
}

// inode changes an inode item, and what every change of an inode changes.
func (e *edit) inode(ino uint64, fn func(*ondisk.InodeItem)) {
	if e.err != nil {
		return
	}
	b, err := e.t.Edit(e.ctx, inodeKey(ino))
	if err != nil {
		e.err = place(e.t, ino, err)
		return
	}
	it, err := ondisk.DecodeInodeItem(b)
	if err != nil {
		e.err = place(e.t, ino, err)
		return
	}
	fn(&it)
	it.Transid = e.tx.Generation()
	it.Sequence++
	it.Append(b[:0]) // as long as it was
}

// get reads an item; none gives no bytes.
func (e *edit) get(k ondisk.Key) []byte {
	if e.err != nil {
		return nil
	}
	b, err := e.t.Get(e.ctx, k)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		e.err = err
	}
	return b
}

// grow appends to an item that may not be there yet.
func (e *edit) grow(k ondisk.Key, body []byte) {
	if old := e.get(k); old != nil {
		e.update(k, append(bytes.Clone(old), body...))
		return
	}
	e.insert(k, body)
}

// put stores an item, or deletes it when nothing is left in it.
func (e *edit) put(k ondisk.Key, body []byte) {
	if len(body) == 0 {
		e.delete(k)
		return
	}
	e.update(k, body)
}

// addEntry writes the DIR_ITEM entry and the DIR_INDEX item of a name.
func (e *edit) addEntry(dir uint64, ent Entry) {
	body := ondisk.AppendDirEntry(make([]byte, 0, ondisk.DirEntrySize+maxName), ondisk.DirEntry{
		Location: ent.Location, Transid: e.tx.Generation(), Type: ent.Type, Name: ent.Name,
	})
	e.grow(hashKey(dir, ondisk.TypeDirItem, ent.Name), body)
	e.insert(ondisk.Key{Objectid: dir, Type: ondisk.TypeDirIndex, Offset: ent.Index}, body)
}

// removeEntry is the opposite of addEntry.
func (e *edit) removeEntry(dir uint64, ent Entry) {
	e.delete(ondisk.Key{Objectid: dir, Type: ondisk.TypeDirIndex, Offset: ent.Index})
	e.removeHashed(hashKey(dir, ondisk.TypeDirItem, ent.Name), ent.Name)
}

// removeHashed takes the entry called name out of an item found by a hash.
func (e *edit) removeHashed(k ondisk.Key, name []byte) {
	list, err := ondisk.DecodeDirEntries(e.get(k))
	if e.err == nil && err != nil {
		e.err = err
	}
	var body []byte
	for _, d := range list {
		if !bytes.Equal(d.Name, name) {
			body = ondisk.AppendDirEntry(body, d)
		}
	}
	e.put(k, body)
}

func refKey(ino, dir uint64) ondisk.Key {
	return ondisk.Key{Objectid: ino, Type: ondisk.TypeInodeRef, Offset: dir}
}

func extrefKey(ino, dir uint64, name []byte) ondisk.Key {
	return ondisk.Key{Objectid: ino, Type: ondisk.TypeInodeExtref, Offset: uint64(extrefHash(dir, name))}
}

// addRef notes in the inode that it has a name: in the INODE_REF item of the
// directory while that has room, else in an INODE_EXTREF item.
func (e *edit) addRef(ino, dir uint64, name []byte, index uint64) {
	body := ondisk.AppendInodeRef(nil, ondisk.InodeRef{Index: index, Name: name})
	if len(e.get(refKey(ino, dir)))+len(body) <= e.maxItem() {
		e.grow(refKey(ino, dir), body)
		return
	}
	body = ondisk.AppendInodeExtref(nil, ondisk.InodeExtref{Parent: dir, Index: index, Name: name})
	e.grow(extrefKey(ino, dir, name), body)
}

// removeRef is the opposite of addRef.
func (e *edit) removeRef(ino, dir uint64, name []byte) {
	refs, err := ondisk.DecodeInodeRefs(e.get(refKey(ino, dir)))
	if e.err == nil && err != nil {
		e.err = err
	}
	var body []byte
	for _, r := range refs {
		if !bytes.Equal(r.Name, name) {
			body = ondisk.AppendInodeRef(body, r)
		}
	}
	if size := refsSize(refs); len(body) < size {
		e.put(refKey(ino, dir), body)
		return
	}
	e.removeExtref(ino, dir, name)
}

func refsSize(refs []ondisk.InodeRef) int {
	n := 0
	for _, r := range refs {
		n += len(ondisk.AppendInodeRef(nil, r))
	}
	return n
}

func (e *edit) removeExtref(ino, dir uint64, name []byte) {
	k := extrefKey(ino, dir, name)
	refs, err := ondisk.DecodeInodeExtrefs(e.get(k))
	if e.err == nil && err != nil {
		e.err = err
	}
	var body []byte
	for _, r := range refs {
		if r.Parent != dir || !bytes.Equal(r.Name, name) {
			body = ondisk.AppendInodeExtref(body, r)
		}
	}
	e.put(k, body)
}

// dirChanged notes that names of n bytes were added to a directory (or taken
// away, when n is negative).
func (e *edit) dirChanged(dir uint64, n int) {
	e.inode(dir, func(it *ondisk.InodeItem) {
		it.Size += uint64(2 * n) // wraps as it should
		it.Mtime = e.tx.Now()
		it.Ctime = it.Mtime
	})
}

// EditInode changes an inode item. The transaction id and the sequence number
// are seen to.
func (t *Tree) EditInode(ctx context.Context, ino uint64, fn func(*ondisk.InodeItem)) error {
	e := t.edit(ctx)
	e.inode(ino, fn)
	return e.done()
}

// checkName tells whether a directory may hold such a name.
func checkName(name []byte) error {
	switch {
	case len(name) > maxName:
		return ErrNameTooLong
	case len(name) == 0, string(name) == ".", string(name) == "..", bytes.IndexByte(name, '/') >= 0, bytes.IndexByte(name, 0) >= 0:
		return fmt.Errorf("name %q: %w", name, fs.ErrInvalid)
	}
	return nil
}

// liveDir reads the inode of a directory that may get names.
func (t *Tree) liveDir(ctx context.Context, dir uint64) (ondisk.InodeItem, error) {
	it, err := ReadInode(ctx, t.t, dir)
	switch {
	case err != nil:
		return it, err
	case it.Mode&ModeType != ModeDir:
		return it, place(t.t, dir, ErrNotDir)
	case it.Nlink == 0:
		return it, place(t.t, dir, fs.ErrNotExist)
	}
	return it, nil
}

// vacant checks that a name may be added to a directory.
func (t *Tree) vacant(ctx context.Context, dir uint64, name []byte) (ondisk.InodeItem, error) {
	if err := checkName(name); err != nil {
		return ondisk.InodeItem{}, err
	}
	it, err := t.liveDir(ctx, dir)
	if err != nil {
		return it, err
	}
	list, err := hashed(ctx, t.t, hashKey(dir, ondisk.TypeDirItem, name))
	if err != nil {
		return it, err
	}
	if indexOf(list, name) >= 0 {
		return it, fmt.Errorf("%q in directory %d: %w", name, dir, fs.ErrExist)
	}
	return it, t.hashRoom(list, name)
}

// hashRoom checks that an item found by a hash has room for one more name.
func (t *Tree) hashRoom(list []ondisk.DirEntry, name []byte) error {
	size := ondisk.DirEntrySize + len(name)
	for _, d := range list {
		size += ondisk.DirEntrySize + len(d.Name) + len(d.Data)
	}
	if size > t.maxItem() {
		return fmt.Errorf("name %q: %w", name, ErrTooLarge)
	}
	return nil
}

// nextIndex gives the directory's next free index.
func (t *Tree) nextIndex(ctx context.Context, dir uint64) (uint64, error) {
	c, err := t.t.SeekLast(ctx, ondisk.Key{Objectid: dir, Type: ondisk.TypeDirIndex, Offset: ^uint64(0)})
	if err != nil {
		return 0, place(t.t, dir, err)
	}
	const first = 2
	if !c.Valid() || c.Key().Objectid != dir || c.Key().Type != ondisk.TypeDirIndex {
		return first, nil
	}
	last := c.Key().Offset
	if last >= ^uint64(0)-1 {
		return 0, place(t.t, dir, fmt.Errorf("directory index: %w", ErrTooLarge))
	}
	return max(last+1, first), nil
}

// nextIno gives the subvolume's next free inode number.
func (t *Tree) nextIno(ctx context.Context) (uint64, error) {
	const last = uint64(ondisk.LastFreeObjectid)
	c, err := t.t.SeekLast(ctx, ondisk.Key{Objectid: last, Type: 255, Offset: ^uint64(0)})
	if err != nil {
		return 0, err
	}
	if !c.Valid() {
		return 0, place(t.t, RootIno, fs.ErrNotExist)
	}
	ino := c.Key().Objectid
	if ino >= last {
		return 0, fmt.Errorf("inode numbers of subvolume %d: %w", uint64(t.id), ErrTooLarge)
	}
	return max(ino, RootIno) + 1, nil
}
