package dump

import (
	"bufio"
	"fmt"
	"io"
	"strings"

	"github.com/gobtrfs/gobtrfs/internal/checksum"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
)

// Super shows a superblock that was read and verified.
func Super(w io.Writer, sb *ondisk.Superblock) error {
	b := bufio.NewWriter(w)
	field := func(name string, v any) { fmt.Fprintf(b, "%-23s %v\n", name, v) }
	csum := checksum.Type(sb.CsumType)
	field("csum_type", fmt.Sprintf("%d (%s)", sb.CsumType, csum))
	field("csum_size", csum.Size())
	field("bytenr", sb.Bytenr)
	field("flags", fmt.Sprintf("%#x", sb.Flags))
	flagList(b, superFlags(sb.Flags))
	field("magic", ondisk.SuperMagic+" [match]")
	field("fsid", sb.FSID)
	field("metadata_uuid", sb.MetadataUUID)
	field("label", text([]byte(sb.Label)))
	field("generation", sb.Generation)
	field("root", sb.Root)
	field("sys_array_size", sb.SysArraySize())
	field("chunk_root_generation", sb.ChunkRootGeneration)
	field("root_level", sb.RootLevel)
	field("chunk_root", sb.ChunkRoot)
	field("chunk_root_level", sb.ChunkRootLevel)
	field("log_root", sb.LogRoot)
	field("log_root_transid", sb.LogRootTransid)
	field("log_root_level", sb.LogRootLevel)
	field("total_bytes", sb.TotalBytes)
	field("bytes_used", sb.BytesUsed)
	field("sectorsize", sb.Sectorsize)
	field("nodesize", sb.Nodesize)
	field("leafsize", sb.Leafsize)
	field("stripesize", sb.Stripesize)
	field("root_dir", sb.RootDirObjectid)
	field("num_devices", sb.NumDevices)
	field("compat_flags", fmt.Sprintf("%#x", sb.Compat))
	field("compat_ro_flags", fmt.Sprintf("%#x", sb.CompatRO))
	flagList(b, ondisk.CompatRONames(sb.CompatRO))
	field("incompat_flags", fmt.Sprintf("%#x", sb.Incompat))
	flagList(b, ondisk.IncompatNames(sb.Incompat))
	field("cache_generation", sb.CacheGeneration)
	field("uuid_tree_generation", sb.UUIDTreeGeneration)
	superDevice(field, sb)
	fmt.Fprintf(b, "sys_chunk_array[%d]:\n", ondisk.SysArrayMax)
	d := &dumper{w: b}
	for i, c := range sb.SysChunks {
		k := ondisk.Key{Objectid: ondisk.FirstChunkTreeObjectid, Type: ondisk.TypeChunkItem, Offset: uint64(c.Logical)}
		d.line("\titem %d key %s", i, keyText(k))
		d.chunk(c.Chunk)
	}
	d.line("backup_roots[%d]:", len(sb.Backups))
	for i := range sb.Backups {
		d.backup(i, &sb.Backups[i])
	}
	return b.Flush()
}

func superDevice(field func(string, any), sb *ondisk.Superblock) {
	match := " [match]"
	if sb.Dev.FSID != sb.TreeUUID() {
		match = " [DON'T MATCH]"
	}
	field("dev_item.uuid", sb.Dev.UUID)
	field("dev_item.fsid", sb.Dev.FSID.String()+match)
	field("dev_item.type", sb.Dev.Type)
	field("dev_item.total_bytes", sb.Dev.TotalBytes)
	field("dev_item.bytes_used", sb.Dev.BytesUsed)
	field("dev_item.io_align", sb.Dev.IOAlign)
	field("dev_item.io_width", sb.Dev.IOWidth)
	field("dev_item.sector_size", sb.Dev.SectorSize)
	field("dev_item.devid", uint64(sb.Dev.DevID))
	field("dev_item.dev_group", sb.Dev.DevGroup)
	field("dev_item.seek_speed", sb.Dev.SeekSpeed)
	field("dev_item.bandwidth", sb.Dev.Bandwidth)
	field("dev_item.generation", sb.Dev.Generation)
}

// flagList shows the names of features, below their number.
func flagList(w io.Writer, names []string) {
	if len(names) == 0 {
		return
	}
	up := func(s string) string { return strings.ToUpper(strings.ReplaceAll(s, "-", "_")) }
	for i, n := range names {
		before, after := "  ", " |"
		if i == 0 {
			before = "( "
		}
		if i == len(names)-1 {
			after = " )"
		}
		fmt.Fprintf(w, "\t\t\t%s%s%s\n", before, up(n), after)
	}
}

// superFlags names the flags of a superblock.
func superFlags(bits uint64) []string {
	var out []string
	for i := range 64 {
		if bits&(1<<i) == 0 {
			continue
		}
		switch uint64(1) << i {
		case ondisk.SuperFlagWritten:
			out = append(out, "written")
		case ondisk.SuperFlagReloc:
			out = append(out, "reloc")
		case ondisk.SuperFlagError:
			out = append(out, "error")
		case ondisk.SuperFlagSeeding:
			out = append(out, "seeding")
		case ondisk.SuperFlagMetadump:
			out = append(out, "metadump")
		case ondisk.SuperFlagMetadumpV2:
			out = append(out, "metadump_v2")
		default:
			out = append(out, fmt.Sprintf("unknown_bit_%d", i))
		}
	}
	return out
}

func (d *dumper) backup(i int, r *ondisk.BackupRoot) {
	d.line("\tbackup %d:", i)
	for _, t := range []struct {
		name string
		t    ondisk.BackupTree
	}{
		{"backup_tree_root:", r.Root}, {"backup_chunk_root:", r.Chunk}, {"backup_extent_root:", r.Extent},
		{"backup_fs_root:\t", r.FS}, {"backup_dev_root:", r.Dev}, {"csum_root:", r.Csum},
	} {
		d.line("\t\t%s\t%d\tgen: %d\tlevel: %d", t.name, t.t.Bytenr, t.t.Generation, t.t.Level)
	}
	d.line("\t\tbackup_total_bytes:\t%d", r.TotalBytes)
	d.line("\t\tbackup_bytes_used:\t%d", r.BytesUsed)
	d.line("\t\tbackup_num_devices:\t%d", r.NumDevices)
	d.line("")
}
