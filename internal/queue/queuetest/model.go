package queuetest

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"reflect"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/headgate/headgate/internal/queue"
)

// testModel does the same to the store and to [Memory], whatever comes, and
// compares them after every step: answers, counts, next due time, and all that
// is stored; over closing and opening too.
func testModel(t *testing.T, open Opener) {
	root := t.TempDir()
	rapid.Check(t, func(rt *rapid.T) {
		dir, err := os.MkdirTemp(root, "model")
		if err != nil {
			rt.Fatal(err)
		}
		m := &model{rt: rt, real: open(t, dir), memory: NewMemory(), now: t0}
		defer func() {
			m.real.Close()
			os.RemoveAll(dir)
		}()
		rt.Repeat(map[string]func(*rapid.T){
			"add":    m.add,
			"claim":  m.claim,
			"update": m.update,
			"move":   m.move, // twice as likely to be legal
			"each":   m.each,
			"urgent": m.urgent,
			"prune":  m.prune,
			"meta":   m.meta,
			"time":   func(rt *rapid.T) { m.now = m.now.Add(time.Duration(rapid.IntRange(1, 20).Draw(rt, "passes"))) },
			"reopen": func(rt *rapid.T) {
				if err := m.real.Close(); err != nil {
					rt.Fatal(err)
				}
				m.memory = m.memory.Reopen()
				m.real = open(t, dir)
			},
			"": m.compare,
		})
	})
}

type model struct {
	rt     *rapid.T
	real   queue.Store
	memory *Memory
	now    time.Time
	added  int64
}

// same fails unless both stores met the same kind of error.
func same(rt *rapid.T, what string, real, memory error) {
	rt.Helper()
	for _, kind := range []error{queue.ErrStale, queue.ErrIllegal} {
		if errors.Is(real, kind) != errors.Is(memory, kind) {
			rt.Fatalf("%s: got error %v, want %v", what, real, memory)
		}
	}
	if (real == nil) != (memory == nil) {
		rt.Fatalf("%s: got error %v, want %v", what, real, memory)
	}
}

func (m *model) time(rt *rapid.T, label string) time.Time {
	if rapid.Bool().Draw(rt, label+" set") {
		return m.now.Add(time.Duration(rapid.IntRange(-10, 30).Draw(rt, label)))
	}
	return time.Time{}
}

func (m *model) add(rt *rapid.T) {
	states := rapid.SampledFrom([]queue.State{queue.Queued, queue.Queued, queue.Queued, queue.Failed, queue.Sent})
	xs := make([]queue.Execution, rapid.IntRange(0, 5).Draw(rt, "n"))
	for i := range xs {
		xs[i] = queue.Execution{
			Method: "POST", Path: rapid.String().Draw(rt, "path"), Body: rapid.SliceOf(rapid.Byte()).Draw(rt, "body"),
			Caller:   rapid.SampledFrom([]string{"", "a", "b"}).Draw(rt, "caller"),
			Key:      rapid.SampledFrom([]string{"", "", "1", "2", "3", "4", "5"}).Draw(rt, "key"),
			Accepted: m.time(rt, "accepted"), Delivery: queue.Delivery(rapid.IntRange(0, 2).Draw(rt, "delivery")),
			Priority: rapid.IntRange(-1, 1).Draw(rt, "priority"), Deadline: m.time(rt, "deadline"),
			Due: m.time(rt, "due"), State: states.Draw(rt, "state"),
			Weight: rapid.SampledFrom([]float64{0, 1, 1, 2}).Draw(rt, "weight"),
		}
	}
	ys := slices.Clone(xs)
	err, want := m.real.Add(rt.Context(), xs), m.memory.Add(rt.Context(), ys)
	same(rt, "Add", err, want)
	if want == nil {
		if !slices.EqualFunc(xs, ys, equal) {
			rt.Fatalf("Add:\n got %+v\nwant %+v", xs, ys)
		}
		for _, y := range ys {
			m.added = max(m.added, y.ID)
		}
	}
}

func (m *model) claim(rt *rapid.T) {
	n := rapid.IntRange(0, 4).Draw(rt, "n")
	xs, err := m.real.Claim(rt.Context(), m.now, n)
	ys, want := m.memory.Claim(rt.Context(), m.now, n)
	same(rt, "Claim", err, want)
	if !slices.EqualFunc(xs, ys, equal) {
		rt.Fatalf("Claim:\n got %+v\nwant %+v", xs, ys)
	}
}

func (m *model) urgent(rt *rapid.T) {
	n := rapid.IntRange(0, 4).Draw(rt, "n")
	before := queue.Place{Priority: rapid.IntRange(-1, 2).Draw(rt, "before"), Turn: int64(rapid.IntRange(0, 5).Draw(rt, "turn")) * 1e5 / 2}
	xs, err := m.real.ClaimBefore(rt.Context(), m.now, before, n)
	ys, want := m.memory.ClaimBefore(rt.Context(), m.now, before, n)
	same(rt, "ClaimBefore", err, want)
	if !slices.EqualFunc(xs, ys, equal) {
		rt.Fatalf("ClaimBefore:\n got %+v\nwant %+v", xs, ys)
	}
}

// prune prunes all that ended before a time: which of them go first is the
// store's own.
func (m *model) prune(rt *rapid.T) {
	before := m.now.Add(-time.Duration(rapid.IntRange(-1, 30).Draw(rt, "before")))
	n, err := m.real.Prune(rt.Context(), before, 1000)
	want, _ := m.memory.Prune(rt.Context(), before, 1000)
	if err != nil || n != want {
		rt.Fatalf("Prune: %d, %v, want %d", n, err, want)
	}
}

