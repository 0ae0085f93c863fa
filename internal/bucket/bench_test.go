package bucket

import (
	"testing"
	"time"
)

// inPhase are buckets whose learner is at each of its phases, or has none.
func inPhase() map[string]Bucket {
	m := map[string]Bucket{
		"off":     New(Rule{Rate: 50, Burst: 100}),
		"ramp":    New(Rule{Learn: true}),
		"trust":   New(Rule{Rate: 50, Burst: 100, Learn: true}),
		"contend": contending(10),
		"window":  New(Rule{Max: 300, Window: 6 * time.Second, Learn: true}),
	}
	track := New(Rule{Rate: 50, Burst: 100, Learn: true})
	track.learner.distrust()
	m["track"] = track
	search := contending(30)
	search.learner.rises(30)
	search.follow(0)
	m["search"] = search
	small := search // it holds little, and overflowed for a second
	small.learner.first = firstBurst{90, 1}
	small.learner.anchor.known = true
	small.learner.opened = time.Second
	m["search, small burst"] = small
	for name, b := range m {
		for i := range 400 { // until a window's log has its size
			b.accept(Instant(i) * 20 * time.Millisecond)
		}
		m[name] = b
	}
	return m
}

// accept is the event of a request that is accepted.
func (b *Bucket) accept(now Instant) {
	seq := b.Take(now, false, 100)
	b.Accepted(now, seq, now+5*time.Millisecond)
}

// refuse is the event of one that is refused, and what is concluded from it once
// the gate is open.
func (b *Bucket) refuse(now Instant) {
	seq := b.Take(now, false, 100)
	b.Refused(now, seq, now, now+time.Second, time.Second, false)
	b.settle(now + time.Second)
}

const begin = 400 * 20 * time.Millisecond

// Two events: Take and Accepted.
func BenchmarkAccepted(b *testing.B) {
	for name, bucket := range inPhase() {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			c, now := bucket, begin
			for b.Loop() {
				now += 20 * time.Millisecond
				c.accept(now)
			}
		})
	}
}

// Three events: Take, Refused, and settle, which learns from it. The copy of the
// bucket, to refuse it in the same phase again, is counted too. The one that costs
// more is the end of a search in a bucket of a small burst, once per search.
func BenchmarkRefused(b *testing.B) {
	for name, bucket := range inPhase() {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			now := begin
			for b.Loop() {
				c := bucket
				c.refuse(now)
			}
		})
	}
}

func TestNoAllocation(t *testing.T) {
	for name, bucket := range inPhase() {
		c, now := bucket, begin
		if n := testing.AllocsPerRun(1000, func() {
			now += 20 * time.Millisecond
			c.Ready(now, 1)
			c.Ready(now, 100)
			c.accept(now)
		}); n != 0 {
			t.Errorf("%s: %v allocations for an accepted request", name, n)
		}
		if n := testing.AllocsPerRun(1000, func() {
			c = bucket
			c.refuse(begin)
			c.Estimate(begin)
		}); n != 0 {
			t.Errorf("%s: %v allocations for a refused one", name, n)
		}
	}
}
