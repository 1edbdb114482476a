package hostile

import (
	"context"
	"errors"
	"io/fs"
	"math/rand/v2"
	"regexp"
	"runtime/metrics"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/gobtrfs/gobtrfs/internal/btree"
	"github.com/gobtrfs/gobtrfs/internal/check"
	"github.com/gobtrfs/gobtrfs/internal/checksum"
	"github.com/gobtrfs/gobtrfs/internal/chunk"
	"github.com/gobtrfs/gobtrfs/internal/cleaner"
	"github.com/gobtrfs/gobtrfs/internal/device"
	"github.com/gobtrfs/gobtrfs/internal/dump"
	"github.com/gobtrfs/gobtrfs/internal/filedata"
	"github.com/gobtrfs/gobtrfs/internal/fstree"
	"github.com/gobtrfs/gobtrfs/internal/logtree"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/space"
	"github.com/gobtrfs/gobtrfs/internal/subvol"
	"github.com/gobtrfs/gobtrfs/internal/transaction"
	"github.com/gobtrfs/gobtrfs/internal/treeblock"
	"github.com/gobtrfs/gobtrfs/internal/volume"
)

// What one volume may cost, at most. The sound ones need a tenth.
const (
	mostCalls = 100_000   // of a device
	mostBytes = 512 << 20 // allocated, those that are free again too
)

// victim is a small real volume that fuzz targets damage.
type victim struct {
	m      *device.Mem
	v      *volume.Volume
	blocks []ondisk.Bytenr
}

// victims loads volumes; pick tells which of their blocks are to be damaged.
func victims(f *testing.F, pick func(context.Context, *volume.Volume) ([]ondisk.Bytenr, error), images ...string) (all []victim) {
	ctx := context.Background()
	for _, image := range images {
		m := load(f, image)
		v, err := open(ctx, m, true)
		if err != nil {
			f.Fatalf("%s: %v", image, err)
		}
		blocks, err := pick(ctx, v)
		if err != nil {
			f.Fatalf("%s: %v", image, err)
		}
		all = append(all, victim{m, v, blocks})
	}
	return all
}

// logBlocks lists the tree blocks of a volume's log.
func logBlocks(ctx context.Context, v *volume.Volume) (all []ondisk.Bytenr, err error) {
	sb := v.Super()
	v.Store().SetGeneration(sb.Generation + 1)
	var tree func(treeblock.Promise) error
	tree = func(p treeblock.Promise) error {
		b, err := v.Store().Read(ctx, p)
		if err != nil {
			return err
		}
		all = append(all, b.Bytenr())
		for i := range b.Data().NrItems() {
			next := treeblock.Promise{Tree: ondisk.LogTree}
			if b.Level() > 0 {
				next = btree.ChildPromise(ondisk.LogTree, b.Data(), i)
			} else if r, err := ondisk.DecodeRootItem(b.Data().Item(i)); b.Data().Key(i).Type == ondisk.TypeRootItem && err == nil {
				next.Bytenr, next.Generation, next.Level = r.Bytenr, r.Generation, r.Level
			} else {
				continue
			}
			if err := tree(next); err != nil {
				return err
			}
		}
		return nil
	}
	return all, tree(treeblock.Promise{Tree: ondisk.LogTree, Bytenr: sb.LogRoot, Generation: sb.Generation + 1, Level: sb.LogRootLevel})
}

// patchSize is the size of a patch: which block (0 is the superblock), which slot in it, where there, how, and a value.
const patchSize = 5

// patched gives a copy of the volume with patches applied and all checksums made right again, and tells which tree blocks changed.
func (d victim) patched(t *testing.T, patches []byte) (m *device.Mem, blocks []ondisk.Bytenr) {
	m = d.m.Clone()
	changed := map[int][]byte{}
	for ; len(patches) >= patchSize; patches = patches[patchSize:] {
		which := int(patches[0]) % (len(d.blocks) + 1)
		b := changed[which]
		if b == nil {
			b = d.read(t, which)
			changed[which] = b
		}
		slot, where := int(patches[1]), int(patches[2])
		at := (slot<<8 | where) % len(b)
		if which > 0 {
			at = placeIn(b, slot, where)
		}
		patch(b[at:], patches[3], patches[4])
	}
	for which, b := range changed {
		d.write(t, m, which, b)
		if which > 0 {
			blocks = append(blocks, d.blocks[which-1])
		}
	}
	slices.Sort(blocks)
	return m, blocks
}

