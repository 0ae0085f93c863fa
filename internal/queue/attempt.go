package queue

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"
)

// attempt is one call of the Sender: its context, and whether it left.
type attempt struct {
	r *run
	x Execution // as claimed; with what leave recorded once it left

	// ctx is what the Sender gets. It ends with take and at the deadline
	// until the attempt leaves, and only with do after that.
	ctx      *attemptContext
	cancel   context.CancelCauseFunc
	untie    func() bool // from take
	deadline *time.Timer // nil for none

	mu      sync.Mutex    // guards what follows; not held while writing
	leaving chan struct{} // non-nil once leave was called, closed once it is settled
	over    bool          // the Sender returned
	left    bool
	err     error // what leave returned
	// withdrawn: it was cancelled before leave was called.
	withdrawn bool

	done chan struct{} // closed when it is recorded
	last finish        // what became of it; set before done is closed
}

// attemptContext shows its deadline only until the attempt leaves, so that
// whoever hands out permits can refuse at once what can't be in time, and the
// answer of what did leave in time is waited for all the same.
type attemptContext struct {
	context.Context
	mu    sync.Mutex // guards until
	until time.Time
}

func (c *attemptContext) Deadline() (time.Time, bool) {
	c.mu.Lock()
	until := c.until
	c.mu.Unlock()
	if d, ok := c.Context.Deadline(); ok && (until.IsZero() || d.Before(until)) {
		return d, true
	}
	return until, !until.IsZero()
}

func (r *run) attempt(x Execution) *attempt {
	a := &attempt{r: r, x: x, done: make(chan struct{})}
	ctx, cancel := context.WithCancelCause(r.do)
	a.ctx, a.cancel = &attemptContext{Context: ctx}, cancel
	a.untie = context.AfterFunc(r.take, func() { cancel(errStopped) })
	if x.expires() {
		a.ctx.until = x.Deadline
		a.deadline = time.AfterFunc(time.Until(x.Deadline), func() { cancel(errDeadline) })
	}
	return a
}

// expires reports whether x has a deadline that still means something: work
// that was launched is followed beyond it.
func (x *Execution) expires() bool { return !x.Deadline.IsZero() && x.Remote == "" }

// leave is what the Sender calls right before it sends.
func (a *attempt) leave() error {
	a.mu.Lock()
	if a.leaving != nil {
		wait := a.leaving
		a.mu.Unlock()
		<-wait
		a.mu.Lock()
		defer a.mu.Unlock()
		return a.err
	}
	if a.over {
		a.mu.Unlock()
		return errReturned
	}
	a.leaving = make(chan struct{})
	a.mu.Unlock()

	x, left, err := a.depart()

	a.mu.Lock()
	a.x, a.left, a.err = x, left, err
	a.mu.Unlock()
	close(a.leaving)
	return err
}

// depart cuts the ties to take and deadline, and records that x is sent.
func (a *attempt) depart() (x Execution, left bool, err error) {
	x = a.x
	inTime := a.deadline == nil || a.deadline.Stop()
	taking := a.untie()
	switch {
	case !taking:
		return x, false, errStopped
	case !inTime:
		return x, false, errDeadline
	case a.ctx.Err() != nil: // do ended
		return x, false, context.Cause(a.ctx)
	}
	a.r.well(&a.r.d.sending)
	a.ctx.mu.Lock()
	a.ctx.until = time.Time{}
	a.ctx.mu.Unlock()
	if x.Remote != "" {
		return x, false, nil
	}

	u := x.update(Sent)
	u.At = time.Now()
	u.Tally.Sent++
	ctx, cancel := a.r.recording()
	defer cancel()
	if err := a.r.d.Store.Update(ctx, u); err != nil {
		return x, false, fmt.Errorf("recording that execution %d is sent: %w", x.ID, err)
	}
	a.r.well(&a.r.d.recording)
	x.State, x.Tally.Sent = Sent, u.Tally.Sent
	x.Revision++
	return x, true, nil
}

// end cuts what ties the attempt to the world. No leave succeeds after it.
func (a *attempt) end() {
	a.mu.Lock()
	a.over = true
	wait := a.leaving
	a.mu.Unlock()
	if wait != nil {
		<-wait // a Sender that returned while another goroutine of it leaves
	}
	a.untie()
	if a.deadline != nil {
		a.deadline.Stop()
	}
}

// work makes one attempt and records it.
func (r *run) work(a *attempt) finish {
	defer a.cancel(nil)
	x := a.x
	if a.isWithdrawn() {
		a.end()
		return r.recordWithdrawn(x)
	}
	if x.expires() && !time.Now().Before(x.Deadline) {
		a.end()
		return r.record(x, expiry(x, time.Now()))
	}
	given := x
	given.Tally.Waits = maps.Clone(x.Tally.Waits)
	step, err := r.d.Send(a.ctx, given, a.leave)
	a.end()

	x, left := a.x, a.left
	legal := step.To == Queued || step.To.Ended() && step.To <= Unknown
	switch {
	case a.withdrawn && (err != nil || a.err != nil || !step.To.Ended()):
		return r.recordWithdrawn(x)
	case a.err != nil:
		return r.stay(x, a.err)
	case err == nil && legal:
		if left || step.To == Queued {
			r.well(&r.d.sending)
		}
		return r.record(x, step)
	case err == nil:
		err = fmt.Errorf("the Sender's step of execution %d leads to %v", x.ID, step.To)
	}

	if !left {
		switch {
		case a.ctx.Err() != nil:
			err = context.Cause(a.ctx)
		case x.expires() && !time.Now().Before(x.Deadline):
			err = errDeadline // the Sender's own timer was quicker than ours
		default:
			r.met(&r.d.sending, fmt.Errorf("sending: %w", err))
			return r.handBack(x)
		}
		return r.stay(x, err)
	}
	// It left, and the Sender does not say what came of it.
	if a.ctx.Err() == nil {
		r.met(&r.d.sending, fmt.Errorf("sending: %w", err))
	}
	u := unanswered(x.update(Queued), x.delivery(r.d.Delivery), time.Now(), "sent, and no answer: "+err.Error())
	return r.record(x, Step{
		To: u.To, Tally: u.Tally, Status: u.Status, Reason: u.Reason, Answer: u.Answer, AnswerType: u.AnswerType,
	})
}

