package headgate

import (
	"context"
	"slices"
	"time"

	"github.com/headgate/headgate/internal/bucket"
)

// waiter stands in line for a permit.
type waiter struct {
	lane    *lane
	queue   *queue
	path    string
	arrival uint64
	index   int           // in the queue; -1 once it is out of the line
	decided chan struct{} // closed once it has a permit or a refusal
	hold    bool
	bulk    bool // its permit has left a share to others
	came    bucket.Instant
	went    bucket.Instant // when it got its permit or its refusal
	latest  bucket.Instant // must be granted by then
	maxGate time.Duration
	expiry  *time.Timer // nil if the context alone bounds the wait
	// parts is what the lane's ledger said when it joined; once it is out
	// of the line, what it has waited for. one is the space for it in a
	// lane of one account.
	parts []WaitPart
	one   [1]WaitPart
	seqs  seqs // of its permit

	refusal *LimitError // nil for a permit
}

// queue puts the caller in line, unless its turn would come too late. The
// limiter is locked.
func (l *Limiter) queue(ctx context.Context, ask *Ask, ln *lane, now bucket.Instant) (*waiter, error) {
	w := &waiter{
		lane:    ln,
		path:    ask.Path,
		arrival: l.arrivals,
		decided: make(chan struct{}),
		hold:    ask.hold,
		latest:  bucket.Never,
		maxGate: ask.MaxRetryAfter,
	}
	key, weight := callerKey{ask.level(), ask.Caller}, weightOf(ask.Weight)
	cost := cost(weight)
	if deadline, ok := ctx.Deadline(); ok {
		w.latest = deadline.Sub(l.epoch)
	}
	until := !ask.Until.IsZero()
	if until {
		w.latest = min(w.latest, ask.Until.Sub(l.epoch))
	}
	t := l.turn(ln, now, key.priority)
	if w.late(t, now) && len(l.active) > 0 {
		t = l.exactTurn(ln, now, key, cost)
	}
	if l.shut {
		return nil, l.limitError(t, now, ErrShut)
	}
	if err := ctx.Err(); err != nil || w.late(t, now) {
		return nil, l.limitError(t, now, err)
	}
	l.arrivals++
	w.came = l.join(w, key, cost, now)
	w.queue.standing.use.weight = weight
	if l.first(ln).waiters[0] == w {
		l.dispatch(now)
	}
	if until && w.index >= 0 {
		w.expiry = time.AfterFunc(w.latest-now, func() { l.expire(w) })
	}
	return w, nil
}

// await blocks until the limiter has decided about w or the context ends. It
// needs little stack, because many goroutines stand here.
func (l *Limiter) await(ctx context.Context, w *waiter) (Permit, error) {
	select {
	case <-w.decided:
	case <-ctx.Done():
		l.leave(ctx, w)
	}
	if w.refusal != nil {
		return Permit{}, w.refusal
	}
	p := w.permit(l)
	l.announce(p.Wait)
	return p, nil
}

// permit returns the permit that w was granted.
func (w *waiter) permit(l *Limiter) Permit {
	return Permit{limiter: l, lane: w.lane, path: w.path, taken: w.went, seqs: w.seqs, queue: w.queue, bulk: w.bulk, Wait: w.waited()}
}

// announce tells the observer of a wait that is over. Inlined, its Event would
// lie on the stack of everybody who waits.
//
//go:noinline
func (l *Limiter) announce(wait Wait) {
	if l.observer != nil && wait.Total > 0 {
		l.observer(Event{Kind: PermitWaited, Limit: wait.Limit(), Wait: wait.Total, RetryAfter: wait.RetryAfter(), Parts: wait.Parts})
	}
}

// leave takes w, whose context has ended, out of the line, and gives the permit
// back if it was just granted one.
func (l *Limiter) leave(ctx context.Context, w *waiter) {
	l.mu.Lock()
	granted := w.index < 0 && w.refusal == nil
	if w.index >= 0 || granted {
		l.refuse(w, l.now(), ctx.Err())
	}
	l.mu.Unlock()
	if granted {
		Permit{limiter: l, lane: w.lane, taken: w.went, seqs: w.seqs, queue: w.queue, bulk: w.bulk}.Return()
	}
}

// expire refuses w, whose time is over.
func (l *Limiter) expire(w *waiter) {
	l.mu.Lock()
	if w.index >= 0 {
		l.refuse(w, l.now(), nil)
	}
	l.mu.Unlock()
}

// refuse decides that w gets no permit. The limiter is locked.
func (l *Limiter) refuse(w *waiter, now bucket.Instant, ended error) {
	t := l.ready(w.lane, now, 0, l.isBulk(w.queue.key.priority))
	w.refusal = l.limitError(t, now, ended)
	if w.index < 0 {
		w.refusal.Waited = w.waited()
		return // its permit is given back by who calls
	}
	l.quit(w, now)
	w.refusal.Waited = w.waited()
	close(w.decided)
	l.dispatch(now)
}

// late reports whether turn t is too late for w.
func (w *waiter) late(t turn, now bucket.Instant) bool {
	gate, _ := t.by.bucket.Gate(now)
	return t.at > w.latest || w.maxGate > 0 && gate-now > w.maxGate
}

func (l *Limiter) limitError(t turn, now bucket.Instant, ended error) *LimitError {
	e := &LimitError{Limit: t.by.name, Wait: t.at - now, At: l.epoch.Add(t.at), Err: ended}
	if gate, closed := t.by.bucket.Gate(now); closed {
		e.RetryAfter = gate - now
	}
	return e
}

