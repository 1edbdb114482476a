package partition

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
)

// ErrNoTable is returned when a device has no partition table.
var ErrNoTable = errors.New("no partition table")

// Table is the partitions of a disk.
type Table struct {
	Scheme  string // "GPT" or "MBR"
	Entries []Entry
}

// Entry is one partition, in bytes. It need not lie on the device: the table may be wrong.
type Entry struct {
	Number int
	Start  int64
	Size   int64
	Name   string // GPT only
}

func (t *Table) numbers() string {
	if len(t.Entries) == 0 {
		return "none"
	}
	var b strings.Builder
	for i, e := range t.Entries {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprint(&b, e.Number)
	}
	return b.String()
}

const sector = 512 // of MBR tables, and usually of GPT ones

// The master boot record, and each extended one: four entries of 16 bytes at 446, then the signature.
//
//	off  size  entry
//	  4     1  type
//	  8     4  start, in sectors
//	 12     4  length, in sectors
const (
	mbrEntries   = 446
	mbrSignature = 510
	typeGPT      = 0xee
)

type mbrEntry struct {
	typ           byte
	start, length int64 // sectors
}

func (e mbrEntry) extended() bool { return e.typ == 0x05 || e.typ == 0x0f || e.typ == 0x85 }

func (e mbrEntry) entry(number int, base int64) Entry {
	return Entry{Number: number, Start: (base + e.start) * sector, Size: e.length * sector}
}

// Read reads the partition table of a disk of size bytes.
func Read(r io.ReaderAt, size int64) (*Table, error) {
	mbr, ok, err := readMBR(r, 0)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, ErrNoTable
	}
	for _, e := range mbr {
		if e.typ == typeGPT {
			return readGPT(r, size)
		}
	}
	t := &Table{Scheme: "MBR"}
	for i, e := range mbr {
		switch {
		case e.typ == 0 || e.length == 0:
		case e.extended():
			if err := t.readExtended(r, e.start, size); err != nil {
				return nil, err
			}
		default:
			t.Entries = append(t.Entries, e.entry(i+1, 0))
		}
	}
	return t, nil
}

// readMBR reads the record at a sector; ok tells whether it has the signature.
func readMBR(r io.ReaderAt, at int64) (es [4]mbrEntry, ok bool, err error) {
	var b [sector]byte
	if n, err := r.ReadAt(b[:], at*sector); n < len(b) {
		if err == io.EOF {
			return es, false, nil
		}
		return es, false, err
	}
	if b[mbrSignature] != 0x55 || b[mbrSignature+1] != 0xaa {
		return es, false, nil
	}
	for i := range es {
		e := b[mbrEntries+16*i:]
		es[i] = mbrEntry{e[4], int64(binary.LittleEndian.Uint32(e[8:])), int64(binary.LittleEndian.Uint32(e[12:]))}
	}
	return es, true, nil
}

const maxLogical = 128 // more logical partitions than any system makes; ends chains that bite their tail

// readExtended follows the chain of records in the extended partition at sector base. Each describes one logical partition,
// relative to itself, and the next record, relative to base.
func (t *Table) readExtended(r io.ReaderAt, base, size int64) error {
	number := 5
	for _, e := range t.Entries {
		number = max(number, e.Number+1)
	}
	at := base
	for range maxLogical {
		es, ok, err := readMBR(r, at)
		if err != nil {
			return err
		}
		if !ok {
			return fmt.Errorf("partition table: no extended boot record at sector %d", at)
		}
		next := int64(0)
		for _, e := range es[:2] {
			switch {
			case e.typ == 0 || e.length == 0:
			case e.extended():
				next = e.start
			default:
				t.Entries = append(t.Entries, e.entry(number, at))
				number++
			}
		}
		if next == 0 || base+next >= size/sector {
			return nil
		}
		at = base + next
	}
	return fmt.Errorf("partition table: more than %d logical partitions", maxLogical)
}
