package ondisk

import "bytes"

// SuperMagic marks a superblock: "_BHRfS_M".
const SuperMagic = "_BHRfS_M"

// superCopies are the physical places of the superblock's copies.
var superCopies = [...]uint64{64 << 10, 64 << 20, 256 << 30}

// SuperCopies is the number of places where superblocks lie.
const SuperCopies = len(superCopies)

// SuperOffset is the physical place of copy i, 0 <= i < SuperCopies.
func SuperOffset(i int) uint64 { return superCopies[i] }

// Flags of the superblock.
const (
	SuperFlagWritten    uint64 = 1 << 0
	SuperFlagReloc      uint64 = 1 << 1
	SuperFlagError      uint64 = 1 << 2
	SuperFlagSeeding    uint64 = 1 << 32
	SuperFlagMetadump   uint64 = 1 << 33
	SuperFlagMetadumpV2 uint64 = 1 << 34
)

// Offsets in the superblock that more than one function needs.
const (
	superDevItem  = 201
	superLabel    = 299
	maxLabel      = 255
	superArray    = 811
	superArrayMax = 2048
	superBackups  = 2859
	backupSize    = 168
)

// SysChunk is an entry of the system chunk array: a SYSTEM chunk.
type SysChunk struct {
	Logical Bytenr
	Chunk   ChunkItem
}

// BackupRoot tells where the trees were at an earlier commit.
//
//	  0 8×12 pairs of address and generation: root, chunk, extent, fs, dev, csum tree
//	 96    8 total bytes   104 8 bytes used   112 8 devices   120 4×8 unused
//	152    6 levels, in the order of the pairs   158 10 unused
type BackupRoot struct {
	Root, Chunk, Extent, FS, Dev, Csum BackupTree
	TotalBytes                         uint64
	BytesUsed                          uint64
	NumDevices                         uint64
}

// BackupTree is the root of one tree in a BackupRoot.
type BackupTree struct {
	Bytenr     Bytenr
	Generation Generation
	Level      uint8
}

func (r *BackupRoot) trees() [6]*BackupTree {
	return [6]*BackupTree{&r.Root, &r.Chunk, &r.Extent, &r.FS, &r.Dev, &r.Csum}
}

// Superblock is the start of all: where the trees are and how to read them.
//
//	off size field
//	  0   32 checksum of bytes 32..4095     32 16 fsid          48  8 bytenr      56 8 flags
//	 64    8 magic        72 8 generation   80  8 root          88  8 chunk root  96 8 log root
//	104    8 log transid 112 8 total bytes 120  8 bytes used   128  8 root dir   136 8 devices
//	144    4 sectorsize  148 4 nodesize    152  4 leafsize     156  4 stripesize 160 4 array size
//	164    8 chunk root generation         172  8 compat       180  8 compat ro  188 8 incompat
//	196    2 csum type   198 3×1 levels: root, chunk root, log root
//	201   98 device item 299 256 label     555  8 cache generation               563 8 uuid tree generation
//	571   16 metadata uuid                 587  8 global roots                   595 217 reserved
//	811 2048 system chunk array           2859 4×168 backup roots               3531 565 padding
type Superblock struct {
	FSID                UUID
	Bytenr              uint64 // physical place of this copy
	Flags               uint64
	Generation          Generation
	Root                Bytenr
	ChunkRoot           Bytenr
	LogRoot             Bytenr
	LogRootTransid      uint64
	TotalBytes          uint64
	BytesUsed           uint64
	RootDirObjectid     uint64
	NumDevices          uint64
	Sectorsize          uint32
	Nodesize            uint32
	Leafsize            uint32
	Stripesize          uint32
	ChunkRootGeneration Generation
	Compat              uint64
	CompatRO            uint64
	Incompat            uint64
	CsumType            uint16
	RootLevel           uint8
	ChunkRootLevel      uint8
	LogRootLevel        uint8
	Dev                 DevItem
	Label               string
	CacheGeneration     Generation
	UUIDTreeGeneration  Generation
	MetadataUUID        UUID
	SysChunks           []SysChunk
	Backups             [4]BackupRoot
	Reserved            [216]byte // bytes 595..810, kept as they are
}

// TreeUUID is the UUID that headers of tree blocks carry: the metadata uuid if
// the volume has one of its own, else the fsid.
func (s *Superblock) TreeUUID() UUID {
	if s.Incompat&IncompatMetadataUUID != 0 {
		return s.MetadataUUID
	}
	return s.FSID
}

