package queue_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/headgate/headgate/internal/queue"
)

// cancel cancels and checks what came of it.
func (b *bench) cancel(id int64, want error) {
	b.t.Helper()
	x, err := b.Cancel(b.t.Context(), id)
	if !errors.Is(err, want) || want == nil && err != nil {
		b.t.Errorf("Cancel of %d: got %v, want %v", id, err, want)
	}
	if stored, gerr := b.s.Get(b.t.Context(), id); err == nil && (gerr != nil || x.State != stored.State ||
		!x.Ended.Equal(stored.Ended) || x.Reason != stored.Reason || x.Revision != stored.Revision) {
		b.t.Errorf("Cancel of %d returned %+v, stored is %+v, %v", id, x, stored, gerr)
	}
}

// Whatever has not left can be cancelled: queued, claimed ahead, or waiting for
// its permit. What has left can't, and neither can what was launched.
func TestCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sent := map[int64]bool{}
		b := newBench(t, func(ctx context.Context, x queue.Execution, leave func() error) (queue.Step, error) {
			if x.ID == 1 || x.Remote != "" {
				return taking(10*time.Second)(ctx, x, leave)
			}
			if err := wait(ctx, time.Minute); err != nil {
				return queue.Step{}, err
			}
			if err := leave(); err != nil {
				return queue.Step{}, err
			}
			sent[x.ID] = true
			return queue.Step{To: queue.Done}, nil
		}, queue.Execution{}, queue.Execution{Remote: "r"}, queue.Execution{}, queue.Execution{Tally: queue.Tally{Unanswered: 1}},
			queue.Execution{}, queue.Execution{}, queue.Execution{}, queue.Execution{Remote: "r"})
		b.Concurrency = 4 // and one ahead
		ended := make(chan error, 1)
		b.cancel(7, nil) // nobody runs yet
		go func() { ended <- b.Run(t.Context(), t.Context()) }()
		time.Sleep(time.Second)
		b.cancel(1, queue.ErrStale) // on the wire
		b.cancel(2, queue.ErrStale) // a poll
		b.cancel(3, nil)            // waits for its permit
		b.cancel(4, nil)
		b.cancel(5, nil) // may be ahead
		b.cancel(6, nil)
		b.cancel(7, queue.ErrStale) // has ended
		b.cancel(8, queue.ErrStale) // launched, and queued
		b.cancel(99, queue.ErrNotFound)
		b.at(time.Second)
		must(t, <-ended)
		xs := b.states(queue.Done, queue.Done, queue.Expired, queue.Unknown, queue.Expired, queue.Expired, queue.Expired, queue.Done)
		for _, x := range xs[2:7] {
			if x.Tally.Sent != 0 || !strings.Contains(x.Reason, queue.ReasonCancelled) {
				t.Errorf("cancelled as %+v", x)
			}
		}
		if len(sent) != 0 {
			t.Errorf("sent although cancelled: %v", sent)
		}
		b.cancel(3, queue.ErrStale)
	})
}

// A permit that comes at the moment of the cancellation is not used, and if the
// request leaves first, the cancellation is refused.
func TestCancelRaces(t *testing.T) {
	for range 50 {
		synctest.Test(t, func(t *testing.T) {
			sent := false
			b := newBench(t, func(ctx context.Context, x queue.Execution, leave func() error) (queue.Step, error) {
				wait(ctx, time.Second)
				if err := leave(); err != nil {
					return queue.Step{}, err
				}
				sent = true
				return queue.Step{To: queue.Done}, nil
			}, queue.Execution{})
			ended := make(chan error, 1)
			go func() { ended <- b.Run(t.Context(), t.Context()) }()
			time.Sleep(time.Second)
			_, err := b.Cancel(t.Context(), 1)
			must(t, <-ended)
			x := each(t, b.s)[0]
			switch {
			case err == nil && (sent || x.State != queue.Expired):
				t.Errorf("cancelled, and yet %+v (sent: %v)", x, sent)
			case err != nil && (!errors.Is(err, queue.ErrStale) || !sent || x.State != queue.Done):
				t.Errorf("not cancelled (%v), and yet %+v (sent: %v)", err, x, sent)
			}
		})
	}
}

// While "sent" is being written it is too late, for the request leaves next. A
// claim under way is waited for.
func TestCancelMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, taking(10*time.Second), make([]queue.Execution, 2)...)
		b.Concurrency = 1
		var slow atomic.Value
		slow.Store("Update")
		b.s.Before = func(method string) error {
			if method == slow.Load() {
				time.Sleep(2 * time.Second)
			}
			return nil
		}
		b.s.After = b.s.Before
		ended := make(chan error, 1)
		go func() { ended <- b.Run(t.Context(), t.Context()) }()
		time.Sleep(time.Second)
		b.cancel(1, queue.ErrStale)
		slow.Store("Claim")
		for each(t, b.s)[1].State != queue.Claimed {
			time.Sleep(time.Second / 2)
		}
		// The dispatcher hears of that two seconds later.
		b.cancel(2, nil)
		must(t, <-ended)
		b.states(queue.Done, queue.Expired)
	})
}

