package queue

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"sync"
	"time"
)

// nobody is the priority of no execution at all.
const nobody = math.MaxInt

// peekAfter is how often a dispatcher whose hands are full looks whether
// something urgent has come due.
const peekAfter = time.Second

// run is the state of one Run. Unless said otherwise its fields belong to the
// loop's goroutine.
type run struct {
	d      *Dispatcher
	limit  int // sends at once
	reach  int // executions in our hands at once
	batch  int // least number worth a claim
	within time.Duration
	log    *slog.Logger

	take context.Context // ends when no more may be taken
	stop context.CancelCauseFunc
	do   context.Context // ends when what is in flight must be given up

	ahead    []Execution        // claimed, not yet started, the most urgent first
	hand     map[int64]*attempt // started, by ID
	urgency  map[int]int        // how many of those have which priority
	running  int                // workers
	claiming bool               // a claim is under way
	hungry   bool               // there may be due work in the store
	again    bool               // became hungry while a claim was under way
	best     int                // the best priority that there may be in the store
	orphans  bool               // what a failed claim may have claimed is to be looked for
	asked    []*ask             // about what a claim under way may bring
	next     time.Time          // what the timer is set for; zero for nothing
	peeking  bool               // peek is set

	timer *time.Timer // for what comes due
	retry *time.Timer // for the end of a pause
	peek  *time.Timer // for what is urgent and comes due

	finished chan finish
	claimed  chan claim
	changed  chan struct{} // trouble came or went

	mu    sync.Mutex // guards first
	first error      // why the run fails
}

// finish is a worker's last word: what of its execution waits in the store.
type finish struct {
	a      *attempt // nil for one that was handed back unstarted
	queued bool
	due    time.Time

	// x is the execution as it was recorded, unless err says why it was not.
	x   Execution
	err error
	// withdrawn: it was recorded as cancelled.
	withdrawn bool
}

// claim is what a claim found.
type claim struct {
	xs  []Execution
	err error
	// more: there may be more that is due now.
	more bool
	// next is when the next is due, if some is.
	next time.Time
	// rest is a priority that none that is left, and is due, is better than.
	rest int
	// urgent: it was only for what is urgent.
	urgent bool
	// found: it was for what a failed claim may have left, and went well.
	found bool
}

// fail makes the run end with err, after what is in flight.
func (r *run) fail(err error) {
	r.mu.Lock()
	if r.first == nil {
		r.first = err
	}
	r.mu.Unlock()
	r.stop(errStopped)
}

func (r *run) failure() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.first
}

func (r *run) loop() error {
	r.hungry = true
	for r.take.Err() == nil {
		r.startAhead()
		r.seek()
		if r.idle() && !r.d.Stay && r.try(&r.d.claiming) {
			ended, err := r.ended()
			if err == nil && ended {
				return nil
			}
			continue
		}
		r.setTimers()
		select {
		case f := <-r.finished:
			r.finish(f)
		case c := <-r.claimed:
			r.took(c)
		case <-r.timer.C:
			r.next = time.Time{}
			r.wantMore(nobody)
		case <-r.peek.C:
			r.peeking = false
			if r.hungry {
				r.best = math.MinInt
			}
		case <-r.d.wake:
			r.wantMore(r.d.woken())
		case a := <-r.d.asks:
			r.answer(a)
		case <-r.changed:
		case <-r.retry.C:
		case <-r.take.Done():
		}
	}
	r.wind()
	return r.failure()
}

// idle reports whether nothing is in our hands and nothing seems to be due.
func (r *run) idle() bool {
	return r.held() == 0 && !r.claiming && !r.hungry && r.next.IsZero()
}

// held is how many executions are in our hands.
func (r *run) held() int { return r.running + len(r.ahead) }