func equal(a, b queue.Execution) bool { return reflect.DeepEqual(a, b) }

func (m *model) update(rt *rapid.T) {
	state := rapid.IntRange(0, int(queue.Unknown))
	m.apply(rt, queue.Update{
		ID:   rapid.Int64Range(0, m.added+1).Draw(rt, "id"),
		From: queue.State(state.Draw(rt, "from")), To: queue.State(state.Draw(rt, "to")),
	})
}

// move is an update from the state that the execution is in.
func (m *model) move(rt *rapid.T) {
	var open []queue.Execution
	for x := range m.memory.Each(rt.Context(), queue.Filter{States: []queue.State{queue.Queued, queue.Claimed, queue.Sent, queue.Unknown}}) {
		open = append(open, x)
	}
	if len(open) == 0 {
		rt.Skip("nothing open")
	}
	x := rapid.SampledFrom(open).Draw(rt, "execution")
	var to []queue.State
	for s := queue.Queued; s <= queue.Unknown; s++ {
		if queue.LegalUpdate(x.State, s) {
			to = append(to, s)
		}
	}
	m.apply(rt, queue.Update{ID: x.ID, From: x.State, To: rapid.SampledFrom(to).Draw(rt, "to")})
}

func (m *model) apply(rt *rapid.T, u queue.Update) {
	u.At, u.Due = m.now, m.time(rt, "due")
	u.Revision = int64(max(0, rapid.IntRange(-5, 3).Draw(rt, "revision")))
	u.Reason = rapid.String().Draw(rt, "reason")
	u.Answer = rapid.SliceOf(rapid.Byte()).Draw(rt, "answer")
	u.Status = rapid.IntRange(0, 599).Draw(rt, "status")
	u.Tally.Sent = rapid.IntRange(0, 3).Draw(rt, "sent")
	u.Tally.Unanswered = rapid.IntRange(0, 1).Draw(rt, "unanswered")
	err, want := m.real.Update(rt.Context(), u), m.memory.Update(rt.Context(), u)
	same(rt, fmt.Sprintf("Update of %d from %v to %v", u.ID, u.From, u.To), err, want)
}

func (m *model) each(rt *rapid.T) {
	states := rapid.SliceOfN(rapid.IntRange(0, int(queue.Unknown)), 0, 3).Draw(rt, "states")
	f := queue.Filter{After: rapid.Int64Range(0, m.added+1).Draw(rt, "after"), Limit: rapid.IntRange(0, 5).Draw(rt, "limit")}
	f.Newest = rapid.Bool().Draw(rt, "newest")
	f.Caller = rapid.SampledFrom([]string{"", "a", "c"}).Draw(rt, "caller")
	f.Unanswered = rapid.Bool().Draw(rt, "unanswered")
	for _, s := range states {
		f.States = append(f.States, queue.State(s))
	}
	m.sameEach(rt, f)
}

func (m *model) meta(rt *rapid.T) {
	key, v := rapid.SampledFrom([]string{"", "a", "limiter"}).Draw(rt, "key"), rapid.SliceOf(rapid.Byte()).Draw(rt, "value")
	same(rt, "SetMeta", m.real.SetMeta(rt.Context(), key, v), m.memory.SetMeta(rt.Context(), key, v))
}

func (m *model) sameEach(rt *rapid.T, f queue.Filter) {
	collect := func(s queue.Store) (xs []queue.Execution) {
		for x, err := range s.Each(rt.Context(), f) {
			if err != nil {
				rt.Fatalf("Each: %v", err)
			}
			xs = append(xs, x)
		}
		return xs
	}
	if xs, ys := collect(m.real), collect(m.memory); !slices.EqualFunc(xs, ys, equal) {
		rt.Fatalf("Each(%+v):\n got %+v\nwant %+v", f, xs, ys)
	}
}

// compare is what must hold after every step.
func (m *model) compare(rt *rapid.T) {
	m.sameEach(rt, queue.Filter{})
	c, err := m.real.Counts(rt.Context())
	want, _ := m.memory.Counts(rt.Context())
	if err != nil || c != want {
		rt.Fatalf("Counts: got %v, %v, want %v", c, err, want)
	}
	load, err := m.real.Load(rt.Context())
	wantLoad, _ := m.memory.Load(rt.Context())
	if err != nil || !maps.Equal(load, wantLoad) {
		rt.Fatalf("Load: got %v, %v, want %v", load, err, wantLoad)
	}
	oldest, any, err := m.real.Oldest(rt.Context())
	wantOldest, wantAny, _ := m.memory.Oldest(rt.Context())
	if err != nil || oldest != wantOldest || any != wantAny {
		rt.Fatalf("Oldest: got %v, %v, %v, want %v, %v", oldest, any, err, wantOldest, wantAny)
	}
	due, ok, err := m.real.NextDue(rt.Context())
	wantDue, wantOK, _ := m.memory.NextDue(rt.Context())
	// What is due may be reported as such or by its time.
	if err != nil || ok != wantOK || due != wantDue && (due.After(m.now) || wantDue.After(m.now)) {
		rt.Fatalf("NextDue: got %v, %v, %v, want %v, %v (now %v)", due, ok, err, wantDue, wantOK, m.now)
	}
	for _, key := range []string{"", "a", "limiter"} {
		v, err := m.real.Meta(rt.Context(), key)
		want, _ := m.memory.Meta(rt.Context(), key)
		if err != nil || !reflect.DeepEqual(v, want) {
			rt.Fatalf("Meta(%q): got %q, %v, want %q", key, v, err, want)
		}
	}
}
