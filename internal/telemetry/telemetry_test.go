package telemetry

import (
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/headgate/headgate"
)

// exercise uses all of the API, so that each metric is published.
func exercise(t *Telemetry) {
	o := t.Org("acme")
	for kind := headgate.PermitWaited; kind <= headgate.LimitFound; kind++ {
		o.Observe(headgate.Event{Kind: kind, Limit: "token.rate.per.minute", Wait: time.Second, Status: 200, Parts: parts})
	}
	o.Wait("token.rate.per.minute", 0, 2*time.Second)
	o.Call("held", "done", "billing", time.Second)
	o.Accepted("billing")
	o.Refused("queued")
	o.Login(true, true)
	o.Callback("delivered")
	t.Ready(func() bool { return true })
	t.Collect(func() []OrgState {
		return []OrgState{{
			Name: "acme", Held: 3, InFlight: 2, Queue: map[string]int64{"queued": 7, "unknown": 1, "lost": 9},
			OldestQueued: time.Minute, QueuedBytes: 4096, Paused: true, ReservedShare: 0.3,
			Callers: map[string]int64{"billing": 5},
			Estimates: []headgate.Estimate{{
				Limit: "token.rate.per.minute", Org: "api.example.com", Client: "0123456789abcdef", Token: "fedcba9876543210", Path: "/api/v2/flows/*",
				Rate: 5, RateSure: 0.9, Burst: 300, BurstSure: 0.8, Level: 42, Pace: 4.9, Others: 1, Waiting: 6, RetryAfter: 3 * time.Second,
			}},
		}}
	})
}

// scraped returns what a scrape of t gets, line by line.
func scraped(t *testing.T, tel *Telemetry, accept string) (lines []string, contentType string) {
	t.Helper()
	r := httptest.NewRequest(http.MethodGet, "/metrics", nil)
	r.Header.Set("Accept", accept)
	w := httptest.NewRecorder()
	tel.Handler().ServeHTTP(w, r)
	body, err := io.ReadAll(w.Result().Body)
	if err != nil || w.Code != http.StatusOK {
		t.Fatalf("status %d, %v: %s", w.Code, err, body)
	}
	return strings.Split(string(body), "\n"), w.Header().Get("Content-Type")
}

func wantLines(t *testing.T, lines []string, want ...string) {
	t.Helper()
	there := map[string]bool{}
	for _, line := range lines {
		there[line] = true
	}
	for _, line := range want {
		if !there[line] {
			name, _, _ := strings.Cut(line, "{")
			var like []string
			for _, l := range lines {
				if strings.HasPrefix(l, name) {
					like = append(like, l)
				}
			}
			t.Errorf("no line %s, but\n%s", line, strings.Join(like, "\n"))
		}
	}
}

func TestScrape(t *testing.T) {
	tel := New("1.2.3")
	exercise(tel)
	lines, contentType := scraped(t, tel, "text/plain")
	if !strings.HasPrefix(contentType, "text/plain") {
		t.Errorf("content type %q", contentType)
	}
	const bucket = `{limit="token.rate.per.minute",org="acme",scope="client=01234567 token=fedcba98 path=/api/v2/flows/*"} `
	wantLines(t, lines,
		`headgate_ready 1`,
		`headgate_requests_sent_total{org="acme"} 1`,
		`headgate_requests_retried_total{org="acme"} 1`,
		`headgate_requests_given_up_total{org="acme"} 1`,
		`headgate_answers_total{class="2xx",org="acme"} 1`,
		`headgate_answers_total{class="429",org="acme"} 0`,
		`headgate_answer_seconds_sum{org="acme"} 1`,
		`headgate_gate_closed_total{limit="token.rate.per.minute",org="acme"} 1`,
		`headgate_gate_opened_total{limit="token.rate.per.minute",org="acme"} 1`,
		`headgate_limits_found_total{limit="token.rate.per.minute",org="acme"} 1`,
		`headgate_waited_seconds_total{limit="token.rate.per.minute",org="acme",why="empty"} 1`,
		`headgate_waited_seconds_total{limit="token.rate.per.minute",org="acme",why="retry_after"} 1`,
		`headgate_wait_seconds_bucket{limit="token.rate.per.minute",org="acme",urgency="0",le="2.5"} 1`,
		`headgate_wait_seconds_bucket{limit="token.rate.per.minute",org="acme",urgency="0",le="1"} 0`,
		`headgate_call_seconds_count{kind="held",org="acme",outcome="done"} 1`,
		`headgate_calls_total{caller="billing",kind="held",org="acme",outcome="done"} 1`,
		`headgate_calls_accepted_total{caller="billing",org="acme"} 1`,
		`headgate_calls_refused_total{org="acme",reason="queued"} 1`,
		`headgate_calls_refused_total{org="acme",reason="storage"} 0`,
		`headgate_logins_total{at="gateway",org="acme",result="ok"} 1`,
		`headgate_logins_total{at="platform",org="acme",result="failed"} 0`,
		`headgate_callbacks_total{org="acme",result="delivered"} 1`,
		`headgate_held_calls{org="acme"} 3`,
		`headgate_in_flight_requests{org="acme"} 2`,
		`headgate_executions{org="acme",state="queued"} 7`,
		`headgate_executions{org="acme",state="sending"} 0`,
		`headgate_queue_oldest_seconds{org="acme"} 60`,
		`headgate_queue_bytes{org="acme"} 4096`,
		`headgate_paused{org="acme"} 1`,
		`headgate_storage_trouble{org="acme"} 0`,
		`headgate_reserved_ratio{org="acme"} 0.3`,
		`headgate_line_waiting{caller="billing",org="acme"} 5`,
		`headgate_buckets_left_out{org="acme"} 0`,
		`headgate_bucket_level`+bucket+`42`,
		`headgate_bucket_rate`+bucket+`5`,
		`headgate_bucket_rate_confidence`+bucket+`0.9`,
		`headgate_bucket_burst`+bucket+`300`,
		`headgate_bucket_burst_confidence`+bucket+`0.8`,
		`headgate_bucket_pace`+bucket+`4.9`,
		`headgate_bucket_others_rate`+bucket+`1`,
		`headgate_bucket_waiting`+bucket+`6`,
		`headgate_bucket_retry_after_seconds`+bucket+`3`,
	)
	text := strings.Join(lines, "\n")
	for _, absent := range []string{"lost", "89abcdef", "76543210"} {
		if strings.Contains(text, absent) {
			t.Errorf("it says %q", absent)
		}
	}
	for _, present := range []string{"go_goroutines ", "process_open_fds ", `headgate_build_info{go="go`, `version="1.2.3"`} {
		if !strings.Contains(text, present) {
			t.Errorf("it does not say %q", present)
		}
	}
}

