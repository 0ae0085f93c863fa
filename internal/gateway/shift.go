package gateway

import (
	"context"
	"sync"
	"time"
)

// shift is an org's time at work: from the first file that names it to one that
// does not, and again if a later one does before it has gone.
type shift struct {
	started bool // its background is; belongs to whoever reloads

	shiftMu  sync.Mutex // guards what follows
	stopTake context.CancelFunc
	over     chan struct{} // closed when nothing is taken or sent any more; nil: never was
	leaves   int           // how often it was told to leave or to stay
	closing  bool          // it can't stay any more
	gone     chan struct{} // closed when its journal is
}

// work has the queue worked on, once an earlier time at work is over.
func (s *shift) work(o *org) {
	take, stop := context.WithCancel(o.g.take)
	over := make(chan struct{})
	s.shiftMu.Lock()
	before := s.over
	s.stopTake, s.over = stop, over
	s.shiftMu.Unlock()
	go func() {
		defer close(over)
		defer stop()
		if before != nil {
			<-before
		}
		o.dispatch(take, o.g.do)
	}()
}

// rest ends the taking of work. What it returns is closed when nothing of the
// queue is on the wire any more.
func (s *shift) rest() (over <-chan struct{}) {
	s.shiftMu.Lock()
	defer s.shiftMu.Unlock()
	if s.over == nil {
		s.over = make(chan struct{})
		close(s.over)
		return s.over
	}
	if s.stopTake != nil {
		s.stopTake()
	}
	return s.over
}

// leave returns when nothing is held or on the wire any more, and whether the org
// is to be closed then: not if it was told to stay.
func (o *org) leave() bool {
	over := o.rest()
	o.shiftMu.Lock()
	o.leaves++
	mine := o.leaves
	o.shiftMu.Unlock()
	<-over
	for {
		idle := o.held.Load() == 0
		goesOn := idle || sleep(o.life, 100*time.Millisecond)
		o.shiftMu.Lock()
		stays := o.leaves != mine
		o.closing = !stays && (idle || !goesOn)
		closing := o.closing
		o.shiftMu.Unlock()
		if stays || closing {
			return closing
		}
	}
}

// stay tells an org that is about to leave to stay. It is too late for one that
// is being closed.
func (o *org) stay() bool {
	o.shiftMu.Lock()
	defer o.shiftMu.Unlock()
	o.leaves++
	return !o.closing
}
