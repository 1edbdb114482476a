package btree_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"

	"github.com/gobtrfs/gobtrfs/internal/btree"
	"github.com/gobtrfs/gobtrfs/internal/btree/btreetest"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
)

const nodesize = 4096

// biggest is the largest item body of a leaf.
const biggest = nodesize - ondisk.HeaderSize - ondisk.ItemSize

// env reads a number from the environment, for long runs.
func env(name string, def uint64) uint64 {
	if n, err := strconv.ParseUint(os.Getenv(name), 10, 64); err == nil {
		return n
	}
	return def
}

// model is a tree and a sorted map that must agree.
type model struct {
	t     *testing.T
	v     *btreetest.Volume
	tree  *btree.Tree
	rng   *rand.Rand
	items map[ondisk.Key][]byte
	keys  uint64 // key space
	size  func(*rand.Rand) int
	next  uint64 // for keys in sequence
}

func newModel(t *testing.T, id ondisk.TreeID, seed uint64, keys uint64, size func(*rand.Rand) int) *model {
	v := btreetest.NewVolume(nodesize, 1<<20)
	tree, err := v.NewTree(id)
	if err != nil {
		t.Fatal(err)
	}
	return &model{t: t, v: v, tree: tree, rng: rand.New(rand.NewPCG(seed, 1)), items: map[ondisk.Key][]byte{}, keys: keys, size: size, next: keys}
}

func key(n uint64) ondisk.Key {
	return ondisk.Key{Objectid: 256 + n/7, Type: ondisk.TypePersistentItem, Offset: n % 7}
}

func (m *model) key() ondisk.Key { return key(m.rng.Uint64N(m.keys)) }

func (m *model) data() []byte {
	b := make([]byte, m.size(m.rng))
	for i := range b {
		b[i] = byte(m.rng.Uint32())
	}
	return b
}

func (m *model) sorted() []ondisk.Key {
	keys := make([]ondisk.Key, 0, len(m.items))
	for k := range m.items {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, ondisk.Key.Compare)
	return keys
}

// op makes a random operation that is allowed, or (ok false) one that is not.
func (m *model) op(k ondisk.Key) (op btree.Op, ok bool) {
	op = btree.Op{Kind: btree.OpKind(1 + m.rng.IntN(4)), Key: k}
	if op.Kind != btree.OpDelete {
		op.Data = m.data()
	}
	_, found := m.items[k]
	switch op.Kind {
	case btree.OpInsert:
		return op, !found
	case btree.OpUpdate, btree.OpDelete:
		return op, found
	}
	return op, true
}

func (m *model) note(op btree.Op) {
	if op.Kind == btree.OpDelete {
		delete(m.items, op.Key)
	} else {
		m.items[op.Key] = op.Data
	}
}

func (m *model) point(ctx context.Context, k ondisk.Key) error {
	op, ok := m.op(k)
	var err error
	switch op.Kind {
	case btree.OpInsert:
		err = m.tree.Insert(ctx, op.Key, op.Data)
	case btree.OpUpdate:
		err = m.tree.Update(ctx, op.Key, op.Data)
	case btree.OpPut:
		err = m.tree.Put(ctx, op.Key, op.Data)
	case btree.OpDelete:
		err = m.tree.Delete(ctx, op.Key)
	}
	if !ok {
		if !errors.Is(err, btree.ErrExist) && !errors.Is(err, btree.ErrNotFound) {
			return fmt.Errorf("%v: forbidden operation %d returned %v", op.Key, op.Kind, err)
		}
		return nil
	}
	m.note(op)
	return err
}

func (m *model) batch(ctx context.Context, n int, near bool) error {
	ops := map[ondisk.Key]btree.Op{}
	base := m.rng.Uint64N(m.keys)
	for range n {
		k := m.key()
		if near {
			k = key(base + m.rng.Uint64N(uint64(2*n)))
		}
		if op, ok := m.op(k); ok {
			ops[k] = op
		}
	}
	list := make([]btree.Op, 0, len(ops))
	for _, op := range ops {
		list = append(list, op)
		m.note(op)
	}
	slices.SortFunc(list, func(a, b btree.Op) int { return a.Key.Compare(b.Key) })
	return m.tree.Apply(ctx, list)
}

func (m *model) deleteRange(ctx context.Context) error {
	a, b := m.key(), m.key()
	if b.Less(a) {
		a, b = b, a
	}
	if m.rng.IntN(10) == 0 {
		a, b = ondisk.Key{}, key(1<<40) // everything
	}
	want := 0
	for k := range m.items {
		if !k.Less(a) && k.Less(b) {
			delete(m.items, k)
			want++
		}
	}
	n, err := m.tree.DeleteRange(ctx, a, b)
	if err == nil && n != want {
		err = fmt.Errorf("DeleteRange deleted %d items, not %d", n, want)
	}
	return err
}

