package queue_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/headgate/headgate/internal/queue"
	"github.com/headgate/headgate/internal/queue/queuetest"
)

// bench is a dispatcher over a store in memory, and what was observed.
type bench struct {
	*queue.Dispatcher
	s     *queuetest.Memory
	t     *testing.T
	begun time.Time

	mu    sync.Mutex // guards steps
	steps []queue.Execution
}

func newBench(t *testing.T, send queue.Sender, xs ...queue.Execution) *bench {
	t.Helper()
	b := &bench{s: queuetest.NewMemory(), t: t, begun: time.Now()}
	must(t, b.s.Add(t.Context(), xs))
	b.Dispatcher = &queue.Dispatcher{Store: b.s, Send: send, Observe: func(x queue.Execution, _ queue.Step) {
		b.mu.Lock()
		b.steps = append(b.steps, x)
		b.mu.Unlock()
	}}
	return b
}

// run runs it to its end and checks when that was.
func (b *bench) run(wantAfter time.Duration) {
	b.t.Helper()
	if err := b.Run(b.t.Context(), b.t.Context()); err != nil {
		b.t.Errorf("Run: %v", err)
	}
	b.at(wantAfter)
}

func (b *bench) at(want time.Duration) {
	b.t.Helper()
	if got := time.Since(b.begun); got != want {
		b.t.Errorf("it is %v, want %v", got, want)
	}
}

func (b *bench) states(want ...queue.State) []queue.Execution {
	b.t.Helper()
	xs := each(b.t, b.s)
	var got []queue.State
	for _, x := range xs {
		got = append(got, x.State)
	}
	if !slices.Equal(got, want) {
		b.t.Errorf("states %v, want %v", got, want)
	}
	return xs
}

// taking is the sender that leaves at once and is done after d.
func taking(d time.Duration) queue.Sender {
	return func(ctx context.Context, x queue.Execution, leave func() error) (queue.Step, error) {
		if err := leave(); err != nil {
			return queue.Step{}, err
		}
		if err := wait(ctx, d); err != nil {
			return queue.Step{}, err
		}
		return queue.Step{To: queue.Done, Status: 200, Tally: x.Tally, Answer: []byte("ok")}, nil
	}
}

// waiting is the sender that waits d for its permit.
func waiting(d time.Duration) queue.Sender {
	return func(ctx context.Context, x queue.Execution, leave func() error) (queue.Step, error) {
		if err := wait(ctx, d); err != nil {
			return queue.Step{}, fmt.Errorf("waiting for a permit: %w", err)
		}
		return taking(0)(ctx, x, leave)
	}
}

func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func TestDispatcherRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var now, most atomic.Int32
		b := newBench(t, nil, make([]queue.Execution, 1000)...)
		b.Concurrency = 50
		send := taking(time.Second)
		b.Send = func(ctx context.Context, x queue.Execution, leave func() error) (queue.Step, error) {
			for n := now.Add(1); ; {
				old := most.Load()
				if n <= old || most.CompareAndSwap(old, n) {
					break
				}
			}
			defer now.Add(-1)
			c, err := b.s.Counts(ctx)
			if err != nil || c[queue.Claimed]+c[queue.Sent] > 63 {
				t.Errorf("%d claimed and %d sent at once, %v", c[queue.Claimed], c[queue.Sent], err)
			}
			return send(ctx, x, leave)
		}
		b.run(20 * time.Second) // 1000 of 1 s, 50 at once
		if most.Load() != 50 {
			t.Errorf("%d sends at once, want 50", most.Load())
		}
		seen := map[int64]int{}
		for _, x := range b.steps {
			seen[x.ID]++
			if x.State != queue.Done || x.Tally.Sent != 1 || x.Status != 200 || string(x.Answer) != "ok" || x.Ended.IsZero() {
				t.Errorf("observed %+v", x)
			}
		}
		for id := range int64(1000) {
			if seen[id+1] != 1 {
				t.Errorf("execution %d was observed %d times", id+1, seen[id+1])
			}
		}
		for i, x := range b.states(slices.Repeat([]queue.State{queue.Done}, 1000)...) {
			if want := seen[x.ID]; want != 1 || x.Tally.Sent != 1 || x.Ended != b.begun.Add(time.Duration(i/50+1)*time.Second).UTC() {
				t.Errorf("stored %+v", x)
			}
		}
	})
}

