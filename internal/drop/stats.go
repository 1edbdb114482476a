package drop

// Stats counts work. Tests assert these: results alone do not show that the key order, the batches and the merging do their job.
type Stats struct {
	Steps     uint64 `json:"steps"`
	Sweeps    uint64 `json:"sweeps"`    // sorted batches of look-ups
	Lookups   uint64 `json:"lookups"`   // addresses in them
	Rechecks  uint64 `json:"rechecks"`  // addresses looked up once more before a step was made
	Again     uint64 `json:"again"`     // steps worked out for nothing, because a count had changed
	Reads     uint64 `json:"reads"`     // blocks read
	Surveys   uint64 `json:"surveys"`   // readings of the whole account, to find what dying nodes hold without reading them
	Swept     uint64 `json:"swept"`     // references of unread blocks, taken out in sweeps
	Bare      uint64 `json:"bare"`      // leaves that died unread because their place is none for file extents
	Freed     uint64 `json:"freed"`     // tree blocks that lost their last reference
	Converted uint64 `json:"converted"` // blocks that got FULL_BACKREF
	Changes   uint64 `json:"changes"`   // changes of references, before merging
	Merged    uint64 `json:"merged"`    // and after
}

// Plus adds two counts.
func (s Stats) Plus(o Stats) Stats {
	return Stats{s.Steps + o.Steps, s.Sweeps + o.Sweeps, s.Lookups + o.Lookups, s.Rechecks + o.Rechecks, s.Again + o.Again, s.Reads + o.Reads, s.Surveys + o.Surveys, s.Swept + o.Swept, s.Bare + o.Bare, s.Freed + o.Freed, s.Converted + o.Converted,
		s.Changes + o.Changes, s.Merged + o.Merged}
}
