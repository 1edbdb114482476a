package mkfs

import (
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/gobtrfs/gobtrfs/internal/checksum"
	"github.com/gobtrfs/gobtrfs/internal/compress"
	"github.com/gobtrfs/gobtrfs/internal/device"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
)

// MinDeviceSize is the size of the smallest device that a volume fits on.
const MinDeviceSize = 16 << 20

// smallDevice is the size below which metadata is not kept twice by default: the kernel could not write to what remains.
const smallDevice = 48 << 20

// ErrOptions is wrapped by errors about options that make no sense, alone or together.
var ErrOptions = errors.New("options do not fit")

// Options say what to make. The zero value makes what mkfs.btrfs makes by default.
type Options struct {
	Label        string
	UUID         ondisk.UUID // zero: random, or derived from the source if Reproducible
	Nodesize     uint32      // 0: 16 KiB, or the sector size if that is larger
	Sectorsize   uint32      // 0: 4 KiB
	Checksum     checksum.Type
	Data         string   // profile; "": single
	Metadata     string   // profile; "": dup on one device (single on a very small one), raid1 on several
	Features     []string // names to set, or with ^ to clear
	RootDir      string   // directory to fill the volume from
	Source       Source   // the same, from elsewhere; RootDir is ignored then
	Subvols      []Subvol // directories of the source that become subvolumes
	Compression  string   // "", "no", "zlib", "lzo", "zstd", with ":LEVEL"
	Shrink       bool     // end the volume behind the last chunk
	Reproducible bool     // same source, same bytes
	Time         time.Time
	Force        bool // not looked at here: what the devices hold is the caller's business
	Progress     func(done, total uint64)
}

// Subvol is a directory of the source that becomes a subvolume.
type Subvol struct {
	Path     string // relative to the source
	ReadOnly bool
	Default  bool
}

// plan is what the options mean.
type plan struct {
	opt                  Options
	source               Source
	sizes                []uint64 // of devices
	nodesize, sectorsize uint32
	csum                 checksum.Type
	incompat, compatRO   uint64
	data, metadata       uint64 // profile bits
	algo                 uint8
	level                int
	now                  ondisk.Timespec
	seed                 []byte // nil: random UUIDs
	fsid, chunkTree      ondisk.UUID
	devUUIDs             []ondisk.UUID
}

func bad(format string, args ...any) error {
	return fmt.Errorf("%s: %w", fmt.Sprintf(format, args...), ErrOptions)
}

func newPlan(devs []device.Device, opt Options) (*plan, error) {
	p := &plan{opt: opt, source: opt.Source, nodesize: opt.Nodesize, sectorsize: opt.Sectorsize, csum: opt.Checksum}
	if len(devs) == 0 {
		return nil, bad("no device")
	}
	for i, d := range devs {
		if d.Size() < MinDeviceSize {
			return nil, bad("device %d has %d bytes, fewer than %d", i+1, d.Size(), MinDeviceSize)
		}
		p.sizes = append(p.sizes, uint64(d.Size()))
	}
	if p.source == nil && opt.RootDir != "" {
		src, err := Directory(opt.RootDir)
		if err != nil {
			return nil, err
		}
		p.source = src
	}
	for _, step := range []func() error{p.checkSizes, p.checkProfiles, p.checkFeatures, p.checkCompression, p.checkRest, p.setTime} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	for i := range p.sizes {
		p.sizes[i] -= p.sizes[i] % uint64(p.sectorsize)
	}
	return p, nil
}

func powerOfTwo(n uint32) bool { return n != 0 && n&(n-1) == 0 }

func (p *plan) checkSizes() error {
	if p.sectorsize == 0 {
		p.sectorsize = 4096
	}
	if p.nodesize == 0 {
		p.nodesize = max(16384, p.sectorsize)
	}
	switch {
	case !powerOfTwo(p.sectorsize) || p.sectorsize < 4096 || p.sectorsize > 65536:
		return bad("sector size %d is not a power of two from 4096 to 65536", p.sectorsize)
	case !powerOfTwo(p.nodesize) || p.nodesize < p.sectorsize || p.nodesize > 65536:
		return bad("node size %d is not a power of two from the sector size (%d) to 65536", p.nodesize, p.sectorsize)
	case !p.csum.Valid():
		return bad("unknown checksum %d", p.csum)
	}
	return nil
}

