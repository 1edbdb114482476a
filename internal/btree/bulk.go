package btree

import (
	"context"
	"fmt"

	"github.com/gobtrfs/gobtrfs/internal/ondisk"
)

// rangeBatch is how many deletions DeleteRange hands to Apply at a time.
const rangeBatch = 16384

// DeleteRange deletes every item with from <= key < to and returns how many there were.
func (t *Tree) DeleteRange(ctx context.Context, from, to ondisk.Key) (n int, err error) {
	if t.space == nil {
		return 0, ErrReadOnly
	}
	var ops []Op
	for {
		c, err := t.Seek(ctx, from)
		if err != nil {
			return n, err
		}
		ops = ops[:0]
		for c.Valid() && c.Key().Less(to) && len(ops) < rangeBatch {
			ops = append(ops, Op{Kind: OpDelete, Key: c.Key()})
			if err := c.Next(ctx); err != nil {
				return n, err
			}
		}
		if err := t.Apply(ctx, ops); err != nil {
			return n, err
		}
		if n += len(ops); len(ops) < rangeBatch {
			return n, nil
		}
		from = ops[len(ops)-1].Key
	}
}

// Build fills an empty tree from the bottom with the items that next returns, in strictly ascending order, until it
// returns false. Leaves are filled to the brim. After an error the transaction must be aborted.
func (t *Tree) Build(ctx context.Context, next func() (ondisk.Key, []byte, bool)) error {
	if t.space == nil {
		return ErrReadOnly
	}
	root, err := t.RootBlock(ctx)
	if err != nil {
		return err
	}
	if root.Level() > 0 || root.Data().NrItems() > 0 {
		return fmt.Errorf("btree: Build: tree %d is not empty: %w", int64(t.id), ErrExist)
	}
	if root, err = t.own(root); err != nil {
		return err
	}
	t.setRoot(root)
	w := leafWriter{t: t, b: root, close: leafRoom(t.size)}
	var last ondisk.Key
	for n := 0; ; n++ {
		key, data, ok := next()
		if !ok {
			break
		}
		if n > 0 && !last.Less(key) {
			return fmt.Errorf("btree: Build: %v after %v", key, last)
		}
		last = key
		if len(data) > maxItem(t.size) {
			return ErrTooBig
		}
		if err := w.room(perItem + len(data)); err != nil {
			return err
		}
		w.push(key, data)
	}
	if w.used == 0 {
		return nil
	}
	a := applier{t: t, root: root}
	return a.finish(ctx, 0, appendPtr(w.out, w.b.Data()))
}
