package headgate_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/headgate/headgate"
)

func TestRestartDoesNotRefill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limits := []headgate.Limit{limit("api", 1, 10), {Name: "w", Match: "/w", Max: 5, Window: 10 * time.Second}}
		l := newLimiter(t, headgate.LimiterConfig{Limits: limits, Spread: -1})
		for range 8 {
			p, _ := l.Take(t.Context(), headgate.Ask{Token: "t"})
			answered(p)
		}
		for range 2 {
			p, _ := l.Take(t.Context(), headgate.Ask{Token: "u", Path: "/w"})
			answered(p)
		}
		p, _ := l.Take(t.Context(), headgate.Ask{Token: "v"})
		p.Done(headgate.Observation{Status: 429, Refused: true, HasRetryAfter: true, RetryAfter: time.Minute})
		states := l.Snapshot()

		time.Sleep(3 * time.Second)
		again := newLimiter(t, headgate.LimiterConfig{Limits: limits, Spread: -1})
		again.Restore(states)
		count := func(ask headgate.Ask) (n int) {
			for {
				if _, err := again.Take(t.Context(), ahead(ask)); err != nil {
					return n
				}
				n++
			}
		}
		if n := count(headgate.Ask{Token: "t"}); n != 5 { // 10 - 8 + 3 s
			t.Errorf("token t: %d permits after the restart, want 5", n)
		}
		if n := count(headgate.Ask{Token: "u", Path: "/w"}); n != 3 {
			t.Errorf("window: %d permits after the restart, want 3", n)
		}
		var e *headgate.LimitError
		if _, err := again.Take(t.Context(), ahead(headgate.Ask{Token: "v"})); !errors.As(err, &e) || e.RetryAfter != 57*time.Second {
			t.Errorf("token v: got %v, want the gate closed for 57s", err)
		}
		if n := count(headgate.Ask{Token: "new"}); n != 10 {
			t.Errorf("another token: %d permits, want 10", n)
		}
	})
}

// What may have left since a snapshot counts as spent at the restart, whenever
// that is.
func TestUnsureIsSpent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limits := []headgate.Limit{limit("api", 1, 10), {Name: "w", Match: "/w", Max: 5, Window: 10 * time.Second}}
		at := time.Now()
		time.Sleep(time.Hour)
		l := newLimiter(t, headgate.LimiterConfig{Limits: limits, Spread: -1})
		l.Restore([]headgate.State{{Limit: "api", Token: "t", At: at, Unsure: 4}, {Limit: "w", Match: "/w", Token: "u", At: at, Unsure: 2}})
		for ask, want := range map[headgate.Ask]int{{Token: "t"}: 6, {Token: "u", Path: "/w"}: 3} {
			n := 0
			for ; ; n++ {
				if _, err := l.Take(t.Context(), ahead(ask)); err != nil {
					break
				}
			}
			if n != want {
				t.Errorf("%v: %d permits after the restart, want %d", ask, n, want)
			}
		}
	})
}

func TestManyKeysAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter(t, headgate.LimiterConfig{Limits: []headgate.Limit{limit("api", 100, 10)}})
		for i := range 100_000 {
			p, _ := l.Take(t.Context(), headgate.Ask{Token: fmt.Sprint(i)})
			answered(p)
			if i%100 == 0 {
				time.Sleep(time.Second)
			}
		}
		time.Sleep(time.Second)
		if n := len(l.Snapshot()); n != 0 {
			t.Errorf("%d buckets are not idle", n)
		}
		if n := headgate.Accounts(l); n > 4096 {
			t.Errorf("%d buckets are kept", n)
		}
	})
}

func TestManyWaiters(t *testing.T) {
	const n = 100_000
	l := newLimiter(t, headgate.LimiterConfig{Limits: []headgate.Limit{limit("api", 1e-3, 1)}})
	p, err := l.Take(t.Context(), headgate.Ask{})
	if err != nil {
		t.Fatal(err)
	}
	// A goroutine that waits in the limiter has a stack of 4 KB where one
	// that does nothing has 2 KB; the stack is the goroutine's.
	wait := func(block func(context.Context)) (heap, stack int64) {
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		for range n {
			wg.Go(func() { block(ctx) })
		}
		for runtime.Gosched(); headgate.Waiting(l) < n && headgate.Waiting(l) > 0; {
			runtime.Gosched()
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		cancel()
		wg.Wait()
		return int64(after.HeapAlloc-before.HeapAlloc) / n, int64(after.StackInuse-before.StackInuse) / n
	}
	idle := func(ctx context.Context) { <-ctx.Done() }
	wait(idle) // the runtime keeps what describes a goroutine for the next one
	bare, bareStack := wait(idle)
	waiting, stack := wait(func(ctx context.Context) { l.Take(ctx, headgate.Ask{}) })
	t.Logf("bytes for each of %d: %d in the limiter (stack %d), %d for a goroutine alone (stack %d)", n, waiting, stack, bare, bareStack)
	if waiting-bare > 1024 {
		t.Errorf("a waiter costs %d bytes more than its goroutine", waiting-bare)
	}
	p.Return()
	if w := headgate.Waiting(l); w != 0 {
		t.Errorf("%d are left in line", w)
	}
}
