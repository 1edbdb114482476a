package nbd

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gobtrfs/gobtrfs/internal/device"
	"github.com/gobtrfs/gobtrfs/internal/device/devicetest"
	"github.com/gobtrfs/gobtrfs/internal/testenv"
)

var be = binary.BigEndian

// server answers one client from a device in memory. It insists on its block size.
type server struct {
	dev   *device.Mem
	block uint32
	flags uint16
	fail  func(cmd uint16) uint32 // error code to answer with

	mu    sync.Mutex
	count map[uint16]int
}

func (s *server) serve(c net.Conn) {
	defer c.Close()
	if s.greet(c) != nil {
		return
	}
	for s.answer(c) == nil {
	}
}

func reply(typ uint32, data []byte) []byte {
	b := be.AppendUint64(nil, magicReply)
	b = be.AppendUint32(b, optionGo)
	b = be.AppendUint32(b, typ)
	return append(be.AppendUint32(b, uint32(len(data))), data...)
}

func infoOf(size uint64, flags uint16) []byte {
	return be.AppendUint16(be.AppendUint64([]byte{0, infoExport}, size), flags)
}

func blockOf(n uint32) []byte {
	return be.AppendUint32(be.AppendUint32(be.AppendUint32([]byte{0, infoBlock}, n), 4096), 32<<20)
}

func hello() []byte {
	return be.AppendUint16(be.AppendUint64(be.AppendUint64(nil, magicServer), magicOption), flagFixedNewstyle)
}

func (s *server) greet(c net.Conn) error {
	if _, err := c.Write(hello()); err != nil {
		return err
	}
	var h [20]byte
	if _, err := io.ReadFull(c, h[:]); err != nil {
		return err
	}
	data := make([]byte, be.Uint32(h[16:]))
	if _, err := io.ReadFull(c, data); err != nil {
		return err
	}
	if name := string(data[4 : 4+be.Uint32(data)]); name != "disk" {
		_, _ = c.Write(reply(replyError|6, []byte("not here")))
		return errors.New("no such export")
	}
	out := reply(replyInfo, infoOf(uint64(s.dev.Size()), s.flags|1))
	out = append(out, reply(replyInfo, blockOf(s.block))...)
	_, err := c.Write(append(out, reply(replyAck, nil)...))
	return err
}

func (s *server) answer(c net.Conn) error {
	var h [requestLen]byte
	if _, err := io.ReadFull(c, h[:]); err != nil {
		return err
	}
	cmd, off, n := be.Uint16(h[6:]), int64(be.Uint64(h[16:])), be.Uint32(h[24:])
	out := append(be.AppendUint32(be.AppendUint32(nil, magicSimpleReply), 0), h[8:16]...)
	data := make([]byte, n)
	if cmd == cmdWrite {
		if _, err := io.ReadFull(c, data); err != nil {
			return err
		}
	}
	s.mu.Lock()
	s.count[cmd]++
	s.mu.Unlock()
	code := uint32(0)
	if s.fail != nil {
		code = s.fail(cmd)
	}
	if off%int64(s.block) != 0 || n%s.block != 0 {
		code = 22
	}
	switch {
	case code != 0:
		be.PutUint32(out[4:], code)
	case cmd == cmdRead:
		_, _ = s.dev.ReadAt(data, off)
		out = append(out, data...)
	case cmd == cmdWrite:
		_, _ = s.dev.WriteAt(data, off)
	case cmd == cmdTrim:
		_ = s.dev.Discard(off, int64(n))
	case cmd == cmdDisconnect:
		return io.EOF
	}
	_, err := c.Write(out)
	return err
}

func newServer(size int64, block uint32) *server {
	return &server{dev: device.NewMem(size), block: block, flags: flagFlush | flagTrim, count: map[uint16]int{}}
}

func (s *server) dial(t *testing.T, name string, opt device.Options) (*Device, error) {
	t.Helper()
	client, far := net.Pipe()
	go s.serve(far)
	d, err := open(client, name, opt)
	if err != nil {
		client.Close()
	}
	return d, err
}

func TestConformance(t *testing.T) {
	for _, block := range []uint32{1, 512, 4096} {
		t.Run(fmt.Sprint(block), func(t *testing.T) {
			devicetest.Run(t, func(t *testing.T, size int64) device.Device {
				d, err := newServer(size, block).dial(t, "disk", device.Options{})
				if err != nil {
					t.Fatal(err)
				}
				return d
			})
		})
	}
}

