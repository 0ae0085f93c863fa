package headgate_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/headgate/headgate"
)

// script is a base that answers one attempt after the other as it is told, the
// last answer for all that follow, and notes what it was sent.
type script struct {
	mu      sync.Mutex
	answers []any // *http.Response, error, or a func(*http.Request) any
	start   time.Time
	at      []time.Duration
	bodies  []string
	auth    []string
}

func (s *script) RoundTrip(req *http.Request) (*http.Response, error) {
	var body []byte
	if req.Body != nil {
		body, _ = io.ReadAll(req.Body)
		req.Body.Close()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.start.IsZero() {
		s.start = time.Now()
	}
	s.at = append(s.at, time.Since(s.start))
	s.bodies = append(s.bodies, string(body))
	s.auth = append(s.auth, req.Header.Get("Authorization"))
	next := s.answers[min(len(s.at), len(s.answers))-1]
	if f, ok := next.(func(*http.Request) any); ok {
		next = f(req)
	}
	switch a := next.(type) {
	case error:
		return nil, a
	case *http.Response:
		return a, nil
	}
	panic(fmt.Sprintf("script has a %T", next))
}

func answer(status int, body string, header ...string) func(*http.Request) any {
	return func(req *http.Request) any {
		resp := &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body)), Request: req}
		for i := 0; i+1 < len(header); i += 2 {
			resp.Header.Set(header[i], header[i+1])
		}
		return resp
	}
}

var (
	reset  = &net.OpError{Op: "read", Err: syscall.ECONNRESET}
	noDial = &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
)

