package simulate

import (
	"fmt"
	"html"
	"io"
	"math"
	"strconv"
	"strings"
	"time"
)

// A picture is four panels over the same time: each is its own SVG, so that a
// page can put them beside each other or, on a phone, one below the other.
const (
	panelWidth, panelHeight          = 560.0, 240.0
	left, right, top, bottom         = 52.0, 20.0, 30.0, 24.0
	plotWidth, plotHeight    float64 = panelWidth - left - right, panelHeight - top - bottom
)

// pictureSlots is about how many points a line has.
const pictureSlots = 360

// colours are of the rows, readable on white and on black.
var colours = []string{"#3b82f6", "#a855f7", "#16a34a", "#ef4444", "#d97706", "#0891b2", "#db2777", "#65a30d"}

// picture is a report laid out.
type picture struct {
	*Report
	end   time.Duration // of the time axis
	lines []*Timeline   // of the rows
	ticks []tick
	b     *strings.Builder
}

type tick struct {
	at   time.Duration
	text string
}

func (r *Report) picture() *picture {
	p := &picture{Report: r, b: new(strings.Builder), end: max(r.Horizon, time.Second)}
	for i := range r.Rows {
		row := &r.Rows[i]
		// One that never ends must not make the others' day a point.
		until := row.Span
		if row.left() > 0 {
			until = min(until, 3*r.Horizon)
		}
		p.end = max(p.end, until)
		l := &Timeline{Width: row.Timeline.Width, Slots: append([]Slot(nil), row.Timeline.Slots...)}
		for p.end/l.Width > 2*pictureSlots || len(l.Slots) > 2*pictureSlots {
			l.halve()
		}
		p.lines = append(p.lines, l)
	}
	p.ticks = r.timeTicks(p.end)
	return p
}

// steps are between the ticks of a time axis.
var steps = []time.Duration{
	time.Second, 2 * time.Second, 5 * time.Second, 10 * time.Second, 30 * time.Second,
	time.Minute, 2 * time.Minute, 5 * time.Minute, 10 * time.Minute, 30 * time.Minute,
	time.Hour, 3 * time.Hour, 6 * time.Hour, 12 * time.Hour, 24 * time.Hour, 48 * time.Hour, 7 * 24 * time.Hour, 28 * 24 * time.Hour, 91 * 24 * time.Hour, 366 * 24 * time.Hour,
}

// timeTicks returns round times of the clock on the wall until end.
func (r *Report) timeTicks(end time.Duration) (ticks []tick) {
	step := steps[len(steps)-1]
	for _, s := range steps {
		if end/s <= 9 {
			step = s
			break
		}
	}
	dated := r.Start.Year() > 1
	first := r.Start.Sub(time.Time{}) // of a trace that has no dates
	for at := time.Duration(0); at <= end; {
		if !dated {
			if since := first + at; since%step == 0 {
				ticks = append(ticks, tick{at, duration(since)})
			}
			at += step - (first+at)%step
			continue
		}
		t := r.Start.Add(at)
		c := time.Duration(clock(t))
		round := c%step == 0
		if step > 24*time.Hour {
			round = c == 0 && t.YearDay()%int(step.Hours()/24) == 0
		}
		if round {
			layout := "15:04"
			switch {
			case step < time.Minute:
				layout = "15:04:05"
			case step >= 24*time.Hour:
				layout = "2 Jan"
			}
			ticks = append(ticks, tick{at, t.Format(layout)})
		}
		// To the next round time; an hour at most, because the clock may
		// change.
		walk := min(step, time.Hour)
		at += walk - c%walk
	}
	return ticks
}

func (p *picture) x(t time.Duration) float64 {
	return left + plotWidth*float64(t)/float64(p.end)
}

// panel is one diagram: a value of each slot.
type panel struct {
	title  string
	value  func(row int, s *Slot, seconds float64) float64
	area   func(s *Slot, seconds float64) float64 // grey behind the lines, of the first row
	format func(v float64) string
	most   float64 // of the axis, 0 finds out
}

