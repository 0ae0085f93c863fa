package headgate_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/headgate/headgate"
)

// newLimiter returns a limiter that learns nothing: its durations are exact.
func newLimiter(t testing.TB, c headgate.LimiterConfig) *headgate.Limiter {
	t.Helper()
	c.Limits = slices.Clone(c.Limits)
	for i := range c.Limits {
		c.Limits[i].Learn = headgate.LearnOff
	}
	l, err := headgate.NewLimiter(c)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// rate10 is a bucket of which 10 tokens are usable: a tenth of the burst, 0.9,
// is the reserve.
func limit(name string, rate, usable float64) headgate.Limit {
	return headgate.Limit{Name: name, Rate: rate, Burst: usable / 0.9, Learn: headgate.LearnOff}
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

// ahead refuses to wait.
func ahead(a headgate.Ask) headgate.Ask {
	a.Until = time.Now()
	return a
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

// While the first request is on its way out, an estimate counts on its leaving:
// who can go in time is not refused.
func TestEstimateWhileARequestLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		base := &script{answers: []any{answer(200, "")}}
		tr := &headgate.Transport{Base: base, Limiter: exact(t, limit("api", 1, 1))}
		var wg sync.WaitGroup
		wg.Go(func() {
			tr.Attempt(post(t, "{}"), new(headgate.Tries), func() error { time.Sleep(10 * time.Millisecond); return nil })
		})
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
		defer cancel()
		if _, err := tr.RoundTrip(post(t, "{}").WithContext(ctx)); err != nil {
			t.Error(err)
		}
		wg.Wait()
	})
}
