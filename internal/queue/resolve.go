package queue

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// ReasonCancelled is the Reason of an execution that was cancelled before it
// was sent. If an earlier attempt may have been executed, more stands before it.
const ReasonCancelled = "cancelled"

// ErrTooLate: the deadline has passed, so that the execution would not be sent.
var ErrTooLate = errors.New("its deadline has passed")

// Cancel ends a queued execution and returns it as it now stands: Expired, or
// Unknown if an attempt of it may have been executed. Once it is claimed, has an
// outcome, or was launched and is followed, Cancel changes nothing and returns
// ErrStale: see [Dispatcher.Cancel] for what is claimed and has not left.
// ErrNotFound if there is none. now is when it ends.
func Cancel(ctx context.Context, s Store, id int64, now time.Time) (Execution, error) {
	x, err := s.Get(ctx, id)
	switch {
	case err != nil:
		return x, err
	case x.State != Queued:
		return x, fmt.Errorf("execution %d is %v and can't be cancelled: %w", id, x.State, ErrStale)
	case x.Remote != "":
		return x, fmt.Errorf("execution %d was launched and can't be cancelled: %w", id, ErrStale)
	}
	return apply(ctx, s, x, x.cancellation(), now)
}

// cancellation is the step that ends x, which has not left since it was queued.
func (x *Execution) cancellation() Step {
	s := Step{
		To: Expired, Tally: x.Tally, Status: x.Status, Reason: ReasonCancelled,
		Answer: x.Answer, AnswerType: x.AnswerType,
	}
	if x.Tally.Unanswered > 0 {
		s.To = Unknown
		s.Reason = "sent, and the answer never came; not sent again: " + ReasonCancelled
	}
	return s
}

// Resolution is what somebody decides about an Unknown execution.
type Resolution struct {
	// Again: it is sent again, whatever its Delivery, and may then be
	// executed twice, which its tally shows. Work that was launched is
	// followed again, and not launched again. If false, it is given up.
	Again bool
	// By is who decides, for the Reason of one that is given up; "" for
	// somebody.
	By string
}

// Resolve decides about an Unknown execution and returns it as it now stands:
// Queued, with its tally, or Failed, with a Reason that says that it may have
// been executed and who gave it up. ErrStale if it is not Unknown (any more),
// ErrNotFound if there is none, ErrTooLate if it should be sent again after its
// deadline; then nothing was changed.
func Resolve(ctx context.Context, s Store, id int64, how Resolution, now time.Time) (Execution, error) {
	x, err := s.Get(ctx, id)
	if err != nil {
		return x, err
	}
	if x.State != Unknown {
		return x, fmt.Errorf("execution %d is %v and can't be resolved: %w", id, x.State, ErrStale)
	}
	if !how.Again {
		return apply(ctx, s, x, x.givenUp(how.By), now)
	}
	if x.expires() && !now.Before(x.Deadline) {
		return x, fmt.Errorf("execution %d can't be sent again: %w", id, ErrTooLate)
	}
	return apply(ctx, s, x, x.again(), now)
}

func (x *Execution) givenUp(by string) Step {
	if by == "" {
		by = "somebody"
	}
	reason := "may have been executed; given up by " + by
	if x.Reason != "" {
		reason += " (" + x.Reason + ")"
	}
	return Step{
		To: Failed, Remote: x.Remote, Tally: x.Tally, Status: x.Status, Reason: reason,
		Answer: x.Answer, AnswerType: x.AnswerType,
	}
}

// again is the step that queues x once more, with all its retries. What is
// unknown may have been executed, so it counts as unanswered even if there was
// an answer of which nobody could make sense.
func (x *Execution) again() Step {
	t := x.Tally
	t.Forgiven, t.LastBackoff, t.Unauthorized = t.Retries, 0, 0
	if x.Remote == "" {
		t.Unanswered = max(1, t.Unanswered)
		t.Resolved = t.Unanswered
	}
	return Step{To: Queued, Remote: x.Remote, Tally: t, Status: x.Status, Reason: x.Reason}
}

// apply makes step of x durable, unless x has changed since it was read, and
// returns x as it then stands.
func apply(ctx context.Context, s Store, x Execution, step Step, now time.Time) (Execution, error) {
	if err := s.Update(ctx, step.update(x, now)); err != nil {
		return x, err
	}
	return step.applied(x, now), nil
}