// Observe is called when the step is on disk, not before.
func TestObserveAfterDurable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, taking(time.Second), make([]queue.Execution, 5)...)
		b.Observe = func(x queue.Execution, step queue.Step) {
			got := each(t, b.s)[x.ID-1]
			if got.State != step.To || !got.Ended.Equal(x.Ended) || got.Tally.Sent != x.Tally.Sent {
				t.Errorf("observed %+v, stored %+v", x, got)
			}
		}
		b.run(time.Second)
	})
}

// With only parked work it sleeps until the first of it, to the nanosecond,
// and asks the store no oftener than there is reason to.
func TestDispatcherSleeps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		var claims atomic.Int32
		var sent []time.Duration
		b := newBench(t, func(ctx context.Context, x queue.Execution, leave func() error) (queue.Step, error) {
			must(t, leave())
			sent = append(sent, time.Since(start))
			if x.Tally.Sent == 0 && x.ID == 1 {
				return queue.Step{To: queue.Queued, Due: time.Now().Add(30*time.Minute + 7), Tally: x.Tally}, nil
			}
			return queue.Step{To: queue.Done}, nil
		}, queue.Execution{Due: start.Add(time.Hour + 1)}, queue.Execution{Due: start.Add(2 * time.Hour)})
		b.s.Before = func(method string) error {
			if method == "Claim" {
				claims.Add(1)
			}
			return nil
		}
		b.run(2 * time.Hour)
		if want := []time.Duration{time.Hour + 1, time.Hour + 1 + 30*time.Minute + 7, 2 * time.Hour}; !slices.Equal(sent, want) {
			t.Errorf("sent at %v, want %v", sent, want)
		}
		if n := claims.Load(); n > 5 {
			t.Errorf("claimed %d times for three attempts", n)
		}
		if xs := each(t, b.s); xs[0].Tally.Sent != 2 {
			t.Errorf("Sent is %d, want 2", xs[0].Tally.Sent)
		}
	})
}

func TestDispatcherWakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, taking(time.Second), queue.Execution{Due: time.Now().Add(time.Hour)})
		b.Stay = true
		take, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- b.Run(take, t.Context()) }()
		time.Sleep(time.Minute)
		must(t, b.s.Add(t.Context(), make([]queue.Execution, 3)))
		b.Wake(queue.Place{})
		b.Wake(queue.Place{}) // more than one knock is no harm
		time.Sleep(time.Second)
		synctest.Wait()
		b.states(queue.Queued, queue.Done, queue.Done, queue.Done)
		b.at(time.Minute + time.Second)
		time.Sleep(5 * time.Hour)
		b.states(queue.Done, queue.Done, queue.Done, queue.Done)
		select {
		case err := <-ended:
			t.Errorf("Run ended although it was to stay: %v", err)
		default:
		}
		must(t, b.s.Add(t.Context(), make([]queue.Execution, 1)))
		b.Wake(queue.Place{})
		time.Sleep(time.Second)
		stop()
		must(t, <-ended)
		b.states(slices.Repeat([]queue.State{queue.Done}, 5)...)
		b.at(time.Minute + time.Second + 5*time.Hour + time.Second)
	})
}

// between is a store in which something happens between two calls of the
// dispatcher, each once.
type between struct {
	queue.Store
	beforeNextDue, afterNextDue, beforeCounts func()
}

func once(f *func()) {
	if g := *f; g != nil {
		*f = nil
		g()
	}
}

