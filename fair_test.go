package headgate_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/headgate/headgate"
)

// keepWaiting takes permits with ask from n goroutines, each the next one as
// soon as it has one, until ctx ends.
func keepWaiting(ctx context.Context, wg *sync.WaitGroup, l *headgate.Limiter, ask headgate.Ask, n int) {
	for range n {
		wg.Go(func() {
			for {
				p, err := l.Take(ctx, ask)
				if err != nil {
					return
				}
				answered(p)
			}
		})
	}
	synctest.Wait()
}

// granted returns how many permits each caller has had.
func granted(l *headgate.Limiter) map[string]float64 {
	got := map[string]float64{}
	for _, u := range l.Callers() {
		got[u.Caller] = float64(u.Granted)
	}
	return got
}

// within reports whether got is want, give or take a share.
func within(got, want, share float64) bool { return math.Abs(got-want) <= share*want }

func TestCallersShareByWeight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := exact(t, limit("api", 100, 1))
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		keepWaiting(ctx, &wg, l, headgate.Ask{Caller: "a", Weight: 3}, 500)
		b, leave := context.WithCancel(ctx)
		keepWaiting(b, &wg, l, headgate.Ask{Caller: "b"}, 5)
		time.Sleep(20 * time.Second)
		if got := granted(l); !within(got["a"], 1500, 0.03) || !within(got["b"], 500, 0.03) {
			t.Errorf("with 3:1 they got %v", got)
		}
		// Alone, one gets everything.
		leave()
		before := granted(l)["a"]
		time.Sleep(10 * time.Second)
		if got := granted(l)["a"] - before; !within(got, 1000, 0.002) {
			t.Errorf("alone it got %v, want 1000", got)
		}
		cancel()
		wg.Wait()
	})
}

// Whoever comes to a line of 10,000 is next.
func TestALongLineDoesNotHoldUpAnotherCaller(t *testing.T) {
	const permit = 20 * time.Millisecond
	for _, weight := range []float64{0, 0.001, 1000} {
		synctest.Test(t, func(t *testing.T) {
			l := exact(t, limit("api", 50, 1))
			ctx, cancel := context.WithCancel(t.Context())
			var wg sync.WaitGroup
			keepWaiting(ctx, &wg, l, headgate.Ask{Caller: "bulk"}, 10_000)
			time.Sleep(time.Second + permit/2)
			p, err := l.Take(ctx, headgate.Ask{Caller: "b", Weight: weight})
			if err != nil || p.Wait.Total > permit {
				t.Errorf("weight %v: waited %v", weight, p.Wait)
			}
			cancel()
			wg.Wait()
		})
	}
}

// Urgent calls, one after the other, beside 10,000 that are not.
func TestUrgentCallsOvertake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const permit = 20 * time.Millisecond
		l := exact(t, limit("api", 50, 10))
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		keepWaiting(ctx, &wg, l, headgate.Ask{Caller: "bulk", Priority: 2}, 10_000)
		for i := range 20 {
			time.Sleep(time.Duration(i) * 7 * ms)
			p, err := l.Take(ctx, headgate.Ask{Caller: []string{"bulk", "b"}[i%2], Priority: -2})
			if err != nil || p.Wait.Total > 2*permit {
				t.Errorf("call %d: waited %v", i, p.Wait)
			}
		}
		cancel()
		wg.Wait()
	})
}

func TestAnIdleCallerSavesNothingUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := exact(t, limit("api", 10, 1))
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		keepWaiting(ctx, &wg, l, headgate.Ask{Caller: "b"}, 1) // is known, and leaves
		keepWaiting(ctx, &wg, l, headgate.Ask{Caller: "a"}, 100)
		idle, leave := context.WithCancel(ctx)
		keepWaiting(idle, &wg, l, headgate.Ask{Caller: "c"}, 10)
		time.Sleep(10 * time.Second)
		leave()
		time.Sleep(100 * time.Second)
		before := granted(l)
		keepWaiting(ctx, &wg, l, headgate.Ask{Caller: "c"}, 100)
		time.Sleep(9 * time.Second)
		after := granted(l)
		for _, caller := range []string{"a", "b", "c"} {
			if got := after[caller] - before[caller]; math.Abs(got-30) > 1 {
				t.Errorf("%s got %v of the next 90, want 30", caller, got)
			}
		}
		cancel()
		wg.Wait()
	})
}

