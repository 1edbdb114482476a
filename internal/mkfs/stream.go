package mkfs

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/gobtrfs/gobtrfs/internal/chunk"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
)

// stream gathers bytes with ascending addresses and writes them in big pieces, beside the work of its owner. An error shows at
// a later call.
type stream struct {
	io     *chunk.IO
	chunks *chunk.Map
	buf    []byte
	at     ondisk.Bytenr // address of buf[0]
	end    ondisk.Bytenr // of the chunk that at lies in
	work   chan parcel
	spare  chan []byte
	done   chan error
	failed atomic.Bool
	closed bool
}

var errClosed = errors.New("write to a stream that has ended")

type parcel struct {
	at ondisk.Bytenr
	p  []byte
}

func newStream(io *chunk.IO, m *chunk.Map, size int) *stream {
	const buffers = 3
	s := &stream{io: io, chunks: m, work: make(chan parcel), spare: make(chan []byte, buffers), done: make(chan error, 1)}
	for range buffers - 1 {
		s.spare <- make([]byte, 0, size)
	}
	s.buf = make([]byte, 0, size)
	go s.run()
	return s
}

// run writes until the work ends. After an error it only takes the work away.
func (s *stream) run() {
	var err error
	for w := range s.work {
		if err == nil {
			err = s.io.Write(context.Background(), w.at, w.p)
			s.failed.Store(err != nil)
		}
		s.spare <- w.p[:0]
	}
	s.done <- err
}

// put adds p, which belongs to address at and lies in one chunk.
func (s *stream) put(at ondisk.Bytenr, p []byte) error {
	if s.failed.Load() {
		return s.finish()
	}
	if s.closed {
		return errClosed
	}
	if at != s.at+ondisk.Bytenr(len(s.buf)) || at >= s.end {
		s.send()
		c, ok := s.chunks.Find(at)
		if !ok {
			return fmt.Errorf("write to address %d outside all chunks", at)
		}
		s.at, s.end = at, c.End()
	}
	for len(p) > 0 {
		if len(s.buf) == cap(s.buf) {
			s.send()
		}
		n := min(len(p), cap(s.buf)-len(s.buf))
		s.buf = append(s.buf, p[:n]...)
		p = p[n:]
	}
	return nil
}

// send hands what is gathered to the writer.
func (s *stream) send() {
	if len(s.buf) == 0 {
		return
	}
	s.work <- parcel{s.at, s.buf}
	s.at += ondisk.Bytenr(len(s.buf))
	s.buf = <-s.spare
}

// finish writes the rest, ends the writer and gives the first error. Nothing may be put afterwards.
func (s *stream) finish() error {
	if s.closed {
		return nil
	}
	s.closed = true
	s.send()
	close(s.work)
	return <-s.done
}
