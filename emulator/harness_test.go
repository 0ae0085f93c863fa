package emulator

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

const (
	flowPath   = "/api/v2/architect/flows/F/execute"
	launchPath = "/api/v2/flows/executions"
	limitsPath = "/api/v2/organizations/limits/namespaces/platform.api"
)

// tester sends requests straight to the handler, with a token.
type tester struct {
	*Server
	t     testing.TB
	token string
	n     int
}

func newTester(t testing.TB, cfg Config) *tester {
	t.Helper()
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return &tester{Server: s, t: t, token: s.IssueToken()}
}

type reply struct {
	status int // 0 if the connection was cut
	header http.Header
	body   string
}

func (r reply) decode(t testing.TB, v any) {
	t.Helper()
	if err := json.Unmarshal([]byte(r.body), v); err != nil {
		t.Fatalf("%v in %q", err, r.body)
	}
}

func serve(h http.Handler, r *http.Request) (res reply) {
	defer func() {
		if v := recover(); v != nil {
			if v != http.ErrAbortHandler {
				panic(v)
			}
			res = reply{}
		}
	}()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return reply{w.Code, w.Header(), w.Body.String()}
}

func (c *tester) request(ctx context.Context, method, path, body string) *http.Request {
	r := httptest.NewRequestWithContext(ctx, method, path, strings.NewReader(body))
	if c.token != "" {
		r.Header.Set("Authorization", "Bearer "+c.token)
	}
	return r
}

func (c *tester) do(method, path, body string) reply {
	return serve(c.API(), c.request(c.t.Context(), method, path, body))
}

// execute runs flow F with a payload of its own.
func (c *tester) execute() reply {
	c.n++
	return c.do("POST", flowPath, fmt.Sprintf(`{"n":%d}`, c.n))
}

func (c *tester) login(id, secret, form string) reply {
	r := httptest.NewRequestWithContext(c.t.Context(), "POST", "/oauth/token", strings.NewReader(form))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if id != "" {
		r.SetBasicAuth(id, secret)
	}
	return serve(c.API(), r)
}

func (c *tester) admin(method, path string) reply {
	return serve(c.Admin(), httptest.NewRequestWithContext(c.t.Context(), method, path, nil))
}

func (c *tester) wantStatus(r reply, want int) {
	c.t.Helper()
	if r.status != want {
		c.t.Fatalf("status %d, want %d: %s", r.status, want, r.body)
	}
}

func (c *tester) rows() []Row {
	var rows []Row
	for r := range c.Ledger() {
		rows = append(rows, r)
	}
	return rows
}

// errReader is a body that breaks off.
type errReader struct{}

func (errReader) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// until sleeps to an offset since start.
func until(start time.Time, at time.Duration) { time.Sleep(time.Until(start.Add(at))) }

func bucketOf(rate, burst float64) []Limit { return []Limit{{Rate: rate, Burst: burst}} }