func (p *picture) panels() []panel {
	rate := func(v float64) string { return strconv.FormatFloat(v, 'g', 4, 64) }
	return []panel{
		{
			title: "calls a second: came (grey), executed",
			value: func(_ int, s *Slot, seconds float64) float64 { return float64(s.Accepted) / seconds },
			area:  func(s *Slot, seconds float64) float64 { return float64(s.Arrived) / seconds }, format: rate,
		},
		{
			title: "backlog: calls that waited", format: short,
			value: func(_ int, s *Slot, _ float64) float64 { return float64(s.Backlog) },
		},
		{
			title: "longest wait of a call that was executed",
			value: func(_ int, s *Slot, _ float64) float64 { return s.MaxWait.Seconds() },
			format: func(v float64) string {
				text := time.Duration(v * 1e9).Round(time.Millisecond).String()
				if strings.HasSuffix(text, "m0s") {
					text = strings.TrimSuffix(text, "0s")
				}
				if strings.HasSuffix(text, "h0m") {
					text = strings.TrimSuffix(text, "0m")
				}
				return text
			},
		},
		{
			title: "how full the bucket was", most: 1, format: percent,
			value: func(row int, s *Slot, seconds float64) float64 {
				at, _ := p.Rows[row].tightest()
				return min(1, s.Level[at]/seconds)
			},
		},
	}
}

// short writes a count for an axis.
func short(v float64) string {
	switch {
	case v >= 1e6:
		return strconv.FormatFloat(v/1e6, 'g', 3, 64) + "M"
	case v >= 1e4:
		return strconv.FormatFloat(v/1e3, 'g', 3, 64) + "k"
	}
	return strconv.FormatFloat(v, 'g', 4, 64)
}

// seconds returns how much of slot i there was until the end of the axis.
func (p *picture) seconds(l *Timeline, i int) float64 {
	from := time.Duration(i) * l.Width
	return max(min(l.Width, p.end-from).Seconds(), 1e-9)
}

// axis returns the top of an axis, a round number not below v, and the step of its
// grid.
func axis(v float64, isTime bool) (most, step float64) {
	if !(v > 0) {
		return 1, 1
	}
	if isTime {
		for _, s := range steps {
			if step = s.Seconds(); v/step <= 5 {
				return math.Ceil(v/step) * step, step
			}
		}
		return math.Ceil(v/step) * step, step
	}
	unit := math.Pow(10, math.Floor(math.Log10(v/5)))
	for _, m := range []float64{1, 2, 5, 10} {
		if step = m * unit; v/step <= 5 {
			break
		}
	}
	return math.Ceil(v/step) * step, step
}

// draw writes a panel as the inside of an SVG.
func (p *picture) draw(pa panel) {
	values := make([][]float64, len(p.lines))
	most := 0.0
	for row, l := range p.lines {
		for i := range l.Slots {
			v := pa.value(row, &l.Slots[i], p.seconds(l, i))
			values[row] = append(values[row], v)
			if time.Duration(i)*l.Width < p.end {
				most = max(most, v)
			}
		}
	}
	var behind []float64
	came := 0.0
	if pa.area != nil && len(p.lines) > 0 {
		l := p.lines[0]
		for i := range l.Slots {
			v := pa.area(&l.Slots[i], p.seconds(l, i))
			behind = append(behind, v)
			came = max(came, v)
		}
		// A batch that comes at once must not make the lines flat: it is
		// cut off.
		most = max(most, min(came, 1.5*most))
	}
	ceiling, step := axis(most, strings.Contains(pa.title, "wait of"))
	if pa.most > 0 {
		ceiling, step = pa.most, pa.most/4
	}
	y := func(v float64) float64 { return top + plotHeight*(1-min(v/ceiling, 1)) }
	fmt.Fprintf(p.b, `<text class="h" x="%g" y="18">%s</text>`, left, html.EscapeString(pa.title))
	for v := 0.0; v <= ceiling*1.001; v += step {
		fmt.Fprintf(p.b, `<path class="g" d="M%g %.1fH%g"/><text class="a" x="%g" y="%.1f" text-anchor="end">%s</text>`,
			left, y(v), left+plotWidth, left-6, y(v)+4, html.EscapeString(pa.format(v)))
	}
	for _, t := range p.ticks {
		fmt.Fprintf(p.b, `<path class="g" d="M%.1f %gv%g"/><text class="a" x="%.1f" y="%g" text-anchor="middle">%s</text>`,
			p.x(t.at), top, plotHeight, p.x(t.at), panelHeight-6, t.text)
	}
	if behind != nil {
		fmt.Fprintf(p.b, `<path class="f" d="M%g %g%sV%gZ"/>`, left, top+plotHeight, strings.Replace(p.path(p.lines[0], behind, y), "M", "L", 1), top+plotHeight)
	}
	for row := len(p.Rows) - 1; row >= 0; row-- {
		fmt.Fprintf(p.b, `<path class="l r%d" %s d="%s"><title>%s</title></path>`, row, p.stroke(row), p.path(p.lines[row], values[row], y), html.EscapeString(p.Rows[row].Label()))
	}
	p.b.WriteString("\n")
}

