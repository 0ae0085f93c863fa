package queue_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/headgate/headgate/internal/queue"
)

func TestDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		var seen sync.Map // the deadline that the Sender saw, before and after leave
		b := newBench(t, func(ctx context.Context, x queue.Execution, leave func() error) (queue.Step, error) {
			before, _ := ctx.Deadline()
			if x.ID != 5 {
				if err := wait(ctx, 10*time.Second); err != nil {
					return queue.Step{}, err
				}
			}
			if err := leave(); err != nil {
				return queue.Step{}, err
			}
			after, _ := ctx.Deadline()
			seen.Store(x.ID, [2]time.Time{before, after})
			if err := wait(ctx, time.Minute); err != nil {
				return queue.Step{}, err
			}
			return queue.Step{To: queue.Done}, nil
		},
			queue.Execution{Deadline: start},                       // passed before it is claimed
			queue.Execution{Deadline: start.Add(9 * time.Second)},  // passes while it waits
			queue.Execution{Deadline: start.Add(11 * time.Second)}, // passes after it left
			queue.Execution{Deadline: start.Add(time.Second), Tally: queue.Tally{Sent: 1, Unanswered: 1}},
			queue.Execution{Deadline: start.Add(-time.Second), Remote: "r"}, // launched: followed all the same
			queue.Execution{},
		)
		b.run(70 * time.Second)
		xs := b.states(queue.Expired, queue.Expired, queue.Done, queue.Unknown, queue.Done, queue.Done)
		for i, want := range []time.Duration{0, 9 * time.Second, 70 * time.Second, time.Second} {
			if got := xs[i].Ended.Sub(start); got != want {
				t.Errorf("execution %d ended after %v, want %v", i+1, got, want)
			}
		}
		for _, x := range []queue.Execution{xs[0], xs[1]} {
			if x.Tally.Sent != 0 || !strings.Contains(x.Reason, "deadline") {
				t.Errorf("expired as %+v", x)
			}
		}
		if !strings.Contains(xs[3].Reason, "never came") {
			t.Errorf("unknown because %q", xs[3].Reason)
		}
		if v, _ := seen.Load(int64(3)); v != [2]time.Time{xs[2].Deadline.Local(), {}} {
			if d := v.([2]time.Time); !d[0].Equal(xs[2].Deadline) || !d[1].IsZero() {
				t.Errorf("the Sender saw the deadlines %v", d)
			}
		}
		if len(b.steps) != 6 {
			t.Errorf("observed %d steps, want 6", len(b.steps))
		}
	})
}

// A refusal that holds an execution back beyond its deadline ends it at once.
func TestDeadlineBeforeDue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		deadline := start.Add(time.Minute)
		b := newBench(t, func(ctx context.Context, x queue.Execution, leave func() error) (queue.Step, error) {
			must(t, leave())
			s := queue.Step{To: queue.Queued, Due: start.Add(time.Hour), Tally: x.Tally, Status: 429, Reason: "limit"}
			s.Tally.Refused++
			switch x.ID {
			case 2:
				s.Tally.Unanswered++ // an earlier attempt, say
			case 3:
				s.Remote = "launched"
				s.Due = start.Add(2 * time.Minute)
				if x.Remote != "" {
					s.To, s.Remote = queue.Done, ""
				}
			}
			return s, nil
		}, queue.Execution{Deadline: deadline}, queue.Execution{Deadline: deadline}, queue.Execution{Deadline: deadline})
		b.run(2 * time.Minute)
		xs := b.states(queue.Expired, queue.Unknown, queue.Done)
		if x := xs[0]; x.Status != 429 || x.Tally.Refused != 1 || x.Tally.Sent != 1 || !strings.Contains(x.Reason, "limit") ||
			!x.Ended.Equal(start) {
			t.Errorf("expired as %+v", x)
		}
		// Polls are not sent, and a handle once known stays.
		if x := xs[2]; x.Tally.Sent != 1 || x.Remote != "launched" {
			t.Errorf("followed to %+v", x)
		}
	})
}