// inOrder returns who has gone so far.
func (c *crowd) inOrder() []int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.order)
}

// letters returns the names of the callers in the order in which they went.
func letters(c *crowd, names string) (order string) {
	for _, i := range c.order {
		order += names[i : i+1]
	}
	return order
}

func TestLeavingCostsNoTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := exact(t, limit("api", 1, 1))
		p, _ := l.Take(t.Context(), headgate.Ask{})
		answered(p)
		c := newCrowd()
		ctx, cancel := context.WithCancel(t.Context())
		const names = "aaaaaaaabbbb"
		for i, name := range names {
			of := t.Context()
			if i < 8 && i%2 == 0 {
				of = ctx
			}
			c.take(of, l, i, headgate.Ask{Caller: string(name)}, answered)
		}
		time.Sleep(ms)
		cancel()
		c.wg.Wait()
		if got, want := letters(c, names), "abababab"; got != want {
			t.Errorf("they went %s, want %s", got, want)
		}
	})
}

// A permit that comes back unused was no turn.
func TestAPermitThatIsReturnedCostsNoTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := exact(t, limit("api", 1, 1))
		p, _ := l.Take(t.Context(), headgate.Ask{})
		answered(p)
		c := newCrowd()
		const names = "aaabbb"
		for i, name := range names {
			then := answered
			if i == 1 {
				then = headgate.Permit.Return
			}
			c.take(t.Context(), l, i, headgate.Ask{Caller: string(name)}, then)
		}
		c.wg.Wait()
		// The second a goes at 3 s, and the third has its turn.
		if got, want := letters(c, names), "abaabb"; got != want || c.went[1] != c.went[2] {
			t.Errorf("they went %s at %v, want %s", got, c.went, want)
		}
	})
}

// One who waits with many tokens has no more of what they share than one who
// waits with few.
func TestCallersShareAcrossLanes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := exact(t, headgate.Limit{Name: "org", Per: headgate.PerOrg, Rate: 50, Burst: 1}, limit("token", 100, 100))
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for i := range 10 {
			keepWaiting(ctx, &wg, l, headgate.Ask{Caller: "a", Token: fmt.Sprint(i)}, 10)
		}
		keepWaiting(ctx, &wg, l, headgate.Ask{Caller: "b", Token: "0"}, 10)
		keepWaiting(ctx, &wg, l, headgate.Ask{Caller: "c", Token: "c", Weight: 2}, 10)
		time.Sleep(40 * time.Second)
		if got := granted(l); !within(got["a"], 500, 0.03) || !within(got["b"], 500, 0.03) || !within(got["c"], 1000, 0.03) {
			t.Errorf("they got %v", got)
		}
		cancel()
		wg.Wait()
	})
}

