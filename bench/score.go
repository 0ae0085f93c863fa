package main

import (
	"iter"
	"net/http"
	"slices"
	"time"

	"github.com/headgate/headgate/emulator"
)

// read takes from the ledger what the report does not say.
func (o *outcome) read(ledger iter.Seq[emulator.Row], r emulator.Report) {
	type process struct {
		executed int
		last     time.Duration
	}
	processes := map[string]process{}
	first := time.Duration(-1)
	o.series.bin = binOf(o.scenario.Deadline)
	for row := range ledger {
		o.series.add(row)
		if !row.Executed {
			continue
		}
		if first < 0 {
			first = row.At
		}
		p := processes[row.Token]
		p.executed++
		p.last = row.At
		processes[row.Token] = p
	}
	o.span = max(0, first) + r.Span
	if o.scenario.Busy > 1 {
		// A process that got nothing through has no row, and counts.
		rates := make([]float64, 0, o.scenario.Busy)
		for _, p := range processes {
			rates = append(rates, float64(p.executed)/max(p.last.Seconds(), 1e-3))
		}
		for len(rates) < o.scenario.Busy {
			rates = append(rates, 0)
		}
		o.fairness = jain(rates)
	}
}

// jain is Jain's fairness index: 1 if all are equal, 1/n if one has everything,
// and 0 if there is nothing.
func jain(x []float64) float64 {
	var sum, squares float64
	for _, v := range x {
		sum += v
		squares += v * v
	}
	if squares == 0 {
		return 0
	}
	return sum * sum / (float64(len(x)) * squares)
}

// median is the middle of the values, or the mean of the two in the middle.
func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	v := slices.Sorted(slices.Values(values))
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}

// series is what a server saw over time.
type series struct {
	bin  time.Duration
	bins []tally
}

// tally is what came in one bin.
type tally struct{ sent, accepted, refused int }

// binOf is a length of bins that suits a run of some length: whole seconds, at
// most 120 of them or so.
func binOf(d time.Duration) time.Duration {
	return max(time.Second, (d / 120).Truncate(time.Second))
}

func (s *series) add(row emulator.Row) {
	i := int(max(0, row.At) / s.bin)
	for len(s.bins) <= i {
		s.bins = append(s.bins, tally{})
	}
	b := &s.bins[i]
	b.sent++
	switch {
	case row.Executed:
		b.accepted++
	case row.RefusedBy != "" || row.Status == http.StatusServiceUnavailable:
		b.refused++
	}
}

// length is the time that the series covers.
func (s *series) length() time.Duration { return time.Duration(len(s.bins)) * s.bin }

// figures are what the table says of a contender in a scenario: medians of the
// runs for what is measured, the worst of them for what must not happen.
type figures struct {
	runs                      int
	span                      time.Duration
	ratio, perAccepted        float64
	unavailable               float64
	fairness                  float64
	early, lost, doubled, cut int64
	typical                   *outcome // the run with the median ratio, for the picture
}

func summarize(runs []*outcome) figures {
	f := figures{runs: len(runs)}
	var spans, ratios, per, unavailable, fairness []float64
	for _, o := range runs {
		spans = append(spans, o.span.Seconds())
		ratios = append(ratios, o.ratio())
		per = append(per, o.perAccepted())
		unavailable = append(unavailable, float64(o.unavailable))
		fairness = append(fairness, o.fairness)
		f.early = max(f.early, o.early)
		f.lost = max(f.lost, o.lost)
		f.doubled = max(f.doubled, o.doubled)
		f.cut = max(f.cut, o.unfinished)
	}
	f.span = time.Duration(median(spans) * float64(time.Second))
	f.ratio, f.perAccepted, f.unavailable, f.fairness = median(ratios), median(per), median(unavailable), median(fairness)
	byRatio := slices.SortedFunc(slices.Values(runs), func(a, b *outcome) int {
		if a.ratio() < b.ratio() {
			return -1
		}
		return 1
	})
	if len(byRatio) > 0 {
		f.typical = byRatio[(len(byRatio)-1)/2]
	}
	return f
}
