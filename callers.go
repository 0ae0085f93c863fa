package headgate

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/headgate/headgate/internal/bucket"
)

// CallerUse is what one caller has had of a limiter since that was made.
type CallerUse struct {
	// Caller is the name, as in Ask.Caller; Weight the latest one.
	Caller string
	Weight float64
	// Waiting is how many of its calls are in line now.
	Waiting int
	// Granted is how many permits it got, those that it returned among
	// them. Waited is how long those of its calls have waited altogether
	// that are not in line any more, with a permit or in vain.
	Granted uint64
	Waited  time.Duration
}

// maxCallers is how many names are told apart, and otherCallers the name for the
// rest.
const (
	maxCallers   = 4096
	otherCallers = "other"
)

// Callers returns what each caller has had, by name. There are at most 4096: the
// names that come after them are counted together as "other".
func (l *Limiter) Callers() []CallerUse {
	l.mu.Lock()
	list := make([]CallerUse, 0, len(l.uses))
	for _, u := range l.uses {
		list = append(list, CallerUse{u.name, u.weight, u.waiting, u.granted, u.waited})
	}
	l.mu.Unlock()
	slices.SortFunc(list, func(a, b CallerUse) int { return strings.Compare(a.Caller, b.Caller) })
	return list
}

// callerUse is what is kept for Callers.
type callerUse struct {
	name    string
	weight  float64
	waiting int
	granted uint64
	waited  time.Duration
}

// use finds or makes what is kept of a caller. The limiter is locked.
func (l *Limiter) use(caller string) *callerUse {
	if l.lastUse != nil && l.lastUse.name == caller {
		return l.lastUse
	}
	u := l.uses[caller]
	if u == nil {
		u = l.newUse(caller)
	}
	l.lastUse = u
	return u
}

func (l *Limiter) newUse(caller string) *callerUse {
	if len(l.uses) >= maxCallers-1 {
		caller = otherCallers
		if u := l.uses[caller]; u != nil {
			return u
		}
	}
	u := &callerUse{name: strings.Clone(caller)}
	l.uses[u.name] = u
	return u
}

// InLine is one who waits.
type InLine struct {
	Caller, Path string
	Priority     int
	// Since is when it came, and Wait how long it has waited so far and
	// what for.
	Since time.Time
	Wait  Wait
	// Limit is the limit that holds it up now. Cause says why, in the
	// words of [Tries.Waits]: "" if its bucket is empty, else
	// WaitRetryAfter, WaitReserved or WaitPaused.
	Limit, Cause string
	// Expected is how long it will go on waiting if nobody comes who goes
	// before it, and as if there were no pause.
	Expected time.Duration
}

// Line returns the first n who wait, in the order in which they would go now.
// That is exact for those who draw on the same limits, and approximate
// otherwise: who can't go because of one limit lets others go who don't draw on
// it.
func (l *Limiter) Line(n int) []InLine {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	ahead := map[*account]*[2]int{} // all, and those a reserve holds back
	var list []InLine
	for _, w := range l.order(n) {
		p := w.queue.key.priority
		t := turn{at: now, by: w.lane.accounts[0]}
		for _, a := range w.lane.accounts {
			if ahead[a] == nil {
				ahead[a] = new([2]int)
			}
			if at := l.turnAt(a, now, ahead[a][0], ahead[a][1], p); at.at > t.at {
				t = at
			}
			ahead[a][0]++
			if l.isBulk(p) {
				ahead[a][1]++
			}
		}
		in := InLine{
			Caller: w.queue.key.caller, Path: w.path, Priority: int(p) + MostUrgent,
			Since: l.epoch.Add(w.came), Wait: w.soFar(now), Expected: t.at - now,
		}
		in.Limit, in.Cause = w.lane.cause(now)
		list = append(list, in)
	}
	return list
}

// order returns the first n who wait, as they would go. The limiter is locked.
func (l *Limiter) order(n int) []*waiter {
	if n <= 0 {
		return nil
	}
	type place struct {
		w  *waiter
		at tag // beyond virtual time
	}
	var places []place
	put := func(waiters []*waiter, at, cost tag) {
		for i, w := range waiters {
			places = append(places, place{w, at + tag(i)*cost})
		}
	}
	shared := map[*queue][]*waiter{} // by one of the caller's queues
	of := map[*standing]*queue{}
	for _, ln := range l.active {
		for _, q := range ln.line.queues {
			p := q.key.priority
			if ln.line.alone {
				put(q.waiters.first(n), ln.served.start(p, q.had)-ln.served.virtual[p], q.standing.cost)
				continue
			}
			if of[q.standing] == nil {
				of[q.standing] = q
			}
			shared[of[q.standing]] = append(shared[of[q.standing]], q.waiters.first(n)...)
		}
	}
	for q, waiters := range shared {
		slices.SortFunc(waiters, func(a, b *waiter) int { return cmp.Compare(a.arrival, b.arrival) })
		p := q.key.priority
		put(waiters, l.served.start(p, q.standing.tag)-l.served.virtual[p], q.standing.cost)
	}
	slices.SortFunc(places, func(a, b place) int {
		return cmp.Or(cmp.Compare(a.w.queue.key.priority, b.w.queue.key.priority),
			cmp.Compare(a.at, b.at), cmp.Compare(a.w.arrival, b.w.arrival))
	})
	list := make([]*waiter, 0, min(n, len(places)))
	for _, p := range places[:min(n, len(places))] {
		list = append(list, p.w)
	}
	return list
}

// first returns the n earliest in order, without looking at many more.
func (q arrivals) first(n int) []*waiter {
	var list []*waiter
	next := []*waiter{q[0]} // by arrival: those whose parents are in the list
	for len(list) < n && len(next) > 0 {
		w := next[0]
		next = next[1:]
		list = append(list, w)
		for child := 2*w.index + 1; child <= 2*w.index+2 && child < len(q); child++ {
			at, _ := slices.BinarySearchFunc(next, q[child], func(a, b *waiter) int { return cmp.Compare(a.arrival, b.arrival) })
			next = slices.Insert(next, at, q[child])
		}
	}
	return list
}

// cause says which limit holds ln up, and why: see InLine.
func (ln *lane) cause(now bucket.Instant) (limit, why string) {
	limit = ln.accounts[ln.by].name
	switch {
	case ln.why == whyPaused:
		return limit, WaitPaused
	case now < ln.gate:
		return limit, WaitRetryAfter
	case ln.why == whyReserved:
		return limit, WaitReserved
	}
	return limit, ""
}
