package headgate

import (
	"cmp"
	"context"
	"encoding/json"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/headgate/headgate/internal/bucket"
)

// LimiterConfig configures a [Limiter]. The zero value is a limiter that knows
// no limit, and still holds everybody back while the server says so.
type LimiterConfig struct {
	// Limits are the rules of the server. An attempt draws on all that
	// match it.
	Limits []Limit
	// Spread is the share of each Retry-After that is added to it as
	// jitter, drawn uniformly once for each closing of a gate, and at most
	// a second: processes that share a limit but no limiter would come back
	// in the same instant otherwise. 0 is 0.1; below 0 is none.
	Spread float64
	// Observer is told when a gate closes and opens and when a permit had
	// to wait. Nil: nobody.
	Observer Observer
}

// Limiter hands out permits: the right to put one attempt on the wire. It
// holds a model of each of the server's buckets and grants a permit when all
// of the buckets that the attempt draws on have a token, taking one from each.
// Whoever has to wait stands in line by [Ask.Priority], then by the share of
// [Ask.Caller], then by arrival. One timer wakes the head of the line; nobody
// polls.
//
// A limit of the server that nobody configured is learned from the refusals that
// name it: see [Permit.Done].
//
// Most callers want a [Transport], which takes a permit for every attempt and
// tells the limiter what came of it. Use a Limiter directly to share it between
// transports, or to pace something else than HTTP: [Limiter.Take], then
// [Permit.Done].
//
// A Limiter is not a lock and not a bound on concurrency: any number of permits
// may be out at once. It is safe for concurrent use.
type Limiter struct {
	epoch    time.Time
	spread   float64
	observer Observer

	mu       sync.Mutex // guards what is below, and all that hangs on it
	limits   []known    // the configured ones first
	learned  int        // how many of them are learned, and not free
	accounts map[accountKey]*account
	lanes    map[laneKey]*lane
	last     *lane   // the lane of the latest Take, found without hashing
	active   []*lane // those in which somebody waits, by their heads' order unless unsorted
	unsorted bool
	goes     []bucket.Instant // scratch space of choose
	arrivals uint64
	waiting  [priorities]int // how many are in line, by priority
	served   served          // by the limiter, to those who waited
	// What callers have had lately, and how many of them make it worth to
	// look for those of no more interest.
	standings     map[callerKey]*standing
	standingsMost int
	uses          map[string]*callerUse
	lastUse       *callerUse // of the latest Take, found without hashing

	share  float64 // that is kept for calls of priority urgent or before; 0: none
	urgent int8
	paused bool
	shut   bool

	timer   *time.Timer // nil until somebody waited
	wakeAt  bucket.Instant
	sweepAt int // how many lanes make it worth to look for idle ones
}

// account is one bucket of one limit: for one token, client, org or path.
type account struct {
	key    accountKey
	name   string
	limit  int // index in Limiter.limits, or implicit
	bucket bucket.Bucket
	// told is the rate that was configured, claimed the one that the server
	// says in its refusals; 0 if there is none.
	told, claimed float64
	unused        json.RawMessage // State.Learned of another rule
	// waiting counts the waiters that draw on it, by priority.
	waiting   [priorities]int
	allowance allowance

	sent, accepted, refused uint64 // see Estimate

	lanes int // how many lanes draw on it; with none, it goes when idle
}

// ImplicitLimit is the name of the limit that stands for those of the server that
// nobody configured: it has no rate until it is refused, and a gate. It counts the
// requests of a token.
const ImplicitLimit = "token"

const implicit = -1 // its index

type accountKey struct {
	limit                    int
	org, client, token, path string
}

// lane is the line of the attempts that draw on the same buckets.
type lane struct {
	key      laneKey
	accounts []*account
	token    *account // whose gate an answer closes that names no limit
	line     line
	// queues are those of the line, and of callers who have had more in
	// this lane than others; queuesMost is how many of them make it worth
	// to look for others.
	queues     map[callerKey]*queue
	queuesMost int
	served     served          // by this lane, to those who waited
	went       bool            // one has gone since it was asked what holds up the line
	ledger                     // what the line waits for
	waiting    [priorities]int // how many are in line, by priority
	out        int             // permits that are not brought to an end
	retired    bool            // other limits hold by now: see SetLimits
}

