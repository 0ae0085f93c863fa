package emulator

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// Over a real wire, a cut connection gives the client an error and no answer,
// and what was cut after executing has been executed.
func TestCutsOnTheWire(t *testing.T) {
	for _, http2 := range []bool{false, true} {
		for _, kind := range []FaultKind{CutBefore, CutAfter} {
			t.Run(fmt.Sprint(kind, http2), func(t *testing.T) {
				c := newTester(t, Config{Script: []Fault{{Kind: kind, Match: "POST /api/v2/architect/**"}}})
				srv := httptest.NewUnstartedServer(c.API())
				srv.EnableHTTP2 = http2
				srv.StartTLS()
				defer srv.Close()
				post := func(path string) (*http.Response, error) {
					req, err := http.NewRequestWithContext(t.Context(), "POST", srv.URL+path, strings.NewReader(`{"flowId":"F"}`))
					if err != nil {
						t.Fatal(err)
					}
					req.Header.Set("Authorization", "Bearer "+c.token)
					return srv.Client().Do(req)
				}
				for range 3 { // on a connection of its own, and on one that was used
					res, err := post(flowPath)
					if err == nil {
						t.Fatalf("got %v", res.Status)
					}
					if !http2 && !errors.Is(err, io.EOF) {
						t.Errorf("error %v", err)
					}
					if res, err = post(launchPath); err != nil || res.StatusCode != 200 {
						t.Fatal(res, err)
					}
					io.Copy(io.Discard, res.Body)
					res.Body.Close()
				}
				want := int64(3)
				if kind == CutAfter {
					want = 6
				}
				if r := c.Report(); r.Cut != 3 || r.Executed != want || r.Arrivals != 6 {
					t.Errorf("report\n%v", r)
				}
			})
		}
	}
}

// On the wire, with no grace at all, a client that waits from when it read the
// answer is never early, and one that does not wait is.
func TestEarlyOnTheWire(t *testing.T) {
	for _, patient := range []bool{true, false} {
		c := newTester(t, Config{Limits: bucketOf(20, 2), RetryAfter: RetryAfterExact, EarlyGrace: -1})
		srv := httptest.NewServer(c.API())
		defer srv.Close()
		for passed := 0; passed < 10; {
			req, err := http.NewRequestWithContext(t.Context(), "GET", srv.URL+limitsPath, nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Authorization", "Bearer "+c.token)
			res, err := srv.Client().Do(req)
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
			if res.StatusCode == 200 {
				passed++
				continue
			}
			d, err := time.ParseDuration(res.Header.Get("Retry-After") + "s")
			if err != nil {
				t.Fatal(err)
			}
			if patient {
				<-time.After(d)
			}
		}
		r := c.Report()
		if patient && (r.Early != 0 || r.Rejected < 5) || !patient && r.Early < 5 {
			t.Errorf("patient is %v, report\n%v", patient, r)
		}
	}
}

// A body over the maximum gets its 413 on the wire too, not a broken pipe: it is
// read to its end.
func TestTooLargeOnTheWire(t *testing.T) {
	c := newTester(t, Config{})
	srv := httptest.NewServer(c.API())
	defer srv.Close()
	body := strings.NewReader(`"` + strings.Repeat("x", 3<<20) + `"`)
	req, _ := http.NewRequestWithContext(t.Context(), "POST", srv.URL+flowPath, body)
	req.Header.Set("Authorization", "Bearer "+c.token)
	res, err := srv.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != 413 || res.Close {
		t.Errorf("got %s, close is %v", res.Status, res.Close)
	}
	if body.Len() > 0 {
		t.Errorf("%d bytes were not read", body.Len())
	}
}

func BenchmarkLoopback(b *testing.B) {
	s, err := New(Config{Limits: bucketOf(1e9, 1e9), AnyToken: true})
	if err != nil {
		b.Fatal(err)
	}
	srv := httptest.NewServer(s.API())
	defer srv.Close()
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
	b.SetParallelism(32)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			res, err := client.Post(srv.URL+flowPath, "application/json", strings.NewReader("1"))
			if err != nil {
				b.Error(err)
				return
			}
			io.Copy(io.Discard, res.Body)
			res.Body.Close()
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "req/s")
}
