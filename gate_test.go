package headgate_test

import (
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/headgate/headgate"
)

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

// Without a known rate the others follow the probe at a rate that doubles within
// a second and a half until it is refused.
func TestSearchWithoutAKnownRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter(t, headgate.LimiterConfig{Spread: -1})
		p, _ := l.Take(t.Context(), headgate.Ask{})
		p.Done(headgate.Observation{Status: 429, Refused: true, HasRetryAfter: true, RetryAfter: time.Second})
		c := newCrowd()
		for i := range 50 {
			c.take(t.Context(), l, i, headgate.Ask{}, func(p headgate.Permit) {
				time.Sleep(100 * time.Millisecond)
				answered(p)
			})
		}
		c.wg.Wait()
		if c.went[0] != time.Second {
			t.Errorf("the probe went after %v, want 1s", c.went[0])
		}
		for i := 2; i < 50; i++ {
			gap, before := c.went[i]-c.went[i-1], c.went[i-1]-c.went[i-2]
			if gap <= 0 || i > 2 && gap >= before || c.went[i] < 1100*time.Millisecond {
				t.Errorf("caller %d went %v after the one before, which had waited %v", i, gap, before)
			}
		}
		if first, later := c.went[2]-c.went[1], c.went[49]-c.went[48]; later > first/4 || later < first/16 {
			t.Errorf("the gaps went from %v to %v in %v", first, later, c.went[49])
		}
	})
}

// A probe that nobody answers does not close the gate for ever.
func TestUnansweredProbeLetsTheNextOneGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		opened := 0
		l := newLimiter(t, headgate.LimiterConfig{Limits: []headgate.Limit{limit("api", 50, 10)}, Spread: -1, Observer: func(e headgate.Event) {
			if e.Kind == headgate.GateOpened {
				opened++
			}
		}})
		defer func() {
			if opened != 1 {
				t.Errorf("the gate opened %d times", opened)
			}
		}()
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
		p, _ = l.Take(t.Context(), headgate.Ask{})
		start := time.Now()
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

func TestNamedLimitClosesItsGateOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		flows := limit("flows", 10, 5)
		flows.Match = "/flows"
		token := limit("token", 10, 5)
		l := newLimiter(t, headgate.LimiterConfig{Limits: []headgate.Limit{token, flows}, Spread: -1})
		for limit, want := range map[string][2]time.Duration{
			"flows":  {10 * time.Second, 0},
			"token":  {10 * time.Second, 10 * time.Second},
			"hidden": {10 * time.Second, 0}, // nobody knows it: it is learned
			"":       {10 * time.Second, 10 * time.Second},
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
		const want = "waited 2.3 s: api empty 0.3 s, Retry-After 2.0 s"
		if wait.String() != want || wait.Total != 2300*time.Millisecond || wait.RetryAfter() != 2*time.Second {
			t.Errorf("%v (%+v), want %s", wait, wait, want)
		}
	})
}

// The gate closes while an attempt that has its permit is still on its way out,
// in leave: it must not go before the gate opens, and leave is not called again.
func TestGateThatClosesBeforeTheAttemptLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		base := &script{answers: []any{answer(429, "", "Retry-After", "2"), answer(200, "")}}
		tr := &headgate.Transport{Base: base, Limiter: exact(t, limit("api", 10, 5))}
		var wg sync.WaitGroup
		var late headgate.Result
		left := 0
		wg.Go(func() {
			late = tr.Attempt(post(t, "{}"), new(headgate.Tries), func() error {
				left++
				time.Sleep(100 * time.Millisecond) // the disk
				return nil
			})
		})
		synctest.Wait()
		tr.Attempt(post(t, "{}"), new(headgate.Tries), nil) // refused at once
		wg.Wait()
		if len(base.at) != 2 || base.at[1] != 2*time.Second || left != 1 || late.Observation.Status != 200 {
			t.Errorf("sent at %v, left %d times, %+v", base.at, left, late)
		}
	})
}
