package gateway

import (
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/headgate/headgate"
	"github.com/headgate/headgate/emulator"
	"github.com/headgate/headgate/genesys"
	"github.com/headgate/headgate/headgatetest"
	"github.com/headgate/headgate/internal/config"
	"github.com/headgate/headgate/internal/keys"
	"github.com/headgate/headgate/internal/schedule"
)

// seen is what the emulator saw of an execution.
type seen struct {
	N  int    `json:"n"`
	By string `json:"by"`
	At time.Time
}

// line is a gateway at a bucket that is always empty, in a synctest bubble, with
// callers that have keys, and the order in which the emulator executes their
// calls.
type line struct {
	t      testing.TB
	g      *Gateway
	file   *config.File
	pair   *headgatetest.Pair
	permit time.Duration // between one permit and the next
	keys   map[string]string

	mu   sync.Mutex
	seen []seen
}

// newLine opens one at so many permits a second.
func newLine(t testing.TB, rate float64, change func(*config.File), callers ...config.Caller) *line {
	l := &line{t: t, permit: time.Duration(float64(time.Second) / rate), keys: map[string]string{}}
	for i := range callers {
		c := &callers[i]
		l.keys[c.Name], c.Key = keys.New()
		c.Urgency = config.DefaultUrgency
		c.Held, c.Queued, c.QueuedBytes = 1000, 1e6, 1e9
	}
	// Somewhat more than the gateway is told: no refusal is in the way.
	l.pair = headgatetest.New(t, emulator.Config{Limits: []emulator.Limit{{Rate: 1.2 * rate, Burst: rate}}, Key: l.witness})
	l.file = config.Single(config.Org{
		Name: "acme", APIURL: l.pair.URL, LoginURL: l.pair.URL, MaxWait: time.Minute, Timeout: time.Minute, Callers: callers,
		Credentials: genesys.Credentials{ClientID: emulator.DefaultClientID, ClientSecret: genesys.NewSecret(emulator.DefaultClientSecret)},
		Limits:      []headgate.Limit{{Name: genesys.LimitToken, Match: "/api/", Rate: rate, Burst: 2, Learn: headgate.LearnOff}},
	})
	l.file.Data = t.TempDir()
	if change != nil {
		change(l.file)
	}
	l.open()
	t.Cleanup(l.close)
	return l
}

func (l *line) open() {
	l.t.Helper()
	g, err := Open(Config{File: l.file, Base: l.pair.Transport()})
	must(l.t, err)
	l.g = g
}

func (l *line) close() {
	if l.g != nil {
		must(l.t, l.g.Close())
		l.g = nil
	}
}

func (l *line) witness(_ *http.Request, body []byte) string {
	s := seen{At: time.Now()}
	json.Unmarshal(body, &s)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seen = append(l.seen, s)
	return string(body)
}

// all returns what was executed so far.
func (l *line) all() []seen {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.seen[:len(l.seen):len(l.seen)]
}

// find returns when a caller's call was executed, and how many of others were
// after the first so many.
func (l *line) find(by string, n, after int) (at time.Time, others int) {
	l.t.Helper()
	wait(l.t, fmt.Sprintf("call %d of %s", n, by), func() bool {
		others = 0
		for _, s := range l.all()[after:] {
			if s.By == by && s.N == n {
				at = s.At
				return true
			}
			others++
		}
		return false
	})
	return at, others
}

// counts returns how many each caller had of those from on.
func counts(all []seen) map[string]int {
	had := map[string]int{}
	for _, s := range all {
		had[s.By]++
	}
	return had
}

// call makes a call of a caller.
func (l *line) call(by string, n int, fields ...string) answerTo {
	req := httptest.NewRequest("POST", executePath, strings.NewReader(fmt.Sprintf(`{"n":%d,"by":%q}`, n, by)))
	req.Header.Set("Headgate-Key", l.keys[by])
	for _, f := range fields {
		name, value, _ := strings.Cut(f, ": ")
		req.Header.Add(name, value)
	}
	a := httptest.NewRecorder()
	l.g.ServeHTTP(a, req)
	return answerTo{a.Code, a.Header(), a.Body.String()}
}

