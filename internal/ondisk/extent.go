package ondisk

// Flags of an extent item.
const (
	ExtentFlagData        uint64 = 1
	ExtentFlagTreeBlock   uint64 = 2
	ExtentFlagFullBackref uint64 = 1 << 8
)

// ExtentItemSize is the size of an ExtentItem.
const ExtentItemSize = 24

// ExtentItem begins every EXTENT_ITEM and METADATA_ITEM.
//
//	{refs 8, generation 8, flags 8}
type ExtentItem struct {
	Refs       uint64
	Generation Generation
	Flags      uint64
}

// Append writes the item to the end of b.
func (e ExtentItem) Append(b []byte) []byte {
	b = le.AppendUint64(b, e.Refs)
	b = le.AppendUint64(b, uint64(e.Generation))
	return le.AppendUint64(b, e.Flags)
}

// DecodeExtentItem reads the fixed part of an extent item.
func DecodeExtentItem(b []byte) (ExtentItem, error) {
	if err := needMin("extent item", b, ExtentItemSize); err != nil {
		return ExtentItem{}, err
	}
	return ExtentItem{le.Uint64(b), Generation(le.Uint64(b[8:])), le.Uint64(b[16:])}, nil
}

// InlineRef is a reference inside an extent item. Type tells which members
// count: Root (TREE_BLOCK_REF, EXTENT_OWNER_REF), Parent (SHARED_BLOCK_REF),
// Parent and Count (SHARED_DATA_REF), Root, Objectid, Offset and Count
// (EXTENT_DATA_REF).
type InlineRef struct {
	Type     KeyType
	Root     TreeID
	Objectid uint64
	Offset   uint64
	Parent   Bytenr
	Count    uint32
}

// InlineRefSize is the size of an inline reference, its type byte included; 0
// for a type that there is not.
func InlineRefSize(t KeyType) int {
	switch t {
	case TypeExtentOwnerRef, TypeTreeBlockRef, TypeSharedBlockRef:
		return 9
	case TypeExtentDataRef:
		return 29
	case TypeSharedDataRef:
		return 13
	}
	return 0
}

// DecodeInlineRef reads the inline reference at the start of b and its size.
func DecodeInlineRef(b []byte) (InlineRef, int, error) {
	if len(b) == 0 {
		return InlineRef{}, 0, corrupt("inline ref", "too short", 0, 1)
	}
	r := InlineRef{Type: KeyType(b[0]), Count: 1}
	n := InlineRefSize(r.Type)
	if n == 0 {
		return r, 0, corrupt("inline ref", "unknown type", b[0], nil)
	}
	if err := needMin("inline ref", b, n); err != nil {
		return r, 0, err
	}
	switch r.Type {
	case TypeExtentOwnerRef, TypeTreeBlockRef:
		r.Root = TreeID(le.Uint64(b[1:]))
	case TypeSharedBlockRef:
		r.Parent = Bytenr(le.Uint64(b[1:]))
	case TypeSharedDataRef:
		r.Parent, r.Count = Bytenr(le.Uint64(b[1:])), le.Uint32(b[9:])
	case TypeExtentDataRef:
		r.Root, r.Objectid, r.Offset, r.Count = TreeID(le.Uint64(b[1:])), le.Uint64(b[9:]), le.Uint64(b[17:]), le.Uint32(b[25:])
	}
	return r, n, nil
}

// Append writes the reference to the end of b.
func (r InlineRef) Append(b []byte) []byte {
	b = append(b, byte(r.Type))
	switch r.Type {
	case TypeExtentOwnerRef, TypeTreeBlockRef:
		return le.AppendUint64(b, uint64(r.Root))
	case TypeSharedBlockRef:
		return le.AppendUint64(b, uint64(r.Parent))
	case TypeSharedDataRef:
		return le.AppendUint32(le.AppendUint64(b, uint64(r.Parent)), r.Count)
	case TypeExtentDataRef:
		b = le.AppendUint64(b, uint64(r.Root))
		b = le.AppendUint64(b, r.Objectid)
		b = le.AppendUint64(b, r.Offset)
		return le.AppendUint32(b, r.Count)
	}
	return b
}

// Extent is an EXTENT_ITEM or METADATA_ITEM with its inline references.
type Extent struct {
	Key Key
	ExtentItem
	Level    uint8 // of tree blocks
	FirstKey Key   // of tree blocks in EXTENT_ITEMs (not skinny)
	Refs     []InlineRef
}

// Len is the length of the extent in bytes.
func (e Extent) Len(nodesize uint32) uint64 {
	if e.Key.Type == TypeMetadataItem {
		return uint64(nodesize)
	}
	return e.Key.Offset
}