// A cancellation while everything stops, and one whose caller does not wait.
func TestCancelWhileStopping(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, taking(10*time.Second), make([]queue.Execution, 4)...)
		b.Concurrency = 2
		take, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- b.Run(take, t.Context()) }()
		time.Sleep(time.Second)
		stop()
		synctest.Wait()
		b.cancel(1, queue.ErrStale)
		b.cancel(4, nil)
		over, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := b.Cancel(over, 3); !errors.Is(err, context.Canceled) {
			t.Errorf("Cancel: got %v", err)
		}
		must(t, <-ended)
		b.states(queue.Done, queue.Done, queue.Queued, queue.Expired)
	})
}

func TestResolve(t *testing.T) {
	now := time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)
	unknown := queue.Execution{
		State: queue.Unknown, Ended: now, Reason: "sent, and no answer", Status: 504, Delivery: queue.AtMostOnce,
		Tally: queue.Tally{Sent: 2, Unanswered: 1, Retries: 3, LastBackoff: 7, Unauthorized: 1},
	}
	late, odd, followed := unknown, unknown, unknown
	late.Deadline = now
	odd.Tally = queue.Tally{Sent: 1}
	followed.Remote, followed.Tally, followed.Deadline = "r", queue.Tally{Sent: 1}, now
	b := newBench(t, taking(0), unknown, late, odd, followed, unknown, queue.Execution{State: queue.Failed})
	resolve := func(id int64, how queue.Resolution, want error) queue.Execution {
		t.Helper()
		x, err := queue.Resolve(t.Context(), b.s, id, how, now)
		if !errors.Is(err, want) || want == nil && err != nil {
			t.Errorf("Resolve of %d: got %v, want %v", id, err, want)
		}
		return x
	}
	again := queue.Resolution{Again: true}
	resolve(1, again, nil)
	resolve(2, again, queue.ErrTooLate)
	resolve(3, again, nil)
	resolve(4, again, nil)
	x := resolve(5, queue.Resolution{By: "ops"}, nil)
	if x.State != queue.Failed || x.Ended != now || !strings.Contains(x.Reason, "may have been executed; given up by ops (sent, and no answer)") {
		t.Errorf("given up as %+v", x)
	}
	resolve(6, again, queue.ErrStale)
	resolve(1, queue.Resolution{}, queue.ErrStale)
	xs := b.states(queue.Queued, queue.Unknown, queue.Queued, queue.Queued, queue.Failed, queue.Failed)
	if tally := xs[0].Tally; tally.Unanswered != 1 || tally.Resolved != 1 || tally.Sent != 2 || tally.Forgiven != 3 || tally.LastBackoff != 0 {
		t.Errorf("sent again with %+v", tally)
	}
	if tally := xs[2].Tally; tally.Unanswered != 1 || tally.Resolved != 1 {
		t.Errorf("what may have been executed is sent again with %+v", tally)
	}
	if xs[3].Remote != "r" || xs[3].Tally.Unanswered != 0 {
		t.Errorf("launched work goes on as %+v", xs[3])
	}

	// A restart of an at-most-once journal leaves what was decided.
	got, err := queue.Recover(t.Context(), b.s, queue.AtMostOnce, now)
	must(t, err)
	if got != (queue.Recovered{}) {
		t.Errorf("Recover: %+v", got)
	}
	must(t, b.Run(t.Context(), t.Context()))
	xs = b.states(queue.Done, queue.Unknown, queue.Done, queue.Done, queue.Failed, queue.Failed)
	if xs[0].Tally.Unanswered != 1 || xs[0].Tally.Sent != 3 {
		t.Errorf("done, and it shows nothing: %+v", xs[0])
	}
}

// What was decided once does not hold for the next attempt without an answer.
func TestResolvedOnce(t *testing.T) {
	s := left(t)
	xs := []queue.Execution{{Delivery: queue.AtMostOnce, Tally: queue.Tally{Sent: 2, Unanswered: 2, Resolved: 1}}}
	must(t, s.Add(t.Context(), xs))
	_, err := queue.Recover(t.Context(), s, queue.AtLeastOnce, time.Now())
	must(t, err)
	if x, err := s.Get(t.Context(), xs[0].ID); err != nil || x.State != queue.Unknown {
		t.Errorf("it is %+v, %v", x, err)
	}
}

// Each execution has its own delivery, else what holds for all.
func TestDeliveryOfEach(t *testing.T) {
	xs := []queue.Execution{{}, {Delivery: queue.AtLeastOnce}, {Delivery: queue.AtMostOnce}}
	for _, c := range []struct {
		all  queue.Delivery
		want []queue.State
	}{
		{0, []queue.State{queue.Queued, queue.Queued, queue.Unknown}},
		{queue.AtLeastOnce, []queue.State{queue.Queued, queue.Queued, queue.Unknown}},
		{queue.AtMostOnce, []queue.State{queue.Unknown, queue.Queued, queue.Unknown}},
	} {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t, taking(time.Hour), xs...)
			b.Delivery = c.all
			do, stop := context.WithTimeout(t.Context(), time.Second)
			defer stop()
			must(t, b.Run(t.Context(), do))
			b.states(c.want...)

			b = newBench(t, nil, xs...)
			_, err := b.s.Claim(t.Context(), time.Now(), 9)
			must(t, err)
			for id := int64(1); id <= 3; id++ {
				must(t, b.s.Update(t.Context(), queue.Update{ID: id, From: queue.Claimed, To: queue.Sent}))
			}
			_, err = queue.Recover(t.Context(), b.s, c.all, time.Now())
			must(t, err)
			b.states(c.want...)
		})
	}
}
