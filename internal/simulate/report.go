package simulate

import (
	"cmp"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// Report is a comparison that is to be shown.
type Report struct {
	// About says in a few lines what was simulated.
	About []string
	Scenario
	Rows []Row
}

// waits returns the waits of all classes.
func (r *Row) waits() *Histogram {
	var all Histogram
	for i := range r.Waits {
		all.Merge(&r.Waits[i])
	}
	return &all
}

// tightest returns the limit that was empty for longest, or else the least full.
func (r *Row) tightest() (index int, l LimitResult) {
	l = r.Levels[0]
	for i, m := range r.Levels {
		if m.Empty > l.Empty || m.Empty == l.Empty && m.Level < l.Level {
			index, l = i, m
		}
	}
	return index, l
}

// left returns how many calls had no end when the simulation gave up.
func (r *Row) left() int { return r.Arrived - r.Accepted - r.Lost }

// refusedPerAccepted returns what it says, 0 if nothing was accepted.
func (r *Row) refusedPerAccepted() float64 {
	return float64(r.Refused) / max(1, float64(r.Accepted))
}

// clock writes when something happened: the time of day, with the days since the
// first one. Without a date it is the time that the trace would show.
func (r *Report) clock(d time.Duration) string {
	if r.Start.Year() <= 1 {
		return duration(r.Start.Sub(time.Time{}) + d)
	}
	t := r.Start.Add(d)
	text := t.Format("15:04")
	if r.Horizon < 2*time.Hour {
		text = t.Format("15:04:05")
	}
	y, m, day := t.Date()
	y0, m0, day0 := r.Start.Date()
	if days := int(time.Date(y, m, day, 0, 0, 0, 0, time.UTC).Sub(time.Date(y0, m0, day0, 0, 0, 0, 0, time.UTC)).Hours() / 24); days > 0 {
		text += "+" + strconv.Itoa(days) + "d"
	}
	return text
}

// times writes when the backlog was largest, and when it was worked off.
func (r *Report) times(b Backlog) (at, gone string) {
	switch {
	case b.Peak == 0:
		return "-", "-"
	case b.Gone < 0:
		return r.clock(b.At), "never"
	}
	return r.clock(b.At), r.clock(b.Gone)
}

// duration writes d with two or three digits, for tables.
func duration(d time.Duration) string {
	switch {
	case d < time.Millisecond/2:
		return "0"
	case d < time.Second:
		return fmt.Sprintf("%dms", (d+time.Millisecond/2)/time.Millisecond)
	case d < 100*time.Second:
		return strconv.FormatFloat(d.Seconds(), 'f', 1, 64) + "s"
	case d < time.Hour:
		d = d.Round(time.Second)
		return fmt.Sprintf("%dm%02ds", d/time.Minute, d%time.Minute/time.Second)
	case d < 100*time.Hour:
		d = d.Round(time.Minute)
		return fmt.Sprintf("%dh%02dm", d/time.Hour, d%time.Hour/time.Minute)
	}
	d = d.Round(time.Hour)
	return fmt.Sprintf("%dd%02dh", d/(24*time.Hour), d%(24*time.Hour)/time.Hour)
}

// percent writes a share.
func percent(share float64) string {
	switch p := 100 * share; {
	case p == 0:
		return "0%"
	case p < 0.995:
		return strconv.FormatFloat(p, 'f', 2, 64) + "%"
	case p < 9.95:
		return strconv.FormatFloat(p, 'f', 1, 64) + "%"
	default:
		return strconv.FormatFloat(math.Min(p, 1e9), 'f', 0, 64) + "%"
	}
}

// Thousands writes n with a comma between thousands.
func Thousands(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// columns are those of the table, with what they mean.
var columns = []struct{ name, meaning string }{
	{"", "who sends the calls, and what is different"},
	{"done", "calls that were executed"},
	{"lost", "calls that were given up"},
	{"429s", "refusals for each call that was executed"},
	{"wait p50", "how long half of the calls waited at most before the attempt that counted"},
	{"p90", "nine in ten"},
	{"p99", "99 in a hundred"},
	{"max", "the longest"},
	{"level", "how full the bucket was in the mean"},
	{"empty", "share of the time in which it had no room"},
	{"backlog", "most calls that waited at once"},
	{"at", "when that was"},
	{"gone", "when nobody waited any more"},
}

// cells returns a row as the table shows it.
func (r *Report) cells(row *Row) []string {
	w := row.waits()
	_, l := row.tightest()
	at, gone := r.times(row.Backlog)
	return []string{
		row.Label(), Thousands(row.Accepted), Thousands(row.Lost), percent(row.refusedPerAccepted()),
		duration(w.Quantile(0.5)), duration(w.Quantile(0.9)), duration(w.Quantile(0.99)), duration(w.Max()),
		percent(l.Level), percent(l.Empty),
		Thousands(row.Backlog.Peak), at, gone,
	}
}

// notes are what the table does not say.
func (r *Report) notes() (notes []string) {
	if len(r.Limits) > 1 {
		notes = append(notes, "level and empty are of the limit that was empty for longest")
	}
	for i := range r.Rows {
		row := &r.Rows[i]
		if left := row.left(); left > 0 {
			notes = append(notes, fmt.Sprintf("%s: %s calls had no end 30 days after the last one came; the limit can't keep up", row.Label(), Thousands(left)))
		}
		if row.Early > 0 {
			notes = append(notes, fmt.Sprintf("%s: %s requests were sent although the server had said to stay away", row.Label(), Thousands(row.Early)))
		}
		if row.Failed > 0 {
			notes = append(notes, fmt.Sprintf("%s: %s × 503", row.Label(), Thousands(row.Failed)))
		}
	}
	return notes
}

// firstWhatIf is the index of the first row of that kind, or how many there are.
func (r *Report) firstWhatIf() int {
	for i := range r.Rows {
		if r.Rows[i].WhatIf != nil {
			return i
		}
	}
	return len(r.Rows)
}

// WriteText writes a table.
func (r *Report) WriteText(out io.Writer) error {
	w := new(strings.Builder)
	for _, line := range r.About {
		fmt.Fprintln(w, line)
	}
	fmt.Fprintln(w)
	var table strings.Builder
	t := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	names := make([]string, len(columns))
	for i, c := range columns {
		names[i] = c.name
	}
	fmt.Fprintln(t, strings.Join(names, "\t"))
	what := r.firstWhatIf()
	for i := range r.Rows {
		cells := r.cells(&r.Rows[i])
		if i == what {
			fmt.Fprintf(t, "what if (%s)%s\n", r.Rows[i].Name, strings.Repeat("\t", len(columns)-1))
		}
		if i >= what {
			cells[0] = "  " + cells[0]
		}
		fmt.Fprintln(t, strings.Join(cells, "\t"))
	}
	t.Flush()
	for line := range strings.Lines(table.String()) {
		fmt.Fprintln(w, strings.TrimRight(line, " \n"))
	}
	r.writePriorities(w)
	notes := r.notes()
	if len(notes) > 0 {
		fmt.Fprintln(w)
	}
	for _, n := range notes {
		fmt.Fprintln(w, n)
	}
	_, err := io.WriteString(out, w.String())
	return err
}

// writePriorities says how long calls of each priority waited, if they differ.
func (r *Report) writePriorities(w io.Writer) {
	used := 0
	for i := range r.Rows[0].Waits {
		if r.Rows[0].Waits[i].N() > 0 {
			used++
		}
	}
	if used < 2 {
		return
	}
	fmt.Fprintln(w)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "by priority\t\tdone\twait p50\tp90\tp99\tmax")
	for i := range r.firstWhatIf() {
		row := &r.Rows[i]
		for class := range row.Waits {
			if h := &row.Waits[class]; h.N() > 0 {
				fmt.Fprintf(t, "%s\t%d\t%s\t%s\t%s\t%s\t%s\n", row.Label(), Priority(class), Thousands(int(h.N())),
					duration(h.Quantile(0.5)), duration(h.Quantile(0.9)), duration(h.Quantile(0.99)), duration(h.Max()))
			}
		}
	}
	t.Flush()
}

// Output is the report as JSON. Its field names are stable; more may come.
type Output struct {
	About []string `json:"about"`
	Seed  uint64   `json:"seed"`
	// Start is RFC 3339, or absent when the arrivals have no date.
	Start string      `json:"start,omitempty"`
	Rows  []OutputRow `json:"rows"`
}

// OutputRow is one way of going about the calls. Times are in milliseconds
// since the start.
type OutputRow struct {
	Name               string           `json:"name"`
	Policy             string           `json:"policy"`
	WhatIf             bool             `json:"whatIf"`
	Arrived            int              `json:"arrived"`
	Done               int              `json:"done"`
	Lost               int              `json:"lost"`
	Left               int              `json:"left"` // had no end yet
	Refused            int              `json:"refused"`
	Unavailable        int              `json:"unavailable"` // 503
	Early              int              `json:"early"`
	RefusedPerAccepted float64          `json:"refusedPerAccepted"`
	Wait               OutputWait       `json:"wait"`
	Priorities         []OutputPriority `json:"priorities,omitempty"`
	Backlog            OutputBacklog    `json:"backlog"`
	Limits             []OutputLimit    `json:"limits"`
	OthersTook         int              `json:"othersTook"` // of the first limit
	LastAnswerMS       int64            `json:"lastAnswerMs"`
}

// OutputWait is how long calls waited.
type OutputWait struct {
	MeanMS int64 `json:"meanMs"`
	P50MS  int64 `json:"p50Ms"`
	P90MS  int64 `json:"p90Ms"`
	P99MS  int64 `json:"p99Ms"`
	MaxMS  int64 `json:"maxMs"`
}

// OutputPriority is how long those of one priority waited.
type OutputPriority struct {
	Priority int    `json:"priority"`
	Done     uint64 `json:"done"`
	OutputWait
}

// OutputBacklog is the most that waited.
type OutputBacklog struct {
	Peak   int    `json:"peak"`
	PeakMS int64  `json:"peakMs"`
	GoneMS *int64 `json:"goneMs"` // null: it was never worked off
}

// OutputLimit is how full a limit was, as shares.
type OutputLimit struct {
	Name  string  `json:"name"`
	Level float64 `json:"level"`
	Empty float64 `json:"empty"`
}

func outputWait(h *Histogram) OutputWait {
	return OutputWait{
		h.Mean().Milliseconds(), h.Quantile(0.5).Milliseconds(), h.Quantile(0.9).Milliseconds(),
		h.Quantile(0.99).Milliseconds(), h.Max().Milliseconds(),
	}
}

// Output returns what WriteText shows, for machines.
func (r *Report) Output() Output {
	out := Output{About: r.About, Seed: r.Seed}
	if r.Start.Year() > 1 {
		out.Start = r.Start.Format(time.RFC3339)
	}
	for i := range r.Rows {
		row := &r.Rows[i]
		o := OutputRow{
			Name: row.Label(), Policy: row.Word, WhatIf: row.WhatIf != nil,
			Arrived: row.Arrived, Done: row.Accepted, Lost: row.Lost, Left: row.left(),
			Refused: row.Refused, Unavailable: row.Failed, Early: row.Early,
			RefusedPerAccepted: rounded(row.refusedPerAccepted()),
			Wait:               outputWait(row.waits()), OthersTook: row.Others, LastAnswerMS: row.Span.Milliseconds(),
			Backlog: OutputBacklog{Peak: row.Backlog.Peak, PeakMS: row.Backlog.At.Milliseconds()},
		}
		if row.Backlog.Gone >= 0 {
			o.Backlog.GoneMS = new(row.Backlog.Gone.Milliseconds())
		}
		for i, l := range row.Levels {
			o.Limits = append(o.Limits, OutputLimit{cmp.Or(r.Limits[i].Name, "limit"), rounded(l.Level), rounded(l.Empty)})
		}
		for class := range row.Waits {
			if h := &row.Waits[class]; h.N() > 0 && h.N() < uint64(row.Accepted) {
				o.Priorities = append(o.Priorities, OutputPriority{Priority(class), h.N(), outputWait(h)})
			}
		}
		out.Rows = append(out.Rows, o)
	}
	return out
}

// rounded leaves six digits behind the point.
func rounded(f float64) float64 { return math.Round(f*1e6) / 1e6 }
