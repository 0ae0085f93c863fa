package queue_test

import (
	"context"
	"errors"
	"reflect"
	"strings"
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

// What an at-least-once run would send again may have run: at-most-once must
// not, whether it is queued, parked or was claimed when that run ended.
func TestRecoverAtMostOnceAfterAtLeastOnce(t *testing.T) {
	now := time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)
	maybe := queue.Tally{Sent: 2, Unanswered: 1}
	fill := func(t *testing.T) *queuetest.Memory {
		s := queuetest.NewMemory()
		must(t, s.Add(t.Context(), []queue.Execution{
			{Tally: maybe, Reason: "answered 502", Status: 502}, // will be claimed
			{Tally: maybe, Reason: "EOF"},
			{Tally: maybe, Due: now.Add(time.Hour)},
			{Tally: maybe, Remote: "r"}, // known to have been launched
			{Tally: queue.Tally{Sent: 3, Refused: 3}},
			{},
			{State: queue.Done, Tally: maybe},
		}))
		_, err := s.Claim(t.Context(), now, 1)
		must(t, err)
		return s
	}
	s := fill(t)
	got, err := queue.Recover(t.Context(), s, queue.AtMostOnce, now)
	must(t, err)
	if want := (queue.Recovered{Unknown: 3}); got != want {
		t.Errorf("Recover: got %+v, want %+v", got, want)
	}
	for i, x := range each(t, s) {
		want := []queue.State{queue.Unknown, queue.Unknown, queue.Unknown, queue.Queued, queue.Queued, queue.Queued, queue.Done}[i]
		if x.State != want {
			t.Errorf("execution %d is %v, want %v", x.ID, x.State, want)
		}
		if i < 3 && (!reflect.DeepEqual(x.Tally, maybe) || x.Reason == "" || x.Ended != now) {
			t.Errorf("execution %d: %+v", x.ID, x)
		}
	}
	if x := each(t, s)[0]; x.Status != 502 || !strings.Contains(x.Reason, "answered 502") {
		t.Errorf("what the last attempt met was lost: %+v", x)
	}

	s = fill(t)
	got, err = queue.Recover(t.Context(), s, queue.AtLeastOnce, now)
	must(t, err)
	if counts, _ := s.Counts(t.Context()); got != (queue.Recovered{Requeued: 1}) || counts[queue.Queued] != 6 {
		t.Errorf("at-least-once: %+v, %v", got, counts)
	}
}
