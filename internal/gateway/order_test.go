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

// line is a gateway at a bucket that is always empty, with callers that have
// keys, and the order in which the emulator executes their calls.
type line struct {
	*bench
	permit time.Duration // between one permit and the next
	keys   map[string]string

	mu   sync.Mutex
	seen []seen
}

// newLine opens one at so many permits a second.
func newLine(t testing.TB, rate float64, change func(*config.File), callers ...config.Caller) *line {
	l := &line{permit: time.Duration(float64(time.Second) / rate), keys: map[string]string{}}
	for i := range callers {
		c := &callers[i]
		l.keys[c.Name], c.Key = keys.New()
		c.Urgency = config.DefaultUrgency
		c.Held, c.Queued, c.QueuedBytes = 1000, 1e6, 1e9
	}
	limit := headgate.Limit{Name: genesys.LimitToken, Match: "/api/", Rate: rate, Burst: 2, Learn: headgate.LearnOff}
	l.bench = newBench(t, plan{
		// Somewhat more than the gateway is told: no refusal is in the way.
		emulator: emulator.Config{Limits: []emulator.Limit{{Rate: 1.2 * rate, Burst: rate}}, Key: l.witness},
		limits:   []headgate.Limit{limit},
		change: func(f *config.File) {
			f.Orgs[0].Callers = callers
			if change != nil {
				change(f)
			}
		},
	})
	return l
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
func (l *line) find(t testing.TB, by string, n, after int) (at time.Time, others int) {
	t.Helper()
	wait(t, fmt.Sprintf("call %d of %s", n, by), func() bool {
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
	l.t.Helper()
	fields = append(fields, "Headgate-Key: "+l.keys[by], "Content-Type: application/json")
	return l.do("POST", executePath, fmt.Sprintf(`{"n":%d,"by":%q}`, n, by), fields...)
}

// keep has n calls of a caller queued.
func (l *line) keep(by string, n int, fields ...string) {
	l.t.Helper()
	l.keepWith(by, 0, n, 64, fields...)
}

func (l *line) keepWith(by string, from, n, connections int, fields ...string) {
	l.t.Helper()
	next := make(chan int)
	var wg sync.WaitGroup
	for range connections {
		wg.Go(func() {
			for i := range next {
				if a := l.call(by, i, append(fields, "Prefer: respond-async")...); a.status != 202 {
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
	// On a busy machine a caller is not always back in time to wait.
	within := 0.1
	if *figures {
		within = 0.03
	}
	if math.Abs(got/ratio-1) > within {
		t.Errorf("%s: %.3f : 1, want %.0f : 1 within %.0f %%", what, got, ratio, 100*within)
	}
}

// Urgent calls do not wait for what is queued, however much it is: whether their
// callers wait for them, or they are queued themselves.
func TestUrgentAmongQueued(t *testing.T) {
	n := 2000
	if *figures {
		n = 10_000
	}
	l := newLine(t, 50, nil, config.Caller{Name: "bulk", Weight: 1}, config.Caller{Name: "clerk", Weight: 1})
	l.keep("bulk", n, "Priority: u=6")
	l.sent(5)
	// Two permits may go before it, and a little before it is in line: others
	// run on this machine.
	const most = 2
	var held, kept int
	var heldFor, keptFor time.Duration
	for i := range 10 {
		from, came := len(l.all()), time.Now()
		if a := l.call("clerk", i, "Priority: u=1"); a.status != 200 {
			t.Fatalf("held: %d %s", a.status, a.body)
		}
		at, others := l.find(t, "clerk", i, from)
		held, heldFor = max(held, others), max(heldFor, at.Sub(came))
	}
	for i := 10; i < 20; i++ {
		l.keepWith("clerk", i, 1, 1, "Priority: u=1")
		from, came := len(l.all()), time.Now()
		at, others := l.find(t, "clerk", i, max(0, from-1))
		kept, keptFor = max(kept, others), max(keptFor, at.Sub(came))
	}
	t.Logf("held: %d went before at most, %v; kept: %d, %v; a permit is %v", held, heldFor, kept, keptFor, l.permit)
	if held > most || kept > most+1 {
		t.Errorf("urgent calls had %d (held) and %d (kept) others before them, want %d at most", held, kept, most)
	}

	from := len(l.all())
	var wg sync.WaitGroup
	for i := 20; i < 30; i++ {
		wg.Go(func() { l.call("clerk", i, "Priority: u=1") })
	}
	wg.Wait()
	last := 0
	for i := 20; i < 30; i++ {
		_, others := l.find(t, "clerk", i, from)
		last = max(last, others+1)
	}
	t.Logf("ten at once: the last was the %dth to go", last)
	if last > 12 { // one may be on its way as they come
		t.Errorf("the last of ten at once was the %dth to go", last)
	}
}

// Two callers who both always wait share the limit by weight, and either gets
// all of it when it is alone.
func TestShares(t *testing.T) {
	const some = 400
	t.Run("held", func(t *testing.T) {
		t.Parallel()
		l := newLine(t, 200, nil, config.Caller{Name: "three", Weight: 3}, config.Caller{Name: "one", Weight: 1})
		stop := l.hold("three", 20)
		if had := counts(l.sent(100)); had["three"] != 100 {
			t.Errorf("alone: %v", had)
		}
		l.hold("one", 20)
		l.sent(40) // until all are in line
		wantShare(t, "held", l.sent(some), "three", "one", 3)
		stop()
		if had := counts(l.sent(100)); had["one"] < 100 {
			t.Errorf("alone again: %v", had)
		}
	})
	t.Run("kept", func(t *testing.T) {
		t.Parallel()
		l := newLine(t, 200, nil, config.Caller{Name: "three", Weight: 3}, config.Caller{Name: "one", Weight: 1})
		l.keep("one", 1500)
		l.sent(20)
		l.keep("three", 1500)
		l.sent(20)
		wantShare(t, "kept", l.sent(some), "three", "one", 3)
	})
	t.Run("mixed", func(t *testing.T) {
		t.Parallel()
		l := newLine(t, 200, nil, config.Caller{Name: "three", Weight: 3}, config.Caller{Name: "one", Weight: 1})
		l.keep("one", 1500)
		l.hold("three", 20)
		l.sent(40)
		wantShare(t, "held beside kept", l.sent(some), "three", "one", 3)
	})
	t.Run("both", func(t *testing.T) {
		t.Parallel()
		l := newLine(t, 200, nil, config.Caller{Name: "three", Weight: 3}, config.Caller{Name: "one", Weight: 1})
		l.keep("one", 1500)
		l.keep("three", 1500)
		l.hold("one", 20)
		l.hold("three", 20)
		l.sent(60)
		wantShare(t, "held and kept beside the same", l.sent(some), "three", "one", 3)
	})
}

// A caller with thousands queued delays another's first by a few permits, also
// after a restart.
func TestQueuedDelaysNobodyElse(t *testing.T) {
	n := 1500
	if *figures {
		n = 5000
	}
	l := newLine(t, 100, nil, config.Caller{Name: "bulk", Weight: 1}, config.Caller{Name: "late", Weight: 1}, config.Caller{Name: "later", Weight: 1})
	l.keep("bulk", n)
	l.sent(5)
	delay := func(by string) {
		t.Helper()
		l.keepWith(by, 0, 1, 1)
		from := len(l.all())
		_, others := l.find(t, by, 0, max(0, from-2))
		t.Logf("%d of the bulk went before the first of %s", others, by)
		most := 6
		if raceDetector {
			most = 15 // 150 ms: everything takes longer
		}
		if others > most {
			t.Errorf("%d of the bulk went before the first of %s", others, by)
		}
		l.keepWith(by, 1, 40, 8)
		had := counts(l.sent(40))
		t.Logf("of the next 40 %v", had)
		if d := had[by] - had["bulk"]; d < -4 || d > 4 {
			t.Errorf("of the next 40 %v: not the same share", had)
		}
	}
	delay("late")
	l.end()
	l.open(nil)
	delay("later")
}

// A caller gets no better urgency than it may have.
func TestMostUrgent(t *testing.T) {
	l := newLine(t, 100, nil, config.Caller{Name: "bulk", Weight: 1, MostUrgent: 5}, config.Caller{Name: "clerk", Weight: 1})
	l.keep("bulk", 100, "Priority: u=0")
	from := len(l.all())
	l.keep("clerk", 20, "Priority: u=4")
	end := 0
	for i := range 20 {
		_, others := l.find(t, "clerk", i, from)
		end = max(end, others)
	}
	t.Logf("the clerk's 20 were among the next %d", end+1)
	if end > 40 {
		t.Errorf("the clerk's 20 were the next %d: the bulk was more urgent", end+1)
	}
}

// peak is a schedule that is active all week, or at no time that is now.
func peak(t testing.TB, active bool) schedule.Schedule {
	zone, err := schedule.ParseZone("Europe/Paris")
	must(t, err)
	hours := "daily 00:00-24:00"
	if !active {
		day := time.Now().In(zone).AddDate(0, 0, 3)
		hours = day.Weekday().String()[:3] + " 03:00-04:00"
	}
	s, err := schedule.Parse(zone, hours)
	must(t, err)
	return s
}

// In peak hours the bulk gets what is not kept for urgent calls, and these go at
// once; outside it gets all.
func TestPeakHours(t *testing.T) {
	for _, active := range []bool{true, false} {
		t.Run(fmt.Sprint("active=", active), func(t *testing.T) {
			t.Parallel()
			l := newLine(t, 100, func(f *config.File) {
				f.Orgs[0].Peaks = []config.Peak{{Hours: peak(t, active), Keep: 0.6, Urgent: 1}}
			}, config.Caller{Name: "bulk", Weight: 1}, config.Caller{Name: "clerk", Weight: 1})
			l.keep("bulk", 600, "Priority: u=6")
			l.sent(30)
			const some = 80
			all := l.sent(some)
			rate := float64(some-1) / all[some-1].At.Sub(all[0].At).Seconds()
			want := 100.0
			if active {
				want = 40
			}
			t.Logf("the bulk went at %.1f/s, want %.0f/s", rate, want)
			if rate > 1.05*want || rate < 0.85*want {
				t.Errorf("the bulk went at %.1f/s, want %.0f/s", rate, want)
			}
			most := 2
			if active {
				most = 1
			}
			for i := range 10 {
				from := len(l.all())
				if a := l.call("clerk", i, "Priority: u=1"); a.status != 200 {
					t.Fatalf("urgent: %d %s", a.status, a.body)
				}
				if _, others := l.find(t, "clerk", i, from); others > most {
					t.Errorf("%d went before an urgent call", others)
				}
			}
		})
	}
}

// Peak hours begin and end to the moment, for those who are in line too.
func TestPeakHoursBeginAndEnd(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		start := time.Now() // 2000-01-01 00:00 UTC, 01:00 in Paris
		time.Sleep(25 * time.Second)
		const rate = 100
		pair := headgatetest.New(t, emulator.Config{Limits: []emulator.Limit{{Rate: 1.2 * rate, Burst: rate}}})
		zone, err := schedule.ParseZone("Europe/Paris")
		must(t, err)
		hours, err := schedule.Parse(zone, "Sat 01:01-01:02")
		must(t, err)
		file := config.Single(config.Org{
			Name: "acme", APIURL: pair.URL, LoginURL: pair.URL, MaxWait: time.Minute, Timeout: time.Minute,
			Credentials: genesys.Credentials{ClientID: emulator.DefaultClientID, ClientSecret: genesys.NewSecret(emulator.DefaultClientSecret)},
			Limits:      []headgate.Limit{{Name: genesys.LimitToken, Match: "/api/", Rate: rate, Burst: 2, Learn: headgate.LearnOff}},
			Peaks:       []config.Peak{{Hours: hours, Keep: 0.6, Urgent: 1}},
		})
		file.Data = dir
		g, err := Open(Config{File: file, Base: pair.Transport()})
		must(t, err)
		defer func() { must(t, g.Close()) }()

		call := func(urgency string) {
			req := httptest.NewRequest("POST", executePath, strings.NewReader(body(1)))
			req.Host = "localhost"
			req.Header.Set("Priority", urgency)
			a := httptest.NewRecorder()
			if g.ServeHTTP(a, req); a.Code != 200 {
				t.Errorf("answered %d: %s", a.Code, a.Body)
			}
		}
		var minutes [3]int
		var mu sync.Mutex
		var wg sync.WaitGroup
		end := start.Add(3 * time.Minute)
		for range 10 {
			wg.Go(func() {
				for !t.Failed() && time.Now().Before(end) {
					call("u=6")
					mu.Lock()
					minutes[min(2, int(time.Since(start)/time.Minute))]++
					mu.Unlock()
				}
			})
		}
		var slowest time.Duration
		for time.Sleep(10 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Second) {
			came := time.Now()
			call("u=1")
			slowest = max(slowest, time.Since(came))
		}
		wg.Wait()
		t.Logf("the bulk in each minute: %v; urgent calls waited %v at most", minutes, slowest)
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
