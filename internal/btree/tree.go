// Package btree searches and changes copy-on-write trees. It does not know what an item means.
//
// What must hold:
//
//   - A block that is not private to the running transaction (Space.Writable) is never changed: it is copied first
//     (Space.Copy), top down, and its parent points at the copy at once.
//   - Each node key is exactly the first key of its child; levels fall by one; a block other than the root is never
//     empty; pointer generations are the children's. A tree may be one empty leaf.
//   - The level bounds every descent, so bad pointers cannot make a walk endless; what a parent says of a child is
//     checked at each step (package treeblock).
//
// A tree has many readers or one writer at a time; callers see to that. There are two ways to change it: point
// changes (Insert, Update, Put, Delete, Edit), and Apply, a sorted batch that rewrites each leaf it meets once.
package btree

import (
	"context"
	"fmt"
	"io/fs"
	"sync/atomic"

	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/treeblock"
)

// Errors of single items. When a point change returns one of them, nothing has changed.
var (
	ErrNotFound = fmt.Errorf("btree: no such item: %w", fs.ErrNotExist)
	ErrExist    = fmt.Errorf("btree: item exists: %w", fs.ErrExist)
	ErrTooBig   = fmt.Errorf("btree: item larger than a leaf: %w", fs.ErrInvalid)
	ErrReadOnly = fmt.Errorf("btree: tree opened for reading: %w", fs.ErrPermission)
)

// MaxLevel is the highest level a root may have.
const MaxLevel = 7

// Space supplies the private blocks that copy-on-write needs. It must not read the tree that is being changed.
type Space interface {
	// Writable tells whether tree owner may change b in place.
	Writable(owner ondisk.TreeID, b *treeblock.Block) bool
	// New returns an empty private block with its header filled in.
	New(owner ondisk.TreeID, level uint8) (*treeblock.Block, error)
	// Copy returns a private copy of b, with references settled, and gives b up.
	Copy(owner ondisk.TreeID, b *treeblock.Block) (*treeblock.Block, error)
	// Free gives up owner's reference to b. What b refers to has been moved or given up already.
	Free(owner ondisk.TreeID, b *treeblock.Block) error
}

// RootPtr is where a tree begins.
type RootPtr struct {
	Bytenr     ondisk.Bytenr
	Generation ondisk.Generation
	Level      uint8
}

// Tree is one tree of a volume.
type Tree struct {
	store *treeblock.Store
	id    ondisk.TreeID
	root  RootPtr
	space Space
	size  uint32   // of a block
	last  *applier // the writer's, for its memory
	read, rewritten,
	applied atomic.Int64
}

// Stats counts a tree's work.
type Stats struct {
	LeavesRead      int64 // leaves visited
	LeavesRewritten int64 // leaves changed as a whole by Apply and Build
	OpsApplied      int64 // operations done by Apply
}

// New returns a handle for the tree whose root is given. Without a space it is read-only.
func New(store *treeblock.Store, id ondisk.TreeID, root RootPtr, space Space) *Tree {
	return &Tree{store: store, id: id, root: root, space: space, size: store.Nodesize()}
}

// ID returns the tree's id.
func (t *Tree) ID() ondisk.TreeID { return t.id }

// Root returns where the tree begins now.
func (t *Tree) Root() RootPtr { return t.root }

// SetRoot moves the handle to another root.
func (t *Tree) SetRoot(r RootPtr) { t.root = r }

// Nodesize returns the size of the tree's blocks.
func (t *Tree) Nodesize() uint32 { return t.size }

// Store returns where the tree's blocks are read.
func (t *Tree) Store() *treeblock.Store { return t.store }

// Stats returns the work done through this handle.
func (t *Tree) Stats() Stats {
	return Stats{LeavesRead: t.read.Load(), LeavesRewritten: t.rewritten.Load(), OpsApplied: t.applied.Load()}
}

// Promise returns what the tree's root pointer says of the root block.
func (t *Tree) Promise() treeblock.Promise {
	return treeblock.Promise{Bytenr: t.root.Bytenr, Generation: t.root.Generation, Level: t.root.Level, Owner: onlyOwner(t.id), Tree: t.id}
}

// ChildPromise returns what a node of the tree says of the child in the slot.
func ChildPromise(tree ondisk.TreeID, parent ondisk.Block, slot int) treeblock.Promise {
	at, gen := parent.Ptr(slot)
	p := treeblock.Promise{
		Bytenr: at, Generation: gen, Level: parent.Level() - 1, Owner: onlyOwner(tree),
		FirstKey: parent.Key(slot), HasKey: true, Tree: tree,
	}
	if slot+1 < parent.NrItems() {
		p.End, p.HasEnd = parent.Key(slot+1), true
	}
	return p
}

// onlyOwner returns the owner that every block of the tree must name, 0 if blocks may be shared between trees.
func onlyOwner(id ondisk.TreeID) ondisk.TreeID {
	if id.IsShareable() {
		return 0
	}
	return id
}

// RootBlock returns the root.
func (t *Tree) RootBlock(ctx context.Context) (*treeblock.Block, error) {
	if t.root.Level > MaxLevel {
		return nil, &ondisk.CorruptError{What: "root", Tree: t.id, Bytenr: t.root.Bytenr, Slot: -1, Reason: "level too high", Got: t.root.Level, Want: MaxLevel}
	}
	return t.store.Read(ctx, t.Promise())
}

// child reads the block that a slot of a node points to.
func (t *Tree) child(ctx context.Context, b *treeblock.Block, slot int) (*treeblock.Block, error) {
	return t.store.Read(ctx, ChildPromise(t.id, b.Data(), slot))
}

// Get returns the body of an item. The bytes hold until the tree changes.
func (t *Tree) Get(ctx context.Context, key ondisk.Key) ([]byte, error) {
	var p path
	found, err := p.find(ctx, t, key)
	if err != nil {
		return nil, err
	}
	if !found {
		return nil, ErrNotFound
	}
	return p.block[0].Data().Item(p.slot[0]), nil
}
