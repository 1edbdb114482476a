package check

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/gobtrfs/gobtrfs/internal/ondisk"
)

// Severity says how bad a finding is.
type Severity uint8

// Severities: a volume with warnings only is sound.
const (
	Warning Severity = iota
	Error
)

// String is "warning" or "error".
func (s Severity) String() string {
	if s == Error {
		return "error"
	}
	return "warning"
}

// Place is where something was found; members that do not apply are zero, Slot -1.
type Place struct {
	Tree   ondisk.TreeID
	Bytenr ondisk.Bytenr // tree block, or extent
	Slot   int
	Key    ondisk.Key
	Ino    uint64 // inode of subvolume Tree
	Path   string // of Ino within its subvolume, where it is known
}

// String writes the members that apply.
func (p Place) String() string {
	var s []string
	if p.Tree != 0 {
		s = append(s, p.Tree.String())
	}
	if p.Ino != 0 {
		s = append(s, fmt.Sprintf("inode %d", p.Ino))
	}
	if p.Path != "" {
		s = append(s, fmt.Sprintf("%q", p.Path))
	}
	if p.Bytenr != 0 {
		s = append(s, fmt.Sprintf("at %d", p.Bytenr))
	}
	if p.Slot >= 0 {
		s = append(s, fmt.Sprintf("slot %d", p.Slot))
	}
	if !p.Key.IsZero() {
		s = append(s, p.Key.String())
	}
	return strings.Join(s, " ")
}

// Finding is one thing that does not fit.
type Finding struct {
	Severity Severity
	Place    Place
	What     string // what was seen
	Meaning  string // what it means to the volume's owner; may be empty

	stage int // of the check, for the order
}

// String writes the finding on one line.
func (f Finding) String() string {
	s := f.Severity.String() + ": "
	if p := f.Place.String(); p != "" {
		s += p + ": "
	}
	s += f.What
	if f.Meaning != "" {
		s += " (" + f.Meaning + ")"
	}
	return s
}

// Report is what a check found.
type Report struct {
	Findings []Finding // in the order of the check, within a stage by place: the same at every run
	Errors   int       // all errors, also those that are not in Findings
	Warnings int
}

// OK tells whether the volume is sound: no errors.
func (r *Report) OK() bool { return r.Errors == 0 }

// reporter collects findings from many goroutines. Equal ones count once.
type reporter struct {
	mu    sync.Mutex
	max   int
	rep   Report
	seen  map[string]bool
	stage int
}

func newReporter(limit int) *reporter { return &reporter{max: limit, seen: map[string]bool{}} }

func (r *reporter) bad(p Place, meaning, format string, args ...any) {
	r.add(Finding{Severity: Error, Place: p, What: fmt.Sprintf(format, args...), Meaning: meaning})
}

func (r *reporter) warn(p Place, meaning, format string, args ...any) {
	r.add(Finding{Severity: Warning, Place: p, What: fmt.Sprintf(format, args...), Meaning: meaning})
}

func (r *reporter) add(f Finding) {
	r.mu.Lock()
	defer r.mu.Unlock()
	keep := len(r.rep.Findings) < r.max
	if keep {
		s := f.String()
		if r.seen[s] {
			return
		}
		r.seen[s] = true
		f.stage = r.stage
		r.rep.Findings = append(r.rep.Findings, f)
	}
	if f.Severity == Error {
		r.rep.Errors++
	} else {
		r.rep.Warnings++
	}
}

// errors gives the number of errors up to now.
func (r *reporter) errors() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.rep.Errors
}

// next begins a stage.
func (r *reporter) next() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stage++
}

// report gives what was found, in order.
func (r *reporter) report() *Report {
	r.mu.Lock()
	defer r.mu.Unlock()
	rep := r.rep
	rep.Findings = slices.Clone(rep.Findings)
	slices.SortStableFunc(rep.Findings, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.stage, b.stage), cmp.Compare(a.Place.Tree, b.Place.Tree), cmp.Compare(a.Place.Bytenr, b.Place.Bytenr),
			cmp.Compare(a.Place.Ino, b.Place.Ino), cmp.Compare(a.Place.Slot, b.Place.Slot), cmp.Compare(a.What, b.What))
	})
	return &rep
}
