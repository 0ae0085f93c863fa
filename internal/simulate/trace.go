package simulate

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Trace is calls as they came once.
type Trace struct {
	// Start is when the first ones came. Its year is 1 if the trace has
	// only seconds, not a date.
	Start time.Time
	// Span is from the first to the last, N how many there are.
	Span time.Duration
	N    int
	// Unused are columns that say nothing to us.
	Unused []string

	rows []traceRow
}

type traceRow struct {
	at    int64 // nanoseconds, since 1970 or as the file counts
	count int32
	class uint8
}

// The bounds of what is believed of a trace.
const (
	maxCalls = 1_000_000_000
	maxSpan  = 366 * 24 * time.Hour
)

// The priorities of calls are those of headgate.Ask.
const (
	mostUrgent  = -3
	leastUrgent = Classes - 1 + mostUrgent
	// Normal is the class of a call that names no priority.
	Normal = -mostUrgent
)

// Priority returns what a class is called outside.
func Priority(class int) int { return class + mostUrgent }

// Dated reports whether the trace has dates.
func (t *Trace) Dated() bool { return t.Start.Year() > 1 }

// ReadTrace reads CSV with a header: a column time (or timestamp), and maybe
// count and priority. Times are ISO 8601 or seconds; those without an offset
// are in zone, which may be nil. An error begins with name and the line.
func ReadTrace(name string, r io.Reader, zone *time.Location) (*Trace, error) {
	p := &traceParser{name: name, zone: zone, told: zone != nil, line: 1, time: -1, count: -1, priority: -1}
	t, err := p.read(r)
	if bad, ok := errors.AsType[*csv.ParseError](err); ok {
		return nil, fmt.Errorf("%s:%d: %w", name, bad.StartLine, bad.Err)
	}
	return t, err
}

type traceParser struct {
	name                  string
	zone                  *time.Location // in which times are shown
	told                  bool           // and those without an offset are written
	line                  int
	time, count, priority int // columns, -1 for none
	form                  timeForm
	t                     Trace
}

func (p *traceParser) bad(format string, args ...any) error {
	return fmt.Errorf("%s:%d: %w", p.name, p.line, fmt.Errorf(format, args...))
}

func (p *traceParser) read(r io.Reader) (*Trace, error) {
	in := bufio.NewReaderSize(r, 1<<16)
	if bom, _ := in.Peek(3); string(bom) == "\ufeff" {
		in.Discard(3)
	}
	rows := csv.NewReader(in)
	rows.ReuseRecord = true
	rows.TrimLeadingSpace = true
	// A spreadsheet that writes decimal commas separates by semicolons.
	head, _ := in.Peek(in.Size())
	head, _, _ = bytes.Cut(head, []byte("\n"))
	for _, c := range []byte{',', ';', '\t'} {
		if bytes.IndexByte(head, c) >= 0 {
			rows.Comma = rune(c)
			break
		}
	}
	header, err := rows.Read()
	if err == io.EOF {
		return nil, p.bad("is empty: takes a header with a column time, then a line for each call or group of calls")
	}
	if err != nil {
		return nil, err
	}
	if err := p.header(header); err != nil {
		return nil, err
	}
	first, last := int64(math.MaxInt64), int64(math.MinInt64)
	sorted, total := true, int64(0)
	for {
		record, err := rows.Read()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, err
		}
		p.line, _ = rows.FieldPos(0)
		row, err := p.row(record)
		if err != nil {
			return nil, err
		}
		if row.count == 0 {
			continue
		}
		if total += int64(row.count); total > maxCalls {
			return nil, p.bad("count: more than %d calls in all", maxCalls)
		}
		sorted = sorted && row.at >= last
		first, last = min(first, row.at), max(last, row.at)
		if last-first > int64(maxSpan) {
			return nil, p.bad("time %q is more than %d days from another one", record[p.time], int(maxSpan.Hours()/24))
		}
		p.t.rows = append(p.t.rows, row)
	}
	if len(p.t.rows) == 0 {
		return nil, p.bad("has no calls: takes a line for each call or group of calls behind the header")
	}
	if !sorted {
		slices.SortStableFunc(p.t.rows, func(a, b traceRow) int { return cmp.Compare(a.at, b.at) })
	}
	for i := range p.t.rows {
		p.t.rows[i].at -= first
	}
	p.t.N, p.t.Span = int(total), time.Duration(last-first)
	p.t.Start = p.start(first)
	return &p.t, nil
}

func (p *traceParser) header(record []string) error {
	for i, column := range record {
		var at *int
		switch strings.ToLower(strings.TrimSpace(column)) {
		case "time", "timestamp":
			at = &p.time
		case "count":
			at = &p.count
		case "priority":
			at = &p.priority
		default:
			p.t.Unused = append(p.t.Unused, strings.Clone(column))
			continue
		}
		if *at >= 0 {
			return p.bad("columns %d and %d both say %s", *at+1, i+1, strings.TrimSpace(column))
		}
		*at = i
	}
	if p.time < 0 {
		return p.bad("no column is called time; there are: %s", strings.Join(p.t.Unused, ", "))
	}
	return nil
}

