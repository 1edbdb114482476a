// Package nbd is a device served over the network block device protocol: nbd://HOST[:PORT]/EXPORT, or
// nbd+unix:///EXPORT?socket=PATH. RBD, qcow2 and much else can be had this way from qemu-nbd or nbdkit.
//
// One connection carries all calls, many at a time. The server is not trusted with memory: what it sends is bounded before it
// is read. When the connection breaks, every call fails from then on; it is never made anew, because nobody could tell what
// happened to the writes that no flush had covered.
//
// Nothing keeps two clients from writing to one export: that is the server's business.
package nbd

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/gobtrfs/gobtrfs/internal/device"
)

const (
	dialTimeout = 20 * time.Second // of connecting and agreeing on an export
	defaultPort = "10809"
	maxTransfer = 4 << 20 // bytes per request; every server takes more
)

// IsURL tells whether a target is one that Dial takes.
func IsURL(target string) bool {
	return strings.HasPrefix(target, "nbd://") || strings.HasPrefix(target, "nbd+unix://")
}

// Device is an export of an NBD server.
type Device struct {
	conn     *conn
	export   export
	readOnly bool

	mu       sync.Mutex // guards flushErr
	flushErr error      // stays, as package device wants it

	edges sync.RWMutex // writers: shared when aligned to blocks, alone when they read and write back
}

// Dial opens an export by its URL.
func Dial(target string, opt device.Options) (*Device, error) {
	network, address, name, err := parseURL(target)
	if err != nil {
		return nil, err
	}
	c, err := net.DialTimeout(network, address, dialTimeout)
	if err != nil {
		return nil, err
	}
	d, err := open(c, name, opt)
	if err != nil {
		c.Close()
		return nil, fmt.Errorf("nbd export %q at %s: %w", name, address, err)
	}
	return d, nil
}

// open agrees with the server at the other end of c on an export.
func open(c net.Conn, name string, opt device.Options) (*Device, error) {
	if err := c.SetDeadline(time.Now().Add(dialTimeout)); err != nil {
		return nil, err
	}
	e, err := handshake(c, name)
	if err != nil {
		return nil, err
	}
	if e.has(flagReadOnly) && !opt.ReadOnly {
		return nil, errors.New("the server exports it for reading only")
	}
	if err := c.SetDeadline(time.Time{}); err != nil {
		return nil, err
	}
	return &Device{conn: start(c), export: e, readOnly: opt.ReadOnly}, nil
}

// parseURL gives what to dial, and the name of the export.
func parseURL(target string) (network, address, name string, err error) {
	u, err := url.Parse(target)
	if err != nil {
		return "", "", "", err
	}
	name = strings.TrimPrefix(u.Path, "/")
	switch u.Scheme {
	case "nbd":
		if u.Hostname() == "" {
			return "", "", "", fmt.Errorf("%s names no host", target)
		}
		port := u.Port()
		if port == "" {
			port = defaultPort
		}
		return "tcp", net.JoinHostPort(u.Hostname(), port), name, nil
	case "nbd+unix":
		socket := u.Query().Get("socket")
		if socket == "" {
			return "", "", "", fmt.Errorf("%s names no socket (nbd+unix:///EXPORT?socket=PATH)", target)
		}
		return "unix", socket, name, nil
	}
	return "", "", "", fmt.Errorf("%s is no nbd:// or nbd+unix:// URL", target)
}

// Size implements device.Device.
func (d *Device) Size() int64 { return d.export.size }

// ReadAt implements io.ReaderAt.
func (d *Device) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, device.InRange(off, int64(len(p)), d.Size())
	}
	var eof error
	if left := max(d.Size()-off, 0); int64(len(p)) > left {
		p, eof = p[:left], io.EOF
	}
	for done := 0; done < len(p); {
		part := p[done:min(len(p), done+maxTransfer)]
		if err := d.read(part, off+int64(done)); err != nil {
			return done, err
		}
		done += len(part)
	}
	return len(p), eof
}

// read reads at most maxTransfer bytes, as part of whole blocks.
func (d *Device) read(p []byte, off int64) error {
	from, to := d.blocks(off, int64(len(p)))
	if from == off && to == off+int64(len(p)) {
		return d.conn.call(cmdRead, off, uint32(len(p)), nil, p)
	}
	b := make([]byte, to-from)
	if err := d.conn.call(cmdRead, from, uint32(len(b)), nil, b); err != nil {
		return err
	}
	copy(p, b[off-from:])
	return nil
}

// blocks widens a range to the blocks that the server wants requests to consist of.
func (d *Device) blocks(off, n int64) (from, to int64) {
	b := d.export.block
	return off / b * b, min((off+n+b-1)/b*b, d.Size())
}

// WriteAt implements io.WriterAt.
func (d *Device) WriteAt(p []byte, off int64) (int, error) {
	if err := d.mayChange(off, int64(len(p))); err != nil {
		return 0, err
	}
	for done := 0; done < len(p); {
		part := p[done:min(len(p), done+maxTransfer)]
		if err := d.write(part, off+int64(done)); err != nil {
			return done, err
		}
		done += len(part)
	}
	return len(p), nil
}

// write writes at most maxTransfer bytes; blocks written in part are read first.
func (d *Device) write(p []byte, off int64) error {
	from, to := d.blocks(off, int64(len(p)))
	if from == off && to == off+int64(len(p)) {
		d.edges.RLock()
		defer d.edges.RUnlock()
		return d.conn.call(cmdWrite, off, uint32(len(p)), p, nil)
	}
	d.edges.Lock()
	defer d.edges.Unlock()
	b := make([]byte, to-from)
	if err := d.conn.call(cmdRead, from, uint32(len(b)), nil, b); err != nil {
		return err
	}
	copy(b[off-from:], p)
	return d.conn.call(cmdWrite, from, uint32(len(b)), b, nil)
}

func (d *Device) mayChange(off, n int64) error {
	if d.readOnly {
		return device.ErrReadOnly
	}
	return device.InRange(off, n, d.Size())
}

// Flush implements device.Device. A server that does not offer it has nothing to flush.
func (d *Device) Flush() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.flushErr == nil && !d.readOnly && d.export.has(flagFlush) {
		d.flushErr = d.conn.call(cmdFlush, 0, 0, nil, nil)
	}
	return d.flushErr
}

// Discard implements device.Device, where the server offers it, for whole blocks.
func (d *Device) Discard(off, n int64) error {
	if err := d.mayChange(off, n); err != nil || !d.export.has(flagTrim) {
		return err
	}
	b := d.export.block
	end := (off + n) / b * b
	for off = (off + b - 1) / b * b; off < end; {
		part := min(end-off, 1<<30)
		if err := d.conn.call(cmdTrim, off, uint32(part), nil, nil); err != nil {
			return err
		}
		off += part
	}
	return nil
}

// Close tells the server and closes the connection.
func (d *Device) Close() error { return d.conn.close() }
