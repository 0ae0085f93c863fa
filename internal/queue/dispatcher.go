package queue

import (
	"cmp"
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
// such can't go on (wrong credentials, say), and stops the dispatcher, or with
// Endure lets it pause. The execution is then handed back if it had not left, and decided by
// its Delivery if it had. The error of a ctx that ended is no such
// error, and neither is leave's.
type Sender func(ctx context.Context, x Execution, leave func() error) (Step, error)

// Why leave refuses. Run never returns these.
var (
	errStopped   = errors.New("no more work is taken")
	errDeadline  = fmt.Errorf("the execution's %w", context.DeadlineExceeded)
	errReturned  = errors.New("leave called after its Sender returned")
	errWithdrawn = errors.New("the execution was cancelled")
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
	// Concurrency is how many Sends run at once; 0 means 200. If all of them
	// wait for their permits, that many again may run beside them, of
	// executions that come before some of those in the queue: see Wake. Half of
	// these are for those that are more urgent alone.
	Concurrency int
	// Delivery decides what becomes of an attempt that left and whose Send
	// returned an error, if the execution has no Delivery of its own. Zero
	// means AtLeastOnce.
	Delivery Delivery
	// Stay keeps Run waiting for new work when everything has ended.
	Stay bool
	// Endure keeps Run going when the store or the Sender fails: it takes
	// and starts nothing for a while and then tries with one, again and
	// again, after pauses that double: from 100 ms up to 5 s for the store,
	// from 1 s up to a minute for the Sender. What is in flight is recorded
	// as soon as it can be, and what the store may have claimed without
	// saying so is queued again. Trouble says what is the matter. Only a
	// store that was closed ends Run.
	Endure bool
	// Observe, if set, is called once for every recorded step, after it is
	// on disk, with the execution as it now stands: attempts, polls, and
	// deadlines that passed, and what Cancel withdrew from the dispatcher's
	// hands, but not what is handed back. It is called from
	// many goroutines at once, and holds its execution's slot meanwhile.
	Observe func(Execution, Step)
	// Within bounds how long the recording of one step may take, trying
	// again while the disk is full; 0 means 30 s. With Endure it counts from
	// the end of take.
	Within time.Duration
	// Logger is told what is odd; nil discards.
	Logger *slog.Logger

	once sync.Once
	wake chan struct{}
	asks chan *ask // from Cancel to the loop

	mu      sync.Mutex    // guards what follows
	knocked bool          // Wake was called since the loop looked
	first   Place         // the best place that it was told, if so
	over    chan struct{} // closed when the Run under way ends; nil for none
	// What is in the way, by what it was met with.
	claiming, recording, sending trouble
}

func (d *Dispatcher) init() {
	d.once.Do(func() {
		// One knock is kept, so that one that comes while Run is busy, or
		// before it, is not lost.
		d.wake = make(chan struct{}, 1)
		d.asks = make(chan *ask)
	})
}

// Wake tells a running dispatcher to look for work: call it after an Add, with
// the best place that was added. It never blocks.
//
// What comes before the worst in the dispatcher's hands is claimed at once,
// although all its slots may be taken by executions that wait for a permit;
// whoever hands out the permits can then let it go first. Without a Wake, or
// when it becomes due later, it waits for a slot, or a second.
func (d *Dispatcher) Wake(p Place) {
	d.init()
	d.mu.Lock()
	if !d.knocked || p.Before(d.first) {
		d.knocked, d.first = true, p
	}
	d.mu.Unlock()
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// woken returns what Wake was told since it was last called.
func (d *Dispatcher) woken() Place {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.knocked {
		return LastPlace()
	}
	d.knocked = false
	return d.first
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
// first error, wrapped; but see Endure. A step that could not be recorded within the bound
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
	d.init()
	r, end, err := d.begin(take, do)
	if err != nil {
		return err
	}
	defer end()
	return r.loop()
}

// begin makes the state of one Run. end is to be called when it is over.
func (d *Dispatcher) begin(take, do context.Context) (r *run, end func(), err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.over != nil {
		return nil, nil, errors.New("dispatcher: it is running already")
	}
	d.over = make(chan struct{})
	d.claiming = trouble{first: storePause, most: storeMost}
	d.recording = d.claiming
	d.sending = trouble{first: sendPause, most: sendMost}
	r = &run{
		d:        d,
		limit:    cmp.Or(d.Concurrency, 200),
		within:   cmp.Or(d.Within, 30*time.Second),
		log:      d.Logger,
		do:       do,
		best:     LastPlace(),
		hand:     map[int64]*attempt{},
		finished: make(chan finish),
		claimed:  make(chan claim),
		changed:  make(chan struct{}, 1),
		timer:    time.NewTimer(time.Hour),
		retry:    time.NewTimer(time.Hour),
		peek:     time.NewTimer(time.Hour),
	}
	if r.log == nil {
		r.log = slog.New(slog.DiscardHandler)
	}
	// Ahead of the sends a few are claimed, so that a slot that becomes free
	// need not wait for the disk; few, because a claimed execution can't be
	// overtaken by a more urgent one without one more at once. Claims are
	// made for several at once.
	r.reach = r.limit + r.limit/4
	r.batch = max(1, r.reach/8)

	r.take, r.stop = context.WithCancelCause(take)
	// Whoever gives up what is in flight takes nothing new either.
	untie := context.AfterFunc(do, func() { r.stop(context.Cause(do)) })
	timers := []*time.Timer{r.timer, r.retry, r.peek}
	for _, t := range timers {
		t.Stop()
	}
	return r, func() {
		untie()
		r.stop(nil)
		for _, t := range timers {
			t.Stop()
		}
		d.mu.Lock()
		defer d.mu.Unlock()
		close(d.over)
		d.over = nil
	}, nil
}
