package queue

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"
	"time"
)

// ReasonCrash is the Reason of an execution that [Recover] found sent and
// unanswered.
const ReasonCrash = "process ended between sending and answer"

// ReasonNotAgain begins the Reason of an execution that [Recover] found waiting
// to be sent again, which at-most-once does not allow.
const ReasonNotAgain = "may have been executed, and is not sent again"

// Recovered says what [Recover] did.
type Recovered struct {
	// Requeued were claimed, and nothing had left: they wait again.
	Requeued int
	// Resent were sent and unanswered, and will be sent again
	// (at-least-once). They may be executed twice.
	Resent int
	// Unknown were sent and unanswered, now or by an earlier run that would
	// have sent them again, and ended as unknown (at-most-once).
	Unknown int
}

// recoverAtOnce is how many updates Recover has under way: enough to fill the
// group commits of a store, few enough to be nothing.
const recoverAtOnce = 256

// Recover brings back what an ended process left in its hands: Claimed is
// queued again, Sent is decided by its Delivery, and by the one given where it
// has none. At-most-once also ends what an at-least-once run has left to be sent
// again, unless somebody has decided so ([Resolve]). Call it once after opening a
// store that nobody else works on and before [Dispatcher.Run]. now is the time
// given to executions that end here.
//
// It may be interrupted and called again: what is decided is on disk, and no
// attempt is counted twice. On an error the counts say what was done so far.
func Recover(ctx context.Context, s Store, delivery Delivery, now time.Time) (Recovered, error) {
	var (
		mu    sync.Mutex // guards done and first
		done  Recovered
		first error
		wg    sync.WaitGroup
	)
	slots := make(chan struct{}, recoverAtOnce)
	for x, err := range leftOver(ctx, s, delivery) {
		if err != nil {
			mu.Lock()
			first = errors.Join(first, err)
			mu.Unlock()
			break
		}
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			u := recovery(x, delivery, now)
			err := s.Update(ctx, u)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err != nil:
				if first == nil {
					first = err
				}
			case u.To == Unknown:
				done.Unknown++
			case u.Tally.Unanswered > x.Tally.Unanswered:
				done.Resent++
			default:
				done.Requeued++
			}
		})
	}
	wg.Wait()
	if first != nil {
		return done, fmt.Errorf("recovering the journal: %w", first)
	}
	return done, nil
}

// leftOver yields what Recover has to decide.
func leftOver(ctx context.Context, s Store, delivery Delivery) iter.Seq2[Execution, error] {
	filters := []Filter{
		// First, lest what the other puts there be read again.
		{States: []State{Queued}, Unanswered: true},
		{States: []State{Claimed, Sent}},
	}
	return func(yield func(Execution, error) bool) {
		for _, f := range filters {
			for x, err := range s.Each(ctx, f) {
				if err == nil && x.State == Queued && !x.mustEnd(delivery) {
					continue
				}
				if !yield(x, err) {
					return
				}
			}
		}
	}
}

// recovery is the update that brings x back.
func recovery(x Execution, delivery Delivery, now time.Time) Update {
	u := x.update(Queued)
	switch {
	case x.Remote != "":
		// Followed work is polled, and polls may be repeated: it just goes on.
	case x.State == Sent:
		u = unanswered(u, x.delivery(delivery), now, ReasonCrash)
	case x.mustEnd(delivery):
		u.To, u.At, u.Due = Unknown, now, time.Time{}
		u.Reason = ReasonNotAgain
		if x.Reason != "" {
			u.Reason += " (" + x.Reason + ")"
		}
	}
	return u
}

// mustEnd reports whether x, of which nothing is on the wire, may have been
// executed and may not be sent again.
func (x *Execution) mustEnd(delivery Delivery) bool {
	return x.Remote == "" && x.Tally.Unanswered > x.Tally.Resolved && x.delivery(delivery) == AtMostOnce
}

// delivery is what holds for x where otherwise is what holds for others.
func (x *Execution) delivery(otherwise Delivery) Delivery {
	return cmp.Or(x.Delivery, otherwise, AtLeastOnce)
}

// unanswered turns u into the end of an attempt that left and had no answer.
func unanswered(u Update, delivery Delivery, now time.Time, reason string) Update {
	u.Tally.Unanswered++
	u.Reason = reason
	u.Due = time.Time{}
	u.To = Queued
	if delivery == AtMostOnce {
		u.To, u.At = Unknown, now
	}
	return u
}

// update is the update that changes nothing of x but its state.
func (x Execution) update(to State) Update {
	return Update{
		ID: x.ID, From: x.State, To: to, Revision: x.Revision,
		Due: x.Due, Remote: x.Remote, Tally: x.Tally,
		Status: x.Status, Reason: x.Reason, Answer: x.Answer, AnswerType: x.AnswerType,
	}
}
