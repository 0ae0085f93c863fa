package emulator

import (
	"fmt"
	"io"
	"math"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// Early, row by row: what arrives while an announcement runs.
func TestEarly(t *testing.T) {
	read := func(c *tester) { c.do("GET", limitsPath, "") }
	run := func(c *tester) { c.execute() }
	type step struct {
		at    time.Duration
		do    func(*tester)
		early int64 // in all, after it
	}
	other := func(c *tester) { c.token = c.IssueToken() }
	fixed := []Limit{{Algorithm: Fixed, Max: 1, Window: 10 * sec}}
	tests := []struct {
		name  string
		cfg   Config
		steps []step
	}{
		{"whole wait", Config{Limits: fixed, EarlyGrace: -1, RetryAfter: RetryAfterExact}, []step{
			{0, run, 0}, {0, run, 0}, {0, run, 0}, // at the instant of the announcement
			{1, run, 1},
			{9 * sec, read, 2},
			{10*sec - ms - 1, run, 3},
			{10*sec - ms, run, 3}, // excused by 1 ms, and refused
			{10 * sec, run, 3},
		}},
		{"rounded up", Config{Limits: fixed, EarlyGrace: -1}, []step{
			{0, run, 0}, {500 * ms, run, 0}, // until 10.5 s
			{10 * sec, run, 1}, // the window is over, but the server said when
			{10500 * ms, run, 1},
		}},
		{"default grace", Config{Limits: fixed}, []step{
			{0, run, 0}, {0, run, 0}, {50 * ms, run, 0}, {50*ms + 1, run, 1}, {99 * ms, run, 2},
		}},
		{"own grace", Config{Limits: fixed, EarlyGrace: 2 * sec}, []step{
			{0, run, 0}, {0, run, 0}, {2 * sec, run, 0}, {2*sec + 1, run, 1},
		}},
		{"another token", Config{Limits: fixed, EarlyGrace: -1}, []step{
			{0, run, 0}, {0, run, 0}, {sec, other, 0}, {sec, run, 0}, {2 * sec, run, 0}, {3 * sec, run, 1},
		}},
		{"another token, a limit of all", Config{Limits: []Limit{{Per: PerOrg, Rate: 0.1, Burst: 1}}, EarlyGrace: -1}, []step{
			{0, run, 0}, {0, run, 0}, {sec, other, 0}, {sec, run, 1},
		}},
		{"another token, a limit of all that is not named", Config{Limits: []Limit{{Per: PerOrg, Rate: 0.1, Burst: 1}}, EarlyGrace: -1, HideLimit: true}, []step{
			{0, run, 0}, {0, run, 0}, {sec, run, 1}, {sec, other, 1}, {sec, run, 1},
		}},
		{"another token that was not told, a limit of all", Config{Limits: []Limit{{Per: PerOrg, Rate: 0.1, Burst: 1}}, EarlyGrace: -1, EarlyPerToken: true}, []step{
			{0, run, 0}, {0, run, 0}, {sec, run, 1}, {sec, other, 1}, {sec, run, 1}, {2 * sec, run, 2},
		}},
		{"another path", Config{Limits: []Limit{{Per: PerPath, Rate: 0.1, Burst: 1}}, EarlyGrace: -1}, []step{
			{0, run, 0}, {0, run, 0}, {sec, read, 0}, {sec, run, 1},
		}},
		{"another path, not named", Config{Limits: []Limit{{Per: PerPath, Rate: 0.1, Burst: 1}}, EarlyGrace: -1, HideLimit: true}, []step{
			{0, run, 0}, {0, run, 0}, {sec, read, 1},
		}},
		{"not matched", Config{Limits: []Limit{{Match: "POST /api/v2/architect/**", Rate: 0.1, Burst: 1}}, EarlyGrace: -1}, []step{
			{0, run, 0}, {0, run, 0}, {sec, read, 0}, {sec, run, 1},
		}},
		{"503 holds for the token", Config{Limits: []Limit{}, EarlyGrace: -1, Script: []Fault{{Kind: Unavailable, To: 1, RetryAfter: 5 * sec}}}, []step{
			{0, run, 0}, {sec, read, 1}, {2 * sec, other, 1}, {2 * sec, run, 1}, {5 * sec, run, 1},
		}},
		{"503 without Retry-After", Config{Limits: []Limit{}, EarlyGrace: -1, Rates: Rates{UnavailableSilent: 1}}, []step{
			{0, run, 0}, {sec, run, 0},
		}},
		{"outage to its end", Config{Limits: []Limit{}, EarlyGrace: -1, Script: []Fault{{Kind: Outage, From: sec, To: 6 * sec}}}, []step{
			{0, run, 0}, {2500 * ms, run, 0}, {6 * sec, run, 1}, {6500 * ms, run, 1}, // 4 s announced, 3.5 s real
		}},
		{"a date ends when it says", Config{Limits: []Limit{{Algorithm: Fixed, Max: 1, Window: 10400 * ms}}, EarlyGrace: -1, RetryAfter: RetryAfterDate}, []step{
			{0, run, 0}, {500 * ms, run, 0}, // 9.9 s, rounded up to 11 s past midnight
			{10900 * ms, read, 1}, {11 * sec, run, 1},
		}},
		{"each announcement has its grace", Config{Limits: bucketOf(10, 1), RetryAfter: RetryAfterExact, RefusalsCost: true}, []step{
			{0, run, 0}, {0, run, 0}, // until 100 ms
			{60 * ms, run, 1},  // until 160 ms, counted from 110 ms
			{105 * ms, run, 1}, // between the two
			{111 * ms, run, 2},
		}},
		{"the longest of several holds", Config{Limits: bucketOf(1, 1), HideLimit: true, EarlyGrace: -1, Script: []Fault{{Kind: Unavailable, From: sec, To: 2 * sec, RetryAfter: 20 * sec}}}, []step{
			{0, run, 0}, {sec, run, 0}, {2 * sec, run, 1}, {2 * sec, run, 2}, {20 * sec, run, 3}, {21 * sec, run, 3},
		}},
		{"log-ins are never early", Config{Limits: fixed, EarlyGrace: -1}, []step{
			{0, run, 0}, {0, run, 0}, {sec, func(c *tester) { c.login(DefaultClientID, DefaultClientSecret, goodForm) }, 0},
		}},
		{"a revoked token is held back too", Config{Limits: fixed, EarlyGrace: -1}, []step{
			{0, run, 0}, {0, run, 0}, {sec, func(c *tester) { c.RevokeTokens() }, 0}, {sec, run, 1},
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newTester(t, tt.cfg)
				start := time.Now()
				for _, st := range tt.steps {
					until(start, st.at)
					st.do(c)
					if got := c.Report().Early; got != st.early {
						t.Fatalf("at %v: %d early, want %d", st.at, got, st.early)
					}
				}
				var rows int64
				for _, r := range c.rows() {
					if r.Early {
						rows++
					}
				}
				if r := c.Report(); rows != r.Early || (r.EarlyBy > 0) != (r.Early > 0) {
					t.Errorf("%d rows are early, by %v, of %d", rows, r.EarlyBy, r.Early)
				}
			})
		})
	}
}

