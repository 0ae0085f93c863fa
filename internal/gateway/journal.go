package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/headgate/headgate"
	"github.com/headgate/headgate/internal/queue"
	"github.com/headgate/headgate/internal/sqlite"
	"github.com/headgate/headgate/internal/telemetry"
)

// hub tells those who wait for an execution that something happened to it.
type hub struct {
	mu   sync.Mutex
	byID map[int64]map[chan struct{}]struct{}
}

// watch returns a channel that gets a value after each change of the execution,
// until unwatch is called.
func (h *hub) watch(id int64) chan struct{} {
	ch := make(chan struct{}, 1)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.byID == nil {
		h.byID = map[int64]map[chan struct{}]struct{}{}
	}
	if h.byID[id] == nil {
		h.byID[id] = map[chan struct{}]struct{}{}
	}
	h.byID[id][ch] = struct{}{}
	return ch
}

func (h *hub) unwatch(id int64, ch chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.byID[id], ch)
	if len(h.byID[id]) == 0 {
		delete(h.byID, id)
	}
}

func (h *hub) changed(id int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for ch := range h.byID[id] {
		select {
		case ch <- struct{}{}:
		default:
		}
	}
}

// attend takes a place among those who wait for the end of an execution: there are
// as many as for calls that are held.
func (o *org) attend() (leave func(), p *problem) {
	leave = func() { o.attending.Add(-1) }
	if o.attending.Add(1) > int64(o.settings().Bounds.Held) {
		leave()
		return nil, overBound.problem("as many wait for executions as may be (bounds.held)").retryAfter(time.Second)
	}
	return leave, nil
}

// await returns the execution once it has ended, within the time.
func (o *org) await(ctx context.Context, id int64, wait time.Duration) (*queue.Execution, bool) {
	changed := o.watch(id)
	defer o.unwatch(id, changed)
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for {
		x, err := o.store.Get(ctx, id)
		if err != nil {
			return nil, false
		}
		if x.State.Ended() {
			return &x, true
		}
		select {
		case <-changed:
		case <-timer.C:
			return nil, false
		case <-ctx.Done():
			return nil, false
		case <-o.g.draining:
			return nil, false
		}
	}
}

// admit takes room for one execution with a body of n bytes on its way to the
// store. release gives it back: from then on the store counts it.
func (o *org) admit(c *caller, n int64) (release func(), p *problem) {
	b, conf := &o.settings().Bounds, c.conf.Load()
	release = func() {
		o.coming.add(-1, -n)
		c.coming.add(-1, -n)
	}
	refuse := func(what, counts string) (func(), *problem) {
		release()
		p := overBound.problem(what).retryAfter(o.drainTime())
		p.counts = counts
		return nil, p
	}
	rows, bytes := o.coming.add(1, n)
	ownRows, ownBytes := c.coming.add(1, n)
	// In this order one that arrives in the store meanwhile counts twice, and
	// not never.
	all, own := o.store.LoadOf(c.name)
	switch {
	case all.Rows+rows > b.Queued:
		return refuse("as many executions are queued as may be (bounds.queued)", "queued")
	case all.Bytes+bytes > b.QueuedBytes:
		return refuse("as many bytes are queued as may be (bounds.queued_bytes)", "bytes")
	case own.Rows+ownRows > conf.Queued:
		return refuse("this caller has as many executions queued as it may (queued)", "queued")
	case own.Bytes+ownBytes > conf.QueuedBytes:
		return refuse("this caller has as many bytes queued as it may (queued_bytes)", "bytes")
	}
	return release, nil
}

// drainTime is about how long it takes until one that is queued has gone.
func (o *org) drainTime() time.Duration {
	return max(time.Second, o.forecast(1))
}

// send makes one attempt of a queued execution. Its path was checked when it was
// accepted, but a journal may have been written by something else.
func (o *org) send(ctx context.Context, x queue.Execution, leave func() error) (queue.Step, error) {
	if path, _, _ := strings.Cut(x.Path, "?"); targetOf(path) != toAPI || badPath(path) != "" || badTarget(x.Path) != "" {
		return queue.Step{To: queue.Failed, Tally: x.Tally, Reason: "its path is not one of the API's"}, nil
	}
	l := o.use()
	defer l.unuse()
	if o.g.tracer == nil {
		return l.sender.Send(ctx, x, leave)
	}
	var e extra
	_ = json.Unmarshal(x.Extra, &e) // what can't be read names no trace
	ctx, span := o.g.tracer.Execution(ctx, e.Header)
	step, err := l.sender.Send(ctx, x, leave)
	outcome := step.To.String()
	if err != nil {
		outcome = "error"
	}
	limit, wait := longest(step.Tally.Waits)
	span.End(telemetry.CallEnd{
		Org: o.name, Caller: x.Caller, Limit: limit, Wait: wait,
		Status: step.Status, Execution: o.idOf(x.ID), Outcome: outcome,
	})
	return step, err
}

// shape gives the request of an execution what its caller asked for.
func (o *org) shape(x queue.Execution, req *http.Request, call *headgate.Call) {
	call.Caller, call.Weight = x.Caller, o.callers.weight(x.Caller)
	call.Delivery = new(headgate.AtLeastOnce)
	if x.Delivery == queue.AtMostOnce {
		*call.Delivery = headgate.AtMostOnce
	}
	var e extra
	if json.Unmarshal(x.Extra, &e) == nil {
		req.Header.Del("Content-Type") // it has its own, or none
		for name, values := range e.Header {
			if isKept(name) {
				req.Header[name] = values
			}
		}
	}
	if _, ok := req.Header["User-Agent"]; !ok {
		req.Header.Set("User-Agent", "")
	}
}

// observe is told of each step that is on disk.
func (o *org) observe(x queue.Execution, step queue.Step) {
	o.changed(x.ID)
	if x.State.Ended() {
		o.meter.ended(&x)
		o.post.ended(&x)
	}
}

// restoreLimiter takes over what an earlier process knew of the limits.
func (o *org) restoreLimiter(ctx context.Context) error {
	v, err := o.store.Meta(ctx, sqlite.MetaLimiter)
	if err != nil || v == nil {
		return err
	}
	var states []headgate.State
	if err := json.Unmarshal(v, &states); err != nil {
		o.log.Warn("what was known of the limits can't be read: they are learned anew", "err", err)
		return nil
	}
	o.limiter.Restore(states)
	return nil
}

// dispatch carries executions to the API until take ends.
func (o *org) dispatch(take, do context.Context) {
	if err := o.dispatcher.Run(take, do); err != nil && !errors.Is(err, context.Canceled) {
		o.log.Error("the queue stopped", "err", err)
	}
}

// prune forgets executions some time after their end.
func (o *org) prune(ctx context.Context) {
	for sleep(ctx, time.Minute) {
		before := time.Now().Add(-o.g.file().Keep)
		for {
			n, err := o.store.Prune(ctx, before, 200)
			if err != nil && ctx.Err() == nil {
				o.log.Warn("old executions can't be forgotten", "err", err)
			}
			if err != nil || n < 200 || !sleep(ctx, 20*time.Millisecond) {
				break
			}
		}
	}
}

// sleep waits, and reports whether ctx goes on.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
