package main

import (
	"math"
	"slices"
	"time"

	"github.com/headgate/headgate/emulator"
)

// longest is the longest span that a scenario may need at best.
const longest = time.Hour

// ideal is the shortest span in which the server lets n calls through: that of
// a client which knows the limits, what the script does to them and the outages,
// and sends each call in the instant in which it is let through. Others take all
// that they ask for; what is left is the client's. It is not ok if that takes
// longer than longest. Nothing here is shared with the emulator.
func (s *Scenario) ideal(n int) (span time.Duration, ok bool) {
	var limits []model
	for _, l := range s.Limits {
		limits = append(limits, newModel(l, s.Script))
	}
	t := 0.0
	for range n {
		for {
			next := afterOutages(t, s.Script)
			for _, l := range limits {
				next = max(next, l.ready(next))
			}
			if next > longest.Seconds() {
				return 0, false
			}
			if next == t {
				break
			}
			t = next
		}
		for _, l := range limits {
			l.take(t)
		}
	}
	return time.Duration(math.Round(t * 1e9)), true
}

func afterOutages(t float64, script []fault) float64 {
	for moved := true; moved; {
		moved = false
		for _, f := range script {
			if f.Kind == emulator.Outage && t >= f.From.Seconds() && t < f.To.Seconds() {
				t, moved = f.To.Seconds(), true
			}
		}
	}
	return t
}

// model is a limit as the best client would see it. Its times are in seconds
// since the start and never go backwards.
type model interface {
	ready(t float64) float64 // when, from t on, one more is let through
	take(t float64)
}

func newModel(l limit, script []fault) model {
	switch l.Algorithm {
	case emulator.Fixed:
		return &fixedModel{max: l.Max, window: l.Window.Seconds(), phase: l.Phase.Seconds()}
	case emulator.Sliding:
		return &slidingModel{max: l.Max, window: l.Window.Seconds()}
	}
	return newBucketModel(l, script)
}

// bucketModel is a token bucket whose rate, less what others take of it,
// changes at certain times.
type bucketModel struct {
	steps []step // the first from 0 on, in order of time
	now   int    // the step in force
	level float64
	at    float64
}

type step struct{ from, rate, burst float64 }

func newBucketModel(l limit, script []fault) *bucketModel {
	times := []time.Duration{0}
	for _, f := range script {
		if f.Limit == l.Name {
			times = append(times, f.From, f.To)
		}
	}
	slices.Sort(times)
	b := &bucketModel{}
	for _, t := range slices.Compact(times) {
		rate, burst, since := l.Rate, l.Burst, time.Duration(-1)
		others := 0.0
		for _, f := range script {
			switch {
			case f.Limit != l.Name || t < f.From:
			case f.Kind == emulator.Traffic && (f.To == 0 || t < f.To):
				others += f.PerSecond
			case f.Kind == emulator.Change && f.From >= since:
				since = f.From
				if f.Rate > 0 {
					rate = f.Rate
				}
				if f.Burst > 0 {
					burst = f.Burst
				}
			}
		}
		b.steps = append(b.steps, step{t.Seconds(), max(0, rate-others), burst})
	}
	b.level = b.steps[0].burst
	return b
}

// advance brings the level to t.
func (b *bucketModel) advance(t float64) {
	for {
		s := b.steps[b.now]
		end := t
		if b.now+1 < len(b.steps) {
			end = min(end, b.steps[b.now+1].from)
		}
		b.level = min(s.burst, b.level+s.rate*(end-b.at))
		b.at = end
		if end == t {
			break
		}
		b.now++
		b.level = min(b.level, b.steps[b.now].burst)
	}
}

// slack is what a level may miss of a whole token by rounding.
const slack = 1e-9

func (b *bucketModel) ready(t float64) float64 {
	b.advance(t)
	probe := *b // its steps are read only
	for probe.level < 1-slack {
		s := probe.steps[probe.now]
		at := math.Inf(1)
		if s.rate > 0 {
			at = probe.at + (1-probe.level)/s.rate
		}
		if probe.now+1 < len(probe.steps) && at >= probe.steps[probe.now+1].from {
			next := probe.steps[probe.now+1]
			probe.level = min(next.burst, probe.level+s.rate*(next.from-probe.at))
			probe.at = next.from
			probe.now++
			continue
		}
		return at
	}
	return probe.at
}

func (b *bucketModel) take(t float64) {
	b.advance(t)
	b.level--
}

// fixedModel is a window that opens with the first that it lets through, or with a
// phase, by the clock.
type fixedModel struct {
	max    int
	window float64
	phase  float64
	opened float64
	count  int
}

func (f *fixedModel) ready(t float64) float64 {
	if f.count < f.max || t >= f.opened+f.window {
		return t
	}
	return f.opened + f.window
}

func (f *fixedModel) take(t float64) {
	if f.count == 0 || t >= f.opened+f.window {
		f.opened, f.count = t, 0
		if f.phase > 0 {
			f.opened = math.Floor((t+f.phase)/f.window)*f.window - f.phase
		}
	}
	f.count++
}

// slidingModel lets max through in any window.
type slidingModel struct {
	max    int
	window float64
	taken  []float64 // a ring once it is full
	oldest int
}

func (s *slidingModel) ready(t float64) float64 {
	if len(s.taken) < s.max {
		return t
	}
	return max(t, s.taken[s.oldest]+s.window)
}

func (s *slidingModel) take(t float64) {
	if len(s.taken) < s.max {
		s.taken = append(s.taken, t)
		return
	}
	s.taken[s.oldest] = t
	s.oldest = (s.oldest + 1) % s.max
}