func post(t *testing.T, body string) *http.Request {
	req, err := http.NewRequestWithContext(t.Context(), "POST", "http://api.test/api/v2/flows", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	return req
}

// noJitter makes durations exact.
var noJitter = headgate.Retry{Jitter: headgate.NoJitter}

// exact returns a limiter that adds no jitter either.
func exact(t *testing.T, limits ...headgate.Limit) *headgate.Limiter {
	return newLimiter(t, headgate.LimiterConfig{Limits: limits, Spread: -1})
}

// What is sent again, when, and what comes back: law 3 as a table.
func TestWhatIsSentAgain(t *testing.T) {
	const s = time.Second
	least := headgate.AtLeastOnce
	for _, test := range []struct {
		name       string
		method     string // POST if empty
		delivery   headgate.Delivery
		answers    []any
		at         []time.Duration // of each attempt
		status     int             // 0: an error
		unknown    bool            // *UnknownError
		unanswered int
	}{
		{name: "200", answers: []any{answer(200, "")}, at: []time.Duration{0}, status: 200},
		{name: "400 is final", answers: []any{answer(400, "")}, at: []time.Duration{0}, status: 400},
		{name: "404 is final", answers: []any{answer(404, "")}, at: []time.Duration{0}, status: 404},
		{name: "401 without a login is final", answers: []any{answer(401, "")}, at: []time.Duration{0}, status: 401},
		{name: "501 is final", answers: []any{answer(501, "")}, at: []time.Duration{0}, status: 501},
		{name: "429 with Retry-After", answers: []any{answer(429, "", "Retry-After", "3"), answer(200, "")}, at: []time.Duration{0, 3 * s}, status: 200},
		{name: "429 with a fraction", answers: []any{answer(429, "", "Retry-After", "1.5"), answer(200, "")}, at: []time.Duration{0, 1500 * time.Millisecond}, status: 200},
		{name: "429 with a date", answers: []any{func(r *http.Request) any {
			return answer(429, "", "Retry-After", time.Now().Add(7*s).UTC().Format(http.TimeFormat))(r)
		}, answer(200, "")}, at: []time.Duration{0, 7 * s}, status: 200},
		{name: "429 with seconds in the message", answers: []any{answer(429, `{"message":"Rate limit exceeded the maximum. Retry the request in [42] seconds"}`), answer(200, "")}, at: []time.Duration{0, 42 * s}, status: 200},
		{name: "429 without anything", answers: []any{answer(429, "go away"), answer(429, ""), answer(429, ""), answer(200, "")}, at: []time.Duration{0, 5 * s, 15 * s, 35 * s}, status: 200},
		{name: "429 with garbage", answers: []any{answer(429, "", "Retry-After", "soon"), answer(200, "")}, at: []time.Duration{0, 5 * s}, status: 200},
		{name: "429 with a negative", answers: []any{answer(429, "", "Retry-After", "-3"), answer(200, "")}, at: []time.Duration{0, 5 * s}, status: 200},
		{name: "429 that overflows", answers: []any{answer(429, "", "Retry-After", "10000000000"), answer(200, "")}, at: []time.Duration{0, 5 * s}, status: 200},
		{name: "ten 429s use up no retries", answers: append(slices.Repeat([]any{answer(429, "", "Retry-After", "1")}, 10), answer(200, "")),
			at: []time.Duration{0, s, 2 * s, 3 * s, 4 * s, 5 * s, 6 * s, 7 * s, 8 * s, 9 * s, 10 * s}, status: 200},
		{name: "503 with Retry-After", answers: []any{answer(503, "", "Retry-After", "2"), answer(200, "")}, at: []time.Duration{0, 2 * s}, status: 200},
		{name: "503 without", answers: []any{answer(503, "")}, at: []time.Duration{0}, status: 503, unanswered: 1},
		{name: "500, at most once", answers: []any{answer(500, "")}, at: []time.Duration{0}, status: 500, unanswered: 1},
		{name: "500, at least once", delivery: least, answers: []any{answer(500, ""), answer(502, ""), answer(504, ""), answer(200, "")}, at: []time.Duration{0, s, 3 * s, 7 * s}, status: 200, unanswered: 3},
		{name: "500 for ever", delivery: least, answers: []any{answer(500, "")}, at: []time.Duration{0, s, 3 * s, 7 * s, 15 * s, 31 * s}, status: 500, unanswered: 6},
		{name: "reset, at most once", answers: []any{reset}, at: []time.Duration{0}, unknown: true, unanswered: 1},
		{name: "reset, at least once", delivery: least, answers: []any{reset, answer(200, "")}, at: []time.Duration{0, s}, status: 200, unanswered: 1},
		{name: "reset for ever", delivery: least, answers: []any{io.ErrUnexpectedEOF}, at: []time.Duration{0, s, 3 * s, 7 * s, 15 * s, 31 * s}, unknown: true, unanswered: 6},
		{name: "refused before it left", answers: []any{noDial, answer(200, "")}, at: []time.Duration{0, s}, status: 200},
		{name: "refused for ever", answers: []any{noDial}, at: []time.Duration{0, s, 3 * s, 7 * s, 15 * s, 31 * s}},
		{name: "no such host is final", answers: []any{&net.OpError{Op: "dial", Err: &net.DNSError{IsNotFound: true}}}, at: []time.Duration{0}},
		{name: "GET is idempotent", method: "GET", answers: []any{reset, answer(502, ""), answer(200, "")}, at: []time.Duration{0, s, 3 * s}, status: 200},
		{name: "PUT is idempotent", method: "PUT", answers: []any{answer(500, ""), answer(200, "")}, at: []time.Duration{0, s}, status: 200},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				base := &script{answers: test.answers}
				tr := &headgate.Transport{Base: base, Limiter: exact(t), Retry: noJitter, Delivery: test.delivery}
				req := post(t, "payload")
				if test.method != "" {
					req.Method = test.method
				}
				resp, tries, err := tr.Send(req)
				if !slices.Equal(base.at, test.at) {
					t.Errorf("attempts at %v, want %v", base.at, test.at)
				}
				for i, body := range base.bodies {
					if body != "payload" {
						t.Errorf("attempt %d had the body %q", i+1, body)
					}
				}
				var unknown *headgate.UnknownError
				switch {
				case test.status != 0 && (err != nil || resp.StatusCode != test.status):
					t.Errorf("got %v, %v; want status %d", resp, err, test.status)
				case test.status == 0 && (err == nil || resp != nil):
					t.Errorf("got %v, %v; want an error alone", resp, err)
				case errors.As(err, &unknown) != test.unknown:
					t.Errorf("got %v; want unknown: %v", err, test.unknown)
				}
				if tries.Unanswered != test.unanswered || tries.Sent != len(test.at) {
					t.Errorf("tries %+v, want %d unanswered of %d", tries, test.unanswered, len(test.at))
				}
			})
		})
	}
}

