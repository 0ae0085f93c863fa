package headgate_test

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/headgate/headgate"
	"github.com/headgate/headgate/emulator"
	"github.com/headgate/headgate/headgatetest"
)

var seeds = flag.Int("seeds", 4, "how many seeds of each scenario TestLearning runs")

// learning is one row of the table of what a client reaches that learns: as a
// share of the ideal span, the median and the worst of the seeds, and 429s per
// accepted, worst.
type learning struct {
	name    string
	told    headgate.Limit
	server  emulator.Config
	network headgatetest.Network
	n       int // of each process
	clients int // processes that share nothing
	busy    int // so many of them have work; 0: all
	ideal   time.Duration
	vary    func(c *emulator.Config, phase float64) // phase is from 0 to 1

	median, worst, refused float64
	jain                   float64
	failed                 int64 // 503s
}

const sec = time.Second

func told(rate, burst float64) headgate.Limit {
	return headgate.Limit{Name: "token.rate.per.minute", Rate: rate, Burst: burst}
}

func gives(l ...emulator.Limit) emulator.Config { return emulator.Config{Limits: l} }

func of(d time.Duration, phase float64) time.Duration { return time.Duration(float64(d) * phase) }

var nothing = headgate.Learn("token.rate.per.minute")

func traffic(c *emulator.Config, from, to time.Duration, perSecond float64) {
	c.Script = append(c.Script, emulator.Fault{Kind: emulator.Traffic, Limit: "token.rate.per.minute", From: from, To: to, PerSecond: perSecond})
}

