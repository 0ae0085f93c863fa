package headgate_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/headgate/headgate"
)

// refusedFor is a 429 that names limit.
func refusedFor(d time.Duration, limit string) headgate.Observation {
	return headgate.Observation{Status: 429, Refused: true, HasRetryAfter: true, RetryAfter: d, Limit: limit}
}

// waits collects what callers waited for.
type waits struct {
	mu  sync.Mutex
	got map[int]headgate.Wait
}

func (w *waits) of(i int, then func(headgate.Permit)) func(headgate.Permit) {
	return func(p headgate.Permit) {
		w.mu.Lock()
		if w.got == nil {
			w.got = map[int]headgate.Wait{}
		}
		w.got[i] = p.Wait
		w.mu.Unlock()
		then(p)
	}
}

// want compares the waits with the parts that each caller's is to have.
func (w *waits) want(t *testing.T, want map[int][]headgate.WaitPart) {
	t.Helper()
	for i, parts := range want {
		var total time.Duration
		for _, p := range parts {
			total += p.Total()
		}
		if got := w.got[i]; got.Total != total || !reflect.DeepEqual(got.Parts, parts) {
			t.Errorf("caller %d: %v %+v, want %+v", i, got, got, headgate.Wait{Total: total, Parts: parts})
		}
	}
}

const ms = time.Millisecond

// The gate is closed, then the bucket is empty: each has its part of the wait,
// for everybody in line, whenever they came.
func TestAWaitHasItsParts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := exact(t, limit("api", 2, 5))
		first, _ := l.Take(t.Context(), headgate.Ask{})
		first.Done(refusedFor(3*time.Second, "api"))
		c, w := newCrowd(), new(waits)
		for i := range 3 {
			c.take(t.Context(), l, i, headgate.Ask{}, w.of(i, answered))
		}
		time.Sleep(3200 * ms) // one is gone
		c.take(t.Context(), l, 3, headgate.Ask{}, w.of(3, answered))
		c.take(t.Context(), l, 4, headgate.Ask{Priority: headgate.MostUrgent}, w.of(4, answered))
		c.wg.Wait()
		w.want(t, map[int][]headgate.WaitPart{
			0: {{Limit: "api", RetryAfter: 3 * time.Second}},
			4: {{Limit: "api", Empty: 300 * ms}},
			1: {{Limit: "api", Empty: time.Second, RetryAfter: 3 * time.Second}},
			2: {{Limit: "api", Empty: 1500 * ms, RetryAfter: 3 * time.Second}},
			3: {{Limit: "api", Empty: 1800 * ms}},
		})
	})
}

// A gate that closes while the bucket is empty takes over from then on.
func TestAGateClosesOverAnEmptyBucket(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := exact(t, limit("api", 1, 2))
		p, _ := l.Take(t.Context(), headgate.Ask{})
		out, _ := l.Take(t.Context(), headgate.Ask{})
		answered(p)
		c, w := newCrowd(), new(waits)
		c.take(t.Context(), l, 0, headgate.Ask{}, w.of(0, answered))
		time.Sleep(400 * ms)
		out.Done(refusedFor(2*time.Second, "api"))
		c.wg.Wait()
		w.want(t, map[int][]headgate.WaitPart{0: {{Limit: "api", Empty: 400 * ms, RetryAfter: 2 * time.Second}}})
	})
}

// A gate that opens before there is a token leaves the rest to the bucket.
func TestAGateOpensOverAnEmptyBucket(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := exact(t, limit("api", 1, 1))
		p, _ := l.Take(t.Context(), headgate.Ask{})
		p.Done(refusedFor(300*ms, "api"))
		c, w := newCrowd(), new(waits)
		c.take(t.Context(), l, 0, headgate.Ask{}, w.of(0, answered))
		c.wg.Wait()
		w.want(t, map[int][]headgate.WaitPart{0: {{Limit: "api", Empty: 700 * ms, RetryAfter: 300 * ms}}})
	})
}

// Two limits hold a wait up one after the other.
func TestAWaitForTwoLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		flows := limit("flows", 1, 1)
		flows.Match = "/flows"
		l := exact(t, limit("token", 10, 2), flows)
		p, _ := l.Take(t.Context(), headgate.Ask{Path: "/flows"})
		answered(p)
		c, w := newCrowd(), new(waits)
		c.take(t.Context(), l, 0, headgate.Ask{Path: "/flows"}, w.of(0, answered)) // flows, 1 s
		time.Sleep(500 * ms)
		out, _ := l.Take(t.Context(), headgate.Ask{Path: "/other"})
		out.Done(refusedFor(2*time.Second, "token"))
		c.wg.Wait()
		w.want(t, map[int][]headgate.WaitPart{0: {
			{Limit: "token", RetryAfter: 2 * time.Second},
			{Limit: "flows", Empty: 500 * ms},
		}})
		if got, want := w.got[0].String(), "waited 2.5 s: token Retry-After 2.0 s; flows empty 0.5 s"; got != want {
			t.Errorf("%s, want %s", got, want)
		}
		if w.got[0].Limit() != "token" {
			t.Errorf("mostly for %s, want token", w.got[0].Limit())
		}
	})
}