func TestBodyThatCannotBeRewoundIsSentOnce(t *testing.T) {
	base := &script{answers: []any{answer(429, "wait", "Retry-After", "1"), answer(200, "")}}
	tr := &headgate.Transport{Base: base}
	req := post(t, "")
	req.Body, req.GetBody = io.NopCloser(strings.NewReader("stream")), nil
	resp, err := tr.RoundTrip(req)
	if err != nil || resp.StatusCode != 429 || len(base.at) != 1 {
		t.Fatalf("got %v, %v after %d attempts", resp, err, len(base.at))
	}
	if body, _ := io.ReadAll(resp.Body); string(body) != "wait" {
		t.Errorf("the answer's body is %q", body)
	}
}

func TestGivesUpWithTheLastResponseWhole(t *testing.T) {
	long := strings.Repeat("x", 200<<10) // more than is looked at
	for _, status := range []int{429, 500} {
		synctest.Test(t, func(t *testing.T) {
			base := &script{answers: []any{answer(status, long, "Retry-After", "20")}}
			tr := &headgate.Transport{Base: base, Limiter: exact(t), Delivery: headgate.AtLeastOnce, Retry: headgate.Retry{MaxWait: 30 * time.Second, Jitter: headgate.NoJitter, Base: 20 * time.Second}}
			start := time.Now()
			resp, err := tr.RoundTrip(post(t, "{}"))
			if err != nil || resp.StatusCode != status {
				t.Fatalf("got %v, %v", resp, err)
			}
			if body, err := io.ReadAll(resp.Body); string(body) != long || err != nil {
				t.Errorf("status %d: %d bytes of the body are left, %v", status, len(body), err)
			}
			// The third attempt would go after 40 s or more: not waited for.
			if time.Since(start) != 20*time.Second || len(base.at) != 2 {
				t.Errorf("status %d: %d attempts in %v", status, len(base.at), time.Since(start))
			}
		})
	}
}

func TestRetryAfterOverTheCapIsATypedError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		base := &script{answers: []any{answer(429, "", "Retry-After", "86400")}}
		tr := &headgate.Transport{Base: base, Limiter: exact(t)}
		for range 2 { // the one that met it, and the next
			_, err := tr.RoundTrip(post(t, "{}"))
			var limit *headgate.LimitError
			if !errors.As(err, &limit) || limit.RetryAfter != 24*time.Hour || time.Until(limit.At) != 24*time.Hour {
				t.Errorf("got %v", err)
			}
		}
		if len(base.at) != 1 {
			t.Errorf("%d requests were sent", len(base.at))
		}
	})
}

func TestContextEndsTheWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		base := &script{answers: []any{noDial}}
		tr := &headgate.Transport{Base: base, Retry: noJitter}
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(1500*time.Millisecond, cancel)
		start := time.Now()
		_, err := tr.RoundTrip(post(t, "{}").WithContext(ctx))
		if !errors.Is(err, syscall.ECONNREFUSED) || time.Since(start) != 1500*time.Millisecond {
			t.Errorf("got %v after %v", err, time.Since(start))
		}
	})
}

// closeCounter notices whether a request's body is closed.
type closeCounter struct {
	io.Reader
	closed int
}

func (c *closeCounter) Close() error { c.closed++; return nil }

func TestRequestBodyIsClosedIfNothingIsSent(t *testing.T) {
	tr := &headgate.Transport{Limits: []headgate.Limit{{Name: "x", Rate: -1}}}
	body := &closeCounter{Reader: strings.NewReader("x")}
	req := post(t, "")
	req.Body = body
	if _, err := tr.RoundTrip(req); err == nil || !strings.Contains(err.Error(), "Rate is -1") {
		t.Errorf("got %v, want the invalid limit", err)
	}
	if body.closed == 0 {
		t.Error("the request's body is open")
	}
}

// login hands out numbered tokens; each login takes a second.
type login struct {
	mu  sync.Mutex
	n   int
	bad bool
}

func (l *login) Name() string { return "credential" }
func (l *login) Current() (string, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return fmt.Sprint("token-", l.n), !l.bad && l.n > 0
}
func (l *login) Token(context.Context) (string, error) {
	if token, ok := l.Current(); ok {
		return token, nil
	}
	time.Sleep(time.Second)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.n, l.bad = l.n+1, false
	return fmt.Sprint("token-", l.n), nil
}
func (l *login) Reject(token string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if token == fmt.Sprint("token-", l.n) {
		l.bad = true
	}
}

