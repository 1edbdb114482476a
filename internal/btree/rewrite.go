package btree

import (
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/treeblock"
)

// run is a stretch of items of a leaf's new content: items from..to-1 of the old leaf, or those that operations
// from..to-1 put.
type run struct {
	from, to int
	ops      bool
}

// leaf applies operations to the private leaf b.
func (a *applier) leaf(b *treeblock.Block, ops []Op, out []byte) ([]byte, bool, error) {
	data := b.Data()
	before := leafUsed(data)
	total, err := a.plan(data, ops)
	if err != nil {
		return nil, false, err
	}
	if total == 0 && b == a.root {
		data.SetNrItems(0)
		return out, false, nil
	}
	if total == 0 {
		return out, false, a.t.space.Free(a.t.id, b)
	}
	if len(ops) <= 4 && total <= leafRoom(a.t.size) {
		a.edit(data, ops)
	} else {
		a.old = append(a.old[:0], data...)
		data.SetNrItems(0)
		w := leafWriter{t: a.t, b: b, out: out, close: closeAt(a.runs, total, leafRoom(a.t.size))}
		if err := a.write(&w, ops); err != nil {
			return nil, false, err
		}
		out = w.out
		data = w.b.Data()
	}
	out = appendPtr(out, data)
	return out, total < before && total < smallLeaf(a.t.size), nil
}

// plan computes a.runs, and the bytes that the new content takes.
func (a *applier) plan(b ondisk.Block, ops []Op) (total int, err error) {
	a.runs = a.runs[:0]
	slot, n := 0, b.NrItems()
	for i := range ops {
		at, found := searchFrom(b, slot, n, ops[i].Key)
		if err := ops[i].allowed(found); err != nil {
			return 0, err
		}
		if at > slot {
			a.runs = append(a.runs, run{slot, at, false})
			total += bytesOf(b, slot, at)
		}
		if slot = at; found {
			slot++
		}
		if ops[i].Kind == OpDelete {
			continue
		}
		total += perItem + len(ops[i].Data)
		if k := len(a.runs); k > 0 && a.runs[k-1].ops && a.runs[k-1].to == i {
			a.runs[k-1].to++
		} else {
			a.runs = append(a.runs, run{i, i + 1, true})
		}
	}
	if slot < n {
		a.runs = append(a.runs, run{slot, n, false})
		total += bytesOf(b, slot, n)
	}
	return total, nil
}

// searchFrom finds the first slot at or behind lo whose key is not less than key. It looks near lo first.
func searchFrom(b ondisk.Block, lo, n int, key ondisk.Key) (slot int, exact bool) {
	step := 1
	hi := lo
	for hi < n && b.Key(hi).Less(key) {
		lo = hi + 1
		hi += step
		step *= 2
	}
	hi = min(hi, n)
	for lo < hi {
		m := int(uint(lo+hi) / 2)
		if b.Key(m).Less(key) {
			lo = m + 1
		} else {
			hi = m
		}
	}
	return lo, lo < n && b.Key(lo) == key
}

// edit does a few operations in place. The result fits, but what shrinks must go first.
func (a *applier) edit(b ondisk.Block, ops []Op) {
	for i := range ops {
		slot, found := b.Search(ops[i].Key)
		switch {
		case ops[i].Kind == OpDelete:
			leafDelete(b, slot)
		case found && len(ops[i].Data) <= b.ItemLen(slot):
			leafResize(b, slot, len(ops[i].Data))
		}
	}
	for i := range ops {
		if ops[i].Kind == OpDelete {
			continue
		}
		if slot, found := b.Search(ops[i].Key); found {
			leafResize(b, slot, len(ops[i].Data))
			copy(b.Item(slot), ops[i].Data)
		} else {
			leafInsert(b, slot, ops[i].Key, ops[i].Data)
		}
	}
}

// closeAt returns the fill at which a leaf is closed. Content that grew at its end fills leaves to the brim, since
// more is likely to come there; other content is shared out evenly.
func closeAt(runs []run, total, room int) int {
	k := len(runs)
	if total <= room || k > 0 && runs[k-1].ops && (k == 1 || k == 2 && !runs[0].ops) {
		return room
	}
	parts := (total + room - 1) / room
	return (total + parts - 1) / parts
}

// write writes the planned runs.
func (a *applier) write(w *leafWriter, ops []Op) error {
	for _, r := range a.runs {
		for i := r.from; i < r.to; {
			if r.ops {
				if err := w.room(perItem + len(ops[i].Data)); err != nil {
					return err
				}
				w.push(ops[i].Key, ops[i].Data)
				i++
				continue
			}
			if err := w.room(bytesOf(a.old, i, i+1)); err != nil {
				return err
			}
			j := w.take(a.old, i, r.to)
			w.copy(a.old, i, j)
			i = j
		}
	}
	return nil
}

// leafWriter fills leaf after leaf.
type leafWriter struct {
	t     *Tree
	b     *treeblock.Block // the leaf being filled
	used  int
	close int    // fill at which no more is added
	out   []byte // pointers to the leaves that are full
}

// room makes sure that an item of so many bytes, head included, can be added.
func (w *leafWriter) room(n int) error {
	if w.b != nil && (w.used == 0 || w.used < w.close && w.used+n <= leafRoom(w.t.size)) {
		return nil
	}
	if w.b != nil {
		w.out = appendPtr(w.out, w.b.Data())
	}
	b, err := w.t.space.New(w.t.id, 0)
	if err != nil {
		return err
	}
	w.t.rewritten.Add(1)
	w.b, w.used = b, 0
	return nil
}

// take returns up to which of the items from..to-1 of a leaf there is room, at least one.
func (w *leafWriter) take(b ondisk.Block, from, to int) int {
	room := leafRoom(w.t.size)
	if w.used+bytesOf(b, from, to) <= min(room, w.close) {
		return to
	}
	used := w.used
	i := from
	for ; i < to; i++ {
		n := bytesOf(b, i, i+1)
		if i > from && (used >= w.close || used+n > room) {
			break
		}
		used += n
	}
	return i
}

func (w *leafWriter) copy(b ondisk.Block, i, j int) {
	w.used += bytesOf(b, i, j)
	leafAppend(w.b.Data(), b, i, j)
}

func (w *leafWriter) push(key ondisk.Key, data []byte) {
	w.used += perItem + len(data)
	leafPush(w.b.Data(), key, data)
}
