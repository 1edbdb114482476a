package ondisk

// Bits of the type of a chunk or block group.
const (
	BlockGroupData     uint64 = 1 << 0
	BlockGroupSystem   uint64 = 1 << 1
	BlockGroupMetadata uint64 = 1 << 2
	BlockGroupRAID0    uint64 = 1 << 3
	BlockGroupRAID1    uint64 = 1 << 4
	BlockGroupDUP      uint64 = 1 << 5
	BlockGroupRAID10   uint64 = 1 << 6
	BlockGroupRAID5    uint64 = 1 << 7
	BlockGroupRAID6    uint64 = 1 << 8
	BlockGroupRAID1C3  uint64 = 1 << 9
	BlockGroupRAID1C4  uint64 = 1 << 10

	BlockGroupTypeMask    = BlockGroupData | BlockGroupSystem | BlockGroupMetadata
	BlockGroupRAID56Mask  = BlockGroupRAID5 | BlockGroupRAID6
	BlockGroupProfileMask = BlockGroupRAID0 | BlockGroupRAID1 | BlockGroupDUP | BlockGroupRAID10 | BlockGroupRAID56Mask |
		BlockGroupRAID1C3 | BlockGroupRAID1C4
)

// Sizes of a chunk item: without stripes, and of one stripe.
const (
	ChunkItemHead = 48
	StripeSize    = 32
)

// ChunkItem tells where a chunk of the logical address space lies.
//
//	off size field
//	  0    8 length      8 8 owner (2)   16 8 stripe length   24 8 type
//	 32    4 io align   36 4 io width    40 4 sector size     44 2 stripes   46 2 sub stripes
//	 48      stripes
type ChunkItem struct {
	Length     uint64
	Owner      uint64
	StripeLen  uint64
	Type       uint64
	IOAlign    uint32
	IOWidth    uint32
	SectorSize uint32
	SubStripes uint16
	Stripes    []Stripe
}

// Stripe is a place on a device: {devid 8, offset 8, device uuid 16}.
type Stripe struct {
	DevID   DevID
	Offset  uint64 // physical
	DevUUID UUID
}

// DecodeChunkItem reads a ChunkItem that fills b.
func DecodeChunkItem(b []byte) (ChunkItem, error) {
	c, n, err := decodeChunk(b)
	if err != nil {
		return c, err
	}
	return c, need("chunk item", b, n)
}

// decodeChunk reads the ChunkItem at the start of b and its size.
func decodeChunk(b []byte) (ChunkItem, int, error) {
	if err := needMin("chunk item", b, ChunkItemHead); err != nil {
		return ChunkItem{}, 0, err
	}
	n := int(le.Uint16(b[44:]))
	size := ChunkItemHead + n*StripeSize
	if err := needMin("chunk item", b, size); err != nil {
		return ChunkItem{}, 0, err
	}
	c := ChunkItem{
		Length: le.Uint64(b), Owner: le.Uint64(b[8:]), StripeLen: le.Uint64(b[16:]), Type: le.Uint64(b[24:]),
		IOAlign: le.Uint32(b[32:]), IOWidth: le.Uint32(b[36:]), SectorSize: le.Uint32(b[40:]), SubStripes: le.Uint16(b[46:]),
		Stripes: make([]Stripe, n),
	}
	for i := range c.Stripes {
		s := b[ChunkItemHead+i*StripeSize:]
		c.Stripes[i] = Stripe{DevID(le.Uint64(s)), le.Uint64(s[8:]), uuidAt(s, 16)}
	}
	return c, size, nil
}

// Append writes the item to the end of b.
func (c ChunkItem) Append(b []byte) []byte {
	for _, v := range [...]uint64{c.Length, c.Owner, c.StripeLen, c.Type} {
		b = le.AppendUint64(b, v)
	}
	for _, v := range [...]uint32{c.IOAlign, c.IOWidth, c.SectorSize} {
		b = le.AppendUint32(b, v)
	}
	b = le.AppendUint16(b, uint16(len(c.Stripes)))
	b = le.AppendUint16(b, c.SubStripes)
	for _, s := range c.Stripes {
		b = le.AppendUint64(b, uint64(s.DevID))
		b = le.AppendUint64(b, s.Offset)
		b = append(b, s.DevUUID[:]...)
	}
	return b
}

