package queue

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"
)

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
	started  crowd              // where those stand in the queue
	running  int                // workers
	claiming bool               // a claim is under way
	hungry   bool               // there may be due work in the store
	again    bool               // became hungry while a claim was under way
	best     Place              // the best place that there may be in the store
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
	// rest is a place that none that is left, and is due, is before.
	rest Place
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
			r.wantMore(LastPlace())
		case <-r.peek.C:
			r.peeking = false
			if r.hungry {
				r.best = firstPlace()
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
	for len(r.ahead) > 0 && r.mayStart(r.ahead[0].Place()) {
		x := r.ahead[0]
		r.ahead = r.ahead[1:]
		r.begin(r.attempt(x))
	}
}

// mayStart reports whether there is a slot for what has that place. Beyond the
// limit there are some for what overtakes others that were started: half as many
// again for those whose turn is earlier, and after them half as many for those
// who are more urgent, who so never wait for those.
func (r *run) mayStart(p Place) bool {
	slot := r.running < r.limit
	if !slot && r.running < 2*r.limit {
		worst := r.started.worst()
		slot = p.Priority < worst.Priority || r.running < r.limit+r.forTurns() && p.Before(worst)
	}
	return slot && r.tryStart()
}

// forTurns is how many more than the limit may be in our hands because their
// turns are earlier than those of others.
func (r *run) forTurns() int { return r.limit / 2 }

// begin lets a worker make the attempt.
func (r *run) begin(a *attempt) {
	r.hand[a.x.ID] = a
	r.started.add(a.x.Place())
	r.start(func() finish {
		f := r.work(a)
		f.a = a
		a.settled(f)
		return f
	})
}

func (r *run) finish(f finish) {
	r.running--
	a := f.a
	delete(r.hand, a.x.ID)
	r.started.remove(a.x.Place())
	if f.queued {
		r.schedule(f.due, a.x.Place())
	}
}

// seek looks for work if there is room for it: for any, or beyond that for what
// comes before something that we have. See mayStart.
func (r *run) seek() {
	if r.claiming {
		return
	}
	room := r.reach - r.held()
	before := LastPlace()
	if !r.hungry || room < r.batch {
		before = r.started.worst()
		if n := len(r.ahead); n > 0 && before.Before(r.ahead[n-1].Place()) {
			before = r.ahead[n-1].Place()
		}
		if room += r.forTurns(); room <= 0 {
			room += r.limit - r.forTurns()
			before.Turn = 0 // only who is more urgent
		}
		if room <= 0 || !r.best.Before(before) {
			return
		}
		room = min(room, r.batch)
	}
	if n := r.tryClaim(room); n > 0 {
		r.look(n, before)
	}
}

// look claims up to n in the background, of those before a place: the loop goes
// on meanwhile.
func (r *run) look(n int, before Place) {
	r.claiming, r.best = true, before
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
	if before == LastPlace() {
		r.hungry = false
	}
	go func() { r.claimed <- r.claim(n, before) }()
}

func (r *run) claim(n int, before Place) (c claim) {
	// Not with take: a claim that take interrupts may have been made.
	ctx, cancel := r.recording()
	defer cancel()
	c.rest = LastPlace()
	some := before != LastPlace()
	if some {
		c.xs, c.err = r.d.Store.ClaimBefore(ctx, time.Now(), before, n)
	} else {
		c.xs, c.err = r.d.Store.Claim(ctx, time.Now(), n)
	}
	if c.err != nil {
		c.err = fmt.Errorf("claiming work: %w", c.err)
		return c
	}
	if len(c.xs) == n {
		c.more, c.rest = true, c.xs[n-1].Place()
		return c
	}
	if some {
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
	c.rest = LastPlace()
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
	slices.SortStableFunc(r.ahead, func(a, b Execution) int { return a.Place().Compare(b.Place()) })
	switch {
	case c.err != nil:
		r.met(&r.d.claiming, c.err)
		r.orphans, r.hungry, r.best = true, true, firstPlace()
	case c.found:
		r.well(&r.d.claiming)
		r.orphans, r.hungry, r.best = false, true, firstPlace()
	default:
		r.well(&r.d.claiming)
		r.best = earlier(r.best, c.rest)
		r.hungry = r.hungry || c.more
	}
	r.hungry = r.hungry || r.again
	r.again = false
	if !c.next.IsZero() {
		r.schedule(c.next, LastPlace())
	}
	asked := r.asked
	r.asked = nil
	for _, a := range asked {
		r.answer(a)
	}
}

// wantMore notes that something with that place may be due. A claim that is under
// way may have looked too early to see it.
func (r *run) wantMore(p Place) {
	r.best = earlier(r.best, p)
	if r.claiming {
		r.again = true
	} else {
		r.hungry = true
	}
}

// schedule notes that something is due at due.
func (r *run) schedule(due time.Time, p Place) {
	wait := time.Until(due)
	if due.IsZero() || wait <= 0 {
		r.wantMore(p)
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
