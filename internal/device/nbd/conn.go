package nbd

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
)

// Requests and replies, big-endian. Replies come in any order; the cookie tells whose they are.
//
//	request  u32 magic, u16 flags, u16 command, u64 cookie, u64 offset, u32 length, data of a write
//	reply    u32 magic, u32 error, u64 cookie, data of a read without error
const (
	magicRequest     = 0x25609513
	magicSimpleReply = 0x67446698

	cmdRead       = 0
	cmdWrite      = 1
	cmdDisconnect = 2
	cmdFlush      = 3
	cmdTrim       = 4

	requestLen = 28
	replyLen   = 16
)

// errClosed is what calls get after Close.
var errClosed = errors.New("nbd: connection closed")

// conn is a connection after the handshake.
type conn struct {
	c net.Conn

	wmu sync.Mutex // held while a request is written

	mu      sync.Mutex // guards what follows; never held during I/O
	calls   map[uint64]*call
	cookie  uint64
	err     error         // why no call can succeed any more
	stopped chan struct{} // closed when the receiver has ended
}

// call waits for its reply.
type call struct {
	buf  []byte // where a read's bytes go
	done chan error
}

func start(c net.Conn) *conn {
	n := &conn{c: c, calls: make(map[uint64]*call), stopped: make(chan struct{})}
	go n.receive()
	return n
}

// call sends a request and waits for its reply; buf is filled by reads.
func (n *conn) call(cmd uint16, off int64, length uint32, data, buf []byte) error {
	cl := &call{buf: buf, done: make(chan error, 1)}
	n.mu.Lock()
	if n.err != nil {
		defer n.mu.Unlock()
		return n.err
	}
	n.cookie++
	cookie := n.cookie
	n.calls[cookie] = cl
	n.mu.Unlock()
	if err := n.send(cmd, cookie, off, length, data); err != nil {
		n.fail(err) // reaches this call too, unless its reply was there first
	}
	return <-cl.done
}

func (n *conn) send(cmd uint16, cookie uint64, off int64, length uint32, data []byte) error {
	var h [requestLen]byte
	be := binary.BigEndian
	be.PutUint32(h[:], magicRequest)
	be.PutUint16(h[6:], cmd)
	be.PutUint64(h[8:], cookie)
	be.PutUint64(h[16:], uint64(off))
	be.PutUint32(h[24:], length)
	n.wmu.Lock()
	defer n.wmu.Unlock()
	bufs := net.Buffers{h[:], data}
	_, err := bufs.WriteTo(n.c)
	return err
}

// receive hands replies to their calls until the connection ends.
func (n *conn) receive() {
	defer close(n.stopped)
	r := bufio.NewReaderSize(n.c, 64<<10)
	for {
		if err := n.receiveOne(r); err != nil {
			n.fail(fmt.Errorf("nbd: connection lost: %w", err))
			return
		}
	}
}

func (n *conn) receiveOne(r io.Reader) error {
	var h [replyLen]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		return err
	}
	be := binary.BigEndian
	if be.Uint32(h[:]) != magicSimpleReply {
		return errors.New("a reply that is none")
	}
	cookie := be.Uint64(h[8:])
	n.mu.Lock()
	cl := n.calls[cookie]
	delete(n.calls, cookie)
	n.mu.Unlock()
	if cl == nil {
		return errors.New("a reply to no request")
	}
	if code := be.Uint32(h[4:]); code != 0 {
		cl.done <- &Error{Code: code}
		return nil
	}
	_, err := io.ReadFull(r, cl.buf)
	if err != nil {
		cl.done <- fmt.Errorf("nbd: connection lost: %w", err)
		return err
	}
	cl.done <- nil
	return nil
}

// fail ends all calls that wait, and all that come.
func (n *conn) fail(err error) {
	n.mu.Lock()
	if n.err == nil {
		n.err = err
	}
	calls := n.calls
	n.calls = make(map[uint64]*call)
	err = n.err
	n.mu.Unlock()
	for _, cl := range calls {
		cl.done <- err
	}
	n.c.Close() // so that the receiver ends as well
}

func (n *conn) close() error {
	n.mu.Lock()
	broken := n.err
	if broken == nil {
		n.err = errClosed
	}
	n.mu.Unlock()
	if broken == nil {
		_ = n.send(cmdDisconnect, 0, 0, 0, nil) // courtesy: the server also takes a plain close
	}
	n.fail(errClosed)
	<-n.stopped
	if broken == errClosed {
		return nil
	}
	return broken
}

// Error is what a server answers to a request that it could not do.
type Error struct{ Code uint32 }

func (e *Error) Error() string {
	// The protocol's own numbers, which are those of Linux on every system.
	name := map[uint32]string{1: "not permitted", 5: "input/output error", 12: "out of memory", 22: "invalid request",
		28: "no space left", 75: "too large", 95: "not supported", 108: "shutting down"}[e.Code]
	if name == "" {
		name = "unknown error"
	}
	return fmt.Sprintf("nbd server: %s (%d)", name, e.Code)
}