// placeIn finds a byte of a tree block: of a body, of an item's head or a pointer, or of the block's header.
func placeIn(b ondisk.Block, slot, where int) int {
	n := b.NrItems()
	if where >= 0xc0 || n == 0 || ondisk.HeaderSize+n*ondisk.KeyPtrSize > len(b) {
		return 48 + where%(ondisk.HeaderSize-48)
	}
	slot %= n
	if b.Level() > 0 {
		return ondisk.HeaderSize + slot*ondisk.KeyPtrSize + where%ondisk.KeyPtrSize
	}
	head := ondisk.HeaderSize + slot*ondisk.ItemSize
	from, size := ondisk.HeaderSize+b.ItemOffset(slot), b.ItemLen(slot)
	if where >= 0x80 || size == 0 || from+size > len(b) {
		return head + where%ondisk.ItemSize
	}
	return from + where%size
}

// patch changes the first bytes of b.
func patch(b []byte, how, value byte) {
	switch how % 4 {
	case 0:
		b[0] = value
	case 1:
		b[0] ^= 1 << (value % 8)
	case 2:
		for i := range b[:min(8, len(b))] {
			b[i] = value
		}
	default: // a number of eight bytes
		clear(b[:min(8, len(b))])
		b[0] = value
	}
}

func (d victim) read(t *testing.T, which int) []byte {
	b := make([]byte, ondisk.SuperSize)
	var err error
	if which == 0 {
		_, err = d.m.ReadAt(b, int64(ondisk.SuperOffset(0)))
	} else {
		b = make([]byte, d.v.Nodesize())
		err = d.v.IO().Read(t.Context(), d.blocks[which-1], 0, b)
	}
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// write puts a block into all its places, with checksums of the volume's kind.
func (d victim) write(t *testing.T, m *device.Mem, which int, b []byte) {
	put := func(off uint64) {
		checksum.Sum(d.v.CsumType(), b[:d.v.CsumType().Size()], b[32:])
		if _, err := m.WriteAt(b, int64(off)); err != nil {
			t.Fatal(err)
		}
	}
	if which == 0 {
		for i := range ondisk.SuperCopies {
			if off := ondisk.SuperOffset(i); off+ondisk.SuperSize <= uint64(m.Size()) {
				if i > 0 {
					copy(b[48:], binaryOf(off))
				}
				put(off)
			}
		}
		return
	}
	at := d.blocks[which-1]
	c, _ := d.v.Chunks().Find(at)
	for _, s := range c.Stripes {
		put(s.Offset + uint64(at-c.Logical))
	}
}

func binaryOf(v uint64) []byte { return ondisk.Key{Objectid: v}.Append(nil)[:8] }

// bounded is a device that counts calls, ends the context when there are too many, and refuses to be written when readonly.
type bounded struct {
	*device.Mem
	t        *testing.T
	readonly bool
	calls    *atomic.Int64
	cancel   context.CancelFunc
}

func (d bounded) count() {
	if d.calls.Add(1) == mostCalls {
		d.t.Errorf("%d calls of the device, and no end", mostCalls)
		d.cancel()
	}
}

func (d bounded) ReadAt(p []byte, off int64) (int, error) {
	d.count()
	return d.Mem.ReadAt(p, off)
}

func (d bounded) WriteAt(p []byte, off int64) (int, error) {
	d.count()
	if d.readonly {
		d.t.Error("a volume that is open read-only was written")
	}
	return d.Mem.WriteAt(p, off)
}

// session opens the volume on m and gives it to fn; time, calls and memory are bounded.
func session(t *testing.T, m *device.Mem, readonly bool, fn func(context.Context, *volume.Volume) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), most)
	defer cancel()
	before := allocated()
	v, err := open(ctx, bounded{m, t, readonly, new(atomic.Int64), cancel}, readonly)
	if err == nil {
		err = fn(ctx, v)
		v.Close()
	}
	wellSaid(t, err)
	if ctx.Err() != nil {
		t.Errorf("stopped: %v", ctx.Err())
	}
	if n := allocated() - before; n > mostBytes {
		t.Errorf("%d MiB were allocated", n>>20)
	}
	return err
}