func TestOpenMetrics(t *testing.T) {
	tel := New("test")
	exercise(tel)
	lines, contentType := scraped(t, tel, "application/openmetrics-text; version=1.0.0")
	if !strings.HasPrefix(contentType, "application/openmetrics-text") || lines[len(lines)-2] != "# EOF" {
		t.Errorf("content type %q, last line %q", contentType, lines[len(lines)-2])
	}
}

func TestAnswerClasses(t *testing.T) {
	tel := New("test")
	o := tel.Org("acme")
	for _, status := range []int{101, 204, 302, 400, 404, 429, 500, 503, 999, 0, 7} {
		e := headgate.Event{Kind: headgate.Answered, Status: status}
		if status == 0 {
			e.Err = errors.New("reset")
		}
		o.Observe(e)
	}
	lines, _ := scraped(t, tel, "")
	for class, n := range map[string]int{"1xx": 1, "2xx": 1, "3xx": 1, "4xx": 2, "429": 1, "5xx": 3, "none": 2} {
		wantLines(t, lines, fmt.Sprintf(`headgate_answers_total{class=%q,org="acme"} %d`, class, n))
	}
}

// What nobody has foreseen falls in a closed set, and harms nothing.
func TestOddArguments(t *testing.T) {
	tel := New("test")
	o := tel.Org("acme")
	o.Observe(headgate.Event{})
	o.Observe(headgate.Event{Kind: headgate.PermitWaited, Parts: []headgate.WaitPart{{Limit: "x", Empty: -time.Second}}})
	o.Wait("", -5, -time.Second)
	o.Wait("\xff", 99, time.Second)
	o.Call("?", "?", "\xff", -time.Second)
	o.Accepted("")
	o.Refused("?")
	o.Callback("?")
	tel.Collect(func() []OrgState { return []OrgState{{Name: "acme", Callers: map[string]int64{"": 2}}} })
	wantLines(t, first(scraped(t, tel, "")),
		`headgate_wait_seconds_count{limit="none",org="acme",urgency="0"} 1`,
		`headgate_wait_seconds_count{limit="other",org="acme",urgency="7"} 1`,
		`headgate_calls_total{caller="other",kind="other",org="acme",outcome="error"} 1`,
		`headgate_calls_accepted_total{caller="none",org="acme"} 1`,
		`headgate_line_waiting{caller="none",org="acme"} 2`,
		`headgate_calls_refused_total{org="acme",reason="other"} 1`,
		`headgate_callbacks_total{org="acme",result="other"} 1`,
		`headgate_waited_seconds_total{limit="x",org="acme",why="empty"} 0`,
	)
}

func first[A, B any](a A, _ B) A { return a }

func TestForget(t *testing.T) {
	tel := New("test")
	old := tel.Org("acme")
	if tel.Org("acme") != old {
		t.Error("not the same meters")
	}
	tel.Org("other-org").Login(true, true)
	old.Login(true, true)
	tel.Forget("acme")
	tel.Forget("never seen")
	old.Login(true, true)
	old.Wait("a new limit", 0, 0)
	text := strings.Join(first(scraped(t, tel, "")), "\n")
	if strings.Contains(text, `org="acme"`) {
		t.Error("it still tells of what it should have forgotten")
	}
	if !strings.Contains(text, `org="other-org"`) {
		t.Error("it forgot another one as well")
	}
	tel.Org("acme").Login(true, true)
	wantLines(t, first(scraped(t, tel, "")), `headgate_logins_total{at="gateway",org="acme",result="ok"} 1`)
}

