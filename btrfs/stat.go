package btrfs

import (
	"io/fs"
	"time"

	"github.com/gobtrfs/gobtrfs/internal/ondisk"
)

// Bits of a mode as Linux and the disk have them.
const (
	modeType   = 0o170000
	modeSocket = 0o140000
	modeLink   = 0o120000
	modeFile   = 0o100000
	modeBlock  = 0o060000
	modeDir    = 0o040000
	modeChar   = 0o020000
	modeFifo   = 0o010000
	modeBits   = 0o7777
)

// Stat is what an inode tells.
type Stat struct {
	Subvolume  uint64 // id of the subvolume that holds it
	Inode      uint64
	Mode       uint32 // type and permissions, as in struct stat of Linux
	Nlink      uint32
	UID, GID   uint32
	Size       int64
	Allocated  int64 // bytes of its extents, uncompressed
	Rdev       Rdev  // of devices
	Flags      uint64
	Generation uint64
	Atime      time.Time
	Ctime      time.Time
	Mtime      time.Time
	Otime      time.Time // creation
	Stub       bool      // what a snapshot shows for a subvolume nested in its source
}

// Rdev is the number of a device.
type Rdev struct{ Major, Minor uint32 }

func rdevOf(v uint64) Rdev { return Rdev{Major: uint32(v >> 20), Minor: uint32(v & 0xfffff)} }

func (r Rdev) disk() uint64 { return uint64(r.Major)<<20 | uint64(r.Minor&0xfffff) }

// IsDir, IsRegular and IsSymlink tell the type.
func (s Stat) IsDir() bool     { return s.Mode&modeType == modeDir }
func (s Stat) IsRegular() bool { return s.Mode&modeType == modeFile }
func (s Stat) IsSymlink() bool { return s.Mode&modeType == modeLink }

// FileMode gives the mode as package io/fs has it.
func (s Stat) FileMode() fs.FileMode { return fileMode(s.Mode) }

func fileMode(m uint32) fs.FileMode {
	out := fs.FileMode(m & 0o777)
	out |= typeMode(m)
	if m&0o4000 != 0 {
		out |= fs.ModeSetuid
	}
	if m&0o2000 != 0 {
		out |= fs.ModeSetgid
	}
	if m&0o1000 != 0 {
		out |= fs.ModeSticky
	}
	return out
}

func typeMode(m uint32) fs.FileMode {
	switch m & modeType {
	case modeDir:
		return fs.ModeDir
	case modeLink:
		return fs.ModeSymlink
	case modeSocket:
		return fs.ModeSocket
	case modeFifo:
		return fs.ModeNamedPipe
	case modeChar:
		return fs.ModeDevice | fs.ModeCharDevice
	case modeBlock:
		return fs.ModeDevice
	}
	return 0
}

// diskMode turns permissions of package io/fs into those of the disk.
func diskMode(m fs.FileMode) uint32 {
	out := uint32(m.Perm())
	if m&fs.ModeSetuid != 0 {
		out |= 0o4000
	}
	if m&fs.ModeSetgid != 0 {
		out |= 0o2000
	}
	if m&fs.ModeSticky != 0 {
		out |= 0o1000
	}
	return out
}

// entryMode gives the type bits of a directory entry.
func entryMode(ft uint8) fs.FileMode {
	switch ft {
	case ondisk.FTDir:
		return fs.ModeDir
	case ondisk.FTSymlink:
		return fs.ModeSymlink
	case ondisk.FTSock:
		return fs.ModeSocket
	case ondisk.FTFifo:
		return fs.ModeNamedPipe
	case ondisk.FTChar:
		return fs.ModeDevice | fs.ModeCharDevice
	case ondisk.FTBlock:
		return fs.ModeDevice
	}
	return 0
}

func timeOf(t ondisk.Timespec) time.Time { return time.Unix(t.Sec, int64(t.Nsec)) }

func diskTime(t time.Time) ondisk.Timespec {
	return ondisk.Timespec{Sec: t.Unix(), Nsec: uint32(t.Nanosecond())}
}

func statOf(n node, it ondisk.InodeItem) Stat {
	return Stat{
		Subvolume:  uint64(n.sub),
		Inode:      n.ino,
		Mode:       it.Mode,
		Nlink:      it.Nlink,
		UID:        it.UID,
		GID:        it.GID,
		Size:       int64(it.Size),
		Allocated:  int64(it.Nbytes),
		Rdev:       rdevOf(it.Rdev),
		Flags:      it.Flags,
		Generation: uint64(it.Generation),
		Atime:      timeOf(it.Atime),
		Ctime:      timeOf(it.Ctime),
		Mtime:      timeOf(it.Mtime),
		Otime:      timeOf(it.Otime),
		Stub:       n.stub,
	}
}

// info is an fs.FileInfo; Sys gives the Stat.
type info struct {
	name string
	st   Stat
}

func (i info) Name() string       { return i.name }
func (i info) Size() int64        { return i.st.Size }
func (i info) Mode() fs.FileMode  { return i.st.FileMode() }
func (i info) ModTime() time.Time { return i.st.Mtime }
func (i info) IsDir() bool        { return i.st.IsDir() }
func (i info) Sys() any           { return i.st }
