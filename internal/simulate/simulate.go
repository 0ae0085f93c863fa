// Package simulate runs the client's own buckets under a virtual clock against
// a model of the server: for planning, and to try the learning of limits on
// many seeds. A run is a function of its Config alone.
//
// What is the product's own code here is package bucket: pace, gates and
// learning. The server is a model that shares nothing with it, the line is
// first come, first served, and no time passes in the client.
package simulate

import (
	"math/rand/v2"
	"time"

	"github.com/headgate/headgate/internal/bucket"
)

// Config is one run.
type Config struct {
	Seed uint64
	// Limits are the server's. A request draws on all of them (or on those
	// that its Client names), or is refused by the first that has no room.
	Limits     []Limit
	RetryAfter RetryAfter
	Outages    []Outage

	// OneWay is how long a request, and an answer, is on its way; Service
	// how long the server works on one that it accepts. Each gets up to
	// its Jitter more.
	OneWay, OneWayJitter   time.Duration
	Service, ServiceJitter time.Duration
	// SlowRefusals: a refusal takes Service as well.
	SlowRefusals bool

	Clients []Client
	// Arrivals are calls that go to the clients in turn. May be nil.
	Arrivals Source
	// Until ends the run, done or not. 0 is a day.
	Until time.Duration
	// Horizon is until when limits are watched, although nothing may be
	// left to do.
	Horizon time.Duration
	// Timeline: the result has one.
	Timeline bool
	// Poll, if set, is called now and then. The run ends when it returns
	// false.
	Poll func(Status) bool
}

// Source yields arrivals in order of time, until ok is false.
type Source func() (a Arrival, ok bool)

// Arrival is Count calls at one instant.
type Arrival struct {
	At    time.Duration
	Count int
	Class uint8
}

// Classes is how many classes of calls there are. Those of class 0 go first.
const Classes = 8

// Status is how far a run is.
type Status struct {
	Now            time.Duration
	Arrived, Ended int
}

// Policy is how a client goes about its calls.
type Policy int

const (
	// Paced is headgate: one bucket for each limit, and all callers wait.
	Paced Policy = iota
	// Loop is what is widely copied: each caller sends at once. After a 429
	// it sleeps for Retry-After (2 s if there is none) and up to a second
	// more, after another error for 1, 2, 4, … seconds, and after five
	// attempts it gives up.
	Loop
	// Best knows what the server has left and wastes no time: nobody can be
	// faster.
	Best
)

// loopAttempts is how often the loop tries, loopRetryAfter how long it sleeps
// when it is not told.
const (
	loopAttempts   = 5
	loopRetryAfter = 2 * time.Second
)

// Client is one process. Those of a run share nothing.
type Client struct {
	Policy Policy
	// Rules are what it is told of each of the limits it draws on, if it is
	// Paced.
	Rules []bucket.Rule
	// Limits are the indexes of those; nil is all of them. At most 8.
	Limits []int
	// N requests are there from Start on.
	N     int
	Start time.Duration
	// Callers is how many calls are under way at once. 0 is any number.
	Callers int
	// Spread is added to each Retry-After: see headgate.LimiterConfig.
	Spread float64
}

// Result is what came of a run.
type Result struct {
	Clients []ClientResult
	Limits  []LimitResult
	// Span is from the first start to the last answer, End when the limits
	// were looked at last.
	Span, End time.Duration
	// Arrived are calls. Of these Accepted and Lost have come to an end.
	Arrived, Lost int
	// Accepted, Refused (429) and Failed (503) are answers.
	Accepted, Refused, Failed int
	// Early are requests sent while a Retry-After ran that their client had
	// received.
	Early int
	// Others is what other traffic drew from the first limit.
	Others int
	// Waits is how long calls waited from when they came until the attempt
	// that was accepted left, by class.
	Waits   [Classes]Histogram
	Backlog Backlog
	// Stopped: Poll has ended it.
	Stopped  bool
	Timeline *Timeline
}

