package headgate

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

type trip func(*http.Request) (*http.Response, error)

func (f trip) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

// A request that was admitted is sent with the permit that it has, and its waits
// count from then; a permit that nobody used goes back.
func TestAdmit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sent, refuse := 0, false
		tr := &Transport{
			Limits: []Limit{{Name: "a", Rate: 1, Burst: 1, Learn: LearnOff}},
			Base: trip(func(req *http.Request) (*http.Response, error) {
				sent++
				resp := &http.Response{StatusCode: 200, Header: http.Header{}, Body: io.NopCloser(strings.NewReader("")), Request: req}
				if refuse {
					refuse = false
					resp.StatusCode = 429
					resp.Header.Set("Retry-After", "0.5")
				}
				return resp, nil
			}),
		}
		start := time.Now()
		send := func(after time.Duration) {
			t.Helper()
			req, _ := http.NewRequestWithContext(t.Context(), "GET", "http://api.example/x", nil)
			a, err := tr.Admit(req)
			if err != nil {
				t.Fatal(err)
			}
			if got := time.Since(start); got != after {
				t.Errorf("admitted after %v, want %v", got, after)
			}
			resp, tries, err := tr.Send(req.WithContext(a.Context(req.Context())))
			if err != nil || resp.StatusCode != 200 || tries.Waited() != a.Tries.Waited() && tries.Refused == 0 {
				t.Errorf("%v, %+v", err, tries)
			}
			a.Release()
		}
		send(0)
		send(time.Second)
		refuse = true
		send(2 * time.Second)
		if sent != 4 {
			t.Errorf("sent %d", sent)
		}
		time.Sleep(10 * time.Second)
		req, _ := http.NewRequestWithContext(t.Context(), "GET", "http://api.example/x", nil)
		unused, err := tr.Admit(req)
		if err != nil {
			t.Fatal(err)
		}
		unused.Release()
		unused.Release()
		start = time.Now()
		send(0)
		late, err := tr.Admit(req.WithContext(WithCall(t.Context(), Call{MaxWait: time.Millisecond})))
		var limit *LimitError
		if !errors.As(err, &limit) {
			t.Errorf("no place in time: %v", err)
		}
		late.Release()
	})
}

// What is asked before each attempt may wait, and a gate that closes meanwhile
// holds the attempt back.
func TestLeaving(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limiter, err := NewLimiter(LimiterConfig{Spread: -1})
		if err != nil {
			t.Fatal(err)
		}
		asked := 0
		tr := &Transport{
			Limiter: limiter,
			Base: trip(func(req *http.Request) (*http.Response, error) {
				return &http.Response{StatusCode: 200, Header: http.Header{}, Body: http.NoBody, Request: req}, nil
			}),
		}
		tr.Leaving = func() {
			if asked++; asked > 1 {
				return
			}
			time.Sleep(time.Second)
			p, err := limiter.Take(t.Context(), Ask{Org: "api.example", Path: "/x"})
			if err != nil {
				t.Error(err)
				return
			}
			p.Done(Observation{Status: 429, Refused: true, HasRetryAfter: true, RetryAfter: 7 * time.Second})
		}
		start := time.Now()
		resp, err := (&http.Client{Transport: tr}).Get("http://api.example/x")
		if err != nil || resp.StatusCode != 200 || asked != 2 || time.Since(start) != 8*time.Second {
			t.Errorf("%v after %v, asked %d times", err, time.Since(start), asked)
		}
	})
}