func (p *plan) checkProfiles() (err error) {
	if p.data, err = parseProfile(p.opt.Data, "single"); err != nil {
		return err
	}
	fallback := "dup"
	switch {
	case len(p.sizes) > 1:
		fallback = "raid1"
	case p.sizes[0] < smallDevice:
		fallback = "single"
	}
	if p.metadata, err = parseProfile(p.opt.Metadata, fallback); err != nil {
		return err
	}
	for _, bits := range []uint64{p.data, p.metadata} {
		if s := shapes(bits); len(p.sizes) < s.min {
			return bad("profile %s needs %d devices, there are %d", profileName(bits), s.min, len(p.sizes))
		}
		if bits&(ondisk.BlockGroupRAID1C3|ondisk.BlockGroupRAID1C4) != 0 {
			p.incompat |= ondisk.IncompatRAID1C34
		}
		if bits&ondisk.BlockGroupRAID56Mask != 0 {
			p.incompat |= ondisk.IncompatRAID56
		}
	}
	return nil
}

// profileNames are the names of profile bits; single has none.
func profileNames() map[string]uint64 {
	return map[string]uint64{
		"single": 0, "dup": ondisk.BlockGroupDUP, "raid0": ondisk.BlockGroupRAID0, "raid1": ondisk.BlockGroupRAID1,
		"raid1c3": ondisk.BlockGroupRAID1C3, "raid1c4": ondisk.BlockGroupRAID1C4, "raid10": ondisk.BlockGroupRAID10,
		"raid5": ondisk.BlockGroupRAID5, "raid6": ondisk.BlockGroupRAID6,
	}
}

func parseProfile(name, fallback string) (uint64, error) {
	if name == "" {
		name = fallback
	}
	name = strings.ToLower(name)
	bits, ok := profileNames()[name]
	if !ok {
		return 0, bad("unknown profile %q (want single, dup, raid0, raid1, raid1c3, raid1c4, raid10, raid5 or raid6)", name)
	}
	return bits, nil
}

func profileName(bits uint64) string {
	for name, b := range profileNames() {
		if b == bits&ondisk.BlockGroupProfileMask {
			return name
		}
	}
	return "unknown"
}

// checkFeatures starts from what mkfs.btrfs 6.19 sets, and sets or clears what the options name.
func (p *plan) checkFeatures() error {
	p.incompat |= ondisk.IncompatMixedBackref | ondisk.IncompatExtendedIref | ondisk.IncompatSkinnyMetadata | ondisk.IncompatNoHoles
	p.compatRO = ondisk.CompatROFreeSpaceTree | ondisk.CompatROFreeSpaceTreeValid | ondisk.CompatROBlockGroupTree
	if p.nodesize > 4096 {
		p.incompat |= ondisk.IncompatBigMetadata
	}
	explicit := map[string]bool{}
	for _, list := range p.opt.Features {
		for word := range strings.SplitSeq(list, ",") {
			if word == "" {
				continue
			}
			name, off := strings.CutPrefix(word, "^")
			if err := p.feature(name, !off); err != nil {
				return err
			}
			explicit[name] = !off
		}
	}
	if p.compatRO&ondisk.CompatROBlockGroupTree == 0 {
		return nil
	}
	if p.incompat&ondisk.IncompatNoHoles == 0 || p.compatRO&ondisk.CompatROFreeSpaceTree == 0 {
		if explicit["block-group-tree"] || explicit["bgt"] {
			return bad("feature block-group-tree needs no-holes and free-space-tree")
		}
		p.compatRO &^= ondisk.CompatROBlockGroupTree // on by default only
	}
	return nil
}

