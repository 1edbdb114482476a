package dump

import (
	"encoding/binary"

	"github.com/gobtrfs/gobtrfs/internal/ondisk"
)

// rootBody shows items of the root, quota and UUID trees, and says nothing about types that it does not know.
func (d *dumper) rootBody(k ondisk.Key, b []byte) error {
	switch k.Type {
	case ondisk.TypeRootItem:
		r, err := ondisk.DecodeRootItem(b)
		if err != nil {
			return err
		}
		d.root(&r, len(b) == ondisk.RootItemSizeLegacy)
	case ondisk.TypeRootRef, ondisk.TypeRootBackref:
		r, err := ondisk.DecodeRootRef(b)
		if err != nil {
			return err
		}
		word := "ref"
		if k.Type == ondisk.TypeRootBackref {
			word = "backref"
		}
		d.line("\t\troot %s key dirid %d sequence %d name %s", word, r.Dirid, r.Sequence, text(r.Name))
	case ondisk.TypeUUIDSubvol, ondisk.TypeUUIDReceivedSubvol:
		for ; len(b) >= 8; b = b[8:] {
			d.line("\t\tsubvol_id %d", binary.LittleEndian.Uint64(b))
		}
	case ondisk.TypeUntyped:
		if k.Objectid == ondisk.FreeSpaceObjectid && len(b) == 41 {
			d.line("\t\tlocation key %s", keyText(ondisk.DecodeKey(b)))
			n := binary.LittleEndian.Uint64
			d.line("\t\tcache generation %d entries %d bitmaps %d", n(b[17:]), n(b[25:]), n(b[33:]))
		}
	case ondisk.TypeTemporaryItem:
		d.line("\t\ttemporary item objectid %s offset %d", objectName(k.Objectid, k.Type), k.Offset)
		if k.Objectid == ondisk.BalanceObjectid && len(b) >= 8 {
			d.line("\t\tbalance status flags %d", binary.LittleEndian.Uint64(b))
		}
	default:
		return d.quotaBody(k, b)
	}
	return nil
}

func (d *dumper) root(r *ondisk.RootItem, legacy bool) {
	flags := r.Flags &^ ondisk.RootFlagDead
	names := flagNames(flags, "none", "RDONLY")
	if r.Flags&ondisk.RootFlagDead != 0 && flags == 0 {
		names = "DEAD"
	} else if r.Flags&ondisk.RootFlagDead != 0 {
		names += "|DEAD"
	}
	d.line("\t\tgeneration %d root_dirid %d bytenr %d byte_limit %d bytes_used %d", r.Generation, r.RootDirid, r.Bytenr, r.ByteLimit, r.BytesUsed)
	d.line("\t\tlast_snapshot %d flags %#x(%s) refs %d", r.LastSnapshot, r.Flags, names, r.Refs)
	d.line("\t\tdrop_progress key %s drop_level %d", keyText(r.DropProgress), r.DropLevel)
	if legacy {
		d.line("\t\tlevel %d", r.Level)
		return
	}
	d.line("\t\tlevel %d generation_v2 %d", r.Level, r.GenerationV2)
	if r.Generation != r.GenerationV2 {
		return
	}
	d.line("\t\tuuid %v", r.UUID)
	d.line("\t\tparent_uuid %v", r.ParentUUID)
	d.line("\t\treceived_uuid %v", r.ReceivedUUID)
	d.line("\t\tctransid %d otransid %d stransid %d rtransid %d", r.Ctransid, r.Otransid, r.Stransid, r.Rtransid)
	d.line("\t\tctime %s", when(r.Ctime))
	d.line("\t\totime %s", when(r.Otime))
	d.line("\t\tstime %s", when(r.Stime))
	d.line("\t\trtime %s", when(r.Rtime))
}

func (d *dumper) quotaBody(k ondisk.Key, b []byte) error {
	switch k.Type {
	case ondisk.TypeQgroupStatus:
		s, err := ondisk.DecodeQgroupStatus(b)
		if err != nil {
			return err
		}
		flags := flagNames(s.Flags, "OFF", "ON", "RESCAN", "INCONSISTENT", "SIMPLE_MODE")
		if s.Flags&ondisk.QgroupSimple != 0 {
			d.line("\t\tversion %d generation %d flags %s scan %d enable_gen %d", s.Version, s.Generation, flags, s.Rescan, s.EnableGen)
		} else {
			d.line("\t\tversion %d generation %d flags %s scan %d", s.Version, s.Generation, flags, s.Rescan)
		}
	case ondisk.TypeQgroupInfo:
		i, err := ondisk.DecodeQgroupInfo(b)
		if err != nil {
			return err
		}
		d.line("\t\tgeneration %d", i.Generation)
		d.line("\t\treferenced %d referenced_compressed %d", i.Rfer, i.RferCompressed)
		d.line("\t\texclusive %d exclusive_compressed %d", i.Excl, i.ExclCompressed)
	case ondisk.TypeQgroupLimit:
		l, err := ondisk.DecodeQgroupLimit(b)
		if err != nil {
			return err
		}
		d.line("\t\tflags %x", l.Flags)
		d.line("\t\tmax_referenced %d max_exclusive %d", l.MaxRfer, l.MaxExcl)
		d.line("\t\trsv_referenced %d rsv_exclusive %d", l.RsvRfer, l.RsvExcl)
	}
	return nil
}