// Backlog is how many calls waited, in line or after a refusal.
type Backlog struct {
	// Peak is the most, reached At. Nobody waited any more at Gone, which
	// is -1 if that did not happen.
	Peak     int
	At, Gone time.Duration
}

// LimitResult is how full a limit was: Level as a mean share, Empty the share
// of the time in which it had no room.
type LimitResult struct{ Level, Empty float64 }

// ClientResult is one client's part.
type ClientResult struct {
	Accepted, Refused, Failed, Early, Lost int
	// Done is when its last request was answered.
	Done time.Duration
}

type kind uint8

const (
	start kind = iota
	atServer
	accepted
	refused
	failed
	again // a caller of Loop has slept
)

type event struct {
	at     time.Duration
	order  uint64
	kind   kind
	client int32
	req    int32
}

// request is one call that was sent.
type request struct {
	taken    time.Duration
	seqs     [clientLimits]uint64
	came     time.Duration
	retry    time.Duration
	has      bool
	class    uint8
	attempts uint8
	limit    uint8 // of the client's, that refused it
}

const clientLimits = 8

// run is a run under way.
type run struct {
	cfg     Config
	rng     *rand.Rand
	now     time.Duration
	order   uint64
	events  []event
	reqs    []request
	free    []int32
	limits  []*limitState
	clients []*client
	watch   func(Sample)
	turn    int // the client that gets the next arrival
	wakeAt  time.Duration
	wakes   int // the client whose clock wakeAt is
	waiting int
	Result
}

// Sample is what a watcher sees after each event.
type Sample struct {
	At     time.Duration
	Client int
	Bucket *bucket.Bucket
	Kind   string
	Level  float64
}

type client struct {
	Client
	ClientResult
	buckets []bucket.Bucket
	lines   [Classes]line
	left    int // in the lines
	busy    int // callers whose call is under way
	wakeAt  time.Duration
	gate    time.Duration // as the server has announced it
}

// Run simulates.
func Run(cfg Config) Result { return Watch(cfg, nil) }

// Watch is Run, and calls watch after each event of a client.
func Watch(cfg Config, watch func(Sample)) Result {
	if cfg.Until == 0 {
		cfg.Until = 24 * time.Hour
	}
	r := &run{cfg: cfg, rng: rand.New(rand.NewPCG(cfg.Seed, 0x9e3779b97f4a7c15)), watch: watch, wakeAt: Never}
	if cfg.Timeline {
		r.Timeline = newTimeline()
	}
	for i, l := range cfg.Limits {
		s := newLimitState(l, r.rng)
		s.index, s.timeline = i, r.Timeline
		r.limits = append(r.limits, s)
	}
	for i, c := range cfg.Clients {
		cl := &client{Client: c, wakeAt: Never}
		if c.Limits == nil {
			for i := range cfg.Limits {
				cl.Limits = append(cl.Limits, i)
			}
		}
		for _, rule := range c.Rules {
			cl.buckets = append(cl.buckets, bucket.New(rule))
		}
		r.clients = append(r.clients, cl)
		r.push(c.Start, start, i, 0)
	}
	r.loop()
	return r.result()
}

// pollEvery is how many events pass between two calls of Poll: some
// milliseconds.
const pollEvery = 1 << 14

// loop handles events until there are none. The next arrival is not among them:
// there is always one, and it comes in order.
func (r *run) loop() {
	next := func() (Arrival, bool) { return Arrival{}, false }
	if r.cfg.Arrivals != nil {
		next = r.cfg.Arrivals
	}
	a, more := next()
	for n := 1; ; n++ {
		if n%pollEvery == 0 && r.cfg.Poll != nil && !r.cfg.Poll(Status{r.now, r.Arrived, r.ended()}) {
			r.Stopped = true
			return
		}
		at := r.wakeAt
		if len(r.events) > 0 {
			at = min(at, r.events[0].at)
		}
		if more {
			at = min(at, a.At)
		}
		if at == Never || at > r.cfg.Until {
			return
		}
		r.now = at
		switch {
		case more && a.At == at:
			r.arrive(a)
			a, more = next()
		case r.wakeAt == at:
			id := r.woken()
			r.dispatch(r.clients[id], id)
		default:
			r.handle(r.pop())
		}
		r.note()
	}
}