// step does something random.
func (m *model) step(ctx context.Context) error {
	switch w := m.rng.IntN(100); {
	case w < 30:
		for range 20 {
			if err := m.point(ctx, m.key()); err != nil {
				return err
			}
		}
		return nil
	case w < 45: // in sequence, up
		for range 30 {
			for m.items[key(m.next)] != nil { // batches reach a little beyond the key space
				m.next++
			}
			k := key(m.next)
			m.next++
			d := m.data()
			m.items[k] = d
			if err := m.tree.Insert(ctx, k, d); err != nil {
				return err
			}
		}
		return nil
	case w < 55: // empty a stretch, down
		keys := m.sorted()
		lo := m.rng.IntN(len(keys) + 1)
		for i := min(len(keys), lo+40) - 1; i >= lo; i-- {
			delete(m.items, keys[i])
			if err := m.tree.Delete(ctx, keys[i]); err != nil {
				return err
			}
		}
		return nil
	case w < 75:
		return m.batch(ctx, 1+m.rng.IntN(200), m.rng.IntN(2) == 0)
	case w < 80:
		return m.batch(ctx, 3000, false)
	case w < 82:
		return m.deleteRange(ctx)
	case w < 90:
		return m.v.Commit(ctx)
	default:
		return m.edit(ctx)
	}
}

func (m *model) edit(ctx context.Context) error {
	k := m.key()
	b, err := m.tree.Edit(ctx, k)
	old, found := m.items[k]
	if !found {
		if !errors.Is(err, btree.ErrNotFound) {
			return fmt.Errorf("Edit of a missing item: %v", err)
		}
		return nil
	}
	if err != nil || !bytes.Equal(b, old) {
		return fmt.Errorf("Edit %v: %v", k, err)
	}
	n := bytes.Clone(old)
	for i := range n {
		n[i] ^= 0x55
	}
	copy(b, n)
	m.items[k] = n
	return nil
}

// verify compares the tree with the map, both ways, and with the space.
func (m *model) verify(ctx context.Context) error {
	shape, err := btreetest.Verify(ctx, m.tree)
	if err != nil {
		return err
	}
	if len(shape.Blocks) != len(m.v.Space.Live) {
		return fmt.Errorf("tree has %d blocks, space says %d", len(shape.Blocks), len(m.v.Space.Live))
	}
	if shape.Items != len(m.items) {
		return fmt.Errorf("tree has %d items, model %d", shape.Items, len(m.items))
	}
	keys := m.sorted()
	c, err := m.tree.Seek(ctx, ondisk.Key{})
	for i := 0; err == nil && c.Valid(); i++ {
		if c.Key() != keys[i] || !bytes.Equal(c.Data(), m.items[keys[i]]) {
			return fmt.Errorf("item %d is %v, not %v, or differs", i, c.Key(), keys[i])
		}
		err = c.Next(ctx)
	}
	if err != nil {
		return err
	}
	return m.searches(ctx, keys)
}

// searches tries random keys: Get, Seek, SeekLast, Prev, Advance.
func (m *model) searches(ctx context.Context, keys []ondisk.Key) error {
	sweep, err := m.tree.Seek(ctx, ondisk.Key{})
	if err != nil {
		return err
	}
	want := make([]ondisk.Key, 20)
	for i := range want {
		want[i] = key(m.rng.Uint64N(m.keys + m.keys/4))
	}
	slices.SortFunc(want, ondisk.Key.Compare)
	for _, k := range want {
		i, found := slices.BinarySearchFunc(keys, k, ondisk.Key.Compare)
		b, err := m.tree.Get(ctx, k)
		if found != (err == nil) || found && !bytes.Equal(b, m.items[k]) {
			return fmt.Errorf("Get %v: %v", k, err)
		}
		c, err := m.tree.Seek(ctx, k)
		if err == nil {
			err = at(c, keys, i)
		}
		if err == nil && c.Valid() {
			if err = c.Prev(ctx); err == nil {
				err = at(c, keys, i-1)
			}
		}
		if err == nil {
			if err = sweep.Advance(ctx, k); err == nil {
				err = at(sweep, keys, i)
			}
		}
		if !found {
			i--
		}
		if err == nil {
			if c, err = m.tree.SeekLast(ctx, k); err == nil {
				err = at(c, keys, i)
			}
		}
		if err != nil {
			return fmt.Errorf("search of %v: %w", k, err)
		}
	}
	return nil
}

func at(c *btree.Cursor, keys []ondisk.Key, i int) error {
	if valid := i >= 0 && i < len(keys); valid != c.Valid() {
		return fmt.Errorf("cursor valid: %v at %d of %d", c.Valid(), i, len(keys))
	} else if valid && c.Key() != keys[i] {
		return fmt.Errorf("cursor at %v, not %v", c.Key(), keys[i])
	}
	return nil
}

func TestModel(t *testing.T) {
	seed := env("GOBTRFS_SEED", 20)
	rounds := int(env("GOBTRFS_ROUNDS", 100))
	sizes := map[string]func(*rand.Rand) int{
		"small": func(r *rand.Rand) int { return r.IntN(40) },
		"mixed": func(r *rand.Rand) int {
			if r.IntN(10) == 0 {
				return r.IntN(biggest + 1)
			}
			return r.IntN(200)
		},
		"big": func(r *rand.Rand) int { return biggest - r.IntN(60)*r.IntN(2)*r.IntN(60) },
	}
	for name, size := range sizes {
		for _, id := range []ondisk.TreeID{ondisk.QuotaTree, 256} {
			t.Run(fmt.Sprintf("%s-%d", name, id), func(t *testing.T) {
				t.Logf("seed: GOBTRFS_SEED=%d", seed)
				ctx := t.Context()
				m := newModel(t, id, seed, 2500, size)
				for i := range rounds {
					if err := m.step(ctx); err != nil {
						t.Fatalf("round %d: %v", i, err)
					}
					if i%3 == 0 || i < 50 {
						if err := m.verify(ctx); err != nil {
							t.Fatalf("round %d: %v", i, err)
						}
					}
				}
			})
		}
	}
}
