package mkfs

import (
	"io"

	"github.com/gobtrfs/gobtrfs/internal/ondisk"
)

// Source is a tree of files to fill a volume from. Paths are relative and separated by "/"; "" is the top. Its methods are
// called by several goroutines at once. While it is read, nobody may change it: what is noticed of that is an error.
type Source interface {
	// ReadDir gives the names in a directory, in any order.
	ReadDir(path string) ([]string, error)
	// Stat describes a file, not what a link points to.
	Stat(path string) (Stat, error)
	// Xattrs gives the extended attributes of a file, in any order.
	Xattrs(path string) ([]Xattr, error)
	// ReadLink gives the target of a symbolic link.
	ReadLink(path string) (string, error)
	// Open opens a regular file.
	Open(path string) (File, error)
}

// File is an open file of a Source.
type File interface {
	io.ReaderAt
	io.Closer
	// Stat describes the file as it is now.
	Stat() (Stat, error)
	// Data gives the first range of data [from, to) that ends behind off; from is the size or more when there is none.
	Data(off uint64) (from, to uint64, err error)
}

// Stat describes a file.
type Stat struct {
	Mode                uint32 // type and permissions, as Linux encodes them
	UID, GID            uint32
	Major, Minor        uint32 // of device files
	Size                uint64
	Sparse              bool // has holes, perhaps
	Dev, Ino            uint64
	Links               uint64
	Atime, Mtime, Ctime ondisk.Timespec
}

// Xattr is an extended attribute.
type Xattr struct {
	Name  string
	Value []byte
}

// Types of files in modes.
const (
	modeType    = 0o170000
	modeSocket  = 0o140000
	modeLink    = 0o120000
	modeRegular = 0o100000
	modeBlock   = 0o060000
	modeDir     = 0o040000
	modeChar    = 0o020000
	modeFifo    = 0o010000
)

// fileType gives the type of a directory entry; FTUnknown for a mode that is of no type.
func fileType(mode uint32) uint8 {
	switch mode & modeType {
	case modeSocket:
		return ondisk.FTSock
	case modeLink:
		return ondisk.FTSymlink
	case modeRegular:
		return ondisk.FTFile
	case modeBlock:
		return ondisk.FTBlock
	case modeDir:
		return ondisk.FTDir
	case modeChar:
		return ondisk.FTChar
	case modeFifo:
		return ondisk.FTFifo
	}
	return ondisk.FTUnknown
}
