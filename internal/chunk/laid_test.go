package chunk

import (
	"errors"
	"strings"
	"testing"

	"github.com/gobtrfs/gobtrfs/internal/ondisk"
)

// single is a chunk of 8 MiB with a stripe at each of the places.
func single(logical ondisk.Bytenr, places ...ondisk.Stripe) *Chunk {
	c := &Chunk{Logical: logical, ChunkItem: ondisk.ChunkItem{Length: 8 * mib, StripeLen: ondisk.StripeLen, Type: ondisk.BlockGroupData, Stripes: places}}
	if len(places) == 2 {
		c.Type |= ondisk.BlockGroupDUP
	}
	return c
}

func TestLaid(t *testing.T) {
	at := func(dev ondisk.DevID, off uint64) ondisk.Stripe { return ondisk.Stripe{DevID: dev, Offset: off} }
	sizes := map[ondisk.DevID]uint64{1: 32 * mib, 2: 16 * mib}
	for name, c := range map[string]struct {
		chunks []*Chunk
		want   string
	}{
		"side by side":        {[]*Chunk{single(1*mib, at(1, 8*mib)), single(64*mib, at(1, 0)), single(128*mib, at(1, 16*mib), at(1, 24*mib))}, ""},
		"on two devices":      {[]*Chunk{single(1*mib, at(1, 8*mib)), single(64*mib, at(2, 8*mib))}, ""},
		"one byte too far":    {[]*Chunk{single(1*mib, at(2, 8*mib+1))}, "beyond the end"},
		"one byte over":       {[]*Chunk{single(1*mib, at(1, 8*mib)), single(64*mib, at(1, 1))}, "over another"},
		"the same place":      {[]*Chunk{single(1*mib, at(1, 8*mib)), single(64*mib, at(1, 8*mib))}, "over another"},
		"copies over another": {[]*Chunk{single(1*mib, at(1, 8*mib), at(1, 12*mib))}, "over another"},
		"no device":           {[]*Chunk{single(1*mib, at(3, 1<<60))}, ""},
		"over on no device":   {[]*Chunk{single(1*mib, at(3, 1<<60)), single(64*mib, at(3, 1<<60+1))}, "over another"},
	} {
		err := Laid(c.chunks, sizes)
		var corrupt *ondisk.CorruptError
		if (err != nil) != (c.want != "") || err != nil && (!errors.As(err, &corrupt) || corrupt.Bytenr == 0 || !strings.Contains(corrupt.Reason, c.want)) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestPlanOverChunk: device extents that do not tell of a chunk lead to no plan over it.
func TestPlanOverChunk(t *testing.T) {
	m := NewMap()
	if err := m.Insert(*single(mib, ondisk.Stripe{DevID: 1, Offset: 8 * mib})); err != nil {
		t.Fatal(err)
	}
	used := [][2]uint64{{8 * mib, 16 * mib}}
	for _, told := range []bool{true, false} {
		devs := []DevSpec{{ID: 1, Total: 64 * mib}}
		if told {
			devs[0].Used = used
		}
		_, err := Plan(m, devs, ondisk.BlockGroupData, 4096)
		var corrupt *ondisk.CorruptError
		if (err == nil) != told || err != nil && !errors.As(err, &corrupt) {
			t.Errorf("device extent known: %v; plan: %v", told, err)
		}
	}
}
