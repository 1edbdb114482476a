package treeblock

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/gobtrfs/gobtrfs/internal/checksum"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
)

const nodesize = 4096

// mem is a backend with two copies of each block.
type mem struct {
	writes int
	mu     sync.Mutex
	blocks map[ondisk.Bytenr][]byte
	fault  func(mirror int, p []byte) error
	reads  atomic.Int64
	gate   chan struct{} // if not nil, each read waits for it to close
}

func (m *mem) Mirrors(at ondisk.Bytenr) int {
	if at >= 1<<40 {
		return 0
	}
	return 2
}

func (m *mem) ReadBlock(_ context.Context, at ondisk.Bytenr, mirror int, p []byte) error {
	if m.gate != nil {
		<-m.gate
	}
	m.reads.Add(1)
	m.mu.Lock()
	copy(p, m.blocks[at])
	m.mu.Unlock()
	if m.fault != nil {
		return m.fault(mirror, p)
	}
	return nil
}

func (m *mem) WriteBlocks(_ context.Context, at ondisk.Bytenr, p []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.writes++
	for ; len(p) > 0; at, p = at+nodesize, p[nodesize:] {
		m.blocks[at] = append([]byte(nil), p[:nodesize]...)
	}
	return nil
}

var fsid = ondisk.UUID{7}

func open(m *mem, cache int64) *Store {
	return New(m, Options{Nodesize: nodesize, Sectorsize: 4096, FSIDs: []ondisk.UUID{{9}, fsid}, SuperGeneration: 5, CacheBytes: cache})
}

func itemKey(at ondisk.Bytenr) ondisk.Key {
	return ondisk.Key{Objectid: uint64(at), Type: ondisk.TypePersistentItem}
}

// fill makes a dirty leaf with one item.
func fill(s *Store, at ondisk.Bytenr) {
	d := s.Create(at).Data()
	d.SetFSID(fsid)
	d.SetFlags(ondisk.HeaderFlagsNew)
	d.SetGeneration(5)
	d.SetOwner(ondisk.QuotaTree)
	d.SetNrItems(1)
	d.SetItemHead(0, itemKey(at), nodesize-ondisk.HeaderSize-8, 8)
}

func promise(at ondisk.Bytenr) Promise {
	return Promise{Bytenr: at, Generation: 5, Owner: ondisk.QuotaTree, FirstKey: itemKey(at), HasKey: true, Tree: ondisk.QuotaTree}
}

