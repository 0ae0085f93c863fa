package headgate_test

import (
	"context"
	"errors"
	"io"
	"math"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/headgate/headgate"
	"github.com/headgate/headgate/emulator"
	"github.com/headgate/headgate/headgatetest"
)

// With three tenths kept, those who are not urgent go at 0.7 of the pace, and
// the urgent find a full bucket.
func TestReserve(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := exact(t, limit("api", 50, 20))
		l.Reserve(0.3, -1)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		keepWaiting(ctx, &wg, l, headgate.Ask{Caller: "bulk"}, 1000)
		for minute := range 3 {
			before := granted(l)["bulk"]
			time.Sleep(time.Minute)
			if got := granted(l)["bulk"] - before; math.Abs(got-60*35) > 1 {
				t.Errorf("minute %d: %v went, want 2100", minute, got)
			}
			for i := range 19 { // the bulk may have taken one just now
				if p, err := l.Take(ctx, headgate.Ask{Priority: -1}); err != nil || p.Wait.Total != 0 {
					t.Errorf("minute %d, urgent call %d: waited %v, %v", minute, i, p.Wait, err)
				}
			}
		}
		cancel()
		wg.Wait()
	})
}

// When each goes, and what it is told.
func TestWaitsForWhatIsReserved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := exact(t, limit("api", 10, 3))
		l.Reserve(0.5, -1)
		c, w := newCrowd(), new(waits)
		for i := range 4 {
			c.take(t.Context(), l, i, headgate.Ask{}, w.of(i, answered))
		}
		c.take(t.Context(), l, 4, headgate.Ask{Priority: -1}, w.of(4, answered))
		c.wg.Wait()
		for i, want := range []time.Duration{0, 200, 400, 600, 0} {
			if c.went[i] != want*ms {
				t.Errorf("call %d went after %v, want %v", i, c.went[i], want*ms)
			}
		}
		w.want(t, map[int][]headgate.WaitPart{1: {{Limit: "api", Reserved: 200 * ms}}, 3: {{Limit: "api", Reserved: 600 * ms}}})
		if got, want := w.got[3].String(), "waited 0.6 s: api reserved 0.6 s"; got != want {
			t.Errorf("%s, want %s", got, want)
		}
	})
}

// What is left to those who are not urgent is not saved up, either.
func TestAReserveLeavesNoBurst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := exact(t, limit("api", 10, 20))
		l.Reserve(0.5, -1)
		p, _ := l.Take(t.Context(), headgate.Ask{})
		answered(p)
		time.Sleep(time.Hour)
		c := newCrowd()
		for i := range 5 {
			c.take(t.Context(), l, i, headgate.Ask{}, answered)
		}
		c.wg.Wait()
		for i, want := range []time.Duration{0, 0, 200, 400, 600} {
			if c.went[i] != want*ms {
				t.Errorf("call %d went after %v, want %v", i, c.went[i], want*ms)
			}
		}
	})
}

// An empty bucket, a gate and the reserve, one after the other.
func TestWaitsForEverything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := exact(t, limit("api", 10, 1))
		p, _ := l.Take(t.Context(), headgate.Ask{})
		out, _ := l.Take(t.Context(), headgate.Ask{}) // at 100 ms
		answered(p)
		c, w := newCrowd(), new(waits)
		c.take(t.Context(), l, 0, headgate.Ask{}, w.of(0, answered)) // the bucket has one 100 ms later
		time.Sleep(50 * ms)
		l.Reserve(0.75, -1) // one at once, and one for each 400 ms from then on
		c.take(t.Context(), l, 1, headgate.Ask{}, w.of(1, answered))
		time.Sleep(100 * ms)
		l.Pause()
		time.Sleep(100 * ms)
		l.Resume()
		time.Sleep(50 * ms)
		out.Done(refusedFor(100*ms, "api"))
		c.wg.Wait()
		w.want(t, map[int][]headgate.WaitPart{
			0: {{Limit: "api", Empty: 100 * ms}},
			1: {{Limit: "api", Empty: 50 * ms, RetryAfter: 100 * ms, Reserved: 150 * ms, Paused: 100 * ms}},
		})
		if got, want := w.got[1].String(), "waited 0.4 s: api empty 50.0 ms, Retry-After 0.1 s, reserved 0.1 s, paused 0.1 s"; got != want {
			t.Errorf("%s, want %s", got, want)
		}
	})
}

// It begins, changes and ends while calls are in line.
func TestReserveChangesInLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := exact(t, limit("api", 10, 1))
		c := newCrowd()
		for i := range 9 {
			c.take(t.Context(), l, i, headgate.Ask{}, answered)
		}
		time.Sleep(150 * ms) // two have gone
		l.Reserve(0.5, -1)   // one more at 200 ms, then one for each 200 ms: from 150 ms on
		time.Sleep(350 * ms) // 500 ms: 0.75 of one is there
		l.Reserve(0.75, -1)  // the rest takes 100 ms, then one for each 400 ms
		time.Sleep(300 * ms) // 800 ms
		l.Reserve(0, -1)     // the bucket is full
		c.wg.Wait()
		for i, want := range []time.Duration{0, 100, 200, 350, 600, 800, 900, 1000, 1100} {
			if got := c.went[i]; got != want*ms {
				t.Errorf("call %d went after %v, want %v", i, got, want*ms)
			}
		}
	})
}

