package headgate_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/time/rate"

	"github.com/headgate/headgate"
)

// Run with -cpu 1,2 and compare the medians of a few runs.
func BenchmarkTake(b *testing.B) {
	limits := []headgate.Limit{{Name: "api", Rate: 1e9, Burst: 1e9}}
	ask := headgate.Ask{Org: "org", Token: "token", Path: "/api/v2/flows"}
	newLimiter := func(b *testing.B) *headgate.Limiter {
		l, err := headgate.NewLimiter(headgate.LimiterConfig{Limits: limits})
		if err != nil {
			b.Fatal(err)
		}
		return l
	}
	b.Run("headgate/one", func(b *testing.B) {
		l := newLimiter(b)
		b.ReportAllocs()
		for b.Loop() {
			if _, err := l.Take(b.Context(), ask); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("headgate/hidden, and done", func(b *testing.B) {
		l := newLimiter(b)
		for i := range 3 { // hidden limits, one of them for this path
			p, err := l.Take(b.Context(), headgate.Ask{Org: "org", Token: "other", Path: []string{ask.Path, "/api/v2/users/1", "/api/v2/users/1/roles"}[i]})
			if err != nil {
				b.Fatal(err)
			}
			p.Done(headgate.Observation{Status: 429, Refused: true, Limit: fmt.Sprint("hidden ", i)})
		}
		b.ReportAllocs()
		for b.Loop() {
			p, err := l.Take(b.Context(), ask)
			if err != nil {
				b.Fatal(err)
			}
			p.Done(headgate.Observation{Status: 200}) // a hidden limit bounds what is out
		}
	})
	b.Run("x-time-rate/one", func(b *testing.B) {
		l := rate.NewLimiter(1e9, 1e9)
		b.ReportAllocs()
		for b.Loop() {
			if err := l.Wait(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("headgate/64", func(b *testing.B) {
		l := newLimiter(b)
		ctx := b.Context()
		b.ReportAllocs()
		b.SetParallelism(64)
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if _, err := l.Take(ctx, ask); err != nil {
					b.Error(err)
				}
			}
		})
	})
	b.Run("x-time-rate/64", func(b *testing.B) {
		l := rate.NewLimiter(1e9, 1e9)
		ctx := b.Context()
		b.ReportAllocs()
		b.SetParallelism(64)
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if err := l.Wait(ctx); err != nil {
					b.Error(err)
				}
			}
		})
	})
}

type noOp struct{ resp *http.Response }

func (n noOp) RoundTrip(req *http.Request) (*http.Response, error) { return n.resp, nil }

func BenchmarkTransport(b *testing.B) {
	base := noOp{&http.Response{StatusCode: 200, Body: http.NoBody}}
	for _, bench := range []struct {
		name string
		rt   http.RoundTripper
	}{
		{"base", base},
		{"headgate", &headgate.Transport{Base: base, Limits: []headgate.Limit{{Name: "api", Rate: 1e9, Burst: 1e9}}}},
	} {
		b.Run(bench.name, func(b *testing.B) {
			req, err := http.NewRequest("POST", "http://api.test/api/v2/flows", strings.NewReader("{}"))
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := bench.rt.RoundTrip(req); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// One permit goes from hand to hand while n wait for it: what it costs to hand
// it out and to stand in line again, goroutine switches included.
func BenchmarkHandOut(b *testing.B) {
	for _, n := range []int{100, 10_000, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			l, err := headgate.NewLimiter(headgate.LimiterConfig{Limits: []headgate.Limit{{Name: "api", Rate: 1e-6, Burst: 1, Learn: headgate.LearnOff}}})
			if err != nil {
				b.Fatal(err)
			}
			ctx, cancel := context.WithCancel(b.Context())
			held, err := l.Take(ctx, headgate.Ask{})
			if err != nil {
				b.Fatal(err)
			}
			var left atomic.Int64
			var wg sync.WaitGroup
			done := make(chan struct{})
			for i := range n {
				wg.Go(func() {
					for {
						p, err := l.Take(ctx, headgate.Ask{Priority: i%3 - 1})
						if err != nil {
							return
						}
						if left.Add(-1) == 0 {
							close(done)
						}
						p.Return()
					}
				})
			}
			for headgate.Waiting(l) < n {
			}
			left.Store(int64(b.N))
			b.ResetTimer()
			held.Return()
			<-done
			b.StopTimer()
			cancel()
			wg.Wait()
		})
	}
}