// A path with a limit of its own, much lower: it is shared by weight among those
// who wait for it, whatever they have elsewhere, and a newcomer is next.
func TestCallersShareASlowLane(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := limit("slow", 5, 1)
		slow.Match = "/slow"
		l := exact(t, limit("token", 50, 1), slow)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		// b takes most of what there is, and some of the slow path.
		keepWaiting(ctx, &wg, l, headgate.Ask{Caller: "b", Path: "/fast"}, 100)
		var slowA, slowB, slowC atomic.Int64
		count := func(caller string, weight float64, n *atomic.Int64) {
			for range 20 {
				wg.Go(func() {
					for {
						p, err := l.Take(ctx, headgate.Ask{Caller: caller, Weight: weight, Path: "/slow"})
						if err != nil {
							return
						}
						n.Add(1)
						answered(p)
					}
				})
			}
			synctest.Wait()
		}
		count("a", 3, &slowA)
		count("b", 1, &slowB)
		count("c", 1, &slowC)
		time.Sleep(100 * time.Second)
		gotA, gotB, gotC := float64(slowA.Load()), float64(slowB.Load()), float64(slowC.Load())
		if !within(gotA+gotB+gotC, 500, 0.03) || !within(gotA, 300, 0.05) || !within(gotB, 100, 0.1) {
			t.Errorf("on the slow path they got %v, %v and %v, want 300, 100 and 100", gotA, gotB, gotC)
		}
		p, err := l.Take(ctx, headgate.Ask{Caller: "new", Path: "/slow"})
		if err != nil || p.Wait.Total > 400*ms {
			t.Errorf("a newcomer waited %v, %v", p.Wait, err)
		}
		cancel()
		wg.Wait()
	})
}

// Callers come and go.
func TestCallersAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := exact(t, limit("api", 1000, 1))
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		keepWaiting(ctx, &wg, l, headgate.Ask{Caller: "a"}, 10) // somebody always waits
		for i := range 20_000 {
			p, err := l.Take(ctx, headgate.Ask{Caller: fmt.Sprint(i), Priority: i%3 - 1, Until: time.Now().Add(5 * ms)})
			if err == nil {
				answered(p)
			}
			time.Sleep(3 * ms)
		}
		if n := headgate.Standings(l); n > 40 {
			t.Errorf("of 20,000 callers, %d are kept", n)
		}
		if n := len(l.Callers()); n != 4096 {
			t.Errorf("%d names are told apart, want 4096", n)
		}
		cancel()
		wg.Wait()
	})
}

// One who has had a turn and comes back is not new, however many have come and
// gone meanwhile.
func TestWhoComesBackIsNotNew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := exact(t, limit("api", 10, 1))
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		keepWaiting(ctx, &wg, l, headgate.Ask{Caller: "a"}, 10)
		for i := range 5 {
			p, err := l.Take(ctx, headgate.Ask{Caller: "b", Weight: 0.1})
			if err != nil || i > 0 && (p.Wait.Total < time.Second || p.Wait.Total > 1200*ms) {
				t.Errorf("waited %v, want ten turns of the other", p.Wait)
			}
			for other := range 100 {
				passing, leave := context.WithCancel(ctx)
				keepWaiting(passing, &wg, l, headgate.Ask{Caller: fmt.Sprint(other)}, 1)
				leave()
			}
		}
		cancel()
		wg.Wait()
	})
}

// Who goes before others is not refused because of them, and who does not is
// told when it could have gone.
func TestDeadlinesCountOnTheShare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := exact(t, limit("api", 10, 1))
		ctx, cancel := context.WithCancel(t.Context())
		c := newCrowd()
		for i := range 1000 {
			c.take(ctx, l, i, headgate.Ask{Caller: "a"}, answered)
		}
		// The turn at 100 ms is a's, who came first. Then b and a take turns;
		// with a weight of 4, c gets four for one of theirs.
		for i, call := range []struct {
			ask  headgate.Ask
			goes time.Duration
		}{
			{headgate.Ask{Caller: "b"}, 200 * ms},
			{headgate.Ask{Caller: "b"}, 400 * ms},
			{headgate.Ask{Caller: "b"}, 600 * ms},
			{headgate.Ask{Caller: "c", Weight: 4}, 300 * ms},
			{headgate.Ask{Caller: "c", Weight: 4}, 400 * ms},
			{headgate.Ask{Caller: "c", Weight: 4}, 500 * ms},
			{headgate.Ask{Caller: "b", Priority: -1}, 100 * ms},
		} {
			ask := call.ask
			ask.Until = c.start.Add(call.goes - 1)
			var limit *headgate.LimitError
			if _, err := l.Take(ctx, ask); !errors.As(err, &limit) || limit.Wait != call.goes {
				t.Errorf("call %d: got %v, want to wait %v", i, err, call.goes)
			}
			ask.Until = time.Time{}
			c.take(ctx, l, 1000+i, ask, answered)
		}
		time.Sleep(1050 * ms)
		cancel()
		c.wg.Wait()
		// The later ones have pushed the earlier ones back.
		for i, want := range []time.Duration{300, 800, 1000, 400, 500, 600, 100} {
			if got := c.went[1000+i]; got != want*ms {
				t.Errorf("call %d went after %v, want %v", i, got, want*ms)
			}
		}
	})
}