func (p *plan) feature(name string, on bool) error {
	set := func(field *uint64, bits uint64) {
		*field &^= bits
		if on {
			*field |= bits
		}
	}
	switch name {
	case "list-all":
		return bad("feature list-all: see the documentation")
	case "extref", "extended-iref":
		set(&p.incompat, ondisk.IncompatExtendedIref)
	case "no-holes":
		set(&p.incompat, ondisk.IncompatNoHoles)
	case "free-space-tree", "fst":
		set(&p.compatRO, ondisk.CompatROFreeSpaceTree|ondisk.CompatROFreeSpaceTreeValid)
	case "block-group-tree", "bgt":
		set(&p.compatRO, ondisk.CompatROBlockGroupTree)
	case "skinny-metadata":
		set(&p.incompat, ondisk.IncompatSkinnyMetadata)
	case "mixed-bg", "mixed-groups", "raid56", "zoned", "extent-tree-v2", "raid-stripe-tree", "squota", "quota", "remap-tree":
		if on {
			return bad("feature %s is not supported", name)
		}
	default:
		return bad("unknown feature %q", name)
	}
	return nil
}

func (p *plan) checkCompression() (err error) {
	p.algo, p.level, err = compress.Parse(p.opt.Compression)
	if err != nil {
		return bad("%v", err)
	}
	switch p.algo {
	case compress.LZO:
		p.incompat |= ondisk.IncompatCompressLZO
	case compress.Zstd:
		p.incompat |= ondisk.IncompatCompressZstd
	}
	return nil
}

func (p *plan) checkRest() error {
	if len(p.opt.Label) > 255 || strings.ContainsAny(p.opt.Label, "\x00\n") {
		return bad("label %.20q: longer than 255 bytes, or with a line break", p.opt.Label)
	}
	if p.source != nil {
		return nil
	}
	if p.opt.Shrink || len(p.opt.Subvols) > 0 || p.algo != 0 {
		return bad("shrink, subvolumes and compression need a source directory")
	}
	return nil
}

func (p *plan) setTime() error {
	switch epoch := os.Getenv("SOURCE_DATE_EPOCH"); {
	case !p.opt.Time.IsZero():
		p.now = timespec(p.opt.Time)
	case !p.opt.Reproducible:
		p.now = timespec(time.Now())
	case epoch != "":
		n, err := strconv.ParseInt(epoch, 10, 64)
		if err != nil {
			return bad("SOURCE_DATE_EPOCH %q is no number", epoch)
		}
		p.now = ondisk.Timespec{Sec: n}
	}
	return nil
}

func timespec(t time.Time) ondisk.Timespec {
	return ondisk.Timespec{Sec: t.Unix(), Nsec: uint32(t.Nanosecond())}
}

// identify chooses the UUIDs.
func (p *plan) identify(s *scan) {
	if p.opt.Reproducible {
		h := sha256.New()
		fmt.Fprintln(h, p.opt.Label, p.nodesize, p.sectorsize, p.csum, p.incompat, p.compatRO, p.data, p.metadata, p.algo, p.level, p.sizes, p.now)
		if s != nil {
			s.digest(h)
		}
		p.seed = h.Sum(nil)
	}
	p.fsid = p.opt.UUID
	if p.fsid.IsZero() {
		p.fsid = p.uuid("fsid")
	}
	p.chunkTree = p.uuid("chunk tree")
	for i := range p.sizes {
		p.devUUIDs = append(p.devUUIDs, p.uuid(fmt.Sprintf("device %d", i+1)))
	}
}

// uuid makes the UUID of something: random, or the same every time.
func (p *plan) uuid(what string) (u ondisk.UUID) {
	if p.seed == nil {
		rand.Read(u[:]) // never fails
	} else {
		sum := sha256.Sum256(append([]byte(what), p.seed...))
		copy(u[:], sum[:])
	}
	u[6], u[8] = u[6]&0x0f|0x40, u[8]&0x3f|0x80
	return u
}
