// Package subvol makes, lists, snapshots and unlinks subvolumes.
//
// A subvolume is a tree with a root item, a name in a directory of another
// subvolume (directory entry, ROOT_REF and ROOT_BACKREF, which must agree), and
// an entry in the UUID tree. Deleting unlinks only: the tree stays, dead, with
// an orphan item, until package cleaner (or the kernel's) drops it; until then it
// can be brought back. FORMAT:
// "Create a subvolume", "Take a snapshot", "Delete a subvolume".
//
// Functions that take a *transaction.Tx check everything that can be refused
// before they change anything; an error after that has made the transaction fail.
package subvol

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"sort"

	"github.com/gobtrfs/gobtrfs/internal/btree"
	"github.com/gobtrfs/gobtrfs/internal/fstree"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/roots"
	"github.com/gobtrfs/gobtrfs/internal/transaction"
)

// Errors that deleting is refused with.
var (
	ErrNested  = errors.New("other subvolumes are nested in it")
	ErrDefault = errors.New("it is the default subvolume; set another default first")
	ErrTop     = errors.New("the top-level subvolume cannot be deleted")

	// ErrNewSnapshot: a read-only snapshot cannot be made writable in the
	// transaction that took it.
	ErrNewSnapshot = errors.New("commit before a new read-only snapshot is made writable")
)

// Trees gives a tree by its id.
type Trees func(ctx context.Context, id ondisk.TreeID) (*btree.Tree, error)

// Info tells about a subvolume.
type Info struct {
	ID, Parent ondisk.TreeID // Parent is 0 for the top-level one and for deleted ones
	Path       string        // from the top, without a slash before it; "" for the top and deleted ones
	Item       ondisk.RootItem
	Deleted    bool // unlinked, not wholly dropped yet
}

