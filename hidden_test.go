package headgate_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/headgate/headgate"
	"github.com/headgate/headgate/emulator"
	"github.com/headgate/headgate/genesys"
	"github.com/headgate/headgate/headgatetest"
)

// refuse takes a permit and has it refused.
func refuse(t *testing.T, l *headgate.Limiter, ask headgate.Ask, o headgate.Observation) {
	t.Helper()
	p, err := l.Take(t.Context(), ahead(ask))
	if err != nil {
		t.Fatal(err)
	}
	p.Done(o)
}

// mustWait checks for how long the server wants requests such as ask to stay
// away, and what stands in their way.
func mustWait(t *testing.T, l *headgate.Limiter, ask headgate.Ask, limit string, want time.Duration) {
	t.Helper()
	if f := l.Forecast(ask, 1); f.RetryAfter != want || f.Limit != limit {
		t.Errorf("%s %s: %+v, want to wait %v for %q", ask.Token, ask.Path, f, want, limit)
	}
}

const uuid = "6b2f0a1e-0000-4000-8000-0123456789ab"

// A 429 that names a limit nobody configured holds back requests of the kind
// that it refused, and no others.
func TestHiddenLimitHoldsItsPathBack(t *testing.T) {
	for _, limits := range [][]headgate.Limit{nil, {limit("token", 100, 50)}} {
		synctest.Test(t, func(t *testing.T) {
			var events []headgate.Event
			var mu sync.Mutex
			l := newLimiter(t, headgate.LimiterConfig{Limits: limits, Spread: -1, Observer: func(e headgate.Event) {
				mu.Lock()
				events = append(events, e)
				mu.Unlock()
			}})
			refuse(t, l, headgate.Ask{Token: "t", Path: "/flows/17/x"}, refusedFor(10*time.Second, "flows.rate"))
			for path, want := range map[string]time.Duration{
				"/flows/17/x":           10 * time.Second,
				"/flows/18/x":           10 * time.Second,
				"/flows/" + uuid + "/x": 10 * time.Second,
				"/flows/named/x":        0,
				"/flows/17":             0,
				"/flows/17/x/y":         0,
				"/flows/17/y":           0,
				"":                      0,
			} {
				mustWait(t, l, headgate.Ask{Token: "t", Path: path}, map[bool]string{true: "flows.rate"}[want > 0], want)
			}
			mustWait(t, l, headgate.Ask{Token: "u", Path: "/flows/17/x"}, "", 0) // each token has its own
			if len(events) != 2 || events[0].Kind != headgate.LimitFound || events[0].Limit != "flows.rate" || events[0].Path != "/flows/*/x" ||
				events[1].Kind != headgate.GateClosed || events[1].Limit != "flows.rate" || events[1].Wait != 10*time.Second {
				t.Errorf("events %+v", events)
			}

			// Another kind of request is refused by the same limit.
			time.Sleep(2 * time.Second)
			refuse(t, l, headgate.Ask{Token: "t", Path: "/other"}, refusedFor(3*time.Second, "flows.rate"))
			for _, path := range []string{"/other", "/flows/5/x"} {
				mustWait(t, l, headgate.Ask{Token: "t", Path: path}, "flows.rate", 8*time.Second)
			}
			mustWait(t, l, headgate.Ask{Token: "t", Path: "/third"}, "", 0)

			// Behind the gate one goes as a probe, whatever its path.
			time.Sleep(8 * time.Second)
			c := newCrowd()
			for i := range 5 {
				c.take(t.Context(), l, i, headgate.Ask{Token: "t", Path: []string{"/other", "/flows/1/x"}[i%2]}, func(p headgate.Permit) {
					time.Sleep(100 * ms)
					answered(p)
				})
			}
			c.take(t.Context(), l, 5, headgate.Ask{Token: "t", Path: "/third"}, answered)
			c.wg.Wait()
			for i, want := range []time.Duration{0, 100, 100, 100, 200, 0} {
				if c.went[i] != want*ms {
					t.Errorf("caller %d went after %v, want %v", i, c.went[i], want*ms)
				}
			}

			// A refusal that names no limit is still the token's.
			refuse(t, l, headgate.Ask{Token: "t", Path: "/other"}, refusedFor(time.Second, ""))
			for _, path := range []string{"/third", "/other"} {
				mustWait(t, l, headgate.Ask{Token: "t", Path: path}, "token", time.Second)
			}
		})
	}
}

