package queue

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Cancel is [Cancel] for a running dispatcher, and returns the same: it also
// ends what the dispatcher has in its hands, as long as it has not left. When it
// returns nil that is on disk, and nothing is sent. Once it has left, Cancel
// changes nothing and returns ErrStale. An error of ctx leaves it open whether
// it was cancelled.
func (d *Dispatcher) Cancel(ctx context.Context, id int64) (Execution, error) {
	d.init()
	var last error
	for range 4 { // it may be claimed, or handed back, in between
		x, err := Cancel(ctx, d.Store, id, time.Now())
		if !errors.Is(err, ErrStale) || x.State != Queued && x.State != Claimed || x.Remote != "" {
			return x, err
		}
		last = err
		a, err := d.inHand(ctx, id)
		if err != nil {
			return x, err
		}
		if a == nil {
			continue
		}
		if !a.withdraw() {
			return x, fmt.Errorf("execution %d can't be cancelled any more: %w", id, ErrStale)
		}
		select {
		case <-a.done:
		case <-ctx.Done():
			return x, ctx.Err()
		}
		switch {
		case a.last.err != nil:
			return x, a.last.err
		case !a.last.withdrawn:
			return x, fmt.Errorf("execution %d is %v and can't be cancelled: %w", id, a.last.x.State, ErrStale)
		}
		return a.last.x, nil
	}
	return Execution{}, last
}

// ask asks the loop for the attempt of an execution.
type ask struct {
	id   int64
	told chan *attempt // gets one: nil if it is not in our hands
}

// inHand returns the attempt of an execution that a Run has in its hands, nil
// for none.
func (d *Dispatcher) inHand(ctx context.Context, id int64) (*attempt, error) {
	d.mu.Lock()
	over := d.over
	d.mu.Unlock()
	if over == nil {
		return nil, ctx.Err()
	}
	q := &ask{id: id, told: make(chan *attempt, 1)}
	select {
	case d.asks <- q:
	case <-over:
		return nil, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	select {
	case a := <-q.told:
		return a, nil
	case <-over:
		return nil, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// answer tells the asker. What is claimed ahead gets an attempt of its own, for
// somebody has to record what becomes of it.
func (r *run) answer(q *ask) {
	if a := r.hand[q.id]; a != nil {
		q.told <- a
		return
	}
	i := slices.IndexFunc(r.ahead, func(x Execution) bool { return x.ID == q.id })
	switch {
	case i >= 0 && r.ahead[i].Remote == "":
		a := r.attempt(r.ahead[i])
		r.ahead = slices.Delete(r.ahead, i, i+1)
		a.withdraw()
		r.begin(a)
		q.told <- a
	case r.claiming:
		r.asked = append(r.asked, q)
	default:
		q.told <- nil
	}
}

// withdraw ends an attempt that has not left, and reports whether it could. What
// was launched has left long ago.
func (a *attempt) withdraw() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case a.withdrawn:
		return true
	case a.leaving != nil || a.over || a.x.Remote != "":
		return false
	}
	a.withdrawn = true
	a.cancel(errWithdrawn)
	return true
}

// settled tells whoever waits for the end of the attempt what it was.
func (a *attempt) settled(f finish) {
	a.last = f
	close(a.done)
}