// Never is an instant that does not come.
const Never = bucket.Never

// arrive hands calls to the clients in turn.
func (r *run) arrive(a Arrival) {
	each, rest := a.Count/len(r.clients), a.Count%len(r.clients)
	for range min(a.Count, len(r.clients)) {
		c, id := r.clients[r.turn], r.turn
		r.turn = (r.turn + 1) % len(r.clients)
		n := each
		if rest > 0 {
			n++
			rest--
		}
		r.join(c, a.Class, n)
		r.dispatch(c, id)
	}
}

// join puts n calls in line.
func (r *run) join(c *client, class uint8, n int) {
	c.lines[class].push(r.now, n)
	c.left += n
	r.waiting += n
	r.Arrived += n
	if r.Timeline != nil {
		r.Timeline.slot(r.now).Arrived += n
	}
}

// note looks at the backlog after an event.
func (r *run) note() {
	b := &r.Backlog
	if r.waiting > b.Peak {
		*b = Backlog{r.waiting, r.now, -1}
	}
	if r.waiting == 0 && b.Gone < 0 {
		b.Gone = r.now
	}
	if l := r.Timeline; l != nil && l.backlog != r.waiting {
		s := l.slot(r.now)
		l.backlog = r.waiting
		s.Backlog = max(s.Backlog, r.waiting)
	}
}

func (r *run) ended() (n int) {
	for _, c := range r.clients {
		n += c.Accepted + c.Lost
	}
	return n
}

func (r *run) result() Result {
	for _, c := range r.clients {
		r.Clients = append(r.Clients, c.ClientResult)
		r.Span = max(r.Span, c.Done)
		r.Accepted += c.Accepted
		r.Refused += c.ClientResult.Refused
		r.Failed += c.Failed
		r.Early += c.Early
		r.Lost += c.Lost
	}
	r.End = max(r.Span, r.cfg.Horizon)
	if r.ended() < r.Arrived {
		r.End = max(r.End, r.now)
	}
	for _, l := range r.limits {
		l.advance(r.End)
		seconds := max(l.at.Seconds(), 1e-9)
		r.Result.Limits = append(r.Result.Limits, LimitResult{l.filled / seconds, l.empty / seconds})
	}
	r.Others = r.limits[0].others
	return r.Result
}

func (r *run) handle(e event) {
	c := r.clients[e.client]
	switch e.kind {
	case start:
		r.join(c, 0, c.N)
	case atServer:
		r.serve(e)
		return
	case again:
		r.send(c, e.client, e.req)
		return
	default:
		r.answer(c, e)
	}
	r.dispatch(c, int(e.client))
}

// standing returns how many callers of c stand in line.
func (c *client) standing() int {
	n := c.left
	if c.Callers > 0 {
		n = min(n, c.Callers-c.busy)
	}
	return n
}

// dispatch sends what may go, and sets the clock for the next.
func (r *run) dispatch(c *client, id int) {
	for c.standing() > 0 {
		if at := r.ready(c); at > r.now {
			if at < c.wakeAt {
				r.wake(id, at)
			}
			return
		}
		n := r.request()
		q := &r.reqs[n]
		for class := range c.lines {
			if l := &c.lines[class]; l.n > 0 {
				q.came, q.class = l.pop(), uint8(class)
				break
			}
		}
		c.left--
		c.busy++
		r.send(c, int32(id), n)
	}
}