func learnings() []learning {
	b50 := emulator.Limit{Rate: 50, Burst: 100}
	others := func(c *emulator.Config, phase float64) { traffic(c, of(sec, phase), 0, 20) }
	onOff := func(c *emulator.Config, phase float64) {
		for at := of(20*sec, phase) - 20*sec; at < 200*sec; at += 20 * sec {
			if at+10*sec > 0 {
				traffic(c, max(0, at), at+10*sec, 20)
			}
		}
	}
	change := func(c *emulator.Config, at time.Duration, rate float64) {
		c.Script = append(c.Script, emulator.Fault{Kind: emulator.Change, Limit: "token.rate.per.minute", From: at, Rate: rate})
	}
	halves := func(c *emulator.Config, phase float64) {
		change(c, 5*sec+of(5*sec, phase), 25)
		change(c, 20*sec+of(5*sec, phase), 50)
	}
	outage := func(c *emulator.Config, phase float64) {
		from := 8*sec + of(sec, phase)
		c.Script = append(c.Script, emulator.Fault{Kind: emulator.Outage, From: from, To: from + 5*sec})
	}
	window := func(a emulator.Algorithm, d time.Duration) emulator.Config {
		return gives(emulator.Limit{Algorithm: a, Max: 300, Window: d})
	}
	retryAfter := func(m emulator.RetryAfterMode, f emulator.MessageForm) emulator.Config {
		return emulator.Config{Limits: []emulator.Limit{b50}, RetryAfter: m, Message: f}
	}
	far := headgatetest.Network{Latency: 50 * time.Millisecond, Jitter: time.Millisecond}
	return []learning{
		{name: "known", told: told(50, 100), server: gives(b50), n: 1000, median: 1.01, worst: 1.02, refused: 0.2},
		{name: "told nothing", told: nothing, server: gives(b50), n: 1000, median: 1.03, worst: 1.06, refused: 1},
		{name: "told nothing, 100 ms", told: nothing, server: emulator.Config{Limits: []emulator.Limit{b50}, Latency: 100 * time.Millisecond}, n: 1000, median: 1.06, worst: 1.10, refused: 5},
		{name: "told nothing, 100 ms on the way", told: nothing, server: gives(b50), network: far, n: 1000, median: 1.06, worst: 1.10, refused: 5},
		{name: "told 50, gives 35", told: told(50, 100), server: gives(emulator.Limit{Rate: 35, Burst: 100}), n: 1000, median: 1.03, worst: 1.05, refused: 1},
		{name: "told 50, gives 80", told: told(50, 100), server: gives(emulator.Limit{Rate: 80, Burst: 100}), n: 4000, median: 1.20, worst: 1.30, refused: 0.5},
		{name: "others take 20/s", told: told(50, 100), server: gives(b50), vary: others, n: 1000, median: 1.04, worst: 1.13, refused: 1.5},
		{name: "others take 20/s, told nothing", told: nothing, server: gives(b50), vary: others, n: 1000, median: 1.04, worst: 1.13, refused: 1.5},
		{name: "others on and off", told: told(50, 100), server: gives(b50), vary: onOff, n: 1000, median: 1.12, worst: 1.30, refused: 1},
		{name: "others on and off, told nothing", told: nothing, server: gives(b50), vary: onOff, n: 1000, median: 1.12, worst: 1.30, refused: 1},
		{name: "halves, then doubles", told: told(50, 100), server: gives(b50), vary: halves, n: 2000, median: 1.08, worst: 1.12, refused: 1},
		{name: "halves, then doubles, told nothing", told: nothing, server: gives(b50), vary: halves, n: 2000, median: 1.08, worst: 1.12, refused: 1},
		{name: "fixed window", told: nothing, server: window(emulator.Fixed, 6*sec), n: 1000, median: 1.10, worst: 1.25, refused: 1},
		{name: "sliding window", told: nothing, server: window(emulator.Sliding, 6*sec), n: 1000, median: 1.10, worst: 1.25, refused: 1},
		{name: "fixed window, told", told: headgate.Limit{Name: "token.rate.per.minute", Max: 300, Window: time.Minute}, server: window(emulator.Fixed, time.Minute), n: 1500, median: 1.05, worst: 1.27, refused: 0.5},
		{name: "outage", told: told(50, 100), server: gives(b50), vary: outage, n: 1000, ideal: 21 * sec, median: 1.03, worst: 1.05, refused: 0.5, failed: 5},
		{name: "no Retry-After", told: nothing, server: retryAfter(emulator.RetryAfterAbsent, emulator.MessageNone), n: 1000, median: 1.05, worst: 1.10, refused: 1},
		{name: "Retry-After not enough", told: nothing, server: emulator.Config{Limits: []emulator.Limit{{Algorithm: emulator.Fixed, Max: 300, Window: 6 * sec}}, RetryAfter: emulator.RetryAfterShortWhole}, n: 1000, median: 1.1, worst: 2, refused: 1.5},
		{name: "Retry-After 1-30 s", told: nothing, server: retryAfter(emulator.RetryAfterFluctuating, emulator.MessageSame), n: 1000, median: 4.5, worst: 7, refused: 1},
		{name: "1,000/s", told: nothing, server: gives(emulator.Limit{Rate: 1000, Burst: 1000}), n: 20000, median: 1.10, worst: 1.15, refused: 0.7},
		{name: "burst of 10", told: nothing, server: gives(emulator.Limit{Rate: 50, Burst: 10}), n: 1000, median: 1.15, worst: 1.40, refused: 1},
		{name: "one of four busy", told: told(50, 100), server: gives(b50), clients: 4, busy: 1, n: 1000, median: 1.03, worst: 1.08, refused: 1},
		{name: "one of four busy, told nothing", told: nothing, server: gives(b50), clients: 4, busy: 1, n: 1000, median: 1.03, worst: 1.08, refused: 1},
		{name: "15 processes", told: nothing, server: gives(b50), clients: 15, n: 1000, median: 1.05, worst: 1.10, refused: 5.5, jain: 0.9},
		{name: "4 processes", told: nothing, server: gives(b50), clients: 4, n: 500, median: 1.10, worst: 1.30, refused: 2, jain: 0.85},
	}
}

// What a client reaches that learns, against the emulator, through the front.
func TestLearning(t *testing.T) {
	for _, row := range learnings() {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			var spans, refused, jains []float64
			for seed := range *seeds {
				synctest.Test(t, func(t *testing.T) {
					o := row.run(t, seed)
					spans, refused, jains = append(spans, o.span), append(refused, o.refused), append(jains, o.jain)
				})
			}
			slices.Sort(spans)
			slices.Sort(refused)
			slices.Sort(jains)
			median, last := len(spans)/2, len(spans)-1
			t.Logf("span %.3f / %.3f of the ideal (%.2f / %.2f), 429s %.2f / %.2f %% (%.1f), Jain %.2f / %.2f",
				spans[median], spans[last], row.median, row.worst, refused[median], refused[last], row.refused, jains[median], jains[0])
			// A median of few says little.
			if *seeds >= 30 && spans[median] > row.median || spans[last] > row.worst {
				t.Errorf("span %.3f / %.3f of the ideal, want at most %.2f / %.2f", spans[median], spans[last], row.median, row.worst)
			}
			if refused[last] > row.refused {
				t.Errorf("%.2f %% refused, want at most %.1f", refused[last], row.refused)
			}
			if jains[median] < row.jain {
				t.Errorf("Jain's fairness %.2f, want at least %.2f", jains[median], row.jain)
			}
		})
	}
}