// A poll is never recorded as sent, whatever the Sender does with leave.
func TestPollIsNotSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b *bench
		b = newBench(t, func(ctx context.Context, x queue.Execution, leave func() error) (queue.Step, error) {
			must(t, leave())
			if now := each(t, b.s)[0]; now.State != queue.Claimed {
				t.Errorf("a poll is recorded as %v", now.State)
			}
			x.Tally.Polls++
			if x.Tally.Polls < 3 {
				return queue.Step{To: queue.Queued, Due: time.Now().Add(time.Minute), Tally: x.Tally}, nil
			}
			return queue.Step{To: queue.Done, Tally: x.Tally}, nil
		}, queue.Execution{Remote: "r"})
		b.run(2 * time.Minute)
		if x := b.states(queue.Done)[0]; x.Tally.Polls != 3 || x.Tally.Sent != 0 || x.Remote != "r" {
			t.Errorf("polled to %+v", x)
		}
	})
}

// An attempt may call leave again: the first counts.
func TestLeaveTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var late func() error
		b := newBench(t, func(ctx context.Context, x queue.Execution, leave func() error) (queue.Step, error) {
			var wg sync.WaitGroup
			for range 3 {
				wg.Go(func() { must(t, leave()) })
			}
			wg.Wait()
			must(t, leave())
			return queue.Step{To: queue.Done}, nil
		}, queue.Execution{})
		b.run(0)
		if x := each(t, b.s)[0]; x.Tally.Sent != 1 {
			t.Errorf("sent %d times", x.Tally.Sent)
		}
		b = newBench(t, func(ctx context.Context, x queue.Execution, leave func() error) (queue.Step, error) {
			late = leave
			return queue.Step{To: queue.Failed, Reason: "can't be made"}, nil
		}, queue.Execution{})
		b.run(0)
		if late() == nil {
			t.Error("leave succeeded after the Sender had returned")
		}
		b.states(queue.Failed)
	})
}

// What the Sender can't go on with stops the dispatcher, and nothing is lost.
func TestSenderFails(t *testing.T) {
	bad := errors.New("wrong credentials")
	for _, c := range []struct {
		name     string
		send     func(leave func() error) (queue.Step, error)
		delivery queue.Delivery
		want     queue.State
		wantErr  error // nil: some
	}{
		{name: "before it left", want: queue.Queued, wantErr: bad,
			send: func(func() error) (queue.Step, error) { return queue.Step{}, bad }},
		{name: "after it left", want: queue.Queued, wantErr: bad,
			send: func(leave func() error) (queue.Step, error) { return queue.Step{}, errors.Join(leave(), bad) }},
		{name: "after it left, at most once", delivery: queue.AtMostOnce, want: queue.Unknown, wantErr: bad,
			send: func(leave func() error) (queue.Step, error) { return queue.Step{}, errors.Join(leave(), bad) }},
		{name: "a step to nowhere", want: queue.Queued,
			send: func(func() error) (queue.Step, error) { return queue.Step{To: queue.Claimed}, nil }},
		{name: "a deadline of its own", want: queue.Queued, wantErr: context.DeadlineExceeded,
			send: func(func() error) (queue.Step, error) { return queue.Step{}, context.DeadlineExceeded }},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t, func(ctx context.Context, x queue.Execution, leave func() error) (queue.Step, error) {
					if x.ID == 2 {
						time.Sleep(time.Second)
						return c.send(leave)
					}
					return taking(time.Minute)(ctx, x, leave)
				}, make([]queue.Execution, 4)...)
				b.Concurrency, b.Delivery = 2, c.delivery
				err := b.Run(t.Context(), t.Context())
				if err == nil || c.wantErr != nil && !errors.Is(err, c.wantErr) {
					t.Errorf("Run: got %v, want %v", err, c.wantErr)
				}
				b.at(time.Minute) // the first one came to its end
				b.states(queue.Done, c.want, queue.Queued, queue.Queued)
			})
		})
	}
}

