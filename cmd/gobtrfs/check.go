package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/gobtrfs/gobtrfs/btrfs"
)

func checkCommand() *cobra.Command {
	var out output
	var data, showProgress bool
	var state stateFlags
	cmd := &cobra.Command{
		Use: "check TARGET", Short: "Prove a volume sound, or list what is not; read-only", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			out.start(cmd)
			return withVolume(cmd.Context(), "check", args[0], state.onDisk(), func(v *btrfs.Volume) error {
				p := newProgressOf(&out, !showProgress && !out.lines)
				sizes := sizesOf(cmd.Context(), v)
				rep, err := v.Check(cmd.Context(), btrfs.CheckOptions{Data: data, Progress: func(stage string, done uint64) {
					p.tell(sizes.state(stage, done))
				}})
				p.done()
				if err != nil {
					return err
				}
				if err := printReport(&out, rep, p.elapsed()); err != nil {
					return err
				}
				if !rep.OK() {
					return silentError(exitFailed)
				}
				return nil
			})
		},
	}
	fl := cmd.Flags()
	fl.BoolVar(&data, "data", false, "read all file data and compare checksums, every copy")
	fl.BoolVarP(&showProgress, "progress", "p", false, "show progress")
	state.flags(cmd, "s")
	out.eventFlags(cmd)
	return cmd
}

// checkSizes are what a check of a volume works through.
type checkSizes struct{ nodesize, blocks, data uint64 }

func sizesOf(ctx context.Context, v *btrfs.Volume) checkSizes {
	s := checkSizes{nodesize: uint64(v.Info().Nodesize)}
	groups, err := v.Usage(ctx)
	if err != nil {
		return s // the check tells what is wrong; how much there is to do is not known
	}
	for _, g := range groups {
		if strings.EqualFold(g.Type, "data") {
			s.data += g.Used
		} else {
			s.blocks += g.Used / s.nodesize
		}
	}
	return s
}

// state tells how far a stage of a check got.
func (z checkSizes) state(stage string, done uint64) state {
	s := state{verb: "check", stage: stage, part: -1, text: stage, done: struct{}{}}
	part := func(of uint64) {
		if of > 0 {
			s.part = min(1, float64(done)/float64(of))
		}
	}
	switch stage {
	case "trees":
		part(z.blocks)
		s.bytes, s.text = done*z.nodesize, fmt.Sprintf("%d tree blocks", done)
		s.done = map[string]uint64{"tree_blocks": done}
	case "data":
		part(z.data)
		s.bytes, s.text = done, iec(done)+" of data"
		s.done = map[string]uint64{"data_bytes": done}
	}
	return s
}

func printReport(out *output, r *btrfs.CheckReport, took string) error {
	if out.json {
		return out.document(checkDoc(r))
	}
	for _, f := range r.Findings {
		fmt.Fprintln(out.w, f)
	}
	if r.OK() {
		fmt.Fprintf(out.w, "No errors found (%s)\n", took)
		return nil
	}
	fmt.Fprintf(out.w, "%d errors found (%s)\n", r.Errors, took)
	return nil
}

// findingJSON is a finding in JSON output; members that do not apply are left out.
type findingJSON struct {
	Severity string `json:"severity"`
	What     string `json:"what"`
	Meaning  string `json:"meaning,omitempty"`
	Tree     uint64 `json:"tree,omitempty"`
	Bytenr   uint64 `json:"bytenr,omitempty"`
	Slot     *int   `json:"slot,omitempty"`
	Key      string `json:"key,omitempty"`
	Inode    uint64 `json:"inode,omitempty"`
	Path     string `json:"path,omitempty"`
	PathB64  string `json:"path_b64,omitempty"`
	Text     string `json:"text"` // all of it on one line
}

// checkJSON is the document of check.
type checkJSON struct {
	Errors   int           `json:"errors"`
	Warnings int           `json:"warnings"`
	Findings []findingJSON `json:"findings"` // the first ones
}

func checkDoc(r *btrfs.CheckReport) checkJSON {
	d := checkJSON{Errors: r.Errors, Warnings: r.Warnings, Findings: []findingJSON{}}
	for _, f := range r.Findings {
		p := f.Place
		j := findingJSON{
			Severity: f.Severity.String(), What: f.What, Meaning: f.Meaning, Text: f.String(),
			Tree: uint64(p.Tree), Bytenr: uint64(p.Bytenr), Inode: p.Ino, Path: p.Path, PathB64: b64(p.Path),
		}
		if p.Slot >= 0 {
			j.Slot = &p.Slot
		}
		if !p.Key.IsZero() {
			j.Key = p.Key.String()
		}
		d.Findings = append(d.Findings, j)
	}
	return d
}
