package headgate_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/headgate/headgate"
)

func newLimiter(t testing.TB, c headgate.LimiterConfig) *headgate.Limiter {
	t.Helper()
	l, err := headgate.NewLimiter(c)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// rate10 is a bucket of which 10 tokens are usable: a tenth of the burst, 0.9,
// is the reserve.
func limit(name string, rate, usable float64) headgate.Limit {
	return headgate.Limit{Name: name, Rate: rate, Burst: usable / 0.9}
}

// crowd starts n callers one after the other and collects when each went.
type crowd struct {
	mu    sync.Mutex
	start time.Time
	went  map[int]time.Duration
	order []int
	errs  map[int]error
	wg    sync.WaitGroup
}

func newCrowd() *crowd {
	return &crowd{start: time.Now(), went: map[int]time.Duration{}, errs: map[int]error{}}
}

func (c *crowd) take(ctx context.Context, l *headgate.Limiter, i int, ask headgate.Ask, then func(headgate.Permit)) {
	c.wg.Go(func() {
		p, err := l.Take(ctx, ask)
		c.mu.Lock()
		if err != nil {
			c.errs[i] = err
		} else {
			c.went[i] = time.Since(c.start)
			c.order = append(c.order, i)
		}
		c.mu.Unlock()
		if err == nil && then != nil {
			then(p)
		}
	})
	synctest.Wait() // it stands in line before the next one comes
}

func answered(p headgate.Permit) { p.Done(headgate.Observation{Status: 200}) }

func TestPermitsFollowThePace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter(t, headgate.LimiterConfig{Limits: []headgate.Limit{limit("api", 4, 2)}})
		c := newCrowd()
		for i := range 6 {
			c.take(t.Context(), l, i, headgate.Ask{}, answered)
		}
		c.wg.Wait()
		for i, want := range []time.Duration{0, 0, 250, 500, 750, 1000} {
			if got := c.went[i]; got != want*time.Millisecond {
				t.Errorf("caller %d went after %v, want %v", i, got, want*time.Millisecond)
			}
		}
	})
}

func TestPriorityThenArrival(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter(t, headgate.LimiterConfig{Limits: []headgate.Limit{limit("api", 1, 1)}})
		c := newCrowd()
		for i, priority := range []int{0, 4, 0, -3, 0, 4, 99, -99} {
			c.take(t.Context(), l, i, headgate.Ask{Priority: priority}, answered)
		}
		c.wg.Wait()
		if want := []int{0, 3, 7, 2, 4, 1, 5, 6}; !slices.Equal(c.order, want) {
			t.Errorf("order %v, want %v", c.order, want)
		}
	})
}

func TestCancelledCallerGivesItsPlaceBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter(t, headgate.LimiterConfig{Limits: []headgate.Limit{limit("api", 1, 1)}})
		c := newCrowd()
		ctx, cancel := context.WithCancel(t.Context())
		c.take(t.Context(), l, 0, headgate.Ask{}, answered)
		c.take(ctx, l, 1, headgate.Ask{}, answered)
		c.take(t.Context(), l, 2, headgate.Ask{}, answered)
		time.Sleep(500 * time.Millisecond)
		cancel()
		c.wg.Wait()
		if c.went[2] != time.Second {
			t.Errorf("the one behind went after %v, want 1s", c.went[2])
		}
		var limit *headgate.LimitError
		if err := c.errs[1]; !errors.Is(err, context.Canceled) || !errors.As(err, &limit) || limit.Limit != "api" {
			t.Errorf("the cancelled one got %v", err)
		}
	})
}

func TestUnusedPermitIsReturned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter(t, headgate.LimiterConfig{Limits: []headgate.Limit{limit("api", 1, 1)}})
		c := newCrowd()
		c.take(t.Context(), l, 0, headgate.Ask{}, func(p headgate.Permit) {
			time.Sleep(300 * time.Millisecond)
			p.Return()
		})
		c.take(t.Context(), l, 1, headgate.Ask{}, answered)
		c.wg.Wait()
		if c.went[1] != 300*time.Millisecond {
			t.Errorf("went after %v, want 300ms", c.went[1])
		}
	})
}

