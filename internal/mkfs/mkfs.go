// Package mkfs makes new volumes, empty or filled from a directory, by writing every block by hand.
//
// It shares nothing with the packages that change volumes: no transaction, no copy-on-write. All blocks belong to generation 1
// and are written once, full, in ascending order of addresses. What must hold:
//
//  1. Nothing is known to be a volume before everything else is durable: the superblocks come last.
//  2. The same source, options and device sizes give the same bytes when Options.Reproducible is set, whatever the number of
//     processors: files are read, compressed and summed side by side, but take their places in order (invariant I8).
//  3. Memory does not grow with the file data, only with the number of files and extents.
//
// The way through the files: mkfs.go (the whole run), options.go, layout.go (chunks and free space), tree.go (bottom-up trees),
// close.go (the trees that describe all the others), super.go; and for contents source.go, scan.go, content.go, fill.go.
package mkfs

import (
	"context"
	"fmt"

	"github.com/gobtrfs/gobtrfs/internal/chunk"
	"github.com/gobtrfs/gobtrfs/internal/device"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
)

// generation is the transaction that everything in a new volume belongs to.
const generation ondisk.Generation = 1

// Result tells what was made.
type Result struct {
	UUID       ondisk.UUID
	Size       uint64   // bytes of all devices that the volume uses, after shrinking
	DevSizes   []uint64 // the same for each device: where an image may be cut
	Files      int      // inodes made from the source, directories too
	FileBytes  uint64   // their sizes
	DataBytes  uint64   // what the data takes, after compression
	Metadata   uint64   // bytes of tree blocks
	Nodesize   uint32
	Sectorsize uint32
	Checksum   string
	Features   []string
	Data       string // profiles
	MetaData   string
}

// Make makes a volume on devs and returns when it is durable. What the devices held is lost.
func Make(ctx context.Context, devs []device.Device, opt Options) (*Result, error) {
	p, err := newPlan(devs, opt)
	if err != nil {
		return nil, err
	}
	var tree *scan
	if p.source != nil {
		if tree, err = scanSource(ctx, p.source, opt.Subvols); err != nil {
			return nil, err
		}
	}
	p.identify(tree)
	b := newBuilder(p, devs)
	defer b.stop()
	if err := b.wipe(); err != nil {
		return nil, err
	}
	if err := b.contents(ctx, tree); err != nil {
		return nil, err
	}
	if opt.Shrink {
		b.space.shrink()
	}
	if err := b.close(); err != nil {
		return nil, err
	}
	if err := b.supers(); err != nil {
		return nil, err
	}
	return b.result(tree), nil
}

// builder is a volume being made.
type builder struct {
	p       *plan
	devs    []device.Device
	chunks  *chunk.Map
	io      *chunk.IO
	space   *layout
	meta    *stream // tree blocks
	data    *stream // file data
	blocks  []extent
	extents []extent                     // data
	first   map[ondisk.Bytenr]ondisk.Key // first keys of tree blocks, when extent items tell them; else nil
	trees   []tree                       // finished trees
	subvol  []*subvolume
}

func newBuilder(p *plan, devs []device.Device) *builder {
	b := &builder{p: p, devs: devs, chunks: chunk.NewMap()}
	byID := map[ondisk.DevID]device.Device{}
	for i, d := range devs {
		byID[ondisk.DevID(i+1)] = d
	}
	if p.incompat&ondisk.IncompatSkinnyMetadata == 0 {
		b.first = map[ondisk.Bytenr]ondisk.Key{}
	}
	b.io = chunk.NewIO(b.chunks, byID)
	b.space = newLayout(p, b.chunks)
	b.meta, b.data = newStream(b.io, b.chunks, 1<<20), newStream(b.io, b.chunks, 4<<20)
	return b
}

// stop ends the goroutines that write.
func (b *builder) stop() {
	_ = b.meta.finish()
	_ = b.data.finish()
}

// wipe makes sure that nothing on the devices passes for a file system while the volume is not complete.
func (b *builder) wipe() error {
	zero := make([]byte, 1<<20)
	for i, d := range b.devs {
		_ = d.Discard(0, d.Size()) // advice
		for _, off := range wipeOffsets(uint64(d.Size())) {
			if _, err := d.WriteAt(zero[:off[1]], int64(off[0])); err != nil {
				return fmt.Errorf("clear device %d: %w", i+1, err)
			}
		}
		if err := d.Flush(); err != nil {
			return fmt.Errorf("clear device %d: %w", i+1, err)
		}
	}
	return nil
}

// wipeOffsets gives offset and length of what wipe clears: the start, all superblocks and the end, where other file systems,
// RAID headers and backup partition tables have their marks.
func wipeOffsets(size uint64) [][2]uint64 {
	const tail = 64 << 10
	out := [][2]uint64{{0, 1 << 20}, {(size - tail) &^ 4095, tail - size%4096}}
	for i := 1; i < ondisk.SuperCopies; i++ {
		if at := ondisk.SuperOffset(i); at+ondisk.SuperSize <= size {
			out = append(out, [2]uint64{at, ondisk.SuperSize})
		}
	}
	return out
}

// result gathers what is worth telling.
func (b *builder) result(s *scan) *Result {
	r := &Result{
		UUID: b.p.fsid, Nodesize: b.p.nodesize, Sectorsize: b.p.sectorsize, Checksum: b.p.csum.String(),
		Features: append(ondisk.IncompatNames(b.p.incompat), ondisk.CompatRONames(b.p.compatRO)...),
		Data:     profileName(b.p.data), MetaData: profileName(b.p.metadata),
		Metadata: uint64(len(b.blocks)) * uint64(b.p.nodesize),
	}
	for _, d := range b.space.devs {
		r.Size += d.total
		r.DevSizes = append(r.DevSizes, d.total)
	}
	for _, e := range b.extents {
		r.DataBytes += e.n
	}
	if s != nil {
		r.Files, r.FileBytes = s.files, s.bytes
	}
	return r
}
