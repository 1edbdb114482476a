package check

import (
	"fmt"
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
	Findings []Finding // the first ones, in the order of the check
	Errors   int       // all errors, also those that are not in Findings
	Warnings int
}

// OK tells whether the volume is sound: no errors.
func (r *Report) OK() bool { return r.Errors == 0 }

// reporter collects findings from many goroutines. Equal ones count once.
type reporter struct {
	mu   sync.Mutex
	max  int
	rep  Report
	seen map[string]bool
}

func newReporter(limit int) *reporter { return &reporter{max: limit, seen: map[string]bool{}} }

func (r *reporter) bad(p Place, meaning, format string, args ...any) {
	r.add(Finding{Error, p, fmt.Sprintf(format, args...), meaning})
}

func (r *reporter) warn(p Place, meaning, format string, args ...any) {
	r.add(Finding{Warning, p, fmt.Sprintf(format, args...), meaning})
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
		r.rep.Findings = append(r.rep.Findings, f)
	}
	if f.Severity == Error {
		r.rep.Errors++
	} else {
		r.rep.Warnings++
	}
}

func (r *reporter) report() *Report {
	r.mu.Lock()
	defer r.mu.Unlock()
	rep := r.rep
	return &rep
}