// DevItemSize is the size of a DevItem.
const DevItemSize = 98

// DevItem is a device of the volume.
//
//	off size field
//	  0    8 devid       8 8 total bytes   16 8 bytes used
//	 24    4 io align   28 4 io width      32 4 sector size
//	 36    8 type       44 8 generation    52 8 start offset
//	 60    4 dev group  64 1 seek speed    65 1 bandwidth   66 16 uuid   82 16 fsid
type DevItem struct {
	DevID       DevID
	TotalBytes  uint64
	BytesUsed   uint64
	IOAlign     uint32
	IOWidth     uint32
	SectorSize  uint32
	Type        uint64
	Generation  Generation
	StartOffset uint64
	DevGroup    uint32
	SeekSpeed   uint8
	Bandwidth   uint8
	UUID        UUID
	FSID        UUID
}

// DecodeDevItem reads a DevItem.
func DecodeDevItem(b []byte) (DevItem, error) {
	if err := need("device item", b, DevItemSize); err != nil {
		return DevItem{}, err
	}
	return devItemAt(b), nil
}

func devItemAt(b []byte) DevItem {
	return DevItem{
		DevID: DevID(le.Uint64(b)), TotalBytes: le.Uint64(b[8:]), BytesUsed: le.Uint64(b[16:]),
		IOAlign: le.Uint32(b[24:]), IOWidth: le.Uint32(b[28:]), SectorSize: le.Uint32(b[32:]),
		Type: le.Uint64(b[36:]), Generation: Generation(le.Uint64(b[44:])), StartOffset: le.Uint64(b[52:]),
		DevGroup: le.Uint32(b[60:]), SeekSpeed: b[64], Bandwidth: b[65], UUID: uuidAt(b, 66), FSID: uuidAt(b, 82),
	}
}

// Append writes the item to the end of b.
func (d DevItem) Append(b []byte) []byte {
	for _, v := range [...]uint64{uint64(d.DevID), d.TotalBytes, d.BytesUsed} {
		b = le.AppendUint64(b, v)
	}
	for _, v := range [...]uint32{d.IOAlign, d.IOWidth, d.SectorSize} {
		b = le.AppendUint32(b, v)
	}
	for _, v := range [...]uint64{d.Type, uint64(d.Generation), d.StartOffset} {
		b = le.AppendUint64(b, v)
	}
	b = le.AppendUint32(b, d.DevGroup)
	b = append(b, d.SeekSpeed, d.Bandwidth)
	return append(append(b, d.UUID[:]...), d.FSID[:]...)
}

// DevExtentSize is the size of a DevExtent.
const DevExtentSize = 48

// DevExtent is a range of a device that a chunk uses: {chunk tree 8, chunk
// objectid 8, chunk offset 8, length 8, chunk tree uuid 16}.
type DevExtent struct {
	ChunkTree     TreeID
	ChunkObjectid uint64
	ChunkOffset   Bytenr
	Length        uint64
	ChunkTreeUUID UUID
}

// DecodeDevExtent reads a DevExtent.
func DecodeDevExtent(b []byte) (DevExtent, error) {
	if err := need("device extent", b, DevExtentSize); err != nil {
		return DevExtent{}, err
	}
	return DevExtent{TreeID(le.Uint64(b)), le.Uint64(b[8:]), Bytenr(le.Uint64(b[16:])), le.Uint64(b[24:]), uuidAt(b, 32)}, nil
}

// Append writes the item to the end of b.
func (d DevExtent) Append(b []byte) []byte {
	for _, v := range [...]uint64{uint64(d.ChunkTree), d.ChunkObjectid, uint64(d.ChunkOffset), d.Length} {
		b = le.AppendUint64(b, v)
	}
	return append(b, d.ChunkTreeUUID[:]...)
}
