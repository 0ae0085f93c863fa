package emulator

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestFaults(t *testing.T) {
	const at = 10 * sec // the script's start is not New's
	tests := []struct {
		name     string
		fault    Fault
		status   int
		header   string // Retry-After
		body     string // what it contains
		took     time.Duration
		executed bool
		draws    bool
	}{
		{"none", Fault{Kind: Slow, From: time.Hour}, 200, "", "COMPLETED", 100 * ms, true, true},
		{"unavailable", Fault{Kind: Unavailable, RetryAfter: 2500 * ms}, 503, "3", "service.unavailable", 0, false, false},
		{"unavailable, default", Fault{Kind: Unavailable}, 503, "1", "service.unavailable", 0, false, false},
		{"unavailable, exactly", Fault{Kind: Unavailable, RetryAfter: 2500 * ms, Mode: RetryAfterExact}, 503, "2.5", "", 0, false, false},
		{"unavailable, with a date", Fault{Kind: Unavailable, RetryAfter: 2500 * ms, Mode: RetryAfterDate}, 503, "Sat, 01 Jan 2000 00:00:13 GMT", "", 0, false, false},
		{"unavailable, absent", Fault{Kind: Unavailable, Mode: RetryAfterAbsent}, 503, "", "", 0, false, false},
		{"unavailable, silent", Fault{Kind: UnavailableSilent}, 503, "", "service.unavailable", 0, false, false},
		{"cut before", Fault{Kind: CutBefore}, 0, "", "", 0, false, false},
		{"outage", Fault{Kind: Outage, To: 4500 * ms}, 503, "5", "service.unavailable", 0, false, false},
		{"outage without end", Fault{Kind: Outage, RetryAfter: 7 * sec}, 503, "7", "", 0, false, false},
		{"outage that cuts", Fault{Kind: Outage, Cut: true}, 0, "", "", 0, false, false},
		{"500", Fault{Kind: InternalError}, 500, "", "internal.server.error", 0, false, true},
		{"500 that lies", Fault{Kind: InternalError, Executes: true}, 500, "", "internal.server.error", 100 * ms, true, true},
		{"502", Fault{Kind: BadGateway}, 502, "", "<html>", 0, false, true},
		{"502 that lies", Fault{Kind: BadGateway, Executes: true}, 502, "", "<html>", 100 * ms, true, true},
		{"504", Fault{Kind: GatewayTimeout}, 504, "", "gateway.timeout", 0, false, true},
		{"504 that lies", Fault{Kind: GatewayTimeout, Executes: true}, 504, "", "gateway.timeout", 100 * ms, true, true},
		{"slow", Fault{Kind: Slow, Delay: 3 * sec}, 200, "", "COMPLETED", 3100 * ms, true, true},
		{"slow, default", Fault{Kind: Slow}, 200, "", "COMPLETED", 2100 * ms, true, true},
		{"cut after", Fault{Kind: CutAfter}, 0, "", "", 100 * ms, true, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newTester(t, Config{Latency: 100 * ms, Limits: bucketOf(0.001, 10), Script: []Fault{tt.fault}})
				time.Sleep(at)
				start := time.Now()
				r := c.execute()
				if took := time.Since(start); took != tt.took {
					t.Errorf("took %v, want %v", took, tt.took)
				}
				c.wantStatus(r, tt.status)
				if r.header.Get("Retry-After") != tt.header || !strings.Contains(r.body, tt.body) {
					t.Errorf("Retry-After %q, body %s", r.header.Get("Retry-After"), r.body)
				}
				if tt.status != 0 && r.header.Get("ININ-Correlation-Id") == "" {
					t.Error("no correlation id")
				}
				rep := c.Report()
				if (rep.Executed == 1) != tt.executed || (rep.Accepted == 1) != tt.draws || (rep.Cut == 1) != (tt.status == 0) {
					t.Errorf("report\n%v", rep)
				}
				row := c.rows()[0]
				if (row.Fault == tt.fault.Kind) != (tt.name != "none") || row.Status != tt.status || row.RetryAfter != tt.header || row.Executed != tt.executed {
					t.Errorf("row %+v", row)
				}
				left := 0 // in the bucket of 10
				for c.faults = nil; c.execute().status == 200; left++ {
				}
				if (left == 9) != tt.draws || left < 9 {
					t.Errorf("%d left in the bucket", left)
				}
			})
		})
	}
}

