package subvol

import (
	"errors"
	"io/fs"
	"reflect"
	"testing"

	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/roots"
	"github.com/gobtrfs/gobtrfs/internal/testenv"
	"github.com/gobtrfs/gobtrfs/internal/transaction"
)

// marks gives what the root tree and the UUID tree hold beside root items: orphans,
// and which UUID belongs to whom.
func marks(t *testing.T, m *transaction.Manager) map[ondisk.Key]string {
	t.Helper()
	m.RLock()
	defer m.RUnlock()
	out := map[ondisk.Key]string{}
	rt, err := m.Tree(ctx, ondisk.RootTree)
	if err != nil {
		t.Fatal(err)
	}
	orphans, err := roots.Orphans(ctx, rt)
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range orphans {
		out[ondisk.Key{Objectid: ondisk.OrphanObjectid, Type: ondisk.TypeOrphanItem, Offset: uint64(id)}] = ""
	}
	ut, err := m.Tree(ctx, ondisk.UUIDTree)
	if err != nil {
		t.Fatal(err)
	}
	c, err := ut.Seek(ctx, ondisk.Key{})
	for ; err == nil && c.Valid(); err = c.Next(ctx) {
		out[c.Key()] = string(c.Data())
	}
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestUndelete: what is brought back is what was deleted: root item, UUIDs, no orphan
// item; for subvolumes, snapshots and received ones.
func TestUndelete(t *testing.T) {
	image := testenv.Image(t, "default")
	m := open(t, image)
	names := []string{"made", "snap", "ro", "received"}
	ids := map[string]ondisk.TreeID{}
	err := do(t, m, func(tx *transaction.Tx) (err error) {
		if ids["made"], err = Create(ctx, tx, ondisk.FSTree, 256, []byte("made")); err != nil {
			return err
		}
		for _, n := range names[1:] {
			if ids[n], err = Snapshot(ctx, tx, ids["made"], ondisk.FSTree, 256, []byte(n), n == "ro"); err != nil {
				return err
			}
		}
		item, _, err := tx.RootItem(ctx, ids["received"])
		if err != nil {
			return err
		}
		item.ReceivedUUID = ondisk.UUID{1, 2, 3}
		tx.Touch(ids["received"])
		return addUUID(ctx, tx, ondisk.TypeUUIDReceivedSubvol, item.ReceivedUUID, ids["received"])
	})
	if err != nil {
		t.Fatal(err)
	}
	commit(t, m, image)
	before, marked := list(t, m), marks(t, m)
	all := []ondisk.TreeID{ids["made"], ids["snap"], ids["ro"], ids["received"]}
	if err := do(t, m, func(tx *transaction.Tx) error { return Delete(ctx, tx, all) }); err != nil {
		t.Fatal(err)
	}
	commit(t, m, image)
	if reflect.DeepEqual(marks(t, m), marked) {
		t.Error("deleting left no mark")
	}
	for _, n := range names {
		if err := do(t, m, func(tx *transaction.Tx) error {
			return Undelete(ctx, tx, ids[n], ondisk.FSTree, 256, []byte(n))
		}); err != nil {
			t.Fatal(err)
		}
	}
	commit(t, m, image)
	after := list(t, m)
	for _, n := range names {
		if !reflect.DeepEqual(after[n], before[n]) {
			t.Errorf("%s:\n%+v\nwas\n%+v", n, after[n], before[n])
		}
	}
	if got := marks(t, m); !reflect.DeepEqual(got, marked) {
		t.Errorf("marks %q, were %q", got, marked)
	}
}

// TestUndeleteRefused: refusals say why, and change nothing.
func TestUndeleteRefused(t *testing.T) {
	image := testenv.Image(t, "half-drop-many")
	m := open(t, image)
	var half, whole, live ondisk.TreeID
	var name string
	for n, i := range list(t, m) {
		switch {
		case i.ID == ondisk.FSTree:
		case !i.Deleted:
			live, name = i.ID, n
		case i.Item.DropProgress.IsZero():
			whole = i.ID
		default:
			half = i.ID
		}
	}
	before := m.Generation()
	for _, c := range []struct {
		id   ondisk.TreeID
		name string
		want error
	}{
		{half, "x", ErrDropping}, {live, "x", ErrNotDeleted}, {ondisk.FSTree, "x", ErrNotDeleted}, {ondisk.ExtentTree, "x", ErrNotDeleted},
		{1 << 40, "x", fs.ErrNotExist}, {whole, name, fs.ErrExist},
	} {
		err := do(t, m, func(tx *transaction.Tx) error { return Undelete(ctx, tx, c.id, ondisk.FSTree, 256, []byte(c.name)) })
		if !errors.Is(err, c.want) {
			t.Errorf("undelete %d: %v, want %v", c.id, err, c.want)
		}
	}
	if err := m.Commit(ctx); err != nil || m.Generation() != before {
		t.Errorf("a refusal was a change: generation %d, was %d, %v", m.Generation(), before, err)
	}
	if err := do(t, m, func(tx *transaction.Tx) error { return Undelete(ctx, tx, whole, ondisk.FSTree, 256, []byte("x")) }); err != nil {
		t.Fatal(err)
	}
	commit(t, m, image)
}
