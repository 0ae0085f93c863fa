package headgate_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/headgate/headgate"
)

// One permit goes from hand to hand while n wait for it: what it costs to hand
// it out and to stand in line again, goroutine switches included.
func BenchmarkHandOut(b *testing.B) {
	for _, n := range []int{100, 10_000, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			l, err := headgate.NewLimiter(headgate.LimiterConfig{Limits: []headgate.Limit{{Name: "api", Rate: 1e-6, Burst: 1}}})
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
