package queuetest

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"iter"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/headgate/headgate/internal/queue"
)

// Memory is a [queue.Store] in memory: for tests of what uses a store, and the
// model that other stores are compared with. It is simple rather than quick,
// and never blocks, so that it works in a synctest bubble.
//
// To see how its user fares when a write fails, set Before.
type Memory struct {
	// Before, if set, is called before each Add, Claim (ClaimBefore too),
	// Update, Prune and SetMeta with the method's name; an error that it returns is the method's
	// answer, and nothing is changed. Set it before the store is used.
	Before func(method string) error
	// After is called likewise when the change is made; the caller gets its
	// error although the change was made.
	After func(method string) error

	mu     sync.Mutex        // guards what follows
	xs     []queue.Execution // by ID
	last   int64             // the greatest ID that was given
	meta   map[string][]byte
	counts queue.Counts
	turns  turns
	closed bool
}

// turns are what callers have had of the queue.
type turns struct {
	present   map[int]int64 // by priority
	standings map[ofPriority]*queue.Standing
}

type ofPriority struct {
	caller   string
	priority int
}

func (t turns) standing(x *queue.Execution) *queue.Standing {
	key := ofPriority{x.Caller, x.Priority}
	s := t.standings[key]
	if s == nil {
		s = &queue.Standing{}
		t.standings[key] = s
	}
	return s
}

var _ queue.Store = (*Memory)(nil)

// NewMemory returns an empty store.
func NewMemory() *Memory {
	return &Memory{meta: map[string][]byte{}, turns: turns{map[int]int64{}, map[ofPriority]*queue.Standing{}}}
}

// Reopen returns a store that holds what m holds, as after Close and open.
func (m *Memory) Reopen() *Memory {
	m.mu.Lock()
	defer m.mu.Unlock()
	return &Memory{Before: m.Before, After: m.After, xs: m.xs, last: m.last, meta: m.meta, counts: m.counts, turns: m.turns}
}

// change runs f under the lock, between Before and After.
func (m *Memory) change(ctx context.Context, method string, f func() error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if m.Before != nil {
		if err := m.Before(method); err != nil {
			return err
		}
	}
	if err := m.locked(f); err != nil {
		return err
	}
	if m.After != nil {
		return m.After(method)
	}
	return nil
}

func (m *Memory) locked(f func() error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return queue.ErrClosed
	}
	return f()
}

func (m *Memory) Add(ctx context.Context, xs []queue.Execution) error {
	return m.change(ctx, "Add", func() error {
		for _, x := range xs {
			if !queue.LegalStart(x.State) {
				return fmt.Errorf("adding an execution as %v: %w", x.State, queue.ErrIllegal)
			}
		}
		for i := range xs {
			x := &xs[i]
			if old := m.keyed(x.Caller, x.Key); old != nil {
				x.ID, x.Existing = old.ID, true
				continue
			}
			m.last++
			x.ID, x.Revision, x.Existing, x.Turn = m.last, 1, false, 0
			if x.State == queue.Queued {
				x.Turn = m.turns.standing(x).Next(m.turns.present[x.Priority], x.Weight)
			}
			m.xs = append(m.xs, clean(*x))
			m.counts[x.State]++
		}
		return nil
	})
}

// keyed returns what a caller's key stands for, nil for nothing.
func (m *Memory) keyed(caller, key string) *queue.Execution {
	for i := range m.xs {
		if x := &m.xs[i]; key != "" && x.Key == key && x.Caller == caller {
			return x
		}
	}
	return nil
}

// at returns the execution with that ID, nil if there is none.
func (m *Memory) at(id int64) *queue.Execution {
	i, ok := slices.BinarySearchFunc(m.xs, id, func(x queue.Execution, id int64) int { return cmp.Compare(x.ID, id) })
	if !ok {
		return nil
	}
	return &m.xs[i]
}

func (m *Memory) Claim(ctx context.Context, now time.Time, n int) ([]queue.Execution, error) {
	return m.claim(ctx, now, n, func(queue.Execution) bool { return true })
}

func (m *Memory) ClaimBefore(ctx context.Context, now time.Time, before queue.Place, n int) ([]queue.Execution, error) {
	return m.claim(ctx, now, n, func(x queue.Execution) bool { return x.Place().Before(before) })
}

func (m *Memory) claim(ctx context.Context, now time.Time, n int, wanted func(queue.Execution) bool) (out []queue.Execution, err error) {
	err = m.change(ctx, "Claim", func() error {
		var due []int
		for i, x := range m.xs {
			if x.State == queue.Queued && !x.Due.After(now) && wanted(x) {
				due = append(due, i)
			}
		}
		slices.SortStableFunc(due, func(a, b int) int {
			return m.xs[a].Place().Compare(m.xs[b].Place())
		})
		for _, i := range due[:max(0, min(n, len(due)))] {
			m.xs[i].State = queue.Claimed
			m.counts[queue.Queued]--
			m.counts[queue.Claimed]++
			out = append(out, clean(m.xs[i]))
		}
		return nil
	})
	if err != nil {
		return nil, err // made or not, the caller hears nothing of it
	}
	return out, nil
}