// stroke is how the line of a row looks: what is given wide, what-ifs dashed.
func (p *picture) stroke(row int) string {
	r := &p.Rows[row]
	colour, width, dash := colours[row%len(colours)], 1.6, ""
	switch {
	case r.policy == Best:
		colour, dash = "#8b8f98", ` stroke-dasharray="1 3"`
	case r.WhatIf != nil:
		dash = ` stroke-dasharray="6 3"`
	case r.Word == "headgate":
		width = 2.6
	}
	return fmt.Sprintf(`stroke="%s" stroke-width="%g"%s`, colour, width, dash)
}

// path returns the line through the values, each in the middle of its slot. Points
// within a level stretch are left out.
func (p *picture) path(l *Timeline, values []float64, y func(float64) float64) string {
	var b strings.Builder
	last, skipped, lastX := math.NaN(), false, 0.0
	point := func(x, v float64) {
		c := byte('L')
		if b.Len() == 0 {
			c = 'M'
		}
		b.WriteByte(c)
		b.Write(strconv.AppendFloat(nil, math.Round(x*10)/10, 'f', -1, 64))
		b.WriteByte(' ')
		b.Write(strconv.AppendFloat(nil, v, 'f', -1, 64))
	}
	for i := range int((p.end + l.Width - 1) / l.Width) {
		v := 0.0
		if i < len(values) {
			v = values[i]
		}
		x := p.x(min(time.Duration(i)*l.Width+l.Width/2, p.end))
		h := math.Round(y(v)*10) / 10
		if h == last {
			lastX, skipped = x, true
			continue
		}
		if skipped {
			point(lastX, last)
		}
		point(x, h)
		last, skipped, lastX = h, false, x
	}
	if skipped {
		point(lastX, last)
	}
	return b.String()
}

// style is the same for both pictures; colours follow the reader's choice of
// light or dark.
const style = `
text{font:12px system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif;fill:#1f2328}
.h{font-weight:600}.a{fill:#57606a;font-size:11px}
.g{stroke:#8b8f98;stroke-opacity:.25;fill:none}.f{fill:#8b8f98;fill-opacity:.28;stroke:none}
.l{fill:none;stroke-linejoin:round}.page{fill:#fff}
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.a{fill:#9da7b3}.page{fill:#0d1117}}
`

