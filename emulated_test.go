package headgate_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/headgate/headgate"
	"github.com/headgate/headgate/emulator"
	"github.com/headgate/headgate/headgatetest"
)

// batch is what 200 callers make of n executions.
type batch struct {
	emulator.Report
	span     time.Duration // first sent to last answered
	done     int
	errs     []error
	doubtful int // calls that may have been executed more than once, and say so
	sent     int
}

// drain runs n executions by 200 callers through a Transport, against an
// emulator of which the client knows what limits says, in fake time.
func drain(t *testing.T, n int, config emulator.Config, tr *headgate.Transport) batch {
	t.Helper()
	config.AnyToken, config.Latency = true, 5*time.Millisecond
	config.Expected = n
	config.Key = func(r *http.Request, body []byte) string { return string(body) }
	pair := headgatetest.New(t, config)
	tr.Base = pair.Transport()
	var b batch
	var mu sync.Mutex
	var next atomic.Int64
	var wg sync.WaitGroup
	start := time.Now()
	for range 200 {
		wg.Go(func() {
			for i := next.Add(1); i <= int64(n); i = next.Add(1) {
				req, err := http.NewRequestWithContext(t.Context(), "POST", pair.URL+"/api/v2/architect/flows/f/execute", strings.NewReader(fmt.Sprintf(`{"n":%d}`, i)))
				if err != nil {
					t.Error(err)
					return
				}
				resp, tries, err := tr.Send(req)
				if err == nil {
					_, err = io.Copy(io.Discard, resp.Body)
					resp.Body.Close()
					if err == nil && resp.StatusCode != 200 {
						err = fmt.Errorf("status %d", resp.StatusCode)
					}
				}
				mu.Lock()
				b.sent += tries.Sent
				if err != nil {
					b.errs = append(b.errs, err)
				} else {
					b.done++
					if tries.Unanswered > 0 {
						b.doubtful++
					}
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	b.span = time.Since(start)
	b.Report = pair.Emulator.Report()
	t.Logf("span %v, %d requests, %d rejected, %d early, %d lost, %d doubled, peak %d", b.span, b.sent, b.Rejected, b.Early, b.Lost, b.Doubled, b.Peak)
	return b
}

func (b batch) mustBeWhole(t *testing.T, n int) {
	t.Helper()
	if b.done != n || b.Lost != 0 || b.Doubled != 0 || b.Early != 0 {
		t.Errorf("%d of %d done, lost %d, doubled %d, early %d, errors %v", b.done, n, b.Lost, b.Doubled, b.Early, b.errs)
	}
}

var (
	bucket50 = emulator.Limit{Rate: 50, Burst: 100}
	known50  = headgate.Limit{Name: "token.rate.per.minute", Rate: 50, Burst: 100}
)

func TestKnownLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 1000
		b := drain(t, n, emulator.Config{Limits: []emulator.Limit{bucket50}}, &headgate.Transport{Limits: []headgate.Limit{known50}})
		b.mustBeWhole(t, n)
		if ideal := 18 * time.Second; b.span.Seconds() > 1.02*ideal.Seconds() {
			t.Errorf("span %v, ideal %v", b.span, ideal)
		}
		if b.Rejected > 3 {
			t.Errorf("%d rejected, want at most 3", b.Rejected)
		}
	})
}

func TestOutageInTheMiddle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 1000
		config := emulator.Config{
			Limits: []emulator.Limit{bucket50},
			Script: []emulator.Fault{{Kind: emulator.Outage, From: 8 * time.Second, To: 13 * time.Second}},
		}
		var mu sync.Mutex
		var after []time.Duration
		start := time.Now()
		tr := &headgate.Transport{Limits: []headgate.Limit{known50}, Observer: func(e headgate.Event) {
			if d := time.Since(start); e.Kind == headgate.Sent && d > 13*time.Second {
				mu.Lock()
				after = append(after, d)
				mu.Unlock()
			}
		}}
		b := drain(t, n, config, tr)
		b.mustBeWhole(t, n)
		if b.ByStatus[503] > 3 {
			t.Errorf("%d requests met the outage", b.ByStatus[503])
		}
		for i := range after {
			for j := i; j < len(after); j++ {
				// What the bucket has gathered goes over the backlog, at twice the
				// rate at most.
				if n, most := j-i+1, 1+2*50*(after[j]-after[i]).Seconds(); float64(n) > math.Ceil(most)+1e-6 {
					t.Fatalf("%d sent within %v after the outage", n, after[j]-after[i])
				}
			}
		}
	})
}

