package headgate_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/headgate/headgate"
)

// Three lanes of which each waits for another one: nobody may go, and the timer
// must not fire before somebody can.
func TestWaitingIsIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := headgate.Limit{Name: "client", Per: headgate.PerClient, Rate: 0.02, Burst: 1}
		org := headgate.Limit{Name: "org", Per: headgate.PerOrg, Rate: 0.01, Burst: 1}
		l := exact(t, client, org, headgate.Limit{Name: "token", Rate: 100, Burst: 100})
		l.Restore([]headgate.State{{Limit: "token", Client: "c0", Token: "t0", At: time.Now(), Gate: time.Now().Add(3 * time.Second)}})
		c := newCrowd()
		c.take(t.Context(), l, 0, headgate.Ask{Client: "c0", Token: "t0", Priority: -3}, answered)
		c.take(t.Context(), l, 1, headgate.Ask{Client: "c1", Token: "t1", Priority: -2}, answered)
		c.take(t.Context(), l, 2, headgate.Ask{Client: "c1", Token: "t2", Priority: -1}, answered)
		c.wg.Wait()
		for i, want := range []time.Duration{3, 103, 203} {
			if c.went[i] != want*time.Second {
				t.Errorf("caller %d went after %v, want %v", i, c.went[i], want*time.Second)
			}
		}
	})
}

// Random callers of all kinds on limits of all kinds: everybody comes to an end,
// and nobody is left in line.
func TestManyLanes(t *testing.T) {
	for seed := range uint64(40) {
		synctest.Test(t, func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 1))
			l := exact(t,
				headgate.Limit{Name: "org", Per: headgate.PerOrg, Rate: 20, Burst: 10},
				headgate.Limit{Name: "token", Rate: 10, Burst: 5},
				headgate.Limit{Name: "path", Per: headgate.PerPath, Match: "/p/", Max: 5, Window: time.Second})
			var wg sync.WaitGroup
			start := time.Now()
			disturb(l, r, seed)
			for range 300 {
				ask := headgate.Ask{Caller: fmt.Sprint(r.IntN(4)), Weight: 4 * r.Float64(), Priority: r.IntN(8) - 3, Token: fmt.Sprint(r.IntN(3)), Path: []string{"/p/a", "/q", "/p/b"}[r.IntN(3)]}
				patience := time.Duration(r.IntN(20_000)) * time.Millisecond
				comes, takes := time.Duration(r.IntN(3000))*time.Millisecond, time.Duration(r.IntN(500))*time.Millisecond
				kind := r.IntN(10)
				wg.Go(func() {
					time.Sleep(comes)
					ctx := t.Context()
					switch {
					case kind < 3:
						c, cancel := context.WithCancel(ctx)
						defer cancel()
						time.AfterFunc(patience, cancel)
						ctx = c
					case kind == 3:
						ask.Until = time.Now().Add(patience)
					}
					p, err := l.Take(ctx, ask)
					if err != nil {
						return
					}
					if kind == 4 {
						p.Return()
						return
					}
					time.Sleep(takes)
					switch {
					case kind == 5 && takes < 100*time.Millisecond:
						p.Done(headgate.Observation{Status: 429, Refused: true, HasRetryAfter: true, RetryAfter: 2 * time.Second})
					case kind == 6:
						p.Done(headgate.Observation{})
					default:
						answered(p)
					}
				})
			}
			wg.Wait()
			if n := headgate.Waiting(l); n != 0 || time.Since(start) > 5*time.Minute {
				t.Errorf("seed %d: %d are left in line after %v", seed, n, time.Since(start))
			}
			for _, u := range l.Callers() {
				if u.Waiting != 0 {
					t.Errorf("seed %d: %+v", seed, u)
				}
			}
			if line := l.Line(10); len(line) != 0 {
				t.Errorf("seed %d: %+v", seed, line)
			}
		})
	}
}

// Those whom another bucket holds up do not count as being ahead.
func TestOthersBehindAGateAreNotAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		org := headgate.Limit{Name: "org", Per: headgate.PerOrg, Rate: 10, Burst: 100}
		l := exact(t, org, headgate.Limit{Name: "token", Rate: 100, Burst: 100})
		p, _ := l.Take(t.Context(), headgate.Ask{Token: "a"})
		p.Done(headgate.Observation{Status: 429, Refused: true, Limit: "token", HasRetryAfter: true, RetryAfter: 10 * time.Minute})
		ctx, cancel := context.WithCancel(t.Context())
		c := newCrowd()
		for i := range 1000 {
			c.take(ctx, l, i, headgate.Ask{Token: "a"}, answered)
		}
		deadline, done := context.WithTimeout(t.Context(), 5*time.Second)
		defer done()
		start := time.Now()
		if _, err := l.Take(deadline, headgate.Ask{Token: "b"}); err != nil || time.Since(start) != 0 {
			t.Errorf("got %v after %v", err, time.Since(start))
		}
		cancel()
		c.wg.Wait()
	})
}

// A bucket is kept as long as an answer may still come that is about it.
func TestBucketsWithPermitsOutAreKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := exact(t)
		out, _ := l.Take(t.Context(), headgate.Ask{Token: "a"})
		for i := range 3000 {
			p, _ := l.Take(t.Context(), headgate.Ask{Token: fmt.Sprint(i)})
			answered(p)
		}
		out.Done(headgate.Observation{Status: 429, Refused: true, HasRetryAfter: true, RetryAfter: time.Minute})
		var limit *headgate.LimitError
		if _, err := l.Take(t.Context(), ahead(headgate.Ask{Token: "a"})); !errors.As(err, &limit) || limit.RetryAfter != time.Minute {
			t.Errorf("got %v, want the gate", err)
		}
	})
}

// Tokens come and go while the bucket of their org is never full.
func TestLanesOfABusyBucketAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := exact(t, headgate.Limit{Name: "org", Per: headgate.PerOrg, Rate: 10, Burst: 100}, headgate.Limit{Name: "token", Rate: 10, Burst: 10})
		for i := range 20_000 {
			p, _ := l.Take(t.Context(), headgate.Ask{Token: fmt.Sprint(i)})
			answered(p)
			time.Sleep(100 * time.Millisecond)
		}
		if n := headgate.Accounts(l); n > 4096 {
			t.Errorf("%d buckets are kept", n)
		}
	})
}

// A restart while the probe is on its way lets no crowd go.
func TestRestartBehindAGate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, limits := range [][]headgate.Limit{nil, {limit("api", 100, 50)}} {
			a := exact(t)
			p, _ := a.Take(t.Context(), headgate.Ask{Token: "t"})
			p.Done(headgate.Observation{Status: 429, Refused: true, HasRetryAfter: true, RetryAfter: time.Minute})
			b := exact(t, limits...) // with limits: the gate holds for the token all the same
			b.Restore(a.Snapshot())
			var limit *headgate.LimitError
			if _, err := b.Take(t.Context(), ahead(headgate.Ask{Token: "t"})); !errors.As(err, &limit) || limit.RetryAfter != time.Minute {
				t.Errorf("%d limits: got %v, want the gate", len(limits), err)
			}
			time.Sleep(2 * time.Minute)
			b = exact(t, limits...)
			b.Restore(a.Snapshot())
			went := 0
			for range 5 {
				if _, err := b.Take(t.Context(), ahead(headgate.Ask{Token: "t"})); err == nil {
					went++
				}
			}
			if went != 1 {
				t.Errorf("%d limits: %d went, want the probe", len(limits), went)
			}
		}
	})
}