// ready returns when c sends its next one.
func (r *run) ready(c *client) time.Duration {
	at := r.now
	switch c.Policy {
	case Paced:
		for i := range c.buckets {
			at = max(at, c.buckets[i].Ready(r.now, 1))
		}
	case Best:
		for _, o := range r.cfg.Outages {
			if r.now >= o.From && r.now < o.To {
				at = max(at, o.To)
			}
		}
		for _, i := range c.Client.Limits {
			l := r.limits[i]
			l.advance(r.now)
			_, wait := l.room(r.now)
			at = max(at, r.now+wait)
		}
	}
	return at
}

// send puts a request on the wire.
func (r *run) send(c *client, id, n int32) {
	q := &r.reqs[n]
	q.taken = r.now
	q.attempts++
	r.waiting--
	way := r.vary(r.cfg.OneWay, r.cfg.OneWayJitter)
	switch c.Policy {
	case Paced:
		for i := range c.buckets {
			q.seqs[i] = c.buckets[i].Take(r.now, false, c.standing())
		}
	case Best: // the server sees it at once: what it has left must not change
		r.accept(c, id, n, way)
		return
	}
	if r.now < c.gate {
		c.Early++
	}
	r.push(r.now+way, atServer, int(id), n)
}

func (r *run) vary(d, jitter time.Duration) time.Duration {
	if jitter > 0 {
		d += time.Duration(r.rng.Int64N(int64(jitter) + 1))
	}
	return d
}

// serve is the server's side of a request.
func (r *run) serve(e event) {
	q := &r.reqs[e.req]
	c := r.clients[e.client]
	back := r.vary(r.cfg.OneWay, r.cfg.OneWayJitter)
	for _, o := range r.cfg.Outages {
		if r.now >= o.From && r.now < o.To {
			q.retry, q.has = Ceil.announce(o.To-r.now, r.rng)
			r.refuse(e, failed, back)
			return
		}
	}
	for i, n := range c.Client.Limits {
		l := r.limits[n]
		l.advance(r.now)
		if ok, wait := l.room(r.now); !ok {
			q.limit = uint8(i)
			q.retry, q.has = r.cfg.RetryAfter.announce(wait, r.rng)
			if r.cfg.SlowRefusals {
				back += r.vary(r.cfg.Service, r.cfg.ServiceJitter)
			}
			r.refuse(e, refused, back)
			return
		}
	}
	r.accept(c, e.client, e.req, back)
}

func (r *run) refuse(e event, how kind, back time.Duration) {
	if r.Timeline != nil {
		r.Timeline.slot(r.now).Refused++
	}
	r.push(r.now+back, how, int(e.client), e.req)
}

func (r *run) accept(c *client, id, req int32, back time.Duration) {
	for _, n := range c.Client.Limits {
		r.limits[n].draw(r.now)
	}
	if r.Timeline != nil {
		r.Timeline.slot(r.now).Accepted++
	}
	r.push(r.now+back+r.vary(r.cfg.Service, r.cfg.ServiceJitter), accepted, int(id), req)
}

// answer is the client's side of an answer.
func (r *run) answer(c *client, e event) {
	q := &r.reqs[e.req]
	what := "accepted"
	switch e.kind {
	case accepted:
		c.busy--
		c.Accepted++
		c.Done = r.now
		r.waited(q.class, q.taken-q.came)
		for i := range c.buckets {
			c.buckets[i].Accepted(q.taken, q.seqs[i], r.now)
		}
	default:
		what = "failed"
		if e.kind == failed {
			c.Failed++
		} else {
			c.ClientResult.Refused++
			what = "refused"
		}
		r.waiting++
		if q.has {
			c.gate = max(c.gate, r.now+q.retry)
		}
		if c.Policy == Loop {
			if r.sleep(c, e, q) {
				return
			}
			break
		}
		c.busy--
		c.left++
		c.lines[q.class].back(q.came)
		for i := range c.buckets {
			if i != int(q.limit) {
				c.buckets[i].Missed(q.taken, q.seqs[i])
			}
		}
		b := &c.buckets[q.limit]
		wait := q.retry
		if q.has && wait == 0 {
			wait = 50 * time.Millisecond << min(b.NextRefusal(q.taken), 6)
		} else if !q.has {
			var ok bool
			if wait, ok = b.Missing(q.taken); !ok {
				wait = 5 * time.Second << min(b.NextRefusal(q.taken), 4)
			}
		}
		wait += time.Duration(r.rng.Float64() * min(c.Spread*float64(wait), 1e9))
		b.Refused(q.taken, q.seqs[q.limit], r.now, r.now+wait, q.retry, e.kind == failed)
	}
	if r.watch != nil && len(c.buckets) > 0 {
		r.watch(Sample{r.now, int(e.client), &c.buckets[0], what, r.limits[0].level})
	}
	r.free = append(r.free, e.req)
}