// TreeBlockInfoSize is the size of {first key, level} in an EXTENT_ITEM of a
// tree block.
const TreeBlockInfoSize = KeySize + 1

// DecodeExtent reads an extent item with all inline references.
func DecodeExtent(key Key, b []byte) (Extent, error) {
	e := Extent{Key: key}
	var err error
	if e.ExtentItem, err = DecodeExtentItem(b); err != nil {
		return e, err
	}
	b = b[ExtentItemSize:]
	switch {
	case key.Type == TypeMetadataItem:
		e.Level = uint8(key.Offset)
	case e.Flags&ExtentFlagTreeBlock != 0:
		if err := needMin("extent item", b, TreeBlockInfoSize); err != nil {
			return e, err
		}
		e.FirstKey, e.Level = DecodeKey(b), b[KeySize]
		b = b[TreeBlockInfoSize:]
	}
	for len(b) > 0 {
		r, n, err := DecodeInlineRef(b)
		if err != nil {
			return e, err
		}
		e.Refs = append(e.Refs, r)
		b = b[n:]
	}
	return e, nil
}

// Append writes the body of the item to the end of b. Refs hides the count of
// the embedded ExtentItem: set e.ExtentItem.Refs.
func (e Extent) Append(b []byte) []byte {
	b = e.ExtentItem.Append(b)
	if e.Key.Type == TypeExtentItem && e.Flags&ExtentFlagTreeBlock != 0 {
		b = append(e.FirstKey.Append(b), e.Level)
	}
	for _, r := range e.Refs {
		b = r.Append(b)
	}
	return b
}

// ExtentDataRef is the body of a keyed EXTENT_DATA_REF item.
type ExtentDataRef struct {
	Root     TreeID
	Objectid uint64
	Offset   uint64
	Count    uint32
}

// ExtentDataRefSize is the size of an ExtentDataRef.
const ExtentDataRefSize = 28

// DecodeExtentDataRef reads an ExtentDataRef.
func DecodeExtentDataRef(b []byte) (ExtentDataRef, error) {
	if err := need("extent data ref", b, ExtentDataRefSize); err != nil {
		return ExtentDataRef{}, err
	}
	return ExtentDataRef{TreeID(le.Uint64(b)), le.Uint64(b[8:]), le.Uint64(b[16:]), le.Uint32(b[24:])}, nil
}

// Append writes the reference to the end of b.
func (r ExtentDataRef) Append(b []byte) []byte {
	b = le.AppendUint64(b, uint64(r.Root))
	b = le.AppendUint64(b, r.Objectid)
	b = le.AppendUint64(b, r.Offset)
	return le.AppendUint32(b, r.Count)
}

// DecodeSharedDataRef reads the count of a keyed SHARED_DATA_REF item.
func DecodeSharedDataRef(b []byte) (uint32, error) {
	if err := need("shared data ref", b, 4); err != nil {
		return 0, err
	}
	return le.Uint32(b), nil
}

// BlockGroupItem tells how full a block group is: {used 8, chunk objectid 8,
// flags 8}.
type BlockGroupItem struct {
	Used          uint64
	ChunkObjectid uint64
	Flags         uint64
}

// DecodeBlockGroupItem reads a BlockGroupItem.
func DecodeBlockGroupItem(b []byte) (BlockGroupItem, error) {
	if err := need("block group item", b, 24); err != nil {
		return BlockGroupItem{}, err
	}
	return BlockGroupItem{le.Uint64(b), le.Uint64(b[8:]), le.Uint64(b[16:])}, nil
}

// Append writes the item to the end of b.
func (g BlockGroupItem) Append(b []byte) []byte {
	b = le.AppendUint64(b, g.Used)
	b = le.AppendUint64(b, g.ChunkObjectid)
	return le.AppendUint64(b, g.Flags)
}

// FreeSpaceUsesBitmaps is the flag of a FreeSpaceInfo whose group has bitmaps.
const FreeSpaceUsesBitmaps uint32 = 1

// FreeSpaceInfo heads the free space of a block group: {extent count 4, flags
// 4}.
type FreeSpaceInfo struct {
	ExtentCount uint32
	Flags       uint32
}

// DecodeFreeSpaceInfo reads a FreeSpaceInfo.
func DecodeFreeSpaceInfo(b []byte) (FreeSpaceInfo, error) {
	if err := need("free space info", b, 8); err != nil {
		return FreeSpaceInfo{}, err
	}
	return FreeSpaceInfo{le.Uint32(b), le.Uint32(b[4:])}, nil
}

// Append writes the item to the end of b.
func (i FreeSpaceInfo) Append(b []byte) []byte {
	return le.AppendUint32(le.AppendUint32(b, i.ExtentCount), i.Flags)
}