func TestRefusedAtOnceIfTheDeadlineCannotBeMet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter(t, headgate.LimiterConfig{Limits: []headgate.Limit{limit("api", 2, 1)}})
		c := newCrowd()
		for i := range 5 { // the last of them goes after 2 s
			c.take(t.Context(), l, i, headgate.Ask{}, answered)
		}
		start := time.Now()
		for name, take := range map[string]func() error{
			"context": func() error {
				ctx, cancel := context.WithTimeout(t.Context(), 2400*time.Millisecond)
				defer cancel()
				_, err := l.Take(ctx, headgate.Ask{})
				return err
			},
			"Until": func() error {
				_, err := l.Take(t.Context(), headgate.Ask{Until: start.Add(2400 * time.Millisecond)})
				return err
			},
		} {
			var limit *headgate.LimitError
			if err := take(); !errors.As(err, &limit) {
				t.Fatalf("%s: got %v, want a LimitError", name, err)
			}
			if time.Since(start) != 0 {
				t.Errorf("%s: refused after %v, want at once", name, time.Since(start))
			}
			if limit.Limit != "api" || limit.Wait != 2500*time.Millisecond || !limit.At.Equal(start.Add(limit.Wait)) || limit.Err != nil {
				t.Errorf("%s: got %+v", name, limit)
			}
		}
		c.wg.Wait()
	})
}

// 200 wait while a Retry-After is announced: nobody goes before it ends, then
// one probe, then all at the bucket's pace.
func TestOneRetryAfterHoldsEverybodyBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var events []headgate.Event
		var mu sync.Mutex
		l := newLimiter(t, headgate.LimiterConfig{
			Limits: []headgate.Limit{limit("api", 50, 10)}, Spread: -1,
			Observer: func(e headgate.Event) {
				mu.Lock()
				defer mu.Unlock()
				if e.Kind != headgate.PermitWaited {
					events = append(events, e)
				}
			},
		})
		first, err := l.Take(t.Context(), headgate.Ask{})
		if err != nil {
			t.Fatal(err)
		}
		first.Done(headgate.Observation{Status: 429, Refused: true, HasRetryAfter: true, RetryAfter: 3 * time.Second})
		c := newCrowd()
		for i := range 200 {
			c.take(t.Context(), l, i, headgate.Ask{}, func(p headgate.Permit) {
				time.Sleep(5 * time.Millisecond)
				answered(p)
			})
		}
		c.wg.Wait()
		for i := range 200 {
			if want := 3*time.Second + time.Duration(i)*20*time.Millisecond; c.went[i] != want {
				t.Fatalf("caller %d went after %v, want %v", i, c.went[i], want)
			}
		}
		if len(events) != 2 || events[0].Kind != headgate.GateClosed || events[0].Wait != 3*time.Second || events[1].Kind != headgate.GateOpened {
			t.Errorf("events %v", events)
		}
	})
}

func TestProbeThatIsRefusedClosesTheGateAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter(t, headgate.LimiterConfig{Limits: []headgate.Limit{limit("api", 50, 10)}, Spread: -1})
		refused := headgate.Observation{Status: 429, Refused: true, HasRetryAfter: true, RetryAfter: time.Second}
		p, _ := l.Take(t.Context(), headgate.Ask{})
		p.Done(refused)
		c := newCrowd()
		for i := range 5 {
			c.take(t.Context(), l, i, headgate.Ask{}, func(p headgate.Permit) {
				time.Sleep(100 * time.Millisecond)
				if time.Since(c.start) < 3*time.Second {
					p.Done(refused)
				} else {
					answered(p)
				}
			})
		}
		c.wg.Wait()
		for i, want := range []time.Duration{1000, 2100, 3200, 3300, 3300} {
			if got := c.went[i]; got != want*time.Millisecond {
				t.Errorf("caller %d went after %v, want %v", i, got, want*time.Millisecond)
			}
		}
	})
}

// Without a known rate the others follow the probe in a slow start: the answer
// to one lets two go.
func TestSlowStartWithoutAKnownRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter(t, headgate.LimiterConfig{Spread: -1})
		p, _ := l.Take(t.Context(), headgate.Ask{})
		p.Done(headgate.Observation{Status: 429, Refused: true, HasRetryAfter: true, RetryAfter: time.Second})
		c := newCrowd()
		for i := range 15 {
			c.take(t.Context(), l, i, headgate.Ask{}, func(p headgate.Permit) {
				time.Sleep(100 * time.Millisecond)
				answered(p)
			})
		}
		c.wg.Wait()
		at := map[time.Duration]int{}
		for _, d := range c.went {
			at[d]++
		}
		for i, want := range []int{1, 2, 4, 8} {
			if got := at[time.Second+time.Duration(i)*100*time.Millisecond]; got != want {
				t.Errorf("round trip %d: %d went, want %d (%v)", i, got, want, at)
			}
		}
	})
}