func TestUnauthorizedLogsInOnceAndSendsAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		base := &script{answers: []any{answer(200, ""), answer(401, ""), answer(200, ""), answer(401, "no")}}
		auth := &login{}
		tr := &headgate.Transport{Base: base, Auth: auth}
		for i, want := range []int{200, 200, 401} {
			req := post(t, "{}")
			req.Header.Set("Authorization", "Bearer of the caller")
			resp, err := tr.RoundTrip(req)
			if err != nil || resp.StatusCode != want {
				t.Fatalf("call %d: got %v, %v", i, resp, err)
			}
			if req.Header.Get("Authorization") != "Bearer of the caller" {
				t.Error("the caller's request was changed")
			}
		}
		want := []string{"Bearer token-1", "Bearer token-1", "Bearer token-2", "Bearer token-2", "Bearer token-3"}
		if !slices.Equal(base.auth, want) {
			t.Errorf("sent with %q, want %q", base.auth, want)
		}
	})
}

// Permits that wait for a login would all be used at once when it is there.
func TestNoPermitWaitsForALogin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		base := &script{answers: []any{answer(200, "")}}
		tr := &headgate.Transport{Base: base, Auth: &login{}, Limiter: exact(t, limit("api", 10, 5))}
		req := post(t, "{}") // one login for all: the fake does not combine them
		if _, err := tr.RoundTrip(req); err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		tr.Auth.Reject("token-1")
		base.at = nil
		for range 20 {
			wg.Go(func() { tr.RoundTrip(post(t, "{}")) })
		}
		wg.Wait()
		slices.Sort(base.at)
		if burst := base.at[5] - base.at[0]; burst < 100*time.Millisecond {
			t.Errorf("the sixth went %v after the first of a burst of 5", burst)
		}
	})
}

// A full bucket at the server begins to refill when the first request arrives,
// not when its permit was taken.
func TestRefillBeginsWhenTheFirstRequestLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		base := &script{answers: []any{answer(200, "")}}
		tr := &headgate.Transport{Base: base, Limiter: exact(t, limit("api", 10, 5))}
		var wg sync.WaitGroup
		var mu sync.Mutex
		var left []time.Duration
		start := time.Now()
		for range 10 {
			wg.Go(func() {
				r := tr.Attempt(post(t, "{}"), new(headgate.Tries), func() error {
					time.Sleep(400 * time.Millisecond) // a slow disk
					mu.Lock()
					defer mu.Unlock()
					left = append(left, time.Since(start))
					return nil
				})
				if r.Err != nil {
					t.Error(r.Err)
				}
			})
		}
		wg.Wait()
		slices.Sort(left)
		for i, want := range []time.Duration{400, 400, 400, 400, 400, 900, 1000, 1100, 1200, 1300} {
			if left[i] != want*time.Millisecond {
				t.Fatalf("left after %v", left)
			}
		}
	})
}

func TestAttemptThatMayNotLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		base := &script{answers: []any{answer(200, "")}}
		tr := &headgate.Transport{Base: base, Limiter: exact(t, limit("api", 1, 1))}
		full := errors.New("disk is full")
		var tries headgate.Tries
		r := tr.Attempt(post(t, "{}"), &tries, func() error { return full })
		if r.Err != full || r.Verdict.Action != headgate.Unsent || len(base.at) != 0 || tries.Sent != 0 {
			t.Errorf("got %+v after %d attempts", r, len(base.at))
		}
		start := time.Now()
		if r = tr.Attempt(post(t, "{}"), &tries, nil); r.Err != nil || time.Since(start) != 0 {
			t.Errorf("the permit was not given back: %+v after %v", r, time.Since(start))
		}
	})
}

func TestCallOptions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		base := &script{answers: []any{answer(500, "")}}
		tr := &headgate.Transport{Base: base, Limiter: exact(t), Retry: noJitter}
		least := headgate.AtLeastOnce
		ctx := headgate.WithCall(t.Context(), headgate.Call{Delivery: &least, MaxWait: 4 * time.Second})
		resp, err := tr.RoundTrip(post(t, "{}").WithContext(ctx))
		if err != nil || resp.StatusCode != 500 || !slices.Equal(base.at, []time.Duration{0, time.Second, 3 * time.Second}) {
			t.Errorf("got %v, %v, attempts at %v", resp, err, base.at)
		}
	})
}

func TestObserverSeesTheWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		base := &script{answers: []any{answer(429, "", "Retry-After", "1"), answer(500, "")}}
		observer := func(e headgate.Event) { fmt.Fprintln(&log, e.Kind, e.LogValue()) }
		tr := &headgate.Transport{Base: base, Observer: observer, Limiter: newLimiter(t, headgate.LimiterConfig{Spread: -1, Observer: observer})}
		req := post(t, "secret body")
		req.Header.Set("Authorization", "Bearer secret")
		req.URL.RawQuery = "key=secret"
		tr.RoundTrip(req)
		const want = `sent [attempt=1 method=POST path=/api/v2/flows]
gate closed [limit=token wait=1s status=429]
answered [attempt=1 method=POST path=/api/v2/flows status=429]
retried [attempt=1 method=POST path=/api/v2/flows status=429]
permit waited [limit=token wait=1s retry_after=1s why=waited 1.0 s: token Retry-After 1.0 s]
sent [attempt=2 method=POST path=/api/v2/flows]
gate opened [limit=token]
answered [attempt=2 method=POST path=/api/v2/flows status=500]
gave up [attempt=2 method=POST path=/api/v2/flows status=500]
`
		if log.String() != want {
			t.Errorf("got\n%swant\n%s", &log, want)
		}
	})
}

func TestWaitsAreExplained(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		base := &script{answers: []any{answer(429, "", "Retry-After", "2"), noDial, answer(200, "")}}
		tr := &headgate.Transport{Base: base, Limiter: exact(t, limit("api", 1, 1)), Retry: noJitter}
		_, tries, _ := tr.Send(post(t, "{}"))
		want := map[string]time.Duration{"Retry-After": 2 * time.Second, "backoff": time.Second}
		if fmt.Sprint(tries.Waits) != fmt.Sprint(want) || tries.Waited() != 3*time.Second {
			t.Errorf("waits %v, want %v", tries.Waits, want)
		}
		_, tries, _ = tr.Send(post(t, "{}"))
		if fmt.Sprint(tries.Waits) != fmt.Sprint(map[string]time.Duration{"api": time.Second}) {
			t.Errorf("waits %v, want 1s for api", tries.Waits)
		}
	})
}

func TestTokensOfThePassThroughCountApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		base := &script{answers: []any{answer(200, "")}}
		tr := &headgate.Transport{Base: base, Limits: []headgate.Limit{limit("api", 1, 1)}}
		start := time.Now()
		for _, token := range []string{"a", "b", "a"} {
			req := post(t, "{}")
			req.Header.Set("Authorization", "Bearer "+token)
			tr.RoundTrip(req)
		}
		if time.Since(start) != time.Second {
			t.Errorf("took %v, want 1s for the second use of a", time.Since(start))
		}
	})
}

func TestJitters(t *testing.T) {
	for _, test := range []struct {
		jitter   headgate.Jitter
		from, to time.Duration
		distinct bool
	}{
		{headgate.NoJitter, time.Second, time.Second, false},
		{headgate.FullJitter, 0, time.Second, true},
		{headgate.EqualJitter, 500 * time.Millisecond, time.Second, true},
		{headgate.DecorrelatedJitter, time.Second, 3 * time.Second, true},
	} {
		synctest.Test(t, func(t *testing.T) {
			seen := map[time.Duration]bool{}
			for range 50 {
				base := &script{answers: []any{noDial, answer(200, "")}}
				tr := &headgate.Transport{Base: base, Retry: headgate.Retry{Jitter: test.jitter}}
				tr.RoundTrip(post(t, "{}"))
				wait := base.at[1]
				if seen[wait] = true; wait < test.from || wait > test.to {
					t.Errorf("%v: waited %v, want %v to %v", test.jitter, wait, test.from, test.to)
				}
			}
			if (len(seen) > 40) != test.distinct {
				t.Errorf("%v: %d different waits", test.jitter, len(seen))
			}
		})
	}
}