type laneKey struct {
	org, client, token string
	path               string // the template, if a limit counts paths
	matches            uint64 // which limits match
}

// maxLimits is how many limits a Limiter takes: one bit each in a laneKey.
const maxLimits = 64

// NewLimiter returns a Limiter whose buckets are full. An error names the limit
// and the field.
func NewLimiter(c LimiterConfig) (*Limiter, error) {
	limits, err := configure(c.Limits)
	if err != nil {
		return nil, err
	}
	return &Limiter{
		epoch:    time.Now(),
		limits:   limits,
		spread:   max(0, cmp.Or(c.Spread, 0.1)),
		observer: c.Observer,
		accounts: map[accountKey]*account{},
		lanes:    map[laneKey]*lane{},
		sweepAt:  1024,

		standings: map[callerKey]*standing{},
		uses:      map[string]*callerUse{},
	}, nil
}

// Priority bounds of an [Ask]. They are the urgencies 0 to 7 of RFC 9218, less
// its default of 3, so that the zero value is the normal one.
const (
	MostUrgent  = -3
	LeastUrgent = 4

	priorities = LeastUrgent - MostUrgent + 1
)

// Ask says which buckets an attempt draws on and how it stands in line.
type Ask struct {
	// Org, Client and Token say whose attempt it is, for limits that count
	// these. Any words will do, as long as the same one means the same.
	// Do not use the token itself.
	Org, Client, Token string
	// Path is the path of the URL.
	Path string
	// Priority is from MostUrgent to LeastUrgent; what lies outside counts
	// as the nearer of them. 0 is normal.
	Priority int
	// Caller is on whose behalf the attempt is made. Those of the same
	// Priority who wait are served so that each caller among them gets its
	// share, and the calls of one caller go by arrival. Names come from
	// configuration: tens or hundreds of them. "" is a caller like any
	// other.
	Caller string
	// Weight is how large the share of Caller is beside that of others: a
	// caller with 3 gets three permits for each that one with 1 gets, as
	// long as both wait. 0 is 1; it is kept between 0.001 and 1000. The
	// latest one that a caller has waited with counts.
	Weight float64
	// Until is when the wait has to be over, as the context's deadline, if
	// that is not earlier. Zero: no bound.
	Until time.Time
	// MaxRetryAfter refuses the attempt at once if the server wants
	// everybody to stay away for longer. 0: any time is waited out.
	MaxRetryAfter time.Duration

	// hold: Permit.left will be called when the attempt has its connection.
	hold bool
}

// Permit is the right to make one attempt. It must be brought to an end by one
// call of Done or Return.
type Permit struct {
	// Wait is how long it took to get.
	Wait Wait

	limiter *Limiter
	lane    *lane
	path    string
	taken   bucket.Instant
	seqs    seqs
	queue   *queue // in which it was waited for; nil if it was not
	bulk    bool   // it has left a share to others
}

// seqs are the names that the buckets of a lane have given to an attempt, in the
// order of lane.accounts. Most lanes have few.
type seqs struct {
	few  [3]uint64
	more []uint64
}

func (s *seqs) set(i int, seq uint64) {
	if i < len(s.few) {
		s.few[i] = seq
		return
	}
	s.more = append(s.more, seq)
}

func (s *seqs) at(i int) uint64 {
	if i < len(s.few) {
		return s.few[i]
	}
	return s.more[i-len(s.few)]
}

// level returns the priority, from 0.
func (a *Ask) level() int8 {
	return int8(min(max(a.Priority, MostUrgent), LeastUrgent) - MostUrgent)
}

func (l *Limiter) now() bucket.Instant { return time.Since(l.epoch) }