// A probe that nobody answers does not close the gate for ever.
func TestUnansweredProbeLetsTheNextOneGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter(t, headgate.LimiterConfig{Limits: []headgate.Limit{limit("api", 50, 10)}, Spread: -1})
		p, _ := l.Take(t.Context(), headgate.Ask{})
		p.Done(headgate.Observation{Status: 429, Refused: true, HasRetryAfter: true, RetryAfter: time.Second})
		c := newCrowd()
		c.take(t.Context(), l, 0, headgate.Ask{}, nil) // never answered
		c.take(t.Context(), l, 1, headgate.Ask{}, func(p headgate.Permit) { p.Done(headgate.Observation{}) })
		c.take(t.Context(), l, 2, headgate.Ask{}, answered)
		c.wg.Wait()
		if c.went[0] != time.Second || c.went[1] != 3*time.Second || c.went[2] > 3020*time.Millisecond {
			t.Errorf("went after %v", c.went)
		}
	})
}

func TestRefusalWithoutRetryAfterGrows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter(t, headgate.LimiterConfig{Spread: -1})
		missing := func(n int) time.Duration { return 5 * time.Second << n }
		for _, want := range []time.Duration{0, 5, 10, 20} {
			start := time.Now()
			p, err := l.Take(t.Context(), headgate.Ask{})
			if err != nil {
				t.Fatal(err)
			}
			if got := time.Since(start); got != want*time.Second {
				t.Errorf("went after %v, want %v", got, want*time.Second)
			}
			p.Done(headgate.Observation{Status: 429, Refused: true, Missing: missing})
		}
		p, _ := l.Take(t.Context(), headgate.Ask{})
		answered(p)
		start := time.Now()
		p, _ = l.Take(t.Context(), headgate.Ask{})
		p.Done(headgate.Observation{Status: 429, Refused: true, Missing: missing})
		l.Take(t.Context(), headgate.Ask{})
		if got := time.Since(start); got != 5*time.Second {
			t.Errorf("after an accepted one it waited %v, want 5s again", got)
		}
	})
}

// Refusals of one crowd count once, and the longest Retry-After holds.
func TestACrowdOfRefusalsIsOneRefusal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter(t, headgate.LimiterConfig{Spread: -1})
		var permits []headgate.Permit
		for range 20 {
			p, _ := l.Take(t.Context(), headgate.Ask{})
			permits = append(permits, p)
		}
		counted := map[int]int{}
		start := time.Now()
		for i, p := range permits {
			time.Sleep(time.Millisecond)
			p.Done(headgate.Observation{Status: 429, Refused: true, HasRetryAfter: i == 7, RetryAfter: 8 * time.Second,
				Missing: func(n int) time.Duration { counted[n]++; return time.Second }})
		}
		l.Take(t.Context(), headgate.Ask{})
		if got := time.Since(start); got != 8*time.Second+8*time.Millisecond {
			t.Errorf("waited %v, want the longest Retry-After", got)
		}
		if counted[0] != 19 {
			t.Errorf("counted %v: want one refusal in a row for all", counted)
		}
	})
}

func TestRetryAfterZeroIsNoBusyLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter(t, headgate.LimiterConfig{Spread: -1})
		sent, start := 0, time.Now()
		for time.Since(start) < 10*time.Second {
			p, err := l.Take(t.Context(), headgate.Ask{})
			if err != nil {
				t.Fatal(err)
			}
			sent++
			p.Done(headgate.Observation{Status: 429, Refused: true, HasRetryAfter: true})
		}
		if sent > 12 {
			t.Errorf("%d requests in 10 s against a server that says Retry-After: 0", sent)
		}
	})
}

func TestRetryAfterOverTheCapIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter(t, headgate.LimiterConfig{Spread: -1})
		p, _ := l.Take(t.Context(), headgate.Ask{})
		late, _ := l.Take(t.Context(), headgate.Ask{})
		p.Done(headgate.Observation{Status: 429, Refused: true, HasRetryAfter: true, RetryAfter: time.Minute})
		c := newCrowd()
		c.take(t.Context(), l, 0, headgate.Ask{MaxRetryAfter: time.Hour}, nil)
		c.take(t.Context(), l, 1, headgate.Ask{}, answered)
		c.take(t.Context(), l, 2, headgate.Ask{Until: c.start.Add(2 * time.Hour)}, nil)
		late.Done(headgate.Observation{Status: 429, Refused: true, HasRetryAfter: true, RetryAfter: 24 * time.Hour})
		synctest.Wait()
		var limit *headgate.LimitError
		if err := c.errs[0]; !errors.As(err, &limit) || limit.RetryAfter != 24*time.Hour {
			t.Errorf("who waits an hour at most got %v", err)
		}
		if err := c.errs[2]; !errors.As(err, &limit) || time.Since(c.start) != 0 {
			t.Errorf("whose deadline is over before that got %v after %v", err, time.Since(c.start))
		}
		_, err := l.Take(t.Context(), headgate.Ask{MaxRetryAfter: time.Hour})
		if !errors.As(err, &limit) || limit.RetryAfter != 24*time.Hour {
			t.Errorf("the next one got %v", err)
		}
		c.wg.Wait()
		if c.went[1] != 24*time.Hour {
			t.Errorf("who has time went after %v", c.went[1])
		}
	})
}