func TestEachRetryFieldActs(t *testing.T) {
	refused, failed := answer(429, ""), noDial
	for name, test := range map[string]struct {
		retry  headgate.Retry
		answer any
		at     []time.Duration
	}{
		"RetryAfter":    {headgate.Retry{RetryAfter: 2 * time.Second, MaxWait: 7 * time.Second}, refused, []time.Duration{0, 2, 6}},
		"Max":           {headgate.Retry{RetryAfter: 2 * time.Second, Max: 3 * time.Second, MaxWait: 9 * time.Second}, refused, []time.Duration{0, 2, 5, 8}},
		"Constant":      {headgate.Retry{RetryAfter: 2 * time.Second, Backoff: headgate.Constant, MaxWait: 7 * time.Second}, refused, []time.Duration{0, 2, 4, 6}},
		"MaxRetryAfter": {headgate.Retry{MaxRetryAfter: 8 * time.Second}, refused, []time.Duration{0, 5}},
		"MaxRetries":    {headgate.Retry{MaxRetries: 2}, failed, []time.Duration{0, 1, 3}},
		"no retries":    {headgate.Retry{MaxRetries: -1}, failed, []time.Duration{0}},
		"Base":          {headgate.Retry{Base: 2 * time.Second, MaxRetries: 2}, failed, []time.Duration{0, 2, 6}},
		"Base, Max":     {headgate.Retry{Base: 2 * time.Second, Max: 3 * time.Second, MaxRetries: 3}, failed, []time.Duration{0, 2, 5, 8}},
		"constant Base": {headgate.Retry{Backoff: headgate.Constant, MaxRetries: 3}, failed, []time.Duration{0, 1, 2, 3}},
		"MaxWait":       {headgate.Retry{MaxWait: 4 * time.Second}, failed, []time.Duration{0, 1, 3}},
	} {
		synctest.Test(t, func(t *testing.T) {
			base := &script{answers: []any{test.answer}}
			test.retry.Jitter = headgate.NoJitter
			tr := &headgate.Transport{Base: base, Limiter: exact(t), Retry: test.retry}
			tr.RoundTrip(post(t, "{}"))
			for i := range test.at {
				test.at[i] *= time.Second
			}
			if !slices.Equal(base.at, test.at) {
				t.Errorf("%s: attempts at %v, want %v", name, base.at, test.at)
			}
		})
	}
	for _, bad := range []headgate.Retry{{RetryAfter: -1}, {MaxRetryAfter: -1}, {Base: -1}, {Max: -1}, {MaxWait: -1}, {Backoff: 7}, {Jitter: 7}} {
		if bad.Validate() == nil {
			t.Errorf("%+v is valid", bad)
		}
	}
}

// failingLogin is an Authorizer whose login fails after the first token.
type failingLogin struct{ login }

var errLogin = errors.New("wrong credentials")

func (l *failingLogin) Token(ctx context.Context) (string, error) {
	if l.n == 0 {
		return l.login.Token(ctx)
	}
	return "", errLogin
}

// A 401 whose new login fails: what the login says is what helps.
func TestFailedLoginAfter401(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := &headgate.Transport{Base: &script{answers: []any{answer(401, "")}}, Auth: &failingLogin{}}
		if resp, err := tr.RoundTrip(post(t, "{}")); !errors.Is(err, errLogin) {
			t.Errorf("got %v, %v", resp, err)
		}
	})
}

// slowLogin takes a minute, unless the context ends.
type slowLogin struct{ login }

func (*slowLogin) Token(ctx context.Context) (string, error) {
	select {
	case <-time.After(time.Minute):
		return "", errLogin
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

func TestMaxWaitBoundsTheLogin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := &headgate.Transport{Auth: &slowLogin{}, Retry: headgate.Retry{MaxWait: 3 * time.Second}}
		start := time.Now()
		_, tries, err := tr.Send(post(t, "{}"))
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != 3*time.Second || tries.Waits[headgate.WaitLogin] != 3*time.Second {
			t.Errorf("got %v after %v, waits %v", err, time.Since(start), tries.Waits)
		}
	})
}

