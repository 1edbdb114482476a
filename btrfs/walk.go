package btrfs

import (
	"context"
	"io"
	"io/fs"
	"iter"
)

// WalkOptions tell how a tree of files is walked.
type WalkOptions struct {
	// Memory bounds what is kept of contents that were read ahead; 0 means 32 MiB.
	Memory int64
	// NoContents: contents are not read ahead.
	NoContents bool
	// Want, when it is set, is asked of everything that was found, far ahead and by
	// other goroutines. What it does not want, with all that is in it, is not told
	// of. It must not use the volume.
	Want func(e *WalkEntry) bool
}

const defaultWalkMemory = 32 << 20

// WalkEntry is something that Walk met. Its contents can be had while the
// function that Walk calls runs, the rest for ever.
type WalkEntry struct {
	Path   string // from the root of the subvolume, as package io/fs has it
	Name   string // in its directory; a volume may hold names that no path can have
	Depth  int    // 0: where the walk began
	Stat   Stat
	Target string // of a symbolic link
	// Err: nothing more is known of Path; or, after a directory and what could be
	// listed of it, that there may be more.
	Err error

	s       *Subvolume
	xattrs  map[string][]byte
	partial bool // xattrs could not be read
	ahead   bool // the contents were read ahead
	feed    *feed
}

// Xattrs gives the extended attributes.
func (e *WalkEntry) Xattrs() (map[string][]byte, error) {
	if e.partial {
		return e.s.Xattrs(e.Path)
	}
	return e.xattrs, nil
}

// Chunk is a range of a file.
type Chunk struct {
	Off, Len int64
	Data     []byte // Len bytes
	Unproven int64  // sectors behind Data that no checksum proves right; see Options.IgnoreDataChecksums
}

// Chunks gives the contents of a regular file in order, without its holes; Data
// holds until the next chunk is asked for. A range that cannot be read as a whole
// comes with an error, and the next ones follow: File.ReadAt may find parts of it.
func (e *WalkEntry) Chunks() iter.Seq2[Chunk, error] {
	return func(yield func(Chunk, error) bool) {
		if e.feed == nil || !e.Stat.IsRegular() {
			return
		}
		if !e.ahead {
			e.plainChunks(yield)
			return
		}
		for e.feed.peek() != nil && e.feed.peek().entry == nil {
			c := e.feed.next()
			if !yield(c.chunk()) {
				return
			}
		}
		if err := e.feed.err; err != nil {
			yield(Chunk{}, err)
		}
	}
}

// plainChunks reads what was not read ahead.
func (e *WalkEntry) plainChunks(yield func(Chunk, error) bool) {
	f, err := e.s.open(e.Path)
	if err != nil {
		yield(Chunk{Len: e.Stat.Size}, err)
		return
	}
	defer f.Close()
	buf := make([]byte, 1<<20)
	for off := int64(0); off < e.Stat.Size; {
		next, err := f.SeekData(off)
		if err == io.EOF {
			return
		}
		if err != nil {
			yield(Chunk{Off: off, Len: e.Stat.Size - off}, err)
			return
		}
		off = next
		c := Chunk{Off: off, Len: min(int64(len(buf)), e.Stat.Size-off)}
		before := f.unproven()
		n, err := f.ReadAt(buf[:c.Len], off)
		c.Unproven = f.unproven() - before
		if err == nil || err == io.EOF {
			c.Data, c.Len, err = buf[:n], int64(n), nil
		}
		if !yield(c, err) || c.Len == 0 {
			return
		}
		off += c.Len
	}
}

// Walk calls fn for the file or directory at root and everything below it: a
// directory before what is in it, names in the order of the directory, nested
// subvolumes too; symbolic links are not followed. Everything is read ahead of fn,
// by several goroutines and in large steps, and within bounded memory, so this is
// the fast way to read many files.
//
// What cannot be read is told in WalkEntry.Err and by Chunks; the walk goes on.
// fn may return fs.SkipDir, after a directory, to leave out what is in it, or
// fs.SkipAll to end; another error ends the walk and is returned. Of changes made
// meanwhile the walk sees all, some or none. fn may change the volume.
func (s *Subvolume) Walk(ctx context.Context, root string, opt WalkOptions, fn func(e *WalkEntry) error) error {
	if !validPath(root) {
		return pathErr("walk", root, fs.ErrInvalid)
	}
	if err := s.v.files.flushAll(ctx); err != nil {
		return pathErr("walk", root, err)
	}
	ctx, cancel := context.WithCancel(ctx)
	a := newAhead(s, root, opt)
	wait := a.start(ctx)
	defer wait()
	defer cancel()
	f := &feed{ctx: ctx, a: a}
	skip := -1 // leave out what is deeper
	for {
		it := f.next()
		if it == nil {
			return f.err
		}
		e := it.entry
		if e == nil || skip >= 0 && e.Depth > skip {
			continue // contents that fn did not look at, or what it left out
		}
		skip = -1
		e.feed = f
		err := fn(e)
		e.feed = nil
		switch {
		case err == fs.SkipDir && e.Stat.IsDir():
			skip = e.Depth
		case err == fs.SkipAll:
			return nil
		case err != nil && err != fs.SkipDir:
			return err
		}
	}
}

// feed hands out in order what was read ahead.
type feed struct {
	ctx context.Context
	a   *ahead
	b   *aheadBatch
	i   int
	err error
}

// peek gives the next item; nil at the end and after an error.
func (f *feed) peek() *aheadItem {
	for f.err == nil {
		if f.b != nil && f.i < len(f.b.items) {
			return &f.b.items[f.i]
		}
		if f.b != nil {
			f.a.giveBack(f.b)
			f.b, f.i = nil, 0
		}
		var ok bool
		select {
		case f.b, ok = <-f.a.queue:
		case <-f.ctx.Done():
			f.err = f.ctx.Err()
			return nil
		}
		if !ok {
			f.b = nil
			f.err = f.ctx.Err() // a cancelled walk ends early
			return nil
		}
		<-f.b.loaded
	}
	return nil
}

func (f *feed) next() *aheadItem {
	it := f.peek()
	if it != nil {
		f.i++
	}
	return it
}