func TestSpreadIsAddedOnTop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		distinct := map[time.Duration]bool{}
		for range 20 {
			l := newLimiter(t, headgate.LimiterConfig{})
			p, _ := l.Take(t.Context(), headgate.Ask{})
			p.Done(headgate.Observation{Status: 429, Refused: true, HasRetryAfter: true, RetryAfter: 2 * time.Second})
			start := time.Now()
			l.Take(t.Context(), headgate.Ask{})
			waited := time.Since(start)
			if waited < 2*time.Second || waited > 2200*time.Millisecond {
				t.Errorf("waited %v", waited)
			}
			distinct[waited] = true
		}
		if len(distinct) < 10 {
			t.Errorf("only %d different waits", len(distinct))
		}
	})
}

func TestLimitsAreTakenAllOrNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		org := limit("org", 10, 4)
		org.Per = headgate.PerOrg
		flows := limit("flows", 1, 1)
		flows.Per, flows.Match = headgate.PerPath, "/flows/"
		l := newLimiter(t, headgate.LimiterConfig{Limits: []headgate.Limit{org, flows}})
		c := newCrowd()
		c.take(t.Context(), l, 0, headgate.Ask{Path: "/flows/1"}, answered)
		c.take(t.Context(), l, 1, headgate.Ask{Path: "/flows/2"}, answered)   // waits for flows, same template
		c.take(t.Context(), l, 2, headgate.Ask{Path: "/other"}, answered)     // org only: not held up
		c.take(t.Context(), l, 3, headgate.Ask{Path: "/flows/a/b"}, answered) // another path
		c.take(t.Context(), l, 4, headgate.Ask{Path: "/other"}, answered)
		c.take(t.Context(), l, 5, headgate.Ask{Path: "/other"}, answered) // org is empty now
		c.wg.Wait()
		want := map[int]time.Duration{0: 0, 1: time.Second, 2: 0, 3: 0, 4: 0, 5: 100 * time.Millisecond}
		for i := range 6 {
			if c.went[i] != want[i] {
				t.Errorf("caller %d went after %v, want %v", i, c.went[i], want[i])
			}
		}
	})
}

// Who needs two buckets must not starve beside a crowd that empties one.
func TestWhoNeedsTwoBucketsDoesNotStarve(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := limit("a", 10, 1)
		b := limit("b", 3, 1)
		b.Match = "/both"
		l := newLimiter(t, headgate.LimiterConfig{Limits: []headgate.Limit{a, b}})
		c := newCrowd()
		for i := range 100 {
			path := "/one"
			if i%10 == 5 {
				path = "/both"
			}
			c.take(t.Context(), l, i, headgate.Ask{Path: path}, answered)
		}
		c.wg.Wait()
		// 100 tokens at 10/s: the bucket a is never left unused.
		if last := slices.Max(slices.Collect(func(yield func(time.Duration) bool) {
			for _, d := range c.went {
				if !yield(d) {
					return
				}
			}
		})); last > 10*time.Second {
			t.Errorf("the last one went after %v", last)
		}
		for i := 5; i < 100; i += 10 {
			turn := time.Duration(i) * 100 * time.Millisecond
			if wait := c.went[i] - turn; wait > 400*time.Millisecond {
				t.Errorf("caller %d went %v after its turn", i, wait)
			}
		}
	})
}

func TestKeysHaveTheirOwnBuckets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, per := range []headgate.Per{headgate.PerToken, headgate.PerClient, headgate.PerOrg, headgate.PerPath} {
			one := limit("one", 1, 1)
			one.Per = per
			l := newLimiter(t, headgate.LimiterConfig{Limits: []headgate.Limit{one}})
			ask := headgate.Ask{Org: "o", Client: "c", Token: "t", Path: "/p"}
			other := map[headgate.Per]headgate.Ask{
				headgate.PerToken:  {Org: "o", Client: "c", Token: "u", Path: "/p"},
				headgate.PerClient: {Org: "o", Client: "d", Token: "t", Path: "/p"},
				headgate.PerOrg:    {Org: "p", Client: "c", Token: "t", Path: "/p"},
				headgate.PerPath:   {Org: "o", Client: "c", Token: "t", Path: "/q"},
			}
			for _, a := range []headgate.Ask{ask, other[per]} {
				if _, err := l.Take(t.Context(), ahead(a)); err != nil {
					t.Errorf("%v: %v", per, err)
				}
			}
			if _, err := l.Take(t.Context(), ahead(ask)); err == nil {
				t.Errorf("%v: the same key has a second bucket", per)
			}
		}
	})
}

