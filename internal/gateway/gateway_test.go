package gateway

import (
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/headgate/headgate/emulator"
)

// A call is sent to the platform as it came, with the org's own token, and the
// answer comes back as it is.
func TestCallPassesThrough(t *testing.T) {
	b := newBench(t, plan{})
	a := b.do("POST", "/acme"+executePath+"?x=1", body(1), "Content-Type: application/json", "Authorization: Bearer nobody")
	if a.status != 200 || !strings.Contains(a.body, "{") {
		t.Fatalf("answered %d: %s", a.status, a.body)
	}
	if a.header.Get("Headgate-Attempts") != "1" || a.header.Get("Headgate-Wait") == "" || a.header.Get("RateLimit") == "" {
		t.Errorf("header: %v", a.header)
	}
	if a := b.do("GET", "/nobody/api/v2/users/me", ""); a.status != 404 {
		t.Errorf("an unknown org: %d %s", a.status, a.body)
	}
	// The platform's own 4xx pass.
	if a := b.do("GET", "/api/v2/nothing", ""); a.status != 404 || a.header.Get("Content-Type") == "application/problem+json" {
		t.Errorf("the platform's 404: %d %v %s", a.status, a.header, a.body)
	}
	if r := b.emulator.Report(); r.Executed != 1 {
		t.Errorf("executed %d", r.Executed)
	}
}

// 300 at once, at a bucket of 50/s and 100: none is lost, and it takes as long
// as the bucket needs.
func TestBurstIsHeld(t *testing.T) {
	b := newBench(t, plan{emulator: emulator.Config{Limits: []emulator.Limit{{Rate: 50, Burst: 100}}, Latency: 10 * time.Millisecond}})
	var wg sync.WaitGroup
	start := time.Now()
	for i := range 300 {
		wg.Go(func() {
			if a := b.do("POST", executePath, body(i)); a.status != 200 {
				t.Errorf("call %d: %d %s", i, a.status, a.body)
			}
		})
	}
	wg.Wait()
	took := time.Since(start)
	r := b.emulator.Report()
	t.Logf("%v, %d refused", took, r.Rejected)
	if r.Executed != 300 || r.Doubled != 0 {
		t.Errorf("%d executed, %d doubled", r.Executed, r.Doubled)
	}
	// What a busy machine delays arrives less evenly than it left.
	if *figures && (r.Early != 0 || r.Rejected > 3 || took > 4200*time.Millisecond) {
		t.Errorf("%d early, %d refused, %v for the bucket's 4 s", r.Early, r.Rejected, took)
	}
}

// A call that is kept is answered at once, and ends.
func TestRespondAsync(t *testing.T) {
	b := newBench(t, plan{})
	a := b.do("POST", executePath, body(1), "Prefer: respond-async", "Idempotency-Key: k1", "Content-Type: application/json")
	if a.status != 202 {
		t.Fatalf("answered %d: %s", a.status, a.body)
	}
	x := a.execution(t)
	if a.header.Get("Location") != x.Self || a.header.Get("Headgate-Execution") != x.ID {
		t.Errorf("header: %v", a.header)
	}
	end := b.do("GET", x.Self, "", "Prefer: wait=10").execution(t)
	if end.State != "done" || end.Status != 200 || len(end.Answer) == 0 || end.AnswerType == "" {
		t.Errorf("%+v", end)
	}
	again := b.do("POST", executePath, body(1), "Prefer: respond-async", "Idempotency-Key: k1").execution(t)
	if again.ID != x.ID {
		t.Errorf("the same key again: %s, %s", x.ID, again.ID)
	}
	if p := b.do("POST", executePath, body(2), "Prefer: respond-async", "Idempotency-Key: k1").problem(t); p.Status != 422 {
		t.Errorf("the key for another request: %+v", p)
	}
	if raw := b.do("GET", x.Self+"/answer", ""); raw.status != 200 || raw.body != string(end.Answer) {
		t.Errorf("the answer: %d %s", raw.status, raw.body)
	}
	b.end()
	if r := b.emulator.Report(); r.Executed != 1 {
		t.Errorf("executed %d", r.Executed)
	}
}