// Take waits for a permit. It returns a *[LimitError] if the context ends
// first, and at once if the wait would outlast the context's deadline,
// Ask.Until or Ask.MaxRetryAfter; the place in line is given back then.
func (l *Limiter) Take(ctx context.Context, ask Ask) (Permit, error) {
	now := l.now()
	l.mu.Lock()
	l.sweep()
	ln := l.laneFor(&ask)
	if len(l.active) == 0 && !l.paused && !l.shut {
		bulk := l.isBulk(ask.level())
		if l.ready(ln, now, 0, bulk).at <= now && ctx.Err() == nil {
			u := l.use(ask.Caller)
			u.weight = weightOf(ask.Weight)
			u.granted++
			p := Permit{limiter: l, lane: ln, path: ask.Path, taken: now, seqs: l.take(ln, now, ask.hold, bulk), bulk: bulk}
			l.mu.Unlock()
			return p, nil
		}
	}
	w, err := l.queue(ctx, &ask, ln, now)
	l.mu.Unlock()
	if err != nil {
		return Permit{}, err
	}
	return l.await(ctx, w)
}

// laneFor finds or makes the lane for ask. The limiter is locked.
func (l *Limiter) laneFor(ask *Ask) *lane {
	key := laneKey{org: ask.Org, client: ask.Client, token: ask.Token}
	for i := range l.limits {
		k := &l.limits[i]
		if (k.learned || k.Match != "") && !k.covers(ask.Path) { // spared where it is clear
			continue
		}
		key.matches |= 1 << i
		if k.Per == PerPath && key.path == "" {
			key.path = template(ask.Path)
		}
	}
	if l.last != nil && l.last.key == key {
		return l.last
	}
	ln := l.lanes[key]
	if ln == nil {
		ln = l.newLane(key)
	}
	l.last = ln
	return ln
}

// laneBeside finds or makes the lane for requests to path of the same org,
// client and token as those of ln. The limiter is locked.
func (l *Limiter) laneBeside(ln *lane, path string) *lane {
	return l.laneFor(&Ask{Org: ln.key.org, Client: ln.key.client, Token: ln.key.token, Path: path})
}

func (l *Limiter) newLane(key laneKey) *lane {
	ln := &lane{key: key}
	for i := range l.limits {
		if key.matches&(1<<i) == 0 {
			continue
		}
		a := l.account(i, key)
		if slices.Contains(ln.accounts, a) {
			continue // configured for the path, and learned for its template
		}
		ln.accounts = append(ln.accounts, a)
		if ln.token == nil && !l.limits[i].learned && l.limits[i].Per == PerToken {
			ln.token = a
		}
	}
	if ln.token == nil {
		ln.token = l.account(implicit, key)
		ln.accounts = append(ln.accounts, ln.token)
	}
	ln.held = make([]WaitPart, len(ln.accounts))
	for i, a := range ln.accounts {
		a.lanes++
		ln.held[i].Limit = a.name
	}
	l.lanes[key] = ln
	return ln
}

// account finds or makes the bucket of limit i for what lane key says.
func (l *Limiter) account(i int, key laneKey) *account {
	if i != implicit {
		i = l.limits[i].buckets
	}
	k := accountKey{limit: i, org: key.org}
	per, name, rule := PerToken, ImplicitLimit, bucket.Rule{Learn: true, Open: true}
	if i != implicit {
		per, name, rule = l.limits[i].Per, l.limits[i].Name, l.limits[i].rule()
	}
	switch per {
	case PerToken:
		k.client, k.token = key.client, key.token
	case PerClient:
		k.client = key.client
	case PerPath:
		k.path = key.path
	}
	a := l.accounts[k]
	if a == nil {
		a = &account{key: k, name: name, limit: i, bucket: bucket.New(rule), told: rule.PerSecond()}
		a.allowance = allowance{level: 1, at: l.now()}
		l.accounts[k] = a
	}
	return a
}

// sweep drops the lanes that nobody uses, and the buckets that new ones would be
// equal to, when there have come to be many: tokens and paths come and go.
func (l *Limiter) sweep() {
	if len(l.lanes) >= l.sweepAt {
		l.clean()
	}
}