// wind brings what is in our hands back, or to its end.
func (r *run) wind() {
	if r.claiming {
		c := <-r.claimed
		r.ahead = append(r.ahead, c.xs...)
		if c.err != nil {
			r.fail(c.err)
		}
	}
	for _, x := range r.ahead {
		r.start(func() finish { return r.handBack(x) })
	}
	r.ahead, r.claiming = nil, false
	for _, a := range r.asked {
		r.answer(a)
	}
	for r.running > 0 {
		select {
		case f := <-r.finished:
			r.running--
			if f.a != nil {
				delete(r.hand, f.a.x.ID)
			}
		case a := <-r.d.asks:
			r.answer(a)
		}
	}
}

// start runs work in a goroutine that the loop hears of.
func (r *run) start(work func() finish) {
	r.running++
	go func() { r.finished <- work() }()
}

// startAhead starts what is claimed, as far as there are slots for it.
func (r *run) startAhead() {
	for len(r.ahead) > 0 && r.mayStart(r.ahead[0].Priority) {
		x := r.ahead[0]
		r.ahead = r.ahead[1:]
		r.begin(r.attempt(x))
	}
}

func (r *run) mayStart(priority int) bool {
	slot := r.running < r.limit || r.running < 2*r.limit && priority < r.worst()
	return slot && r.tryStart()
}

// begin lets a worker make the attempt.
func (r *run) begin(a *attempt) {
	r.hand[a.x.ID] = a
	r.urgency[a.x.Priority]++
	r.start(func() finish {
		f := r.work(a)
		f.a = a
		a.settled(f)
		return f
	})
}

// worst is the worst priority of those that are started, the best possible if
// none is.
func (r *run) worst() int {
	worst := math.MinInt
	for p := range r.urgency {
		worst = max(worst, p)
	}
	return worst
}

func (r *run) finish(f finish) {
	r.running--
	a := f.a
	delete(r.hand, a.x.ID)
	if r.urgency[a.x.Priority]--; r.urgency[a.x.Priority] == 0 {
		delete(r.urgency, a.x.Priority)
	}
	if f.queued {
		r.schedule(f.due, a.x.Priority)
	}
}

// seek looks for work if there is room for it: for any, or beyond that for what
// is more urgent than something that we have.
func (r *run) seek() {
	if r.claiming {
		return
	}
	room := r.reach - r.held()
	worst := r.worst()
	if n := len(r.ahead); n > 0 {
		worst = max(worst, r.ahead[n-1].Priority)
	}
	switch {
	case r.hungry && room >= r.batch:
		if n := r.tryClaim(room); n > 0 {
			r.look(n, nobody)
		}
	case r.best < worst && room+r.limit > 0:
		if n := r.tryClaim(min(r.batch, room+r.limit)); n > 0 {
			r.look(n, worst)
		}
	}
}

// look claims up to n in the background, of those below a priority: the loop
// goes on meanwhile.
func (r *run) look(n, below int) {
	r.claiming, r.best = true, nobody
	if r.orphans {
		ours := make(map[int64]bool, r.held())
		for id := range r.hand {
			ours[id] = true
		}
		for _, x := range r.ahead {
			ours[x.ID] = true
		}
		go func() { r.claimed <- r.reclaim(ours) }()
		return
	}
	if below == nobody {
		r.hungry = false
	}
	go func() { r.claimed <- r.claim(n, below) }()
}

func (r *run) claim(n, below int) (c claim) {
	// Not with take: a claim that take interrupts may have been made.
	ctx, cancel := r.recording()
	defer cancel()
	c.rest, c.urgent = nobody, below != nobody
	if c.urgent {
		c.xs, c.err = r.d.Store.ClaimUrgent(ctx, time.Now(), below, n)
	} else {
		c.xs, c.err = r.d.Store.Claim(ctx, time.Now(), n)
	}
	if c.err != nil {
		c.err = fmt.Errorf("claiming work: %w", c.err)
		return c
	}
	if len(c.xs) == n {
		c.more, c.rest = true, c.xs[n-1].Priority
		return c
	}
	if c.urgent {
		return c
	}
	due, ok, err := r.d.Store.NextDue(ctx)
	switch {
	case err != nil:
		c.err = fmt.Errorf("looking for work: %w", err)
	case ok && !due.After(time.Now()):
		c.more = true // added or come due since the claim
	case ok:
		c.next = due
	}
	return c
}