// With all of it kept, nobody else goes; who has a deadline is refused at once,
// and who has not goes when it ends.
func TestAllIsReserved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := exact(t, limit("api", 10, 1))
		l.Reserve(2, -99) // as 1, and MostUrgent
		c := newCrowd()
		c.take(t.Context(), l, 0, headgate.Ask{Priority: -2}, answered)
		c.take(t.Context(), l, 1, headgate.Ask{Priority: -3}, answered)
		var limit *headgate.LimitError
		_, err := l.Take(t.Context(), headgate.Ask{Until: c.start.Add(1000 * time.Hour)})
		if !errors.As(err, &limit) || time.Since(c.start) != 0 {
			t.Errorf("got %v after %v", err, time.Since(c.start))
		}
		time.Sleep(time.Hour)
		l.Reserve(math.NaN(), 0)
		c.wg.Wait()
		if c.went[0] != time.Hour || c.went[1] != 0 {
			t.Errorf("went after %v", c.went)
		}
	})
}

// A window is divided as a rate; what nobody knows is not divided.
func TestWindowsAreDivided(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := exact(t, headgate.Limit{Name: "window", Max: 10, Window: 10 * time.Second})
		l.Reserve(0.5, -1)
		c := newCrowd()
		for i := range 4 {
			c.take(t.Context(), l, i, headgate.Ask{}, answered)
		}
		c.wg.Wait()
		for i := range 4 {
			if want := time.Duration(2*i) * time.Second; c.went[i] != want {
				t.Errorf("call %d went after %v, want %v", i, c.went[i], want)
			}
		}
		free := exact(t)
		free.Reserve(0.5, -1)
		for range 100 {
			if p, _ := free.Take(t.Context(), headgate.Ask{}); p.Wait.Total != 0 {
				t.Fatalf("without a limit: waited %v", p.Wait)
			}
		}
	})
}

// Deadlines and forecasts count on what is left.
func TestDeadlinesCountOnTheReserve(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := exact(t, limit("api", 10, 5))
		l.Reserve(0.5, -1)
		c := newCrowd()
		for i := range 3 { // at 0, 200 and 400 ms
			c.take(t.Context(), l, i, headgate.Ask{}, answered)
		}
		ask := headgate.Ask{Until: c.start.Add(600*ms - 1)}
		var limit *headgate.LimitError
		if _, err := l.Take(t.Context(), ask); !errors.As(err, &limit) || limit.Wait != 600*ms || limit.Limit != "api" {
			t.Errorf("got %v, want to wait 600 ms", err)
		}
		ask.Until = c.start.Add(600*ms + 1)
		c.take(t.Context(), l, 3, ask, answered)
		if f := l.Forecast(headgate.Ask{}, 5); f.Wait != time.Second || f.Limit != "api" {
			t.Errorf("forecast %+v", f)
		}
		if f := l.Forecast(headgate.Ask{Priority: -1}, 4); f.Wait != 0 {
			t.Errorf("forecast for the urgent: %+v", f)
		}
		c.wg.Wait()
		if c.errs[3] != nil || c.went[3] != 600*ms {
			t.Errorf("went after %v, %v", c.went[3], c.errs[3])
		}
	})
}

// What is kept is kept of what was learned, too, and what is held back confuses
// no learner.
func TestReserveOfALearnedLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pair := headgatetest.New(t, emulator.Config{
			AnyToken: true, Latency: 5 * ms,
			Limits: []emulator.Limit{{Name: "token.rate.per.minute", Rate: 20, Burst: 40}},
		})
		l, err := headgate.NewLimiter(headgate.LimiterConfig{Limits: []headgate.Limit{told(50, 100)}})
		if err != nil {
			t.Fatal(err)
		}
		tr := &headgate.Transport{Base: pair.Transport(), Limiter: l}
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		send := func(ctx context.Context, call headgate.Call) (headgate.Tries, bool) {
			req, _ := http.NewRequestWithContext(headgate.WithCall(ctx, call), "POST", pair.URL+"/api/v2/architect/flows/f/execute", strings.NewReader("{}"))
			resp, tries, err := tr.Send(req)
			if err != nil {
				return tries, false
			}
			io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
			return tries, resp.StatusCode == 200
		}
		bulk := 0
		var mu sync.Mutex
		for range 200 {
			wg.Go(func() {
				for {
					if _, ok := send(ctx, headgate.Call{Caller: "bulk"}); !ok {
						return
					}
					mu.Lock()
					bulk++
					mu.Unlock()
				}
			})
		}
		time.Sleep(time.Minute) // it learns 20/s
		l.Reserve(0.4, -1)
		mu.Lock()
		before := bulk
		mu.Unlock()
		rejected := pair.Emulator.Report().Rejected
		time.Sleep(5 * time.Minute)
		mu.Lock()
		got := float64(bulk-before) / 300
		mu.Unlock()
		refused := pair.Emulator.Report().Rejected - rejected
		t.Logf("%.1f/s, %d rejected; %v", got, refused, l.Estimates()[0])
		if got < 0.9*12 || got > 1.1*12 {
			t.Errorf("%.1f/s went, want 12/s", got)
		}
		if refused > 10 {
			t.Errorf("%d were rejected", refused)
		}
		if tries, ok := send(ctx, headgate.Call{Priority: -1}); !ok || tries.Waited() > 50*ms {
			t.Errorf("an urgent call waited %v", tries.Waits)
		}
		cancel()
		wg.Wait()
	})
}