func (l *Limiter) clean() {
	for key, ln := range l.lanes {
		if ln.line.Len() == 0 && ln.out == 0 {
			delete(l.lanes, key)
			for _, a := range ln.accounts {
				a.lanes--
			}
		}
	}
	now := l.now()
	for key, a := range l.accounts {
		if a.lanes == 0 && a.bucket.Idle(now) {
			delete(l.accounts, key)
		}
	}
	l.forget()
	l.last = nil
	l.sweepAt = max(1024, 2*max(len(l.lanes), len(l.accounts)/2))
}

// turn is when somebody can go.
type turn struct {
	at bucket.Instant
	by *account // what holds it up the longest
	// reserved: by has a token before that, and keeps it for urgent calls.
	reserved bool
}

// ready returns when the head of ln can go with ahead more before it.
func (l *Limiter) ready(ln *lane, now bucket.Instant, ahead int, bulk bool) turn {
	t := turn{at: now, by: ln.accounts[0]}
	for _, a := range ln.accounts {
		if at := a.bucket.Ready(now, ahead+1); at > t.at {
			t = turn{at: at, by: a}
		}
		if !bulk {
			continue
		}
		if at := l.allowed(a, now, ahead+1); at > t.at {
			t = turn{at: at, by: a, reserved: true}
		}
	}
	return t
}

// turn estimates when an attempt of priority p that joins the line now will go:
// not later than that, for all who stand in line and are not less urgent count,
// also those who have had more than their share, and those in other lanes that
// other buckets hold up.
func (l *Limiter) turn(ln *lane, now bucket.Instant, p int8) turn {
	latest := turn{at: now, by: ln.accounts[0]}
	for _, a := range ln.accounts {
		all := upTo(a.waiting, int(p))
		bulk := 0
		if l.isBulk(p) {
			bulk = all - upTo(a.waiting, int(l.urgent))
		}
		if t := l.turnAt(a, now, all, bulk, p); t.at > latest.at {
			latest = t
		}
	}
	return latest
}

// turnAt returns when a has a token for an attempt of priority p that so many go
// before, bulk of whom leave a share to others.
func (l *Limiter) turnAt(a *account, now bucket.Instant, all, bulk int, p int8) turn {
	t := turn{at: a.bucket.Turn(now, all+1), by: a}
	if l.isBulk(p) {
		if at := l.allowed(a, now, bulk+1); at > t.at {
			t.at, t.reserved = at, true
		}
	}
	return t
}

// upTo returns how many have priority p or go before it.
func upTo(waiting [priorities]int, p int) (n int) {
	for _, w := range waiting[:p+1] {
		n += w
	}
	return n
}

// take takes a token from each of the buckets of ln. The limiter is locked.
func (l *Limiter) take(ln *lane, now bucket.Instant, hold, bulk bool) (s seqs) {
	ln.out++
	last := priorities - 1
	if l.share > 0 {
		last = int(l.urgent) // to a learner, those held back are not there
	}
	for i, a := range ln.accounts {
		s.set(i, a.bucket.Take(now, hold, upTo(a.waiting, last)))
		a.sent++
		if bulk {
			a.allowance.level--
		}
	}
	return s
}

// MayLeave reports whether no gate has closed since Take. If one has, Return the
// permit and take another. Ask right before the attempt leaves, if some time has
// passed since Take.
func (p Permit) MayLeave() bool {
	l := p.limiter
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	ln := p.lane
	if l.learned > 0 || ln.retired {
		ln = l.laneBeside(ln, p.path) // it may draw on more by now
	}
	for _, a := range ln.accounts {
		if _, closed := a.bucket.Gate(now); closed {
			return false
		}
	}
	return true
}

// left says that the attempt, whose permit was taken with hold, goes on the wire.
func (p Permit) left() {
	l := p.limiter
	l.mu.Lock()
	now := l.now()
	changed := false
	for _, a := range p.lane.accounts {
		changed = a.bucket.Left(p.taken, now) || changed
	}
	if changed {
		l.dispatch(now)
	}
	l.mu.Unlock()
}

