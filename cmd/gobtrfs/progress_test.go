package main

import (
	"bytes"
	"encoding/json"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/gobtrfs/gobtrfs/internal/testenv"
)

// event is a line of --json=lines.
type event struct {
	Event, Stage string
	Seconds      *float64
	Part         *float64
	Left         *float64 `json:"seconds_left"`
	Rate         *float64 `json:"bytes_per_second"`
	Done, Result map[string]any
}

// events reads lines of JSON: progress, and the result at the end.
func events(t *testing.T, text string) (progress []event, result map[string]any) {
	t.Helper()
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	for i, l := range lines {
		var e event
		dec := json.NewDecoder(strings.NewReader(l))
		dec.DisallowUnknownFields()
		must(t, dec.Decode(&e))
		switch last := i == len(lines)-1; {
		case e.Seconds == nil:
			t.Errorf("no time: %s", l)
		case last && e.Event == "result":
			return progress, e.Result
		case !last && e.Event == "progress" && e.Rate != nil && e.Done != nil && (e.Part == nil || *e.Part >= 0 && *e.Part <= 1):
			progress = append(progress, e)
		default:
			t.Errorf("line %d of %d: %s", i+1, len(lines), l)
		}
	}
	t.Error("no result")
	return progress, nil
}

// TestEvents: --json=lines prints events and then what --json prints.
func TestEvents(t *testing.T) {
	image := testenv.Image(t, "dead-roots-many")
	for _, args := range [][]string{{"check", image}, {"check", "--data", image}, {"subvolume", "delete", "--ghosts", "--dry-run", image}} {
		steps, result := events(t, ok(t, append(args, "--json=lines")...))
		if args[0] == "check" && len(steps) == 0 {
			t.Errorf("%v: no progress", args)
		}
		if want := parse[map[string]any](t, ok(t, append(args, "--json")...)); !reflect.DeepEqual(result, want) {
			t.Errorf("%v: %v, want %v", args, result, want)
		}
	}
	steps, result := events(t, ok(t, "subvolume", "delete", "--ghosts", "--budget", "40", "--json=lines", image))
	members(t, result, "unlinked", "subvolumes", "tree_blocks_freed", "data_bytes_freed")
	if len(steps) == 0 {
		t.Fatal("no progress")
	}
	first := steps[0]
	members(t, first.Done, "subvolumes", "tree_blocks_freed", "metadata_bytes_freed", "data_bytes_freed")
	if first.Part == nil || first.Done["tree_blocks_freed"].(float64) > result["tree_blocks_freed"].(float64) {
		t.Errorf("%+v", first)
	}
	fails(t, 2, []string{"--json=lines"}, "check", "--json=rows", image)
	ok(t, "check", "--json=false", image)
	testenv.Check(t, image)
}

// TestProgressText: a terminal gets one line with a bar, rate and time left, that is wiped at the end.
func TestProgressText(t *testing.T) {
	var w bytes.Buffer
	began := time.Now().Add(-10 * time.Second)
	p := &progress{w: &w, tty: true, start: began}
	p.tell(state{verb: "dropping", part: 0.2, bytes: 1 << 20, text: "this much"})
	p.firstTime, p.last = began, time.Time{}
	p.tell(state{verb: "dropping", part: 0.5, bytes: 100 << 20, text: "that much"})
	for _, want := range []string{
		`\r\x1b\[Kdropping: \[====                \]  20%, this much, [0-9.]+KiB/s, 1[0-9.]+ s\r`,
		`\r\x1b\[Kdropping: \[==========          \]  50%, that much, [0-9.]+MiB/s, 1[0-9.]+ s, [12][0-9.]+ s left$`,
	} {
		if !regexp.MustCompile(want).MatchString(w.String()) {
			t.Errorf("no %q in %q", want, w.String())
		}
	}
	p.tell(state{verb: "dropping", part: 0.6}) // too soon
	p.done()
	if !strings.HasSuffix(w.String(), "left\r\x1b[K") {
		t.Errorf("%q", w.String())
	}
}

// TestTimeLeft: what is left is guessed from what was seen, of each stage anew; where the part is not known, nothing is
// guessed.
func TestTimeLeft(t *testing.T) {
	ago := time.Now().Add(-time.Minute)
	for _, c := range []struct {
		p     progress
		stage string
		part  float64
		known bool
		want  time.Duration
	}{
		{progress{}, "", 0.4, false, 0},
		{progress{firstTime: ago}, "", 0.5, true, time.Minute},
		{progress{firstTime: ago, first: 0.8}, "", 0.9, true, time.Minute},
		{progress{firstTime: ago, stage: "trees"}, "data", 0.5, false, 0},
		{progress{firstTime: ago, first: 0.9}, "", 0.1, false, 0},
		{progress{firstTime: ago, first: -1}, "", -1, false, 0},
		{progress{firstTime: ago}, "", 1, true, 0},
	} {
		got, known := c.p.left(c.stage, c.part)
		if known != c.known || got < c.want || got > c.want+20*time.Second {
			t.Errorf("%+v: %v %v", c, got, known)
		}
	}
}
