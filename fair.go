package headgate

import (
	"cmp"
	"container/heap"
	"math"
	"slices"

	"github.com/headgate/headgate/internal/bucket"
)

// Bounds of Ask.Weight.
const (
	leastWeight = 0.001
	mostWeight  = 1000
)

func weightOf(w float64) float64 {
	if w == 0 || math.IsNaN(w) {
		return 1
	}
	return min(max(w, leastWeight), mostWeight)
}

// tag is a point in virtual time, which passes as permits are granted: one costs
// a caller turnCost, if its weight is 1. Whole numbers add up to the same in any
// order; these last for 90 years at 30,000 permits a second, and for 30 days of
// that without a pause for callers who all have the least weight.
type tag int64

const turnCost tag = 1e5

// cost returns what a permit costs a caller of that weight.
func cost(weight float64) tag { return tag(math.Round(float64(turnCost) / weight)) }

// served is what callers were served, by start-time fair queueing: the one with
// the lowest tag is next. Virtual time is the tag at which the latest permit
// began, for each priority: who has less than that has not saved it up.
type served struct {
	virtual [priorities]tag
	highest tag
}

// start returns the tag at which a caller begins who has t.
func (s *served) start(p int8, t tag) tag { return max(t, s.virtual[p]) }

// serve charges one permit to a caller who has t, and returns its next tag.
func (s *served) serve(p int8, t, cost tag) tag {
	s.virtual[p] = s.start(p, t)
	t = s.virtual[p] + cost
	s.highest = max(s.highest, t)
	return t
}

// idle says that nobody of priority p waits: nobody is ahead of anybody.
func (s *served) idle(p int8) { s.virtual[p] = s.highest }

// callerKey is a caller among those of one priority.
type callerKey struct {
	priority int8
	caller   string
}

// standing is what a caller has had of the limiter, in all its lanes, while
// others of the same priority waited.
type standing struct {
	use     *callerUse
	cost    tag // of a permit
	tag     tag
	waiting int // in any lane
}

// queue is those who wait in one lane for one caller, with one priority.
type queue struct {
	key      callerKey
	standing *standing
	waiters  arrivals
	index    int // in lane.line; -1 if nobody waits
	// due is the standing's tag, had the tag in the lane alone, as they were
	// when they were last looked at. Both only grow, so that the first of
	// the lane is surely the first if its own are up to date.
	due, had tag
}

// arrivals is a heap of waiters, the earliest first.
type arrivals []*waiter

func (q arrivals) Len() int           { return len(q) }
func (q arrivals) Less(i, j int) bool { return q[i].arrival < q[j].arrival }
func (q arrivals) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].index, q[j].index = i, j
}
func (q *arrivals) Push(x any) {
	w := x.(*waiter)
	w.index = len(*q)
	*q = append(*q, w)
}
func (q *arrivals) Pop() any {
	w := (*q)[len(*q)-1]
	(*q)[len(*q)-1] = nil
	*q = (*q)[:len(*q)-1]
	w.index = -1
	return w
}

// line is a heap of the queues in which somebody waits, the next to go first.
type line struct {
	queues []*queue
	// alone: what holds the line up is drawn on by no other lane. Then it
	// is shared by what callers had in this lane, else by what they had in
	// all.
	alone bool
}

func (l *line) Len() int { return len(l.queues) }
func (l *line) Less(i, j int) bool {
	a, b := l.queues[i], l.queues[j]
	first, then := cmp.Compare(a.due, b.due), cmp.Compare(a.had, b.had)
	if l.alone {
		first, then = then, first
	}
	return cmp.Or(cmp.Compare(a.key.priority, b.key.priority), first, then,
		cmp.Compare(a.waiters[0].arrival, b.waiters[0].arrival)) < 0
}
func (l *line) Swap(i, j int) {
	q := l.queues
	q[i], q[j] = q[j], q[i]
	q[i].index, q[j].index = i, j
}
func (l *line) Push(x any) {
	q := x.(*queue)
	q.index = len(l.queues)
	l.queues = append(l.queues, q)
}
func (l *line) Pop() any {
	last := len(l.queues) - 1
	q := l.queues[last]
	l.queues[last] = nil
	l.queues = l.queues[:last]
	q.index = -1
	return q
}