// ahead refuses to wait.
func ahead(a headgate.Ask) headgate.Ask {
	a.Until = time.Now()
	return a
}

func TestNamedLimitClosesItsGateOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		flows := limit("flows", 10, 5)
		flows.Match = "/flows"
		token := limit("token", 10, 5)
		l := newLimiter(t, headgate.LimiterConfig{Limits: []headgate.Limit{token, flows}, Spread: -1})
		for limit, want := range map[string][2]time.Duration{
			"flows":  {10 * time.Second, 0},
			"token":  {10 * time.Second, 10 * time.Second},
			"hidden": {10 * time.Second, 10 * time.Second}, // nobody knows it: the token's
		} {
			p, err := l.Take(t.Context(), headgate.Ask{Path: "/flows"})
			if err != nil {
				t.Fatal(err)
			}
			p.Done(headgate.Observation{Status: 429, Refused: true, HasRetryAfter: true, RetryAfter: 10 * time.Second, Limit: limit})
			for i, path := range []string{"/flows", "/other"} {
				var e *headgate.LimitError
				_, err := l.Take(t.Context(), ahead(headgate.Ask{Path: path}))
				if errors.As(err, &e); e == nil && want[i] != 0 || e != nil && e.RetryAfter != want[i] {
					t.Errorf("%s refused: %s got %v, want to wait %v", limit, path, err, want[i])
				}
			}
			time.Sleep(20 * time.Second)
			for _, path := range []string{"/flows", "/other"} {
				p, _ := l.Take(t.Context(), headgate.Ask{Path: path})
				answered(p)
			}
			time.Sleep(20 * time.Second)
		}
	})
}

func TestWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter(t, headgate.LimiterConfig{Limits: []headgate.Limit{{Name: "w", Max: 3, Window: 6 * time.Second}}})
		c := newCrowd()
		for i := range 2 {
			c.take(t.Context(), l, i, headgate.Ask{}, answered)
		}
		time.Sleep(time.Second)
		for i := range 6 {
			c.take(t.Context(), l, i+2, headgate.Ask{}, answered)
		}
		c.wg.Wait()
		for i, want := range []time.Duration{0, 0, 1000, 6025, 6025, 7025, 12050, 12050} {
			if got := c.went[i]; got != want*time.Millisecond {
				t.Errorf("caller %d went after %v, want %v", i, got, want*time.Millisecond)
			}
		}
	})
}

// Whatever comes, no span of time sees more permits than the limits allow.
func TestNeverMoreThanTheLimits(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		rate := rapid.Float64Range(0.5, 200).Draw(rt, "rate")
		burst := rapid.Float64Range(1, 50).Draw(rt, "burst")
		window := headgate.Limit{Name: "w", Match: "/w", Max: rapid.IntRange(1, 20).Draw(rt, "max"), Window: time.Duration(rapid.IntRange(1, 5000).Draw(rt, "window")) * time.Millisecond}
		gaps := rapid.SliceOfN(rapid.IntRange(0, 300), 1, 60).Draw(rt, "gaps")
		synctest.Test(t, func(t *testing.T) {
			l := newLimiter(t, headgate.LimiterConfig{Limits: []headgate.Limit{{Name: "b", Rate: rate, Burst: burst}, window}})
			c := newCrowd()
			for i, gap := range gaps {
				time.Sleep(time.Duration(gap) * time.Millisecond)
				path := "/b"
				if i%3 == 0 {
					path = "/w"
				}
				c.take(t.Context(), l, i, headgate.Ask{Path: path, Priority: i % 3}, answered)
			}
			c.wg.Wait()
			var all, windowed []time.Duration
			for i, d := range c.went {
				all = append(all, d)
				if i%3 == 0 {
					windowed = append(windowed, d)
				}
			}
			slices.Sort(all)
			slices.Sort(windowed)
			for i := range all {
				for j := i; j < len(all); j++ {
					if n, most := float64(j-i+1), burst+rate*(all[j]-all[i]).Seconds(); n > most+1e-3 {
						rt.Fatalf("%v permits within %v, the bucket has %v", n, all[j]-all[i], most)
					}
				}
			}
			for i := range len(windowed) - window.Max {
				if d := windowed[i+window.Max] - windowed[i]; d < window.Window {
					rt.Fatalf("%d permits within %v", window.Max+1, d)
				}
			}
		})
	})
}

