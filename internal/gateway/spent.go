package gateway

import (
	"context"
	"encoding/json"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/headgate/headgate"
	"github.com/headgate/headgate/genesys"
	"github.com/headgate/headgate/internal/sqlite"
)

// spent sees to it that a restart refills no bucket, and that not every call
// writes to the journal. What is stored says of each bucket what is spent, and
// how many more may have left since: the lease. As many may leave before it is
// stored once more; those beyond wait for that. A process that is killed so
// costs the next one a lease at most, which is what a limit gives in a fifth of
// a second or a little more.
type spent struct {
	knock chan struct{} // has one entry if the limiter is to be stored

	mu      sync.Mutex // guards what follows
	sent    int64      // attempts
	stored  int64      // how many of them what is stored knows of
	lease   int64
	failing bool          // it can't be stored: nobody waits for it then
	next    chan struct{} // closed when the next store is over
	exact   bool          // nothing leaves any more
}

// spentWait is how long an attempt waits at most for a slow disk.
const spentWait = time.Second

func newSpent(limits []headgate.Limit) *spent {
	s := &spent{knock: make(chan struct{}, 1), next: make(chan struct{})}
	s.setLimits(limits)
	return s
}

// setLimits makes the lease fit the limits: so large that the disk is no limit
// of its own, so small that it is soon made up for.
func (s *spent) setLimits(limits []headgate.Limit) {
	lease := math.Inf(1)
	for _, l := range limits {
		rate, burst := l.Rate, l.Burst
		if l.Max > 0 {
			rate, burst = float64(l.Max)/l.Window.Seconds(), float64(l.Max)
		}
		if l.Name == genesys.LimitLogin || rate <= 0 {
			continue
		}
		lease = min(lease, max(1, rate/5, min(burst/20, rate)))
	}
	if math.IsInf(lease, 1) {
		lease = 10
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lease = int64(min(lease, 1e9))
}

// spend notes that an attempt leaves, and waits until it may.
func (o *org) spend() {
	s := o.spent
	s.mu.Lock()
	s.sent++
	mine := s.sent
	soon := 2*(mine-s.stored) >= s.lease
	late := mine-s.stored > s.lease && !s.failing
	next := s.next
	s.mu.Unlock()
	if !soon {
		return
	}
	select {
	case s.knock <- struct{}{}:
	default:
	}
	if late {
		o.awaitSpent(mine, next)
	}
}

// awaitSpent waits until so much is stored that the attempt may leave.
func (o *org) awaitSpent(mine int64, next chan struct{}) {
	timer := time.NewTimer(spentWait)
	defer timer.Stop()
	s := o.spent
	for {
		select {
		case <-next:
		case <-timer.C:
			return
		case <-o.life.Done():
			return
		}
		s.mu.Lock()
		late := mine-s.stored > s.lease && !s.failing
		next = s.next
		s.mu.Unlock()
		if !late {
			return
		}
	}
}

// saveLimiter stores what is known of the limits when it is time to.
func (o *org) saveLimiter(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return // closing the journal stores it once more
		case <-o.spent.knock:
		case <-tick.C:
		}
		o.storeLimiter(ctx)
	}
}

func (o *org) storeLimiter(ctx context.Context) {
	s := o.spent
	s.mu.Lock()
	sent, over := s.sent, s.next
	if sent == s.stored {
		s.mu.Unlock()
		return
	}
	s.next = make(chan struct{})
	s.mu.Unlock()
	// Their permits were taken before they were counted.
	err := o.store.SetMeta(ctx, sqlite.MetaLimiter, o.limiterState())
	s.mu.Lock()
	failed := s.failing
	s.failing = err != nil
	if err == nil {
		s.stored = sent
	}
	s.mu.Unlock()
	close(over)
	if err != nil && !failed && ctx.Err() == nil {
		o.log.Warn("what is known of the limits can't be stored", "err", err)
	}
}

// limiterState is what is stored of the limiter.
func (o *org) limiterState() []byte {
	states := o.limiter.Snapshot()
	o.spent.mu.Lock()
	lease, exact := float64(o.spent.lease), o.spent.exact
	o.spent.mu.Unlock()
	if !exact {
		states = o.unsure(states, lease)
	}
	v, err := json.Marshal(states)
	if err != nil {
		return nil
	}
	return v
}

// unsure adds to states that so many more may leave: also of those buckets that
// are as good as new, of which a snapshot says nothing.
func (o *org) unsure(states []headgate.State, lease float64) []headgate.State {
	ask := o.ask("/", 0)
	for _, l := range limitsOf(o.settings()) {
		known := slices.ContainsFunc(states, func(s headgate.State) bool { return s.Limit == l.Name && s.Match == l.Match })
		if !known && l.Per != headgate.PerPath && !o.settings().PassThrough {
			states = append(states, headgate.State{
				Limit: l.Name, Match: l.Match, Org: ask.Org, Client: ask.Client, Token: ask.Token, At: time.Now().UTC(),
			})
		}
	}
	for i := range states {
		if states[i].Limit != genesys.LimitLogin {
			states[i].Unsure = lease
		}
	}
	return states
}

// nothingLeaves notes that what is stored from now on is exact.
func (s *spent) nothingLeaves() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.exact = true
}