// Those in line who turn out to draw on a hidden limit keep their place, by
// priority and arrival, and what they have waited for so far.
func TestHiddenLimitMovesThoseInLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := exact(t, limit("token", 1, 5))
		var out []headgate.Permit
		for _, path := range []string{"/hidden/1", "/hidden/2", "/other", "/other", "/other"} {
			p, _ := l.Take(t.Context(), headgate.Ask{Path: path})
			out = append(out, p)
		}
		c, w := newCrowd(), new(waits)
		for i, path := range []string{"/hidden/3", "/other", "/hidden/4", "/other", "/hidden/5"} {
			ask := headgate.Ask{Path: path}
			if i == 4 {
				ask.Priority = headgate.MostUrgent
			}
			c.take(t.Context(), l, i, ask, w.of(i, answered))
		}
		time.Sleep(500 * ms)
		out[0].Done(refusedFor(4*time.Second, "hidden"))
		if out[1].MayLeave() || !out[2].MayLeave() {
			t.Errorf("a permit from before may leave: %v, one for another path: %v", out[1].MayLeave(), out[2].MayLeave())
		}
		if n := headgate.Waiting(l); n != 5 {
			t.Errorf("%d in line, want 5", n)
		}
		out[1].Done(refusedFor(time.Second, "hidden")) // late, and no news
		for _, p := range out[2:] {
			answered(p)
		}
		c.wg.Wait()
		// From 4.5 s on the token's bucket has three for those who waited.
		for i, want := range map[int]time.Duration{1: 1000, 3: 2000, 4: 4500, 0: 4500, 2: 5000} {
			if c.went[i] != want*ms {
				t.Errorf("caller %d went after %v, want %v", i, c.went[i], want*ms)
			}
		}
		if want := []int{1, 3, 4, 0, 2}; !slices.Equal(c.order, want) {
			t.Errorf("order %v, want %v", c.order, want)
		}
		w.want(t, map[int][]headgate.WaitPart{
			4: {{Limit: "token", Empty: 500 * ms}, {Limit: "hidden", RetryAfter: 4 * time.Second}},
			0: {{Limit: "token", Empty: 500 * ms}, {Limit: "hidden", RetryAfter: 4 * time.Second}},
			2: {{Limit: "token", Empty: 1000 * ms}, {Limit: "hidden", RetryAfter: 4 * time.Second}},
			1: {{Limit: "token", Empty: time.Second}},
		})
	})
}

// Who can't wait for a hidden limit that is closed is refused at once, in line
// or not, and its time runs on while it is moved.
func TestHiddenLimitAndDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := exact(t, limit("token", 0.1, 1))
		out, _ := l.Take(t.Context(), headgate.Ask{Path: "/h"})
		c := newCrowd()
		c.take(t.Context(), l, 0, headgate.Ask{Path: "/h", MaxRetryAfter: time.Minute}, answered)
		c.take(t.Context(), l, 1, headgate.Ask{Path: "/h", Until: time.Now().Add(30 * time.Minute)}, answered)
		c.take(t.Context(), l, 2, headgate.Ask{Path: "/other", MaxRetryAfter: time.Minute}, answered)
		c.take(t.Context(), l, 3, headgate.Ask{Path: "/h", Until: time.Now().Add(61 * time.Minute)}, func(p headgate.Permit) {
			p.Done(refusedFor(time.Hour, "h"))
		})
		c.take(t.Context(), l, 4, headgate.Ask{Path: "/h", Until: time.Now().Add(62 * time.Minute)}, answered)
		time.Sleep(time.Second)
		out.Done(refusedFor(time.Hour, "h"))
		c.wg.Wait()
		var e *headgate.LimitError
		for _, i := range []int{0, 1} {
			if !errors.As(c.errs[i], &e) || e.Limit != "h" || e.RetryAfter != time.Hour || e.Waited.Total != time.Second {
				t.Errorf("caller %d: %v", i, c.errs[i])
			}
		}
		if c.went[2] != 10*time.Second || c.went[3] != time.Hour+time.Second {
			t.Errorf("went after %v", c.went)
		}
		if !errors.As(c.errs[4], &e) || e.Waited.Total != time.Hour+time.Second {
			t.Errorf("caller 4: %v", c.errs[4])
		}
	})
}