// DecodeSuper reads a superblock. It checks magic, sizes and bounds, not the
// checksum.
func DecodeSuper(b []byte) (*Superblock, error) {
	if err := need("superblock", b, SuperSize); err != nil {
		return nil, err
	}
	if string(b[64:72]) != SuperMagic {
		return nil, corrupt("superblock", "wrong magic", b[64:72], []byte(SuperMagic))
	}
	s := &Superblock{
		FSID: uuidAt(b, 32), Bytenr: le.Uint64(b[48:]), Flags: le.Uint64(b[56:]), Generation: Generation(le.Uint64(b[72:])),
		Root: Bytenr(le.Uint64(b[80:])), ChunkRoot: Bytenr(le.Uint64(b[88:])), LogRoot: Bytenr(le.Uint64(b[96:])),
		LogRootTransid: le.Uint64(b[104:]), TotalBytes: le.Uint64(b[112:]), BytesUsed: le.Uint64(b[120:]),
		RootDirObjectid: le.Uint64(b[128:]), NumDevices: le.Uint64(b[136:]),
		Sectorsize: le.Uint32(b[144:]), Nodesize: le.Uint32(b[148:]), Leafsize: le.Uint32(b[152:]), Stripesize: le.Uint32(b[156:]),
		ChunkRootGeneration: Generation(le.Uint64(b[164:])), Compat: le.Uint64(b[172:]), CompatRO: le.Uint64(b[180:]), Incompat: le.Uint64(b[188:]),
		CsumType: le.Uint16(b[196:]), RootLevel: b[198], ChunkRootLevel: b[199], LogRootLevel: b[200],
		Dev:             devItemAt(b[superDevItem:]),
		CacheGeneration: Generation(le.Uint64(b[555:])), UUIDTreeGeneration: Generation(le.Uint64(b[563:])), MetadataUUID: uuidAt(b, 571),
	}
	label, _, _ := bytes.Cut(b[superLabel:superLabel+maxLabel], []byte{0}) // the last of its 256 bytes ends it
	s.Label = string(label)
	copy(s.Reserved[:], b[595:811])
	if err := s.checkSizes(); err != nil {
		return nil, err
	}
	if err := s.decodeArray(b[superArray:superArray+superArrayMax], le.Uint32(b[160:])); err != nil {
		return nil, err
	}
	for i := range s.Backups {
		s.Backups[i] = backupAt(b[superBackups+i*backupSize:])
	}
	return s, nil
}

func powerOfTwo(n uint32) bool { return n != 0 && n&(n-1) == 0 }

func (s *Superblock) checkSizes() error {
	switch {
	case !powerOfTwo(s.Sectorsize) || s.Sectorsize < 4096 || s.Sectorsize > 65536:
		return corrupt("superblock", "bad sector size", s.Sectorsize, nil)
	case !powerOfTwo(s.Nodesize) || s.Nodesize < s.Sectorsize || s.Nodesize > 65536:
		return corrupt("superblock", "bad node size", s.Nodesize, nil)
	case s.Leafsize != s.Nodesize:
		return corrupt("superblock", "leaf size differs from node size", s.Leafsize, s.Nodesize)
	case s.RootLevel > MaxLevel || s.ChunkRootLevel > MaxLevel || s.LogRootLevel > MaxLevel:
		return corrupt("superblock", "bad level of a root", max(s.RootLevel, s.ChunkRootLevel, s.LogRootLevel), nil)
	case uint64(s.Root)%uint64(s.Sectorsize) != 0 || uint64(s.ChunkRoot)%uint64(s.Sectorsize) != 0 || uint64(s.LogRoot)%uint64(s.Sectorsize) != 0:
		return corrupt("superblock", "root not aligned", nil, nil)
	case s.CsumType > 3:
		return corrupt("superblock", "unknown checksum type", s.CsumType, nil)
	case s.NumDevices == 0:
		return corrupt("superblock", "no devices", nil, nil)
	case s.TotalBytes == 0:
		return corrupt("superblock", "no bytes in all", nil, nil)
	}
	return nil
}