// keep has n calls of a caller queued, from number from on.
func (l *line) keep(by string, from, n int, fields ...string) {
	l.t.Helper()
	fields = append(fields, "Prefer: respond-async")
	next := make(chan int)
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() {
			for i := range next {
				if a := l.call(by, i, fields...); a.status != 202 {
					l.t.Errorf("call %d of %s: %d %s", i, by, a.status, a.body)
				}
			}
		})
	}
	for i := range n {
		next <- from + i
	}
	close(next)
	wg.Wait()
}

// hold keeps so many calls of a caller waiting, one after another each, until
// the test ends or stop is called.
func (l *line) hold(by string, connections int, fields ...string) (stop func()) {
	var wg sync.WaitGroup
	done := make(chan struct{})
	var once sync.Once
	for i := range connections {
		wg.Go(func() {
			for n := i; ; n += connections {
				select {
				case <-done:
					return
				default:
				}
				if a := l.call(by, n, fields...); a.status != 200 {
					l.t.Errorf("call %d of %s: %d %s", n, by, a.status, a.body)
					return
				}
			}
		})
	}
	stop = func() { once.Do(func() { close(done); wg.Wait() }) }
	l.t.Cleanup(stop)
	return stop
}

// sent waits until so many more were executed, and returns them.
func (l *line) sent(more int) []seen {
	l.t.Helper()
	from := len(l.all())
	wait(l.t, "calls to be executed", func() bool { return len(l.all()) >= from+more })
	return l.all()[from : from+more]
}

// wantShare fails unless a had within 3 % of ratio times what b had.
func wantShare(t testing.TB, what string, all []seen, a, b string, ratio float64) {
	t.Helper()
	had := counts(all)
	got := float64(had[a]) / float64(had[b])
	t.Logf("%s: %v, %.3f : 1 where %.0f : 1 is due", what, had, got, ratio)
	if math.Abs(got/ratio-1) > 0.03 {
		t.Errorf("%s: %.3f : 1, want %.0f : 1 within 3 %%", what, got, ratio)
	}
}

// Urgent calls do not wait for what is queued, however much it is: whether their
// callers wait for them, or they are queued themselves.
func TestUrgentAmongQueued(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLine(t, 50, nil, config.Caller{Name: "bulk", Weight: 1}, config.Caller{Name: "clerk", Weight: 1})
		l.keep("bulk", 0, 10_000, "Priority: u=6")
		l.sent(5)
		var held, kept int
		var heldFor, keptFor time.Duration
		for i := range 10 {
			from, came := len(l.all()), time.Now()
			if a := l.call("clerk", i, "Priority: u=1"); a.status != 200 {
				t.Fatalf("held: %d %s", a.status, a.body)
			}
			at, others := l.find("clerk", i, from)
			held, heldFor = max(held, others), max(heldFor, at.Sub(came))
		}
		for i := 10; i < 20; i++ {
			from, came := len(l.all()), time.Now()
			l.keep("clerk", i, 1, "Priority: u=1")
			at, others := l.find("clerk", i, from)
			kept, keptFor = max(kept, others), max(keptFor, at.Sub(came))
		}
		t.Logf("held: %d went before at most, %v; kept: %d, %v; a permit is %v", held, heldFor, kept, keptFor, l.permit)
		if held > 0 || kept > 0 || max(heldFor, keptFor) > l.permit {
			t.Error("urgent calls did not get the next permit")
		}

		from := len(l.all())
		var wg sync.WaitGroup
		for i := 20; i < 30; i++ {
			wg.Go(func() { l.call("clerk", i, "Priority: u=1") })
		}
		wg.Wait()
		last := 0
		for i := 20; i < 30; i++ {
			_, others := l.find("clerk", i, from)
			last = max(last, others+1)
		}
		t.Logf("ten at once: the last was the %dth to go", last)
		if last > 10 {
			t.Errorf("the last of ten at once was the %dth to go", last)
		}
	})
}

