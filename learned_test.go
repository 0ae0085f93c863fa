package headgate_test

import (
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/headgate/headgate"
	"github.com/headgate/headgate/emulator"
	"github.com/headgate/headgate/headgatetest"
)

// learner is a transport with a limiter of its own, told l, in front of an
// emulator of which the client knows nothing else.
type learner struct {
	*headgatetest.Pair
	tr *headgate.Transport
	l  *headgate.Limiter
}

func newLearner(t *testing.T, config emulator.Config, l headgate.Limit) learner {
	t.Helper()
	config.AnyToken, config.Latency = true, 3*time.Millisecond
	// An answer takes its time. Came it in the instant in which it was asked for,
	// it would depend on the scheduler who has been asked meanwhile.
	return learnerOf(t, headgatetest.NewNetwork(t, config, headgatetest.Network{Latency: time.Millisecond}), l)
}

func learnerOf(t *testing.T, pair *headgatetest.Pair, l headgate.Limit) learner {
	t.Helper()
	limiter, err := headgate.NewLimiter(headgate.LimiterConfig{Limits: []headgate.Limit{l}})
	if err != nil {
		t.Fatal(err)
	}
	return learner{pair, &headgate.Transport{Base: pair.Transport(), Limiter: limiter}, limiter}
}

func (l learner) estimate(t *testing.T) headgate.Estimate {
	t.Helper()
	list := l.l.Estimates()
	if len(list) != 1 {
		t.Fatalf("%d estimates: %v", len(list), list)
	}
	return list[0]
}

// accepted returns how many requests the server accepted between two instants.
func (l learner) accepted(from, to time.Duration) (n int) {
	for row := range l.Emulator.Ledger() {
		if row.At >= from && row.At < to && row.Status == http.StatusOK {
			n++
		}
	}
	return n
}

func (l learner) refused(from, to time.Duration) (n int) {
	for row := range l.Emulator.Ledger() {
		if row.At >= from && row.At < to && row.Status == http.StatusTooManyRequests {
			n++
		}
	}
	return n
}

// A limit that does not move is probed at most once in 500, for as long as it
// takes.
func TestProbesAreRare(t *testing.T) {
	for name, l := range map[string]headgate.Limit{"known": told(50, 100), "told nothing": nothing} {
		synctest.Test(t, func(t *testing.T) {
			const n, start = 10_000, 1000
			c := newLearner(t, gives(emulator.Limit{Rate: 50, Burst: 100}), l)
			work(t, c.tr, c.URL, "", n)
			from := 20 * time.Second // the start: 1,000 are accepted
			if refused, most := c.refused(from, time.Hour), (n-start)/500+2; refused > most {
				t.Errorf("%s: %d of %d refused, want at most %d", name, refused, n-start, most)
			}
			if e := c.estimate(t); math.Abs(e.Rate-50) > 0.5 || e.RateSure < 0.95 || e.Algorithm != headgate.TokenBucket || e.Others != 0 {
				t.Errorf("%s: %+v", name, e)
			}
		})
	}
}

func TestFollowsALimitThatMoves(t *testing.T) {
	for _, test := range []struct {
		before, after float64
		told          headgate.Limit
	}{
		{25, 50, nothing}, {50, 100, nothing}, {50, 20, nothing}, {50, 20, told(50, 100)}, {50, 100, told(50, 100)}, {50, 5, nothing},
	} {
		synctest.Test(t, func(t *testing.T) {
			const at = 40 * time.Second
			config := gives(emulator.Limit{Rate: test.before, Burst: 100})
			config.Script = []emulator.Fault{{Kind: emulator.Change, Limit: "token.rate.per.minute", From: at, Rate: test.after}}
			c := newLearner(t, config, test.told)
			n := int(100 + test.before*at.Seconds() + test.after*60)
			work(t, c.tr, c.URL, "", n)
			// A rise is found within 30 s, a fall within a few rejections.
			if got := float64(c.accepted(at+30*time.Second, at+50*time.Second)) / 20; got < 0.93*test.after {
				t.Errorf("from %v to %v/s: %v/s after 30 s", test.before, test.after, got)
			}
			if refused := c.refused(at, at+30*time.Second); refused > 8 {
				t.Errorf("from %v to %v/s: %d refused in 30 s", test.before, test.after, refused)
			}
		})
	}
}

