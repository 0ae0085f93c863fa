package headgate

import (
	"errors"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// Other limits hold from one instant to the next: those in line keep their
// order, and nothing is refilled.
func TestSetLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, err := NewLimiter(LimiterConfig{Limits: []Limit{{Name: "a", Rate: 1, Burst: 1, Learn: LearnOff}}})
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		var mu sync.Mutex
		var went []time.Duration
		var order []int
		var wg sync.WaitGroup
		for i := range 6 {
			wg.Go(func() {
				p, err := l.Take(t.Context(), Ask{Path: "/x"})
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				went, order = append(went, time.Since(start)), append(order, i)
				mu.Unlock()
				p.Done(Observation{Status: 200})
			})
			synctest.Wait()
		}
		time.Sleep(2500 * time.Millisecond) // 3 have gone, half a token is there
		if err := l.SetLimits([]Limit{{Name: "a", Rate: 2, Burst: 1, Learn: LearnOff}}); err != nil {
			t.Fatal(err)
		}
		wg.Wait()
		for i, want := range []time.Duration{0, 1000, 2000, 2750, 3250, 3750} {
			if got := went[i].Round(time.Millisecond); got != want*time.Millisecond || order[i] != i {
				t.Errorf("%d went as number %d after %v, want %v", order[i], i, got, want*time.Millisecond)
			}
		}
		if e := l.Estimates(); len(e) != 1 || e[0].Sent != 6 || e[0].Waiting != 0 {
			t.Errorf("%+v", e)
		}
		if err := l.SetLimits([]Limit{{Name: "a", Rate: -1}}); err == nil {
			t.Error("a limit that is none was taken")
		}
	})
}

// A refusal of a permit of the limits before closes the gate of those that hold.
func TestSetLimitsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, err := NewLimiter(LimiterConfig{Spread: -1, Limits: []Limit{{Name: "a", Rate: 100, Burst: 10}, {Name: "gone", Match: "/x", Rate: 5, Burst: 5}}})
		if err != nil {
			t.Fatal(err)
		}
		p, err := l.Take(t.Context(), Ask{Path: "/x"})
		if err != nil {
			t.Fatal(err)
		}
		if err := l.SetLimits([]Limit{{Name: "new", Match: "/y", Rate: 1, Burst: 1}, {Name: "a", Rate: 50, Burst: 10}}); err != nil {
			t.Fatal(err)
		}
		if !p.MayLeave() {
			t.Error("no gate has closed")
		}
		p.Done(Observation{Status: http.StatusTooManyRequests, Refused: true, Limit: "a", HasRetryAfter: true, RetryAfter: 7 * time.Second})
		start := time.Now()
		p, err = l.Take(t.Context(), Ask{Path: "/x"})
		if got := time.Since(start); err != nil || got != 7*time.Second {
			t.Errorf("went after %v: %v", got, err)
		}
		p.Return()
	})
}

// Shut refuses those who wait, and those who come.
func TestShut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, err := NewLimiter(LimiterConfig{Limits: []Limit{{Name: "a", Rate: 1, Burst: 1, Learn: LearnOff}}})
		if err != nil {
			t.Fatal(err)
		}
		out, err := l.Take(t.Context(), Ask{})
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for range 5 {
			wg.Go(func() {
				_, err := l.Take(t.Context(), Ask{})
				if !errors.Is(err, ErrShut) {
					t.Errorf("in line: %v", err)
				}
			})
		}
		synctest.Wait()
		l.Shut()
		wg.Wait()
		if _, err := l.Take(t.Context(), Ask{}); !errors.Is(err, ErrShut) {
			t.Errorf("after it: %v", err)
		}
		out.Done(Observation{Status: 200})
	})
}