// beside orders the first queues of two lanes.
func (q *queue) beside(o *queue) int {
	return cmp.Or(cmp.Compare(q.key.priority, o.key.priority), cmp.Compare(q.due, o.due),
		cmp.Compare(q.waiters[0].arrival, o.waiters[0].arrival))
}

// priority returns that of the head of the line.
func (ln *lane) priority() int8 { return ln.line.queues[0].key.priority }

// first returns the queue whose first waiter is the head of the line.
func (l *Limiter) first(ln *lane) *queue {
	for {
		q := ln.line.queues[0]
		due, had := l.served.start(q.key.priority, q.standing.tag), ln.served.start(q.key.priority, q.had)
		if due <= q.due && had <= q.had {
			return q
		}
		q.due, q.had = max(q.due, due), had
		heap.Fix(&ln.line, 0)
	}
}

// waiters returns all who wait in ln, in no order.
func (ln *lane) waiters() (all []*waiter) {
	for _, q := range ln.line.queues {
		all = append(all, q.waiters...)
	}
	return all
}

// standing finds or makes the standing of a caller who is going to wait. The
// limiter is locked.
func (l *Limiter) standing(key callerKey) *standing {
	st := l.standings[key]
	if st != nil {
		return st
	}
	if len(l.standings) >= l.standingsMost {
		for k, s := range l.standings {
			if s.waiting == 0 && s.tag <= l.served.virtual[k.priority] {
				delete(l.standings, k)
			}
		}
		l.standingsMost = max(16, 2*len(l.standings))
	}
	st = &standing{use: l.use(key.caller)}
	l.standings[key] = st
	return st
}

// queue finds or makes the queue of a caller in ln.
func (ln *lane) queue(key callerKey) *queue {
	q := ln.queues[key]
	if q != nil {
		return q
	}
	if ln.queues == nil {
		ln.queues = map[callerKey]*queue{}
	}
	if len(ln.queues) >= ln.queuesMost {
		for k, q := range ln.queues {
			if q.index < 0 && q.had <= ln.served.virtual[k.priority] {
				delete(ln.queues, k)
			}
		}
		ln.queuesMost = max(4, 2*len(ln.queues))
	}
	q = &queue{key: key, index: -1}
	ln.queues[key] = q
	return q
}

// enter puts w in line as a call of the caller. The limiter is locked.
func (l *Limiter) enter(w *waiter, key callerKey, cost tag) {
	ln := w.lane
	q := ln.queue(key)
	w.queue = q
	if q.index < 0 {
		q.standing = l.standing(key)
	}
	st := q.standing
	st.cost = cost
	st.waiting++
	st.use.waiting++
	heap.Push(&q.waiters, w)
	switch {
	case q.index < 0:
		q.due, q.had = l.served.start(key.priority, st.tag), ln.served.start(key.priority, q.had)
		heap.Push(&ln.line, q)
	case w.index == 0: // it came earlier, in another lane
		heap.Fix(&ln.line, q.index)
	}
}

// exit takes w out of the line. The limiter is locked.
func (l *Limiter) exit(w *waiter) {
	q := w.queue
	q.standing.waiting--
	q.standing.use.waiting--
	first := w.index == 0
	heap.Remove(&q.waiters, w.index)
	switch {
	case len(q.waiters) == 0:
		if cap(q.waiters) > 64 {
			q.waiters = nil // it was long
		}
		heap.Remove(&w.lane.line, q.index)
	case first:
		heap.Fix(&w.lane.line, q.index)
	}
}

// charge makes the caller whose call goes next pay for it. The limiter is
// locked, and the caller takes it out of the line.
func (l *Limiter) charge(ln *lane, q *queue) {
	st := q.standing
	st.use.granted++
	st.tag = l.served.serve(q.key.priority, st.tag, st.cost)
	q.had = ln.served.serve(q.key.priority, q.had, st.cost)
	q.due = st.tag
}

