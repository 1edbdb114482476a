package ondisk

import "fmt"

// TreeID names a tree. Subvolumes have ids from 256 on; the top-level one is 5.
type TreeID uint64

// Trees with fixed ids (FORMAT: trees).
const (
	RootTree       TreeID = 1
	ExtentTree     TreeID = 2
	ChunkTree      TreeID = 3
	DevTree        TreeID = 4
	FSTree         TreeID = 5 // the top-level subvolume
	CsumTree       TreeID = 7
	QuotaTree      TreeID = 8
	UUIDTree       TreeID = 9
	FreeSpaceTree  TreeID = 10
	BlockGroupTree TreeID = 11
	RaidStripeTree TreeID = 12
	RemapTree      TreeID = 13
	LogTree        TreeID = ^TreeID(0) - 5 // -6
	RelocTree      TreeID = ^TreeID(0) - 7 // -8
	DataRelocTree  TreeID = ^TreeID(0) - 8 // -9
)

// Object ids with fixed meanings. Negative ones count from 2^64.
const (
	DevItemsObjectid       uint64 = 1
	RootDirObjectid        uint64 = 6
	FirstFreeObjectid      uint64 = 256
	FirstChunkTreeObjectid uint64 = 256
	BalanceObjectid        uint64 = ^uint64(0) - 3   // -4
	OrphanObjectid         uint64 = ^uint64(0) - 4   // -5
	LogFixupObjectid       uint64 = ^uint64(0) - 6   // -7
	CsumObjectid           uint64 = ^uint64(0) - 9   // -10
	FreeSpaceObjectid      uint64 = ^uint64(0) - 10  // -11
	FreeInoObjectid        uint64 = ^uint64(0) - 11  // -12
	LastFreeObjectid       uint64 = ^uint64(0) - 255 // -256
)

// IsSubvolume tells whether the tree is a subvolume: id 5 or 256..-256.
func (t TreeID) IsSubvolume() bool {
	return t == FSTree || uint64(t) >= FirstFreeObjectid && uint64(t) <= LastFreeObjectid
}

// IsShareable tells whether blocks of the tree can have more than one reference:
// subvolumes and relocation trees.
func (t TreeID) IsShareable() bool { return t.IsSubvolume() || t == RelocTree }

// String names the tree.
func (t TreeID) String() string {
	switch t {
	case RootTree:
		return "root tree"
	case ExtentTree:
		return "extent tree"
	case ChunkTree:
		return "chunk tree"
	case DevTree:
		return "device tree"
	case FSTree:
		return "top-level subvolume"
	case CsumTree:
		return "checksum tree"
	case QuotaTree:
		return "quota tree"
	case UUIDTree:
		return "uuid tree"
	case FreeSpaceTree:
		return "free space tree"
	case BlockGroupTree:
		return "block group tree"
	case LogTree:
		return "log tree"
	case RelocTree:
		return "relocation tree"
	case DataRelocTree:
		return "data relocation tree"
	}
	if t.IsSubvolume() {
		return fmt.Sprintf("subvolume %d", uint64(t))
	}
	return fmt.Sprintf("tree %d", int64(t))
}

// KeyType is the type of an item.
type KeyType uint8

// Types of items.
const (
	TypeUntyped            KeyType = 0 // header of a v1 space cache
	TypeInodeItem          KeyType = 1
	TypeInodeRef           KeyType = 12
	TypeInodeExtref        KeyType = 13
	TypeXattrItem          KeyType = 24
	TypeVerityDesc         KeyType = 36
	TypeVerityMerkle       KeyType = 37
	TypeOrphanItem         KeyType = 48
	TypeDirLogItem         KeyType = 60
	TypeDirLogIndex        KeyType = 72
	TypeDirItem            KeyType = 84
	TypeDirIndex           KeyType = 96
	TypeExtentData         KeyType = 108
	TypeExtentCsum         KeyType = 128
	TypeRootItem           KeyType = 132
	TypeRootBackref        KeyType = 144
	TypeRootRef            KeyType = 156
	TypeExtentItem         KeyType = 168
	TypeMetadataItem       KeyType = 169
	TypeExtentOwnerRef     KeyType = 172
	TypeTreeBlockRef       KeyType = 176
	TypeExtentDataRef      KeyType = 178
	TypeExtentRefV0        KeyType = 180
	TypeSharedBlockRef     KeyType = 182
	TypeSharedDataRef      KeyType = 184
	TypeBlockGroupItem     KeyType = 192
	TypeFreeSpaceInfo      KeyType = 198
	TypeFreeSpaceExtent    KeyType = 199
	TypeFreeSpaceBitmap    KeyType = 200
	TypeDevExtent          KeyType = 204
	TypeDevItem            KeyType = 216
	TypeChunkItem          KeyType = 228
	TypeRaidStripe         KeyType = 230
	TypeQgroupStatus       KeyType = 240
	TypeQgroupInfo         KeyType = 242
	TypeQgroupLimit        KeyType = 244
	TypeQgroupRelation     KeyType = 246
	TypeTemporaryItem      KeyType = 248 // balance
	TypePersistentItem     KeyType = 249 // device statistics
	TypeDevReplace         KeyType = 250
	TypeUUIDSubvol         KeyType = 251
	TypeUUIDReceivedSubvol KeyType = 252
	TypeStringItem         KeyType = 253
)