func TestOthersAreReported(t *testing.T) {
	for _, l := range []headgate.Limit{told(50, 100), nothing} {
		synctest.Test(t, func(t *testing.T) {
			config := gives(emulator.Limit{Rate: 50, Burst: 100})
			traffic(&config, 0, 0, 18)
			c := newLearner(t, config, l)
			c.tr.Read = func(resp *http.Response) headgate.Observation {
				o := headgate.ReadAnswer(resp)
				if o.Refused {
					o.Value = 50 // as the platform's answers say
				}
				return o
			}
			work(t, c.tr, c.URL, "", 1000)
			if e := c.estimate(t); math.Abs(e.Others-18) > 2 || !strings.Contains(e.String(), "are used by somebody else") {
				t.Errorf("%v", e)
			}
		})
	}
}

func TestLearnsTheAlgorithm(t *testing.T) {
	window := func(a emulator.Algorithm) emulator.Limit {
		return emulator.Limit{Algorithm: a, Max: 300, Window: 6 * time.Second}
	}
	for _, test := range []struct {
		server emulator.Limit
		want   headgate.Algorithm
		rate   float64
	}{
		{emulator.Limit{Rate: 50, Burst: 100}, headgate.TokenBucket, 50},
		{window(emulator.Fixed), headgate.FixedWindow, 50},
		{window(emulator.Sliding), headgate.SlidingWindow, 50},
	} {
		synctest.Test(t, func(t *testing.T) {
			c := newLearner(t, gives(test.server), nothing)
			if e := c.l.Estimates(); len(e) != 0 {
				t.Errorf("%v before anything was sent", e)
			}
			work(t, c.tr, c.URL, "", 2000)
			e := c.estimate(t)
			if e.Algorithm != test.want || e.AlgorithmSure < 0.8 || test.want != headgate.TokenBucket && (e.Burst != 300 || e.Window != 6*time.Second) {
				t.Errorf("%+v, want %v", e, test.want)
			}
			if e.Algorithm == headgate.TokenBucket && math.Abs(e.Burst-100) > 15 {
				t.Errorf("burst %v (%v sure), want about 100", e.Burst, e.BurstSure)
			}
		})
	}
}

// What was learned is where the next process starts, and a restart refills
// nothing.
func TestLearnedSurvivesARestart(t *testing.T) {
	for _, test := range []struct {
		server  emulator.Limit
		told    headgate.Limit
		refused int64 // after the restart
	}{
		{emulator.Limit{Rate: 35, Burst: 100}, told(50, 100), 2},
		{emulator.Limit{Rate: 50, Burst: 100}, nothing, 5}, // it was looking for more just then
		{emulator.Limit{Algorithm: emulator.Fixed, Max: 300, Window: 6 * time.Second}, nothing, 2},
	} {
		synctest.Test(t, func(t *testing.T) {
			c := newLearner(t, gives(test.server), test.told)
			work(t, c.tr, c.URL, "a", 800)
			before := c.Emulator.Report()
			text, err := json.Marshal(c.l.Snapshot())
			if err != nil {
				t.Fatal(err)
			}
			var states []headgate.State
			if err := json.Unmarshal(text, &states); err != nil {
				t.Fatal(err)
			}
			again := learnerOf(t, c.Pair, test.told)
			again.l.Restore(states)
			if a, b := c.estimate(t), again.estimate(t); math.Abs(a.Rate-b.Rate) > 0.01*a.Rate || a.Algorithm != b.Algorithm && a.Window != b.Window || b.Level > a.Level+1 {
				t.Errorf("%+v became %+v", a, b)
			}
			work(t, again.tr, c.URL, "b", 800)
			r := c.Emulator.Report()
			if refused := r.Rejected - before.Rejected; refused > test.refused || r.Executed != 1600 || r.Early != 0 {
				t.Errorf("%v: %d refused after the restart, %d executed, %d early", test.server, refused, r.Executed, r.Early)
			}
			if span, ideal := r.Limits[0].Span.Seconds(), r.Limits[0].Ideal.Seconds(); span > 1.12*ideal {
				t.Errorf("%v: took %v, ideal %v", test.server, span, ideal)
			}

			// Another rule begins anew; a third one that is the first again
			// knows what was learned.
			other := learnerOf(t, c.Pair, told(10, 10))
			other.l.Restore(states)
			if e := other.estimate(t); e.Rate != 10 {
				t.Errorf("told 10/s, it starts from %+v", e)
			}
			third := learnerOf(t, c.Pair, test.told)
			third.l.Restore(other.l.Snapshot())
			if a, b := c.estimate(t), third.estimate(t); math.Abs(a.Rate-b.Rate) > 0.01*a.Rate {
				t.Errorf("%+v became %+v by way of another rule", a, b)
			}
		})
	}
}