// What a line of random callers does, step by step.
type fairStep struct {
	Join, Leave, Wait bool
	Caller, Priority  int
	Which             int
}

func fairSteps(rt *rapid.T) (weights []float64, steps []fairStep) {
	callers := rapid.IntRange(2, 6).Draw(rt, "callers")
	weights = rapid.SliceOfN(rapid.SampledFrom([]float64{0, 0.25, 1, 2, 3, 7}), callers, callers).Draw(rt, "weights")
	n := rapid.IntRange(1, 150).Draw(rt, "how many steps")
	steps = rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) fairStep {
		kind := rapid.IntRange(0, 9).Draw(rt, "kind")
		return fairStep{
			Join: kind < 5, Leave: kind == 5, Wait: kind > 5,
			Caller: rapid.IntRange(0, len(weights)-1).Draw(rt, "caller"), Priority: rapid.IntRange(0, 1).Draw(rt, "priority"),
			Which: rapid.IntRange(0, 1000).Draw(rt, "which"),
		}
	}), n, n).Draw(rt, "steps")
	return weights, steps
}

// With any mix of callers, weights, priorities and leaves: everybody who stays
// is served, the urgent first, and between two callers who both wait, neither
// gets a turn more of service than the other.
func TestServiceIsFair(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		weights, steps := fairSteps(rt)
		var bad string
		synctest.Test(t, func(t *testing.T) { bad = playFair(t, weights, steps) })
		if bad != "" {
			rt.Fatal(bad)
		}
	})
}