func allocated() uint64 {
	s := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}

// placed matches errors that tell where.
var placed = regexp.MustCompile(`(at|address|block|inode|slot|device) \d|subvolume|tree|superblock`)

// plain are errors that need no place.
var plain = []error{
	volume.ErrSuper, volume.ErrRoots, volume.ErrChunks, space.ErrNoSpace, fs.ErrNotExist, fs.ErrExist, fs.ErrInvalid, filedata.ErrNoChecksum,
	cleaner.ErrBalance, transaction.ErrBalance, transaction.ErrReplace,
	fstree.ErrNotDir, fstree.ErrIsDir, fstree.ErrNotEmpty, fstree.ErrTooManyLinks, fstree.ErrTooLarge, fstree.ErrReadOnly, fstree.ErrSubvolume, subvol.ErrNewSnapshot,
}

// wellSaid wants errors of the kinds that callers can tell apart, and of damage also where it is.
func wellSaid(t *testing.T, err error) {
	if err == nil {
		return
	}
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range many.Unwrap() {
			wellSaid(t, e)
		}
		return
	}
	var corrupt *ondisk.CorruptError
	var unsupported *volume.UnsupportedError
	var refused *volume.RefusedError
	var data *filedata.ReadError
	var missing *chunk.MissingError
	switch {
	case errors.As(err, &corrupt):
		if corrupt.What == "" || corrupt.Reason == "" || !placed.MatchString(err.Error()) {
			t.Errorf("%v does not tell what is wrong where", err)
		}
	case errors.Is(err, device.ErrOutOfRange) && placed.MatchString(err.Error()):
	case errors.As(err, &unsupported), errors.As(err, &refused), errors.As(err, &data), errors.As(err, &missing):
	case slices.ContainsFunc(plain, func(e error) bool { return errors.Is(err, e) }):
	default:
		t.Errorf("an error of no kind: %T %v", err, err)
	}
}

// judge reads everything of the volume on m, without changing it, and gives the verdict of the check; nil: it could not
// be checked.
func judge(t *testing.T, m *device.Mem, shows ...dump.Options) (verdict *check.Report) {
	err := session(t, m, true, func(ctx context.Context, v *volume.Volume) (err error) {
		verdict, err = readAll(ctx, v, check.Options{Workers: 1}, shows...)
		return err
	})
	if sound(verdict) {
		readable(t, verdict, err)
	}
	return verdict
}

// byAddress is an error of showing a block of which only the address is given: in a tree that is half dropped, pointers may
// dangle, and nothing tells.
type byAddress struct{ error }

func (e byAddress) Unwrap() error { return e.error }

// unpacking matches errors of data that do not decompress.
var unpacking = regexp.MustCompile(`extent at \d+: corrupt (zlib|lzo|zstd) extent`)

// readable wants no errors of reading a sound volume, except that orphans have no names, that data, which the check
// did not read, may be bad, and what the check warns of.
func readable(t *testing.T, verdict *check.Report, err error) {
	many, ok := err.(interface{ Unwrap() []error })
	var data *filedata.ReadError
	var shown byAddress
	switch {
	case err == nil, errors.As(err, &shown), errors.Is(err, fs.ErrNotExist), errors.As(err, &data), errors.Is(err, filedata.ErrNoChecksum):
	case ok:
		for _, e := range many.Unwrap() {
			readable(t, verdict, e)
		}
	case unpacking.MatchString(err.Error()):
	case slices.ContainsFunc(verdict.Findings, func(f check.Finding) bool { return strings.Contains(err.Error(), f.What) }):
	default:
		t.Errorf("the check found nothing, but: %v", err)
	}
}

