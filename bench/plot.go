//go:build linux

package main

import (
	"fmt"
	"slices"
	"strings"
)

// row is one series of a plot: what a freed block costs as something doubles.
type row struct {
	title  string
	names  []string // volumes
	labels []string // under the points
	costs  []float64
}

// plot draws series side by side, with one scale: microseconds a freed block, from zero.
func plot(rows []row) string {
	const width, height, left, top, bottom = 330, 240, 50, 40, 40
	most := 0.0
	for _, r := range rows {
		most = max(most, slices.Max(r.costs))
	}
	var s strings.Builder
	fmt.Fprintf(&s, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="12">`+"\n", len(rows)*width, height)
	fmt.Fprintln(&s, `<rect width="100%" height="100%" fill="white"/>`)
	for i, r := range rows {
		x0 := i*width + left
		y := func(cost float64) float64 { return height - bottom - cost/(most*1.15)*(height-bottom-top) }
		fmt.Fprintf(&s, `<text x="%d" y="20" font-weight="bold">%s</text><text x="%d" y="34" fill="#555">µs per freed block</text>`+"\n", x0, r.title, x0)
		fmt.Fprintf(&s, `<path d="M%d %d V%d H%d" fill="none" stroke="#555"/>`+"\n", x0, top, height-bottom, x0+width-left-20)
		var line []string
		for j, cost := range r.costs {
			x := float64(x0) + 25 + float64(j)*float64(width-left-70)/float64(max(1, len(r.costs)-1))
			line = append(line, fmt.Sprintf("%.1f,%.1f", x, y(cost)))
			fmt.Fprintf(&s, `<circle cx="%.1f" cy="%.1f" r="4" fill="#06c"/><text x="%.1f" y="%.1f" text-anchor="middle">%.1f</text><text x="%.1f" y="%d" text-anchor="middle">%s</text>`+"\n",
				x, y(cost), x, y(cost)-9, cost, x, height-bottom+16, r.labels[j])
		}
		fmt.Fprintf(&s, `<polyline points="%s" fill="none" stroke="#06c" stroke-width="2"/>`+"\n", strings.Join(line, " "))
	}
	s.WriteString("</svg>\n")
	return s.String()
}
