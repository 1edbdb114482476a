package ondisk

import "fmt"

// Incompatible features: who does not know one must not open the volume.
const (
	IncompatMixedBackref   uint64 = 1 << 0
	IncompatDefaultSubvol  uint64 = 1 << 1
	IncompatMixedGroups    uint64 = 1 << 2
	IncompatCompressLZO    uint64 = 1 << 3
	IncompatCompressZstd   uint64 = 1 << 4
	IncompatBigMetadata    uint64 = 1 << 5
	IncompatExtendedIref   uint64 = 1 << 6
	IncompatRAID56         uint64 = 1 << 7
	IncompatSkinnyMetadata uint64 = 1 << 8
	IncompatNoHoles        uint64 = 1 << 9
	IncompatMetadataUUID   uint64 = 1 << 10
	IncompatRAID1C34       uint64 = 1 << 11
	IncompatZoned          uint64 = 1 << 12
	IncompatExtentTreeV2   uint64 = 1 << 13
	IncompatRaidStripeTree uint64 = 1 << 14
	IncompatSimpleQuota    uint64 = 1 << 16
	IncompatRemapTree      uint64 = 1 << 17
)

// Features that only a writer must know.
const (
	CompatROFreeSpaceTree      uint64 = 1 << 0
	CompatROFreeSpaceTreeValid uint64 = 1 << 1
	CompatROVerity             uint64 = 1 << 2
	CompatROBlockGroupTree     uint64 = 1 << 3
)

// IncompatNames names the bits, in ascending order.
func IncompatNames(bits uint64) []string {
	return bitNames(bits, "incompat", map[int]string{
		0: "mixed-backref", 1: "default-subvol", 2: "mixed-groups", 3: "compress-lzo", 4: "compress-zstd", 5: "big-metadata",
		6: "extended-iref", 7: "raid56", 8: "skinny-metadata", 9: "no-holes", 10: "metadata-uuid", 11: "raid1c34", 12: "zoned",
		13: "extent-tree-v2", 14: "raid-stripe-tree", 16: "simple-quota", 17: "remap-tree",
	})
}

// CompatRONames names the bits, in ascending order.
func CompatRONames(bits uint64) []string {
	return bitNames(bits, "compat-ro", map[int]string{
		0: "free-space-tree", 1: "free-space-tree-valid", 2: "verity", 3: "block-group-tree",
	})
}

func bitNames(bits uint64, kind string, names map[int]string) []string {
	var out []string
	for i := range 64 {
		if bits&(1<<i) == 0 {
			continue
		}
		name, ok := names[i]
		if !ok {
			name = fmt.Sprintf("unknown-%s-bit-%d", kind, i)
		}
		out = append(out, name)
	}
	return out
}