// A request that was at the server before the announcement was out is not early,
// even if it is answered later.
func TestEarlyBySlowAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTester(t, Config{Limits: []Limit{}, EarlyGrace: -1, Script: []Fault{
			{Kind: Slow, Delay: 3 * sec, To: 1}, {Kind: Unavailable, To: 1, RetryAfter: 5 * sec},
		}})
		var wg sync.WaitGroup
		wg.Go(func() { c.do("GET", limitsPath, "") }) // is told at 3 s to wait until 8 s
		for _, st := range []struct {
			at    time.Duration
			early int64
		}{{sec, 0}, {3 * sec, 0}, {3*sec + 1, 1}, {8*sec - 2*ms, 2}, {8 * sec, 2}} {
			time.Sleep(st.at - c.now())
			synctest.Wait()
			if c.do("GET", limitsPath, ""); c.Report().Early != st.early {
				t.Errorf("at %v: %d early, want %d", st.at, c.Report().Early, st.early)
			}
		}
		wg.Wait()
	})
}

func TestDoubledAndLost(t *testing.T) {
	c := newTester(t, Config{Limits: []Limit{}, Expected: 6})
	for _, body := range []string{"1", "2", "2", "3", "3", "3"} {
		c.wantStatus(c.do("POST", flowPath, body), 200)
	}
	c.do("POST", "/api/v2/architect/flows/G/execute", "1") // another flow
	c.do("POST", launchPath, `{"flowId":"F"}`)
	c.do("POST", launchPath, `{"flowId":"F"}`)
	c.do("POST", flowPath, "{") // not executed
	r := c.Report()
	if r.Executed != 9 || r.Distinct != 5 || r.Doubled != 4 || r.DoubledKeys != 3 || r.Lost != 1 || r.LostOf(5) != 0 || r.LostOf(3) != 0 || r.LostOf(9) != 4 {
		t.Errorf("report\n%v", r)
	}
	keys := make(map[string]int)
	for _, row := range c.rows() {
		keys[row.Key]++
	}
	if len(keys) != 6 { // one is that of the request which did nothing
		t.Errorf("keys %v", keys)
	}
}