// volume returns a backend with n committed blocks, at 4096, 8192, …
func volume(t *testing.T, n int) *mem {
	t.Helper()
	m := &mem{blocks: map[ondisk.Bytenr][]byte{}}
	s := open(m, 0)
	for i := range n {
		fill(s, ondisk.Bytenr(4096*(i+1)))
	}
	if err := s.WriteDirty(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s.Dirty() != 0 || s.Stats().Written != int64(n) || len(m.blocks) != n {
		t.Fatalf("%d blocks of %d written, %d dirty", len(m.blocks), n, s.Dirty())
	}
	if want := (n + maxRun - 1) / maxRun; m.writes != want {
		t.Fatalf("%d neighbouring blocks written at %d times, want %d", n, m.writes, want)
	}
	return m
}

// resum changes a committed block and makes its checksum right again.
func resum(b ondisk.Block, change func(ondisk.Block)) {
	change(b)
	checksum.Sum(checksum.CRC32C, b[:32], b[32:])
}

func TestReadKeepsPromises(t *testing.T) {
	for name, change := range map[string]func(ondisk.Block){
		"fsid":        func(b ondisk.Block) { b.SetFSID(ondisk.UUID{8}) },
		"address":     func(b ondisk.Block) { b.SetBytenr(8192) },
		"not written": func(b ondisk.Block) { b.SetFlags(ondisk.HeaderFlagsNew) },
		"generation":  func(b ondisk.Block) { b.SetGeneration(4) },
		"level":       func(b ondisk.Block) { b.SetLevel(1) },
		"high level":  func(b ondisk.Block) { b.SetLevel(200) },
		"owner":       func(b ondisk.Block) { b.SetOwner(3) },
		"first key":   func(b ondisk.Block) { b.SetItemHead(0, itemKey(1), nodesize-ondisk.HeaderSize-8, 8) },
		"empty":       func(b ondisk.Block) { b.SetNrItems(0) },
		"many items":  func(b ondisk.Block) { b.SetNrItems(1 << 30) },
		"body":        func(b ondisk.Block) { b.SetItemHead(0, itemKey(4096), nodesize, 8) },
	} {
		t.Run(name, func(t *testing.T) {
			m := volume(t, 1)
			resum(m.blocks[4096], change)
			s := open(m, 0)
			_, err := s.Read(t.Context(), promise(4096))
			var read *ReadError
			var corrupt *ondisk.CorruptError
			if !errors.As(err, &read) || len(read.Mirrors) != 2 || !errors.As(err, &corrupt) {
				t.Errorf("got %v", err)
			}
			if s.Stats().BadMirrors != 2 {
				t.Errorf("%d bad copies counted", s.Stats().BadMirrors)
			}
		})
	}
}

// A child must end before the parent's next key, or a walk could go in circles of keys.
func TestPromiseOfEnd(t *testing.T) {
	s := open(volume(t, 1), 0)
	p := promise(4096)
	p.End, p.HasEnd = itemKey(4096), true
	if _, err := s.Read(t.Context(), p); err == nil {
		t.Error("a key beyond the end was accepted")
	}
	p.End = itemKey(4097)
	if _, err := s.Read(t.Context(), p); err != nil {
		t.Error(err)
	}
}

func TestReadFromSecondCopy(t *testing.T) {
	m := volume(t, 1)
	m.fault = func(mirror int, p []byte) error {
		if mirror == 0 {
			p[3000] ^= 4
		}
		return nil
	}
	s := open(m, 0)
	b, err := s.Read(t.Context(), promise(4096))
	if err != nil || b.Bytenr() != 4096 || s.Stats() != (Stats{Misses: 1, Reads: 2, BadMirrors: 1, Rescued: 1}) {
		t.Errorf("%v, %+v", err, s.Stats())
	}
	gone := errors.New("gone")
	m.fault = func(int, []byte) error { return gone }
	if _, err := open(m, 0).Read(t.Context(), promise(4096)); !errors.Is(err, gone) {
		t.Errorf("device error became %v", err)
	}
}

func TestReadOfNowhere(t *testing.T) {
	s := open(volume(t, 1), 0)
	var read *ReadError
	if _, err := s.Read(t.Context(), promise(1<<50)); !errors.As(err, &read) || len(read.Mirrors) != 0 {
		t.Errorf("unmapped address: %v", err)
	}
	var corrupt *ondisk.CorruptError
	if _, err := s.Read(t.Context(), promise(4097)); !errors.As(err, &corrupt) {
		t.Errorf("unaligned address: %v", err)
	}
}

func TestCacheChecksPromises(t *testing.T) {
	m := volume(t, 1)
	s := open(m, 0)
	if _, err := s.Read(t.Context(), promise(4096)); err != nil {
		t.Fatal(err)
	}
	p := promise(4096)
	p.Generation = 4
	if _, err := s.Read(t.Context(), p); err == nil {
		t.Error("a broken promise was answered from the cache")
	}
	fill(s, 4096)
	if _, err := s.Read(t.Context(), p); err == nil {
		t.Error("a broken promise was answered with a dirty block")
	}
	buf := make([]byte, nodesize)
	if _, err := s.ReadInto(t.Context(), p, buf); err == nil {
		t.Error("a broken promise was answered by ReadInto")
	}
}

func TestCacheIsBoundedAndScanResistant(t *testing.T) {
	const blocks, cached = 4000, 32 * 16
	m := volume(t, blocks)
	s := open(m, cached*nodesize)
	hot := func() {
		for i := range 100 {
			if _, err := s.Read(t.Context(), promise(ondisk.Bytenr(4096*(1+i*7)))); err != nil {
				t.Fatal(err)
			}
		}
	}
	hot()
	hot()
	for i := range blocks {
		if _, err := s.Read(t.Context(), promise(ondisk.Bytenr(4096*(i+1)))); err != nil {
			t.Fatal(err)
		}
		if i%200 == 0 {
			hot()
		}
	}
	n := 0
	for i := range s.shards {
		n += len(s.shards[i].clean)
	}
	if n > cached {
		t.Errorf("%d blocks are cached, %d may be", n, cached)
	}
	before := m.reads.Load()
	hot()
	if got := m.reads.Load() - before; got > 10 {
		t.Errorf("a scan drove %d of 100 used blocks out", got)
	}
}

func TestOneReadForMany(t *testing.T) {
	m := volume(t, 1)
	m.gate = make(chan struct{})
	s := open(m, 0)
	s.Prefetch(t.Context(), []Promise{promise(4096), promise(4096)})
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if _, err := s.Read(t.Context(), promise(4096)); err != nil {
				t.Error(err)
			}
		})
	}
	close(m.gate)
	wg.Wait()
	s.Close()
	if n := m.reads.Load(); n != 1 {
		t.Errorf("%d reads", n)
	}
}