func (s *between) NextDue(ctx context.Context) (time.Time, bool, error) {
	once(&s.beforeNextDue)
	defer once(&s.afterNextDue)
	return s.Store.NextDue(ctx)
}

func (s *between) Counts(ctx context.Context) (queue.Counts, error) {
	once(&s.beforeCounts)
	return s.Store.Counts(ctx)
}

// What is added or comes due between a look at the queue and the next step is
// not overlooked.
func TestNothingOverlooked(t *testing.T) {
	for _, c := range []struct {
		name string
		stay bool
		hook func(s *between, add func())
	}{
		{"a wake while a claim is under way", true, func(s *between, add func()) { s.afterNextDue = add }},
		{"added between claim and next due time", false, func(s *between, add func()) { s.beforeNextDue = add }},
		{"added before the end is found", false, func(s *between, add func()) { s.beforeCounts = add }},
		{"came due since the claim", true, func(s *between, add func()) {
			must(t, s.Add(t.Context(), []queue.Execution{{Due: time.Now().Add(time.Second)}}))
			s.beforeNextDue = func() { time.Sleep(time.Second) }
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t, taking(0))
				b.Stay = c.stay
				s := &between{Store: b.s}
				b.Store = s
				c.hook(s, func() {
					time.Sleep(time.Second)
					must(t, b.s.Add(t.Context(), make([]queue.Execution, 1)))
					if c.stay {
						b.Wake(queue.Place{})
						time.Sleep(time.Second) // the knock is heard before the claim ends
					}
				})
				take, stop := context.WithTimeout(t.Context(), time.Minute)
				defer stop()
				must(t, b.Run(take, t.Context()))
				if xs := b.states(queue.Done); len(xs) == 1 && xs[0].Ended.Sub(b.begun) > 2*time.Second {
					t.Errorf("ended %v after the start", xs[0].Ended.Sub(b.begun))
				}
			})
		})
	}
}

// When take ends: what has left comes to its end; what waits for a permit, and
// what is claimed ahead, goes back; nothing new is taken.
func TestStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var causes sync.Map
		b := newBench(t, func(ctx context.Context, x queue.Execution, leave func() error) (queue.Step, error) {
			if x.ID <= 2 {
				return taking(10*time.Second)(ctx, x, leave)
			}
			step, err := waiting(time.Hour)(ctx, x, leave)
			causes.Store(x.ID, err)
			return step, err
		}, make([]queue.Execution, 20)...)
		b.Concurrency = 8 // and two ahead
		take, stop := context.WithTimeout(t.Context(), 3*time.Second)
		defer stop()
		must(t, b.Run(take, t.Context()))
		b.at(10 * time.Second)
		xs := b.states(append([]queue.State{queue.Done, queue.Done}, slices.Repeat([]queue.State{queue.Queued}, 18)...)...)
		for _, x := range xs[2:] {
			if x.Tally.Sent != 0 || x.Reason != "" || !x.Due.IsZero() {
				t.Errorf("handed back as %+v", x)
			}
		}
		if len(b.steps) != 2 {
			t.Errorf("observed %d steps, want those of the two that ended", len(b.steps))
		}
		for id := int64(3); id <= 8; id++ {
			if err, ok := causes.Load(id); !ok || !errors.Is(err.(error), context.Canceled) {
				t.Errorf("execution %d waited for its permit and got %v", id, err)
			}
		}
		// And the next Run goes on.
		b.Send = taking(0)
		must(t, b.Run(t.Context(), t.Context()))
		b.states(slices.Repeat([]queue.State{queue.Done}, 20)...)
	})
}

// A permit that comes at the same moment as the end of take is not used.
func TestLeaveAfterStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		take, stop := context.WithCancel(t.Context())
		sent := false
		b := newBench(t, func(ctx context.Context, x queue.Execution, leave func() error) (queue.Step, error) {
			stop()
			if err := leave(); err != nil {
				return queue.Step{}, err
			}
			sent = true
			return queue.Step{To: queue.Done}, nil
		}, queue.Execution{})
		must(t, b.Run(take, t.Context()))
		b.states(queue.Queued)
		if sent {
			t.Error("sent although take had ended")
		}
	})
}

