package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/headgate/headgate/internal/queue"
	"github.com/headgate/headgate/internal/sqlite"
)

// postman delivers the callbacks of one org. What is owed is in the journal; in
// memory are some thousands at most, and the others are found there again.
type postman struct {
	o    *org
	most int           // in memory
	wake chan struct{} // has one entry if there is something to look at

	mu   sync.Mutex // guards what follows
	due  map[int64]*letter
	more bool // there may be some in the journal that are not in due
}

// letter is a callback that is to be delivered.
type letter struct {
	next  time.Time // not tried before
	busy  bool      // on its way
	again bool      // its execution has ended once more since
}

func newPostman(o *org) *postman {
	return &postman{o: o, most: callbackMost, wake: make(chan struct{}, 1), due: map[int64]*letter{}, more: true}
}

// callbackOf is the address that is to be told of the end of x, "" for none.
func callbackOf(x *queue.Execution) string {
	var e extra
	if len(x.Extra) == 0 || json.Unmarshal(x.Extra, &e) != nil {
		return ""
	}
	return e.Callback
}

// ended has the callback of x delivered, which has ended, if it has one.
func (p *postman) ended(x *queue.Execution) {
	if callbackOf(x) == "" {
		return
	}
	p.mu.Lock()
	p.put(x.ID, time.Time{})
	p.mu.Unlock()
	p.knock()
}

// put notes that one is to be delivered, if there is room. The lock is held.
func (p *postman) put(id int64, next time.Time) {
	switch known := p.due[id]; {
	case known != nil && known.busy:
		known.again = true
	case known != nil:
		known.next = next
	case len(p.due) >= p.most:
		p.more = true
	default:
		p.due[id] = &letter{next: next}
	}
}

func (p *postman) knock() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// run delivers until ctx ends, and returns when nothing is on its way any more.
func (p *postman) run(ctx context.Context) {
	var walking sync.WaitGroup
	defer walking.Wait()
	slots := make(chan struct{}, callbackAtOnce)
	look := time.NewTicker(callbackLook)
	defer look.Stop()
	var after int64
	after = p.look(ctx, after)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.wake:
		case <-timer.C:
		case <-look.C:
			after = p.look(ctx, after)
		}
		ready, next := p.ready(time.Now(), cap(slots)-len(slots))
		for _, id := range ready {
			slots <- struct{}{} // there is room: only this goroutine fills them
			walking.Go(func() {
				again := p.deliver(ctx, id)
				<-slots
				p.back(id, again)
			})
		}
		if !next.IsZero() {
			timer.Reset(time.Until(next))
		}
		if len(ready) > 0 && p.hasRoom() {
			after = p.look(ctx, after)
		}
	}
}

// hasRoom reports whether a look would find room for what it finds.
func (p *postman) hasRoom() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.more && len(p.due) < p.most/2
}

// ready takes up to n that are due, and says when the next is, if there is one
// that is not.
func (p *postman) ready(now time.Time, n int) (ids []int64, next time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for id, l := range p.due {
		switch {
		case l.busy:
		case l.next.After(now):
			if next.IsZero() || l.next.Before(next) {
				next = l.next
			}
		case len(ids) < n:
			l.busy = true
			ids = append(ids, id)
		}
	}
	return ids, next
}

// back notes that one is not on its way any more: it is tried again, or was
// settled if again is zero.
func (p *postman) back(id int64, again time.Time) {
	p.mu.Lock()
	if again.IsZero() && !p.due[id].again {
		delete(p.due, id)
	} else {
		*p.due[id] = letter{next: again}
	}
	p.mu.Unlock()
	p.knock()
}

// look finds what is owed in the journal, if there may be more than is known: a
// part of it, from where the last look ended. It returns where to go on.
func (p *postman) look(ctx context.Context, after int64) int64 {
	p.mu.Lock()
	if !p.more {
		p.mu.Unlock()
		return 0
	}
	// One that is not for now makes room for others: it is found again.
	dropped := false
	for id, l := range p.due {
		if len(p.due) >= p.most && !l.busy && time.Until(l.next) > callbackLook/2 {
			delete(p.due, id)
			dropped = true
		}
	}
	n := p.most - len(p.due)
	p.more = false
	p.mu.Unlock()
	found, err := p.o.store.EndedNotes(ctx, callbackNote, after, max(n, 1))
	p.mu.Lock()
	defer p.mu.Unlock()
	if err != nil {
		p.more = true
		if ctx.Err() == nil {
			p.o.log.Warn("callbacks that are owed can't be read", "err", err)
		}
		return after
	}
	for _, id := range found {
		if p.due[id] == nil {
			p.put(id, time.Time{})
		}
	}
	if len(found) < max(n, 1) {
		p.more = p.more || dropped || after > 0
		return 0
	}
	p.more = true
	return found[len(found)-1]
}

// deliver tries once. It returns when to try again, zero for never.
func (p *postman) deliver(ctx context.Context, id int64) (again time.Time) {
	o := p.o
	x, err := o.store.Get(ctx, id)
	address := ""
	switch {
	case errors.Is(err, queue.ErrNotFound):
		return p.settle(ctx, id) // forgotten before anybody took it
	case err != nil:
		return time.Now().Add(callbackLook)
	case !x.State.Ended():
		return time.Time{} // it was sent again: its end is still to come
	default:
		address = callbackOf(&x)
	}
	if err = o.g.callbacks.post(ctx, o, &x, address); err == nil {
		o.meter.Callback("delivered")
		return p.settle(ctx, id)
	}
	log := o.log.With("execution", o.idOf(id))
	switch age := time.Since(x.Ended); {
	case ctx.Err() != nil:
		return time.Now() // the next process goes on
	case age > callbackPatience:
		log.Warn("a callback was given up", "err", err)
		o.meter.Callback("given_up")
		return p.settle(ctx, id)
	default:
		o.meter.Callback("failed")
		log.Info("a callback was not taken", "err", err)
		return time.Now().Add(callbackPause(age))
	}
}

// callbackPause is how long to wait after a failure, by how long the execution
// has ended: as long again, which doubles the time between tries and needs no
// memory of them, with jitter.
func callbackPause(age time.Duration) time.Duration {
	pause := min(max(age, time.Second), time.Hour)
	return pause/2 + rand.N(pause)
}

// settle notes that nothing is owed any more.
func (p *postman) settle(ctx context.Context, id int64) (again time.Time) {
	p.mu.Lock()
	more := p.due[id].again
	p.mu.Unlock()
	if more {
		return time.Time{}
	}
	// Not with ctx: what was told need not be told again.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), callbackTimeout)
	defer cancel()
	if err := p.o.store.SetMeta(ctx, sqlite.NoteKey(callbackNote, id), nil); err != nil {
		p.o.log.Warn("a callback may be sent again after a restart", "execution", p.o.idOf(id), "err", err)
	}
	return time.Time{}
}

// owe notes on disk that the end of an execution is to be told once more.
func (p *postman) owe(ctx context.Context, x *queue.Execution) {
	if callbackOf(x) == "" {
		return
	}
	if err := p.o.store.SetMeta(ctx, sqlite.NoteKey(callbackNote, x.ID), []byte{1}); err != nil {
		p.o.log.Warn("a callback may not be sent after a restart", "execution", p.o.idOf(x.ID), "err", err)
	}
}
