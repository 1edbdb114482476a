package partition

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"unicode/utf16"
)

// The GPT header, at sector 1 and again at the last sector:
//
//	off  size  field
//	  0     8  "EFI PART"
//	 12     4  size of the header
//	 16     4  CRC-32 of the header, with this field zero
//	 72     8  sector of the entries
//	 80     4  number of entries
//	 84     4  size of an entry
//	 88     4  CRC-32 of all entries
//
// and an entry:
//
//	 0    16  type, zero = unused
//	32     8  first sector
//	40     8  last sector (it belongs to the partition)
//	56    72  name, UTF-16LE
const (
	gptHeaderMin = 92
	gptEntryMin  = 128
	gptTableMax  = 1 << 20 // bytes of all entries; 128 entries are usual and take 16 KiB
)

// readGPT tries the first and the last header, for both sizes of sectors.
func readGPT(r io.ReaderAt, size int64) (*Table, error) {
	var errs []error
	for _, ss := range []int64{sector, 4096} {
		for _, at := range []int64{1, size/ss - 1} {
			t, err := readGPTAt(r, at, ss)
			if err == nil {
				return t, nil
			}
			errs = append(errs, err)
		}
	}
	return nil, fmt.Errorf("partition table: no good GPT header: %w", errors.Join(errs...))
}

func readGPTAt(r io.ReaderAt, at, ss int64) (*Table, error) {
	h := make([]byte, ss)
	if n, err := r.ReadAt(h, at*ss); n < len(h) {
		return nil, fmt.Errorf("sector %d: %w", at, err)
	}
	if !bytes.HasPrefix(h, []byte("EFI PART")) {
		return nil, fmt.Errorf("sector %d of %d bytes: no signature", at, ss)
	}
	le := binary.LittleEndian
	length := le.Uint32(h[12:])
	if length < gptHeaderMin || int64(length) > ss {
		return nil, fmt.Errorf("sector %d: header of %d bytes", at, length)
	}
	sum := le.Uint32(h[16:])
	clear(h[16:20])
	if crc32.ChecksumIEEE(h[:length]) != sum {
		return nil, fmt.Errorf("sector %d: wrong checksum", at)
	}
	table, number, each := le.Uint64(h[72:]), le.Uint32(h[80:]), le.Uint32(h[84:])
	if each < gptEntryMin || each%8 != 0 || uint64(number)*uint64(each) > gptTableMax || table > 1<<50 {
		return nil, fmt.Errorf("sector %d: %d entries of %d bytes at sector %d", at, number, each, table)
	}
	b := make([]byte, number*each)
	if n, err := r.ReadAt(b, int64(table)*ss); n < len(b) {
		return nil, fmt.Errorf("entries at sector %d: %w", table, err)
	}
	if crc32.ChecksumIEEE(b) != le.Uint32(h[88:]) {
		return nil, fmt.Errorf("entries at sector %d: wrong checksum", table)
	}
	return parseGPT(b, int(each), ss), nil
}

// parseGPT decodes entries; those that cannot lie on any disk are left out.
func parseGPT(b []byte, each int, ss int64) *Table {
	t := &Table{Scheme: "GPT"}
	for i := 0; i*each < len(b); i++ {
		e := b[i*each:][:each]
		first, last := binary.LittleEndian.Uint64(e[32:]), binary.LittleEndian.Uint64(e[40:])
		if [16]byte(e) == [16]byte{} || first > last || last > 1<<50 {
			continue
		}
		t.Entries = append(t.Entries, Entry{
			Number: i + 1,
			Start:  int64(first) * ss,
			Size:   int64(last-first+1) * ss,
			Name:   utf16Name(e[56:128]),
		})
	}
	return t
}

func utf16Name(b []byte) string {
	var u []uint16
	for ; len(b) >= 2; b = b[2:] {
		c := binary.LittleEndian.Uint16(b)
		if c == 0 {
			break
		}
		u = append(u, c)
	}
	return string(utf16.Decode(u))
}