// A limit that is configured for other paths is the same limit: its gate holds
// for all, and its bucket is shared.
func TestConfiguredLimitFoundOnAnotherPath(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		flows := limit("flows", 1, 2)
		flows.Match = "/flows/"
		l := exact(t, limit("token", 100, 50), flows)
		refuse(t, l, headgate.Ask{Path: "/launch/1"}, refusedFor(10*time.Second, "flows"))
		mustWait(t, l, headgate.Ask{Path: "/launch/2"}, "flows", 10*time.Second)
		mustWait(t, l, headgate.Ask{Path: "/flows/x"}, "flows", 10*time.Second)
		mustWait(t, l, headgate.Ask{Path: "/other"}, "", 0)
		time.Sleep(20 * time.Second)
		c := newCrowd()
		for i, path := range []string{"/launch/3", "/flows/x", "/launch/4", "/flows/y"} {
			c.take(t.Context(), l, i, headgate.Ask{Path: path}, answered)
		}
		c.wg.Wait()
		for i, want := range []time.Duration{0, 0, 1, 2} {
			if c.went[i] != want*time.Second {
				t.Errorf("caller %d went after %v, want %v", i, c.went[i], want*time.Second)
			}
		}
		// A refusal that names no limit is the token's, as before.
		time.Sleep(20 * time.Second)
		refuse(t, l, headgate.Ask{Path: "/launch/5"}, refusedFor(5*time.Second, ""))
		mustWait(t, l, headgate.Ask{Path: "/other"}, "token", 5*time.Second)
		// It is not forgotten while its bucket is not as good as new.
		time.Sleep(10 * time.Second)
		refuse(t, l, headgate.Ask{Path: "/launch/5"}, refusedFor(5*time.Second, "flows"))
		for i := range 3000 {
			p, _ := l.Take(t.Context(), headgate.Ask{Token: fmt.Sprint(i)})
			answered(p)
		}
		mustWait(t, l, headgate.Ask{Path: "/launch/6"}, "flows", 5*time.Second)
		// And it is still known after a restart.
		again := exact(t, limit("token", 100, 50), flows)
		time.Sleep(10 * time.Second)
		refuse(t, l, headgate.Ask{Path: "/flows/x"}, refusedFor(7*time.Second, "flows"))
		again.Restore(l.Snapshot())
		mustWait(t, again, headgate.Ask{Path: "/launch/6"}, "flows", 7*time.Second)
	})
}

// What is configured for one path and found on another that has the same
// template is one limit still: each request takes one token of it.
func TestConfiguredLimitFoundOnTheSameTemplate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := limit("x", 1, 5)
		x.Match = "/p/1"
		l := exact(t, x)
		time.Sleep(time.Minute)
		out, _ := l.Take(t.Context(), headgate.Ask{Path: "/p/2"})
		for range 5 {
			p, _ := l.Take(t.Context(), headgate.Ask{Path: "/p/1"})
			answered(p)
		}
		c, w := newCrowd(), new(waits)
		for i := range 3 {
			c.take(t.Context(), l, i, headgate.Ask{Path: "/p/1"}, w.of(i, answered))
		}
		time.Sleep(300 * ms)
		out.Done(refusedFor(4*time.Second, "x"))
		c.take(t.Context(), l, 3, headgate.Ask{Path: "/p/3"}, w.of(3, answered))
		c.wg.Wait()
		w.want(t, map[int][]headgate.WaitPart{
			0: {{Limit: "x", Empty: 300 * ms, RetryAfter: 4 * time.Second}},
			1: {{Limit: "x", Empty: 1300 * ms, RetryAfter: 4 * time.Second}},
			2: {{Limit: "x", Empty: 2300 * ms, RetryAfter: 4 * time.Second}},
			3: {{Limit: "x", Empty: 3 * time.Second, RetryAfter: 4 * time.Second}},
		})
	})
}

// One limit may have two names.
func TestAliasOfALimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := refusedFor(10*time.Second, "token.rate.per.minute")
		o.Alias = "api"
		l := exact(t, limit("api", 100, 50))
		refuse(t, l, headgate.Ask{Path: "/a"}, o)
		mustWait(t, l, headgate.Ask{Path: "/b"}, "api", 10*time.Second)
		if n := headgate.Learned(l); n != 0 {
			t.Errorf("%d limits are learned, want none", n)
		}

		api := limit("api", 100, 50)
		api.Match = "/b"
		l = exact(t, api)
		refuse(t, l, headgate.Ask{Path: "/a"}, o)
		mustWait(t, l, headgate.Ask{Path: "/b"}, "api", 10*time.Second)

		l = exact(t)
		refuse(t, l, headgate.Ask{Path: "/a"}, o)
		mustWait(t, l, headgate.Ask{Path: "/a"}, o.Limit, 10*time.Second)
		mustWait(t, l, headgate.Ask{Path: "/b"}, "", 0)
	})
}

