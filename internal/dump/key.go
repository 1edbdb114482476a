package dump

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/gobtrfs/gobtrfs/internal/ondisk"
)

// keyText shows a key as btrfs-progs do.
func keyText(k ondisk.Key) string {
	object := objectName(k.Objectid, k.Type)
	offset := strconv.FormatUint(k.Offset, 10)
	switch k.Type {
	case ondisk.TypeQgroupInfo, ondisk.TypeQgroupLimit:
		offset = qgroup(k.Offset)
	case ondisk.TypeQgroupRelation:
		object, offset = qgroup(k.Objectid), qgroup(k.Offset)
	case ondisk.TypeUUIDSubvol, ondisk.TypeUUIDReceivedSubvol:
		object, offset = fmt.Sprintf("%#016x", k.Objectid), fmt.Sprintf("%#016x", k.Offset)
	case ondisk.TypeRootItem:
		if k.Objectid == uint64(ondisk.RelocTree) {
			offset = objectName(k.Offset, k.Type)
		}
	}
	return fmt.Sprintf("(%s %s %s)", object, typeName(k), offset)
}

func typeName(k ondisk.Key) string {
	if k.Type == ondisk.TypeUntyped && k.Objectid != ondisk.FreeSpaceObjectid {
		return "UNKNOWN.0"
	}
	return k.Type.String()
}

func qgroup(id uint64) string { return fmt.Sprintf("%d/%d", id>>48, id&(1<<48-1)) }

// objectName shows an object id: many low and negative ones have names, in keys of some types others.
func objectName(id uint64, typ ondisk.KeyType) string {
	switch typ {
	case ondisk.TypePersistentItem:
		if id == 0 {
			return "DEV_STATS"
		}
	case ondisk.TypeDevExtent:
		return strconv.FormatUint(id, 10)
	case ondisk.TypeDevItem:
		if id == ondisk.DevItemsObjectid {
			return "DEV_ITEMS"
		}
	case ondisk.TypeChunkItem:
		if id == ondisk.FirstChunkTreeObjectid {
			return "FIRST_CHUNK_TREE"
		}
	}
	low := [...]string{
		1: "ROOT_TREE", 2: "EXTENT_TREE", 3: "CHUNK_TREE", 4: "DEV_TREE", 5: "FS_TREE", 6: "ROOT_TREE_DIR", 7: "CSUM_TREE", 8: "QUOTA_TREE",
		9: "UUID_TREE", 10: "FREE_SPACE_TREE", 11: "BLOCK_GROUP_TREE", 12: "RAID_STRIPE_TREE", 13: "REMAP_TREE",
	}
	high := [...]string{
		1: "-1", 4: "BALANCE", 5: "ORPHAN", 6: "TREE_LOG", 7: "TREE_LOG_FIXUP", 8: "TREE_RELOC", 9: "DATA_RELOC_TREE", 10: "EXTENT_CSUM",
		11: "FREE_SPACE", 12: "FREE_INO",
	}
	if id < uint64(len(low)) && low[id] != "" {
		return low[id]
	}
	if n := -id; n < uint64(len(high)) && high[n] != "" {
		return high[n]
	}
	return strconv.FormatUint(id, 10)
}

// treeTitle is what btrfs-progs call a tree before they show it.
func treeTitle(id ondisk.TreeID) string {
	switch id {
	case ondisk.ExtentTree:
		return "extent tree"
	case ondisk.DevTree:
		return "device tree"
	case ondisk.FSTree:
		return "fs tree"
	case ondisk.CsumTree:
		return "checksum tree"
	case ondisk.QuotaTree:
		return "quota tree"
	case ondisk.UUIDTree:
		return "uuid tree"
	case ondisk.FreeSpaceTree:
		return "free space tree"
	case ondisk.BlockGroupTree:
		return "block group tree"
	case ondisk.RaidStripeTree:
		return "raid stripe tree"
	case ondisk.LogTree:
		return "log root tree"
	case ondisk.RelocTree:
		return "reloc tree"
	case ondisk.DataRelocTree:
		return "data reloc tree"
	}
	return "file tree"
}

// text shows a name. What is no printable text is escaped.
func text(p []byte) string {
	var out strings.Builder
	for len(p) > 0 {
		r, n := utf8.DecodeRune(p)
		if r == utf8.RuneError && n == 1 || !unicode.IsPrint(r) {
			for _, c := range p[:n] {
				fmt.Fprintf(&out, "\\x%02x", c)
			}
		} else {
			out.Write(p[:n])
		}
		p = p[n:]
	}
	return out.String()
}

// when shows a point in time.
func when(t ondisk.Timespec) string {
	return fmt.Sprintf("%d.%d (%s)", t.Sec, t.Nsec, time.Unix(t.Sec, 0).UTC().Format(time.DateTime))
}

// groupType shows the type of a chunk or block group.
func groupType(bits uint64) string {
	s := flagNames(bits, "0", "DATA", "SYSTEM", "METADATA", "RAID0", "RAID1", "DUP", "RAID10", "RAID5", "RAID6", "RAID1C3", "RAID1C4")
	if bits&ondisk.BlockGroupProfileMask == 0 {
		s += "|single"
	}
	return s
}