// Who lets an earlier waiter of another lane have the token waits for the limit
// that they share.
func TestAWaitForTheTokenOfAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := limit("a", 0.5, 2)
		b := limit("b", 1, 1)
		b.Match = "/both"
		free := limit("free", 100, 100)
		free.Match = "/one"
		l := exact(t, free, a, b)
		p, _ := l.Take(t.Context(), headgate.Ask{Path: "/both"})
		answered(p) // a has one left, b none
		c, w := newCrowd(), new(waits)
		c.take(t.Context(), l, 0, headgate.Ask{Path: "/both"}, w.of(0, answered)) // waits for b; a's token is kept
		c.take(t.Context(), l, 1, headgate.Ask{Path: "/one"}, w.of(1, answered))
		c.wg.Wait()
		w.want(t, map[int][]headgate.WaitPart{
			0: {{Limit: "b", Empty: time.Second}},
			1: {{Limit: "a", Empty: 2 * time.Second}},
		})
	})
}

// A wait that ends without a permit explains itself as well.
func TestAWaitThatWasInVain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := exact(t, limit("api", 0.1, 1))
		p, _ := l.Take(t.Context(), headgate.Ask{})
		answered(p)
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(700*ms, cancel)
		_, err := l.Take(ctx, headgate.Ask{})
		var e *headgate.LimitError
		if !errors.As(err, &e) || e.Waited.String() != "waited 0.7 s: api empty 0.7 s" {
			t.Errorf("cancelled: %v", err)
		}

		// A gate moves its turn past its deadline.
		out, _ := l.Take(t.Context(), headgate.Ask{})
		c := newCrowd()
		c.take(t.Context(), l, 0, headgate.Ask{Until: time.Now().Add(20 * time.Second)}, answered)
		time.Sleep(2 * time.Second)
		out.Done(refusedFor(time.Minute, "api"))
		c.wg.Wait()
		if !errors.As(c.errs[0], &e) || e.Waited.Total != 2*time.Second || e.RetryAfter != time.Minute {
			t.Errorf("behind the gate: %v", c.errs[0])
		}
		if _, err := l.Take(t.Context(), ahead(headgate.Ask{})); !errors.As(err, &e) || !reflect.DeepEqual(e.Waited, headgate.Wait{}) {
			t.Errorf("at once: %v", err)
		}
	})
}

func TestCallsCountTheWaitsInVain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := &headgate.Transport{Base: &script{answers: []any{answer(200, "")}}, Limiter: exact(t, limit("api", 0.1, 1))}
		tr.Send(post(t, "{}"))
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(700*ms, cancel)
		_, tries, err := tr.Send(post(t, "{}").WithContext(ctx))
		if err == nil || tries.Waited() != 700*ms || tries.Waits["api"] != 700*ms {
			t.Errorf("%v, waits %v", err, tries.Waits)
		}
	})
}

// disturb keeps a share of l for the urgent, and pauses it, now and then in half
// a minute, unless seed is even.
func disturb(l *headgate.Limiter, r *rand.Rand, seed uint64) {
	if seed%2 == 0 {
		return
	}
	for range 6 {
		at := func() time.Duration { return time.Duration(r.IntN(30_000)) * ms }
		share, urgent := r.Float64(), r.IntN(8)-3
		time.AfterFunc(at(), func() { l.Reserve(share, urgent) })
		time.AfterFunc(at(), l.Pause)
		time.AfterFunc(at(), l.Resume)
	}
	time.AfterFunc(31*time.Second, func() { l.Reserve(0, 0) })
	time.AfterFunc(32*time.Second, l.Resume)
}