type learned struct{ span, refused, jain float64 }

// run is one run of a row. Whatever is learned, nothing may be lost, doubled or
// sent early.
func (row learning) run(t *testing.T, seed int) learned {
	config := row.server
	if config.Latency == 0 {
		config.Latency = 5 * time.Millisecond
	}
	config.AnyToken, config.Seed, config.Jitter = true, uint64(seed), time.Millisecond
	config.Key = func(r *http.Request, body []byte) string { return string(body) }
	config.Script = slices.Clone(config.Script)
	if row.vary != nil {
		row.vary(&config, float64(seed)*0.618034-float64(int(float64(seed)*0.618034)))
	}
	clients := max(1, row.clients)
	busy := cmp.Or(row.busy, clients)
	config.Expected = busy * row.n
	network := row.network
	network.Seed = uint64(seed)
	if network.Jitter == 0 {
		network.Jitter = 500 * time.Microsecond
	}
	pair := headgatetest.NewNetwork(t, config, network)
	start := time.Now()
	var wg sync.WaitGroup
	ended := make([]time.Duration, busy)
	var early atomic.Int64
	for c := range busy {
		base := &polite{base: pair.Transport(), early: &early}
		tr := &headgate.Transport{Base: base, Limits: []headgate.Limit{row.told}}
		wg.Go(func() {
			work(t, tr, pair.URL, fmt.Sprint(c, " "), row.n)
			ended[c] = time.Since(start)
		})
	}
	wg.Wait()
	r := pair.Emulator.Report()
	if clients == 1 {
		early.Add(r.Early) // what the server says of it
	}
	if r.Lost != 0 || r.Doubled != 0 || early.Load() != 0 {
		t.Errorf("seed %d: lost %d, doubled %d, early %d", seed, r.Lost, r.Doubled, early.Load())
	}
	if failed := r.ByStatus[503]; failed > row.failed {
		t.Errorf("seed %d: %d requests met the outage", seed, failed)
	}
	ideal := row.ideal
	if ideal == 0 {
		ideal = r.Limits[0].Ideal
	}
	sum, squares := 0.0, 0.0
	for _, d := range ended {
		x := float64(row.n) / d.Seconds()
		sum, squares = sum+x, squares+x*x
	}
	return learned{
		span:    slices.Max(ended).Seconds() / ideal.Seconds(),
		refused: 100 * float64(r.Rejected) / float64(r.Accepted),
		jain:    sum * sum / float64(busy) / squares,
	}
}

// work makes n executions by 200 callers.
func work(t *testing.T, tr *headgate.Transport, url, prefix string, n int) {
	var next atomic.Int64
	var wg sync.WaitGroup
	for range 200 {
		wg.Go(func() {
			for i := next.Add(1); i <= int64(n); i = next.Add(1) {
				req, err := http.NewRequestWithContext(t.Context(), "POST", url+"/api/v2/architect/flows/f/execute", strings.NewReader(fmt.Sprintf(`{"n":"%s%d"}`, prefix, i)))
				if err != nil {
					t.Error(err)
					return
				}
				resp, err := tr.RoundTrip(req)
				if err != nil || resp.StatusCode != 200 {
					t.Errorf("%v, %v", resp, err)
					return
				}
				io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
			}
		})
	}
	wg.Wait()
}