func TestOwnKey(t *testing.T) {
	c := newTester(t, Config{Key: func(r *http.Request, body []byte) string { return r.URL.Path + string(body[:2]) }})
	c.do("POST", flowPath, `"1a"`)
	c.do("POST", flowPath, `"1b"`)
	c.do("POST", flowPath, `"2"`)
	if r := c.Report(); r.Distinct != 2 || r.Doubled != 1 {
		t.Errorf("report\n%v", r)
	}
	if got := c.rows()[0].Key; got != flowPath+`"1` {
		t.Errorf("key %q", got)
	}
}

func TestPeak(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTester(t, Config{Limits: bucketOf(1, 7)})
		start := time.Now()
		for _, st := range []struct {
			at           time.Duration
			n            int
			peak, passed int64
		}{
			{0, 3, 3, 3},
			{100*ms - 1, 2, 5, 5},   // still with the first three
			{100 * ms, 2, 5, 5},     // the three are out: 2 + 2
			{200*ms - 2, 20, 24, 5}, // none of the 20 passes but for what is left
		} {
			until(start, st.at)
			for range st.n {
				c.execute()
			}
			if r := c.Report(); r.Peak != st.peak || r.PeakAccepted != st.passed {
				t.Errorf("at %v: peak %d and %d, want %d and %d", st.at, r.Peak, r.PeakAccepted, st.peak, st.passed)
			}
		}
	})
}

// A client that keeps exactly to the pace uses all that was possible.
func TestUse(t *testing.T) {
	for _, tt := range []struct {
		name  string
		cfg   Config
		pace  func(k int) time.Duration
		n     int
		ideal time.Duration
		use   float64
		other int64
	}{
		{"bucket at its pace", Config{Limits: bucketOf(50, 100)}, func(k int) time.Duration { return time.Duration(max(0, k-99)) * 20 * ms }, 1000, 18 * sec, 1, 0},
		{"bucket at half its pace", Config{Limits: bucketOf(50, 100)}, func(k int) time.Duration { return time.Duration(max(0, k-99)) * 40 * ms }, 1000, 18 * sec, 1000.0 / 1900, 0},
		{"less than the burst", Config{Limits: bucketOf(50, 100)}, func(k int) time.Duration { return time.Duration(k) * sec }, 10, 0, 10.0 / 550, 0},
		{"fixed window", Config{Limits: []Limit{{Algorithm: Fixed, Max: 10}}}, func(k int) time.Duration { return time.Duration(k/10) * 60 * sec }, 25, 120 * sec, 25.0 / 30, 0},
		{"fixed windows by the clock", Config{Limits: []Limit{{Algorithm: Fixed, Max: 10, Phase: 20 * sec}}}, func(k int) time.Duration { return time.Duration(k/10) * 40 * sec }, 20, 40 * sec, 1, 0},
		{"sliding window", Config{Limits: []Limit{{Algorithm: Sliding, Max: 10}}}, func(k int) time.Duration { return time.Duration(k/10) * 60 * sec }, 30, 120 * sec, 1, 0},
		{"lowered", Config{Limits: bucketOf(10, 10), Script: []Fault{{Kind: Change, Limit: "token.rate.per.minute", From: 10 * sec, Rate: 5}}},
			func(k int) time.Duration {
				if k < 110 {
					return time.Duration(max(0, k-9)) * 100 * ms
				}
				return 10*sec + time.Duration(k-109)*200*ms
			}, 160, 20 * sec, 1, 0},
		{"with other traffic", Config{Limits: bucketOf(10, 10), Script: []Fault{{Kind: Traffic, Limit: "token.rate.per.minute", PerSecond: 5}}},
			func(k int) time.Duration { return time.Duration(max(0, k-8)) * 200 * ms }, 59, 10 * sec, 1, 51},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newTester(t, tt.cfg)
				start := time.Now()
				for k := range tt.n {
					until(start, tt.pace(k))
					c.wantStatus(c.execute(), 200)
				}
				r := c.Report()
				u := r.Limits[0]
				if u.Accepted != int64(tt.n) || u.Refused != 0 || u.Other != tt.other || u.Ideal != tt.ideal || math.Abs(u.Use-tt.use) > 1e-9 || u.Span != tt.pace(tt.n-1) || r.Span != u.Span {
					t.Errorf("use %+v, span %v", u, r.Span)
				}
			})
		})
	}
}

