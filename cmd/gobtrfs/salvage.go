package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/gobtrfs/gobtrfs/btrfs"
)

const (
	window     = 1 << 20 // what is read at once
	badPiece   = 4096    // what is tried where a window cannot be read
	mostBad    = 16384   // windows of which nothing can be read, one after another, before the rest is given up
	mostPlaces = 8       // unreadable places that are told one by one
)

// file copies the contents of a regular file; runs of zeros become holes.
func (g *getter) file(m made) (err error) {
	out, err := os.OpenFile(m.to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, g.perm(0o666))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	if err := g.contents(m.e, func(p []byte, off int64) error { return writeSparse(out, p, off) }); err != nil {
		return err
	}
	return out.Truncate(m.e.Stat.Size)
}

// contents gives what can be read of a file to put, and reports what cannot.
func (g *getter) contents(e *btrfs.WalkEntry, put func(p []byte, off int64) error) error {
	c := &contents{e: e, s: g.s, put: put, step: func(n int) error {
		g.bytes += uint64(n)
		g.progress.tell(state{verb: g.verb, part: -1, bytes: g.bytes, text: iec(g.bytes)})
		return g.ctx.Err()
	}}
	err := c.copy()
	if c.unproven > 0 {
		g.progress.done()
		fmt.Fprintf(os.Stderr, "gobtrfs %s: %s: no checksum proves %d sectors of it right\n", g.verb, textName(e.Path), c.unproven)
	}
	if c.places > 0 {
		g.report(fmt.Errorf("read %s: %s: %w", textName(e.Path), c.lostText(), c.why))
	}
	return err
}

// tellUnproven says how much of what was read may be wrong.
func tellUnproven(verb string, v *btrfs.Volume) {
	if n := v.Unproven(); n > 0 {
		fmt.Fprintf(os.Stderr, "gobtrfs %s: %d sectors of data were given as they are: no checksum proves them right\n", verb, n)
	}
}

// contents copies what can be read of one file.
type contents struct {
	e    *btrfs.WalkEntry
	s    *btrfs.Subvolume
	in   *btrfs.File // opened when something cannot be read
	put  func(p []byte, off int64) error
	step func(n int) error // told of progress; an error ends the copy

	unproven int64 // sectors that no checksum proves right

	bad    [][2]int64 // the first places that could not be read
	places int        // all of them
	badSum int64      // bytes in them
	badEnd int64      // of the last
	why    error      // what was wrong with the first
	row    int        // windows without a good byte, one after another
}

func (c *contents) copy() error {
	defer c.close()
	for chunk, err := range c.e.Chunks() {
		if errors.Is(err, context.Canceled) {
			return err
		}
		if err != nil {
			err = c.pieces(chunk.Off, chunk.Off+chunk.Len)
		} else {
			c.row = 0
			c.unproven += chunk.Unproven
			err = errors.Join(c.put(chunk.Data, chunk.Off), c.step(len(chunk.Data)))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// pieces copies what can be read of [off, end), which cannot be read at once.
func (c *contents) pieces(off, end int64) error {
	if err := c.open(); err != nil {
		c.lost(off, end, err)
		return nil
	}
	buf := make([]byte, min(window, end-off))
	for off < end {
		if next, err := c.in.SeekData(off); err == io.EOF || err == nil && next >= end {
			break
		} else if err == nil {
			off = max(off, next)
		}
		p := buf[:min(int64(len(buf)), end-off)]
		if c.row >= mostBad {
			c.lost(off, end, c.why)
			break
		}
		if err := c.window(p, off); err != nil {
			return err
		}
		off += int64(len(p))
		if err := c.step(len(p)); err != nil {
			return err
		}
	}
	return nil
}

func (c *contents) open() error {
	if c.in != nil {
		return nil
	}
	f, err := c.s.Open(c.e.Path)
	if err != nil {
		return err
	}
	in, ok := f.(*btrfs.File)
	if !ok {
		return errors.Join(fs.ErrInvalid, f.Close())
	}
	c.in = in
	return nil
}

func (c *contents) close() {
	if c.in != nil {
		c.in.Close()
	}
}

// window copies len(p) bytes from off: at once, or else in pieces.
func (c *contents) window(p []byte, off int64) error {
	n, err := c.in.ReadAt(p, off)
	if err == nil || err == io.EOF {
		c.row = 0
		return c.put(p[:n], off)
	}
	piece := badPiece
	if !btrfs.IsDataError(err) {
		piece = window / 4 // a tree block is lost, and with it more than a little
	}
	c.row++
	for i := 0; i < len(p); {
		end := min(len(p), i+piece-int((off+int64(i))%int64(piece)))
		n, err := c.in.ReadAt(p[i:end], off+int64(i))
		if err != nil && err != io.EOF {
			c.lost(off+int64(i), off+int64(end), err)
		} else {
			c.row = 0
			if err := c.put(p[i:i+n], off+int64(i)); err != nil {
				return err
			}
		}
		i = end
	}
	return nil
}

// lost notes that [from, to) could not be read.
func (c *contents) lost(from, to int64, why error) {
	if c.why == nil {
		c.why = why
		var pe *fs.PathError
		if errors.As(why, &pe) {
			c.why = pe.Err
		}
	}
	c.badSum += to - from
	if c.places == 0 || c.badEnd != from {
		if c.places++; c.places <= mostPlaces {
			c.bad = append(c.bad, [2]int64{from, to})
		}
	} else if c.places <= mostPlaces {
		c.bad[c.places-1][1] = to
	}
	c.badEnd = to
}

// lostText tells which bytes are lost.
func (c *contents) lostText() string {
	text := ""
	for _, b := range c.bad {
		text += fmt.Sprintf(" %d-%d", b[0], b[1]-1)
	}
	if c.places > mostPlaces {
		text += fmt.Sprintf(" and %d more places", c.places-mostPlaces)
	}
	return fmt.Sprintf("%d bytes could not be read and are left out, at%s", c.badSum, text)
}

// sparseUnit is the size of the pieces that are left out when they are zero.
const sparseUnit = 4096

var zeroUnit [sparseUnit]byte

func writeSparse(out *os.File, p []byte, off int64) error {
	for start := 0; start < len(p); {
		if isZero(p[start:min(start+sparseUnit, len(p))]) {
			start += sparseUnit
			continue
		}
		end := start
		for end < len(p) && !isZero(p[end:min(end+sparseUnit, len(p))]) {
			end = min(end+sparseUnit, len(p))
		}
		if _, err := out.WriteAt(p[start:end], off+int64(start)); err != nil {
			return err
		}
		start = end
	}
	return nil
}

func isZero(p []byte) bool { return string(p) == string(zeroUnit[:len(p)]) }