// payBack undoes charge for a permit that was not used, as far as that leaves
// nothing saved up. In other lanes the caller stays where it was until its next
// turn there. The limiter is locked.
func (l *Limiter) payBack(ln *lane, q *queue) {
	st := q.standing
	st.tag = l.served.start(q.key.priority, st.tag-st.cost)
	q.had = ln.served.start(q.key.priority, q.had-st.cost)
	if q.index >= 0 {
		q.due = st.tag
		heap.Fix(&ln.line, q.index)
		l.unsorted = true
	}
}

// shareBy notes what holds ln up, after one has gone from it: those who wait
// there share that.
func (l *Limiter) shareBy(ln *lane, by *account) {
	if !ln.went {
		return
	}
	ln.went = false
	if alone := by.lanes == 1; alone != ln.line.alone {
		ln.line.alone = alone
		heap.Init(&ln.line)
		l.unsorted = true
	}
}

// newcomer is a call that does not stand in line yet: which of those who do
// would go before it?
type newcomer struct {
	l      *Limiter
	lane   *lane
	key    callerKey
	due    tag // its tags, once the others of its caller have gone
	had    tag
	before map[*standing]int // how many calls have a lower tag, less those counted
}

func (l *Limiter) newcomer(ln *lane, key callerKey, cost tag) *newcomer {
	n := &newcomer{l: l, lane: ln, key: key, before: map[*standing]int{}}
	p := key.priority
	var due, had tag
	var waiting, here int
	if st := l.standings[key]; st != nil {
		due, waiting = st.tag, st.waiting
	}
	if q := ln.queues[key]; q != nil {
		had, here = q.had, len(q.waiters)
	}
	n.due = l.served.start(p, due) + tag(waiting)*cost
	n.had = ln.served.start(p, had) + tag(here)*cost
	return n
}

// turns returns how many turns a caller whose next one begins at start gets
// until one that begins at until. One that begins with it goes before it, for
// it came earlier.
func turns(start, until, cost tag) int {
	if start > until {
		return 0
	}
	return int((until-start)/cost) + 1
}

// ahead returns how many of those who wait in ln go before n, and how many of
// them a reserve holds back. Each is counted once between two calls of anew.
func (n *newcomer) ahead(ln *lane) (all, bulk int) {
	p := n.key.priority
	for _, q := range ln.line.queues {
		count := len(q.waiters)
		switch {
		case q.key.priority > p:
			continue
		case q.key.priority < p || q.key == n.key:
		case ln == n.lane && ln.line.alone:
			count = min(count, turns(ln.served.start(p, q.had), n.had, q.standing.cost))
		default:
			st := q.standing
			left, ok := n.before[st]
			if !ok {
				left = turns(n.l.served.start(p, st.tag), n.due, st.cost)
			}
			count = min(count, left)
			n.before[st] = left - count
		}
		all += count
		if n.l.isBulk(q.key.priority) {
			bulk += count
		}
	}
	return all, bulk
}

func (n *newcomer) anew() { clear(n.before) }

// exactTurn is turn, less those who stand in line and do not go before a
// newcomer: callers who get their turns later, and those in other lanes who
// can't go yet.
func (l *Limiter) exactTurn(ln *lane, now bucket.Instant, key callerKey, cost tag) turn {
	type rival struct {
		lane  *lane
		ready bucket.Instant
	}
	n := l.newcomer(ln, key, cost)
	latest := turn{at: now, by: ln.accounts[0]}
	for _, a := range ln.accounts {
		n.anew()
		var rivals []rival
		for _, other := range l.active {
			if other != ln && other.priority() <= key.priority && slices.Contains(other.accounts, a) {
				rivals = append(rivals, rival{other, l.ready(other, now, 0, l.isBulk(other.priority())).at})
			}
		}
		slices.SortFunc(rivals, func(x, y rival) int { return cmp.Compare(x.ready, y.ready) })
		all, bulk := n.ahead(ln)
		t := l.turnAt(a, now, all, bulk, key.priority)
		for _, r := range rivals {
			if r.ready > t.at {
				break
			}
			more, moreBulk := n.ahead(r.lane)
			all, bulk = all+more, bulk+moreBulk
			t = l.turnAt(a, now, all, bulk, key.priority)
		}
		if t.at > latest.at {
			latest = t
		}
	}
	return latest
}
