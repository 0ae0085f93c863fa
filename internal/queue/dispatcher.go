package queue

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// Step is where one attempt, or one poll, leaves an execution.
type Step struct {
	// To is Queued or an outcome.
	To State
	// Due is when a Queued one may be claimed again; zero for at once.
	Due time.Time
	// Remote is the handle on launched work. An empty one does not erase
	// the one that the execution has: work that was launched is followed
	// to its end and never launched again.
	Remote string
	// Tally replaces the execution's: start from the one given to the
	// Sender. Sent is the exception: the dispatcher counts it, in leave.
	Tally  Tally
	Status int
	Reason string
	Answer []byte
	// AnswerType is the content type of Answer.
	AnswerType string
}

// update is the update of x that records s.
func (s Step) update(x Execution, now time.Time) Update {
	return Update{
		ID: x.ID, From: x.State, To: s.To, Revision: x.Revision, At: now,
		Due: s.Due, Remote: s.Remote, Tally: s.Tally,
		Status: s.Status, Reason: s.Reason, Answer: s.Answer, AnswerType: s.AnswerType,
	}
}

// applied is x as it stands once s is recorded.
func (s Step) applied(x Execution, now time.Time) Execution {
	x.State, x.Due, x.Remote, x.Tally = s.To, s.Due, s.Remote, s.Tally
	x.Status, x.Reason, x.Answer, x.AnswerType = s.Status, s.Reason, s.Answer, s.AnswerType
	x.Revision++
	x.Ended = time.Time{}
	if s.To.Ended() {
		x.Ended = now.UTC().Round(0)
	}
	return x
}

// Sender makes one attempt of x, or one poll if x.Remote is set. It is called
// from many goroutines at once. The x is its own, but for x.Body, which it must
// not change.
//
// It must call leave right before the request goes on the wire, and must not
// send if leave fails. leave returns once "sent" is on disk; of several calls
// the first counts, so a request made again within the same attempt (after a
// 401) may call it again. For a poll leave writes nothing, for a poll may be
// repeated, but call it all the same.
//
// Until leave is called, ctx ends with the taking of work and at x.Deadline,
// so that a wait for a permit ends then; after leave it ends only when the
// work in flight must be given up. A Sender returns soon after ctx ends.
//
// A Sender that never called leave may return Queued for what surely did not
// leave, a poll's result, or an outcome that needs no sending. An error is not
// for what happened to one execution, that is a Step; it says that sending as
// such can't go on (wrong credentials, say), and stops the dispatcher. The
// execution is then handed back if it had not left, and decided by
// its Delivery if it had. The error of a ctx that ended is no such
// error, and neither is leave's.
type Sender func(ctx context.Context, x Execution, leave func() error) (Step, error)

// Why leave refuses. Run never returns these.
var (
	errStopped  = errors.New("no more work is taken")
	errDeadline = fmt.Errorf("the execution's %w", context.DeadlineExceeded)
	errReturned = errors.New("leave called after its Sender returned")
)

// ErrNotRecovered is returned by [Dispatcher.Run] when nothing is queued and
// nothing in its hands, but the store holds executions that are claimed or
// sent: call [Recover] before Run.
var ErrNotRecovered = errors.New("executions of an ended process were not recovered")

// Dispatcher carries executions from a [Store] to a [Sender] and records what
// becomes of them. Set the fields before Run and leave them; the zero value
// needs Store and Send. Do not copy it.
type Dispatcher struct {
	// Store holds the work. One Dispatcher per store, after [Recover].
	Store Store
	// Send makes the attempts.
	Send Sender
	// Concurrency is how many Sends run at once; 0 means 200.
	Concurrency int
	// Delivery decides what becomes of an attempt that left and whose Send
	// returned an error, if the execution has no Delivery of its own. Zero
	// means AtLeastOnce.
	Delivery Delivery
	// Stay keeps Run waiting for new work when everything has ended.
	Stay bool
	// Observe, if set, is called once for every recorded step, after it is
	// on disk, with the execution as it now stands: attempts, polls, and
	// deadlines that passed, but not what is handed back. It is called from
	// many goroutines at once, and holds its execution's slot meanwhile.
	Observe func(Execution, Step)
	// Within bounds how long the recording of one step may take, trying
	// again while the disk is full; 0 means 30 s.
	Within time.Duration
	// Logger is told what is odd; nil discards.
	Logger *slog.Logger

	once sync.Once
	wake chan struct{}
}

// waker returns the channel that Wake knocks at. It holds one knock, so that
// one that comes while Run is busy, or before it, is not lost.
func (d *Dispatcher) waker() chan struct{} {
	d.once.Do(func() { d.wake = make(chan struct{}, 1) })
	return d.wake
}

// Wake tells a running dispatcher to look for work: call it after an Add. It
// never blocks.
func (d *Dispatcher) Wake() {
	select {
	case d.waker() <- struct{}{}:
	default:
	}
}

