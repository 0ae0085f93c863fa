package main

import (
	"math"
	"testing"
	"time"

	"github.com/headgate/headgate/emulator"
)

func TestJain(t *testing.T) {
	for _, tt := range []struct {
		x    []float64
		want float64
	}{
		{nil, 0},
		{[]float64{0, 0}, 0},
		{[]float64{3}, 1},
		{[]float64{2, 2, 2, 2}, 1},
		{[]float64{5, 0, 0, 0}, 0.25},
		{[]float64{1, 2, 3}, 36.0 / 42},
	} {
		if got := jain(tt.x); math.Abs(got-tt.want) > 1e-12 {
			t.Errorf("jain(%v) = %v, want %v", tt.x, got, tt.want)
		}
	}
}

func TestMedian(t *testing.T) {
	for _, tt := range []struct {
		values []float64
		want   float64
	}{{nil, 0}, {[]float64{4}, 4}, {[]float64{9, 1, 5}, 5}, {[]float64{4, 1, 2, 9}, 3}} {
		if got := median(tt.values); got != tt.want {
			t.Errorf("median(%v) = %v, want %v", tt.values, got, tt.want)
		}
	}
}

func TestSummarize(t *testing.T) {
	run := func(span, ideal time.Duration, early, lost int64) *outcome {
		return &outcome{span: span, ideal: ideal, accepted: 100, refused: int64(span.Seconds()), early: early, lost: lost}
	}
	f := summarize([]*outcome{
		run(12*time.Second, 10*time.Second, 0, 0),
		run(30*time.Second, 10*time.Second, 0, 7),
		run(11*time.Second, 10*time.Second, 3, 0),
	})
	if f.runs != 3 || f.span != 12*time.Second || f.ratio != 1.2 || f.perAccepted != 0.12 {
		t.Errorf("medians: %+v", f)
	}
	if f.early != 3 || f.lost != 7 {
		t.Errorf("early %d and lost %d are not the worst of the runs", f.early, f.lost)
	}
	if f.typical.span != 12*time.Second {
		t.Errorf("the picture would show the run of %v", f.typical.span)
	}
}

func TestRead(t *testing.T) {
	ledger := func(yield func(emulator.Row) bool) {
		const sec = time.Second
		for _, row := range []emulator.Row{
			{At: 200 * time.Millisecond, Token: "1", Executed: true, Status: 200},
			{At: 900 * time.Millisecond, Token: "2", RefusedBy: "l", Status: 429},
			{At: 1100 * time.Millisecond, Token: "2", Status: 503},
			{At: 2 * sec, Token: "1", Executed: true, Status: 200},
			{At: 4 * sec, Token: "2", Executed: true, Status: 200},
		} {
			if !yield(row) {
				return
			}
		}
	}
	o := outcome{cell: cell{scenario: &Scenario{Busy: 3, Deadline: 30 * time.Second}}}
	o.read(ledger, emulator.Report{Span: 3800 * time.Millisecond})
	if o.span != 4*time.Second {
		t.Errorf("span %v, want that from the start on", o.span)
	}
	if want := jain([]float64{1, 0.25, 0}); math.Abs(o.fairness-want) > 1e-12 {
		t.Errorf("fairness %v, want %v: the third process got nothing", o.fairness, want)
	}
	want := []tally{{2, 1, 1}, {1, 0, 1}, {1, 1, 0}, {}, {1, 1, 0}}
	if o.series.bin != time.Second || len(o.series.bins) != len(want) {
		t.Fatalf("series %+v", o.series)
	}
	for i, b := range o.series.bins {
		if b != want[i] {
			t.Errorf("second %d: %+v, want %+v", i, b, want[i])
		}
	}
}