// Return gives a permit back that was not used.
func (p Permit) Return() {
	l := p.limiter
	l.mu.Lock()
	now := l.now()
	p.lane.out--
	for i, a := range p.lane.accounts {
		a.bucket.Return(p.taken, p.seqs.at(i), now)
		a.sent--
		if p.bulk {
			a.allowance.level++
		}
	}
	if p.queue != nil {
		l.payBack(p.lane, p.queue)
	}
	l.dispatch(now)
	l.mu.Unlock()
}

// Done says what came of the attempt. A refusal closes the gate of the limit
// that it names, else of the token, for everybody who draws on it.
//
// A limit that it names and that nobody configured, or not for this path, is a
// hidden one: from then on requests to the path (segments that look like an
// identifier count as the same) draw on it as well, those in line among them,
// and all others go on. Whether it counts the token's requests, the client's or
// the org's, the server does not say: it is taken to count the token's. If a
// limit with that name is configured, it is that one, for the path as well.
func (p Permit) Done(o Observation) {
	l := p.limiter
	var event, found Event
	l.mu.Lock()
	now := l.now()
	for _, a := range p.lane.accounts {
		a.bucket.Left(p.taken, now) // at the latest
	}
	switch {
	case o.Refused:
		event, found = l.refused(l.current(p), o, now)
	case o.Status == 0:
		p.unanswered(o)
	case o.Status == http.StatusUnauthorized || o.Status >= 500:
		// It may not have come as far as the limit.
		for i, a := range p.lane.accounts {
			if a.bucket.Answered(p.taken, p.seqs.at(i)) {
				event = Event{Kind: GateOpened, Limit: a.name}
			}
		}
	default:
		for i, a := range p.lane.accounts {
			a.accepted++
			if a.bucket.Accepted(p.taken, p.seqs.at(i), now) {
				event = Event{Kind: GateOpened, Limit: a.name}
			}
		}
	}
	p.lane.out-- // not before: its buckets are kept until then
	l.dispatch(now)
	l.mu.Unlock()
	l.observer.emit(found)
	l.observer.emit(event)
}

// unanswered notes that no answer came. The limiter is locked.
func (p Permit) unanswered(o Observation) {
	for i, a := range p.lane.accounts {
		switch {
		case o.unsent:
			a.bucket.Missed(p.taken, p.seqs.at(i))
		case o.abandoned:
			a.bucket.Abandoned(p.taken)
		default:
			a.bucket.Unanswered(p.taken, p.seqs.at(i))
		}
	}
}

// refused closes the gate that o asks for. The limiter is locked.
func (l *Limiter) refused(p Permit, o Observation, now bucket.Instant) (event, found Event) {
	named, template, news := l.named(p, o)
	if news {
		found = Event{Kind: LimitFound, Limit: named.name, Path: template, Status: o.Status}
		l.regroup(template, now)
	}
	var seq uint64 // 0 if p has taken nothing of it, because nobody knew
	for i, a := range p.lane.accounts {
		if a != named {
			a.bucket.Missed(p.taken, p.seqs.at(i))
		} else {
			seq = p.seqs.at(i)
		}
	}
	named.refused++
	if o.Value > 0 {
		named.claimed = o.Value
	}
	b := &named.bucket
	wait, asked := o.wait(b, p.taken)
	wait += time.Duration(rand.Float64() * min(l.spread*float64(wait), float64(time.Second)))
	if !b.Refused(p.taken, seq, now, now+wait, asked, o.Status == http.StatusServiceUnavailable) {
		return Event{}, found
	}
	l.refuseLate(now)
	return Event{Kind: GateClosed, Limit: named.name, Wait: wait, Status: o.Status}, found
}

// named returns the account of the limit with that name, or nil.
func (ln *lane) named(name string) *account {
	for _, a := range ln.accounts {
		if a.name == name {
			return a
		}
	}
	return nil
}