// WriteSVG writes the picture alone.
func (r *Report) WriteSVG(w io.Writer) error {
	p := r.picture()
	const margin, line = 16.0, 20.0
	perLine := 3
	legend := float64((len(r.Rows)+perLine-1)/perLine) * line
	head := margin + float64(len(r.About))*line + legend + 10
	width, height := 2*panelWidth+margin, head+2*panelHeight+2*margin
	fmt.Fprintf(p.b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %g %g" width="%g" height="%g"><style>%s</style><rect class="page" width="100%%" height="100%%"/>`+"\n", width, height, width, height, style)
	y := margin + 8
	for i, text := range r.About {
		class := "a"
		if i == 0 {
			class = "h"
		}
		fmt.Fprintf(p.b, `<text class="%s" x="%g" y="%g">%s</text>`+"\n", class, margin, y, html.EscapeString(text))
		y += line
	}
	for i := range r.Rows {
		x, y := margin+float64(i%perLine)*(width-margin)/float64(perLine), y+float64(i/perLine)*line
		fmt.Fprintf(p.b, `<path class="l" %s d="M%g %gh28"/><text x="%g" y="%g">%s</text>`+"\n", p.stroke(i), x, y-4, x+36, y, html.EscapeString(r.legend(i)))
	}
	for i, pa := range p.panels() {
		fmt.Fprintf(p.b, `<g transform="translate(%g %g)">`, float64(i%2)*(panelWidth+margin), head+float64(i/2)*(panelHeight+margin))
		p.draw(pa)
		p.b.WriteString("</g>\n")
	}
	p.b.WriteString("</svg>\n")
	_, err := io.WriteString(w, p.b.String())
	return err
}

// legend is what a row is called where what-ifs have no heading.
func (r *Report) legend(i int) string {
	if r.Rows[i].WhatIf != nil {
		return "what if: " + r.Rows[i].Label()
	}
	return r.Rows[i].Label()
}

// WriteHTML writes the table and the picture as a page that needs nothing else.
func (r *Report) WriteHTML(w io.Writer) error {
	p := r.picture()
	fmt.Fprintf(p.b, `<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1"><meta name="color-scheme" content="light dark">
<title>headgate simulate</title>
<style>%s
body{margin:0 auto;padding:16px;max-width:1280px;font:15px/1.45 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif;background:#fff;color:#1f2328}
h1{font-size:1.25rem;margin:0 0 .3rem}p{margin:.1rem 0;color:#57606a}
.legend{display:flex;flex-wrap:wrap;gap:.2rem 1.1rem;margin:.8rem 0}.legend label{display:flex;align-items:center;gap:.4rem;padding:.2rem 0}.legend svg{width:28px;height:8px}
.panels{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%%,440px),1fr));gap:12px}.panels svg{width:100%%;height:auto;display:block}
.scroll{overflow-x:auto;margin-top:1rem}table{border-collapse:collapse;font-variant-numeric:tabular-nums;white-space:nowrap}
th,td{padding:.3rem .6rem;text-align:right;border-bottom:1px solid #8b8f9840}th:first-child,td:first-child{text-align:left;position:sticky;left:0;background:#fff}
th[title]{text-decoration:underline dotted;cursor:help}.w td:first-child{padding-left:1.6rem}
@media(prefers-color-scheme:dark){body,th:first-child,td:first-child{background:#0d1117;color:#e6edf3}p{color:#9da7b3}}
`, style)
	for i := range r.Rows {
		fmt.Fprintf(p.b, ".no%d .r%d{display:none}", i, i)
	}
	p.b.WriteString("</style>\n<body>\n")
	for i, text := range r.About {
		tag := "p"
		if i == 0 {
			tag = "h1"
		}
		fmt.Fprintf(p.b, "<%s>%s</%s>\n", tag, html.EscapeString(text), tag)
	}
	p.b.WriteString(`<div class="legend">` + "\n")
	for i := range r.Rows {
		fmt.Fprintf(p.b, `<label><input type="checkbox" checked value="%d"><svg viewBox="0 0 28 8"><path class="l" %s d="M0 4h28"/></svg>%s</label>`+"\n", i, p.stroke(i), html.EscapeString(r.legend(i)))
	}
	p.b.WriteString("</div>\n<div class=\"panels\">\n")
	for _, pa := range p.panels() {
		fmt.Fprintf(p.b, `<svg viewBox="0 0 %g %g" role="img" aria-label="%s">`, panelWidth, panelHeight, html.EscapeString(pa.title))
		p.draw(pa)
		p.b.WriteString("</svg>\n")
	}
	p.b.WriteString("</div>\n<div class=\"scroll\"><table>\n<tr>")
	for _, c := range columns {
		fmt.Fprintf(p.b, `<th title="%s">%s</th>`, html.EscapeString(c.meaning), html.EscapeString(c.name))
	}
	p.b.WriteString("</tr>\n")
	what := r.firstWhatIf()
	for i := range r.Rows {
		class := ""
		if i >= what {
			class = ` class="w"`
		}
		if i == what {
			fmt.Fprintf(p.b, "<tr><td>what if (%s)</td><td colspan=\"%d\"></td></tr>\n", html.EscapeString(r.Rows[i].Name), len(columns)-1)
		}
		fmt.Fprintf(p.b, "<tr%s>", class)
		for _, cell := range r.cells(&r.Rows[i]) {
			fmt.Fprintf(p.b, "<td>%s</td>", html.EscapeString(cell))
		}
		p.b.WriteString("</tr>\n")
	}
	p.b.WriteString("</table></div>\n")
	for _, n := range r.notes() {
		fmt.Fprintf(p.b, "<p>%s</p>\n", html.EscapeString(n))
	}
	p.b.WriteString(`<script>for(const c of document.querySelectorAll("input"))c.onchange=()=>document.body.classList.toggle("no"+c.value,!c.checked)</script>
</body></html>
`)
	_, err := io.WriteString(w, p.b.String())
	return err
}
