package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/cobra"
)

// output prints results: for people, or one JSON document.
type output struct {
	w    io.Writer
	json bool
	raw  bool // sizes in bytes

	lines bool      // with json: one object a line, events and at the end the result
	began time.Time // of the command
}

// flags adds --json and --raw to a command.
func (o *output) flags(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&o.json, "json", false, "print one JSON document")
	cmd.Flags().BoolVar(&o.raw, "raw", false, "print sizes in bytes")
}

// eventFlags is flags for a long job, which can also print what happens as it does.
func (o *output) eventFlags(cmd *cobra.Command) {
	f := cmd.Flags().VarPF((*jsonFlag)(o), "json", "", "print one JSON document; --json=lines prints progress events and the result, one object a line")
	f.NoOptDefVal = "true"
	cmd.Flags().BoolVar(&o.raw, "raw", false, "print sizes in bytes")
}

// jsonFlag is --json, or --json=lines.
type jsonFlag output

func (f *jsonFlag) Type() string { return "" }

func (f *jsonFlag) String() string {
	if f.lines {
		return "lines"
	}
	return strconv.FormatBool(f.json)
}

func (f *jsonFlag) Set(s string) error {
	f.lines = s == "lines"
	if f.lines {
		f.json = true
		return nil
	}
	var err error
	if f.json, err = strconv.ParseBool(s); err != nil {
		return usagef("--json=%s: say --json or --json=lines", s)
	}
	return nil
}

func (o *output) start(cmd *cobra.Command) { o.w, o.began = cmd.OutOrStdout(), time.Now() }

// document prints v as JSON: the result.
func (o *output) document(v any) error {
	if o.lines {
		return o.line(resultEvent{Event: "result", Seconds: time.Since(o.began).Seconds(), Result: v})
	}
	enc := json.NewEncoder(o.w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// jsonArray prints an array as document does, one element at a time.
type jsonArray struct {
	w io.Writer
	n int
}

func (a *jsonArray) add(v any) error {
	var b bytes.Buffer
	b.WriteString(",\n  ")
	if a.n++; a.n == 1 {
		b.Bytes()[0] = '['
	}
	enc := json.NewEncoder(&b)
	enc.SetIndent("  ", "  ")
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return err
	}
	_, err := a.w.Write(bytes.TrimSuffix(b.Bytes(), []byte("\n")))
	return err
}

func (a *jsonArray) end() error {
	text := "\n]\n"
	if a.n == 0 {
		text = "[]\n"
	}
	_, err := io.WriteString(a.w, text)
	return err
}

// line prints an event.
func (o *output) line(event any) error {
	enc := json.NewEncoder(o.w)
	enc.SetEscapeHTML(false)
	return enc.Encode(event)
}

// resultEvent is the last line of --json=lines.
type resultEvent struct {
	Event   string  `json:"event"`
	Seconds float64 `json:"seconds"` // since the command began
	Result  any     `json:"result"`  // the document that --json prints
}

func (o *output) size(n uint64) string {
	if o.raw {
		return strconv.FormatUint(n, 10)
	}
	return iec(n)
}

// iec writes a size as 12.34MiB, the way the btrfs command does.
func iec(n uint64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}
	f, u := float64(n), 0
	for f >= 1024 && u < len(units)-1 {
		f /= 1024
		u++
	}
	if u == 0 {
		return fmt.Sprintf("%dB", n)
	}
	return fmt.Sprintf("%.2f%s", f, units[u])
}

// parseSize reads a size: bytes, or with a unit K M G T P E (powers of 1024;
// "KiB", "kB" and the like are taken too).
func parseSize(s string) (uint64, error) {
	t := strings.TrimSpace(s)
	t = strings.TrimSuffix(strings.TrimSuffix(t, "B"), "i")
	shift := 0
	if t != "" {
		if i := strings.IndexByte("KMGTPE", upper(t[len(t)-1])); i >= 0 {
			shift = 10 * (i + 1)
			t = t[:len(t)-1]
		}
	}
	n, err := strconv.ParseUint(t, 10, 64)
	if err != nil || n > math.MaxInt64>>shift {
		return 0, usagef("%q is not a size (example: 4G)", s)
	}
	return n << shift, nil
}

func upper(c byte) byte {
	if 'a' <= c && c <= 'z' {
		return c - 'a' + 'A'
	}
	return c
}

// sizeFlag is a flag that holds a size; 0 when it is not given.
type sizeFlag uint64

func (f *sizeFlag) String() string { return strconv.FormatUint(uint64(*f), 10) }
func (f *sizeFlag) Type() string   { return "SIZE" }
func (f *sizeFlag) Set(s string) error {
	n, err := parseSize(s)
	*f = sizeFlag(n)
	return err
}

// nthFlag is a flag that holds a number from 1 to most; 0 when it is not given.
type nthFlag struct{ n, most int }

func (f *nthFlag) String() string {
	if f.n == 0 {
		return ""
	}
	return strconv.Itoa(f.n)
}

func (f *nthFlag) Type() string { return "N" }

func (f *nthFlag) Set(s string) error {
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 || n > f.most {
		return usagef("%q is not a number from 1 to %d", s, f.most)
	}
	f.n = n
	return nil
}

// textName gives a name for people: bytes that are no UTF-8 are escaped.
func textName(name string) string {
	if utf8.ValidString(name) && !strings.ContainsFunc(name, unicode.IsControl) {
		return name
	}
	return strconv.Quote(name)
}

// plainText makes a message safe for a terminal: names in it may come from a volume, and hold anything.
func plainText(s string) string {
	var b strings.Builder
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		if r != '\n' && (unicode.IsControl(r) || r == utf8.RuneError && n == 1) {
			for _, c := range []byte(s[:n]) {
				fmt.Fprintf(&b, `\x%02x`, c)
			}
		} else {
			b.WriteString(s[:n])
		}
		s = s[n:]
	}
	return b.String()
}

// b64 gives the base64 form of a name that is no UTF-8, or "".
func b64(name string) string {
	if utf8.ValidString(name) {
		return ""
	}
	return base64.StdEncoding.EncodeToString([]byte(name))
}

func short(d time.Duration) string {
	switch {
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	case d < time.Minute:
		return fmt.Sprintf("%.1f s", d.Seconds())
	}
	return d.Round(time.Second).String()
}
