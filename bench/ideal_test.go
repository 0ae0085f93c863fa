package main

import (
	"math"
	"testing"
	"time"

	"github.com/headgate/headgate/emulator"
)

// What each built-in scenario allows, by hand.
func TestBuiltInIdeals(t *testing.T) {
	all := builtInScenarios(t)
	for name, want := range map[string]float64{
		"known":              900.0 / 50,
		"told-nothing":       900.0 / 50,
		"gives-less":         900.0 / 35,
		"gives-more":         3900.0 / 80,
		"others":             900.0 / 30,
		"others-come-and-go": 40 + 300.0/50, // 600, 900, 1400, 1700 after each ten seconds
		"halves-doubles":     30 + 900.0/50,
		"fixed-window":       18,
		"sliding-window":     18,
		"hidden-limit":       940.0 / 30,
		"outage":             13 + 401.0/50,
		"no-retry-after":     900.0 / 50,
		"fluctuating":        900.0 / 50,
		"not-enough":         18,
		"one-of-four-busy":   900.0 / 50,
		"four-processes":     1900.0 / 50,
		"fifteen-processes":  14900.0 / 50,
		"slow-answers":       900.0 / 50,
		"thousand":           19000.0 / 1000,
	} {
		s := all[name]
		if s == nil {
			t.Errorf("there is no scenario %s", name)
			continue
		}
		delete(all, name)
		if got, ok := s.ideal(s.Busy * s.Calls); !ok || math.Abs(got.Seconds()-want) > 1e-6 {
			t.Errorf("%s: %v, %v, want %v s", name, got, ok, want)
		}
	}
	for name := range all {
		t.Errorf("nobody has worked out the ideal of %s by hand", name)
	}
}

func TestIdeal(t *testing.T) {
	const sec = time.Second
	bucket := limit{Name: "b", Algorithm: emulator.Bucket, Rate: 50, Burst: 100}
	fixed := limit{Name: "f", Algorithm: emulator.Fixed, Max: 300, Window: 6 * sec}
	sliding := limit{Name: "s", Algorithm: emulator.Sliding, Max: 300, Window: 6 * sec}
	change := func(from time.Duration, rate float64) fault {
		return fault{Kind: emulator.Change, Limit: "b", From: from, Rate: rate}
	}
	others := func(from, to time.Duration, rate float64) fault {
		return fault{Kind: emulator.Traffic, Limit: "b", From: from, To: to, PerSecond: rate}
	}
	outage := fault{Kind: emulator.Outage, From: 8 * sec, To: 13 * sec}
	for _, tt := range []struct {
		name   string
		n      int
		limits []limit
		script []fault
		want   float64 // seconds
	}{
		{"none", 0, []limit{bucket}, nil, 0},
		{"the burst alone", 100, []limit{bucket}, nil, 0},
		{"one more", 101, []limit{bucket}, nil, 0.02},
		{"a bucket", 1000, []limit{bucket}, nil, 18},
		{"what others leave", 1000, []limit{bucket}, []fault{others(0, 0, 20)}, 30},
		// 100 + 10·50 by 10 s, then 30/s.
		{"others come", 700, []limit{bucket}, []fault{others(10*sec, 0, 20)}, 10 + 100.0/30},
		{"others come and go", 1000, []limit{bucket}, []fault{others(0, 10*sec, 20)}, 10 + 600.0/50},
		{"two kinds of others", 200, []limit{bucket}, []fault{others(0, 0, 20), others(0, 0, 20)}, 10},
		// 600 by 10 s, 500 more by 30 s, the rest at 50/s.
		{"halves and doubles", 2000, []limit{bucket}, []fault{change(10*sec, 25), change(30*sec, 50)}, 48},
		{"changes in any order", 2000, []limit{bucket}, []fault{change(30*sec, 50), change(10*sec, 25)}, 48},
		{"a smaller burst", 700, []limit{bucket}, []fault{{Kind: emulator.Change, Limit: "b", From: sec, Burst: 10}}, 12},
		{"a change of another limit", 1000, []limit{bucket}, []fault{{Kind: emulator.Change, Limit: "x", From: 0, Rate: 1}}, 18},
		// 499 before 8 s; at 13 s the bucket is full, and 401 are left for later.
		{"an outage", 1000, []limit{bucket}, []fault{outage}, 13 + 401.0/50},
		{"an outage afterwards", 400, []limit{bucket}, []fault{outage}, 6},
		{"two outages in a row", 501, []limit{bucket}, []fault{outage, {Kind: emulator.Outage, From: 13 * sec, To: 14 * sec}}, 14},
		{"a fixed window", 1000, []limit{fixed}, nil, 18},
		{"fixed windows by the clock", 1000, []limit{{Algorithm: emulator.Fixed, Max: 300, Window: 6 * sec, Phase: 4 * sec}}, nil, 14},
		{"a full fixed window", 300, []limit{fixed}, nil, 0},
		{"a sliding window", 1000, []limit{sliding}, nil, 18},
		// From 8 s on, the window of 6 s allows the rest only at 12 s.
		{"a window after an outage", 601, []limit{fixed}, []fault{outage}, 13},
		{"two buckets", 1000, []limit{bucket, {Name: "c", Algorithm: emulator.Bucket, Rate: 30, Burst: 60}}, nil, 940.0 / 30},
		{"a bucket and a window", 1000, []limit{bucket, {Name: "w", Algorithm: emulator.Sliding, Max: 100, Window: 10 * sec}}, nil, 90},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := &Scenario{Limits: tt.limits, Script: tt.script}
			got, ok := s.ideal(tt.n)
			if !ok || math.Abs(got.Seconds()-tt.want) > 1e-6 {
				t.Errorf("got %v, %v, want %v s", got, ok, tt.want)
			}
		})
	}
	s := &Scenario{Limits: []limit{bucket}, Script: []fault{others(0, 0, 50)}}
	if got, ok := s.ideal(101); ok {
		t.Errorf("others take everything, and it takes %v", got)
	}
}
