package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

// progress tells how a long job goes: a line that is rewritten on a terminal, a
// line every few seconds elsewhere, nothing when quiet; or events as JSON.
type progress struct {
	w     io.Writer
	out   *output // gets events; nil: text
	quiet bool
	tty   bool
	start time.Time
	last  time.Time
	wrote bool

	stage     string  // the last that was heard of,
	first     float64 // the part of it that was done then,
	firstTime time.Time
}

func newProgress(quiet bool) *progress {
	fi, err := os.Stderr.Stat()
	tty := err == nil && fi.Mode()&os.ModeCharDevice != 0
	return &progress{w: os.Stderr, quiet: quiet, tty: tty, start: time.Now(), last: time.Now()}
}

// newProgressOf is newProgress for a command that can print events.
func newProgressOf(out *output, quiet bool) *progress {
	p := newProgress(quiet || out.json && !out.lines)
	if out.lines {
		p.out, p.last = out, time.Time{}
	}
	return p
}

// due tells whether it is time to tell something.
func (p *progress) due() bool {
	every := 5 * time.Second
	switch {
	case p.out != nil:
		every = time.Second / 2
	case p.tty:
		every = 100 * time.Millisecond
	}
	if p.quiet || time.Since(p.last) < every {
		return false
	}
	p.last = time.Now()
	return true
}

// state is how far a job got.
type state struct {
	verb  string
	stage string  // what it is at; may be empty
	part  float64 // of the whole, or of the stage: 0 to 1; negative: not known
	bytes uint64  // worked through so far
	text  string  // what is done, for people
	done  any     // the same in JSON
}

// bytesState is how far a job got that works through a known number of bytes.
func bytesState(verb string, done, total uint64) state {
	part := 1.0
	if total > 0 {
		part = min(1, float64(done)/float64(total))
	}
	return state{verb: verb, part: part, bytes: done, text: iec(done) + " of " + iec(total)}
}

// progressEvent is a line of --json=lines.
type progressEvent struct {
	Event   string   `json:"event"`
	Stage   string   `json:"stage,omitempty"`
	Seconds float64  `json:"seconds"`                // since the job began
	Part    *float64 `json:"part,omitempty"`         // done, from 0 to 1, about
	Left    *float64 `json:"seconds_left,omitempty"` // about
	Rate    float64  `json:"bytes_per_second"`
	Done    any      `json:"done"`
}

// tell prints how far a job got, if it is time for it. Where that fails the result will fail too.
func (p *progress) tell(s state) {
	left, known := p.left(s.stage, s.part)
	if !p.due() {
		return
	}
	took := time.Since(p.start).Seconds()
	rate := 0.0
	if took > 0 {
		rate = float64(s.bytes) / took
	}
	if p.out != nil {
		e := progressEvent{Event: "progress", Stage: s.stage, Seconds: took, Rate: rate, Done: s.done}
		if s.part >= 0 {
			e.Part = &s.part
		}
		if seconds := left.Seconds(); known {
			e.Left = &seconds
		}
		p.out.line(e)
		return
	}
	var b strings.Builder
	b.WriteString(s.verb + ":")
	if s.part >= 0 {
		fmt.Fprintf(&b, " %s %3.0f%%,", bar(s.part), 100*s.part)
	}
	fmt.Fprintf(&b, " %s, %s/s, %s", s.text, iec(uint64(rate)), p.elapsed())
	if known {
		fmt.Fprintf(&b, ", %s left", short(left.Round(time.Second)))
	}
	if p.tty {
		fmt.Fprintf(p.w, "\r\x1b[K%s", b.String())
	} else {
		fmt.Fprintln(p.w, b.String())
	}
	p.wrote = true
}

// bar draws a part of the whole.
func bar(part float64) string {
	const width = 20
	n := int(part*width + 0.5)
	return "[" + strings.Repeat("=", n) + strings.Repeat(" ", width-n) + "]"
}

// left guesses how much longer a stage of a job takes, by how far it came since it
// was first heard of.
func (p *progress) left(stage string, part float64) (d time.Duration, known bool) {
	if p.firstTime.IsZero() || stage != p.stage || part < p.first {
		p.stage, p.first, p.firstTime = stage, part, time.Now()
	}
	if part <= p.first || p.first < 0 {
		return 0, false
	}
	return time.Duration(float64(time.Since(p.firstTime)) * (1 - part) / (part - p.first)), true
}

// done ends the line.
func (p *progress) done() {
	if p.tty && p.wrote {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
}

// elapsed is the time since the job began, for people.
func (p *progress) elapsed() string { return short(time.Since(p.start)) }
