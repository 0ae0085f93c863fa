package queue

import (
	"errors"
	"time"
)

// The first pauses, and the longest.
const (
	storePause, storeMost = 100 * time.Millisecond, 5 * time.Second
	sendPause, sendMost   = time.Second, time.Minute
)

// trouble is something that fails, and when it may be tried again: with one
// thing after each pause, not with all that wait.
type trouble struct {
	first, most time.Duration // pauses

	err   error // nil if all is well
	pause time.Duration
	next  time.Time // nothing is tried before
	tried bool      // something has been tried since the last failure
}

// Trouble says what keeps a running dispatcher that endures from going on: nil
// if nothing does.
func (d *Dispatcher) Trouble() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return errors.Join(d.recording.err, d.claiming.err, d.sending.err)
}

// met notes that t failed with err, which ends a run that does not endure.
func (r *run) met(t *trouble, err error) {
	if !r.d.Endure || errors.Is(err, ErrClosed) {
		r.fail(err)
		return
	}
	r.d.mu.Lock()
	isNew := t.err == nil
	t.err = err
	switch {
	case isNew:
		t.pause = t.first
	case t.tried:
		t.pause = min(2*t.pause, t.most)
	}
	if isNew || t.tried {
		// Of a crowd that fails at once, the first counts.
		t.next = time.Now().Add(t.pause)
	}
	t.tried = false
	r.d.mu.Unlock()
	if isNew {
		r.log.Warn("no work is taken until this is over", "err", err)
	}
	r.knock()
}

// well notes that t went well.
func (r *run) well(t *trouble) {
	r.d.mu.Lock()
	err := t.err
	t.err, t.tried = nil, false
	r.d.mu.Unlock()
	if err != nil {
		r.log.Info("work goes on", "after", err)
		r.knock()
	}
}

func (r *run) knock() {
	select {
	case r.changed <- struct{}{}:
	default:
	}
}

// ready reports whether something may be tried.
func (t *trouble) ready(now time.Time) bool { return t.err == nil || !now.Before(t.next) }

// use notes that it is tried.
func (t *trouble) use(now time.Time) {
	if t.err != nil {
		t.next, t.tried = now.Add(t.pause), true
	}
}

// try reports whether t may be tried now, and notes that it is.
func (r *run) try(t *trouble) bool {
	now := time.Now()
	r.d.mu.Lock()
	defer r.d.mu.Unlock()
	if !t.ready(now) {
		return false
	}
	t.use(now)
	return true
}

// tryStart reports whether an attempt may be started. While the store fails
// none is, unless nothing else would find out that it is well again.
func (r *run) tryStart() bool {
	now := time.Now()
	d := r.d
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.claiming.err != nil, d.recording.err != nil && r.running > 0:
		return false // claims and workers try again by themselves
	case !d.recording.ready(now), !d.sending.ready(now):
		return false
	}
	d.recording.use(now)
	d.sending.use(now)
	return true
}

// tryClaim returns how many of n may be claimed, 0 for none now. While nothing
// can be sent, one will do.
func (r *run) tryClaim(n int) int {
	now := time.Now()
	d := r.d
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case !d.claiming.ready(now), d.recording.err != nil:
		return 0
	case d.sending.err == nil:
	case len(r.ahead) > 0 || !d.sending.ready(now):
		return 0
	default:
		n = 1
	}
	d.claiming.use(now)
	return n
}

// pausedUntil is when the next pause ends that something may wait for; zero for
// none.
func (r *run) pausedUntil() (at time.Time) {
	now := time.Now()
	r.d.mu.Lock()
	defer r.d.mu.Unlock()
	for _, t := range []*trouble{&r.d.claiming, &r.d.recording, &r.d.sending} {
		if t.err != nil && t.next.After(now) && (at.IsZero() || t.next.Before(at)) {
			at = t.next
		}
	}
	return at
}