func (s *Superblock) decodeArray(b []byte, size uint32) error {
	if size > superArrayMax {
		return corrupt("superblock", "system chunk array too long", size, superArrayMax)
	}
	b = b[:size]
	for len(b) > 0 {
		if len(b) < KeySize {
			return corrupt("superblock", "system chunk array has a short tail", len(b), nil)
		}
		k := DecodeKey(b)
		if k.Type != TypeChunkItem || k.Objectid != FirstChunkTreeObjectid {
			return corrupt("superblock", "system chunk array has a wrong key", k, nil)
		}
		c, n, err := decodeChunk(b[KeySize:])
		if err != nil {
			return err
		}
		s.SysChunks = append(s.SysChunks, SysChunk{Bytenr(k.Offset), c})
		b = b[KeySize+n:]
	}
	return nil
}

func backupAt(b []byte) BackupRoot {
	var r BackupRoot
	for i, t := range r.trees() {
		*t = BackupTree{Bytenr(le.Uint64(b[16*i:])), Generation(le.Uint64(b[16*i+8:])), b[152+i]}
	}
	r.TotalBytes, r.BytesUsed, r.NumDevices = le.Uint64(b[96:]), le.Uint64(b[104:]), le.Uint64(b[112:])
	return r
}

func (r *BackupRoot) put(b []byte) {
	for i, t := range r.trees() {
		le.PutUint64(b[16*i:], uint64(t.Bytenr))
		le.PutUint64(b[16*i+8:], uint64(t.Generation))
		b[152+i] = t.Level
	}
	le.PutUint64(b[96:], r.TotalBytes)
	le.PutUint64(b[104:], r.BytesUsed)
	le.PutUint64(b[112:], r.NumDevices)
}

// SysArraySize is the number of bytes that the system chunks take in the
// superblock; SysArrayMax is the room there is.
func (s *Superblock) SysArraySize() int {
	n := 0
	for _, c := range s.SysChunks {
		n += KeySize + ChunkItemHead + StripeSize*len(c.Chunk.Stripes)
	}
	return n
}

// SysArrayMax is the room for system chunks in the superblock, in bytes.
const SysArrayMax = superArrayMax

// Encode writes the superblock to b, SuperSize bytes, all but its checksum. It
// fails when the system chunks or the label do not fit.
func (s *Superblock) Encode(b []byte) error {
	if err := need("superblock", b, SuperSize); err != nil {
		return err
	}
	if s.SysArraySize() > superArrayMax {
		return corrupt("superblock", "too many system chunks", s.SysArraySize(), superArrayMax)
	}
	if len(s.Label) > maxLabel {
		return corrupt("superblock", "label too long", len(s.Label), maxLabel)
	}
	clear(b)
	copy(b[32:], s.FSID[:])
	copy(b[64:], SuperMagic)
	for _, f := range [...]struct {
		off int
		v   uint64
	}{
		{48, s.Bytenr}, {56, s.Flags}, {72, uint64(s.Generation)}, {80, uint64(s.Root)}, {88, uint64(s.ChunkRoot)}, {96, uint64(s.LogRoot)},
		{104, s.LogRootTransid}, {112, s.TotalBytes}, {120, s.BytesUsed}, {128, s.RootDirObjectid}, {136, s.NumDevices},
		{164, uint64(s.ChunkRootGeneration)}, {172, s.Compat}, {180, s.CompatRO}, {188, s.Incompat},
		{555, uint64(s.CacheGeneration)}, {563, uint64(s.UUIDTreeGeneration)},
	} {
		le.PutUint64(b[f.off:], f.v)
	}
	le.PutUint32(b[144:], s.Sectorsize)
	le.PutUint32(b[148:], s.Nodesize)
	le.PutUint32(b[152:], s.Leafsize)
	le.PutUint32(b[156:], s.Stripesize)
	le.PutUint16(b[196:], s.CsumType)
	b[198], b[199], b[200] = s.RootLevel, s.ChunkRootLevel, s.LogRootLevel
	s.Dev.Append(b[superDevItem:superDevItem])
	copy(b[superLabel:], s.Label)
	copy(b[571:], s.MetadataUUID[:])
	copy(b[595:], s.Reserved[:])
	le.PutUint32(b[160:], uint32(s.SysArraySize()))
	array := b[superArray:superArray]
	for _, c := range s.SysChunks {
		array = Key{FirstChunkTreeObjectid, TypeChunkItem, uint64(c.Logical)}.Append(array)
		array = c.Chunk.Append(array)
	}
	for i := range s.Backups {
		s.Backups[i].put(b[superBackups+i*backupSize:])
	}
	return nil
}