// Whatever comes from the network or the configuration, a scrape succeeds, and
// has a bounded number of series.
func TestSeriesAreBounded(t *testing.T) {
	tel := New("test")
	o := tel.Org("acme\xff")
	state := OrgState{Name: "acme\xff", Callers: map[string]int64{"\xff": 1}}
	for i := range 1000 {
		name := fmt.Sprint("name", i)
		o.Observe(headgate.Event{Kind: headgate.GateClosed, Limit: name})
		o.Wait(name, i%urgencies, 0)
		o.Call("held", "done", name, 0)
		state.Callers[name] = 1
		state.Estimates = append(state.Estimates, headgate.Estimate{Limit: name, Waiting: i, Rate: math.Inf(1), Burst: math.NaN(), Path: strings.Repeat("ä", 70)})
	}
	state.Estimates = append(state.Estimates, state.Estimates[999]) // the same labels
	tel.Collect(func() []OrgState { return []OrgState{state, state} })
	if _, err := tel.gatherer().Gather(); err != nil {
		t.Error(err)
	}
	counts := map[string]int{}
	lines := first(scraped(t, tel, ""))
	for _, line := range lines {
		name, _, _ := strings.Cut(line, "{")
		counts[name]++
	}
	for name, want := range map[string]int{
		"headgate_gate_closed_total": maxLimits + 1,
		"headgate_calls_total":       maxCallers + 1,
		"headgate_line_waiting":      maxCallers + 1,
		"headgate_bucket_level":      maxBuckets,
		"headgate_bucket_rate":       0,
		"headgate_bucket_burst":      0,
	} {
		if counts[name] != want {
			t.Errorf("%s: %d series, want %d", name, counts[name], want)
		}
	}
	text := strings.Join(lines, "\n")
	if !strings.Contains(text, `headgate_bucket_waiting{limit="name800"`) || strings.Contains(text, `headgate_bucket_waiting{limit="name799"`) {
		t.Error("those that somebody waits for are not the ones that are shown")
	}
	wantLines(t, lines,
		"headgate_line_waiting{caller=\"other\",org=\"acme\uFFFD\"} 745",
		"headgate_buckets_left_out{org=\"acme\uFFFD\"} 801")
}

// States are asked for once for each scrape, on its goroutine.
func TestCollectOncePerScrape(t *testing.T) {
	tel := New("test")
	asked := 0 // no lock: the race detector would tell of another goroutine
	tel.Collect(func() []OrgState { asked++; return nil })
	for range 3 {
		scraped(t, tel, "")
	}
	if asked != 3 {
		t.Errorf("asked %d times in 3 scrapes", asked)
	}
	tel.Collect(nil)
	scraped(t, tel, "")
	if asked != 3 {
		t.Error("asked after it was taken back")
	}
}

func TestNotReady(t *testing.T) {
	tel := New("test")
	if text := strings.Join(first(scraped(t, tel, "")), "\n"); strings.Contains(text, "headgate_ready") {
		t.Error("ready or not, though nobody was asked")
	}
	tel.Ready(func() bool { return false })
	wantLines(t, first(scraped(t, tel, "")), "headgate_ready 0")
}

// All at once: for the race detector, and nothing is lost.
func TestConcurrentUse(t *testing.T) {
	tel := New("test")
	tel.Collect(func() []OrgState { return []OrgState{{Name: "acme"}} })
	const goroutines, rounds = 8, 50
	var wg sync.WaitGroup
	for g := range goroutines {
		wg.Go(func() {
			for i := range rounds {
				o := tel.Org("acme")
				o.Wait(fmt.Sprint("limit", i), g, time.Second)
				o.Call("held", "done", fmt.Sprint("caller", i), time.Second)
				o.Observe(headgate.Event{Kind: headgate.Sent})
				tel.Org(fmt.Sprint("org", i)).Refused("held")
				tel.Forget(fmt.Sprint("org", i-1))
			}
			w := httptest.NewRecorder()
			tel.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
			if w.Code != http.StatusOK {
				t.Errorf("status %d", w.Code)
			}
		})
	}
	wg.Wait()
	lines := first(scraped(t, tel, ""))
	wantLines(t, lines,
		fmt.Sprintf(`headgate_requests_sent_total{org="acme"} %d`, goroutines*rounds),
		fmt.Sprintf(`headgate_call_seconds_count{kind="held",org="acme",outcome="done"} %d`, goroutines*rounds),
		`headgate_calls_total{caller="caller7",kind="held",org="acme",outcome="done"} 8`)
	for g := range goroutines {
		wantLines(t, lines, fmt.Sprintf(`headgate_wait_seconds_count{limit="limit7",org="acme",urgency="%d"} 1`, g))
	}
}