func TestReportString(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTester(t, Config{Limits: bucketOf(1, 2), Expected: 3, EarlyGrace: -1})
		c.login(DefaultClientID, DefaultClientSecret, goodForm)
		c.execute()
		c.execute()
		c.execute()
		time.Sleep(250 * ms)
		c.execute()
		time.Sleep(750 * ms)
		c.do("POST", flowPath, `{"n":1}`)
		got := c.Report().String()
		want := strings.TrimPrefix(`
arrivals       5   requests, without log-ins
accepted       3   let through by every limit
rejected       2   429
  status 200   3
  status 429   2
cut            0   connection closed without an answer
unanswered     0   client was gone before its answer
executed       3   flow executions, answered or not
distinct       2   different ones among them
doubled        1   too many, of 1 different ones
lost           1   of 3 expected
early          2   while an announced Retry-After ran, by up to 750ms
peak           3   arrivals in any 100 ms
peak accepted  2   accepted in any 100 ms
logins         1   0 refused by their limit, 0 failed
span           1s  first accepted to last

limit                  key      accepted  refused  other  span  ideal  use
token.rate.per.minute  token-1  3         2        0      1s    1s     100.0%
`, "\n")
		if got != want {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
	})
}

// Many at once: exactly the burst passes, and nothing is counted twice.
func TestConcurrent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTester(t, Config{Limits: bucketOf(1e-6, 500)})
		var wg sync.WaitGroup
		for g := range 50 {
			wg.Go(func() {
				for i := range 40 {
					serve(c.API(), c.request(t.Context(), "POST", flowPath, fmt.Sprintf("[%d,%d]", g, i)))
					if i == 20 {
						c.login(DefaultClientID, DefaultClientSecret, goodForm)
						c.admin("GET", "/ledger")
						c.admin("GET", "/report")
					}
				}
			})
		}
		wg.Wait()
		r := c.Report()
		if r.Arrivals != 2000 || r.Accepted != 500 || r.Rejected != 1500 || r.Distinct != 500 || r.Doubled != 0 || r.Logins != 50 || r.Peak != 2000 || r.PeakAccepted != 500 {
			t.Errorf("report\n%v", r)
		}
	})
}

// However many refusals there are, what is remembered of them stays small.
func TestHoldsStayFew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, grace := range []time.Duration{-1, 0} {
			c := newTester(t, Config{Limits: bucketOf(0.5, 1), EarlyGrace: grace, LedgerRows: -1})
			for range 20_000 {
				c.do("GET", limitsPath, "")
				time.Sleep(ms / 3)
			}
			for _, hs := range c.holds {
				if len(hs) > 10 {
					t.Errorf("grace %v: %d announcements are remembered", grace, len(hs))
				}
			}
			if r := c.Report(); r.Early < 19_000 {
				t.Errorf("report\n%v", r)
			}
		}
	})
}

// A request that is under way at a reset does not count in what follows.
func TestResetMidway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTester(t, Config{Latency: 10 * sec, LoginLatency: 10 * sec})
		var wg sync.WaitGroup
		wg.Go(func() { c.do("POST", flowPath, "1") })
		wg.Go(func() { c.login(DefaultClientID, DefaultClientSecret, goodForm) })
		time.Sleep(sec)
		c.Reset()
		c.do("POST", flowPath, "2")
		wg.Wait()
		if r := c.Report(); r.Arrivals != 1 || r.Executed != 1 || r.Logins != 0 || r.ByStatus[200] != 1 {
			t.Errorf("report\n%v", r)
		}
		if rows := c.rows(); len(rows) != 1 || rows[0].At != 0 || rows[0].AnswerAt != 10*sec {
			t.Errorf("rows %+v", rows)
		}
	})
}

// onRead is a body that does something when it is read.
type onRead struct {
	io.Reader
	do func()
}

func (r onRead) Read(b []byte) (int, error) {
	r.do()
	return r.Reader.Read(b)
}

// Nor does it if it is still being read, or holds anybody back by its answer.
func TestResetBeforeDecision(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTester(t, Config{EarlyGrace: -1, Limits: []Limit{}, Script: []Fault{
			{Kind: Slow, To: 1, Delay: 2 * sec}, {Kind: Unavailable, To: 1, RetryAfter: 9 * sec},
		}})
		req := c.request(t.Context(), "POST", flowPath, "")
		req.Body = io.NopCloser(onRead{strings.NewReader("1"), c.Reset})
		c.wantStatus(serve(c.API(), req), 503)
		if r := c.Report(); r.Arrivals != 0 || len(r.ByStatus) != 0 {
			t.Errorf("report\n%v", r)
		}
		c.Reset()
		var wg sync.WaitGroup
		wg.Go(func() { c.wantStatus(c.do("POST", flowPath, "1"), 503) })
		time.Sleep(sec)
		c.Reset()
		wg.Wait()
		time.Sleep(sec)
		if c.do("POST", flowPath, "2"); c.Report().Early != 0 {
			t.Error("held back by what was before the reset")
		}
	})
}
