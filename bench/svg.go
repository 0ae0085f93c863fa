package main

import (
	"encoding/xml"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"time"
)

// The picture of a scenario has a panel for each contender, all with the same
// axes: what the server let through as an area, what was sent as a line on top
// of it, what was refused as a red line, and what the limits allow as a dashed one.
const (
	columns   = 3
	plotW     = 250
	plotH     = 90
	panelW    = plotW + 55
	panelH    = plotH + 70
	topMargin = 64
)

// style makes the picture legible on light and on dark pages.
const style = `<style>
svg { font: 11px system-ui, -apple-system, "Segoe UI", sans-serif }
text { fill: #1f2328 } .dim { fill: #59636e } .title { font-size: 15px; font-weight: 600 } .name { font-weight: 600 }
.end { text-anchor: end } .middle { text-anchor: middle }
path { fill: none } .grid { stroke: #d1d9e0 } .accepted { fill: #0969da; fill-opacity: .5 } .sent { stroke: #1f2328 }
.refused { stroke: #cf222e; stroke-width: 1.5 } .limit { stroke: #1a7f37; stroke-width: 1.5; stroke-dasharray: 4 3 }
.ideal { stroke: #59636e; stroke-dasharray: 1 3 }
@media (prefers-color-scheme: dark) {
text { fill: #f0f6fc } .dim { fill: #9198a1 } .grid { stroke: #3d444d } .accepted { fill: #4493f8 } .sent { stroke: #f0f6fc }
.refused { stroke: #ff7b72 } .limit { stroke: #3fb950 } .ideal { stroke: #9198a1 }
}
</style>
`

// picture writes the SVG of one scenario: for each contender its run with the
// median span/ideal.
func (r *results) picture(w io.Writer, s *Scenario) error {
	type panel struct {
		title, note string
		series      series
	}
	var panels []panel
	var length time.Duration
	for _, who := range r.contest.contenders {
		runs := r.runsOf(s, who)
		if len(runs) == 0 {
			continue
		}
		f := summarize(runs)
		note := fmt.Sprintf("%.3f of the ideal · 429s %s", f.ratio, percent(f.perAccepted))
		if f.lost > 0 {
			note += fmt.Sprintf(" · lost %d", f.lost)
		}
		panels = append(panels, panel{who.Title, note, f.typical.series})
		length = max(length, f.typical.series.length())
	}
	ideal, _ := s.ideal(s.Busy * s.Calls)
	length = max(length, ideal.Truncate(time.Second)+time.Second)
	allowed := allowedOver(s, length)
	// Twice and a half of what is allowed, so that the first burst and a storm
	// are seen as what they are and the rest is not squeezed flat.
	top := niceAbove(2.5 * slices.Max(allowed))
	x := func(t time.Duration) float64 { return plotW * t.Seconds() / length.Seconds() }
	y := func(perSecond float64) float64 { return plotH * (1 - min(perSecond, top)/top) }

	var b strings.Builder
	width := columns*panelW + 16
	height := topMargin + (len(panels)+columns-1)/columns*panelH + 8
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" role="img" aria-label="%s">`+"\n", width, height, width, height, escape(s.Title+": calls over time, for each contender"))
	b.WriteString(style)
	fmt.Fprintf(&b, `<text class="title" x="12" y="22">%s</text><text class="dim" x="12" y="40">%s</text>`+"\n", escape(s.Title), escape(s.About))
	legend := 12
	for _, l := range []struct {
		class, text string
		width       int
	}{{"accepted", "accepted", 72}, {"sent", "sent", 52}, {"refused", "refused", 66}, {"limit", "what the limits allow", 128}, {"ideal", "the ideal end", 90}} {
		if l.class == "accepted" {
			fmt.Fprintf(&b, `<rect class="accepted" x="%d" y="48" width="14" height="8"/>`, legend)
		} else {
			fmt.Fprintf(&b, `<path class="%s" d="M%d 52h14"/>`, l.class, legend)
		}
		fmt.Fprintf(&b, `<text class="dim" x="%d" y="56">%s</text>`, legend+18, l.text)
		legend += l.width + 18
	}
	fmt.Fprintf(&b, `<text class="dim end" x="%d" y="56">calls a second over seconds</text>`+"\n", width-12)
	for i, p := range panels {
		fmt.Fprintf(&b, `<g transform="translate(%d %d)">`, 44+i%columns*panelW, topMargin+36+i/columns*panelH)
		fmt.Fprintf(&b, `<text class="name" y="-22">%s</text><text class="dim" y="-8">%s</text>`, escape(p.title), escape(p.note))
		fmt.Fprintf(&b, `<path class="grid" d="M0 0V%dH%d"/>`, plotH, plotW)
		for _, v := range []float64{0, top / 2, top} {
			fmt.Fprintf(&b, `<text class="dim end" x="-5" y="%.1f">%s</text>`, y(v)+4, short(v))
		}
		for _, t := range ticks(length) {
			fmt.Fprintf(&b, `<path class="grid" d="M%.1f %dv4"/><text class="dim middle" x="%.1f" y="%d">%.0f</text>`, x(t), plotH, x(t), plotH+16, t.Seconds())
		}
		accepted := steps(p.series, x, y, func(t tally) int { return t.accepted })
		fmt.Fprintf(&b, `<path class="accepted" d="M0 %d%sV%dZ"/>`, plotH, accepted, plotH)
		fmt.Fprintf(&b, `<path class="sent" d="M0 %d%s"/>`, plotH, steps(p.series, x, y, func(t tally) int { return t.sent }))
		if slices.ContainsFunc(p.series.bins, func(t tally) bool { return t.refused > 0 }) {
			fmt.Fprintf(&b, `<path class="refused" d="M0 %d%s"/>`, plotH, steps(p.series, x, y, func(t tally) int { return t.refused }))
		}
		fmt.Fprintf(&b, `<path class="limit" d="M0 %.1f`, y(allowed[0]))
		for second, v := range allowed {
			fmt.Fprintf(&b, "V%.1fH%.1f", y(v), x(time.Duration(second+1)*time.Second))
		}
		b.WriteString(`"/>`)
		fmt.Fprintf(&b, `<path class="ideal" d="M%.1f 0V%d"/>`, x(ideal), plotH)
		if most := peakOf(p.series); most > top {
			fmt.Fprintf(&b, `<text class="dim end" x="%d" y="-22">↑ %s/s</text>`, plotW, short(most))
		}
		b.WriteString("</g>\n")
	}
	b.WriteString("</svg>\n")
	_, err := io.WriteString(w, b.String())
	return err
}