// String gives the name that btrfs-progs prints for the type.
func (t KeyType) String() string {
	switch t {
	case TypeUntyped:
		return "UNTYPED"
	case TypeInodeItem:
		return "INODE_ITEM"
	case TypeInodeRef:
		return "INODE_REF"
	case TypeInodeExtref:
		return "INODE_EXTREF"
	case TypeXattrItem:
		return "XATTR_ITEM"
	case TypeVerityDesc:
		return "VERITY_DESC_ITEM"
	case TypeVerityMerkle:
		return "VERITY_MERKLE_ITEM"
	case TypeOrphanItem:
		return "ORPHAN_ITEM"
	case TypeDirLogItem:
		return "DIR_LOG_ITEM"
	case TypeDirLogIndex:
		return "DIR_LOG_INDEX"
	case TypeDirItem:
		return "DIR_ITEM"
	case TypeDirIndex:
		return "DIR_INDEX"
	case TypeExtentData:
		return "EXTENT_DATA"
	case TypeExtentCsum:
		return "EXTENT_CSUM"
	case TypeRootItem:
		return "ROOT_ITEM"
	case TypeRootBackref:
		return "ROOT_BACKREF"
	case TypeRootRef:
		return "ROOT_REF"
	case TypeExtentItem:
		return "EXTENT_ITEM"
	case TypeMetadataItem:
		return "METADATA_ITEM"
	case TypeExtentOwnerRef:
		return "EXTENT_OWNER_REF"
	case TypeTreeBlockRef:
		return "TREE_BLOCK_REF"
	case TypeExtentDataRef:
		return "EXTENT_DATA_REF"
	case TypeExtentRefV0:
		return "EXTENT_REF_V0"
	case TypeSharedBlockRef:
		return "SHARED_BLOCK_REF"
	case TypeSharedDataRef:
		return "SHARED_DATA_REF"
	case TypeBlockGroupItem:
		return "BLOCK_GROUP_ITEM"
	case TypeFreeSpaceInfo:
		return "FREE_SPACE_INFO"
	case TypeFreeSpaceExtent:
		return "FREE_SPACE_EXTENT"
	case TypeFreeSpaceBitmap:
		return "FREE_SPACE_BITMAP"
	case TypeDevExtent:
		return "DEV_EXTENT"
	case TypeDevItem:
		return "DEV_ITEM"
	case TypeChunkItem:
		return "CHUNK_ITEM"
	case TypeRaidStripe:
		return "RAID_STRIPE"
	case TypeQgroupStatus:
		return "QGROUP_STATUS"
	case TypeQgroupInfo:
		return "QGROUP_INFO"
	case TypeQgroupLimit:
		return "QGROUP_LIMIT"
	case TypeQgroupRelation:
		return "QGROUP_RELATION"
	case TypeTemporaryItem:
		return "TEMPORARY_ITEM"
	case TypePersistentItem:
		return "PERSISTENT_ITEM"
	case TypeDevReplace:
		return "DEV_REPLACE"
	case TypeUUIDSubvol:
		return "UUID_KEY_SUBVOL"
	case TypeUUIDReceivedSubvol:
		return "UUID_KEY_RECEIVED_SUBVOL"
	case TypeStringItem:
		return "STRING_ITEM"
	}
	return fmt.Sprintf("UNKNOWN.%d", uint8(t))
}
