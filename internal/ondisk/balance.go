package ondisk

// Flags of a BalanceItem: what is balanced.
const (
	BalanceData     uint64 = 1
	BalanceSystem   uint64 = 2
	BalanceMetadata uint64 = 4
	BalanceForce    uint64 = 8
)

// Flags of BalanceArgs: which members count.
const (
	BalanceArgProfiles     uint64 = 1 << 0
	BalanceArgUsage        uint64 = 1 << 1
	BalanceArgDevID        uint64 = 1 << 2
	BalanceArgDevRange     uint64 = 1 << 3
	BalanceArgVirtualRange uint64 = 1 << 4
	BalanceArgLimit        uint64 = 1 << 5
	BalanceArgLimitRange   uint64 = 1 << 6
	BalanceArgStripesRange uint64 = 1 << 7
	BalanceArgConvert      uint64 = 1 << 8
	BalanceArgSoft         uint64 = 1 << 9
	BalanceArgUsageRange   uint64 = 1 << 10
)

// Sizes of a BalanceItem and of its arguments for one kind of block group.
const (
	BalanceItemSize = 448
	balanceArgsSize = 136
)

// BalanceItem is a balance that runs or is paused.
//
//	{flags 8, data args 136, metadata args 136, system args 136, 32 zero bytes}
type BalanceItem struct {
	Flags                  uint64
	Data, Metadata, System BalanceArgs
}

// BalanceArgs select block groups.
//
//	off size field
//	  0    8 profiles    8 8 usage (or min, max 4 each)   16 8 devid
//	 24    8 pstart     32 8 pend    40 8 vstart          48 8 vend
//	 56    8 target     64 8 flags   72 8 limit (or min, max 4 each)
//	 80    4 stripes min             84 4 stripes max     88 48 zero bytes
type BalanceArgs struct {
	Profiles, Usage, DevID     uint64
	PStart, PEnd, VStart, VEnd uint64
	Target, Flags, Limit       uint64
	StripesMin, StripesMax     uint32
}

// DecodeBalanceItem reads a BalanceItem.
func DecodeBalanceItem(b []byte) (BalanceItem, error) {
	if err := need("balance item", b, BalanceItemSize); err != nil {
		return BalanceItem{}, err
	}
	return BalanceItem{
		Flags: le.Uint64(b), Data: balanceArgsAt(b[8:]), Metadata: balanceArgsAt(b[8+balanceArgsSize:]), System: balanceArgsAt(b[8+2*balanceArgsSize:]),
	}, nil
}

func balanceArgsAt(b []byte) BalanceArgs {
	var v [10]uint64
	for i := range v {
		v[i] = le.Uint64(b[8*i:])
	}
	return BalanceArgs{
		Profiles: v[0], Usage: v[1], DevID: v[2], PStart: v[3], PEnd: v[4], VStart: v[5], VEnd: v[6], Target: v[7], Flags: v[8], Limit: v[9],
		StripesMin: le.Uint32(b[80:]), StripesMax: le.Uint32(b[84:]),
	}
}

// Append writes the item to the end of b.
func (i BalanceItem) Append(b []byte) []byte {
	b = le.AppendUint64(b, i.Flags)
	for _, a := range [...]BalanceArgs{i.Data, i.Metadata, i.System} {
		for _, v := range [...]uint64{a.Profiles, a.Usage, a.DevID, a.PStart, a.PEnd, a.VStart, a.VEnd, a.Target, a.Flags, a.Limit} {
			b = le.AppendUint64(b, v)
		}
		b = le.AppendUint32(le.AppendUint32(b, a.StripesMin), a.StripesMax)
		b = append(b, make([]byte, 48)...)
	}
	return append(b, make([]byte, 32)...)
}