// Whatever stands in a state, nothing breaks, and nothing is refilled.
func TestLearnedThatMakesNoSense(t *testing.T) {
	for _, learned := range []string{
		`{"of":{"Rate":1,"Burst":10,"Learn":true},"rate":-1}`, `{"of":{"Rate":1,"Burst":10,"Learn":true},"rate":1e300,"level":1e300}`,
		`{"of":{"Rate":1,"Burst":10,"Learn":true},"rate":1,"level":1e11,"hold":1,"pause":1}`, `[]`, `{"rate":"much"}`, `{`, `null`, `7`,
	} {
		synctest.Test(t, func(t *testing.T) {
			l, err := headgate.NewLimiter(headgate.LimiterConfig{Limits: []headgate.Limit{{Name: "api", Rate: 1, Burst: 10}}})
			if err != nil {
				t.Fatal(err)
			}
			l.Restore([]headgate.State{{Limit: "api", At: time.Now(), Spent: 9, Learned: json.RawMessage(learned)}})
			start := time.Now()
			for range 10 {
				p, err := l.Take(t.Context(), headgate.Ask{})
				if err != nil {
					t.Fatal(err)
				}
				answered(p)
			}
			if took := time.Since(start); took < 4*time.Second || took > 40*time.Second {
				t.Errorf("%s: 10 went in %v", learned, took)
			}
		})
	}
}

func TestCeilingIsNeverExceeded(t *testing.T) {
	for _, l := range []headgate.Limit{told(50, 100), nothing, {Name: "token.rate.per.minute", Max: 300, Window: time.Minute}} {
		synctest.Test(t, func(t *testing.T) {
			l.Ceiling = 30
			c := newLearner(t, gives(emulator.Limit{Rate: 80, Burst: 100}), l)
			work(t, c.tr, c.URL, "", 900)
			var at []time.Duration
			for row := range c.Emulator.Ledger() {
				at = append(at, row.At)
			}
			for i := 31; i < len(at); i++ {
				if at[i]-at[i-31] < time.Second {
					t.Fatalf("%+v: 31 within %v", l, at[i]-at[i-31])
				}
			}
			// A window is still the window that was told.
			if l.Max == 0 && at[len(at)-1] > 31*time.Second {
				t.Errorf("%+v: took %v", l, at[len(at)-1])
			}
		})
	}
}

// After an hour of nothing a burst goes, but not for the hour's worth, and what
// was learned is not lost over it.
func TestBurstAfterIdling(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newLearner(t, gives(emulator.Limit{Rate: 50, Burst: 100}), nothing)
		work(t, c.tr, c.URL, "a", 1000)
		for _, size := range []int{30, 300} {
			time.Sleep(time.Hour)
			before, start := c.Emulator.Report(), time.Now()
			work(t, c.tr, c.URL, time.Now().String(), size)
			took, r := time.Since(start), c.Emulator.Report()
			if refused := r.Rejected - before.Rejected; refused > 3 {
				t.Errorf("%d of %d refused", refused, size)
			}
			if most := max(200*time.Millisecond, time.Duration(size-100)*time.Second/50+1500*time.Millisecond); took > most {
				t.Errorf("%d took %v, want at most %v", size, took, most)
			}
		}
		if e := c.estimate(t); math.Abs(e.Rate-50) > 3 {
			t.Errorf("%v", e)
		}
	})
}

// "300 a minute" is kept in any minute as long as nobody knows how the server
// counts.
func TestToldPerMinuteIsKeptInAnyMinute(t *testing.T) {
	for _, a := range []emulator.Algorithm{emulator.Fixed, emulator.Sliding} {
		synctest.Test(t, func(t *testing.T) {
			l := headgate.PerTime(300, time.Minute)
			l.Name = "token.rate.per.minute"
			c := newLearner(t, gives(emulator.Limit{Algorithm: a, Max: 300, Window: time.Minute}), l)
			work(t, c.tr, c.URL, "", 480) // less than what is probed after
			var at []time.Duration
			for row := range c.Emulator.Ledger() {
				at = append(at, row.At)
			}
			for i := 300; i < len(at); i++ {
				if at[i]-at[i-300] < time.Minute {
					t.Fatalf("301 within %v", at[i]-at[i-300])
				}
			}
		})
	}
}