// stay deals with an execution that surely did not leave, because of err.
func (r *run) stay(x Execution, err error) finish {
	switch {
	case errors.Is(err, errDeadline):
		return r.record(x, expiry(x, time.Now()))
	case errors.Is(err, ErrStale):
		// Somebody else decided about it; it is not ours to hand back.
		r.log.Warn("execution was changed by someone else", "id", x.ID, "err", err)
		return finish{err: err}
	}
	if r.take.Err() == nil && r.do.Err() == nil {
		r.met(&r.d.recording, err) // leave failed: the store's error
	}
	return r.handBack(x)
}

// isWithdrawn reports whether the attempt was cancelled before it began.
func (a *attempt) isWithdrawn() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.withdrawn
}

func (r *run) recordWithdrawn(x Execution) finish {
	f := r.record(x, x.cancellation())
	f.withdrawn = true
	return f
}

// handBack queues x again as it was.
func (r *run) handBack(x Execution) finish {
	u := x.update(Queued)
	err := r.update(u)
	if errors.Is(err, ErrStale) {
		// A "sent" whose recording was interrupted may have been recorded
		// all the same; nothing left, so it goes back just as well.
		u.From = Sent
		u.Revision++
		err = r.update(u)
	}
	switch {
	case errors.Is(err, ErrStale):
		r.log.Warn("execution was changed by someone else", "id", x.ID, "err", err)
	case err != nil:
		r.fail(fmt.Errorf("handing execution %d back: %w", x.ID, err))
	}
	return finish{queued: err == nil, due: x.Due, x: x, err: err}
}

// expiry is the step of an execution whose deadline passes before it is sent
// (again). If an earlier attempt may have been executed, to say that it was
// not sent would be a lie.
func expiry(x Execution, now time.Time) Step {
	s := Step{
		To: Expired, Tally: x.Tally, Status: x.Status, Answer: x.Answer, AnswerType: x.AnswerType,
		Reason: "its deadline passed before it was sent",
	}
	if now.Before(x.Deadline) {
		s.Reason = "its deadline comes before it may be sent again"
	}
	if x.Tally.Unanswered > 0 {
		s.To = Unknown
		s.Reason = "sent, and the answer never came; " + s.Reason + " again"
		if now.Before(x.Deadline) {
			s.Reason = "sent, and the answer never came; its deadline comes before it may be sent again"
		}
	}
	return s
}

// record makes step durable, and then shows it.
func (r *run) record(x Execution, step Step) finish {
	step.Tally.Sent = x.Tally.Sent
	if step.Remote == "" {
		step.Remote = x.Remote
	}
	now := time.Now()
	if step.To == Queued && step.Remote == "" && !x.Deadline.IsZero() && !step.Due.Before(x.Deadline) {
		// It could only wait to be refused.
		e := x
		e.Tally, e.Status, e.Answer, e.AnswerType = step.Tally, step.Status, step.Answer, step.AnswerType
		last := step.Reason
		step = expiry(e, now)
		if last != "" {
			step.Reason += " (" + last + ")"
		}
	}
	u := step.update(x, now)
	if err := r.update(u); err != nil {
		if errors.Is(err, ErrStale) {
			r.log.Warn("execution was changed by someone else", "id", x.ID, "err", err)
		} else {
			err = fmt.Errorf("recording execution %d as %v: %w", x.ID, step.To, err)
			r.fail(err)
		}
		return finish{err: err}
	}
	x = step.applied(x, now)
	if r.d.Observe != nil {
		r.d.Observe(x, step)
	}
	return finish{queued: step.To == Queued, due: step.Due, x: x}
}

// update makes u durable. On a full disk it tries again until the bound, and
// with Endure whatever the store's error is: what happened must not be forgotten
// for the lack of a kilobyte.
func (r *run) update(u Update) error {
	ctx, cancel := r.patience()
	defer cancel()
	for pause := 50 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		err := r.updateOnce(ctx, u)
		switch {
		case err == nil:
			r.well(&r.d.recording)
			return nil
		case errors.Is(err, ErrStale):
			r.well(&r.d.recording)
			if pause > 50*time.Millisecond && r.isMade(ctx, u) {
				return nil
			}
			return err
		case errors.Is(err, ErrIllegal), errors.Is(err, ErrClosed), !r.d.Endure && !errors.Is(err, ErrFull):
			return err
		}
		// Nothing more is started that might not be recorded.
		r.met(&r.d.recording, err)
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return err
		}
	}
}

// updateOnce tries it within its bound, be the patience longer or not.
func (r *run) updateOnce(ctx context.Context, u Update) error {
	ctx, cancel := context.WithTimeout(ctx, r.within)
	defer cancel()
	return r.d.Store.Update(ctx, u)
}

// isMade reports whether an update that the store has called stale was made by
// an earlier try, whose answer was lost.
func (r *run) isMade(ctx context.Context, u Update) bool {
	x, err := r.d.Store.Get(ctx, u.ID)
	return err == nil && x.State == u.To && x.Revision == u.Revision+1
}