// join puts w in line and takeOut takes it out; quit does that for good. The
// limiter is locked. join returns the instant from which on w waits.
func (l *Limiter) join(w *waiter, key callerKey, cost tag, now bucket.Instant) (came bucket.Instant) {
	came = w.readLedger(now)
	if w.lane.line.Len() == 0 {
		l.active = append(l.active, w.lane)
		w.lane.went = true
	}
	l.enter(w, key, cost)
	l.unsorted = l.unsorted || w.index == 0 && w.queue.index == 0
	l.waiting[key.priority]++
	w.lane.waiting[key.priority]++
	for _, a := range w.lane.accounts {
		a.waiting[key.priority]++
	}
	return came
}

func (l *Limiter) quit(w *waiter, now bucket.Instant) {
	if w.expiry != nil {
		w.expiry.Stop()
	}
	l.takeOut(w, now)
	w.queue.standing.use.waited += w.went - w.came
}

func (l *Limiter) takeOut(w *waiter, now bucket.Instant) {
	w.went = w.closeLedger(now)
	l.unsorted = l.unsorted || w.index == 0 && w.queue.index == 0
	l.exit(w)
	p := w.queue.key.priority
	w.lane.waiting[p]--
	for _, a := range w.lane.accounts {
		a.waiting[p]--
	}
	if l.waiting[p]--; l.waiting[p] == 0 {
		l.served.idle(p)
	}
	if w.lane.waiting[p] == 0 {
		w.lane.served.idle(p)
	}
	if w.lane.line.Len() == 0 {
		l.active = slices.DeleteFunc(l.active, func(ln *lane) bool { return ln == w.lane })
	}
}

// refuseLate refuses those in line whose turn a closed gate has moved past
// their deadline. The limiter is locked.
func (l *Limiter) refuseLate(now bucket.Instant) {
	for _, ln := range slices.Clone(l.active) {
		t := l.ready(ln, now, 0, false) // a reserve may end
		for _, w := range ln.waiters() {
			if w.index >= 0 && w.late(t, now) {
				l.refuse(w, now, nil)
			}
		}
	}
}

// dispatch grants a permit to everyone whose turn has come and sets the timer
// for the next. The limiter is locked.
func (l *Limiter) dispatch(now bucket.Instant) {
	if l.paused {
		for _, ln := range l.active {
			ln.heldUp(now, turn{by: ln.accounts[0]}, whyPaused)
		}
		return
	}
	for len(l.active) > 0 {
		ln, next := l.choose(now)
		if ln == nil {
			l.wakeUp(now, next)
			return
		}
		l.grant(ln, now)
	}
}

// choose returns the lane whose head goes now: the first in order of those
// that are ready, except that nobody takes the token that an earlier one will
// need. If there is none it returns when to look again.
func (l *Limiter) choose(now bucket.Instant) (chosen *lane, next bucket.Instant) {
	if len(l.active) == 1 {
		ln := l.active[0]
		t := l.ready(ln, now, 0, l.isBulk(ln.priority()))
		if t.at <= now {
			return ln, now
		}
		ln.heldUp(now, t, t.why())
		return nil, t.at
	}
	if l.unsorted {
		for _, ln := range l.active {
			l.first(ln)
		}
		slices.SortFunc(l.active, func(a, b *lane) int { return a.line.queues[0].beside(b.line.queues[0]) })
		l.unsorted = false
	}
	next = bucket.Never
	l.goes = l.goes[:0]
	for i, ln := range l.active {
		t := l.ready(ln, now, 0, l.isBulk(ln.priority()))
		if t.at <= now {
			if t = l.yield(ln, l.active[:i], now); t.at <= now {
				return ln, now
			}
		}
		ln.heldUp(now, t, t.why())
		l.shareBy(ln, t.by)
		l.goes = append(l.goes, t.at)
		next = min(next, t.at)
	}
	return nil, next
}

// yield returns when the head of ln, which is ready, can go without making any
// of the earlier ones late, which go at l.goes, and which account they share:
// now, if what it takes is there again by then.
func (l *Limiter) yield(ln *lane, earlier []*lane, now bucket.Instant) turn {
	bulk := l.isBulk(ln.priority())
	for _, a := range ln.accounts {
		ahead := 0
		for i, e := range earlier {
			if !slices.Contains(e.accounts, a) {
				continue
			}
			ahead++
			if again := a.bucket.Ready(now, ahead+1); again > l.goes[i] {
				return turn{at: l.goes[i], by: a}
			}
			if bulk && l.isBulk(e.priority()) && l.allowed(a, now, ahead+1) > l.goes[i] {
				return turn{at: l.goes[i], by: a, reserved: true}
			}
		}
	}
	return turn{at: now}
}

// grant gives a permit to the head of ln.
func (l *Limiter) grant(ln *lane, now bucket.Instant) {
	q := l.first(ln)
	w := q.waiters[0]
	l.charge(ln, q)
	l.quit(w, now)
	ln.went = true
	w.bulk = l.isBulk(q.key.priority)
	w.seqs = l.take(ln, w.went, w.hold, w.bulk)
	close(w.decided)
}

// wakeUp sets the timer for the instant at, if it is not set for it already.
func (l *Limiter) wakeUp(now, at bucket.Instant) {
	if l.timer != nil && l.wakeAt == at && at > now {
		return
	}
	l.wakeAt = at
	if at == bucket.Never {
		return
	}
	if l.timer == nil {
		l.timer = time.AfterFunc(at-now, l.wake)
		return
	}
	l.timer.Reset(at - now)
}

// wake is called by the timer.
func (l *Limiter) wake() {
	l.mu.Lock()
	now := l.now()
	l.wakeAt = 0
	l.dispatch(now)
	l.mu.Unlock()
}
