package gateway

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/headgate/headgate/internal/dashboard"
	"github.com/headgate/headgate/internal/queue"
)

// resolve decides about an unknown execution, in the name of who.
func (o *org) resolve(ctx context.Context, id int64, action, who string) (*queue.Execution, *problem) {
	if action != dashboard.SendAgain && action != dashboard.GiveUp {
		return nil, badRequest.problem(fmt.Sprintf("the action %q: takes %s or %s", action, dashboard.SendAgain, dashboard.GiveUp))
	}
	x, err := queue.Resolve(ctx, o.store, id, queue.Resolution{Again: action == dashboard.SendAgain, By: who}, time.Now())
	if err == nil {
		o.post.owe(context.WithoutCancel(ctx), &x)
	}
	if p := o.decided(&x, err, "it is not unknown"); p != nil {
		return nil, p
	}
	o.log.Info("an unknown execution was resolved", "execution", o.idOf(id), "action", action, "by", who)
	if x.State == queue.Queued {
		o.dispatcher.Wake(x.Place())
	}
	return &x, nil
}

// cancel ends an execution that has not been sent.
func (o *org) cancel(ctx context.Context, id int64) (*queue.Execution, *problem) {
	const stale = "it can't be cancelled any more"
	x, err := queue.Cancel(ctx, o.store, id, time.Now())
	if !errors.Is(err, queue.ErrStale) {
		if p := o.decided(&x, err, stale); p != nil {
			return nil, p
		}
		return &x, nil
	}
	// What the dispatcher has in its hands it tells of itself.
	if x, err = o.dispatcher.Cancel(ctx, id); err != nil {
		return nil, o.decided(&x, err, stale)
	}
	o.changed(id)
	return &x, nil
}

// decided says what is wrong with a decision about x, and tells those who wait
// for x if nothing is.
func (o *org) decided(x *queue.Execution, err error, stale string) *problem {
	switch {
	case err == nil:
		o.observe(*x, queue.Step{})
		return nil
	case errors.Is(err, queue.ErrNotFound):
		return notFound.problem("there is no execution with this id")
	case errors.Is(err, queue.ErrStale), errors.Is(err, queue.ErrTooLate):
		p := conflict.problem(stale + ": it is " + stateWord(x.State))
		if errors.Is(err, queue.ErrTooLate) {
			p.Detail = err.Error()
		}
		p.Instance = executionsPath + o.idOf(x.ID)
		return p
	}
	o.log.Warn("a decision about an execution could not be stored", "execution", o.idOf(x.ID), "err", err)
	return diskFull.problem("the journal: " + storeTrouble(err)).retryAfter(5 * time.Second)
}
