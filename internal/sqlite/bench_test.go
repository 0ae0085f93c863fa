package sqlite

import (
	"context"
	"fmt"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/headgate/headgate/internal/queue"
)

func bencher(b *testing.B, opt Options) *Store {
	b.Helper()
	s, err := Open(filepath.Join(b.TempDir(), "journal"), opt)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := s.Close(); err != nil {
			b.Error(err)
		}
	})
	return s
}

var benchBody = fmt.Appendf(nil, `{"flowId":"9d3f6e1a-7c1b-4f0e-9a57-0d5c7c3b1a2e","inputData":{"Flow.customer":%q}}`,
	fmt.Sprintf("%0120d", 7))

func benchExecution() queue.Execution {
	return queue.Execution{
		Method: "POST",
		Path:   "/api/v2/architect/flows/9d3f6e1a-7c1b-4f0e-9a57-0d5c7c3b1a2e/execute",
		Body:   benchBody,
	}
}

// fill adds n executions that have ended, or that wait for a time to come.
func fill(b *testing.B, s *Store, n int, like queue.Execution) {
	b.Helper()
	for n > 0 {
		xs := make([]queue.Execution, min(n, 5000))
		for i := range xs {
			xs[i] = like
		}
		if err := s.Add(b.Context(), xs); err != nil {
			b.Fatal(err)
		}
		n -= len(xs)
	}
}

func perSecond(b *testing.B, n int, what string) {
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), what+"/s")
}

// BenchmarkInsert: 64 writers, each adding one execution at a time with fsync
// on.
func BenchmarkInsert(b *testing.B) {
	for _, c := range []struct {
		name    string
		opt     Options
		callers int64 // who share it
		keys    bool
	}{
		{"group commit", Options{}, 0, false},
		{"one caller", Options{}, 1, false},
		{"64 callers", Options{}, 64, false},
		{"64 callers with keys", Options{}, 64, true},
		{"one transaction each", Options{maxBatch: 1}, 0, false},
	} {
		b.Run(c.name, func(b *testing.B) {
			s := bencher(b, c.opt)
			b.SetParallelism(64 / runtime.GOMAXPROCS(0))
			b.ResetTimer()
			before := cpuTime()
			var number atomic.Int64
			b.RunParallel(func(pb *testing.PB) {
				x := benchExecution()
				if c.callers > 0 {
					x.Caller, x.Weight = fmt.Sprint("caller ", number.Add(1)%c.callers), 1
				}
				for pb.Next() {
					if c.keys {
						x.Key = fmt.Sprintf("%032x", uint64(number.Add(1))*0x9e3779b97f4a7c15)
					}
					if err := s.Add(context.Background(), []queue.Execution{x}); err != nil {
						b.Error(err)
						return
					}
				}
			})
			perSecond(b, b.N, "inserts")
			b.ReportMetric(float64(cpuTime()-before)/float64(b.N), "cpu-ns/op")
		})
	}
}

// BenchmarkImport adds in batches of 1,000, as reading an input does, to a
// journal that holds nothing and to one that holds a million.
func BenchmarkImport(b *testing.B) {
	for _, stored := range []int{0, 1_000_000} {
		b.Run(fmt.Sprintf("stored=%d", stored), func(b *testing.B) {
			if stored > 10_000 && testing.Short() {
				b.Skip("takes a while to fill")
			}
			s := bencher(b, Options{})
			fill(b, s, stored, benchExecution())
			b.ResetTimer()
			n := 0
			for b.Loop() {
				fill(b, s, 1000, benchExecution())
				n += 1000
			}
			perSecond(b, n, "rows")
		})
	}
}

// BenchmarkRecover looks for what must not be sent again among a million that
// wait, a tenth of which were sent and refused before: it comes once, at the
// start of an at-most-once run.
func BenchmarkRecover(b *testing.B) {
	for _, queued := range []int{10_000, 1_000_000} {
		b.Run(fmt.Sprintf("queued=%d", queued), func(b *testing.B) {
			if queued > 10_000 && testing.Short() {
				b.Skip("takes a while to fill")
			}
			s := bencher(b, Options{})
			refused := benchExecution()
			refused.Tally = queue.Tally{Sent: 1, Refused: 1, Waits: map[string]time.Duration{"Retry-After": time.Second}}
			fill(b, s, queued/10, refused)
			fill(b, s, queued-queued/10, benchExecution())
			b.ResetTimer()
			for b.Loop() {
				if got, err := queue.Recover(b.Context(), s, queue.AtMostOnce, time.Now()); err != nil || got != (queue.Recovered{}) {
					b.Fatal(got, err)
				}
			}
		})
	}
}

// gatewayExecution is one as a gateway accepts it.
func gatewayExecution(i int) queue.Execution {
	x := benchExecution()
	x.Caller, x.Key = fmt.Sprintf("caller-%d", i%20), fmt.Sprintf("%032x", uint64(i)*0x9e3779b97f4a7c15)
	x.Accepted, x.Extra = time.Unix(int64(1+i), 0), []byte(`{"type":"application/json"}`)
	return x
}