// What a server says does not make the limiter grow without bound, nor is it
// shown if it is no name: then the token's gate holds everybody back.
func TestHiddenLimitsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, name := range []string{"", strings.Repeat("n", 129), "a\nb", "\x1b[31m", "\xff", "a\u202eb"} {
			l := exact(t, limit("token", 100, 50))
			refuse(t, l, headgate.Ask{Path: "/a"}, refusedFor(time.Second, name))
			mustWait(t, l, headgate.Ask{Path: "/b"}, "token", time.Second)
		}
		refusals := func(n int, path, name func(i int) string) *headgate.Limiter {
			l := exact(t, limit("token", 100, 500), limit("other", 100, 500))
			for i := range n {
				refuse(t, l, headgate.Ask{Path: path(i)}, refusedFor(time.Minute, name(i)))
			}
			return l
		}
		word := func(i int) string { return "/" + strings.Repeat("w", i+1) }
		one := func(int) string { return "one" }

		l := refusals(62, word, word)
		mustWait(t, l, headgate.Ask{Path: word(61)}, word(61), time.Minute)
		mustWait(t, l, headgate.Ask{Path: word(62)}, "", 0)
		l = refusals(63, word, word)
		mustWait(t, l, headgate.Ask{Path: "/free"}, "token", time.Minute)

		l = refusals(64, word, one)
		mustWait(t, l, headgate.Ask{Path: word(63)}, "one", time.Minute)
		mustWait(t, l, headgate.Ask{Path: "/free"}, "", 0)
		l = refusals(65, word, one)
		mustWait(t, l, headgate.Ask{Path: "/free"}, "token", time.Minute)

		l = refusals(1, func(int) string { return "/" + strings.Repeat("x", 1024) }, one)
		mustWait(t, l, headgate.Ask{Path: "/free"}, "token", time.Minute)
	})
}

// A hidden limit is forgotten when its bucket is as good as new, and its place
// is free for another.
func TestHiddenLimitsAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := exact(t)
		come := func() { // and go
			for i := range 3000 {
				p, _ := l.Take(t.Context(), headgate.Ask{Token: fmt.Sprint(i)})
				answered(p)
			}
		}
		for i := range 64 {
			refuse(t, l, headgate.Ask{Token: "t", Path: fmt.Sprint("/p", i)}, refusedFor(time.Minute, fmt.Sprint("l", i)))
		}
		come()
		if n := headgate.Learned(l); n != 64 {
			t.Errorf("%d are known, want 64: their gates are closed", n)
		}
		mustWait(t, l, headgate.Ask{Token: "t", Path: "/p7"}, "l7", time.Minute)
		time.Sleep(time.Minute)
		// What was learned is kept for ten minutes: there is no place.
		refuse(t, l, headgate.Ask{Token: "t", Path: "/new"}, refusedFor(time.Second, "new"))
		mustWait(t, l, headgate.Ask{Token: "t", Path: "/new"}, "token", time.Second)
		time.Sleep(5 * time.Minute)
		p, _ := l.Take(t.Context(), headgate.Ask{Token: "t", Path: "/p8"})
		answered(p)
		time.Sleep(5 * time.Minute)
		// All but p8's are idle, and make room.
		refuse(t, l, headgate.Ask{Token: "t", Path: "/new"}, refusedFor(time.Minute, "new"))
		if n := headgate.Learned(l); n != 2 {
			t.Errorf("%d are known, want 2", n)
		}
		mustWait(t, l, headgate.Ask{Token: "t", Path: "/new"}, "new", time.Minute)
	})
}

