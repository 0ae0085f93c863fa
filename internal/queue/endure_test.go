package queue_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/headgate/headgate/internal/queue"
)

// Each write fails in two ways, not made or made and not said, once or for a
// while: a dispatcher that endures goes on by itself, executes everything, and
// nothing twice in silence.
func TestEndures(t *testing.T) {
	bad := errors.New("connection to the store lost")
	const n = 40
	for _, method := range []string{"Claim", "Update", "any"} {
		for _, made := range []bool{false, true} {
			for _, lasts := range []int32{1, 3, 30} {
				for nth := range int32(10) {
					t.Run(fmt.Sprintf("%s %d for %d made=%v", method, nth, lasts, made), func(t *testing.T) {
						synctest.Test(t, func(t *testing.T) {
							var executed [n + 1]atomic.Int32
							b := newBench(t, func(ctx context.Context, x queue.Execution, leave func() error) (queue.Step, error) {
								time.Sleep(time.Second)
								if err := leave(); err != nil {
									return queue.Step{}, err
								}
								executed[x.ID].Add(1)
								time.Sleep(time.Second)
								return queue.Step{To: queue.Done, Tally: x.Tally}, nil
							}, make([]queue.Execution, n)...)
							b.Concurrency, b.Endure = 4, true
							var calls atomic.Int32
							fail := func(m string) error {
								if m == method || method == "any" {
									if c := calls.Add(1); c > nth && c <= nth+lasts {
										return bad
									}
								}
								return nil
							}
							if made {
								b.s.After = fail
							} else {
								b.s.Before = fail
							}
							take, stop := context.WithTimeout(t.Context(), time.Hour)
							defer stop()
							if err := b.Run(take, t.Context()); err != nil {
								t.Errorf("Run: %v", err)
							}
							for _, x := range b.states(slices.Repeat([]queue.State{queue.Done}, n)...) {
								if times := executed[x.ID].Load(); times != 1 {
									t.Errorf("execution %d was executed %d times: %+v", x.ID, times, x)
								}
								if x.Tally.Unanswered != 0 || x.Tally.Sent != 1 {
									t.Errorf("nothing was in doubt, and yet %+v", x.Tally)
								}
							}
							if len(b.steps) != n {
								t.Errorf("observed %d steps, want %d", len(b.steps), n)
							}
							if err := b.Trouble(); err != nil {
								t.Errorf("Trouble when all is well: %v", err)
							}
						})
					})
				}
			}
		}
	}
}

// On a full disk it takes nothing new, keeps what is in flight, and goes on when
// there is room.
func TestEnduresFullDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		full := fmt.Errorf("writing: %w", queue.ErrFull)
		var claims, sends atomic.Int32
		b := newBench(t, nil, make([]queue.Execution, 50)...)
		send := taking(11 * time.Second)
		b.Send = func(ctx context.Context, x queue.Execution, leave func() error) (queue.Step, error) {
			sends.Add(1)
			return send(ctx, x, leave)
		}
		b.Concurrency, b.Endure = 4, true
		b.s.Before = func(method string) error {
			if method == "Claim" {
				claims.Add(1)
			}
			if d := time.Since(b.begun); d >= 10*time.Second && d < time.Hour {
				return full
			}
			return nil
		}
		ended := make(chan error, 1)
		go func() { ended <- b.Run(t.Context(), t.Context()) }()
		time.Sleep(30 * time.Minute)
		if err := b.Trouble(); !errors.Is(err, queue.ErrFull) {
			t.Errorf("Trouble: got %v, want %v", err, queue.ErrFull)
		}
		// The four in flight, and no more.
		if n := sends.Load(); n != 4 {
			t.Errorf("%d sends were begun on a full disk", n)
		}
		before := claims.Load()
		time.Sleep(29*time.Minute + 59*time.Second)
		if n := claims.Load() - before; n > 30*60 {
			t.Errorf("asked %d times in half an hour whether there is room", n)
		}
		must(t, <-ended)
		for _, x := range b.states(slices.Repeat([]queue.State{queue.Done}, 50)...) {
			if x.Tally.Sent != 1 {
				t.Errorf("sent %d times", x.Tally.Sent)
			}
		}
		if d := time.Since(b.begun); d > time.Hour+150*time.Second {
			t.Errorf("went on until %v", d)
		}
	})
}

// Only claims fail: nobody else would find out that they go well again.
func TestEnduresClaims(t *testing.T) {
	for _, concurrency := range []int{1, 2, 8} {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t, taking(time.Second), make([]queue.Execution, 30)...)
			b.Concurrency, b.Endure = concurrency, true
			b.s.Before = func(method string) error {
				if d := time.Since(b.begun); method == "Claim" && d >= 2*time.Second && d < time.Minute {
					return queue.ErrFull
				}
				return nil
			}
			must(t, b.Run(t.Context(), t.Context()))
			b.states(slices.Repeat([]queue.State{queue.Done}, 30)...)
			if d, most := time.Since(b.begun), time.Minute+6*time.Second+30*time.Second/time.Duration(concurrency); d > most {
				t.Errorf("took %v, want at most %v", d, most)
			}
		})
	}
}

