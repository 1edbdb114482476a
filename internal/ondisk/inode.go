package ondisk

// Timespec is a point in time: seconds since 1970 and nanoseconds.
type Timespec struct {
	Sec  int64
	Nsec uint32
}

func timeAt(b []byte) Timespec { return Timespec{int64(le.Uint64(b)), le.Uint32(b[8:])} }

func (t Timespec) append(b []byte) []byte {
	return le.AppendUint32(le.AppendUint64(b, uint64(t.Sec)), t.Nsec)
}

// Flags of an inode.
const (
	InodeNodatasum    uint64 = 1 << 0
	InodeNodatacow    uint64 = 1 << 1
	InodeReadonly     uint64 = 1 << 2
	InodeNocompress   uint64 = 1 << 3
	InodePrealloc     uint64 = 1 << 4
	InodeSync         uint64 = 1 << 5
	InodeImmutable    uint64 = 1 << 6
	InodeAppend       uint64 = 1 << 7
	InodeNodump       uint64 = 1 << 8
	InodeNoatime      uint64 = 1 << 9
	InodeDirsync      uint64 = 1 << 10
	InodeCompress     uint64 = 1 << 11
	InodeRootItemInit uint64 = 1 << 31
	InodeVerity       uint64 = 1 << 32
)

// InodeItemSize is the size of an InodeItem.
const InodeItemSize = 160

// InodeItem is an inode.
//
//	off size field
//	  0    8 generation        8  8 transid      16  8 size     24  8 nbytes
//	 32    8 block group      40  4 nlink        44  4 uid      48  4 gid
//	 52    4 mode             56  8 rdev         64  8 flags    72  8 sequence
//	 80   32 reserved        112 12 atime       124 12 ctime   136 12 mtime   148 12 otime
type InodeItem struct {
	Generation Generation
	Transid    Generation
	Size       uint64
	Nbytes     uint64
	BlockGroup uint64
	Nlink      uint32
	UID        uint32
	GID        uint32
	Mode       uint32
	Rdev       uint64
	Flags      uint64
	Sequence   uint64
	Atime      Timespec
	Ctime      Timespec
	Mtime      Timespec
	Otime      Timespec
}

// DecodeInodeItem reads an InodeItem.
func DecodeInodeItem(b []byte) (InodeItem, error) {
	if err := need("inode item", b, InodeItemSize); err != nil {
		return InodeItem{}, err
	}
	return inodeAt(b), nil
}

func inodeAt(b []byte) InodeItem {
	return InodeItem{
		Generation: Generation(le.Uint64(b)), Transid: Generation(le.Uint64(b[8:])), Size: le.Uint64(b[16:]), Nbytes: le.Uint64(b[24:]),
		BlockGroup: le.Uint64(b[32:]), Nlink: le.Uint32(b[40:]), UID: le.Uint32(b[44:]), GID: le.Uint32(b[48:]), Mode: le.Uint32(b[52:]),
		Rdev: le.Uint64(b[56:]), Flags: le.Uint64(b[64:]), Sequence: le.Uint64(b[72:]),
		Atime: timeAt(b[112:]), Ctime: timeAt(b[124:]), Mtime: timeAt(b[136:]), Otime: timeAt(b[148:]),
	}
}

// Append writes the item to the end of b.
func (i InodeItem) Append(b []byte) []byte {
	for _, v := range [...]uint64{uint64(i.Generation), uint64(i.Transid), i.Size, i.Nbytes, i.BlockGroup} {
		b = le.AppendUint64(b, v)
	}
	for _, v := range [...]uint32{i.Nlink, i.UID, i.GID, i.Mode} {
		b = le.AppendUint32(b, v)
	}
	for _, v := range [...]uint64{i.Rdev, i.Flags, i.Sequence, 0, 0, 0, 0} {
		b = le.AppendUint64(b, v)
	}
	for _, t := range [...]Timespec{i.Atime, i.Ctime, i.Mtime, i.Otime} {
		b = t.append(b)
	}
	return b
}

// InodeRef is one name of an inode in the directory that the key tells.
//
//	{index 8, name length 2, name}…
type InodeRef struct {
	Index uint64
	Name  []byte
}

// DecodeInodeRefs reads all names of an INODE_REF item.
func DecodeInodeRefs(b []byte) ([]InodeRef, error) {
	var out []InodeRef
	for len(b) > 0 {
		if err := needMin("inode ref", b, 10); err != nil {
			return nil, err
		}
		n := int(le.Uint16(b[8:]))
		if err := needMin("inode ref", b, 10+n); err != nil {
			return nil, err
		}
		out = append(out, InodeRef{le.Uint64(b), b[10 : 10+n : 10+n]})
		b = b[10+n:]
	}
	return out, nil
}

// AppendInodeRef writes one name to the end of b.
func AppendInodeRef(b []byte, r InodeRef) []byte {
	b = le.AppendUint64(b, r.Index)
	b = le.AppendUint16(b, uint16(len(r.Name)))
	return append(b, r.Name...)
}

// InodeExtref is one name of an inode, its directory told too.
//
//	{parent 8, index 8, name length 2, name}…
type InodeExtref struct {
	Parent uint64
	Index  uint64
	Name   []byte
}

