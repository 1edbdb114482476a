package ondisk

// DevStats are the error counters of a device: five numbers.
type DevStats struct {
	Write, Read, Flush, Corruption, Generation uint64
}

// DecodeDevStats reads DevStats; counters that an older kernel did not write are
// zero.
func DecodeDevStats(b []byte) (DevStats, error) {
	if len(b)%8 != 0 {
		return DevStats{}, corrupt("device statistics", "wrong size", len(b), 40)
	}
	var v [5]uint64
	for i := range v {
		if len(b) >= 8*i+8 {
			v[i] = le.Uint64(b[8*i:])
		}
	}
	return DevStats{v[0], v[1], v[2], v[3], v[4]}, nil
}

// Append writes the item to the end of b.
func (s DevStats) Append(b []byte) []byte {
	for _, v := range [...]uint64{s.Write, s.Read, s.Flush, s.Corruption, s.Generation} {
		b = le.AppendUint64(b, v)
	}
	return b
}

// Flags of a QgroupStatus.
const (
	QgroupOn           uint64 = 1
	QgroupRescan       uint64 = 2
	QgroupInconsistent uint64 = 4
	QgroupSimple       uint64 = 8
)

// QgroupStatus heads the quota tree: {version 8, generation 8, flags 8, rescan
// 8, enable generation 8 (since 6.7)}.
type QgroupStatus struct {
	Version    uint64
	Generation Generation
	Flags      uint64
	Rescan     uint64
	EnableGen  Generation
	hasEnable  bool
}

// DecodeQgroupStatus reads a QgroupStatus of either size.
func DecodeQgroupStatus(b []byte) (QgroupStatus, error) {
	if len(b) != 32 && len(b) != 40 {
		return QgroupStatus{}, corrupt("qgroup status", "wrong size", len(b), 40)
	}
	s := QgroupStatus{Version: le.Uint64(b), Generation: Generation(le.Uint64(b[8:])), Flags: le.Uint64(b[16:]), Rescan: le.Uint64(b[24:])}
	if len(b) == 40 {
		s.EnableGen, s.hasEnable = Generation(le.Uint64(b[32:])), true
	}
	return s, nil
}

// Append writes the item, in the size it had, to the end of b.
func (s QgroupStatus) Append(b []byte) []byte {
	for _, v := range [...]uint64{s.Version, uint64(s.Generation), s.Flags, s.Rescan} {
		b = le.AppendUint64(b, v)
	}
	if s.hasEnable {
		b = le.AppendUint64(b, uint64(s.EnableGen))
	}
	return b
}

// QgroupInfo tells what a qgroup uses: five numbers.
type QgroupInfo struct {
	Generation                                 Generation
	Rfer, RferCompressed, Excl, ExclCompressed uint64
}

// DecodeQgroupInfo reads a QgroupInfo.
func DecodeQgroupInfo(b []byte) (QgroupInfo, error) {
	if err := need("qgroup info", b, 40); err != nil {
		return QgroupInfo{}, err
	}
	return QgroupInfo{Generation(le.Uint64(b)), le.Uint64(b[8:]), le.Uint64(b[16:]), le.Uint64(b[24:]), le.Uint64(b[32:])}, nil
}

// QgroupLimit tells what a qgroup may use: five numbers.
type QgroupLimit struct {
	Flags, MaxRfer, MaxExcl, RsvRfer, RsvExcl uint64
}

// DecodeQgroupLimit reads a QgroupLimit.
func DecodeQgroupLimit(b []byte) (QgroupLimit, error) {
	if err := need("qgroup limit", b, 40); err != nil {
		return QgroupLimit{}, err
	}
	return QgroupLimit{le.Uint64(b), le.Uint64(b[8:]), le.Uint64(b[16:]), le.Uint64(b[24:]), le.Uint64(b[32:])}, nil
}

// DevReplace is the state of a device replacement: nine numbers.
type DevReplace struct {
	SrcDevID, CursorLeft, CursorRight, Mode, State, Started, Stopped, WriteErrors, ReadErrors uint64
}

// DecodeDevReplace reads a DevReplace.
func DecodeDevReplace(b []byte) (DevReplace, error) {
	if err := need("device replace", b, 72); err != nil {
		return DevReplace{}, err
	}
	var v [9]uint64
	for i := range v {
		v[i] = le.Uint64(b[8*i:])
	}
	return DevReplace{v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7], v[8]}, nil
}
