package btree_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gobtrfs/gobtrfs/internal/btree"
	"github.com/gobtrfs/gobtrfs/internal/btree/btreetest"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
)

func seqKey(n int) ondisk.Key {
	return ondisk.Key{Objectid: 256 + uint64(n), Type: ondisk.TypePersistentItem}
}

// built returns a committed tree of n items of the given size.
func built(t testing.TB, nodesize uint32, n, size int) (*btreetest.Volume, *btree.Tree) {
	t.Helper()
	ctx := context.Background()
	v := btreetest.NewVolume(nodesize, 1<<30)
	tree, err := v.NewTree(ondisk.QuotaTree)
	if err != nil {
		t.Fatal(err)
	}
	i := 0
	data := make([]byte, size)
	err = tree.Build(ctx, func() (ondisk.Key, []byte, bool) {
		i++
		return seqKey(2 * i), data, i <= n
	})
	if err == nil {
		err = v.Commit(ctx)
	}
	if err != nil {
		t.Fatal(err)
	}
	return v, tree
}

func shape(t testing.TB, tree *btree.Tree) *btreetest.Shape {
	t.Helper()
	s, err := btreetest.Verify(context.Background(), tree)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestBuildFillsLeaves(t *testing.T) {
	_, tree := built(t, 4096, 10000, 30)
	s := shape(t, tree)
	perLeaf := (4096 - ondisk.HeaderSize) / (30 + ondisk.ItemSize)
	if want := (10000 + perLeaf - 1) / perLeaf; s.Items != 10000 || s.Leaves != want {
		t.Errorf("%d items in %d leaves, want %d leaves", s.Items, s.Leaves, want)
	}
}

// A batch copies each leaf and node that it touches once, and reads nothing else.
func TestApplyWork(t *testing.T) {
	v, tree := built(t, 4096, 100000, 30)
	leaves := shape(t, tree).Leaves
	perLeaf := 100000/leaves + 1
	var ops []btree.Op
	for i := perLeaf; i < 100000; i += 10 * perLeaf { // one item in every tenth leaf or so
		ops = append(ops, btree.Op{Kind: btree.OpUpdate, Key: seqKey(2 * i), Data: make([]byte, 30)})
	}
	before, space := tree.Stats(), *v.Space
	if err := tree.Apply(t.Context(), ops); err != nil {
		t.Fatal(err)
	}
	after := tree.Stats()
	if got := after.LeavesRewritten - before.LeavesRewritten; got != int64(len(ops)) {
		t.Errorf("%d leaves rewritten for %d operations far apart", got, len(ops))
	}
	if got := after.LeavesRead - before.LeavesRead; got != int64(len(ops)) {
		t.Errorf("%d leaves read for %d operations far apart", got, len(ops))
	}
	if v.Space.Made != space.Made {
		t.Errorf("%d blocks made though nothing grew", v.Space.Made-space.Made)
	}
	nodes := shape(t, tree).Nodes
	if got := v.Space.Copied - space.Copied; got > len(ops)+nodes {
		t.Errorf("%d blocks copied for %d leaves and %d nodes", got, len(ops), nodes)
	}
}

// Deleting most items of every leaf leaves few leaves; each is rewritten once.
func TestApplyJoinsLeaves(t *testing.T) {
	_, tree := built(t, 4096, 50000, 30)
	leaves := shape(t, tree).Leaves
	var ops []btree.Op
	for i := 1; i <= 50000; i++ {
		if i%10 != 0 {
			ops = append(ops, btree.Op{Kind: btree.OpDelete, Key: seqKey(2 * i)})
		}
	}
	before := tree.Stats()
	if err := tree.Apply(t.Context(), ops); err != nil {
		t.Fatal(err)
	}
	if got := tree.Stats().LeavesRewritten - before.LeavesRewritten; got != int64(leaves) {
		t.Errorf("%d leaves rewritten, tree had %d", got, leaves)
	}
	s := shape(t, tree)
	if s.Items != 5000 || s.Leaves > leaves/5 {
		t.Errorf("%d items in %d leaves; there were %d leaves with ten times the items", s.Items, s.Leaves, leaves)
	}
}

// Deleting everything copies no leaf and leaves an empty root.
func TestDeleteRangeOfAll(t *testing.T) {
	v, tree := built(t, 4096, 20000, 30)
	copied := v.Space.Copied
	n, err := tree.DeleteRange(t.Context(), ondisk.Key{}, seqKey(1<<30))
	if err != nil || n != 20000 {
		t.Fatal(n, err)
	}
	if s := shape(t, tree); s.Items != 0 || s.Leaves != 1 || tree.Root().Level != 0 || len(v.Space.Live) != 1 {
		t.Errorf("left: %+v, %d blocks in use", s, len(v.Space.Live))
	}
	if got := v.Space.Copied - copied; got > 30 {
		t.Errorf("%d blocks copied only to be deleted", got)
	}
}

// Items inserted in sequence, singly, fill their leaves.
func TestSequentialInsertFill(t *testing.T) {
	v := btreetest.NewVolume(4096, 1<<30)
	tree, _ := v.NewTree(256)
	for i := range 20000 {
		if err := tree.Insert(t.Context(), seqKey(i), make([]byte, 30)); err != nil {
			t.Fatal(err)
		}
	}
	s := shape(t, tree)
	if fill := float64(s.Bytes) / float64(s.Leaves*(4096-ondisk.HeaderSize)); fill < 0.95 {
		t.Errorf("leaves are %.0f %% full", 100*fill)
	}
}

func TestPointErrorsChangeNothing(t *testing.T) {
	v, tree := built(t, 4096, 1000, 30)
	root, space := tree.Root(), *v.Space
	ctx := t.Context()
	for _, c := range []struct {
		got, want error
	}{
		{tree.Insert(ctx, seqKey(4), nil), btree.ErrExist},
		{tree.Update(ctx, seqKey(5), nil), btree.ErrNotFound},
		{tree.Delete(ctx, seqKey(5)), btree.ErrNotFound},
		{tree.Insert(ctx, seqKey(5), make([]byte, 4096)), btree.ErrTooBig},
		{tree.Apply(ctx, []btree.Op{{Kind: btree.OpPut, Key: seqKey(5), Data: make([]byte, 4096)}}), btree.ErrTooBig},
	} {
		if !errors.Is(c.got, c.want) {
			t.Errorf("got %v, want %v", c.got, c.want)
		}
	}
	if tree.Root() != root || v.Space.Copied != space.Copied {
		t.Error("a refused operation changed the tree")
	}
	readOnly := btree.New(v.Store, tree.ID(), root, nil)
	if err := readOnly.Insert(ctx, seqKey(5), nil); !errors.Is(err, btree.ErrReadOnly) {
		t.Errorf("read-only tree: %v", err)
	}
}

// Whatever call for a block fails, the operation reports it.
func TestSpaceFailure(t *testing.T) {
	for n := 1; ; n++ {
		v, tree := built(t, 4096, 3000, 30)
		v.Space.FailAt = n
		var ops []btree.Op
		for i := 2; i < 6000; i++ {
			op := btree.Op{Kind: btree.OpPut, Key: seqKey(i), Data: make([]byte, i%200)}
			if i%2 == 0 && i%1000 < 300 {
				op.Kind = btree.OpDelete
			}
			ops = append(ops, op)
		}
		err := tree.Apply(t.Context(), ops)
		if v.Space.FailAt > 0 {
			if err != nil || n < 100 {
				t.Fatalf("no failure after %d calls: %v", n, err)
			}
			return
		}
		if !errors.Is(err, btreetest.ErrSpace) {
			t.Fatalf("failure of call %d became: %v", n, err)
		}
	}
}

// A rotten first copy is passed over; two rotten copies are an error that names both.
func TestRottenCopies(t *testing.T) {
	v, tree := built(t, 4096, 3000, 30)
	for bad := 1; bad <= 2; bad++ {

		v.Fault = func(_ ondisk.Bytenr, mirror int, p []byte) error {
			if mirror < bad {
				p[2000] ^= 1
			}
			return nil
		}
		v2 := v.Reopen(1 << 20)
		again := btree.New(v2.Store, tree.ID(), tree.Root(), nil)
		got, err := again.Get(t.Context(), seqKey(2000))
		if bad == 1 && (err != nil || !bytes.Equal(got, make([]byte, 30)) || v2.Store.Stats().BadMirrors == 0) {
			t.Errorf("one bad copy: %v", err)
		}
		var corrupt *ondisk.CorruptError
		if bad == 2 && !errors.As(err, &corrupt) {
			t.Errorf("two bad copies: %v", err)
		}
	}
}

func BenchmarkApplyMillion(b *testing.B) {
	ops := make([]btree.Op, 1_000_000)
	for b.Loop() {
		v := btreetest.NewVolume(16384, 1<<30)
		tree, _ := v.NewTree(ondisk.QuotaTree)
		for i := range ops {
			ops[i] = btree.Op{Kind: btree.OpInsert, Key: seqKey(2 * i), Data: make([]byte, 33)}
		}
		if err := tree.Apply(b.Context(), ops); err != nil {
			b.Fatal(err)
		}
	}
}

// A sparse batch over a big tree, the way references are applied: every 20th item changes.
func BenchmarkApplySparse(b *testing.B) {
	v, tree := built(b, 16384, 1_300_000, 33)
	ops := make([]btree.Op, 0, 65000)
	for i := 1; i <= 1_300_000; i += 20 {
		ops = append(ops, btree.Op{Kind: btree.OpUpdate, Key: seqKey(2 * i), Data: make([]byte, 33)})
	}
	for n := uint64(0); b.Loop(); n++ {
		for i := range ops {
			binary.LittleEndian.PutUint64(ops[i].Data, n)
		}
		if err := tree.Apply(b.Context(), ops); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if err := v.Commit(b.Context()); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}

// Deleting nine of ten items all over.
func BenchmarkApplyDelete(b *testing.B) {
	for b.Loop() {
		b.StopTimer()
		_, tree := built(b, 16384, 1_300_000, 33)
		ops := make([]btree.Op, 0, 1_300_000)
		for i := 1; i <= 1_300_000; i++ {
			if i%10 != 0 {
				ops = append(ops, btree.Op{Kind: btree.OpDelete, Key: seqKey(2 * i)})
			}
		}
		b.StartTimer()
		if err := tree.Apply(b.Context(), ops); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkScan(b *testing.B) {
	_, tree := built(b, 16384, 1_300_000, 33)
	for b.Loop() {
		n := 0
		c, err := tree.Seek(b.Context(), ondisk.Key{})
		for err == nil && c.Valid() {
			n++
			err = c.Next(b.Context())
		}
		if err != nil || n != 1_300_000 {
			b.Fatal(n, err)
		}
	}
}

// A scan with nothing in memory reads each block once, several at a time.
func TestScanReadsAhead(t *testing.T) {
	v, tree := built(t, 4096, 100000, 30)
	blocks := len(shape(t, tree).Blocks)
	cold := v.Reopen(1 << 30)
	before := v.Reads()
	var now, most atomic.Int64
	v.Fault = func(ondisk.Bytenr, int, []byte) error {
		most.Store(max(most.Load(), now.Add(1)))
		time.Sleep(100 * time.Microsecond)
		now.Add(-1)
		return nil
	}
	c, err := btree.New(cold.Store, tree.ID(), tree.Root(), nil).Seek(t.Context(), ondisk.Key{})
	n := 0
	for err == nil && c.Valid() {
		n++
		err = c.Next(t.Context())
	}
	cold.Store.Close()
	if err != nil || n != 100000 {
		t.Fatal(n, err)
	}
	if got := v.Reads() - before; got != blocks {
		t.Errorf("%d reads of %d blocks", got, blocks)
	}
	if most.Load() < 4 {
		t.Errorf("at most %d reads at a time", most.Load())
	}
}

// A sweep over sorted keys, the way references are looked up.
func BenchmarkSweep(b *testing.B) {
	_, tree := built(b, 16384, 1_300_000, 33)
	for b.Loop() {
		c, err := tree.Seek(b.Context(), ondisk.Key{})
		for i := 1; err == nil && i <= 1_300_000; i += 20 {
			err = c.Advance(b.Context(), seqKey(2*i))
		}
		if err != nil {
			b.Fatal(err)
		}
	}
}

// Blocks that are not in memory: checksums, treecheck, read-ahead.
func BenchmarkScanCold(b *testing.B) {
	v, tree := built(b, 16384, 1_300_000, 33)
	for b.Loop() {
		cold := v.Reopen(1 << 30)
		c, err := btree.New(cold.Store, tree.ID(), tree.Root(), nil).Seek(b.Context(), ondisk.Key{})
		for err == nil && c.Valid() {
			err = c.NextLeaf(b.Context())
		}
		cold.Store.Close()
		if err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkGet(b *testing.B) {
	_, tree := built(b, 16384, 1_300_000, 33)
	for i := 0; b.Loop(); i++ {
		if _, err := tree.Get(b.Context(), seqKey(2*(1+(i*7919)%1_300_000))); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkInsertRandom(b *testing.B) {
	v := btreetest.NewVolume(16384, 1<<30)
	tree, _ := v.NewTree(256)
	data := make([]byte, 33)
	for i := 0; b.Loop(); i++ {
		if err := tree.Put(b.Context(), seqKey((i*7919)%1_000_003), data); err != nil {
			b.Fatal(err)
		}
	}
}
