package ondisk

// Block is a tree block: nodesize bytes, as they lie on disk.
//
//	off size field
//	  0   32 checksum of the rest
//	 32   16 fsid
//	 48    8 bytenr: own logical address
//	 56    8 flags; the top byte is the backref revision
//	 64   16 chunk tree uuid
//	 80    8 generation
//	 88    8 owner
//	 96    4 number of items
//	100    1 level
//	101      node: {key, address, generation}…   leaf: {key, offset, size}… and, from the end, the items' bodies
//
// Accessors of slots trust that the block passed treecheck: they panic, as a
// slice does, on a slot or an item that lies outside.
type Block []byte

// Flags of a tree block's header.
const (
	FlagWritten    uint64 = 1
	FlagReloc      uint64 = 2
	HeaderFlagsNew uint64 = 1 << 56 // backref revision 1, not written
)

func (b Block) Csum() []byte            { return b[:32] }
func (b Block) FSID() UUID              { return uuidAt(b, 32) }
func (b Block) Bytenr() Bytenr          { return Bytenr(le.Uint64(b[48:])) }
func (b Block) Flags() uint64           { return le.Uint64(b[56:]) }
func (b Block) ChunkTreeUUID() UUID     { return uuidAt(b, 64) }
func (b Block) Generation() Generation  { return Generation(le.Uint64(b[80:])) }
func (b Block) Owner() TreeID           { return TreeID(le.Uint64(b[88:])) }
func (b Block) NrItems() int            { return int(le.Uint32(b[96:])) }
func (b Block) Level() uint8            { return b[100] }
func (b Block) IsWritten() bool         { return b.Flags()&FlagWritten != 0 }
func (b Block) IsReloc() bool           { return b.Flags()&FlagReloc != 0 }
func (b Block) SetFSID(u UUID)          { copy(b[32:48], u[:]) }
func (b Block) SetBytenr(at Bytenr)     { le.PutUint64(b[48:], uint64(at)) }
func (b Block) SetFlags(f uint64)       { le.PutUint64(b[56:], f) }
func (b Block) SetChunkTreeUUID(u UUID) { copy(b[64:80], u[:]) }
func (b Block) SetGeneration(g Generation) {
	le.PutUint64(b[80:], uint64(g))
}
func (b Block) SetOwner(t TreeID)  { le.PutUint64(b[88:], uint64(t)) }
func (b Block) SetNrItems(n int)   { le.PutUint32(b[96:], uint32(n)) }
func (b Block) SetLevel(l uint8)   { b[100] = l }
func (b Block) isLeaf() bool       { return b[100] == 0 }
func (b Block) head(i int) []byte  { return b[HeaderSize+i*ItemSize:] }
func (b Block) ptrAt(i int) []byte { return b[HeaderSize+i*KeyPtrSize:] }

// Key is the key of slot i, of a node or a leaf.
func (b Block) Key(i int) Key {
	if b.isLeaf() {
		return DecodeKey(b.head(i))
	}
	return DecodeKey(b.ptrAt(i))
}

// SetKey changes the key of slot i.
func (b Block) SetKey(i int, k Key) {
	if b.isLeaf() {
		k.Put(b.head(i))
		return
	}
	k.Put(b.ptrAt(i))
}

// Ptr is the child at slot i of a node: address and generation.
func (b Block) Ptr(i int) (Bytenr, Generation) {
	p := b.ptrAt(i)
	return Bytenr(le.Uint64(p[17:])), Generation(le.Uint64(p[25:]))
}

// SetPtr sets slot i of a node.
func (b Block) SetPtr(i int, k Key, at Bytenr, g Generation) {
	p := b.ptrAt(i)
	k.Put(p)
	le.PutUint64(p[17:], uint64(at))
	le.PutUint64(p[25:], uint64(g))
}

// ItemOffset is where the body of leaf item i starts, counted from byte
// HeaderSize.
func (b Block) ItemOffset(i int) int { return int(le.Uint32(b.head(i)[17:])) }

// ItemLen is the length of the body of leaf item i.
func (b Block) ItemLen(i int) int { return int(le.Uint32(b.head(i)[21:])) }

// Item is the body of leaf item i.
func (b Block) Item(i int) []byte {
	off := HeaderSize + b.ItemOffset(i)
	return b[off : off+b.ItemLen(i) : off+b.ItemLen(i)]
}

// SetItemHead sets the head of leaf item i.
func (b Block) SetItemHead(i int, k Key, off, size uint32) {
	h := b.head(i)
	k.Put(h)
	le.PutUint32(h[17:], off)
	le.PutUint32(h[21:], size)
}

// Search gives the first slot whose key is not smaller than k, and whether it
// is k. The slot is NrItems when all keys are smaller.
func (b Block) Search(k Key) (slot int, exact bool) {
	stride := KeyPtrSize
	if b.isLeaf() {
		stride = ItemSize
	}
	lo, hi := 0, b.NrItems()
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		switch c := DecodeKey(b[HeaderSize+mid*stride:]).Compare(k); {
		case c < 0:
			lo = mid + 1
		case c == 0:
			return mid, true
		default:
			hi = mid
		}
	}
	return lo, false
}

// LeafData is the number of bytes that a leaf has for item heads and bodies.
func LeafData(nodesize int) int { return nodesize - HeaderSize }

// MaxPtrs is the number of pointers that a node can hold.
func MaxPtrs(nodesize int) int { return (nodesize - HeaderSize) / KeyPtrSize }

// MaxItem is the length of the longest body that a leaf can hold.
func MaxItem(nodesize int) int { return nodesize - HeaderSize - ItemSize }

// FreeBytes is the number of bytes of a leaf between heads and bodies.
func (b Block) FreeBytes() int {
	n := b.NrItems()
	end := len(b) - HeaderSize
	if n > 0 {
		end = b.ItemOffset(n - 1)
	}
	return end - n*ItemSize
}
