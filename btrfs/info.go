package btrfs

import (
	"context"
	"fmt"
	"io/fs"
	"sort"
	"strings"

	"github.com/gobtrfs/gobtrfs/internal/check"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/transaction"
)

// Info tells what a volume is.
type Info struct {
	Label      string         `json:"label"`
	UUID       string         `json:"uuid"`
	BytesUsed  uint64         `json:"bytes_used"`
	TotalBytes uint64         `json:"total_bytes"`
	Generation uint64         `json:"generation"`
	Nodesize   uint32         `json:"nodesize"`
	Sectorsize uint32         `json:"sectorsize"`
	Checksum   string         `json:"checksum"`
	Features   []string       `json:"features"`
	Devices    []DeviceReport `json:"devices"`
}

// DeviceReport tells about one device of a volume.
type DeviceReport struct {
	ID      uint64 `json:"devid"`
	UUID    string `json:"uuid"`
	Size    uint64 `json:"size"`
	Used    uint64 `json:"used"` // bytes of device extents
	Missing bool   `json:"missing,omitempty"`
}

// Info tells what the volume is.
func (v *Volume) Info() Info {
	var i Info
	v.view(func(treeFunc) error { i = v.info(); return nil })
	return i
}

func (v *Volume) info() Info {
	sb := v.vol.Super()
	i := Info{
		Label: sb.Label, UUID: sb.FSID.String(), BytesUsed: sb.BytesUsed, TotalBytes: sb.TotalBytes, Generation: uint64(sb.Generation),
		Nodesize: sb.Nodesize, Sectorsize: sb.Sectorsize, Checksum: v.vol.CsumType().String(),
		Features: append(ondisk.IncompatNames(sb.Incompat), ondisk.CompatRONames(sb.CompatRO)...),
	}
	have := v.vol.Devices()
	for _, d := range v.vol.DevItems() {
		_, ok := have[d.DevID]
		i.Devices = append(i.Devices, DeviceReport{ID: uint64(d.DevID), UUID: d.UUID.String(), Size: d.TotalBytes, Used: d.BytesUsed, Missing: !ok})
	}
	return i
}

// SetLabel sets the volume's label: at most 255 bytes, no newline.
func (v *Volume) SetLabel(ctx context.Context, label string) error {
	if len(label) > 255 || strings.ContainsAny(label, "\n\x00") {
		return fmt.Errorf("label: at most 255 bytes, no newline: %w", fs.ErrInvalid)
	}
	return v.change(ctx, needName, func(tx *transaction.Tx) error {
		tx.SetLabel(label)
		return nil
	})
}

// GroupUsage tells how full the block groups of one type and profile are.
type GroupUsage struct {
	Type       string `json:"type"`
	Profile    string `json:"profile"`
	Total      uint64 `json:"total"`
	Used       uint64 `json:"used"`
	OnDisk     uint64 `json:"total_on_disk"` // all copies
	UsedOnDisk uint64 `json:"used_on_disk"`
}

// Usage tells how full the volume is, by type and profile of block groups.
func (v *Volume) Usage(ctx context.Context) ([]GroupUsage, error) {
	sums := map[uint64]*GroupUsage{}
	err := v.view(func(tree treeFunc) error {
		return v.eachGroup(ctx, tree, func(flags, length, used uint64, copies float64) {
			g := sums[flags]
			if g == nil {
				g = &GroupUsage{Type: groupType(flags), Profile: groupProfile(flags)}
				sums[flags] = g
			}
			g.Total += length
			g.Used += used
			g.OnDisk += uint64(float64(length) * copies)
			g.UsedOnDisk += uint64(float64(used) * copies)
		})
	})
	var out []GroupUsage
	for _, g := range sums {
		out = append(out, *g)
	}
	sort.Slice(out, func(i, j int) bool {
		if out[i].Type != out[j].Type {
			return out[i].Type < out[j].Type
		}
		return out[i].Profile < out[j].Profile
	})
	return out, err
}

// eachGroup gives every block group to fn.
func (v *Volume) eachGroup(ctx context.Context, tree treeFunc, fn func(flags, length, used uint64, copies float64)) error {
	id := ondisk.ExtentTree
	if v.vol.Super().CompatRO&ondisk.CompatROBlockGroupTree != 0 {
		id = ondisk.BlockGroupTree
	}
	t, err := tree(ctx, id)
	if err != nil {
		return err
	}
	for _, c := range v.vol.Chunks().All() {
		b, err := t.Get(ctx, ondisk.Key{Objectid: uint64(c.Logical), Type: ondisk.TypeBlockGroupItem, Offset: c.Length})
		if err != nil {
			return fmt.Errorf("block group %d: %w", c.Logical, err)
		}
		item, err := ondisk.DecodeBlockGroupItem(b)
		if err != nil {
			return err
		}
		fn(item.Flags, c.Length, item.Used, float64(c.DevExtentLen())*float64(len(c.Stripes))/float64(c.Length))
	}
	return nil
}

func groupType(flags uint64) string {
	var parts []string
	for _, p := range []struct {
		bit  uint64
		name string
	}{{ondisk.BlockGroupData, "Data"}, {ondisk.BlockGroupSystem, "System"}, {ondisk.BlockGroupMetadata, "Metadata"}} {
		if flags&p.bit != 0 {
			parts = append(parts, p.name)
		}
	}
	return strings.Join(parts, "+")
}

func groupProfile(flags uint64) string {
	for _, p := range []struct {
		bit  uint64
		name string
	}{
		{ondisk.BlockGroupRAID0, "RAID0"}, {ondisk.BlockGroupRAID1, "RAID1"}, {ondisk.BlockGroupDUP, "DUP"}, {ondisk.BlockGroupRAID10, "RAID10"},
		{ondisk.BlockGroupRAID5, "RAID5"}, {ondisk.BlockGroupRAID6, "RAID6"}, {ondisk.BlockGroupRAID1C3, "RAID1C3"}, {ondisk.BlockGroupRAID1C4, "RAID1C4"},
	} {
		if flags&p.bit != 0 {
			return p.name
		}
	}
	return "single"
}

// Rescued tells how many sectors of data and how many tree blocks were read from
// another copy so far, because of a bad one: the volume has damage that is not
// lost data yet.
func (v *Volume) Rescued() (sectors, blocks int64) { return v.vol.Rescued() }

// Unproven tells how many sectors of data were given so far although no checksum proves them right; see
// Options.IgnoreDataChecksums.
func (v *Volume) Unproven() int64 { return v.vol.Unproven() }

// CheckOptions tell what Check looks at.
type CheckOptions struct {
	Data     bool                            // read all file data, every copy
	Progress func(stage string, done uint64) // called now and then
}

// CheckReport is what a check found.
type CheckReport = check.Report

// Check proves the volume sound, or tells what is not. It shares nothing with
// the code that writes and counts every reference for itself. The volume should
// be open read-only.
func (v *Volume) Check(ctx context.Context, opt CheckOptions) (*CheckReport, error) {
	if err := v.Commit(ctx); err != nil {
		return nil, err
	}
	return check.Check(ctx, v.vol, check.Options{Data: opt.Data, Progress: opt.Progress})
}