// Wrong credentials: it tries with one, again and again, and everything waits in
// the queue until they are right.
func TestEnduresSender(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bad := errors.New("the login was refused")
		var refused, now, most atomic.Int32
		b := newBench(t, nil, make([]queue.Execution, 500)...)
		b.Send = func(ctx context.Context, x queue.Execution, leave func() error) (queue.Step, error) {
			most.Store(max(most.Load(), now.Add(1)))
			defer now.Add(-1)
			time.Sleep(time.Millisecond)
			if d := time.Since(b.begun); d >= 5*time.Second && d < time.Hour {
				refused.Add(1)
				return queue.Step{}, bad
			}
			return taking(time.Second)(ctx, x, leave)
		}
		b.Concurrency, b.Endure = 50, true
		ended := make(chan error, 1)
		go func() { ended <- b.Run(t.Context(), t.Context()) }()
		time.Sleep(10 * time.Minute)
		if err := b.Trouble(); !errors.Is(err, bad) {
			t.Errorf("Trouble: got %v, want %v", err, bad)
		}
		if n := refused.Load(); n > 50+20 {
			t.Errorf("%d attempts were refused in ten minutes", n)
		}
		before := refused.Load()
		must(t, b.s.Add(t.Context(), make([]queue.Execution, 10)))
		b.Wake(queue.Place{Priority: -1})
		time.Sleep(49 * time.Minute)
		if n := refused.Load() - before; n > 55 || n < 40 {
			t.Errorf("tried %d times in 49 minutes, want about one a minute", n)
		}
		c, err := b.s.Counts(t.Context())
		if err != nil || c[queue.Queued] < 180 || c[queue.Sent] != 0 || c[queue.Failed]+c[queue.Unknown] != 0 {
			t.Errorf("Counts: %v, %v", c, err)
		}
		if c[queue.Claimed] > 1 {
			t.Errorf("%d are claimed although nothing can be sent", c[queue.Claimed])
		}
		must(t, <-ended)
		for _, x := range b.states(slices.Repeat([]queue.State{queue.Done}, 510)...) {
			if x.Tally.Sent != 1 {
				t.Errorf("sent %d times", x.Tally.Sent)
			}
		}
		if d := time.Since(b.begun); d > time.Hour+80*time.Second {
			t.Errorf("went on until %v", d)
		}
		if b.Trouble() != nil || most.Load() != 50 {
			t.Errorf("at the end: trouble %v, %d at once", b.Trouble(), most.Load())
		}
	})
}

// That it goes well again shows when one leaves, not when it is answered.
func TestEnduresSlowly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil, make([]queue.Execution, 20)...)
		b.Send = func(ctx context.Context, x queue.Execution, leave func() error) (queue.Step, error) {
			if time.Since(b.begun) < 10*time.Second {
				return queue.Step{}, errors.New("the login was refused")
			}
			return taking(time.Hour)(ctx, x, leave)
		}
		b.Endure = true
		ended := make(chan error, 1)
		go func() { ended <- b.Run(t.Context(), t.Context()) }()
		time.Sleep(20 * time.Second)
		synctest.Wait()
		b.states(slices.Repeat([]queue.State{queue.Sent}, 20)...)
		must(t, <-ended)
	})
}

// What is in the way when it is to stop does not keep it for ever, and a store
// that was closed ends it.
func TestEndureStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bad := errors.New("disk on fire")
		b := newBench(t, taking(time.Second), make([]queue.Execution, 9)...)
		b.Concurrency, b.Endure = 2, true
		b.s.Before = func(string) error {
			if time.Since(b.begun) > 500*time.Millisecond {
				return bad
			}
			return nil
		}
		take, stop := context.WithTimeout(t.Context(), time.Minute)
		defer stop()
		if err := b.Run(take, t.Context()); !errors.Is(err, bad) {
			t.Errorf("Run: got %v, want %v", err, bad)
		}
		if d := time.Since(b.begun); d < 90*time.Second || d > 95*time.Second {
			t.Errorf("ended after %v, want 30 s after the end of take", d)
		}
		b.s.Before = nil
		_, err := queue.Recover(t.Context(), b.s, queue.AtLeastOnce, time.Now())
		must(t, err)
		must(t, b.Run(t.Context(), t.Context()))
		b.states(slices.Repeat([]queue.State{queue.Done}, 9)...)
	})
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, taking(time.Second), make([]queue.Execution, 9)...)
		b.Concurrency, b.Endure, b.Stay = 2, true, true
		go func() {
			time.Sleep(1500 * time.Millisecond)
			b.s.Close()
		}()
		if err := b.Run(t.Context(), t.Context()); !errors.Is(err, queue.ErrClosed) {
			t.Errorf("Run: got %v, want %v", err, queue.ErrClosed)
		}
	})
}
