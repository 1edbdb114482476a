// Package faultdev is a device that fails when told to: the n-th call of a kind, or every call that touches a range. It can
// also let bytes rot. Tests use it to walk every error path.
package faultdev

import (
	"errors"
	"fmt"
	"sync"

	"github.com/gobtrfs/gobtrfs/internal/device"
)

// ErrInjected is what failing calls return unless their rule says otherwise.
var ErrInjected = errors.New("injected fault")

// Op is a kind of call.
type Op uint8

// The kinds; Any stands for all of them in rules and counts.
const (
	Any Op = iota
	Read
	Write
	Flush
	Discard
	opCount
)

func (o Op) String() string {
	if o >= opCount {
		return fmt.Sprintf("op(%d)", uint8(o))
	}
	return [opCount]string{"call", "read", "write", "flush", "discard"}[o]
}

// Rule makes calls fail.
type Rule struct {
	Op    Op    // which calls
	Off   int64 // only those that touch [Off, Off+Len), when Len > 0; flushes touch nothing
	Len   int64
	After int   // so many of them pass first
	Times int   // and then so many fail; 0 = all
	Err   error // what they return; nil = ErrInjected
	Torn  bool  // a failing write writes its first half
}

// Dev is a device under rules.
type Dev struct {
	device.Device

	mu    sync.Mutex // guards what follows
	rules []rule
	calls [opCount]int
}

type rule struct {
	Rule
	seen int
}

// New puts d under rules.
func New(d device.Device, rules ...Rule) *Dev {
	f := &Dev{Device: d}
	for _, r := range rules {
		f.Add(r)
	}
	return f
}

// Add adds a rule; its count starts now.
func (f *Dev) Add(r Rule) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rules = append(f.rules, rule{Rule: r})
}

// Clear lifts all rules and starts the counts anew.
func (f *Dev) Clear() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rules, f.calls = nil, [opCount]int{}
}

// Calls returns how many calls of a kind came, failed ones included.
func (f *Dev) Calls(op Op) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls[op]
}

// Rot flips bits of the n bytes at off on the medium itself; writing them again heals them.
func (f *Dev) Rot(off, n int64) error {
	if err := device.InRange(off, n, f.Size()); err != nil {
		return err
	}
	p := make([]byte, min(n, 1<<20))
	for n > 0 {
		p = p[:min(n, int64(len(p)))]
		if got, err := f.Device.ReadAt(p, off); got < len(p) {
			return err
		}
		for i := range p {
			p[i] ^= 0x5a
		}
		if _, err := f.Device.WriteAt(p, off); err != nil {
			return err
		}
		off, n = off+int64(len(p)), n-int64(len(p))
	}
	return nil
}

// check counts a call and returns the rule that makes it fail, if any.
func (f *Dev) check(op Op, off, n int64) *Rule {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls[op]++
	f.calls[Any]++
	var hit *Rule
	for i := range f.rules {
		r := &f.rules[i]
		if r.matches(op, off, n) {
			r.seen++
			if hit == nil && r.seen > r.After && (r.Times == 0 || r.seen <= r.After+r.Times) {
				hit = &r.Rule
			}
		}
	}
	return hit
}

func (r *Rule) matches(op Op, off, n int64) bool {
	if r.Op != Any && r.Op != op {
		return false
	}
	return r.Len == 0 || op != Flush && off < r.Off+r.Len && r.Off < off+n
}

func (r *Rule) fail(op Op, off, n int64) error {
	err := r.Err
	if err == nil {
		err = ErrInjected
	}
	return fmt.Errorf("%v of %d bytes at %d: %w", op, n, off, err)
}

// ReadAt implements io.ReaderAt.
func (f *Dev) ReadAt(p []byte, off int64) (int, error) {
	if r := f.check(Read, off, int64(len(p))); r != nil {
		return 0, r.fail(Read, off, int64(len(p)))
	}
	return f.Device.ReadAt(p, off)
}

// WriteAt implements io.WriterAt.
func (f *Dev) WriteAt(p []byte, off int64) (int, error) {
	r := f.check(Write, off, int64(len(p)))
	if r == nil {
		return f.Device.WriteAt(p, off)
	}
	n := 0
	if r.Torn {
		n, _ = f.Device.WriteAt(p[:len(p)/2], off)
	}
	return n, r.fail(Write, off, int64(len(p)))
}

// Flush implements device.Device.
func (f *Dev) Flush() error {
	if r := f.check(Flush, 0, 0); r != nil {
		return r.fail(Flush, 0, 0)
	}
	return f.Device.Flush()
}

// Discard implements device.Device.
func (f *Dev) Discard(off, n int64) error {
	if r := f.check(Discard, off, n); r != nil {
		return r.fail(Discard, off, n)
	}
	return f.Device.Discard(off, n)
}