// A bucket that holds less than comes while a refusal closes the gate runs over
// then. Whatever was told of it, a limit that stands still is used and rarely
// refused, for as long as it lasts.
func TestLearnsTheBurst(t *testing.T) {
	for _, c := range []struct{ told, gives headgate.Limit }{
		{told(100, 50), told(100, 50)},
		{told(100, 100), told(100, 50)},
		{told(100, 200), told(100, 50)},
		{told(100, 100), told(100, 20)},
		{told(100, 50), told(120, 50)},
		{told(100, 50), told(80, 40)},
		{told(100, 50), told(50, 50)},
		{told(50, 100), told(50, 20)},
		{told(1000, 200), told(1000, 200)},
		{told(20, 20), told(20, 5)},
	} {
		t.Run(fmt.Sprintf("told %v of %v, gives %v of %v", c.told.Rate, c.told.Burst, c.gives.Rate, c.gives.Burst), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				pair := headgatetest.New(t, emulator.Config{
					Limits: []emulator.Limit{{Rate: c.gives.Rate, Burst: c.gives.Burst}}, AnyToken: true,
					Latency: 5 * ms, Jitter: 20 * ms, LedgerRows: -1,
				})
				tr := &headgate.Transport{Base: pair.Transport(), Limits: []headgate.Limit{c.told}}
				start := time.Now()
				work(t, tr, pair.URL, "", int(300*c.gives.Rate))
				span, r := time.Since(start), pair.Emulator.Report()
				took := span.Seconds() / r.Limits[0].Ideal.Seconds()
				t.Logf("%.3f of the ideal, one in %d refused", took, r.Accepted/max(1, r.Rejected))
				if took > 1.06 || r.Rejected > 3+r.Accepted/500 {
					t.Errorf("%.3f of the ideal, %d of %d refused", took, r.Rejected, r.Accepted)
				}
			})
		})
	}
}

// Requests of which nobody hears whether they drew on the limit have it neither
// probed more often nor used less: callers go away while theirs is out, or a tenth
// fails.
func TestLearnAmongFailures(t *testing.T) {
	t.Run("callers go away", func(t *testing.T) { learnAmong(t, 4, nil) })
	t.Run("a tenth fails", func(t *testing.T) {
		learnAmong(t, 0, []emulator.Fault{{Kind: emulator.InternalError, Share: 0.1}})
	})
}

// learnAmong has twelve callers at work, so many of which go away at random.
func learnAmong(t *testing.T, going int, script []emulator.Fault) {
	synctest.Test(t, func(t *testing.T) {
		const rate, lasts = 100, 10 * time.Minute
		pair := headgatetest.New(t, emulator.Config{
			Limits: []emulator.Limit{{Rate: rate, Burst: 50}}, AnyToken: true,
			Latency: 5 * ms, Jitter: 20 * ms, LedgerRows: -1, Script: script,
		})
		tr := &headgate.Transport{Base: pair.Transport(), Limits: []headgate.Limit{told(rate, 50)}}
		end := time.Now().Add(lasts)
		var wg sync.WaitGroup
		for i := range 12 {
			r := rand.New(rand.NewPCG(uint64(i), 1))
			wg.Go(func() {
				for time.Now().Before(end) {
					ctx, cancel := context.WithCancel(t.Context())
					if i < going { // nobody is told beforehand
						time.AfterFunc(time.Duration(1+r.IntN(200))*ms, cancel)
					}
					req, _ := http.NewRequestWithContext(ctx, "POST", pair.URL+"/api/v2/architect/flows/f/execute", strings.NewReader("{}"))
					if resp, err := tr.RoundTrip(req); err == nil {
						io.Copy(io.Discard, resp.Body)
						resp.Body.Close()
					} else if ctx.Err() == nil {
						t.Error(err)
					}
					cancel()
				}
			})
		}
		wg.Wait()
		r := pair.Emulator.Report()
		t.Logf("%d accepted in %v, %d refused", r.Accepted, lasts, r.Rejected)
		if want := int64(0.95 * rate * lasts.Seconds()); r.Accepted < want {
			t.Errorf("%d accepted, want at least %d", r.Accepted, want)
		}
		if most := r.Accepted / 500; r.Rejected > most {
			t.Errorf("%d of %d refused, want at most %d", r.Rejected, r.Accepted, most)
		}
	})
}

// polite counts the requests that are sent while a Retry-After runs that came
// through the same client before.
type polite struct {
	base  http.RoundTripper
	until atomic.Int64 // UnixNano
	early *atomic.Int64
}

func (p *polite) RoundTrip(req *http.Request) (*http.Response, error) {
	if time.Now().UnixNano() < p.until.Load() {
		p.early.Add(1)
	}
	resp, err := p.base.RoundTrip(req)
	if err == nil && (resp.StatusCode == 429 || resp.StatusCode == 503) {
		if d, err := time.ParseDuration(resp.Header.Get("Retry-After") + "s"); err == nil {
			for until := time.Now().Add(d).UnixNano(); ; {
				if was := p.until.Load(); was >= until || p.until.CompareAndSwap(was, until) {
					break
				}
			}
		}
	}
	return resp, err
}