// Two callers who both always wait share the limit by weight, and either gets
// all of it when it is alone.
func TestShares(t *testing.T) {
	const some = 400
	for what, run := range map[string]func(l *line){
		"held": func(l *line) {
			stop := l.hold("three", 20)
			if had := counts(l.sent(100)); had["three"] != 100 {
				l.t.Errorf("alone: %v", had)
			}
			l.hold("one", 20)
			l.sent(40) // until all are in line
			wantShare(l.t, "held", l.sent(some), "three", "one", 3)
			stop()
			if had := counts(l.sent(100)); had["one"] < 100 {
				l.t.Errorf("alone again: %v", had)
			}
		},
		"kept": func(l *line) {
			l.keep("one", 0, 1500)
			l.sent(20)
			l.keep("three", 0, 1500)
			l.sent(20)
			wantShare(l.t, "kept", l.sent(some), "three", "one", 3)
		},
		"mixed": func(l *line) {
			l.keep("one", 0, 1500)
			l.hold("three", 20)
			l.sent(40)
			wantShare(l.t, "held beside kept", l.sent(some), "three", "one", 3)
		},
		"both": func(l *line) {
			l.keep("one", 0, 1500)
			l.keep("three", 0, 1500)
			l.hold("one", 20)
			l.hold("three", 20)
			l.sent(60)
			wantShare(l.t, "held and kept beside the same", l.sent(some), "three", "one", 3)
		},
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				run(newLine(t, 200, nil, config.Caller{Name: "three", Weight: 3}, config.Caller{Name: "one", Weight: 1}))
			})
		})
	}
}

// A caller with thousands queued delays another's first by a few permits, also
// after a restart.
func TestQueuedDelaysNobodyElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLine(t, 100, nil, config.Caller{Name: "bulk", Weight: 1}, config.Caller{Name: "late", Weight: 1}, config.Caller{Name: "later", Weight: 1})
		l.keep("bulk", 0, 5000)
		l.sent(5)
		delay := func(by string) {
			from := len(l.all())
			l.keep(by, 0, 1)
			_, others := l.find(by, 0, from)
			t.Logf("%d of the bulk went before the first of %s", others, by)
			if others > 2 {
				t.Errorf("%d of the bulk went before the first of %s", others, by)
			}
			l.keep(by, 1, 40)
			had := counts(l.sent(40))
			t.Logf("of the next 40 %v", had)
			if d := had[by] - had["bulk"]; d < -1 || d > 1 {
				t.Errorf("of the next 40 %v: not the same share", had)
			}
		}
		delay("late")
		l.close()
		l.open()
		delay("later")
	})
}

// A caller gets no better urgency than it may have.
func TestMostUrgent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLine(t, 100, nil, config.Caller{Name: "bulk", Weight: 1, MostUrgent: 5}, config.Caller{Name: "clerk", Weight: 1})
		l.keep("bulk", 0, 100, "Priority: u=0")
		from := len(l.all())
		l.keep("clerk", 0, 20, "Priority: u=4")
		end := 0
		for i := range 20 {
			_, others := l.find("clerk", i, from)
			end = max(end, others)
		}
		t.Logf("the clerk's 20 were among the next %d", end+1)
		if end > 20 { // one of the bulk may be on its way
			t.Errorf("the clerk's 20 were the next %d: the bulk was more urgent", end+1)
		}
	})
}

// peak are hours that begin and end as given, on the day on which a bubble begins.
func peak(t testing.TB, from, to string) []config.Peak {
	t.Helper()
	zone, err := schedule.ParseZone("Europe/Paris")
	must(t, err)
	hours, err := schedule.Parse(zone, "Sat "+from+"-"+to) // 2000-01-01, 01:00 at first
	must(t, err)
	return []config.Peak{{Hours: hours, Keep: 0.6, Urgent: 1}}
}