// steps is the path of one line, as horizontal steps.
func steps(s series, x func(time.Duration) float64, y func(float64) float64, of func(tally) int) string {
	var b strings.Builder
	for i, t := range s.bins {
		fmt.Fprintf(&b, "V%.1fH%.1f", y(float64(of(t))/s.bin.Seconds()), x(time.Duration(i+1)*s.bin))
	}
	return b.String()
}

// peakOf is the rate of what was sent in the fullest bin.
func peakOf(s series) (perSecond float64) {
	for _, t := range s.bins {
		perSecond = max(perSecond, float64(t.sent)/s.bin.Seconds())
	}
	return perSecond
}

// allowedOver is what the limits allow in the long run, second by second, less
// what others take: a window counts as its average.
func allowedOver(s *Scenario, length time.Duration) []float64 {
	seconds := int(math.Ceil(length.Seconds()))
	allowed := make([]float64, max(1, seconds))
	for i := range allowed {
		at := float64(i)
		rate := math.Inf(1)
		for _, l := range s.Limits {
			if l.Max > 0 {
				rate = min(rate, float64(l.Max)/l.Window.Seconds())
				continue
			}
			b := newBucketModel(l, s.Script)
			b.advance(at)
			rate = min(rate, b.steps[b.now].rate)
		}
		if afterOutages(at, s.Script) > at {
			rate = 0
		}
		allowed[i] = rate
	}
	return allowed
}

// niceAbove is the next number of one digit and zeros that is not below v, or a
// few in between; its half is short too.
func niceAbove(v float64) float64 {
	if !(v > 0) {
		return 1
	}
	power := math.Pow(10, math.Floor(math.Log10(v)))
	for _, m := range []float64{1, 1.2, 1.6, 2, 3, 4, 5, 6, 8, 10} {
		if m*power >= v {
			return m * power
		}
	}
	return 10 * power
}

// ticks are about five times for the axis.
func ticks(length time.Duration) []time.Duration {
	each := time.Duration(max(1, niceAbove(length.Seconds()/6))) * time.Second
	var ts []time.Duration
	for t := time.Duration(0); t <= length; t += each {
		ts = append(ts, t)
	}
	return ts
}

// short writes a number in a few characters.
func short(v float64) string {
	if v >= 10_000 {
		return fmt.Sprintf("%.0fk", v/1000)
	}
	return fmt.Sprintf("%.4g", v)
}

func escape(s string) string {
	var b strings.Builder
	xml.EscapeText(&b, []byte(s))
	return b.String()
}