func (m *Memory) Update(ctx context.Context, u queue.Update) error {
	return m.change(ctx, "Update", func() error {
		if !queue.LegalUpdate(u.From, u.To) {
			return fmt.Errorf("from %v to %v: %w", u.From, u.To, queue.ErrIllegal)
		}
		old := m.at(u.ID)
		if old == nil || old.State != u.From || u.Revision != 0 && u.Revision != old.Revision {
			return queue.ErrStale
		}
		x := *old
		x.State, x.Due, x.Remote, x.Tally, x.Ended = u.To, u.Due, u.Remote, u.Tally, time.Time{}
		x.Status, x.Reason, x.Answer, x.AnswerType = u.Status, u.Reason, u.Answer, u.AnswerType
		if u.To.Ended() {
			x.Ended = u.At
		}
		x.Revision++
		*old = clean(x)
		switch present := m.turns.present[x.Priority]; {
		case u.To == queue.Sent:
			m.turns.present[x.Priority] = max(present, x.Turn)
		case u.UsesNoTurn() && x.Turn > 0:
			m.turns.standing(&x).GiveBack(present, x.Turn)
		}
		m.counts[u.From]--
		m.counts[u.To]++
		return nil
	})
}

func (m *Memory) NextDue(ctx context.Context) (due time.Time, ok bool, err error) {
	err = m.locked(func() error {
		for _, x := range m.xs {
			if x.State == queue.Queued && (!ok || x.Due.Before(due)) {
				due, ok = x.Due, true
			}
		}
		return ctx.Err()
	})
	return due, ok, err
}

func (m *Memory) Counts(ctx context.Context) (c queue.Counts, err error) {
	err = m.locked(func() error { c = m.counts; return ctx.Err() })
	return c, err
}

func (m *Memory) Load(ctx context.Context) (load map[string]queue.Load, err error) {
	err = m.locked(func() error {
		load = map[string]queue.Load{}
		for _, x := range m.xs {
			if !x.State.Ended() {
				l := load[x.Caller]
				l.Rows++
				l.Bytes += int64(len(x.Body))
				load[x.Caller] = l
			}
		}
		return ctx.Err()
	})
	return load, err
}

func (m *Memory) Oldest(ctx context.Context) (accepted time.Time, ok bool, err error) {
	err = m.locked(func() error {
		i := slices.IndexFunc(m.xs, func(x queue.Execution) bool { return x.State == queue.Queued })
		if ok = i >= 0; ok {
			accepted = m.xs[i].Accepted
		}
		return ctx.Err()
	})
	return accepted, ok, err
}

func (m *Memory) Get(ctx context.Context, id int64) (x queue.Execution, err error) {
	err = m.locked(func() error {
		if err := ctx.Err(); err != nil {
			return err
		}
		found := m.at(id)
		if found == nil {
			return fmt.Errorf("execution %d: %w", id, queue.ErrNotFound)
		}
		x = clean(*found)
		return nil
	})
	return x, err
}

func (m *Memory) Each(ctx context.Context, f queue.Filter) iter.Seq2[queue.Execution, error] {
	return func(yield func(queue.Execution, error) bool) {
		for after, n := f.After, 0; f.Limit <= 0 || n < f.Limit; n++ {
			var found queue.Execution
			err := m.locked(func() error {
				found = m.next(f, after)
				return ctx.Err()
			})
			if err != nil {
				yield(queue.Execution{}, err)
				return
			}
			if found.ID == 0 || !yield(found, nil) {
				return
			}
			after = found.ID
		}
	}
}

// next returns the first that matches beyond after, the zero value for none.
func (m *Memory) next(f queue.Filter, after int64) queue.Execution {
	for i := range m.xs {
		x := &m.xs[i]
		if f.Newest {
			x = &m.xs[len(m.xs)-1-i]
		}
		switch {
		case f.Newest && after != 0 && x.ID >= after, !f.Newest && x.ID <= after:
		case f.Unanswered && x.Tally.Unanswered == 0:
		case f.Caller != "" && x.Caller != f.Caller:
		case len(f.States) > 0 && !slices.Contains(f.States, x.State):
		default:
			return clean(*x)
		}
	}
	return queue.Execution{}
}

func (m *Memory) Prune(ctx context.Context, before time.Time, n int) (pruned int, err error) {
	err = m.change(ctx, "Prune", func() error {
		m.xs = slices.DeleteFunc(slices.Clone(m.xs), func(x queue.Execution) bool {
			if pruned >= n || !x.State.Ended() || !x.Ended.Before(before) {
				return false
			}
			pruned++
			m.counts[x.State]--
			return true
		})
		return nil
	})
	return pruned, err
}

func (m *Memory) Meta(ctx context.Context, key string) (v []byte, err error) {
	err = m.locked(func() error { v = bytes.Clone(m.meta[key]); return ctx.Err() })
	return v, err
}

func (m *Memory) SetMeta(ctx context.Context, key string, value []byte) error {
	return m.change(ctx, "SetMeta", func() error {
		if value == nil {
			delete(m.meta, key)
		} else {
			m.meta[key] = bytes.Clone(value)
		}
		return nil
	})
}

func (m *Memory) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	return nil
}

// clean returns x as a store gives it back, sharing nothing with x.
func clean(x queue.Execution) queue.Execution {
	x.Weight = 0
	for _, t := range []*time.Time{&x.Accepted, &x.Deadline, &x.Due, &x.Ended} {
		if !t.IsZero() {
			*t = t.UTC().Round(0)
		}
	}
	for _, b := range []*[]byte{&x.Body, &x.Extra, &x.Answer} {
		if *b = bytes.Clone(*b); len(*b) == 0 {
			*b = nil
		}
	}
	if x.Tally.Waits = maps.Clone(x.Tally.Waits); len(x.Tally.Waits) == 0 {
		x.Tally.Waits = nil
	}
	return x
}