func TestRefusals(t *testing.T) {
	s := newServer(1<<20, 1)
	if _, err := s.dial(t, "other", device.Options{}); err == nil || !strings.Contains(err.Error(), "no such export") {
		t.Error(err)
	}
	s.flags |= flagReadOnly
	if _, err := s.dial(t, "disk", device.Options{}); err == nil || !strings.Contains(err.Error(), "reading only") {
		t.Error(err)
	}
	d, err := s.dial(t, "disk", device.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.WriteAt([]byte{1}, 0); !errors.Is(err, device.ErrReadOnly) {
		t.Error(err)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	if _, err := d.ReadAt(make([]byte, 1), 0); !errors.Is(err, errClosed) {
		t.Error("read after close:", err)
	}
}

// An error of one request leaves the others alone, but a failed flush stays failed.
func TestServerErrors(t *testing.T) {
	s := newServer(1<<20, 1)
	var failing atomic.Bool
	failing.Store(true)
	s.fail = func(cmd uint16) uint32 {
		if failing.Load() && cmd != cmdRead {
			return 5
		}
		return 0
	}
	d, err := s.dial(t, "disk", device.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	var se *Error
	if _, err := d.WriteAt([]byte{1}, 0); !errors.As(err, &se) || se.Code != 5 {
		t.Error(err)
	}
	if _, err := d.ReadAt(make([]byte, 10), 0); err != nil {
		t.Error(err)
	}
	if err := d.Flush(); !errors.As(err, &se) {
		t.Error(err)
	}
	failing.Store(false)
	if _, err := d.WriteAt([]byte{1}, 0); err != nil {
		t.Error(err)
	}
	err = d.Flush()
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil || s.count[cmdFlush] != 1 {
		t.Errorf("a flush succeeded after a failed one: %v, %d sent", err, s.count[cmdFlush])
	}
}

// Servers that lie, babble or leave must give errors, at once.
func TestHostile(t *testing.T) {
	good := append(hello(), reply(replyInfo, infoOf(1<<20, 1))...)
	good = append(good, reply(replyAck, nil)...)
	huge := reply(replyInfo, nil)
	be.PutUint32(huge[16:], 1<<31)
	for name, says := range map[string][]byte{
		"nothing":         nil,
		"http":            []byte("HTTP/1.1 400 Bad Request\r\n\r\n"),
		"half a greeting": hello()[:9],
		"no size":         append(hello(), reply(replyAck, nil)...),
		"huge reply":      append(hello(), huge...),
		"negative size":   append(hello(), reply(replyInfo, infoOf(1<<63, 1))...),
		"block of 3":      append(hello(), reply(replyInfo, blockOf(3))...),
		"short info":      append(hello(), reply(replyInfo, []byte{0})...),
		"endless":         append(hello(), bytes.Repeat(reply(replyInfo, []byte{9, 9}), 200)...),
		"then garbage":    append(bytes.Clone(good), bytes.Repeat([]byte("garbage!"), 4)...),
		"then leaves":     good,
		"unasked reply":   append(bytes.Clone(good), be.AppendUint64(be.AppendUint64(nil, magicSimpleReply<<32), 99)...),
		"half a read":     append(bytes.Clone(good), be.AppendUint64(be.AppendUint64(nil, magicSimpleReply<<32), 1)...),
	} {
		client, far := net.Pipe()
		go func() {
			go io.Copy(io.Discard, far)
			_, _ = far.Write(says)
			time.Sleep(20 * time.Millisecond) // let the request of "half a read" arrive
			far.Close()
		}()
		d, err := open(client, "disk", device.Options{})
		if err != nil {
			client.Close()
			continue
		}
		if _, err := d.ReadAt(make([]byte, 100), 0); err == nil {
			t.Errorf("%s: read succeeded", name)
		}
		_ = d.Close()
	}
}

func TestParseURL(t *testing.T) {
	for in, want := range map[string]string{
		"nbd://host/disk":                       "tcp host:10809 disk",
		"nbd://host":                            "tcp host:10809 ",
		"nbd://[::1]:99/a/b":                    "tcp [::1]:99 a/b",
		"nbd+unix:///disk?socket=/run/nbd.sock": "unix /run/nbd.sock disk",
		"nbd+unix://?socket=s":                  "unix s ",
	} {
		n, a, e, err := parseURL(in)
		if got := n + " " + a + " " + e; err != nil || got != want || !IsURL(in) {
			t.Errorf("%s: %q, %v", in, got, err)
		}
	}
	for _, in := range []string{"nbd:///disk", "nbd+unix:///disk", "http://host", "nbd://h:x/"} {
		if _, _, _, err := parseURL(in); err == nil {
			t.Errorf("%s accepted", in)
		}
	}
}

// A server that others wrote, where it is installed.
func TestNbdkit(t *testing.T) {
	nbdkit := testenv.NeedProgram(t, "nbdkit")
	devicetest.Run(t, func(t *testing.T, size int64) device.Device {
		socket := filepath.Join(t.TempDir(), "s")
		cmd := exec.Command(nbdkit, "-f", "-U", socket, "memory", fmt.Sprint(size))
		cmd.Stderr = os.Stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		})
		var d *Device
		var err error
		for range 300 { // until it listens
			if d, err = Dial("nbd+unix://?socket="+socket, device.Options{}); err == nil {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		if err != nil {
			t.Fatal(err)
		}
		return d
	})
}