// DecodeInodeExtrefs reads all names of an INODE_EXTREF item.
func DecodeInodeExtrefs(b []byte) ([]InodeExtref, error) {
	var out []InodeExtref
	for len(b) > 0 {
		if err := needMin("inode extref", b, 18); err != nil {
			return nil, err
		}
		n := int(le.Uint16(b[16:]))
		if err := needMin("inode extref", b, 18+n); err != nil {
			return nil, err
		}
		out = append(out, InodeExtref{le.Uint64(b), le.Uint64(b[8:]), b[18 : 18+n : 18+n]})
		b = b[18+n:]
	}
	return out, nil
}

// AppendInodeExtref writes one name to the end of b.
func AppendInodeExtref(b []byte, r InodeExtref) []byte {
	b = le.AppendUint64(b, r.Parent)
	b = le.AppendUint64(b, r.Index)
	b = le.AppendUint16(b, uint16(len(r.Name)))
	return append(b, r.Name...)
}

// Types of directory entries.
const (
	FTUnknown uint8 = 0
	FTFile    uint8 = 1
	FTDir     uint8 = 2
	FTChar    uint8 = 3
	FTBlock   uint8 = 4
	FTFifo    uint8 = 5
	FTSock    uint8 = 6
	FTSymlink uint8 = 7
	FTXattr   uint8 = 8
)

// DirEntrySize is the size of a DirEntry without name and data.
const DirEntrySize = 30

// DirEntry is an entry of a directory, or an extended attribute.
//
//	off size field
//	  0   17 location
//	 17    8 transid
//	 25    2 data length
//	 27    2 name length
//	 29    1 type
//	 30      name, data
type DirEntry struct {
	Location Key
	Transid  Generation
	Type     uint8
	Name     []byte
	Data     []byte
}

// DecodeDirEntries reads all entries of a DIR_ITEM, DIR_INDEX or XATTR_ITEM.
func DecodeDirEntries(b []byte) ([]DirEntry, error) {
	var out []DirEntry
	for len(b) > 0 {
		if err := needMin("directory entry", b, DirEntrySize); err != nil {
			return nil, err
		}
		d, n := int(le.Uint16(b[25:])), int(le.Uint16(b[27:]))
		end := DirEntrySize + n + d
		if err := needMin("directory entry", b, end); err != nil {
			return nil, err
		}
		out = append(out, DirEntry{
			Location: DecodeKey(b), Transid: Generation(le.Uint64(b[17:])), Type: b[29],
			Name: b[30 : 30+n : 30+n], Data: b[30+n : end : end],
		})
		b = b[end:]
	}
	return out, nil
}

// AppendDirEntry writes one entry to the end of b.
func AppendDirEntry(b []byte, e DirEntry) []byte {
	b = e.Location.Append(b)
	b = le.AppendUint64(b, uint64(e.Transid))
	b = le.AppendUint16(b, uint16(len(e.Data)))
	b = le.AppendUint16(b, uint16(len(e.Name)))
	b = append(b, e.Type)
	b = append(b, e.Name...)
	return append(b, e.Data...)
}

// Types of file extents.
const (
	ExtentInline   uint8 = 0
	ExtentReg      uint8 = 1
	ExtentPrealloc uint8 = 2
)

// Compression of file extents.
const (
	CompressNone uint8 = 0
	CompressZlib uint8 = 1
	CompressLZO  uint8 = 2
	CompressZstd uint8 = 3
)

// Sizes of file extent items: where inline data starts, and all of a regular
// one.
const (
	FileExtentInlineStart = 21
	FileExtentSize        = 53
)

// FileExtent is a piece of a file.
//
//	off size field
//	  0    8 generation   8 8 ram bytes   16 1 compression   17 1 encryption   18 2 other encoding   20 1 type
//	 21      inline data, or:
//	 21    8 disk bytenr (0: hole)   29 8 disk num bytes   37 8 offset   45 8 num bytes
type FileExtent struct {
	Generation    Generation
	RAMBytes      uint64
	Compression   uint8
	Encryption    uint8
	OtherEncoding uint16
	Type          uint8
	DiskBytenr    Bytenr
	DiskNumBytes  uint64
	Offset        uint64
	NumBytes      uint64
	Inline        []byte
}

// DecodeFileExtent reads a FileExtent.
func DecodeFileExtent(b []byte) (FileExtent, error) {
	if err := needMin("file extent", b, FileExtentInlineStart); err != nil {
		return FileExtent{}, err
	}
	e := FileExtent{
		Generation: Generation(le.Uint64(b)), RAMBytes: le.Uint64(b[8:]), Compression: b[16], Encryption: b[17],
		OtherEncoding: le.Uint16(b[18:]), Type: b[20],
	}
	if e.Type == ExtentInline {
		e.Inline = b[FileExtentInlineStart:]
		return e, nil
	}
	if err := need("file extent", b, FileExtentSize); err != nil {
		return FileExtent{}, err
	}
	e.DiskBytenr, e.DiskNumBytes = Bytenr(le.Uint64(b[21:])), le.Uint64(b[29:])
	e.Offset, e.NumBytes = le.Uint64(b[37:]), le.Uint64(b[45:])
	return e, nil
}

// Append writes the extent to the end of b.
func (e FileExtent) Append(b []byte) []byte {
	b = le.AppendUint64(b, uint64(e.Generation))
	b = le.AppendUint64(b, e.RAMBytes)
	b = append(b, e.Compression, e.Encryption)
	b = le.AppendUint16(b, e.OtherEncoding)
	b = append(b, e.Type)
	if e.Type == ExtentInline {
		return append(b, e.Inline...)
	}
	for _, v := range [...]uint64{uint64(e.DiskBytenr), e.DiskNumBytes, e.Offset, e.NumBytes} {
		b = le.AppendUint64(b, v)
	}
	return b
}