// When do ends, the sends are cancelled, and what they say is recorded.
func TestGiveUp(t *testing.T) {
	for _, delivery := range []queue.Delivery{queue.AtLeastOnce, queue.AtMostOnce} {
		t.Run(delivery.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				b := newBench(t, func(ctx context.Context, x queue.Execution, leave func() error) (queue.Step, error) {
					if d, ok := ctx.Deadline(); !ok || d.Sub(start) != time.Minute {
						t.Errorf("the Sender saw the deadline %v, %v of what do allows", d, ok)
					}
					if x.ID == 3 {
						return waiting(time.Hour)(ctx, x, leave)
					}
					step, err := taking(time.Hour)(ctx, x, leave)
					if x.ID == 1 { // the other leaves it to the dispatcher
						time.Sleep(time.Second)
						return queue.Step{To: queue.Unknown, Reason: "given up"}, nil
					}
					return step, err
				}, make([]queue.Execution, 4)...)
				b.Concurrency = 3
				b.Delivery = delivery
				do, stop := context.WithTimeout(t.Context(), time.Minute)
				defer stop()
				must(t, b.Run(t.Context(), do))
				b.at(time.Minute + time.Second)
				second := queue.Queued
				if delivery == queue.AtMostOnce {
					second = queue.Unknown
				}
				xs := b.states(queue.Unknown, second, queue.Queued, queue.Queued)
				if xs[0].Reason != "given up" || xs[0].Tally.Sent != 1 {
					t.Errorf("the first is %+v", xs[0])
				}
				if xs[1].Tally.Sent != 1 || xs[1].Tally.Unanswered != 1 || xs[1].Reason == "" {
					t.Errorf("the second is %+v", xs[1])
				}
				if xs[2].Tally.Sent != 0 || xs[2].Tally.Unanswered != 0 {
					t.Errorf("the third is %+v", xs[2])
				}
			})
		})
	}
}

func TestNothingToDo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		newBench(t, taking(time.Second)).run(0)
		newBench(t, taking(time.Second), queue.Execution{State: queue.Failed}).run(0)
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		b := newBench(t, taking(time.Second), queue.Execution{})
		must(t, b.Run(ended, t.Context()))
		must(t, b.Run(t.Context(), ended))
		b.states(queue.Queued)
		if err := (&queue.Dispatcher{Store: b.s}).Run(t.Context(), t.Context()); err == nil {
			t.Error("Run without a Sender succeeded")
		}
		b.Concurrency = -1
		if err := b.Run(t.Context(), t.Context()); err == nil {
			t.Error("Run with a negative Concurrency succeeded")
		}
	})
}

// What a crash left is not waited for in vain.
func TestNotRecovered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, taking(time.Second))
		b.s = left(t)
		b.Store = b.s
		if err := b.Run(t.Context(), t.Context()); !errors.Is(err, queue.ErrNotRecovered) {
			t.Errorf("Run: got %v, want %v", err, queue.ErrNotRecovered)
		}
		b.states(queue.Done, queue.Claimed, queue.Claimed, queue.Sent, queue.Sent, queue.Done)
		_, err := queue.Recover(t.Context(), b.s, queue.AtLeastOnce, time.Now())
		must(t, err)
		must(t, b.Run(t.Context(), t.Context()))
		xs := b.states(slices.Repeat([]queue.State{queue.Done}, 6)...)
		got := map[int64]int{}
		for _, x := range xs {
			got[x.ID] = x.Tally.Unanswered
		}
		if want := (map[int64]int{1: 0, 2: 0, 3: 0, 4: 1, 5: 2, 6: 0}); !maps.Equal(got, want) {
			t.Errorf("unanswered %v, want %v", got, want)
		}
	})
}
