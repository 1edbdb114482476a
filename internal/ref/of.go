package ref

import "github.com/gobtrfs/gobtrfs/internal/ondisk"

// Of appends to buf the references that leave b: those of a node to its
// children, those of a leaf to data extents. With full they are in the form "by
// parent", otherwise "by owner" with the owner in b's header; which of them is on
// disk depends on the FULL_BACKREF flag of b's own extent.
//
// Leaves give none in trees whose leaves hold no file extents (see hasData).
func Of(b ondisk.Block, full bool, buf []Ref) ([]Ref, error) {
	if b.Level() > 0 {
		return ofNode(b, full, buf), nil
	}
	if !hasData(b.Owner()) {
		return buf, nil
	}
	return ofLeaf(b, full, buf)
}

// hasData tells whether file extents in leaves of the tree are counted:
// subvolumes, relocated data, and the space cache files of the root tree.
func hasData(t ondisk.TreeID) bool {
	return t.IsShareable() || t == ondisk.DataRelocTree || t == ondisk.RootTree
}

func ofNode(b ondisk.Block, full bool, buf []Ref) []Ref {
	r := Ref{Kind: KindTreeBlock, Len: uint64(len(b)), Level: b.Level() - 1, Root: b.Owner()}
	if full {
		r.Kind, r.Root, r.Parent = KindSharedBlock, 0, b.Bytenr()
	}
	for i := range b.NrItems() {
		r.At, _ = b.Ptr(i)
		buf = append(buf, r)
	}
	return buf
}

func ofLeaf(b ondisk.Block, full bool, buf []Ref) ([]Ref, error) {
	for i := range b.NrItems() {
		k := b.Key(i)
		if k.Type != ondisk.TypeExtentData {
			continue
		}
		e, err := ondisk.DecodeFileExtent(b.Item(i))
		if err != nil {
			return buf, locate(err, b, i)
		}
		if e.Type == ondisk.ExtentInline || e.DiskBytenr == 0 {
			continue
		}
		r := Ref{At: e.DiskBytenr, Len: e.DiskNumBytes}
		if full {
			r.Kind, r.Parent = KindSharedData, b.Bytenr()
		} else {
			r.Kind, r.Root, r.Ino, r.Offset = KindData, b.Owner(), k.Objectid, k.Offset-e.Offset
		}
		buf = append(buf, r)
	}
	return buf, nil
}

// locate adds to a decoder's error where the item is.
func locate(err error, b ondisk.Block, slot int) error {
	if c, ok := err.(*ondisk.CorruptError); ok {
		c.Tree, c.Bytenr, c.Slot = b.Owner(), b.Bytenr(), slot
	}
	return err
}