// List lists all subvolumes in the order of their ids.
func List(ctx context.Context, trees Trees) ([]Info, error) {
	rt, err := trees(ctx, ondisk.RootTree)
	if err != nil {
		return nil, err
	}
	byID := map[ondisk.TreeID]*Info{}
	err = roots.All(ctx, rt, func(k ondisk.Key, item ondisk.RootItem) error {
		id := ondisk.TreeID(k.Objectid)
		if id.IsSubvolume() {
			byID[id] = &Info{ID: id, Item: item, Deleted: item.Refs == 0}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	l := lister{trees: trees, rt: rt, byID: byID, paths: map[ondisk.TreeID]string{ondisk.FSTree: ""}}
	out := make([]Info, 0, len(byID))
	for _, i := range byID {
		if !i.Deleted && i.ID != ondisk.FSTree {
			if err := l.place(ctx, i); err != nil {
				return nil, err
			}
		}
		out = append(out, *i)
	}
	sort.Slice(out, func(a, b int) bool { return out[a].ID < out[b].ID })
	return out, nil
}

// lister finds the paths of subvolumes.
type lister struct {
	trees Trees
	rt    *btree.Tree
	byID  map[ondisk.TreeID]*Info
	paths map[ondisk.TreeID]string // found so far
}

// place fills in Parent and Path.
func (l *lister) place(ctx context.Context, i *Info) error {
	path, parent, err := l.path(ctx, i.ID, 0)
	if err != nil {
		return err
	}
	i.Path, i.Parent = path, parent
	return nil
}

// maxNested bounds the depth of subvolumes in subvolumes, for root refs that lead
// in a circle.
const maxNested = 4096

func (l *lister) path(ctx context.Context, id ondisk.TreeID, depth int) (string, ondisk.TreeID, error) {
	refs, err := roots.Backrefs(ctx, l.rt, id)
	if err != nil || len(refs) == 0 {
		return "", 0, err // a subvolume without a place, as a rescue may leave it
	}
	r := refs[0]
	if p, ok := l.paths[id]; ok {
		return p, r.Parent, nil
	}
	if depth > maxNested {
		return "", 0, &ondisk.CorruptError{What: "root ref", Tree: ondisk.RootTree, Slot: -1, Reason: "subvolumes are nested in a circle", Got: id}
	}
	up, _, err := l.path(ctx, r.Parent, depth+1)
	if err != nil {
		return "", 0, err
	}
	t, err := l.trees(ctx, r.Parent)
	if err != nil {
		return "", 0, err
	}
	dir, err := fstree.PathOf(ctx, t, r.Dirid)
	if err != nil {
		return "", 0, fmt.Errorf("place of subvolume %d: %w", id, err)
	}
	p := join(join(up, dir), string(r.Name))
	l.paths[id] = p
	return p, r.Parent, nil
}

func join(a, b string) string {
	if a == "" || b == "" {
		return a + b
	}
	return a + "/" + b
}

// Default gives the subvolume that a mount without options shows.
func Default(ctx context.Context, trees Trees) (ondisk.TreeID, error) {
	rt, err := trees(ctx, ondisk.RootTree)
	if err != nil {
		return 0, err
	}
	return roots.Default(ctx, rt)
}

// SetDefault sets the subvolume that a mount without options shows.
func SetDefault(ctx context.Context, tx *transaction.Tx, id ondisk.TreeID) error {
	if _, _, err := tx.RootItem(ctx, id); err != nil {
		return err
	}
	if err := roots.SetDefault(ctx, tx.RootTree(), id); err != nil {
		return tx.Fail(err)
	}
	if id != ondisk.FSTree {
		tx.AddIncompat(ondisk.IncompatDefaultSubvol)
	}
	return nil
}

// SetReadOnly makes a subvolume read-only or writable. One that was received
// loses what tells so when it becomes writable, for it may now differ.
func SetReadOnly(ctx context.Context, tx *transaction.Tx, id ondisk.TreeID, readonly bool) error {
	item, key, err := tx.RootItem(ctx, id)
	if err != nil {
		return err
	}
	if !readonly && key.Offset >= uint64(tx.Generation()) {
		return ErrNewSnapshot
	}
	if readonly {
		item.Flags |= ondisk.RootFlagReadonly
		tx.Touch(id)
		return nil
	}
	received := item.ReceivedUUID
	item.Flags &^= ondisk.RootFlagReadonly
	forgetReceived(item)
	tx.Touch(id)
	if received.IsZero() {
		return nil
	}
	if err := removeUUID(ctx, tx, ondisk.TypeUUIDReceivedSubvol, received, id); err != nil {
		return tx.Fail(err)
	}
	return nil
}

func forgetReceived(item *ondisk.RootItem) {
	item.ReceivedUUID, item.Stime, item.Rtime, item.Stransid, item.Rtransid = ondisk.UUID{}, ondisk.Timespec{}, ondisk.Timespec{}, 0, 0
}

// newUUID makes a random UUID (version 4).
func newUUID() (ondisk.UUID, error) {
	var u ondisk.UUID
	if _, err := rand.Read(u[:]); err != nil {
		return u, err
	}
	u[6], u[8] = u[6]&0x0f|0x40, u[8]&0x3f|0x80
	return u, nil
}

// nextID gives the id of the next subvolume.
func nextID(ctx context.Context, tx *transaction.Tx) (ondisk.TreeID, error) {
	id, err := roots.HighestID(ctx, tx.RootTree())
	if err != nil {
		return 0, err
	}
	if uint64(id) >= ondisk.LastFreeObjectid {
		return 0, errors.New("no subvolume ids are left")
	}
	return id + 1, nil
}

// Create makes an empty subvolume called name in directory dir of parent.
func Create(ctx context.Context, tx *transaction.Tx, parent ondisk.TreeID, dir uint64, name []byte) (ondisk.TreeID, error) {
	pt, id, uuid, err := prepare(ctx, tx, parent, dir, name)
	if err != nil {
		return 0, err
	}
	key := ondisk.Key{Objectid: uint64(id), Type: ondisk.TypeRootItem}
	t, err := tx.NewTree(ctx, id, key, newItem(tx, uuid))
	if err != nil {
		return 0, tx.Fail(err)
	}
	if err := addRootDir(ctx, tx, t); err != nil {
		return 0, tx.Fail(err)
	}
	location := ondisk.Key{Objectid: uint64(id), Type: ondisk.TypeRootItem}
	if err := link(ctx, tx, pt, id, parent, dir, name, location, uuid); err != nil {
		return 0, tx.Fail(err)
	}
	return id, nil
}

// prepare checks that a name is free and picks id and UUID.
func prepare(ctx context.Context, tx *transaction.Tx, parent ondisk.TreeID, dir uint64, name []byte) (*fstree.Tree, ondisk.TreeID, ondisk.UUID, error) {
	pt, err := fstree.Open(ctx, tx, parent)
	if err != nil {
		return nil, 0, ondisk.UUID{}, err
	}
	if err := pt.Vacant(ctx, dir, name); err != nil {
		return nil, 0, ondisk.UUID{}, err
	}
	id, err := nextID(ctx, tx)
	if err != nil {
		return nil, 0, ondisk.UUID{}, err
	}
	uuid, err := newUUID()
	return pt, id, uuid, err
}

// newItem is the root item of a new subvolume.
func newItem(tx *transaction.Tx, uuid ondisk.UUID) ondisk.RootItem {
	gen, now := tx.Generation(), tx.Now()
	sb := tx.Super()
	return ondisk.RootItem{
		Inode: ondisk.InodeItem{
			Generation: 1, Size: 3, Nbytes: uint64(sb.Nodesize), Nlink: 1, Mode: 0o40755, Flags: ondisk.InodeRootItemInit,
		},
		RootDirid: ondisk.FirstFreeObjectid, BytesUsed: uint64(sb.Nodesize), Refs: 1, UUID: uuid,
		Ctransid: gen, Otransid: gen, Ctime: now, Otime: now,
	}
}

// addRootDir puts the root directory into a new tree.
func addRootDir(ctx context.Context, tx *transaction.Tx, t *btree.Tree) error {
	gen, now := tx.Generation(), tx.Now()
	inode := ondisk.InodeItem{
		Generation: gen, Transid: gen, Nlink: 1, Mode: 0o40755, Atime: now, Ctime: now, Mtime: now, Otime: now,
	}
	if err := t.Insert(ctx, ondisk.Key{Objectid: ondisk.FirstFreeObjectid, Type: ondisk.TypeInodeItem}, inode.Append(nil)); err != nil {
		return err
	}
	body := ondisk.AppendInodeRef(nil, ondisk.InodeRef{Name: []byte("..")})
	return t.Insert(ctx, ondisk.Key{Objectid: ondisk.FirstFreeObjectid, Type: ondisk.TypeInodeRef, Offset: ondisk.FirstFreeObjectid}, body)
}

// link gives a new subvolume its name, its root refs and its UUID entry.
func link(ctx context.Context, tx *transaction.Tx, pt *fstree.Tree, id, parent ondisk.TreeID, dir uint64, name []byte, location ondisk.Key, uuid ondisk.UUID) error {
	index, err := pt.AddSubvolume(ctx, dir, name, location)
	if err != nil {
		return err
	}
	err = roots.AddRef(ctx, tx.RootTree(), roots.Ref{Child: id, Parent: parent, Dirid: dir, Sequence: index, Name: name})
	if err != nil {
		return err
	}
	return addUUID(ctx, tx, ondisk.TypeUUIDSubvol, uuid, id)
}

// Snapshot makes a snapshot of src called name in directory dir of parent.
func Snapshot(ctx context.Context, tx *transaction.Tx, src, parent ondisk.TreeID, dir uint64, name []byte, readonly bool) (ondisk.TreeID, error) {
	old, _, err := tx.RootItem(ctx, src)
	if err != nil {
		return 0, err
	}
	if !src.IsSubvolume() || old.Refs == 0 {
		return 0, fmt.Errorf("%v cannot be snapshotted: %w", src, fs.ErrInvalid)
	}
	pt, id, uuid, err := prepare(ctx, tx, parent, dir, name)
	if err != nil {
		return 0, err
	}
	// Who drops the snapshot takes blocks that are not younger than its key for
	// blocks of its source. The kernel's snapshots begin to change in the next
	// transaction; ours may in this one, so the key must be older.
	key := ondisk.Key{Objectid: uint64(id), Type: ondisk.TypeRootItem, Offset: uint64(tx.Generation())}
	if !readonly {
		key.Offset--
	}
	item := snapshotItem(tx, *old, uuid, readonly)
	if err := tx.SnapshotTree(ctx, src, id, key, item); err != nil {
		return 0, tx.Fail(err)
	}
	location := ondisk.Key{Objectid: uint64(id), Type: ondisk.TypeRootItem, Offset: ^uint64(0)}
	if err := link(ctx, tx, pt, id, parent, dir, name, location, uuid); err != nil {
		return 0, tx.Fail(err)
	}
	if !item.ReceivedUUID.IsZero() {
		if err := addUUID(ctx, tx, ondisk.TypeUUIDReceivedSubvol, item.ReceivedUUID, id); err != nil {
			return 0, tx.Fail(err)
		}
	}
	return id, nil
}

// snapshotItem is the root item of a snapshot of the tree that old tells of.
func snapshotItem(tx *transaction.Tx, old ondisk.RootItem, uuid ondisk.UUID, readonly bool) ondisk.RootItem {
	item := old
	item.UUID, item.ParentUUID = uuid, old.UUID
	item.Otransid, item.Otime = tx.Generation(), tx.Now()
	item.DropProgress, item.DropLevel = ondisk.Key{}, 0
	item.Flags &^= ondisk.RootFlagReadonly
	if readonly {
		item.Flags |= ondisk.RootFlagReadonly
		return item
	}
	forgetReceived(&item)
	return item
}

// Deletable tells why one of some subvolumes cannot be deleted, or nil.
// Subvolumes that are nested in another one of the set do not matter only if
// they are deleted with it, so the order of ids does not matter.
func Deletable(ctx context.Context, trees Trees, ids []ondisk.TreeID) error {
	rt, err := trees(ctx, ondisk.RootTree)
	if err != nil {
		return err
	}
	def, err := roots.Default(ctx, rt)
	if err != nil {
		return err
	}
	set := map[ondisk.TreeID]bool{}
	for _, id := range ids {
		set[id] = true
	}
	for _, id := range ids {
		switch {
		case id == ondisk.FSTree || !id.IsSubvolume():
			return fmt.Errorf("subvolume %d: %w", id, ErrTop)
		case id == def:
			return fmt.Errorf("subvolume %d: %w", id, ErrDefault)
		}
		nested, err := roots.Refs(ctx, rt, id)
		if err != nil {
			return err
		}
		for _, n := range nested {
			if !set[n.Child] {
				return fmt.Errorf("subvolume %d: %w (%d, %q)", id, ErrNested, n.Child, n.Name)
			}
		}
	}
	return nil
}

// Delete unlinks subvolumes, all or none: names, root refs and UUID entries go,
// the trees are marked dead and get orphan items.
func Delete(ctx context.Context, tx *transaction.Tx, ids []ondisk.TreeID) error {
	ids = distinct(ids)
	if err := Deletable(ctx, tx.Tree, ids); err != nil {
		return err
	}
	for _, id := range ids {
		if err := unlink(ctx, tx, id); err != nil {
			return tx.Fail(fmt.Errorf("delete subvolume %d: %w", id, err))
		}
	}
	return nil
}

// distinct sorts ids, higher ones first: a nested subvolume that was made later
// goes before the one that holds it.
func distinct(ids []ondisk.TreeID) []ondisk.TreeID {
	out := append([]ondisk.TreeID{}, ids...)
	sort.Slice(out, func(i, j int) bool { return out[i] > out[j] })
	n := 0
	for i, id := range out {
		if i == 0 || id != out[n-1] {
			out[n] = id
			n++
		}
	}
	return out[:n]
}

func unlink(ctx context.Context, tx *transaction.Tx, id ondisk.TreeID) error {
	refs, err := roots.Backrefs(ctx, tx.RootTree(), id)
	if err != nil {
		return err
	}
	for _, r := range refs {
		pt, err := fstree.Open(ctx, tx, r.Parent)
		if err != nil {
			return err
		}
		if err := pt.RemoveSubvolume(ctx, r.Dirid, r.Name, r.Sequence); err != nil {
			return err
		}
		if err := roots.RemoveRef(ctx, tx.RootTree(), r.Parent, id); err != nil {
			return err
		}
	}
	item, _, err := tx.RootItem(ctx, id)
	if err != nil {
		return err
	}
	item.Refs, item.DropProgress, item.DropLevel = 0, ondisk.Key{}, 0
	item.Flags |= ondisk.RootFlagDead
	tx.Touch(id)
	if err := roots.AddOrphan(ctx, tx.RootTree(), id); err != nil {
		return err
	}
	if err := removeUUID(ctx, tx, ondisk.TypeUUIDSubvol, item.UUID, id); err != nil {
		return err
	}
	return removeUUID(ctx, tx, ondisk.TypeUUIDReceivedSubvol, item.ReceivedUUID, id)
}