func playFair(t *testing.T, weights []float64, steps []fairStep) (bad string) {
	l := exact(t, limit("api", 1, 1))
	p, _ := l.Take(t.Context(), headgate.Ask{})
	answered(p)
	type call struct {
		caller, priority int
		cancel           func()
	}
	calls := map[int]call{} // who wait
	c := newCrowd()
	// since[p][i][j] is what i has had more than j, in permits/weight, since both began to wait.
	var more [2][6][6]struct{ now, least, most float64 }
	waits := func(p, i int) bool {
		for _, c := range calls {
			if c.priority == p && c.caller == i {
				return true
			}
		}
		return false
	}
	anew := func() {
		for p := range 2 {
			for i := range weights {
				for j := range weights {
					if !waits(p, i) || !waits(p, j) {
						more[p][i][j] = struct{ now, least, most float64 }{}
					}
				}
			}
		}
	}
	weight := func(i int) float64 {
		if weights[i] == 0 {
			return 1
		}
		return weights[i]
	}
	goes := func(id int) {
		g := calls[id]
		if g.priority == 1 {
			for i := range weights {
				if waits(0, i) {
					bad = fmt.Sprintf("call %d went before one that is more urgent", id)
				}
			}
		}
		for j := range weights {
			if j == g.caller || !waits(g.priority, j) {
				continue
			}
			bound := 1/weight(g.caller) + 1/weight(j) + 1e-9
			for _, m := range []struct{ i, j int }{{g.caller, j}, {j, g.caller}} {
				d := &more[g.priority][m.i][m.j]
				if m.i == g.caller {
					d.now += 1 / weight(g.caller)
				} else {
					d.now -= 1 / weight(g.caller)
				}
				d.least, d.most = min(d.least, d.now), max(d.most, d.now)
				if d.now-d.least > bound || d.most-d.now > bound {
					bad = fmt.Sprintf("callers %d and %d, who both wait: %+v, at most %v apart", m.i, m.j, *d, bound)
				}
			}
		}
		delete(calls, id)
		anew()
	}
	seen := 0
	second := func() {
		time.Sleep(time.Second)
		synctest.Wait()
		order := c.inOrder()
		for _, id := range order[seen:] {
			goes(id)
		}
		seen = len(order)
	}
	stayed := 0
	for id, s := range steps {
		switch {
		case s.Join:
			ctx, cancel := context.WithCancel(t.Context())
			calls[id] = call{s.Caller, s.Priority, cancel}
			stayed++
			c.take(ctx, l, id, headgate.Ask{Caller: fmt.Sprint(s.Caller), Weight: weights[s.Caller], Priority: s.Priority}, answered)
			if n := len(c.inOrder()); n > seen { // it did not have to wait
				seen = n
				delete(calls, id)
				cancel()
			}
		case s.Leave && len(calls) > 0:
			ids := make([]int, 0, len(calls))
			for id := range calls {
				ids = append(ids, id)
			}
			slices.Sort(ids)
			id := ids[s.Which%len(ids)]
			calls[id].cancel()
			synctest.Wait()
			delete(calls, id)
			stayed--
			anew()
		default:
			second()
		}
	}
	for n := len(calls); n > 0; n-- {
		second()
	}
	c.wg.Wait()
	if len(c.went) != stayed || headgate.Waiting(l) != 0 {
		return fmt.Sprintf("%d of %d who stayed were served, %d wait", len(c.went), stayed, headgate.Waiting(l))
	}
	return bad
}

// What a newcomer is told is when it goes, if nobody else comes; never later than
// that.
func TestATurnIsForeseen(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		weights, steps := fairSteps(rt)
		reserve := rapid.SampledFrom([]float64{0, 0, 0.25, 0.5}).Draw(rt, "reserve")
		caller := rapid.IntRange(0, len(weights)-1).Draw(rt, "newcomer")
		priority := rapid.IntRange(0, 1).Draw(rt, "its priority")
		synctest.Test(t, func(t *testing.T) {
			l := exact(t, limit("api", 1, 1))
			l.Reserve(reserve, 0)
			c := newCrowd()
			ask := func(caller, priority int) headgate.Ask {
				return headgate.Ask{Caller: fmt.Sprint(caller), Weight: weights[caller], Priority: priority}
			}
			c.take(t.Context(), l, -1, headgate.Ask{}, answered)
			for id, s := range steps {
				if s.Wait {
					time.Sleep(time.Second)
				} else {
					c.take(t.Context(), l, id, ask(s.Caller, s.Priority), answered)
				}
			}
			synctest.Wait() // for who goes now
			now := time.Since(c.start)
			var told *headgate.LimitError
			_, err := l.Take(t.Context(), ahead(ask(caller, priority)))
			if err == nil {
				return
			}
			errors.As(err, &told)
			a := ask(caller, priority)
			a.Path = "/new"
			c.take(t.Context(), l, 1000, a, answered)
			line := l.Line(1000)
			place := slices.IndexFunc(line, func(in headgate.InLine) bool { return in.Path == "/new" })
			c.wg.Wait()
			// While the urgent hold up the bucket, what is left to others
			// beside a reserve is not all saved up: they may go later.
			got := c.went[1000] - now
			late, lateInLine := got-told.Wait, got-line[place].Expected
			if min(late, lateInLine) < -ms || reserve == 0 && max(late, lateInLine) > ms {
				rt.Errorf("told %v, and in line %v; went after %v", told.Wait, line[place].Expected, got)
			}
		})
	})
}
