package gateway

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/headgate/headgate"
)

// figures makes the tests measure for long enough to mean something, and hold
// what they measure against what the gateway promises. Without it they see to it
// that what is measured works.
var figures = flag.Bool("figures", false, "measure throughput and memory in earnest: alone on the machine")

// load is one run of many requests at once.
type load struct {
	perSecond float64
	p50, p99  time.Duration
	cpu       time.Duration // of client and server, for each request
}

func (l load) String() string {
	return fmt.Sprintf("%.0f/s, p50 %v, p99 %v, CPU %v each", l.perSecond, l.p50.Round(time.Microsecond), l.p99.Round(time.Microsecond), l.cpu.Round(time.Microsecond))
}

// hammer sends requests over so many connections for a while.
func hammer(t testing.TB, connections int, d time.Duration, request func() *http.Request, want int) load {
	t.Helper()
	transport := &http.Transport{MaxIdleConnsPerHost: connections, MaxConnsPerHost: connections}
	defer transport.CloseIdleConnections()
	var mu sync.Mutex
	var all []time.Duration
	var failed atomic.Int64
	var wg sync.WaitGroup
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	start, cpu := time.Now(), cpuTime()
	for range connections {
		wg.Go(func() {
			var mine []time.Duration
			for ctx.Err() == nil {
				began := time.Now()
				resp, err := transport.RoundTrip(request())
				if err != nil {
					failed.Add(1)
					continue
				}
				io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
				if resp.StatusCode != want {
					failed.Add(1)
				}
				mine = append(mine, time.Since(began))
			}
			mu.Lock()
			all = append(all, mine...)
			mu.Unlock()
		})
	}
	wg.Wait()
	took := time.Since(start)
	cpu = cpuTime() - cpu
	if failed.Load() > 0 {
		t.Errorf("%d of %d failed", failed.Load(), len(all))
	}
	slices.Sort(all)
	return load{float64(len(all)) / took.Seconds(), all[len(all)/2], all[len(all)*99/100], cpu / time.Duration(len(all))}
}

// rounds runs two loads in turn, so that what else the machine does hits both,
// and returns the medians of what the second is of the first.
func rounds(t testing.TB, n int, bare, ours func() load) (throughput, p99 float64) {
	var rate, tail []float64
	for range n {
		a, b := bare(), ours()
		t.Logf("bare %v; ours %v", a, b)
		rate, tail = append(rate, b.perSecond/a.perSecond), append(tail, float64(b.p99)/float64(a.p99))
	}
	slices.Sort(rate)
	slices.Sort(tail)
	return rate[n/2], tail[n/2]
}

// unlimited are limits that are in nobody's way.
func unlimited() []headgate.Limit {
	return []headgate.Limit{{Name: "token", Rate: 1e7, Burst: 1e7, Learn: headgate.LearnOff}}
}

// Small calls with no limit in the way, over 64 connections, beside a bare
// reverse proxy.
func TestPassThroughThroughput(t *testing.T) {
	api := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == loginPath {
			w.Write([]byte(`{"access_token":"t","token_type":"bearer","expires_in":86399}`))
			return
		}
		io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/json")
		w.Write([]byte(`{"id":"1","status":"COMPLETED"}`))
	})
	b := newBench(t, plan{api: api, limits: unlimited()})
	target, _ := url.Parse(b.api.URL)
	bare := httptest.NewServer(&httputil.ReverseProxy{
		Rewrite:   func(p *httputil.ProxyRequest) { p.SetURL(target) },
		Transport: &http.Transport{MaxIdleConnsPerHost: 1024, DisableCompression: true},
	})
	defer bare.Close()
	d, n := 200*time.Millisecond, 1
	if *figures {
		d, n = 3*time.Second, 7
	}
	to := func(base string) func() load {
		return func() load {
			return hammer(t, 64, d, func() *http.Request {
				req, _ := http.NewRequest("POST", base+executePath, strings.NewReader(body(1)))
				req.Header.Set("Content-Type", "application/json")
				req.Header.Set("Authorization", "Bearer x")
				return req
			}, 200)
		}
	}
	throughput, p99 := rounds(t, n, to(bare.URL), to(b.url))
	t.Logf("throughput %.2f of a bare reverse proxy's, p99 %.2f", throughput, p99)
	if *figures && (throughput < 0.9 || p99 > 1.5) {
		t.Errorf("throughput %.2f, want 0.9; p99 %.2f, want 1.5 at most", throughput, p99)
	}
}

// Calls that are kept, over 64 connections, beside a bare handler that reads and
// drops the body.
func TestRespondAsyncThroughput(t *testing.T) {
	b := newBench(t, plan{limits: []headgate.Limit{{Name: "token", Rate: 10, Burst: 1, Learn: headgate.LearnOff}}, change: nil})
	bare := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		w.WriteHeader(http.StatusAccepted)
	}))
	defer bare.Close()
	d, n := 200*time.Millisecond, 1
	if *figures {
		d, n = 3*time.Second, 7
	}
	to := func(base string) func() load {
		return func() load {
			return hammer(t, 64, d, func() *http.Request {
				req, _ := http.NewRequest("POST", base+executePath, strings.NewReader(body(1)))
				req.Header.Set("Content-Type", "application/json")
				req.Header.Set("Prefer", "respond-async")
				return req
			}, 202)
		}
	}
	throughput, _ := rounds(t, n, to(bare.URL), to(b.url))
	t.Logf("throughput %.2f of a bare handler's", throughput)
	if *figures && throughput < 0.4 {
		t.Errorf("throughput %.2f, want 0.4: see docs/figures.md", throughput)
	}
}
