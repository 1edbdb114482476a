package filedata

import "sort"

// segment is a piece of a file that was written but is not in the tree yet.
type segment struct {
	off  uint64
	data []byte
}

func (s segment) end() uint64 { return s.off + uint64(len(s.data)) }

// dirty gathers what is written: sorted segments that do not overlap. They may
// touch; only writing onwards makes one longer, so that writing never copies
// what was written before.
type dirty struct {
	segs  []segment
	bytes int
}

func (d *dirty) write(off uint64, p []byte) {
	i := sort.Search(len(d.segs), func(i int) bool { return d.segs[i].end() > off })
	for len(p) > 0 {
		n := len(p)
		if i < len(d.segs) {
			s := d.segs[i]
			if s.off <= off {
				n = copy(s.data[off-s.off:], p)
				off, p, i = off+uint64(n), p[n:], i+1
				continue
			}
			n = int(min(uint64(n), s.off-off))
		}
		if i > 0 && d.segs[i-1].end() == off {
			d.segs[i-1].data = append(d.segs[i-1].data, p[:n]...)
		} else {
			d.segs = append(d.segs, segment{})
			copy(d.segs[i+1:], d.segs[i:])
			d.segs[i] = segment{off, append([]byte(nil), p[:n]...)}
			i++
		}
		d.bytes += n
		off, p = off+uint64(n), p[n:]
	}
}