func TestRestartDoesNotRefill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limits := []headgate.Limit{limit("api", 1, 10), {Name: "w", Match: "/w", Max: 5, Window: 10 * time.Second}}
		l := newLimiter(t, headgate.LimiterConfig{Limits: limits, Spread: -1})
		for range 8 {
			p, _ := l.Take(t.Context(), headgate.Ask{Token: "t"})
			answered(p)
		}
		for range 2 {
			p, _ := l.Take(t.Context(), headgate.Ask{Token: "u", Path: "/w"})
			answered(p)
		}
		p, _ := l.Take(t.Context(), headgate.Ask{Token: "v"})
		p.Done(headgate.Observation{Status: 429, Refused: true, HasRetryAfter: true, RetryAfter: time.Minute})
		states := l.Snapshot()

		time.Sleep(3 * time.Second)
		again := newLimiter(t, headgate.LimiterConfig{Limits: limits, Spread: -1})
		again.Restore(states)
		count := func(ask headgate.Ask) (n int) {
			for {
				if _, err := again.Take(t.Context(), ahead(ask)); err != nil {
					return n
				}
				n++
			}
		}
		if n := count(headgate.Ask{Token: "t"}); n != 5 { // 10 - 8 + 3 s
			t.Errorf("token t: %d permits after the restart, want 5", n)
		}
		if n := count(headgate.Ask{Token: "u", Path: "/w"}); n != 3 {
			t.Errorf("window: %d permits after the restart, want 3", n)
		}
		var e *headgate.LimitError
		if _, err := again.Take(t.Context(), ahead(headgate.Ask{Token: "v"})); !errors.As(err, &e) || e.RetryAfter != 57*time.Second {
			t.Errorf("token v: got %v, want the gate closed for 57s", err)
		}
		if n := count(headgate.Ask{Token: "new"}); n != 10 {
			t.Errorf("another token: %d permits, want 10", n)
		}
	})
}

func TestManyKeysAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter(t, headgate.LimiterConfig{Limits: []headgate.Limit{limit("api", 100, 10)}})
		for i := range 100_000 {
			p, _ := l.Take(t.Context(), headgate.Ask{Token: fmt.Sprint(i)})
			answered(p)
			if i%100 == 0 {
				time.Sleep(time.Second)
			}
		}
		time.Sleep(time.Second)
		if n := len(l.Snapshot()); n != 0 {
			t.Errorf("%d buckets are not idle", n)
		}
		if n := headgate.Accounts(l); n > 4096 {
			t.Errorf("%d buckets are kept", n)
		}
	})
}

func TestManyWaiters(t *testing.T) {
	const n = 100_000
	l := newLimiter(t, headgate.LimiterConfig{Limits: []headgate.Limit{limit("api", 1e-3, 1)}})
	p, err := l.Take(t.Context(), headgate.Ask{})
	if err != nil {
		t.Fatal(err)
	}
	// A goroutine that waits in the limiter has a stack of 4 KB where one
	// that does nothing has 2 KB; the stack is the goroutine's.
	wait := func(block func(context.Context)) (heap, stack int64) {
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		for range n {
			wg.Go(func() { block(ctx) })
		}
		for runtime.Gosched(); headgate.Waiting(l) < n && headgate.Waiting(l) > 0; {
			runtime.Gosched()
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		cancel()
		wg.Wait()
		return int64(after.HeapAlloc-before.HeapAlloc) / n, int64(after.StackInuse-before.StackInuse) / n
	}
	idle := func(ctx context.Context) { <-ctx.Done() }
	wait(idle) // the runtime keeps what describes a goroutine for the next one
	bare, bareStack := wait(idle)
	waiting, stack := wait(func(ctx context.Context) { l.Take(ctx, headgate.Ask{}) })
	t.Logf("bytes for each of %d: %d in the limiter (stack %d), %d for a goroutine alone (stack %d)", n, waiting, stack, bare, bareStack)
	if waiting-bare > 1024 {
		t.Errorf("a waiter costs %d bytes more than its goroutine", waiting-bare)
	}
	p.Return()
	if w := headgate.Waiting(l); w != 0 {
		t.Errorf("%d are left in line", w)
	}
}

func TestLimitValidation(t *testing.T) {
	for _, test := range []struct {
		limit headgate.Limit
		says  string
	}{
		{headgate.Limit{Rate: 1, Burst: 1}, "Name"},
		{headgate.Limit{Name: "x", Burst: 1}, "Rate is 0"},
		{headgate.Limit{Name: "x", Rate: -1, Burst: 1}, "Rate is -1"},
		{headgate.Limit{Name: "x", Rate: math.NaN(), Burst: 1}, "Rate is NaN"},
		{headgate.Limit{Name: "x", Rate: math.Inf(1), Burst: 1}, "Rate is +Inf"},
		{headgate.Limit{Name: "x", Rate: 1, Burst: 0.5}, "Burst is 0.5"},
		{headgate.Limit{Name: "x", Rate: 1, Burst: math.NaN()}, "Burst is NaN"},
		{headgate.Limit{Name: "x", Max: -1, Window: 1}, "Max is -1"},
		{headgate.Limit{Name: "x", Max: 1}, "Window is 0"},
		{headgate.Limit{Name: "x", Max: headgate.MaxWindow + 1, Window: 1}, "Max is"},
		{headgate.Limit{Name: "x", Rate: 1, Burst: 1, Max: 1, Window: 1}, "both"},
		{headgate.Limit{Name: "x", Rate: 1, Burst: 1, Match: "api"}, "Match"},
		{headgate.Limit{Name: "x", Rate: 1, Burst: 1, Per: 9}, "Per"},
	} {
		if _, err := headgate.NewLimiter(headgate.LimiterConfig{Limits: []headgate.Limit{test.limit}}); err == nil || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%+v: got %v, want it to say %q", test.limit, err, test.says)
		}
	}
}