// Each write fails in two ways: it was not made, or it was made and the answer
// was lost. Whatever happens, Run ends with the error, and what the server
// executed twice the journal knows as unanswered.
func TestStoreFails(t *testing.T) {
	bad := errors.New("connection to the store lost")
	const n = 40
	for _, method := range []string{"Claim", "Update"} {
		for _, made := range []bool{false, true} {
			for nth := range 12 {
				t.Run(fmt.Sprintf("%s %d made=%v", method, nth, made), func(t *testing.T) {
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
						b.Concurrency = 4
						var calls atomic.Int32
						fail := func(m string) error {
							if m == method && calls.Add(1) == int32(nth)+1 {
								return bad
							}
							return nil
						}
						if made {
							b.s.After = fail
						} else {
							b.s.Before = fail
						}
						if err := b.Run(t.Context(), t.Context()); !errors.Is(err, bad) {
							t.Errorf("Run: got %v, want %v", err, bad)
						}
						// Start again, as after any crash.
						b.s.Before, b.s.After = nil, nil
						_, err := queue.Recover(t.Context(), b.s, queue.AtLeastOnce, time.Now())
						must(t, err)
						must(t, b.Run(t.Context(), t.Context()))
						for _, x := range b.states(slices.Repeat([]queue.State{queue.Done}, n)...) {
							switch times := int(executed[x.ID].Load()); {
							case times == 0:
								t.Errorf("execution %d is done and was never executed", x.ID)
							case times > 1 && x.Tally.Unanswered == 0:
								t.Errorf("execution %d was executed %d times in silence", x.ID, times)
							case times > 2:
								t.Errorf("execution %d was executed %d times after one failure", x.ID, times)
							}
						}
					})
				})
			}
		}
	}
}

// A "sent" that was recorded although the store said that it was not: nothing
// left, so nothing is counted as unanswered.
func TestSentRecordedAndLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bad := errors.New("connection to the store lost")
		b := newBench(t, taking(0), queue.Execution{})
		var once sync.Once
		b.s.After = func(method string) (err error) {
			if method == "Update" {
				once.Do(func() { err = bad })
			}
			return err
		}
		if err := b.Run(t.Context(), t.Context()); !errors.Is(err, bad) {
			t.Errorf("Run: got %v, want %v", err, bad)
		}
		if x := b.states(queue.Queued)[0]; x.Tally.Sent != 0 || x.Tally.Unanswered != 0 {
			t.Errorf("handed back as %+v", x)
		}
	})
}

// On a full disk it stops taking, keeps trying to record what is in flight,
// and says what is the matter.
func TestDiskFull(t *testing.T) {
	full := fmt.Errorf("writing: %w", queue.ErrFull)
	for _, c := range []struct {
		name  string
		until time.Duration // room comes back
		end   time.Duration
		want  queue.State
	}{
		{"room comes back", 15 * time.Second, 16 * time.Second, queue.Done},
		{"for good", time.Hour, 41 * time.Second, queue.Sent},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t, taking(11*time.Second), make([]queue.Execution, 9)...)
				b.Concurrency = 2
				b.s.Before = func(string) error {
					if d := time.Since(b.begun); d >= 10*time.Second && d < c.until {
						return full
					}
					return nil
				}
				err := b.Run(t.Context(), t.Context())
				if !errors.Is(err, queue.ErrFull) {
					t.Errorf("Run: got %v, want %v", err, queue.ErrFull)
				}
				if d := time.Since(b.begun); d > c.end || d < c.end-time.Second {
					t.Errorf("ended after %v, want about %v", d, c.end)
				}
				states := map[queue.State]int{}
				for _, x := range each(t, b.s) {
					states[x.State]++
				}
				if states[c.want] != 2 {
					t.Errorf("states %v, want 2 %v", states, c.want)
				}
			})
		})
	}
}

// Somebody else's decision is left alone, and is no reason to stop.
func TestStale(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b *bench
		b = newBench(t, func(ctx context.Context, x queue.Execution, leave func() error) (queue.Step, error) {
			if x.ID == 1 { // before it left
				must(t, b.s.Update(ctx, queue.Update{ID: 1, From: queue.Claimed, To: queue.Failed, Reason: "withdrawn"}))
			}
			if err := leave(); err != nil {
				return queue.Step{}, err
			}
			if x.ID == 2 { // after
				must(t, b.s.Update(ctx, queue.Update{ID: 2, From: queue.Sent, To: queue.Failed, Reason: "withdrawn"}))
			}
			return queue.Step{To: queue.Done}, nil
		}, make([]queue.Execution, 3)...)
		b.run(0)
		b.states(queue.Failed, queue.Failed, queue.Done)
		if len(b.steps) != 1 {
			t.Errorf("observed %d steps, want that of the third", len(b.steps))
		}
	})
}