// A restart knows a hidden limit again, with its gate and its paths.
func TestRestartKnowsHiddenLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := exact(t, limit("token", 100, 50))
		for _, path := range []string{"/flows/1", "/launch"} {
			refuse(t, l, headgate.Ask{Org: "o", Token: "t", Path: path}, refusedFor(time.Minute, "hidden"))
		}
		text, err := json.Marshal(l.Snapshot())
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(text), `"limit":"hidden","org":"o","token":"t","templates":["/flows/*","/launch"]`) {
			t.Errorf("%s", text)
		}
		var states []headgate.State
		if err := json.Unmarshal(text, &states); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		again := exact(t, limit("token", 100, 50))
		again.Restore(states)
		for _, path := range []string{"/flows/2", "/launch"} {
			mustWait(t, again, headgate.Ask{Org: "o", Token: "t", Path: path}, "hidden", 50*time.Second)
		}
		mustWait(t, again, headgate.Ask{Org: "o", Token: "t", Path: "/other"}, "", 0)
		mustWait(t, again, headgate.Ask{Org: "o", Token: "u", Path: "/launch"}, "", 0)

		// It is configured by now, for some of the paths.
		flows := limit("hidden", 10, 5)
		flows.Match = "/flows/*"
		again = exact(t, limit("token", 100, 50), flows)
		again.Restore(states)
		for _, path := range []string{"/flows/2", "/launch"} {
			mustWait(t, again, headgate.Ask{Org: "o", Token: "t", Path: path}, "hidden", 50*time.Second)
		}

		// The gate of a limit that is gone holds for the token, and is
		// not the hidden one's.
		again = exact(t)
		again.Restore(append(slices.Clone(states), headgate.State{
			Limit: "was configured", Org: "o", Token: "t", At: time.Now(), Gate: time.Now().Add(time.Hour),
		}))
		for _, s := range again.Snapshot() {
			if left := time.Until(s.Gate); s.Limit == "hidden" && left != 50*time.Second {
				t.Errorf("hidden is closed for %v, want 50s", left)
			}
		}

		// A state that nobody can have written holds the token back.
		for i := range states {
			states[i].Limit = "\x00"
		}
		again = exact(t, limit("token", 100, 50))
		again.Restore(states)
		mustWait(t, again, headgate.Ask{Org: "o", Token: "t", Path: "/other"}, "token", 50*time.Second)
	})
}

func TestFoldsIsTemplate(t *testing.T) {
	path := rapid.StringMatching(`(/(|[0-9]{1,3}|x|\*|[0-9a-f]{2}|` + uuid + `)){0,4}|x1(/2)?`)
	rapid.Check(t, func(rt *rapid.T) {
		a, b := path.Draw(rt, "a"), path.Draw(rt, "b")
		of := headgate.Template(b)
		if got, want := headgate.Folds(a, of), headgate.Template(a) == of; got != want {
			rt.Errorf("%q has the template %q: %v, want %v", a, of, got, want)
		}
		if !headgate.Folds(b, of) || headgate.Template(of) != of {
			rt.Errorf("%q has not the template %q", b, of)
		}
	})
}

// Whoever comes and goes while hidden limits are found: everybody comes to an
// end, nobody goes while the server has asked to stay away, waits add up, and
// those who draw on no hidden limit do not wait.
func TestManyHiddenLimits(t *testing.T) {
	both := 0 // waited for a hidden limit and another
	for seed := range uint64(30) {
		synctest.Test(t, func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 3))
			l := exact(t, headgate.Limit{Name: "org", Per: headgate.PerOrg, Rate: 40, Burst: 20}, headgate.Limit{Name: "token", Rate: 20, Burst: 5})
			type key struct{ token, limit string }
			type gate struct{ from, until time.Time }
			paths := []string{"/free", "/a/1", "/a/2", "/b", "/b/3"}
			limitOf := map[string]string{"/a/*": "one", "/b": "one", "/b/*": "two"}
			var mu sync.Mutex
			closed, found := map[key]gate{}, map[string]time.Time{} // when first, by template
			var wg sync.WaitGroup
			start := time.Now()
			for range 300 {
				ask := headgate.Ask{Priority: r.IntN(8) - 3, Token: fmt.Sprint(r.IntN(2)), Path: paths[r.IntN(len(paths))]}
				template := headgate.Template(ask.Path)
				k := key{ask.Token, limitOf[template]}
				patience := time.Duration(r.IntN(20_000)) * ms
				comes, takes := time.Duration(r.IntN(3000))*ms, time.Duration(r.IntN(300))*ms
				kind := r.IntN(10)
				wg.Go(func() {
					time.Sleep(comes)
					if kind == 3 {
						ask.Until = time.Now().Add(patience)
					}
					came := time.Now()
					p, err := l.Take(t.Context(), ask)
					now, wait := time.Now(), p.Wait
					if limit, ok := errors.AsType[*headgate.LimitError](err); ok {
						wait = limit.Waited
					}
					var sum time.Duration
					for _, part := range wait.Parts {
						sum += part.Total()
					}
					mu.Lock()
					if sum != wait.Total || sum != time.Since(came) {
						t.Errorf("seed %d: waited %v, told %+v", seed, time.Since(came), wait)
					}
					if n := len(wait.Parts); n > 1 && wait.Parts[n-1].Limit == k.limit {
						both++
					}
					since, is := found[template]
					if g := closed[k]; err == nil && is && now.After(since) && now.After(g.from) && now.Before(g.until) {
						t.Errorf("seed %d: %s went at %v although %s is closed until %v", seed, ask.Path, now.Sub(start), k.limit, g.until.Sub(start))
					}
					mu.Unlock()
					if err != nil {
						return
					}
					time.Sleep(takes)
					if kind > 6 && k.limit != "" && time.Since(start) < 3*time.Second {
						mu.Lock()
						if _, is := found[template]; !is {
							found[template] = time.Now()
						}
						if g := closed[k]; time.Now().Before(g.until) {
							closed[k] = gate{g.from, time.Now().Add(time.Second)}
						} else {
							closed[k] = gate{time.Now(), time.Now().Add(time.Second)}
						}
						mu.Unlock()
						p.Done(refusedFor(time.Second, k.limit))
						return
					}
					answered(p)
				})
			}
			wg.Wait()
			if n := headgate.Waiting(l); n != 0 || time.Since(start) > 3*time.Minute {
				t.Errorf("seed %d: %d are left in line after %v", seed, n, time.Since(start))
			}
		})
	}
	if both < 100 {
		t.Errorf("only %d waited for a hidden limit and another: the test shows nothing", both)
	}
}

