package mkfs

import (
	"fmt"

	"github.com/gobtrfs/gobtrfs/internal/checksum"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/treecheck"
)

// tree is a finished tree.
type tree struct {
	id     ondisk.TreeID
	root   ondisk.Bytenr
	level  uint8
	blocks uint64
}

// emit takes the items of a tree in ascending order of keys. It does not keep the body.
type emit func(k ondisk.Key, body []byte) error

// place gives the address of a tree's next block.
type place func(level uint8) (ondisk.Bytenr, error)

// treeWriter builds a tree from the bottom: leaves are filled to the brim in the order of their items and written at once; the
// nodes follow at the end, level by level.
type treeWriter struct {
	b     *builder
	id    ondisk.TreeID
	place place
	leaf  ondisk.Block
	n     int // items in leaf
	low   int // where the bodies in leaf begin
	last  ondisk.Key
	level []child // blocks of the level below the one to come
	count uint64
}

type child struct {
	key ondisk.Key
	at  ondisk.Bytenr
}

func (b *builder) newTree(id ondisk.TreeID, p place) *treeWriter {
	return &treeWriter{b: b, id: id, place: p, leaf: make(ondisk.Block, b.p.nodesize), low: ondisk.LeafData(int(b.p.nodesize))}
}

// add appends an item.
func (t *treeWriter) add(k ondisk.Key, body []byte) error {
	if len(body) > ondisk.MaxItem(len(t.leaf)) {
		return fmt.Errorf("item %v of %d bytes is longer than a node of %d bytes can hold", k, len(body), len(t.leaf))
	}
	if (t.n+1)*ondisk.ItemSize+len(body) > t.low {
		if err := t.flush(); err != nil {
			return err
		}
	}
	t.low -= len(body)
	t.leaf.SetItemHead(t.n, k, uint32(t.low), uint32(len(body)))
	copy(t.leaf[ondisk.HeaderSize+t.low:], body)
	t.n++
	t.last = k
	return nil
}

// flush writes the leaf and begins an empty one.
func (t *treeWriter) flush() error {
	t.leaf.SetNrItems(t.n)
	var first ondisk.Key
	if t.n > 0 {
		first = t.leaf.Key(0)
	}
	at, err := t.write(t.leaf, 0)
	if err != nil {
		return err
	}
	t.level = append(t.level, child{first, at})
	clear(t.leaf)
	t.n, t.low = 0, ondisk.LeafData(len(t.leaf))
	return nil
}

// write gives block b its place and header and writes it.
func (t *treeWriter) write(b ondisk.Block, level uint8) (ondisk.Bytenr, error) {
	at, err := t.place(level)
	if err != nil {
		return 0, err
	}
	p := t.b.p
	b.SetFSID(p.fsid)
	b.SetBytenr(at)
	b.SetFlags(ondisk.HeaderFlagsNew | ondisk.FlagWritten)
	b.SetChunkTreeUUID(p.chunkTree)
	b.SetGeneration(generation)
	b.SetOwner(t.id)
	b.SetLevel(level)
	if err := treecheck.Check(b, treecheck.Context{
		Nodesize: p.nodesize, Sectorsize: p.sectorsize, SuperGeneration: generation, Incompat: p.incompat, CsumSize: p.csum.Size(), Write: true,
	}); err != nil {
		return 0, fmt.Errorf("%v: a block that must not be written: %w", t.id, err)
	}
	if t.b.first != nil && b.NrItems() > 0 {
		t.b.first[at] = b.Key(0)
	}
	clear(b.Csum())
	checksum.Sum(p.csum, b.Csum(), b[32:])
	t.count++
	return at, t.b.meta.put(at, b)
}

// finish writes what is left and the nodes.
func (t *treeWriter) finish() (tree, error) {
	if t.n > 0 || len(t.level) == 0 {
		if err := t.flush(); err != nil {
			return tree{}, err
		}
	}
	level := uint8(0)
	for len(t.level) > 1 {
		level++
		if level > ondisk.MaxLevel {
			return tree{}, fmt.Errorf("%v: too many levels", t.id)
		}
		if err := t.nodes(level); err != nil {
			return tree{}, err
		}
	}
	return tree{t.id, t.level[0].at, level, t.count}, nil
}

// nodes writes one level of nodes.
func (t *treeWriter) nodes(level uint8) error {
	var up []child
	for below := t.level; len(below) > 0; {
		n := min(len(below), ondisk.MaxPtrs(len(t.leaf)))
		node := t.leaf
		clear(node)
		node.SetLevel(level)
		node.SetNrItems(n)
		for i, c := range below[:n] {
			node.SetPtr(i, c.key, c.at, generation)
		}
		at, err := t.write(node, level)
		if err != nil {
			return err
		}
		up = append(up, child{below[0].key, at})
		below = below[n:]
	}
	t.level = up
	return nil
}

// counter finds how many blocks of each level a tree will have, by the rules of treeWriter.
type counter struct {
	nodesize int
	first    []ondisk.Key // of the leaves
	n, low   int
}

func (c *counter) add(k ondisk.Key, body []byte) error {
	if len(c.first) == 0 || (c.n+1)*ondisk.ItemSize+len(body) > c.low {
		c.first = append(c.first, k)
		c.n, c.low = 0, ondisk.LeafData(c.nodesize)
	}
	c.n++
	c.low -= len(body)
	return nil
}

// levels gives the blocks of each level, from the leaves up.
func (c *counter) levels() []int {
	out := []int{max(1, len(c.first))}
	for n := out[0]; n > 1; {
		m := ondisk.MaxPtrs(c.nodesize)
		n = (n + m - 1) / m
		out = append(out, n)
	}
	return out
}

// keys gives the first key of every block, in the order of levels.
func (c *counter) keys() []ondisk.Key {
	if len(c.first) == 0 {
		return []ondisk.Key{{}}
	}
	out := c.first
	for level := c.first; len(level) > 1; {
		var up []ondisk.Key
		for i := 0; i < len(level); i += ondisk.MaxPtrs(c.nodesize) {
			up = append(up, level[i])
		}
		out, level = append(out, up...), up
	}
	return out
}