// fillGateway adds n of a gateway's executions; like may change them.
func fillGateway(b *testing.B, s *Store, n int, like func(i int, x *queue.Execution)) {
	b.Helper()
	for from := 0; from < n; from += 5000 {
		xs := make([]queue.Execution, min(5000, n-from))
		for i := range xs {
			xs[i] = gatewayExecution(from + i)
			like(from+i, &xs[i])
		}
		if err := s.Add(b.Context(), xs); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkStart opens a journal of a gateway and asks all that a start asks,
// with Recover for both deliveries.
func BenchmarkStart(b *testing.B) {
	for _, queued := range []int{10_000, 200_000} {
		b.Run(fmt.Sprintf("queued=%d", queued), func(b *testing.B) {
			if queued > 10_000 && testing.Short() {
				b.Skip("takes a while to fill")
			}
			path := filepath.Join(b.TempDir(), "journal")
			s, err := Open(path, Options{})
			must(b, err)
			fillGateway(b, s, queued, func(int, *queue.Execution) {})
			must(b, s.Close())
			b.ResetTimer()
			for b.Loop() {
				s, err := Open(path, Options{})
				must(b, err)
				for _, delivery := range []queue.Delivery{queue.AtLeastOnce, queue.AtMostOnce} {
					got, err := queue.Recover(b.Context(), s, delivery, time.Now())
					if err != nil || got != (queue.Recovered{}) {
						b.Fatal(got, err)
					}
				}
				counts, err := s.Counts(b.Context())
				if err != nil || counts[queue.Queued] != int64(queued) {
					b.Fatal(counts, err)
				}
				if load, err := s.Load(b.Context()); err != nil || len(load) != 20 {
					b.Fatal(load, err)
				}
				if at, ok, err := s.Oldest(b.Context()); err != nil || !ok || at.Unix() != 1 {
					b.Fatal(at, ok, err)
				}
				b.StopTimer()
				must(b, s.Close())
				b.StartTimer()
			}
		})
	}
}

// BenchmarkList reads the newest 50, by several filters, from a journal in which
// those that match are far behind what else there is.
func BenchmarkList(b *testing.B) {
	for _, stored := range []int{10_000, 200_000} {
		if stored > 10_000 && testing.Short() {
			b.Skip("takes a while to fill")
		}
		s := bencher(b, Options{})
		fillGateway(b, s, stored, func(i int, x *queue.Execution) {
			switch {
			case i < 2000 && i%2 == 0:
				x.State = queue.Unknown
			case i >= 2000:
				x.State = queue.Done
			}
		})
		unknown, queued := []queue.State{queue.Unknown}, []queue.State{queue.Queued}
		for _, f := range []queue.Filter{
			{}, {Caller: "caller-2"}, {States: unknown}, {States: unknown, Caller: "caller-2"}, {States: queued},
			{States: queued, Caller: "caller-3"}, {States: []queue.State{queue.Failed, queue.Expired, queue.Sent}},
		} {
			f.Newest, f.Limit = true, 50
			b.Run(fmt.Sprintf("stored=%d/%v of %q", stored, f.States, f.Caller), func(b *testing.B) {
				for b.Loop() {
					for _, err := range s.Each(b.Context(), f) {
						must(b, err)
					}
				}
			})
		}
		b.Run(fmt.Sprintf("stored=%d/oldest", stored), func(b *testing.B) {
			for b.Loop() {
				if _, ok, err := s.Oldest(b.Context()); err != nil || !ok {
					b.Fatal(ok, err)
				}
			}
		})
	}
}

// BenchmarkCycle carries executions from claim to sent to done with 200 at
// once, beside what must not matter: executions that ended, and executions at
// the front that are due tomorrow.
func BenchmarkCycle(b *testing.B) {
	ended, later := benchExecution(), benchExecution()
	ended.State = queue.Done
	later.Due, later.Priority = time.Now().Add(24*time.Hour), -1
	for _, c := range []struct {
		name   string
		stored int
		like   queue.Execution
	}{
		{"ended=10000", 10_000, ended},
		{"ended=1000000", 1_000_000, ended},
		{"parked=1000000", 1_000_000, later},
	} {
		b.Run(c.name, func(b *testing.B) {
			if c.stored > 10_000 && testing.Short() {
				b.Skip("takes a while to fill")
			}
			s := bencher(b, Options{})
			fill(b, s, c.stored, c.like)
			fill(b, s, b.N, benchExecution())
			work := make(chan queue.Execution, 50)
			b.SetParallelism(200 / runtime.GOMAXPROCS(0))
			b.ResetTimer()
			go func() {
				defer close(work)
				for n := 0; n < b.N; {
					xs, err := s.Claim(context.Background(), time.Now(), min(50, b.N-n))
					if err != nil || len(xs) == 0 {
						b.Error("claimed nothing", err)
						return
					}
					n += len(xs)
					for _, x := range xs {
						work <- x
					}
				}
			}()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					x, ok := <-work
					if !ok {
						return
					}
					for _, u := range []queue.Update{
						{ID: x.ID, From: queue.Claimed, To: queue.Sent, Tally: queue.Tally{Sent: 1}},
						{ID: x.ID, From: queue.Sent, To: queue.Done, At: time.Now(), Status: 200,
							Tally: queue.Tally{Sent: 1}, Answer: []byte(`{"id":"4be0a4a4-0d4c-4a6a-8b45-3f4f6c0a9b11"}`)},
					} {
						if err := s.Update(context.Background(), u); err != nil {
							b.Error(err)
							return
						}
					}
				}
			})
			perSecond(b, b.N, "cycles")
		})
	}
}