func TestParseRate(t *testing.T) {
	for s, want := range map[string]struct {
		n   float64
		per time.Duration
	}{"50": {50, time.Second}, "50/s": {50, time.Second}, "300/min": {300, time.Minute}, "0.5/h": {0.5, time.Hour}, "9/d": {9, 24 * time.Hour}} {
		if n, per, err := headgate.ParseRate(s); n != want.n || per != want.per || err != nil {
			t.Errorf("%q: %v per %v, %v", s, n, per, err)
		}
	}
	for _, s := range []string{"", "0", "-1", "NaN", "Inf", "1e999", "50/fortnight", "x/s", "/s"} {
		if n, per, err := headgate.ParseRate(s); err == nil {
			t.Errorf("%q: %v per %v, want an error", s, n, per)
		}
	}
}

func TestForecast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := exact(t, limit("api", 10, 5))
		ask := headgate.Ask{Token: "t"}
		for n, want := range map[int]time.Duration{0: 0, 5: 0, 6: 100 * time.Millisecond, 105: 10 * time.Second} {
			if f := l.Forecast(ask, n); f.Wait != want || !f.Bounded || (f.Limit == "api") != (want > 0) {
				t.Errorf("%d permits: %+v, want %v", n, f, want)
			}
		}
		p, _ := l.Take(t.Context(), ask)
		p.Done(headgate.Observation{Status: 429, Refused: true, HasRetryAfter: true, RetryAfter: 3 * time.Second})
		if f := l.Forecast(ask, 2); f.RetryAfter != 3*time.Second || f.Limit != "api" || f.Wait < 3*time.Second {
			t.Errorf("behind a gate: %+v", f)
		}
		if f := exact(t).Forecast(ask, 1000); f.Bounded || f.Wait != 0 {
			t.Errorf("without a limit: %+v", f)
		}
	})
}

// However a server counts n per minute, a client that goes by Even is within it.
func TestEvenFitsEveryAlgorithm(t *testing.T) {
	for _, n := range []int{1, 2, 10, 19, 20, 21, 300} {
		synctest.Test(t, func(t *testing.T) {
			rate, burst := headgate.Even(float64(n), time.Minute)
			l := exact(t, headgate.Limit{Name: "even", Rate: rate, Burst: burst})
			var went []time.Time
			for range 3*n + 2 {
				p, err := l.Take(t.Context(), headgate.Ask{})
				if err != nil {
					t.Fatal(err)
				}
				answered(p)
				went = append(went, time.Now())
			}
			for i := range len(went) - n {
				if d := went[i+n].Sub(went[i]); d < time.Minute {
					t.Errorf("%d/min: %d requests within %v", n, n+1, d)
				}
			}
		})
	}
}

// An answer to a request from before the gate says nothing about what is behind
// it.
func TestLateAnswerIsNoProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := exact(t, limit("api", 50, 10))
		late, _ := l.Take(t.Context(), headgate.Ask{})
		p, _ := l.Take(t.Context(), headgate.Ask{})
		p.Done(headgate.Observation{Status: 429, Refused: true, HasRetryAfter: true, RetryAfter: time.Second})
		c := newCrowd()
		for i := range 3 {
			c.take(t.Context(), l, i, headgate.Ask{}, func(p headgate.Permit) {
				time.Sleep(500 * time.Millisecond)
				answered(p)
			})
		}
		time.Sleep(1100 * time.Millisecond)
		answered(late) // while the probe is on its way
		c.wg.Wait()
		if c.went[0] != time.Second || c.went[1] != 1500*time.Millisecond {
			t.Errorf("went after %v, want the second one when the probe is answered", c.went)
		}
	})
}