// A read under way must not bring an address's former life back into the cache.
func TestCreateDuringRead(t *testing.T) {
	m := volume(t, 1)
	m.gate = make(chan struct{})
	s := open(m, 0)
	s.Prefetch(t.Context(), []Promise{promise(4096)})
	fill(s, 4096)
	b, err := s.Read(t.Context(), promise(4096))
	if err != nil || b.Born() != 1 {
		t.Fatalf("dirty block not found: %v", err)
	}
	close(m.gate)
	s.Close()
	s.Drop(4096)
	before := m.reads.Load()
	if _, err := s.Read(t.Context(), promise(4096)); err != nil || m.reads.Load() != before+1 {
		t.Errorf("the cache kept a block that was read before the address was given anew: %v", err)
	}
}

func TestDirty(t *testing.T) {
	m := volume(t, 1)
	s := open(m, nodesize)
	for i := range 500 { // far more than the cache holds
		fill(s, ondisk.Bytenr(4096*(i+1)))
	}
	if s.Dirty() != 500 || s.Seq() != 500 {
		t.Fatalf("%d dirty, sequence %d", s.Dirty(), s.Seq())
	}
	for i := range 500 {
		if b, err := s.Read(t.Context(), promise(ondisk.Bytenr(4096*(i+1)))); err != nil || b.Born() == 0 {
			t.Fatal(err)
		}
	}
	s.Drop(4096)
	s.Drop(1 << 30)
	if s.Dirty() != 499 {
		t.Errorf("%d dirty after a drop", s.Dirty())
	}
	s.Abandon()
	if s.Dirty() != 0 || s.WriteDirty(t.Context()) != nil || len(m.blocks) != 1 {
		t.Errorf("abandoned blocks were written")
	}
}

// Leaves of one tree can be written early; they are not private any more.
func TestWriteLeaves(t *testing.T) {
	m := &mem{blocks: map[ondisk.Bytenr][]byte{}}
	s := open(m, 0)
	for i := range 6 {
		fill(s, ondisk.Bytenr(4096*(i+1)))
	}
	other, err := s.Read(t.Context(), promise(4096))
	if err != nil {
		t.Fatal(err)
	}
	other.Data().SetOwner(ondisk.UUIDTree)
	if err := s.WriteLeaves(t.Context(), ondisk.QuotaTree); err != nil {
		t.Fatal(err)
	}
	if s.Dirty() != 1 || len(m.blocks) != 5 || s.Stats().Early != 5 || other.Born() == 0 {
		t.Errorf("%d dirty, %d written, %+v", s.Dirty(), len(m.blocks), s.Stats())
	}
	if b, err := s.Read(t.Context(), promise(8192)); err != nil || b.Born() != 0 {
		t.Errorf("a leaf that was written: %v", err)
	}
}

// What treecheck refuses is not written.
func TestWriteChecks(t *testing.T) {
	m := volume(t, 1)
	s := open(m, 0)
	fill(s, 8192)
	b, _ := s.Read(t.Context(), promise(8192))
	b.Data().SetItemHead(0, itemKey(8192), nodesize, 8)
	var corrupt *ondisk.CorruptError
	if err := s.WriteDirty(t.Context()); !errors.As(err, &corrupt) || len(m.blocks) != 1 {
		t.Errorf("a bad block was written: %v", err)
	}
}