// reclaim queues what is claimed or sent in the store and is not ours: a claim
// that failed may have been made. Nobody else claims.
func (r *run) reclaim(ours map[int64]bool) (c claim) {
	ctx, cancel := r.recording()
	defer cancel()
	c.rest = nobody
	for x, err := range r.d.Store.Each(ctx, Filter{States: []State{Claimed, Sent}}) {
		if err == nil && ours[x.ID] {
			continue
		}
		if err == nil {
			err = r.d.Store.Update(ctx, recovery(x, r.d.Delivery, time.Now()))
		}
		if err != nil && !errors.Is(err, ErrStale) {
			c.err = fmt.Errorf("looking for what a failed claim has left: %w", err)
			return c
		}
	}
	c.found = true
	return c
}

// took takes in what a claim found.
func (r *run) took(c claim) {
	r.claiming = false
	r.ahead = append(r.ahead, c.xs...)
	slices.SortStableFunc(r.ahead, func(a, b Execution) int { return cmp.Compare(a.Priority, b.Priority) })
	switch {
	case c.err != nil:
		r.met(&r.d.claiming, c.err)
		r.orphans, r.hungry, r.best = true, true, math.MinInt
	case c.found:
		r.well(&r.d.claiming)
		r.orphans, r.hungry, r.best = false, true, math.MinInt
	default:
		r.well(&r.d.claiming)
		r.best = min(r.best, c.rest)
		r.hungry = r.hungry || c.more
	}
	r.hungry = r.hungry || r.again
	r.again = false
	if !c.next.IsZero() {
		r.schedule(c.next, nobody)
	}
	asked := r.asked
	r.asked = nil
	for _, a := range asked {
		r.answer(a)
	}
}

// wantMore notes that something of that priority may be due. A claim that is
// under way may have looked too early to see it.
func (r *run) wantMore(priority int) {
	r.best = min(r.best, priority)
	if r.claiming {
		r.again = true
	} else {
		r.hungry = true
	}
}

// schedule notes that something is due at due.
func (r *run) schedule(due time.Time, priority int) {
	wait := time.Until(due)
	if due.IsZero() || wait <= 0 {
		r.wantMore(priority)
		return
	}
	if r.next.IsZero() || due.Before(r.next) {
		r.next = due
		r.timer.Reset(wait)
	}
}

// setTimers sets what wakes the loop although nothing happens.
func (r *run) setTimers() {
	if at := r.pausedUntil(); !at.IsZero() {
		r.retry.Reset(time.Until(at))
	}
	if r.hungry && !r.claiming && !r.peeking {
		r.peeking = true
		r.peek.Reset(peekAfter)
	}
}

// ended reports whether nothing is open. It is asked when nothing is in our
// hands and nothing seemed to be queued.
func (r *run) ended() (bool, error) {
	ctx, cancel := r.recording()
	defer cancel()
	c, err := r.d.Store.Counts(ctx)
	switch {
	case err != nil:
		err = fmt.Errorf("counting what is open: %w", err)
		r.met(&r.d.claiming, err)
		return false, err
	case c.Open() == 0:
		return true, nil
	case c[Queued] > 0: // added since we looked
		r.hungry = true
		r.well(&r.d.claiming)
		return false, nil
	}
	err = fmt.Errorf("%d claimed, %d sent: %w", c[Claimed], c[Sent], ErrNotRecovered)
	r.fail(err)
	return false, err
}

// recording returns the context of what is written: it ends with neither take
// nor do, but it ends.
func (r *run) recording() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(r.do), r.within)
}

// patience is recording for what has happened already and must not be
// forgotten: with Endure it does not end before take does.
func (r *run) patience() (context.Context, context.CancelFunc) {
	if !r.d.Endure {
		return r.recording()
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(r.do))
	untie := context.AfterFunc(r.take, func() {
		timer := time.NewTimer(r.within)
		defer timer.Stop()
		select {
		case <-timer.C:
			cancel()
		case <-ctx.Done():
		}
	})
	return ctx, func() {
		untie()
		cancel()
	}
}