// Nobody goes in a pause, and afterwards they go as the bucket allows.
func TestPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := exact(t, limit("api", 10, 2))
		l.Pause()
		c, w := newCrowd(), new(waits)
		for i := range 5 {
			c.take(t.Context(), l, i, headgate.Ask{}, w.of(i, answered))
		}
		c.take(t.Context(), l, 5, headgate.Ask{Priority: headgate.MostUrgent}, w.of(5, answered))
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		c.take(ctx, l, 6, headgate.Ask{}, answered)
		c.take(t.Context(), l, 7, headgate.Ask{Until: c.start.Add(3 * time.Second)}, answered)
		var limit *headgate.LimitError
		if _, err := l.Take(t.Context(), headgate.Ask{Until: c.start.Add(400 * ms)}); !errors.As(err, &limit) || limit.Wait != 700*ms {
			t.Errorf("what can't be met is refused as without a pause: %v", err)
		}
		time.Sleep(10 * time.Second)
		if n := len(c.inOrder()); !l.Paused() || n != 0 {
			t.Errorf("paused: %v, and %d went", l.Paused(), n)
		}
		l.Resume()
		c.wg.Wait()
		if l.Paused() {
			t.Error("still paused")
		}
		for i, want := range []time.Duration{10_000, 10_100, 10_200, 10_300, 10_400, 10_000} {
			if c.went[i] != want*ms {
				t.Errorf("call %d went after %v, want %v", i, c.went[i], want*ms)
			}
		}
		w.want(t, map[int][]headgate.WaitPart{
			5: {{Limit: "api", Paused: 10 * time.Second}},
			2: {{Limit: "api", Empty: 200 * ms, Paused: 10 * time.Second}},
		})
		for i, want := range map[int]time.Duration{6: 2 * time.Second, 7: 3 * time.Second} {
			if err := c.errs[i]; !errors.As(err, &limit) || limit.Waited.Total != want || limit.Waited.Parts[0].Paused != want {
				t.Errorf("call %d: %v, want to have waited %v", i, err, want)
			}
		}
	})
}

// A pause in the midst of a wait, with the timer set.
func TestPauseWhileTheyWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := exact(t, limit("api", 1, 1))
		c, w := newCrowd(), new(waits)
		for i := range 4 {
			c.take(t.Context(), l, i, headgate.Ask{}, w.of(i, answered))
		}
		time.Sleep(400 * ms)
		l.Pause()
		l.Pause()
		time.Sleep(200 * ms)
		l.Resume() // before the next token is there
		time.Sleep(900 * ms)
		l.Pause()
		time.Sleep(5 * time.Second)
		l.Resume()
		l.Resume()
		c.wg.Wait()
		for i, want := range []time.Duration{0, 1000, 6500, 7500} {
			if c.went[i] != want*ms {
				t.Errorf("call %d went after %v, want %v", i, c.went[i], want*ms)
			}
		}
		w.want(t, map[int][]headgate.WaitPart{
			1: {{Limit: "api", Empty: 800 * ms, Paused: 200 * ms}},
			3: {{Limit: "api", Empty: 2300 * ms, Paused: 5200 * ms}},
		})
	})
}

func TestCallsCountReservesAndPauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := exact(t, limit("api", 1, 5))
		l.Reserve(0.5, -1)
		tr := &headgate.Transport{Base: &script{answers: []any{answer(200, ""), answer(200, "")}}, Limiter: l}
		tr.Send(post(t, "{}"))
		time.AfterFunc(500*ms, l.Pause)
		time.AfterFunc(700*ms, l.Resume)
		_, tries, err := tr.Send(post(t, "{}"))
		if err != nil || len(tries.Waits) != 2 || tries.Waits[headgate.WaitReserved] != 1800*ms || tries.Waits[headgate.WaitPaused] != 200*ms {
			t.Errorf("%v, waits %v", err, tries.Waits)
		}
	})
}
