package bucket

import (
	"testing"
	"time"
)

// A quota that grows over several windows is not taken for more than the server has
// accepted of it.
func TestQuotaGrowsNoFurther(t *testing.T) {
	const holds = 600 // twice as many, to which it grows in one window
	b := New(Rule{Max: 300, Window: time.Minute, Learn: true})
	var now, end Instant
	count, refused := 0, 0
	for range 20_000 {
		now = b.Ready(now, 1)
		seq := b.Take(now, false, 100)
		if now >= end {
			end, count = now+time.Minute, 0
		}
		if count++; count <= holds {
			b.Accepted(now, seq, now+time.Millisecond)
		} else {
			count--
			refused++
			left := (end - now + time.Second - 1).Truncate(time.Second)
			b.Refused(now, seq, now, now+left, left, false)
		}
		now += time.Millisecond
		if quota := b.learner.window.quota; quota > holds+3+holds/32 {
			t.Fatalf("a quota of %d, and %d are accepted", quota, holds)
		}
	}
	if quota := b.learner.window.quota; quota != holds {
		t.Errorf("a quota of %d at the end", quota)
	}
	if refused > 20_000/500+5 {
		t.Errorf("%d refused", refused)
	}
}
