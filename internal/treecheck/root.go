package treecheck

import "github.com/gobtrfs/gobtrfs/internal/ondisk"

func (k *checker) rootItem(b []byte) error {
	r, err := ondisk.DecodeRootItem(b)
	if err != nil {
		return k.bad("wrong size", len(b), ondisk.RootItemSize)
	}
	switch {
	case k.key.Objectid == 0:
		return k.bad("tree id 0", nil, nil)
	case ondisk.TreeID(k.key.Objectid) == ondisk.RelocTree && !ondisk.TreeID(k.key.Offset).IsSubvolume():
		return k.bad("relocation tree of no subvolume", nil, nil)
	case !k.young(r.Generation):
		return k.bad("generation in the future", r.Generation, k.c.SuperGeneration+1)
	case !k.young(r.GenerationV2):
		return k.bad("generation_v2 in the future", r.GenerationV2, k.c.SuperGeneration+1)
	case !k.young(r.LastSnapshot):
		return k.bad("last snapshot in the future", r.LastSnapshot, k.c.SuperGeneration+1)
	case !k.aligned(uint64(r.Bytenr)):
		return k.bad("address not aligned", uint64(r.Bytenr), nil)
	case r.Level > ondisk.MaxLevel:
		return k.bad("level too high", r.Level, ondisk.MaxLevel)
	case r.DropLevel > ondisk.MaxLevel:
		return k.bad("drop level too high", r.DropLevel, ondisk.MaxLevel)
	case r.Flags&^(ondisk.RootFlagReadonly|ondisk.RootFlagDead) != 0:
		return k.bad("unknown flags", r.Flags, nil)
	}
	return nil
}

func (k *checker) rootRef(b []byte) error {
	r, err := ondisk.DecodeRootRef(b)
	if err != nil {
		return k.bad("wrong size", len(b), nil)
	}
	if len(r.Name) == 0 || len(r.Name) > ondisk.MaxNameLen {
		return k.bad("bad length of name", len(r.Name), ondisk.MaxNameLen)
	}
	return nil
}
