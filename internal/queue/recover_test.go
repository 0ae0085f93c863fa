package queue_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/headgate/headgate/internal/queue"
	"github.com/headgate/headgate/internal/queue/queuetest"
)

// left returns a store as a crash leaves it: one execution each queued,
// claimed, claimed and followed, sent, sent a second time, done.
func left(t *testing.T) *queuetest.Memory {
	t.Helper()
	s := queuetest.NewMemory()
	must(t, s.Add(t.Context(), []queue.Execution{
		{Priority: 9}, {}, {Remote: "r3"}, {}, {Tally: queue.Tally{Sent: 1, Unanswered: 1}}, {},
	}))
	_, err := s.Claim(t.Context(), time.Now(), 5)
	must(t, err)
	for id := int64(4); id <= 6; id++ {
		must(t, s.Update(t.Context(), queue.Update{ID: id, From: queue.Claimed, To: queue.Sent,
			Tally: queue.Tally{Sent: int(id) - 3, Unanswered: int(id) % 2, Refused: 7}, Status: 429, Reason: "limit"}))
	}
	must(t, s.Update(t.Context(), queue.Update{ID: 6, From: queue.Sent, To: queue.Done}))
	return s
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func each(t *testing.T, s queue.Store) (xs []queue.Execution) {
	t.Helper()
	for x, err := range s.Each(context.Background(), queue.Filter{}) {
		must(t, err)
		xs = append(xs, x)
	}
	return xs
}

func TestRecover(t *testing.T) {
	now := time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		delivery queue.Delivery
		want     queue.Recovered
		sent     queue.State
	}{
		{queue.AtLeastOnce, queue.Recovered{Requeued: 2, Resent: 2}, queue.Queued},
		{queue.AtMostOnce, queue.Recovered{Requeued: 2, Unknown: 2}, queue.Unknown},
	} {
		t.Run(c.delivery.String(), func(t *testing.T) {
			s := left(t)
			got, err := queue.Recover(t.Context(), s, c.delivery, now)
			must(t, err)
			if got != c.want {
				t.Errorf("Recover: got %+v, want %+v", got, c.want)
			}
			xs := each(t, s)
			for i, want := range []queue.State{queue.Queued, queue.Queued, queue.Queued, c.sent, c.sent, queue.Done} {
				x := xs[i]
				if x.State != want {
					t.Errorf("execution %d is %v, want %v", x.ID, x.State, want)
				}
				if x.ID != 4 && x.ID != 5 {
					if x.Reason == queue.ReasonCrash {
						t.Errorf("execution %d was not sent, and yet: %s", x.ID, x.Reason)
					}
					continue
				}
				// The tally goes on: nothing of it is forgotten.
				if x.Tally.Sent != int(x.ID)-3 || x.Tally.Unanswered != int(x.ID)%2+1 || x.Tally.Refused != 7 ||
					x.Reason != queue.ReasonCrash || x.Status != 429 {
					t.Errorf("execution %d: %+v", x.ID, x)
				}
				if ended := x.Ended; want.Ended() != ended.Equal(now) {
					t.Errorf("execution %d ended %v", x.ID, ended)
				}
			}
			if xs[2].Remote != "r3" {
				t.Errorf("the handle on launched work was lost: %+v", xs[2])
			}
			// Once more changes nothing.
			if again, err := queue.Recover(t.Context(), s, c.delivery, now); err != nil || again != (queue.Recovered{}) {
				t.Errorf("Recover again: %+v, %v", again, err)
			}
		})
	}
}

// Polls are not sent; should a handle stand beside "sent" all the same, then
// what was launched is known, and followed.
func TestRecoverFollows(t *testing.T) {
	s := queuetest.NewMemory()
	must(t, s.Add(t.Context(), make([]queue.Execution, 1)))
	_, err := s.Claim(t.Context(), time.Now(), 1)
	must(t, err)
	must(t, s.Update(t.Context(), queue.Update{ID: 1, From: queue.Claimed, To: queue.Sent, Remote: "r"}))
	got, err := queue.Recover(t.Context(), s, queue.AtMostOnce, time.Now())
	must(t, err)
	if x := each(t, s)[0]; got.Requeued != 1 || x.State != queue.Queued || x.Remote != "r" || x.Tally.Unanswered != 0 {
		t.Errorf("Recover: %+v, and %+v", got, x)
	}
}

func TestRecoverFails(t *testing.T) {
	s := left(t)
	bad := errors.New("disk on fire")
	s.Before = func(method string) error {
		if method == "Update" {
			return bad
		}
		return nil
	}
	if _, err := queue.Recover(t.Context(), s, queue.AtLeastOnce, time.Now()); !errors.Is(err, bad) {
		t.Errorf("Recover: got %v, want %v", err, bad)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := queue.Recover(ctx, s, queue.AtLeastOnce, time.Now()); !errors.Is(err, context.Canceled) {
		t.Errorf("Recover: got %v, want %v", err, context.Canceled)
	}
	s.Before = nil
	if got, err := queue.Recover(t.Context(), s, queue.AtLeastOnce, time.Now()); err != nil || got.Resent != 2 {
		t.Errorf("Recover after a failure: %+v, %v", got, err)
	}
}