// A hidden limit that only a 429 names is learned like any other, and the rest
// goes on.
func TestHiddenLimitIsLearned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		config := gives(emulator.Limit{Rate: 50, Burst: 100},
			emulator.Limit{Name: "flows.rate", Match: "POST /api/v2/architect/flows/*/execute", Rate: 10, Burst: 20})
		c := newLearner(t, config, told(50, 100))
		c.tr.Read = readName
		var other sync.WaitGroup
		polls := 0
		start := time.Now()
		other.Go(func() {
			for time.Since(start) < 60*time.Second {
				req, _ := http.NewRequest("GET", c.URL+"/api/v2/flows/executions/1", nil)
				resp, err := c.tr.RoundTrip(req)
				if err != nil {
					t.Error(err)
					return
				}
				resp.Body.Close()
				polls++
				time.Sleep(90 * time.Millisecond)
			}
		})
		work(t, c.tr, c.URL, "", 800)
		took := time.Since(start)
		other.Wait()
		if ideal := 78 * time.Second; took > ideal*110/100 {
			t.Errorf("took %v, ideal %v", took, ideal)
		}
		if polls < 600 {
			t.Errorf("%d polls, want about 630: they do not draw on it", polls)
		}
		i := slices.IndexFunc(c.l.Estimates(), func(e headgate.Estimate) bool { return e.Limit == "flows.rate" })
		if i < 0 {
			t.Fatalf("it is not shown: %v", c.l.Estimates())
		}
		e := c.l.Estimates()[i]
		// It contends below 20/s, and what it tries for moves.
		if e.Rate < 4 || e.Rate > 40 || !slices.Equal(e.Templates, []string{"/api/v2/architect/flows/f/execute"}) {
			t.Errorf("%+v", e)
		}
		if r := c.Emulator.Report(); r.Rejected > 24 || r.Early > 0 {
			t.Errorf("%d refused, %d early", r.Rejected, r.Early)
		}
	})
}

// readName reads the name of the limit, as package genesys does.
func readName(resp *http.Response) headgate.Observation {
	o := headgate.ReadAnswer(resp)
	var body struct {
		Limit struct{ Key string }
	}
	if o.Refused && json.Unmarshal(headgate.Peek(resp), &body) == nil {
		o.Limit = body.Limit.Key
	}
	return o
}

// A server that refuses everything for long leaves nobody stuck.
func TestRecoversFromNothingButRefusals(t *testing.T) {
	for _, l := range []headgate.Limit{told(10, 20), nothing} {
		for _, blocked := range []time.Duration{15 * time.Second, 5 * time.Minute} {
			synctest.Test(t, func(t *testing.T) {
				config := gives(emulator.Limit{Rate: 10, Burst: 20})
				traffic(&config, 5*time.Second, 5*time.Second+blocked, 1000)
				c := newLearner(t, config, l)
				start := time.Now()
				work(t, c.tr, c.URL, "", 300)
				if took, most := time.Since(start), blocked+65*time.Second; took > most {
					t.Errorf("blocked for %v: took %v, want at most %v", blocked, took, most)
				}
			})
		}
	}
}

// Answers that may not have come as far as the limit teach nothing.
func TestFailuresTeachNothing(t *testing.T) {
	for _, kind := range []emulator.FaultKind{emulator.InternalError, emulator.UnavailableSilent} {
		synctest.Test(t, func(t *testing.T) {
			config := gives(emulator.Limit{Rate: 50, Burst: 100})
			config.Script = []emulator.Fault{{Kind: kind, To: 30 * time.Second}}
			c := newLearner(t, config, told(50, 100))
			var wg sync.WaitGroup
			for range 1000 {
				wg.Go(func() {
					req, _ := http.NewRequest("POST", c.URL+"/api/v2/architect/flows/f/execute", strings.NewReader("{}"))
					if resp, err := c.tr.RoundTrip(req); err == nil {
						resp.Body.Close()
					}
				})
			}
			wg.Wait()
			if e := c.estimate(t); math.Abs(e.Rate-50) > 2 {
				t.Errorf("%v: %v", kind, e)
			}
		})
	}
}

// Little traffic says nothing of how much a crowd may send.
func TestCrowdAfterLittleTraffic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newLearner(t, gives(emulator.Limit{Rate: 50, Burst: 100}), nothing)
		for i := range 5000 {
			work1(t, c, i)
			time.Sleep(time.Second)
		}
		start := time.Now()
		work(t, c.tr, c.URL, "", 1000)
		if r := c.Emulator.Report(); r.Rejected > 10 || time.Since(start) > 19500*time.Millisecond {
			t.Errorf("%d refused, took %v", r.Rejected, time.Since(start))
		}
	})
}

func work1(t *testing.T, c learner, i int) {
	req, _ := http.NewRequest("POST", c.URL+"/api/v2/architect/flows/f/execute", strings.NewReader(`{"i":`+strconv.Itoa(i)+`}`))
	resp, err := c.tr.RoundTrip(req)
	if err != nil {
		t.Error(err)
		return
	}
	resp.Body.Close()
}

