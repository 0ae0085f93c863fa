package contender

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"
)

// newClient makes the client of a contender, told 1,000/s.
func newClient(t *testing.T, c Contender) Client {
	t.Helper()
	if c.Redis {
		t.Skip("needs a Redis; the front's test has one where it is installed")
	}
	pool := &http.Transport{}
	t.Cleanup(pool.CloseIdleConnections)
	s := Setup{Base: pool, Name: "l", Per: "token", Processes: 1}
	if c.Knows != Nothing {
		s.Told = &Limit{Rate: 1000, Burst: 100}
	}
	client, err := c.New(s)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// Every contender sends again what was refused, with the whole body and the
// token, and says what came of it.
func TestRefusedOnce(t *testing.T) {
	for _, c := range All() {
		t.Run(c.ID, func(t *testing.T) {
			t.Parallel()
			client := newClient(t, c)
			var attempts atomic.Int64
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				body, err := io.ReadAll(r.Body)
				if err != nil || string(body) != "payload" || r.Header.Get("Authorization") != "Bearer b" || r.Method != "POST" {
					t.Errorf("got %s %q for %q, %v", r.Method, body, r.Header.Get("Authorization"), err)
				}
				if attempts.Add(1) == 1 {
					w.Header().Set("Retry-After", "1")
					w.WriteHeader(http.StatusTooManyRequests)
				}
			}))
			defer srv.Close()
			status, err := client.Do(t.Context(), Call{URL: srv.URL, Bearer: "b", Body: []byte("payload")})
			if status != 200 || err != nil || attempts.Load() != 2 {
				t.Errorf("got %d, %v after %d attempts", status, err, attempts.Load())
			}
		})
	}
}

// What the server refuses for good is no success.
func TestFailure(t *testing.T) {
	for _, c := range All() {
		t.Run(c.ID, func(t *testing.T) {
			t.Parallel()
			client := newClient(t, c)
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusBadRequest) }))
			defer srv.Close()
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			if status, err := client.Do(ctx, Call{URL: srv.URL}); err == nil && status == 200 {
				t.Error("a 400 is reported as done")
			}
		})
	}
}

// A client that is told to stop stops, whatever it waits for.
func TestStops(t *testing.T) {
	for _, c := range All() {
		t.Run(c.ID, func(t *testing.T) {
			t.Parallel()
			client := newClient(t, c)
			refused := make(chan struct{}, 100)
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Retry-After", "3600")
				w.WriteHeader(http.StatusTooManyRequests)
				refused <- struct{}{}
			}))
			defer srv.Close()
			ctx, cancel := context.WithCancel(t.Context())
			go func() { <-refused; cancel() }()
			begin := time.Now()
			if status, err := client.Do(ctx, Call{URL: srv.URL}); err == nil && status == 200 {
				t.Error("what was never let through is reported as done")
			}
			if took := time.Since(begin); took > 3*time.Second {
				t.Errorf("it took %v to stop", took)
			}
		})
	}
}

func TestShare(t *testing.T) {
	for _, tt := range []struct{ whole, want Limit }{
		{Limit{Rate: 50, Burst: 100}, Limit{Rate: 12.5, Burst: 25}},
		{Limit{Rate: 50, Burst: 2}, Limit{Rate: 12.5, Burst: 1}},
		{Limit{Max: 300, Window: time.Second}, Limit{Max: 75, Window: time.Second, Burst: 1}},
		{Limit{Max: 3, Window: time.Second}, Limit{Max: 1, Window: time.Second, Burst: 1}},
	} {
		if got := tt.whole.share(4); got != tt.want {
			t.Errorf("a quarter of %+v is %+v, want %+v", tt.whole, got, tt.want)
		}
	}
}

func TestIDs(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range All() {
		if c.ID == "" || c.Title == "" || c.About == "" || seen[c.ID] || seen[c.Title] {
			t.Error(fmt.Errorf("%+v lacks a word of its own", c))
		}
		seen[c.ID], seen[c.Title] = true, true
	}
}
