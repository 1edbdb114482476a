package check

import (
	"context"
	"slices"

	"github.com/gobtrfs/gobtrfs/internal/ondisk"
)

const (
	typeMask = 0o170000
	typeDir  = 0o040000
	typeReg  = 0o100000
	typeLink = 0o120000
)

// fileType gives the type that directory entries of such inodes have.
func fileType(mode uint32) uint8 {
	switch mode & typeMask {
	case 0o010000:
		return ondisk.FTFifo
	case 0o020000:
		return ondisk.FTChar
	case typeDir:
		return ondisk.FTDir
	case 0o060000:
		return ondisk.FTBlock
	case typeReg:
		return ondisk.FTFile
	case typeLink:
		return ondisk.FTSymlink
	case 0o140000:
		return ondisk.FTSock
	}
	return ondisk.FTUnknown
}

func inoPlace(g *grove, ino uint64) Place { return Place{Tree: g.id, Ino: ino, Slot: -1} }

// finish judges an inode all of whose items are in p, and folds it into s.
func (c *checker) finish(g *grove, s *summary, p *part) {
	if p.ino < ondisk.FirstFreeObjectid || p.ino > ondisk.LastFreeObjectid {
		return
	}
	if p.torn {
		s.incomplete = true
		return
	}
	at := inoPlace(g, p.ino)
	if !p.hasItem {
		c.rep.bad(at, "the file is lost", "has items but no inode item")
		s.incomplete = true
		return
	}
	s.names.refs += p.refHash * typeHash(fileType(p.mode))
	c.linkCount(g, s, p)
	switch p.mode & typeMask {
	case typeDir:
		c.directory(at, p)
	case typeReg:
		c.file(g, at, p)
	case typeLink:
		c.symlink(at, p)
	default:
		if p.hasExtents {
			c.rep.bad(at, "", "special file with contents")
		}
	}
	if p.mode&typeMask != typeDir && (p.itemLen > 0 || p.indexLen > 0) {
		c.rep.bad(at, "", "not a directory, but has entries")
	}
}

// linkCount judges the number of names.
func (c *checker) linkCount(g *grove, s *summary, p *part) {
	at := inoPlace(g, p.ino)
	if p.ino == ondisk.FirstFreeObjectid && p.mode&typeMask == typeDir {
		s.rootDir = true
		if !p.dotdot || p.refs != 0 || p.nlink != 1 {
			c.rep.bad(at, "", "root directory with %d links, %d names, \"..\": %v", p.nlink, p.refs, p.dotdot)
		}
		return
	}
	if p.dotdot {
		c.rep.bad(at, "", "root directory is not a directory")
	}
	if p.nlink != p.refs {
		c.rep.bad(at, "deleting names may free it too early or never", "says %d links, has %d names", p.nlink, p.refs)
	}
	if p.nlink == 0 {
		s.unlinked = append(s.unlinked, p.ino)
	}
}

func (c *checker) directory(at Place, p *part) {
	if p.size != 2*p.indexLen {
		c.rep.bad(at, "the directory can not be removed", "directory size %d, names add up to %d", p.size, 2*p.indexLen)
	}
	if p.itemLen != p.indexLen {
		c.rep.bad(at, "names are missing in listings or can not be opened", "%d bytes of names by hash, %d by index", p.itemLen, p.indexLen)
	}
	if p.hasExtents {
		c.rep.bad(at, "", "directory with contents")
	}
}

func (c *checker) file(g *grove, at Place, p *part) {
	c.bytes(at, p)
	if c.sb.Incompat&ondisk.IncompatNoHoles == 0 && p.nlink > 0 {
		end := (p.size + c.sector - 1) / c.sector * c.sector
		if p.size > 0 && (!p.hasExtents || p.first > 0 || p.gap || p.end < end) && g.id != ondisk.DataRelocTree {
			c.rep.bad(at, "", "ranges of the file have no extent, but the volume's format wants one for holes")
		}
	}
	nosum := p.flags&ondisk.InodeNodatasum != 0
	switch {
	case g.id == ondisk.DataRelocTree:
	case !nosum && p.noSum > 0:
		c.rep.bad(at, "reading the file fails", "%d bytes without checksums, first at %d", p.noSum, p.noSumAt)
	case nosum && p.withSum > 0:
		c.rep.bad(at, "", "inode is marked nodatasum, but %d bytes have checksums", p.withSum)
	case nosum && p.compressed:
		c.rep.bad(at, "", "inode is marked nodatasum, but has compressed extents")
	}
}

func (c *checker) bytes(at Place, p *part) {
	if p.nbytes != p.bytes {
		c.rep.bad(at, "du shows a wrong size", "nbytes %d, extents add up to %d", p.nbytes, p.bytes)
	}
}

func (c *checker) symlink(at Place, p *part) {
	c.bytes(at, p)
	nul := p.inline == p.size+1 // mkfs and convert of btrfs-progs store the C string's end too
	if !p.hasInline || p.regular || p.inline != p.size && !nul || p.compressed {
		c.rep.bad(at, "the link can not be followed", "symlink of %d bytes whose target has %d", p.size, p.inline)
	}
	if p.flags&(ondisk.InodeImmutable|ondisk.InodeAppend) != 0 {
		c.rep.bad(at, "", "symlink with flags %#x", p.flags)
	}
}

// judgeTree judges what only a whole subvolume can tell.
func (c *checker) judgeTree(ctx context.Context, g grove, sum *summary) {
	s := *sum
	s.unlinked, s.orphans = slices.Clone(sum.unlinked), slices.Clone(sum.orphans)
	c.close(&g, &s)
	if s.incomplete {
		return
	}
	if !s.rootDir {
		c.rep.bad(Place{Tree: g.id, Slot: -1}, "the subvolume can not be opened", "has no root directory")
	}
	slices.Sort(s.orphans)
	for _, ino := range s.unlinked {
		if _, ok := slices.BinarySearch(s.orphans, ino); !ok {
			c.rep.bad(inoPlace(&g, ino), "its space is never given back", "has no name and no orphan item")
		}
	}
	if s.names.items != s.names.indexes || s.names.entries != s.names.refs {
		c.judgeNames(ctx, g)
	}
}