// A script's fault is on from From until just before To, counted from the first
// request that is not a log-in.
func TestScriptTimes(t *testing.T) {
	for _, fromNew := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			c := newTester(t, Config{ScriptFromNew: fromNew, Script: []Fault{
				{Kind: Outage, From: 2 * sec, To: 4 * sec},
				{Kind: InternalError, From: 6 * sec, To: 7 * sec, Match: "GET /api/v2/organizations/**"},
			}})
			start := time.Now()
			if !fromNew {
				time.Sleep(77 * sec)
				c.login(DefaultClientID, DefaultClientSecret, "grant_type=client_credentials")
				time.Sleep(sec)
				start = time.Now()
				c.execute()
			}
			for _, st := range []struct {
				at   time.Duration
				want int
			}{{2*sec - 1, 200}, {2 * sec, 503}, {4*sec - 1, 503}, {4 * sec, 200}, {6 * sec, 200}} {
				until(start, st.at)
				if r := c.execute(); r.status != st.want {
					t.Errorf("at %v: %d, want %d", st.at, r.status, st.want)
				}
			}
			c.wantStatus(c.do("GET", limitsPath, ""), 500)
			time.Sleep(sec)
			c.wantStatus(c.do("GET", limitsPath, ""), 200)
		})
	}
}

// Faults by share come about as often as asked, and again in the same places
// with the same seed.
func TestShares(t *testing.T) {
	run := func(seed uint64, rates Rates) (string, Report) {
		c := newTester(t, Config{Seed: seed, Limits: []Limit{}, Rates: rates})
		var all strings.Builder
		for range 2000 {
			fmt.Fprintf(&all, "%d ", c.execute().status)
		}
		return all.String(), c.Report()
	}
	all, r := run(1, Rates{Unavailable: 0.1, InternalError: 0.1, CutBefore: 0.05, CutAfter: 0.05})
	near := func(got int64, want float64) bool { return float64(got) > want*0.75 && float64(got) < want*1.25 }
	if !near(r.ByStatus[503], 200) || !near(r.ByStatus[500], 171) || !near(r.Cut, 90+77) || r.Executed <= r.ByStatus[200] || r.Executed != r.Distinct {
		t.Errorf("report\n%v", r)
	}
	if again, _ := run(1, Rates{Unavailable: 0.1, InternalError: 0.1, CutBefore: 0.05, CutAfter: 0.05}); again != all {
		t.Error("the same seed gives other faults")
	}
	for _, tt := range []struct {
		rates  Rates
		status int
	}{
		{Rates{Unavailable: 1}, 503}, {Rates{UnavailableSilent: 1}, 503}, {Rates{InternalError: 1}, 500}, {Rates{BadGateway: 1}, 502},
		{Rates{GatewayTimeout: 1}, 504}, {Rates{CutBefore: 1}, 0}, {Rates{CutAfter: 1}, 0},
	} {
		c := newTester(t, Config{Rates: tt.rates})
		c.wantStatus(c.execute(), tt.status)
	}
	synctest.Test(t, func(t *testing.T) {
		c := newTester(t, Config{Rates: Rates{Slow: 1, Delay: 3 * sec}})
		c.execute()
		if c.now() != 3*sec {
			t.Errorf("slow took %v", c.now())
		}
		c = newTester(t, Config{Rates: Rates{Unavailable: 1, RetryAfter: 9 * sec}})
		if got := c.execute().header.Get("Retry-After"); got != "9" {
			t.Errorf("Retry-After %q", got)
		}
		c = newTester(t, Config{Rates: Rates{InternalError: 1, Executes: true}})
		if c.execute(); c.Report().Executed != 1 {
			t.Error("not executed")
		}
	})
}

func TestLoginFaults(t *testing.T) {
	for _, tt := range []struct {
		fault  Fault
		status int
		took   time.Duration
		logins int64
	}{
		{Fault{Kind: Outage, To: sec}, 200, sec, 1}, // Logins is not set
		{Fault{Kind: Outage, To: sec, Logins: true}, 503, 0, 0},
		{Fault{Kind: InternalError, Logins: true}, 500, sec, 0},
		{Fault{Kind: CutBefore, Logins: true}, 0, 0, 0},
		{Fault{Kind: CutAfter, Logins: true}, 0, sec, 1},
		{Fault{Kind: Slow, Logins: true}, 200, 3 * sec, 1},
	} {
		t.Run(string(tt.fault.Kind), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newTester(t, Config{LoginLatency: sec, Script: []Fault{tt.fault}})
				r := c.login(DefaultClientID, DefaultClientSecret, "grant_type=client_credentials")
				if rep := c.Report(); r.status != tt.status || c.now() != tt.took || rep.Logins != tt.logins || rep.LoginsFailed != 1-tt.logins || rep.Arrivals != 0 {
					t.Errorf("status %d after %v\n%v", r.status, c.now(), rep)
				}
				if row := c.rows()[0]; row.Status != tt.status {
					t.Errorf("row %+v", row)
				}
			})
		})
	}
}
