package volume

import (
	"context"
	"errors"
	"fmt"

	"github.com/gobtrfs/gobtrfs/internal/device"
	"github.com/gobtrfs/gobtrfs/internal/forensic"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
)

// ForensicReport tells what a search for the volume's blocks found; nil when there was none.
func (v *Volume) ForensicReport() *forensic.Report {
	if v.search == nil {
		return nil
	}
	return v.search.Report
}

// findForensic searches the devices for the volume's trees. Superblocks help where there are any.
func (v *Volume) findForensic(ctx context.Context, devs []device.Device) ([]found, error) {
	if !v.opt.ReadOnly {
		return nil, refuseWriting("a volume whose trees are searched for can only be read")
	}
	if len(devs) == 0 {
		return nil, refuse("no device given")
	}
	given := make([]forensic.Device, len(devs))
	var list []found
	var errs []error
	for i, d := range devs {
		given[i].Dev = d
		sb, err := anySuper(d, v.opt.SuperCopy)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		given[i].Super = sb
		list = append(list, found{d, sb})
	}
	var main *ondisk.Superblock
	if len(list) > 0 {
		if err := v.goBy(newest(list)); err != nil {
			return nil, err
		}
		main = v.sb
	}
	res, err := forensic.Open(ctx, given, main, *v.opt.Forensic)
	if err != nil {
		return nil, fmt.Errorf("%w", errors.Join(append([]error{err}, errs...)...))
	}
	v.search, v.sb = res, res.Super
	list = list[:0]
	for _, d := range res.Devices {
		list = append(list, found{d.Dev, d.Super})
	}
	return list, nil
}

// anySuper is bestSuper, but content with a superblock whose system chunks make no sense: they are not needed.
func anySuper(d device.Device, want int) (*ondisk.Superblock, error) {
	sb, err := bestSuper(d, want)
	if err == nil {
		return sb, nil
	}
	for i := range ondisk.SuperCopies {
		if want >= 0 && i != want {
			continue
		}
		if sb, err := readSuperAs(d, i, decodeHead); err == nil {
			return sb, nil
		}
	}
	return nil, err
}

// decodeHead decodes a superblock without its system chunks.
func decodeHead(b []byte) (*ondisk.Superblock, error) {
	head := append([]byte{}, b...)
	clear(head[160:164]) // the size of their array
	return ondisk.DecodeSuper(head)
}