// Whatever holds them up, the parts of a wait are the whole of it: what the
// caller, the observer and the call's own tally are told.
func TestPartsAddUp(t *testing.T) {
	kinds := map[string]int{}
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 7))
			var mu sync.Mutex
			check := func(what string, total time.Duration, parts []headgate.WaitPart, want time.Duration) {
				mu.Lock()
				defer mu.Unlock()
				var sum time.Duration
				for _, p := range parts {
					sum += p.Total()
					if min(p.Empty, p.RetryAfter, p.Reserved, p.Paused) < 0 || p.Total() == 0 || p.Limit == "" {
						t.Errorf("seed %d: %s: part %+v", seed, what, p)
					}
				}
				if sum != total || total != want {
					t.Errorf("seed %d: %s: waited %v, told %v, the parts are %v: %+v", seed, what, want, total, sum, parts)
				}
				kinds[fmt.Sprint(what, " for ", min(len(parts), 2))]++
			}
			l := newLimiter(t, headgate.LimiterConfig{
				Limits: []headgate.Limit{
					{Name: "org", Per: headgate.PerOrg, Rate: 20, Burst: 10},
					{Name: "token", Rate: 10, Burst: 5},
					{Name: "path", Per: headgate.PerPath, Match: "/p/", Max: 5, Window: time.Second},
				},
				Observer: func(e headgate.Event) {
					if e.Kind == headgate.PermitWaited {
						check("event", e.Wait, e.Parts, e.Wait)
					}
				},
			})
			var wg sync.WaitGroup
			disturb(l, r, seed)
			for range 300 {
				ask := headgate.Ask{Caller: fmt.Sprint(r.IntN(4)), Weight: 4 * r.Float64(), Priority: r.IntN(8) - 3, Token: fmt.Sprint(r.IntN(3)), Path: []string{"/p/a", "/q", "/p/b", "/r"}[r.IntN(4)]}
				patience := time.Duration(r.IntN(20_000)) * ms
				comes, takes := time.Duration(r.IntN(3000))*ms, time.Duration(r.IntN(500))*ms
				kind, name := r.IntN(10), []string{"token", "path", "org", ""}[r.IntN(4)]
				wg.Go(func() {
					time.Sleep(comes)
					ctx, cancel := context.WithCancel(t.Context())
					defer cancel()
					if kind < 3 {
						time.AfterFunc(patience, cancel)
					}
					start := time.Now()
					p, err := l.Take(ctx, ask)
					if limit, ok := errors.AsType[*headgate.LimitError](err); ok {
						check("vain", limit.Waited.Total, limit.Waited.Parts, time.Since(start))
						return
					}
					check("permit", p.Wait.Total, p.Wait.Parts, time.Since(start))
					time.Sleep(takes)
					switch {
					case kind == 4:
						p.Return()
					case kind == 5 && takes < 200*ms:
						p.Done(refusedFor(2*time.Second, name))
					default:
						answered(p)
					}
				})
			}
			wg.Wait()
		})
	}
	for _, kind := range []string{"permit for 0", "permit for 1", "permit for 2", "vain for 1", "vain for 2", "event for 2"} {
		if kinds[kind] < 10 {
			t.Errorf("only %d of %s: %v", kinds[kind], kind, kinds)
		}
	}
}

// So they do where time passes between one caller's look at the clock and
// another's.
func TestPartsAddUpInRealTime(t *testing.T) {
	l := newLimiter(t, headgate.LimiterConfig{Limits: []headgate.Limit{{Name: "api", Rate: 1e6, Burst: 1}, {Name: "b", Rate: 1e6, Burst: 2}}})
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for range 2000 {
				p, err := l.Take(t.Context(), headgate.Ask{})
				if err != nil {
					t.Error(err)
					return
				}
				var sum time.Duration
				for _, part := range p.Wait.Parts {
					sum += part.Total()
				}
				if sum != p.Wait.Total || sum < 0 {
					t.Errorf("waited %v: %+v", p.Wait.Total, p.Wait.Parts)
					return
				}
				answered(p)
			}
		})
	}
	wg.Wait()
}

func TestWaitInWords(t *testing.T) {
	part := func(limit string, empty, after time.Duration) headgate.WaitPart {
		return headgate.WaitPart{Limit: limit, Empty: empty, RetryAfter: after}
	}
	for want, parts := range map[string][]headgate.WaitPart{
		"waited 3.1 s: token.rate.per.minute empty 2.4 s, Retry-After 0.7 s": {part("token.rate.per.minute", 2400*ms, 700*ms)},
		"waited 2m30s: a Retry-After 2m0s; b empty 30.0 s":                   {part("a", 0, 2*time.Minute), part("b", 30*time.Second, 0)},
		"waited 20.5 ms: a empty 20.5 ms":                                    {part("a", 20500*time.Microsecond, 0)},
		"waited 0.0 ms":                                                      nil,
	} {
		w := headgate.Wait{Parts: parts}
		for _, p := range parts {
			w.Total += p.Total()
		}
		if w.String() != want {
			t.Errorf("%s, want %s", w, want)
		}
	}
}
