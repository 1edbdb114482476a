package ondisk

// Flags of a root item.
const (
	RootFlagReadonly uint64 = 1
	RootFlagDead     uint64 = 1 << 48
)

// Sizes of a RootItem: today's, and the one that ends before GenerationV2.
const (
	RootItemSize       = 439
	RootItemSizeLegacy = 239
)

// RootItem tells where the root block of a tree is.
//
//	off size field
//	  0  160 inode           160 8 generation     168 8 root dir id     176 8 bytenr
//	184    8 byte limit      192 8 bytes used     200 8 last snapshot   208 8 flags
//	216    4 refs            220 17 drop progress 237 1 drop level      238 1 level
//	239    8 generation v2   247 16 uuid          263 16 parent uuid    279 16 received uuid
//	295 4×8 ctransid, otransid, stransid, rtransid
//	327 4×12 ctime, otime, stime, rtime           375 64 reserved
type RootItem struct {
	Inode        InodeItem
	Generation   Generation
	RootDirid    uint64
	Bytenr       Bytenr
	ByteLimit    uint64
	BytesUsed    uint64
	LastSnapshot Generation
	Flags        uint64
	Refs         uint32
	DropProgress Key
	DropLevel    uint8
	Level        uint8
	GenerationV2 Generation // differs from Generation: what follows is void
	UUID         UUID
	ParentUUID   UUID
	ReceivedUUID UUID
	Ctransid     Generation
	Otransid     Generation
	Stransid     Generation
	Rtransid     Generation
	Ctime        Timespec
	Otime        Timespec
	Stime        Timespec
	Rtime        Timespec
}

// Dropped tells how far a deleted tree has been dropped; ok is false where nothing of the tree was yet.
func (r *RootItem) Dropped() (c DropCut, ok bool) {
	return DropCut{r.DropProgress, r.DropLevel}, r.Refs == 0 && !r.DropProgress.IsZero()
}

// DropCut is the point up to which a tree has been dropped: a slot of a node of this level. What is before it dangles: blocks
// that were freed, and may hold something else by now.
type DropCut struct {
	Key   Key
	Level uint8
}

// Slot gives the first slot of b, a node on the way to the cut, that is still held; below tells that the way leads on there.
func (c DropCut) Slot(b Block) (slot int, below bool) {
	if b.Level() == 0 || b.Level() < c.Level {
		return 0, false
	}
	slot, exact := b.Search(c.Key)
	if !exact && b.Level() > c.Level && slot > 0 {
		slot--
	}
	return slot, b.Level() > c.Level
}

// DecodeRootItem reads a RootItem of either size. What follows GenerationV2 is
// left zero when it is void.
func DecodeRootItem(b []byte) (RootItem, error) {
	if len(b) != RootItemSize && len(b) != RootItemSizeLegacy {
		return RootItem{}, corrupt("root item", "wrong size", len(b), RootItemSize)
	}
	r := RootItem{
		Inode: inodeAt(b), Generation: Generation(le.Uint64(b[160:])), RootDirid: le.Uint64(b[168:]), Bytenr: Bytenr(le.Uint64(b[176:])),
		ByteLimit: le.Uint64(b[184:]), BytesUsed: le.Uint64(b[192:]), LastSnapshot: Generation(le.Uint64(b[200:])), Flags: le.Uint64(b[208:]),
		Refs: le.Uint32(b[216:]), DropProgress: DecodeKey(b[220:]), DropLevel: b[237], Level: b[238],
	}
	if len(b) == RootItemSizeLegacy {
		return r, nil
	}
	r.GenerationV2 = Generation(le.Uint64(b[239:]))
	if r.GenerationV2 != r.Generation {
		return r, nil
	}
	r.UUID, r.ParentUUID, r.ReceivedUUID = uuidAt(b, 247), uuidAt(b, 263), uuidAt(b, 279)
	r.Ctransid, r.Otransid = Generation(le.Uint64(b[295:])), Generation(le.Uint64(b[303:]))
	r.Stransid, r.Rtransid = Generation(le.Uint64(b[311:])), Generation(le.Uint64(b[319:]))
	r.Ctime, r.Otime, r.Stime, r.Rtime = timeAt(b[327:]), timeAt(b[339:]), timeAt(b[351:]), timeAt(b[363:])
	return r, nil
}

// Append writes the item, in today's size, to the end of b.
func (r RootItem) Append(b []byte) []byte {
	b = r.Inode.Append(b)
	for _, v := range [...]uint64{uint64(r.Generation), r.RootDirid, uint64(r.Bytenr), r.ByteLimit, r.BytesUsed, uint64(r.LastSnapshot), r.Flags} {
		b = le.AppendUint64(b, v)
	}
	b = le.AppendUint32(b, r.Refs)
	b = r.DropProgress.Append(b)
	b = append(b, r.DropLevel, r.Level)
	b = le.AppendUint64(b, uint64(r.GenerationV2))
	b = append(append(append(b, r.UUID[:]...), r.ParentUUID[:]...), r.ReceivedUUID[:]...)
	for _, v := range [...]Generation{r.Ctransid, r.Otransid, r.Stransid, r.Rtransid} {
		b = le.AppendUint64(b, uint64(v))
	}
	for _, t := range [...]Timespec{r.Ctime, r.Otime, r.Stime, r.Rtime} {
		b = t.append(b)
	}
	return append(b, make([]byte, 64)...)
}

// RootRef is the place of a subvolume in the tree of another: body of ROOT_REF
// and ROOT_BACKREF.
//
//	{directory 8, sequence 8, name length 2, name}
type RootRef struct {
	Dirid    uint64
	Sequence uint64 // index of the directory entry
	Name     []byte
}

// DecodeRootRef reads a RootRef.
func DecodeRootRef(b []byte) (RootRef, error) {
	if err := needMin("root ref", b, 18); err != nil {
		return RootRef{}, err
	}
	if err := need("root ref", b, 18+int(le.Uint16(b[16:]))); err != nil {
		return RootRef{}, err
	}
	return RootRef{le.Uint64(b), le.Uint64(b[8:]), b[18:]}, nil
}

// Append writes the reference to the end of b.
func (r RootRef) Append(b []byte) []byte {
	b = le.AppendUint64(b, r.Dirid)
	b = le.AppendUint64(b, r.Sequence)
	b = le.AppendUint16(b, uint16(len(r.Name)))
	return append(b, r.Name...)
}