// A permit from before the gate that comes back unused is no token behind it.
func TestPermitFromBeforeTheGateIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := exact(t, limit("api", 1, 10))
		unused, _ := l.Take(t.Context(), headgate.Ask{})
		p, _ := l.Take(t.Context(), headgate.Ask{})
		p.Done(headgate.Observation{Status: 429, Refused: true, HasRetryAfter: true, RetryAfter: time.Second})
		unused.Return()
		c := newCrowd()
		for i := range 3 {
			c.take(t.Context(), l, i, headgate.Ask{}, answered)
		}
		c.wg.Wait()
		for i := range 3 {
			if want := time.Duration(i+1) * time.Second; c.went[i] != want {
				t.Errorf("caller %d went after %v, want %v", i, c.went[i], want)
			}
		}
	})
}

func TestUnusedPermitIsReturnedToTheWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := exact(t, headgate.Limit{Name: "w", Max: 3, Window: 10 * time.Second})
		var permits []headgate.Permit
		for range 3 {
			p, _ := l.Take(t.Context(), headgate.Ask{})
			permits = append(permits, p)
			time.Sleep(time.Second)
		}
		permits[1].Return() // after 3 s
		c := newCrowd()
		for i := range 3 {
			c.take(t.Context(), l, i, headgate.Ask{}, answered)
		}
		c.wg.Wait()
		// Taken at 0 and 2 s before, three seconds ago and one.
		for i, want := range []time.Duration{0, 7025, 9025} {
			if c.went[i] != want*time.Millisecond {
				t.Errorf("caller %d went after %v, want %v", i, c.went[i], want*time.Millisecond)
			}
		}
	})
}

func TestWaitBehindTwoGates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := exact(t, limit("api", 10, 5))
		refused := headgate.Observation{Status: 429, Refused: true, HasRetryAfter: true, RetryAfter: time.Second}
		first, _ := l.Take(t.Context(), headgate.Ask{})
		first.Done(refused)
		c := newCrowd()
		var wait headgate.Wait
		c.take(t.Context(), l, 0, headgate.Ask{}, func(p headgate.Permit) {
			time.Sleep(300 * time.Millisecond)
			p.Done(refused)
		})
		c.take(t.Context(), l, 1, headgate.Ask{}, func(p headgate.Permit) { wait = p.Wait; answered(p) })
		c.wg.Wait()
		// Closed for 1 s, the probe on its way for 0.3 s, closed for 1 s.
		if want := (headgate.Wait{Limit: "api", Total: 2300 * time.Millisecond, RetryAfter: 2 * time.Second}); wait != want {
			t.Errorf("waited %+v, want %+v", wait, want)
		}
	})
}

// Who leaves the line frees the token that was kept for it.
func TestLeavingFreesWhatWasKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := limit("a", 0.1, 1)
		b := limit("b", 0.1, 1)
		b.Match = "/both"
		l := exact(t, a, b)
		c := newCrowd()
		c.take(t.Context(), l, 0, headgate.Ask{Path: "/both"}, answered)
		time.Sleep(5 * time.Second)
		p, _ := l.Take(t.Context(), headgate.Ask{Path: "/both"}) // after 10 s
		time.Sleep(9 * time.Second)
		p.Done(headgate.Observation{Status: 429, Refused: true, HasRetryAfter: true, RetryAfter: 2 * time.Second, Limit: "b"})
		ctx, cancel := context.WithCancel(t.Context())
		start := time.Now()
		c.start = start
		c.take(ctx, l, 1, headgate.Ask{Path: "/both"}, answered)      // waits for b, until 2 s
		c.take(t.Context(), l, 2, headgate.Ask{Path: "/a"}, answered) // a has one after 1 s, kept for the other
		time.Sleep(1500 * time.Millisecond)
		cancel()
		c.wg.Wait()
		if c.went[2] != 1500*time.Millisecond {
			t.Errorf("went after %v, want 1.5s, when the other left", c.went[2])
		}
	})
}

// The permit of a caller whose context ends as it is granted is not lost.
func TestContextThatEndsWithTheGrant(t *testing.T) {
	gaveUp := 0
	for range 100 {
		synctest.Test(t, func(t *testing.T) {
			l := exact(t, limit("api", 1, 1))
			p, _ := l.Take(t.Context(), headgate.Ask{})
			answered(p)
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(time.Second, cancel)
			start := time.Now()
			p, err := l.Take(ctx, headgate.Ask{})
			want := 2 * time.Second
			if err != nil {
				gaveUp++
				want = time.Second
			} else {
				answered(p)
			}
			l.Take(t.Context(), headgate.Ask{})
			if got := time.Since(start); got != want {
				t.Errorf("err %v: the next one went after %v, want %v", err, got, want)
			}
		})
	}
	t.Logf("%d of 100 gave up", gaveUp)
}
