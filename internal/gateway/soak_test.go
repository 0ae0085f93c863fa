package gateway

import (
	"context"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/headgate/headgate/emulator"
	"github.com/headgate/headgate/internal/config"
)

// soak is for how long TestSoak runs.
var soak = flag.Duration("soak", 20*time.Second, "how long the soak test runs; an hour means something")

// At the bucket's pace, with held and kept calls, cancelled ones, callers that go
// away and callbacks, memory and goroutines stay flat.
func TestSoak(t *testing.T) {
	if testing.Short() {
		t.Skip("takes its time")
	}
	hook := newReceiver(t)
	const rate = 100
	b := newBench(t, plan{
		emulator: emulator.Config{Limits: []emulator.Limit{{Rate: rate, Burst: 50}}, Latency: 5 * time.Millisecond, Jitter: 20 * time.Millisecond, LedgerRows: -1,
			// Its own memory is not what is measured.
			Key: func(*http.Request, []byte) string { return "one" }},
		change: func(f *config.File) {
			hook.allow(f)
			f.Keep = time.Second // what has ended is forgotten at the next look
		},
	})
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	end := time.Now().Add(*soak)
	var load sync.WaitGroup
	var n, kept, held, cancelled, gone atomic.Int64
	worker := func(work func(i int)) {
		for range 4 {
			load.Go(func() {
				for ctx.Err() == nil {
					work(int(n.Add(1)))
				}
			})
		}
	}
	worker(func(i int) {
		if a := b.do("POST", executePath, body(i), "Content-Type: application/json"); a.status != 200 {
			t.Errorf("held: %d %s", a.status, a.body)
		}
		held.Add(1)
	})
	worker(func(i int) {
		var fields []string
		if i%4 == 0 {
			fields = []string{"Headgate-Callback: " + hook.URL}
		}
		x := b.later(i, fields...)
		kept.Add(1)
		if i%8 == 1 && b.do("DELETE", x.Self, "").status == 200 {
			cancelled.Add(1)
		}
		b.do("GET", x.Self, "", "Prefer: wait=10")
	})
	worker(func(i int) {
		short, cancel := context.WithTimeout(ctx, time.Duration(rand.IntN(100))*time.Millisecond)
		defer cancel()
		req, _ := http.NewRequestWithContext(short, "POST", b.url+executePath, strings.NewReader(body(i)))
		if i%2 == 0 {
			req.Header.Set("Prefer", "respond-async, wait=5")
		}
		if resp, err := client.Do(req); err == nil {
			io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
		} else {
			gone.Add(1)
		}
	})
	type point struct {
		memory     float64
		goroutines int
	}
	measure := func() (p point) {
		// The least of some: what is under way differs from moment to moment.
		for i := range 5 {
			q := point{memory(), runtime.NumGoroutine()}
			if i == 0 || q.memory < p.memory {
				p.memory = q.memory
			}
			if i == 0 || q.goroutines < p.goroutines {
				p.goroutines = q.goroutines
			}
			sleep(ctx, 100*time.Millisecond)
		}
		hook.mu.Lock()
		clear(hook.told)
		clear(hook.heard)
		hook.mu.Unlock()
		return p
	}
	sleep(ctx, *soak/4)
	first := measure()
	for time.Now().Before(end) {
		sleep(ctx, min(*soak/10, time.Minute))
		r := b.emulator.Report()
		t.Logf("%v, %d accepted, %d refused", measure(), r.Accepted, r.Rejected)
	}
	last := measure()
	stop()
	load.Wait()
	said := fmt.Sprintf("%v at %d/s: %d held, %d kept, %d cancelled, %d went away; heap and stacks %.1f MB, then %.1f MB; goroutines %d, then %d",
		*soak, rate, held.Load(), kept.Load(), cancelled.Load(), gone.Load(), first.memory/1e6, last.memory/1e6, first.goroutines, last.goroutines)
	t.Log(said)
	if last.memory > first.memory*1.25+4e6 || last.goroutines > first.goroutines+30 {
		t.Error("not flat")
	}
	if r := b.emulator.Report(); r.Early > 0 || r.Rejected > 3+r.Accepted/500 {
		t.Errorf("%d refused, %d early", r.Rejected, r.Early)
	}
	if held.Load() == 0 || kept.Load() == 0 || cancelled.Load() == 0 || gone.Load() == 0 {
		t.Error("not everything happened")
	}
}
