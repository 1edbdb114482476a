package device

import "sync"

const memPage = 16 << 10

// Mem is a sparse device in memory: only pages that hold something take room. Clones share pages until one of them writes.
type Mem struct {
	size int64

	mu    sync.RWMutex // guards pages and what is in them
	pages map[int64]page
}

// page is one page of a Mem; a shared one belongs to clones as well and must be copied before it changes.
type page struct {
	data   []byte
	shared bool
}

// NewMem returns a device of size zero bytes.
func NewMem(size int64) *Mem {
	return &Mem{size: size, pages: make(map[int64]page)}
}

// Clone returns a device with the same bytes and a life of its own. It copies nothing but the page table.
func (m *Mem) Clone() *Mem {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := &Mem{size: m.size, pages: make(map[int64]page, len(m.pages))}
	for i, pg := range m.pages {
		pg.shared = true
		m.pages[i] = pg
		c.pages[i] = pg
	}
	return c
}

// ReadAt implements io.ReaderAt.
func (m *Mem) ReadAt(p []byte, off int64) (int, error) {
	n, eof := readLimit(off, int64(len(p)), m.size)
	p = p[:n]
	m.mu.RLock()
	defer m.mu.RUnlock()
	for len(p) > 0 {
		at := off % memPage
		part := p[:min(int64(len(p)), memPage-at)]
		if pg, ok := m.pages[off/memPage]; ok {
			copy(part, pg.data[at:])
		} else {
			clear(part)
		}
		p, off = p[len(part):], off+int64(len(part))
	}
	return int(n), eof
}

// WriteAt implements io.WriterAt.
func (m *Mem) WriteAt(p []byte, off int64) (int, error) {
	if err := InRange(off, int64(len(p)), m.size); err != nil {
		return 0, err
	}
	n := len(p)
	m.mu.Lock()
	defer m.mu.Unlock()
	for len(p) > 0 {
		at := off % memPage
		part := p[:min(int64(len(p)), memPage-at)]
		m.writePageLocked(off/memPage, at, part)
		p, off = p[len(part):], off+int64(len(part))
	}
	return n, nil
}

func (m *Mem) writePageLocked(i, at int64, p []byte) {
	pg, ok := m.pages[i]
	switch {
	case !ok && allZero(p):
		return
	case !ok:
		pg = page{data: make([]byte, memPage)}
		m.pages[i] = pg
	case pg.shared:
		pg = page{data: append(make([]byte, 0, memPage), pg.data...)}
		m.pages[i] = pg
	}
	copy(pg.data[at:], p)
}

func allZero(p []byte) bool {
	for _, b := range p {
		if b != 0 {
			return false
		}
	}
	return true
}

// Discard frees the pages that lie wholly in the range.
func (m *Mem) Discard(off, n int64) error {
	if err := InRange(off, n, m.size); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	first, end := (off+memPage-1)/memPage, (off+n)/memPage
	if end-first > int64(len(m.pages)) {
		for i := range m.pages {
			if i >= first && i < end {
				delete(m.pages, i)
			}
		}
		return nil
	}
	for i := first; i < end; i++ {
		delete(m.pages, i)
	}
	return nil
}

// Flush does nothing: memory has no power to lose. See crashdev for one that does.
func (m *Mem) Flush() error { return nil }

// Size implements Device.
func (m *Mem) Size() int64 { return m.size }

// Close implements Device; the bytes stay until the garbage collector takes them.
func (m *Mem) Close() error { return nil }