func sound(r *check.Report) bool { return r != nil && r.OK() }

// seeds gives each victim whole, and with some damages.
func seeds(f *testing.F, victims int) {
	rng := rand.New(rand.NewPCG(7, 7))
	for i := range victims {
		f.Add(uint8(i), []byte{})
		for range 6 {
			p := make([]byte, 2*patchSize)
			for k := range p {
				p[k] = byte(rng.Uint32())
			}
			f.Add(uint8(i), p)
		}
	}
}

// FuzzImage damages whole small volumes behind right checksums. They can be read to the end, or tell what is wrong; what
// the check calls sound can be read, and stays sound whatever is then changed.
func FuzzImage(f *testing.F) {
	all := victims(f, blocksOf, "node-4k", "mixed", "subvolumes", "comp-mixed", "quota", "special", "half-drop")
	seeds(f, len(all))
	f.Fuzz(func(t *testing.T, image uint8, patches []byte) {
		hurt(t, all[int(image)%len(all)], patches)
	})
}

// hurt does to one volume what FuzzImage tells.
func hurt(t *testing.T, d victim, patches []byte) {
	m, blocks := d.patched(t, patches[:min(len(patches), 16*patchSize)])
	shows := []dump.Options{{Quiet: true}} // showing all of it would take most of the time, and what is not damaged says the same each time
	for _, at := range blocks {
		shows = append(shows, dump.Options{Block: at})
	}
	before := judge(t, m, shows...)
	err := session(t, m, false, func(ctx context.Context, w *volume.Volume) error {
		return changeAll(ctx, rand.New(rand.NewPCG(1, 1)), w)
	})
	if !sound(before) {
		return
	}
	if after := judge(t, m, dump.Options{Quiet: true}); !sound(after) {
		t.Errorf("sound before it was changed, not so afterwards: %v; the change: %v", after, err)
	}
}

// FuzzLog damages the log of a small volume behind right checksums: it is replayed and leaves sound accounts, or it is
// refused and leaves the volume as it was.
func FuzzLog(f *testing.F) {
	d := victims(f, logBlocks, "log-tree")[0]
	seeds(f, 1)
	f.Fuzz(func(t *testing.T, _ uint8, patches []byte) {
		patches = slices.Clone(patches[:min(len(patches), 16*patchSize)])
		for i := 0; i < len(patches); i += patchSize { // not the superblock
			patches[i] = 1 + patches[i]%byte(len(d.blocks))
		}
		m, _ := d.patched(t, patches)
		inMemory := session(t, m, true, replay(transaction.Options{DropLog: true, InMemory: true}))
		err := session(t, m, false, replay(transaction.Options{DropLog: true}))
		if inMemory != nil && err == nil {
			t.Errorf("a replay that in memory says %v", inMemory)
		}
		after := judge(t, m, dump.Options{})
		if after == nil {
			t.Fatal("the volume cannot be read after the replay")
		}
		for _, x := range after.Findings {
			// What a log says of an inode is believed; a log that is refused stays.
			if x.Severity == check.Error && (err == nil && !x.Place.Tree.IsSubvolume() || err != nil && x.Place.Tree != ondisk.LogTree) {
				t.Errorf("after the replay (%v): %v", err, x)
			}
		}
	})
}

// replay gives a session that replays the log.
func replay(opt transaction.Options) func(context.Context, *volume.Volume) error {
	return func(ctx context.Context, v *volume.Volume) error {
		m, err := transaction.Open(ctx, v, opt)
		if err != nil {
			return err
		}
		if err := logtree.Replay(ctx, m); err != nil || opt.InMemory {
			return err
		}
		return m.Close(ctx)
	}
}