// In peak hours the bulk gets what is not kept for urgent calls, and these go at
// once; outside it gets all.
func TestPeakHours(t *testing.T) {
	for _, c := range []struct {
		from string
		want float64
		most int // others that go before an urgent call
	}{
		{"00:00", 40, 0},
		{"03:00", 100, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			l := newLine(t, 100, func(f *config.File) {
				f.Orgs[0].Peaks = peak(t, c.from, "04:00")
			}, config.Caller{Name: "bulk", Weight: 1}, config.Caller{Name: "clerk", Weight: 1})
			l.keep("bulk", 0, 600, "Priority: u=6")
			l.sent(30)
			const some = 80
			all := l.sent(some)
			rate := float64(some-1) / all[some-1].At.Sub(all[0].At).Seconds()
			t.Logf("the bulk went at %.1f/s, want %.0f/s", rate, c.want)
			if rate > 1.02*c.want || rate < 0.98*c.want {
				t.Errorf("the bulk went at %.1f/s, want %.0f/s", rate, c.want)
			}
			for i := range 10 {
				from := len(l.all())
				if a := l.call("clerk", i, "Priority: u=1"); a.status != 200 {
					t.Fatalf("urgent: %d %s", a.status, a.body)
				}
				if _, others := l.find("clerk", i, from); others > c.most {
					t.Errorf("%d went before an urgent call", others)
				}
			}
		})
	}
}

// Peak hours begin and end to the moment, for those who are in line too.
func TestPeakHoursBeginAndEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		time.Sleep(25 * time.Second)
		const rate = 100
		l := newLine(t, rate, func(f *config.File) {
			f.Orgs[0].Peaks = peak(t, "01:01", "01:02")
		}, config.Caller{Name: "bulk", Weight: 1}, config.Caller{Name: "clerk", Weight: 1})
		stop := l.hold("bulk", 10, "Priority: u=6")
		var slowest time.Duration
		i := 0
		for time.Sleep(10 * time.Second); time.Since(start) < 3*time.Minute; time.Sleep(10 * time.Second) {
			came := time.Now()
			if a := l.call("clerk", i, "Priority: u=1"); a.status != 200 {
				t.Fatalf("urgent: %d %s", a.status, a.body)
			}
			i++
			slowest = max(slowest, time.Since(came))
		}
		stop()
		var minutes [4]int
		for _, s := range l.all() {
			if s.By == "bulk" {
				minutes[s.At.Sub(start)/time.Minute]++
			}
		}
		t.Logf("the bulk in each minute: %v; urgent calls waited %v at most", minutes[:3], slowest)
		for i, want := range []int{35 * rate, 60 * rate * 4 / 10, 60 * rate} {
			if d := float64(minutes[i]-want) / float64(want); d < -0.03 || d > 0.03 {
				t.Errorf("minute %d: %d of the bulk, want %d", i, minutes[i], want)
			}
		}
		if slowest > 2*time.Second/rate {
			t.Errorf("an urgent call waited %v", slowest)
		}
	})
}

// The estimate of an urgent call does not count the bulk that it passes.
func TestEstimateByUrgency(t *testing.T) {
	b := newBench(t, plan{limits: []headgate.Limit{{Name: "token", Rate: 10, Burst: 1, Learn: headgate.LearnOff}}})
	b.g.setting().orgs[0].limiter.Pause()
	estimate := func(n int, urgency string) time.Duration {
		t.Helper()
		a := b.do("POST", executePath, body(n), "Prefer: respond-async", "Priority: "+urgency)
		if a.status != 202 {
			t.Fatalf("answered %d: %s", a.status, a.body)
		}
		return time.Duration(float64(*a.execution(t).Estimate) * float64(time.Second))
	}
	for n := range 200 {
		estimate(n, "u=6")
	}
	if got := estimate(200, "u=1"); got > 2*time.Second {
		t.Errorf("an urgent one before 200 others at 10/s: %v", got)
	}
	if got := estimate(201, "u=6"); got < 15*time.Second || got > 25*time.Second {
		t.Errorf("one behind 200 others at 10/s: %v", got)
	}
}