// Run works until every execution has an outcome, or, with Stay, until take
// ends. It returns nil then.
//
// When take ends, it claims no more, hands back what is claimed and has not
// left, waits for what has, records it, and returns nil; what is open stays in
// the store. When do ends too, the sends in flight are cancelled, and what
// they report is still recorded: recording ends with neither context but has a
// bound of its own (Within).
//
// When the store or the Sender fails, it stops the same way and returns the
// first error, wrapped. A step that could not be recorded within the bound
// leaves its execution as sent, for [Recover] to decide.
//
// No goroutine of its own is left when it returns.
func (d *Dispatcher) Run(take, do context.Context) error {
	if d.Store == nil || d.Send == nil {
		return errors.New("dispatcher: Store and Send must be set")
	}
	if d.Concurrency < 0 || d.Within < 0 {
		return errors.New("dispatcher: Concurrency and Within must not be negative")
	}
	r := &run{
		d:        d,
		limit:    d.Concurrency,
		within:   d.Within,
		log:      d.Logger,
		do:       do,
		finished: make(chan finish),
		claimed:  make(chan claim),
		timer:    time.NewTimer(time.Hour),
	}
	if r.limit == 0 {
		r.limit = 200
	}
	if r.within == 0 {
		r.within = 30 * time.Second
	}
	if r.log == nil {
		r.log = slog.New(slog.DiscardHandler)
	}
	// Ahead of the sends a few are claimed, so that a slot that becomes free
	// need not wait for the disk; few, because a claimed execution can't be
	// overtaken by a more urgent one. Claims are made for several at once.
	r.reach = r.limit + r.limit/4
	r.batch = max(1, r.reach/8)

	r.timer.Stop()
	defer r.timer.Stop()
	r.take, r.stop = context.WithCancelCause(take)
	defer r.stop(nil)
	// Whoever gives up what is in flight takes nothing new either.
	defer context.AfterFunc(do, func() { r.stop(context.Cause(do)) })()
	return r.loop()
}

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

	ahead    []Execution // claimed, not yet started
	running  int         // workers
	claiming bool        // a claim is under way
	hungry   bool        // there may be due work in the store
	again    bool        // became hungry while a claim was under way
	next     time.Time   // what the timer is set for; zero for nothing
	timer    *time.Timer

	finished chan finish
	claimed  chan claim

	mu    sync.Mutex // guards first
	first error      // why the run fails
}

// finish is a worker's last word: what of its execution waits in the store.
type finish struct {
	queued bool
	due    time.Time
}

// claim is what a claim found.
type claim struct {
	xs  []Execution
	err error
	// more: there may be more that is due now.
	more bool
	// next is when the next is due, if some is.
	next time.Time
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
		for len(r.ahead) > 0 && r.running < r.limit {
			x := r.ahead[0]
			r.ahead = r.ahead[1:]
			r.start(func() finish { return r.work(x) })
		}
		held := r.running + len(r.ahead)
		if r.hungry && !r.claiming && r.reach-held >= r.batch {
			r.look(r.reach - held)
		}
		if held == 0 && !r.claiming && !r.hungry && r.next.IsZero() && !r.d.Stay {
			if ended, err := r.ended(); err != nil {
				r.fail(err)
			} else if ended {
				return nil
			}
			continue
		}
		select {
		case f := <-r.finished:
			r.running--
			if f.queued {
				r.schedule(f.due)
			}
		case c := <-r.claimed:
			r.took(c)
		case <-r.timer.C:
			r.next = time.Time{}
			r.wantMore()
		case <-r.d.waker():
			r.wantMore()
		case <-r.take.Done():
		}
	}

	// What is in our hands goes back or comes to its end.
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
	for ; r.running > 0; r.running-- {
		<-r.finished
	}
	return r.failure()
}

// start runs work in a goroutine that the loop hears of.
func (r *run) start(work func() finish) {
	r.running++
	go func() { r.finished <- work() }()
}

// look claims up to n in the background: the loop goes on meanwhile.
func (r *run) look(n int) {
	r.claiming, r.hungry = true, false
	go func() { r.claimed <- r.claim(n) }()
}

func (r *run) claim(n int) (c claim) {
	// Not with take: a claim that take interrupts may have been made.
	ctx, cancel := r.recording()
	defer cancel()
	c.xs, c.err = r.d.Store.Claim(ctx, time.Now(), n)
	if c.err != nil {
		c.err = fmt.Errorf("claiming work: %w", c.err)
		return c
	}
	if len(c.xs) == n {
		c.more = true
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

// took takes in what a claim found.
func (r *run) took(c claim) {
	r.claiming = false
	r.ahead = append(r.ahead, c.xs...)
	if c.err != nil {
		r.fail(c.err)
	}
	r.hungry = c.more || r.again
	r.again = false
	if !c.next.IsZero() {
		r.schedule(c.next)
	}
}

// wantMore notes that something may be due. A claim that is under way may have
// looked too early to see it.
func (r *run) wantMore() {
	if r.claiming {
		r.again = true
	} else {
		r.hungry = true
	}
}

// schedule notes that something is due at due.
func (r *run) schedule(due time.Time) {
	wait := time.Until(due)
	if due.IsZero() || wait <= 0 {
		r.wantMore()
		return
	}
	if r.next.IsZero() || due.Before(r.next) {
		r.next = due
		r.timer.Reset(wait)
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
		return false, fmt.Errorf("counting what is open: %w", err)
	case c.Open() == 0:
		return true, nil
	case c[Queued] > 0: // added since we looked
		r.hungry = true
		return false, nil
	}
	return false, fmt.Errorf("%d claimed, %d sent: %w", c[Claimed], c[Sent], ErrNotRecovered)
}

// recording returns the context of what is written: it ends with neither take
// nor do, but it ends.
func (r *run) recording() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(r.do), r.within)
}