// Permits that were not used cost nothing, and a restart gives nothing back.
func TestUnusedPermitsAndRestarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limit := headgate.Limit{Name: "api", Max: 40, Window: time.Minute}
		l, err := headgate.NewLimiter(headgate.LimiterConfig{Limits: []headgate.Limit{limit}})
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		for range 100 {
			p, err := l.Take(t.Context(), headgate.Ask{})
			if err != nil {
				t.Fatal(err)
			}
			p.Return()
		}
		if took := time.Since(start); took > 0 {
			t.Errorf("100 that were returned took %v", took)
		}

		spent := 0.0
		states := []headgate.State(nil)
		for i := range 5 {
			l, err := headgate.NewLimiter(headgate.LimiterConfig{Limits: []headgate.Limit{{Name: "api", Rate: 50, Burst: 100}}})
			if err != nil {
				t.Fatal(err)
			}
			l.Restore(states)
			if i == 0 {
				for range 90 {
					if p, err := l.Take(t.Context(), headgate.Ask{}); err == nil {
						answered(p)
					}
				}
			}
			states = l.Snapshot()
			if len(states) != 1 || i > 0 && states[0].Spent < spent-1e-6 {
				t.Fatalf("restart %d: %+v, %v was spent", i, states, spent)
			}
			spent = states[0].Spent
		}
	})
}

// A told window that holds less or more than was told is found, and kept to, also
// where windows follow each other by the clock.
func TestWindowOfAnotherSize(t *testing.T) {
	for _, kind := range []emulator.Limit{
		{Algorithm: emulator.Fixed}, {Algorithm: emulator.Sliding},
		{Algorithm: emulator.Fixed, Phase: 20 * time.Second}, {Algorithm: emulator.Fixed, Phase: 59500 * time.Millisecond},
	} {
		for _, max := range []int{20, 100, 290, 310, 600} {
			t.Run(fmt.Sprintf("%v of %d, %v old", kind.Algorithm, max, kind.Phase), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					l := headgate.Limit{Name: "token.rate.per.minute", Max: 300, Window: time.Minute}
					kind.Max, kind.Window = max, time.Minute
					c := newLearner(t, gives(kind), l)
					work(t, c.tr, c.URL, "", 20*max)
					// Where the clock's window is almost over, what was told is refused
					// as a bucket would do it, and it is paced as one. Where it ends
					// while a larger one is looked for, that takes longer.
					exact, longest := kind.Phase == 0 || kind.Phase < 59*time.Second && max <= 310, 1.13
					if kind.Phase > 0 && max > 310 {
						longest = 1.5
					}
					if e := c.estimate(t); exact && (e.Window != time.Minute || math.Abs(e.Burst-float64(max)) > 3 || math.Abs(e.Rate-float64(max)/60) > 0.1) {
						t.Errorf("%+v", e)
					}
					r := c.Emulator.Report()
					// One in 500, and finding it: 200 callers are at it, and what is
					// out when one is refused is refused, too. By the clock a window
					// may end while it is looked at, and seem to hold more.
					finding := int64(15)
					switch {
					case kind.Phase > 0 && max > 310:
						finding = 200
					case kind.Phase > 0:
						finding = 30
					}
					if r.Rejected > int64(20*max/500)+finding {
						t.Errorf("%d refused", r.Rejected)
					}
					if span := r.Limits[0].Span.Seconds() / r.Limits[0].Ideal.Seconds(); span > longest {
						t.Errorf("took %.3f of the ideal", span)
					}
				})
			})
		}
	}
}

// A window of which nothing is told is found whatever its phase, however long it is.
func TestWindowByTheClock(t *testing.T) {
	for _, window := range []time.Duration{5 * time.Second, 10 * time.Second, time.Minute} {
		for _, share := range []float64{0.05, 0.3, 0.6, 0.95} {
			t.Run(fmt.Sprintf("%v, %v of it gone", window, share), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					c := newLearner(t, gives(emulator.Limit{Algorithm: emulator.Fixed, Max: 300, Window: window, Phase: of(window, share)}), nothing)
					work(t, c.tr, c.URL, "", 20*300)
					r := c.Emulator.Report()
					// One in 500, finding it, and perhaps once more when the clock's
					// window ends while a larger one is looked for.
					if r.Rejected > 20*300/500+100 || r.Executed != 20*300 || r.Early != 0 {
						t.Errorf("%d refused, %d executed, %d early", r.Rejected, r.Executed, r.Early)
					}
					if span := r.Limits[0].Span.Seconds() / r.Limits[0].Ideal.Seconds(); span > 1.3 {
						t.Errorf("took %.3f of the ideal", span)
					}
				})
			})
		}
	}
}
