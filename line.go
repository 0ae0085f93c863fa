package headgate

import (
	"container/heap"
	"context"
	"slices"
	"time"

	"github.com/headgate/headgate/internal/bucket"
)

// waiter stands in line for a permit.
type waiter struct {
	lane     *lane
	path     string
	arrival  uint64
	index    int           // in the heap; -1 once it is out of the line
	decided  chan struct{} // closed once it has a permit or a refusal
	priority int8          // from 0
	hold     bool
	came     bucket.Instant
	went     bucket.Instant // when it got its permit or its refusal
	latest   bucket.Instant // must be granted by then
	maxGate  time.Duration
	expiry   *time.Timer // nil if the context alone bounds the wait
	// parts is what the lane's ledger said when it joined; once it is out
	// of the line, what it has waited for. one is the space for it in a
	// lane of one account.
	parts []WaitPart
	one   [1]WaitPart
	seqs  seqs // of its permit

	refusal *LimitError // nil for a permit
}

func (w *waiter) before(v *waiter) bool {
	if w.priority != v.priority {
		return w.priority < v.priority
	}
	return w.arrival < v.arrival
}

// line is a heap of waiters, the next to go first.
type line []*waiter

func (q line) Len() int           { return len(q) }
func (q line) Less(i, j int) bool { return q[i].before(q[j]) }
func (q line) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].index, q[j].index = i, j
}
func (q *line) Push(x any) {
	w := x.(*waiter)
	w.index = len(*q)
	*q = append(*q, w)
}
func (q *line) Pop() any {
	w := (*q)[len(*q)-1]
	(*q)[len(*q)-1] = nil
	*q = (*q)[:len(*q)-1]
	w.index = -1
	return w
}

// queue puts the caller in line, unless its turn would come too late. The
// limiter is locked.
func (l *Limiter) queue(ctx context.Context, ask *Ask, ln *lane, now bucket.Instant) (*waiter, error) {
	w := &waiter{
		lane:     ln,
		path:     ask.Path,
		priority: int8(min(max(ask.Priority, MostUrgent), LeastUrgent) - MostUrgent),
		arrival:  l.arrivals,
		decided:  make(chan struct{}),
		hold:     ask.hold,
		latest:   bucket.Never,
		maxGate:  ask.MaxRetryAfter,
	}
	if deadline, ok := ctx.Deadline(); ok {
		w.latest = deadline.Sub(l.epoch)
	}
	until := !ask.Until.IsZero()
	if until {
		w.latest = min(w.latest, ask.Until.Sub(l.epoch))
	}
	at, by := ln.turn(now, int(w.priority))
	if w.late(at, by, now) && len(l.active) > 0 {
		at, by = l.exactTurn(ln, now, int(w.priority))
	}
	if err := ctx.Err(); err != nil || w.late(at, by, now) {
		return nil, l.limitError(at, by, now, err)
	}
	l.arrivals++
	w.came = l.join(w, now)
	if w.index == 0 {
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
	return Permit{limiter: l, lane: w.lane, path: w.path, taken: w.went, seqs: w.seqs, Wait: w.waited()}
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
		Permit{limiter: l, lane: w.lane, taken: w.went, seqs: w.seqs}.Return()
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
	at, by := w.lane.ready(now, 0)
	w.refusal = l.limitError(at, by, now, ended)
	if w.index < 0 {
		w.refusal.Waited = w.waited()
		return // its permit is given back by who calls
	}
	l.quit(w, now)
	w.refusal.Waited = w.waited()
	close(w.decided)
	l.dispatch(now)
}

// late reports whether a turn at the instant at is too late for w.
func (w *waiter) late(at bucket.Instant, by *account, now bucket.Instant) bool {
	gate, _ := by.bucket.Gate(now)
	return at > w.latest || w.maxGate > 0 && gate-now > w.maxGate
}

func (l *Limiter) limitError(at bucket.Instant, by *account, now bucket.Instant, ended error) *LimitError {
	e := &LimitError{Limit: by.name, Wait: at - now, At: l.epoch.Add(at), Err: ended}
	if gate, closed := by.bucket.Gate(now); closed {
		e.RetryAfter = gate - now
	}
	return e
}

// join puts w in line and takeOut takes it out; quit does that for good. The
// limiter is locked. join returns the instant from which on w waits.
func (l *Limiter) join(w *waiter, now bucket.Instant) (came bucket.Instant) {
	came = w.readLedger(now)
	if w.lane.line.Len() == 0 {
		l.active = append(l.active, w.lane)
	}
	heap.Push(&w.lane.line, w)
	l.unsorted = l.unsorted || w.index == 0
	w.lane.waiting[w.priority]++
	for _, a := range w.lane.accounts {
		a.waiting[w.priority]++
	}
	return came
}

func (l *Limiter) quit(w *waiter, now bucket.Instant) {
	if w.expiry != nil {
		w.expiry.Stop()
	}
	l.takeOut(w, now)
}

func (l *Limiter) takeOut(w *waiter, now bucket.Instant) {
	w.went = w.closeLedger(now)
	l.unsorted = l.unsorted || w.index == 0
	heap.Remove(&w.lane.line, w.index)
	w.lane.waiting[w.priority]--
	for _, a := range w.lane.accounts {
		a.waiting[w.priority]--
	}
	if w.lane.line.Len() == 0 {
		l.active = slices.DeleteFunc(l.active, func(ln *lane) bool { return ln == w.lane })
	}
}

// refuseLate refuses those in line whose turn a closed gate has moved past
// their deadline. The limiter is locked.
func (l *Limiter) refuseLate(now bucket.Instant) {
	for _, ln := range slices.Clone(l.active) {
		at, by := ln.ready(now, 0)
		for _, w := range slices.Clone(ln.line) {
			if w.index >= 0 && w.late(at, by, now) {
				l.refuse(w, now, nil)
			}
		}
	}
}

// dispatch grants a permit to everyone whose turn has come and sets the timer
// for the next. The limiter is locked.
func (l *Limiter) dispatch(now bucket.Instant) {
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
		at, by := ln.ready(now, 0)
		if at <= now {
			return ln, now
		}
		ln.heldUp(now, by)
		return nil, at
	}
	if l.unsorted {
		slices.SortFunc(l.active, func(a, b *lane) int {
			if a.line[0].before(b.line[0]) {
				return -1
			}
			return 1
		})
		l.unsorted = false
	}
	next = bucket.Never
	l.goes = l.goes[:0]
	for i, ln := range l.active {
		at, by := ln.ready(now, 0)
		if at <= now {
			if at, by = l.yield(ln, l.active[:i], now); at <= now {
				return ln, now
			}
		}
		ln.heldUp(now, by)
		l.goes = append(l.goes, at)
		next = min(next, at)
	}
	return nil, next
}

// yield returns when the head of ln, which is ready, can go without making any
// of the earlier ones late, which go at l.goes, and which account they share:
// now, if what it takes is there again by then.
func (l *Limiter) yield(ln *lane, earlier []*lane, now bucket.Instant) (at bucket.Instant, by *account) {
	for _, a := range ln.accounts {
		ahead := 0
		for i, e := range earlier {
			if !slices.Contains(e.accounts, a) {
				continue
			}
			ahead++
			if again := a.bucket.Ready(now, ahead+1); again > l.goes[i] {
				return l.goes[i], a
			}
		}
	}
	return now, nil
}

// grant gives a permit to the head of ln.
func (l *Limiter) grant(ln *lane, now bucket.Instant) {
	w := ln.line[0]
	l.quit(w, now)
	w.seqs = ln.take(w.went, w.hold)
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