func TestEveryKindOfRetryAfter(t *testing.T) {
	for _, mode := range []emulator.RetryAfterMode{
		emulator.RetryAfterCeil, emulator.RetryAfterExact, emulator.RetryAfterDate, emulator.RetryAfterFluctuating,
		emulator.RetryAfterZero, emulator.RetryAfterHuge, emulator.RetryAfterGarbage, emulator.RetryAfterAbsent, emulator.RetryAfterShort,
	} {
		for _, message := range []emulator.MessageForm{emulator.MessageSame, emulator.MessageNone} {
			t.Run(fmt.Sprintf("%v, message %v", mode, message), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					// The client is told too much, so that it is refused.
					const n = 300
					tr := &headgate.Transport{
						Limits: []headgate.Limit{{Name: "token.rate.per.minute", Rate: 60, Burst: 100}},
						Observer: func(e headgate.Event) {
							if e.Wait < 0 || e.Wait > 24*time.Hour {
								t.Errorf("%v for %v", e.Kind, e.Wait)
							}
						},
					}
					b := drain(t, n, emulator.Config{Limits: []emulator.Limit{bucket50}, RetryAfter: mode, Message: message}, tr)
					b.mustBeWhole(t, n)
					if b.Rejected == 0 {
						t.Error("nothing was rejected: the test shows nothing")
					}
					if most := 100 + 60*b.span.Seconds(); float64(b.sent) > most {
						t.Errorf("%d sent in %v: a busy loop", b.sent, b.span)
					}
				})
			})
		}
	}
}

// The connection breaks after the server has executed.
func TestCutAfterExecuting(t *testing.T) {
	const n = 1000
	config := emulator.Config{Limits: []emulator.Limit{bucket50}, Rates: emulator.Rates{CutAfter: 0.02}, Seed: 1}
	t.Run("at least once", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := drain(t, n, config, &headgate.Transport{Limits: []headgate.Limit{known50}, Delivery: headgate.AtLeastOnce})
			if b.done != n || b.Lost != 0 || b.Early != 0 || b.DoubledKeys == 0 {
				t.Errorf("%d done, lost %d, early %d, %d doubled, %v", b.done, b.Lost, b.Early, b.DoubledKeys, b.errs)
			}
			if int64(b.doubtful) != b.DoubledKeys {
				t.Errorf("%d calls say that they may be doubled, %d are", b.doubtful, b.DoubledKeys)
			}
		})
	})
	t.Run("at most once", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := drain(t, n, config, &headgate.Transport{Limits: []headgate.Limit{known50}})
			if b.Doubled != 0 || b.Lost != 0 || len(b.errs) == 0 {
				t.Errorf("doubled %d, lost %d, %d errors", b.Doubled, b.Lost, len(b.errs))
			}
			for _, err := range b.errs {
				var unknown *headgate.UnknownError
				if !errors.As(err, &unknown) {
					t.Errorf("got %v, want an UnknownError", err)
				}
			}
			if int64(len(b.errs)) != b.Cut {
				t.Errorf("%d are unknown, %d were cut", len(b.errs), b.Cut)
			}
		})
	})
}

// Callers that give up leave no hole: the others are as fast as without them.
func TestCallersThatGiveUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pair := headgatetest.New(t, emulator.Config{AnyToken: true, Limits: []emulator.Limit{bucket50}})
		tr := &headgate.Transport{Base: pair.Transport(), Limits: []headgate.Limit{known50}}
		var wg sync.WaitGroup
		start := time.Now()
		for i := range 600 {
			wg.Go(func() {
				ctx := t.Context()
				if i%2 == 0 {
					c, cancel := context.WithCancel(ctx)
					defer cancel()
					time.AfterFunc(time.Duration(i)*time.Millisecond, cancel)
					ctx = c
				}
				req, _ := http.NewRequestWithContext(ctx, "POST", pair.URL+"/api/v2/architect/flows/f/execute", strings.NewReader(fmt.Sprintf(`{"n":%d}`, i)))
				if resp, err := tr.RoundTrip(req); err == nil {
					resp.Body.Close()
				}
			})
		}
		wg.Wait()
		r := pair.Emulator.Report()
		if best := time.Duration(float64(r.Executed-100) / 50 * 1e9); time.Since(start) > best+200*time.Millisecond || r.Rejected > 0 {
			t.Errorf("%d executed in %v, possible in %v; %d rejected", r.Executed, time.Since(start), best, r.Rejected)
		}
	})
}
