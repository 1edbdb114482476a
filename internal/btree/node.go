package btree

import (
	"context"
	"encoding/binary"

	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/treeblock"
)

// Pointers as they lie in a node: key, address, generation.

const ptrSize = ondisk.KeyPtrSize

func maxPtrs(nodesize uint32) int { return (int(nodesize) - head) / ptrSize }

func rawPtrs(b ondisk.Block, from, to int) []byte { return b[head+from*ptrSize : head+to*ptrSize] }

func setPtrs(b ondisk.Block, ptrs []byte) {
	copy(b[head:], ptrs)
	b.SetNrItems(len(ptrs) / ptrSize)
}

// appendPtr adds a pointer to the block b, which is not empty.
func appendPtr(ptrs []byte, b ondisk.Block) []byte {
	ptrs = append(ptrs, b[head:head+ondisk.KeySize]...) // the first key lies at the same place in nodes and leaves
	ptrs = binary.LittleEndian.AppendUint64(ptrs, uint64(b.Bytenr()))
	return binary.LittleEndian.AppendUint64(ptrs, uint64(b.Generation()))
}

func ptrBytenr(p []byte) ondisk.Bytenr {
	return ondisk.Bytenr(binary.LittleEndian.Uint64(p[ondisk.KeySize:]))
}

func ptrGeneration(p []byte) ondisk.Generation {
	return ondisk.Generation(binary.LittleEndian.Uint64(p[ondisk.KeySize+8:]))
}

// shares splits n into the fewest parts of at most limit, as even as can be.
func shares(n, limit int) []int {
	parts := (n + limit - 1) / limit
	out := make([]int, parts)
	for i := range out {
		out[i] = n / parts
		if i < n%parts {
			out[i]++
		}
	}
	return out
}

// node gives the private node b the pointers in ptrs, with further nodes if they are too many for one.
func (a *applier) node(b *treeblock.Block, ptrs []byte, before int, out []byte) ([]byte, bool, error) {
	limit := maxPtrs(a.t.size)
	n := len(ptrs) / ptrSize
	if n == 0 {
		return out, false, a.t.space.Free(a.t.id, b)
	}
	if n <= limit {
		setPtrs(b.Data(), ptrs)
		return appendPtr(out, b.Data()), n < before && n < limit/4, nil
	}
	parts := shares(n, limit)
	if n == limit+1 && a.t.appended(b.Data(), ptrs) {
		parts = []int{limit, 1} // the tree grows at this end
	}
	for i, count := range parts {
		if i > 0 {
			var err error
			if b, err = a.t.space.New(a.t.id, b.Level()); err != nil {
				return nil, false, err
			}
		}
		setPtrs(b.Data(), ptrs[:count*ptrSize])
		ptrs = ptrs[count*ptrSize:]
		out = appendPtr(out, b.Data())
	}
	return out, false, nil
}

// appended tells whether ptrs is the full node b and one pointer more behind it.
func (t *Tree) appended(b ondisk.Block, ptrs []byte) bool {
	last := len(ptrs) - 2*ptrSize
	return string(ptrs[last:last+ondisk.KeySize]) == string(rawPtrs(b, b.NrItems()-1, b.NrItems())[:ondisk.KeySize])
}

// join tries to move the content of the last block in ptrs, which begin there at byte at, into the one before it.
// Either is small. lost tells that the last one is. It returns whether the block that is the last one then is small.
func (a *applier) join(ctx context.Context, ptrs []byte, at int, lost bool, level int) ([]byte, bool, error) {
	if at == 0 || len(ptrs) != at+ptrSize {
		return ptrs, lost, nil
	}
	t := a.t
	left, err := a.at(ctx, ptrs[at-ptrSize:at], level)
	if err != nil {
		return nil, false, err
	}
	right, err := a.at(ctx, ptrs[at:], level)
	if err != nil {
		return nil, false, err
	}
	if !fits(left.Data(), right.Data()) {
		return ptrs, lost, nil
	}
	if left, err = t.own(left); err != nil {
		return nil, false, err
	}
	if t.id.IsShareable() { // what it refers to must be ours before it is moved
		if right, err = t.own(right); err != nil {
			return nil, false, err
		}
	}
	if level == 0 {
		leafAppend(left.Data(), right.Data(), 0, right.Data().NrItems())
	} else {
		n := left.Data().NrItems()
		copy(left.Data()[head+n*ptrSize:], rawPtrs(right.Data(), 0, right.Data().NrItems()))
		left.Data().SetNrItems(n + right.Data().NrItems())
	}
	if err := t.space.Free(t.id, right); err != nil {
		return nil, false, err
	}
	ptrs = appendPtr(ptrs[:at-ptrSize], left.Data())
	return ptrs, isSmall(left.Data()), nil
}

// at reads the block that a pointer in a row names.
func (a *applier) at(ctx context.Context, p []byte, level int) (*treeblock.Block, error) {
	return a.t.store.Read(ctx, treeblock.Promise{
		Bytenr: ptrBytenr(p), Generation: ptrGeneration(p), Level: uint8(level), Owner: onlyOwner(a.t.id),
		FirstKey: ondisk.DecodeKey(p), HasKey: true, Tree: a.t.id,
	})
}

// fits tells whether two neighbours can be one block with room to grow.
func fits(l, r ondisk.Block) bool {
	if l.Level() == 0 {
		return leafUsed(l)+leafUsed(r) <= joinable(uint32(len(l)))
	}
	return l.NrItems()+r.NrItems() <= maxPtrs(uint32(len(l)))*7/8
}

func isSmall(b ondisk.Block) bool {
	if b.Level() == 0 {
		return leafUsed(b) < smallLeaf(uint32(len(b)))
	}
	return b.NrItems() < maxPtrs(uint32(len(b)))/4
}