// sleep is what a caller of Loop does after a refusal. It reports whether the
// call goes on.
func (r *run) sleep(c *client, e event, q *request) bool {
	if q.attempts == loopAttempts {
		c.busy--
		c.Lost++
		c.Done = r.now
		r.waiting--
		if r.Timeline != nil {
			r.Timeline.slot(r.now).Lost++
		}
		return false
	}
	wait := time.Second << (q.attempts - 1)
	if e.kind == refused {
		wait = loopRetryAfter
		if q.has {
			wait = q.retry
		}
		wait += time.Duration(r.rng.Int64N(int64(time.Second)))
	}
	r.push(r.now+wait, again, int(e.client), e.req)
	return true
}

func (r *run) waited(class uint8, d time.Duration) {
	r.Waits[class].Add(d)
	if r.Timeline == nil {
		return
	}
	s := r.Timeline.slot(r.now)
	s.Answered++
	s.Waited += d
	s.MaxWait = max(s.MaxWait, d)
}

func (r *run) request() int32 {
	if n := len(r.free); n > 0 {
		id := r.free[n-1]
		r.free = r.free[:n-1]
		r.reqs[id] = request{}
		return id
	}
	r.reqs = append(r.reqs, request{})
	return int32(len(r.reqs) - 1)
}

// push and pop keep the events of requests as a heap, moving a hole instead of
// swapping: most of a run's time is spent here.
func (r *run) push(at time.Duration, k kind, client int, req int32) {
	r.order++
	e := event{at, r.order, k, int32(client), req}
	r.events = append(r.events, e)
	i := len(r.events) - 1
	for i > 0 {
		parent := (i - 1) / 2
		if !e.before(&r.events[parent]) {
			break
		}
		r.events[i] = r.events[parent]
		i = parent
	}
	r.events[i] = e
}

func (e *event) before(f *event) bool {
	return e.at < f.at || e.at == f.at && e.order < f.order
}

func (r *run) pop() event {
	top := r.events[0]
	n := len(r.events) - 1
	last := r.events[n]
	r.events = r.events[:n]
	i := 0
	for {
		c := 2*i + 1
		if c >= n {
			break
		}
		if c+1 < n && r.events[c+1].before(&r.events[c]) {
			c++
		}
		if !r.events[c].before(&last) {
			break
		}
		r.events[i] = r.events[c]
		i = c
	}
	if n > 0 {
		r.events[i] = last
	}
	return top
}

// wake sets the clock of a client. There are few clients, and each has one, so
// that these events need no heap.
func (r *run) wake(id int, at time.Duration) {
	r.clients[id].wakeAt = at
	if at < r.wakeAt {
		r.wakeAt, r.wakes = at, id
	}
}

// woken takes the first of these clocks, which is due.
func (r *run) woken() (id int) {
	id = r.wakes
	r.clients[id].wakeAt = Never
	r.wakeAt = Never
	for i, c := range r.clients {
		if c.wakeAt < r.wakeAt {
			r.wakeAt, r.wakes = c.wakeAt, i
		}
	}
	return id
}