// What is kept of a limiter gives no credential away.
func TestStatesHoldNoCredential(t *testing.T) {
	names := map[string]map[string]bool{}
	for _, header := range []string{"Bearer abcdef", "Basic dXNlcjpwYXNz"} {
		names[header] = map[string]bool{}
		for range 2 {
			l := exact(t, limit("api", 1, 5))
			tr := &headgate.Transport{Base: &script{answers: []any{answer(200, "")}}, Limiter: l}
			req := post(t, "{}")
			req.Header.Set("Authorization", header)
			tr.RoundTrip(req)
			state := fmt.Sprintf("%+v", l.Snapshot())
			_, value, _ := strings.Cut(header, " ")
			if strings.Contains(state, value) || !strings.Contains(state, "Token:") {
				t.Errorf("state %s", state)
			}
			names[header][l.Snapshot()[0].Token] = true
		}
		if len(names[header]) != 1 {
			t.Errorf("%s has %d names", header, len(names[header]))
		}
	}
}

// shortLogin has a token that runs out while its holder waits for a permit.
type shortLogin struct {
	login
	asked int
}

func (l *shortLogin) Current() (string, bool) {
	if l.asked++; l.asked == 2 { // before the permit, after the permit, …
		return "", false
	}
	return "token", true
}

func TestTokenThatRunsOutInLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		base := &script{answers: []any{answer(200, "")}}
		tr := &headgate.Transport{Base: base, Auth: &shortLogin{}, Limiter: exact(t, limit("api", 1, 1))}
		start := time.Now()
		if _, err := tr.RoundTrip(post(t, "{}")); err != nil || time.Since(start) != 0 {
			t.Errorf("got %v after %v: the first permit was not given back", err, time.Since(start))
		}
	})
}

// spyBody notices whether it was read to its end before it was closed.
type spyBody struct {
	io.Reader
	ended, early bool
}

func (b *spyBody) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	b.ended = b.ended || err == io.EOF
	return n, err
}
func (b *spyBody) Close() error { b.early = !b.ended; return nil }

// An answer that is dropped was read, or its connection could not be used again.
func TestDroppedAnswersKeepTheConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		body := &spyBody{Reader: strings.NewReader("try later")}
		tr := &headgate.Transport{Delivery: headgate.AtLeastOnce, Base: &script{answers: []any{
			&http.Response{StatusCode: 500, Body: body}, answer(200, ""),
		}}}
		if resp, err := tr.RoundTrip(post(t, "{}")); err != nil || resp.StatusCode != 200 || body.early || !body.ended {
			t.Errorf("got %v, %v; read to the end: %v", resp, err, body.ended)
		}
	})
}

// An attempt may have been executed, and the last one was refused: handing the
// refusal back would say that nothing was.
func TestRefusalAfterAnUnansweredAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		base := &script{answers: []any{reset, answer(429, "", "Retry-After", "60")}}
		tr := &headgate.Transport{Base: base, Limiter: exact(t), Delivery: headgate.AtLeastOnce, Retry: headgate.Retry{MaxWait: 10 * time.Second}}
		resp, err := tr.RoundTrip(post(t, "{}"))
		var unknown *headgate.UnknownError
		if resp != nil || !errors.As(err, &unknown) || unknown.Unanswered != 1 {
			t.Errorf("got %v, %v", resp, err)
		}
	})
}

// Two tokens that were revoked in the life of one call are no reason to fail.
func TestUnauthorizedTwiceButNotInARow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		base := &script{answers: []any{answer(401, ""), answer(429, "", "Retry-After", "1"), answer(401, ""), answer(200, "")}}
		tr := &headgate.Transport{Base: base, Auth: &login{}, Limiter: exact(t)}
		if resp, err := tr.RoundTrip(post(t, "{}")); err != nil || resp.StatusCode != 200 {
			t.Errorf("got %v, %v", resp, err)
		}
	})
}

// Bodies are closed on every path.
func TestBodiesAreClosed(t *testing.T) {
	var open []*closeCounter
	body := func() io.ReadCloser {
		b := &closeCounter{Reader: strings.NewReader("{}")}
		open = append(open, b)
		return b
	}
	tr := &headgate.Transport{Base: &script{answers: []any{answer(500, "")}}}
	for _, leave := range []func() error{nil, func() error { return io.ErrShortWrite }} {
		for sent := range 2 {
			req := post(t, "")
			req.Body = body()
			req.GetBody = func() (io.ReadCloser, error) { return body(), nil }
			if r := tr.Attempt(req, &headgate.Tries{Sent: sent}, leave); r.Response != nil {
				r.Response.Body.Close()
			}
		}
	}
	for i, b := range open {
		if b.closed == 0 {
			t.Errorf("body %d of %d is open", i+1, len(open))
		}
	}
}