func (p *traceParser) row(record []string) (row traceRow, err error) {
	row = traceRow{count: 1, class: Normal}
	text := strings.TrimSpace(record[p.time])
	at, form, err := p.instant(text)
	if err != nil {
		return row, p.bad("time %q: %w", text, err)
	}
	if p.form == 0 {
		p.form = form
	}
	if form != p.form {
		return row, p.bad("time %q is %s, and the ones before are %s", text, form, p.form)
	}
	row.at = at
	if p.count >= 0 {
		text := strings.TrimSpace(record[p.count])
		n, err := strconv.ParseInt(text, 10, 32)
		if err != nil || n < 0 {
			return row, p.bad("count %q: takes a whole number from 0", text)
		}
		row.count = int32(n)
	}
	if p.priority >= 0 {
		if text := strings.TrimSpace(record[p.priority]); text != "" {
			n, err := strconv.Atoi(text)
			if err != nil || n < mostUrgent || n > leastUrgent {
				return row, p.bad("priority %q: takes a whole number from %d (most urgent) to %d, 0 is normal", text, mostUrgent, leastUrgent)
			}
			row.class = uint8(n - mostUrgent)
		}
	}
	return row, nil
}

// timeForm is how a file writes times.
type timeForm int

const (
	dates timeForm = iota + 1
	seconds
	unixSeconds
	unixMillis
)

var timeForms = [...]string{"", "a date", "seconds from the start", "seconds since 1970", "milliseconds since 1970"}

func (f timeForm) String() string { return timeForms[f] }

// zoned and local are forms of ISO 8601 beside RFC 3339.
var (
	zoned = []string{"2006-01-02 15:04:05Z07:00", "2006-01-02T15:04:05Z0700", "2006-01-02 15:04:05Z0700", "2006-01-02T15:04:05Z07", "2006-01-02T15:04Z07:00", "2006-01-02T15:04Z0700"}
	local = []string{"2006-01-02T15:04:05", "2006-01-02 15:04:05", "2006-01-02T15:04", "2006-01-02 15:04"}
)

func (p *traceParser) instant(text string) (ns int64, form timeForm, err error) {
	if n, err := strconv.ParseFloat(strings.Replace(text, ",", ".", 1), 64); err == nil {
		switch {
		case !(n >= 0 && n < 1e13):
			return 0, 0, errors.New("takes seconds from 0")
		case n >= 1e11:
			whole, part := math.Modf(n)
			return int64(whole)*1e6 + int64(part*1e6), unixMillis, nil
		case n >= 1e9:
			whole, part := math.Modf(n)
			return int64(whole)*1e9 + int64(math.Round(part*1e6))*1e3, unixSeconds, nil
		}
		return int64(math.Round(n * 1e9)), seconds, nil
	}
	t, err := time.Parse(time.RFC3339, text)
	for i := 0; err != nil && i < len(zoned); i++ {
		t, err = time.Parse(zoned[i], text)
	}
	if err != nil {
		if t, err = p.local(text); err != nil {
			return 0, 0, err
		}
	}
	if t.Year() < 1970 || t.Year() > 2200 {
		return 0, 0, errors.New("takes a year from 1970 to 2200")
	}
	if p.zone == nil { // show times as they are written
		p.zone = t.Location()
	}
	return t.UnixNano(), dates, nil
}

// local reads a time without an offset.
func (p *traceParser) local(text string) (t time.Time, err error) {
	for _, layout := range local {
		clock, err := time.Parse(layout, text)
		if err != nil {
			continue
		}
		if !p.told {
			return t, errors.New("has no offset: say with --time-zone where that is, such as Europe/Paris")
		}
		t, _ := time.ParseInLocation(layout, text, p.zone)
		if t.Hour() != clock.Hour() || t.Minute() != clock.Minute() {
			return t, fmt.Errorf("there is no such time in %v: clocks are put forward", p.zone)
		}
		return t, nil
	}
	return t, errors.New("takes a time such as 2026-01-15T09:00:00+01:00, or seconds")
}

// start returns the instant that ns stands for.
func (p *traceParser) start(ns int64) time.Time {
	if p.form == seconds {
		return time.Time{}.Add(time.Duration(ns))
	}
	if p.zone == nil {
		p.zone = time.UTC
	}
	return time.Unix(0, ns).In(p.zone)
}

// Source returns the calls. Each source begins at the first one.
func (t *Trace) Source() Source {
	i := 0
	return func() (Arrival, bool) {
		if i == len(t.rows) {
			return Arrival{}, false
		}
		r := &t.rows[i]
		i++
		return Arrival{time.Duration(r.at), int(r.count), r.class}, true
	}
}