// Through a Transport, against a server with a limit that nobody told us of:
// requests to other paths go on at full pace, and nothing starves.
func TestHiddenLimitOfAServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const launches, others = 60, 500
		pair := headgatetest.New(t, emulator.Config{
			AnyToken: true, Latency: 5 * ms, Expected: launches + others,
			Limits: []emulator.Limit{bucket50, {Name: "launches.rate", Match: "/api/v2/flows/executions", Rate: 5, Burst: 5}},
			Key:    func(r *http.Request, body []byte) string { return string(body) },
		})
		tr := &headgate.Transport{Base: pair.Transport(), Limits: []headgate.Limit{known50}, Read: genesys.ReadAnswer}
		start := time.Now()
		var mu sync.Mutex
		var last [2]time.Duration
		waited := map[string]time.Duration{}
		var wg sync.WaitGroup
		call := func(kind, i int, path string) {
			wg.Go(func() {
				req, _ := http.NewRequestWithContext(t.Context(), "POST", pair.URL+path, strings.NewReader(fmt.Sprintf(`{"flowId":"f","n":"%d.%d"}`, kind, i)))
				resp, tries, err := tr.Send(req)
				if err != nil || resp.StatusCode != 200 {
					t.Errorf("%s: %v, %v", path, resp, err)
					return
				}
				io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
				mu.Lock()
				last[kind] = max(last[kind], time.Since(start))
				waited["launches"] += tries.Waits["launches.rate"]
				if kind == 1 {
					waited["others"] += tries.Waits[headgate.WaitRetryAfter] + tries.Waits["launches.rate"]
				}
				mu.Unlock()
			})
		}
		for i := range others {
			if i < launches {
				call(0, i, "/api/v2/flows/executions")
			}
			call(1, i, "/api/v2/architect/flows/f/execute")
		}
		wg.Wait()
		r := pair.Emulator.Report()
		t.Logf("launches after %v, others after %v, %d rejected", last[0], last[1], r.Rejected)
		if r.Lost != 0 || r.Doubled != 0 || r.Early != 0 {
			t.Errorf("%v", r)
		}
		if waited["others"] != 0 || waited["launches"] == 0 {
			t.Errorf("waits for the hidden limit: %v", waited)
		}
		// All of them, and each refusal, take a token of the 100 and 50/s.
		if best := time.Duration(float64(others+launches+r.Rejected-100) / 50 * 1e9); last[1] > best {
			t.Errorf("the others ended after %v, want %v", last[1], best)
		}
		if best := time.Duration(launches-5) * time.Second / 5; last[0] > 2*best {
			t.Errorf("the launches ended after %v, possible after %v", last[0], best)
		}
	})
}
