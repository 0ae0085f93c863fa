package queuetest

import (
	"bytes"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/headgate/headgate/internal/queue"
)

func testEach(t *testing.T, open Opener) {
	s := fresh(t, open)
	const n = 1000 // more than any store reads at once
	add(t, s, simple(n)...)
	claim(t, s, t0, 600)
	for id := int64(1); id <= 500; id++ {
		to := queue.Sent
		if id%5 == 0 {
			to = queue.Failed
		}
		var tally queue.Tally
		if id%3 == 0 {
			// A limit may be called anything.
			tally = queue.Tally{Sent: 2, Unanswered: int(id % 2), Waits: map[string]time.Duration{"unanswered": 1}}
		}
		update(t, s, queue.Update{ID: id, From: queue.Claimed, To: to, At: t0, Tally: tally})
	}
	match := func(f queue.Filter) (want []int64) {
		for id := f.After + 1; id <= n; id++ {
			state := queue.Queued
			switch {
			case id <= 500 && id%5 == 0:
				state = queue.Failed
			case id <= 500:
				state = queue.Sent
			case id <= 600:
				state = queue.Claimed
			}
			if f.Unanswered && !(id <= 500 && id%3 == 0 && id%2 == 1) {
				continue
			}
			if len(f.States) == 0 || slices.Contains(f.States, state) {
				want = append(want, id)
			}
		}
		if f.Limit > 0 && f.Limit < len(want) {
			want = want[:f.Limit]
		}
		return want
	}
	for _, f := range []queue.Filter{
		{},
		{Limit: 1}, {Limit: 256}, {Limit: 300}, {Limit: 5000}, {After: 256}, {After: n - 1}, {After: n},
		{States: []queue.State{queue.Queued}},
		{States: []queue.State{queue.Failed}},
		{States: []queue.State{queue.Done}},
		{States: []queue.State{queue.Claimed}},
		{States: []queue.State{queue.Sent}, After: 250},
		{States: []queue.State{queue.Sent, queue.Claimed, queue.Sent}},
		{States: []queue.State{queue.Failed, queue.Queued}, After: 100, Limit: 100},
		{Unanswered: true}, {Unanswered: true, Limit: 50},
		{Unanswered: true, States: []queue.State{queue.Sent}, After: 77},
		{Unanswered: true, States: []queue.State{queue.Queued}},
	} {
		if got, want := ids(all(t, s, f)), match(f); !slices.Equal(got, want) {
			t.Errorf("Each(%+v): got %d executions %v, want %d", f, len(got), got, len(want))
		}
	}
	// Leaving early leaves nothing open.
	for range 50 {
		for range s.Each(t.Context(), queue.Filter{}) {
			break
		}
	}
	add(t, s, simple(1)...)
}

// testEachWhileWriting writes from within the loop: a store that holds a lock
// while it yields stands still here.
func testEachWhileWriting(t *testing.T, open Opener) {
	s := fresh(t, open)
	add(t, s, simple(600)...)
	claim(t, s, t0, 600)
	var seen []int64
	for x, err := range s.Each(t.Context(), queue.Filter{}) {
		if err != nil {
			t.Fatal(err)
		}
		seen = append(seen, x.ID)
		if x.ID <= 600 {
			update(t, s, queue.Update{ID: x.ID, From: queue.Claimed, To: queue.Done, At: t0})
		}
		if x.ID%200 == 0 && x.ID <= 600 {
			add(t, s, simple(1)...)
		}
	}
	if !slices.IsSorted(seen) || len(slices.Compact(seen)) != len(seen) || len(seen) < 600 {
		t.Errorf("Each while writing: %d executions, not ascending or not all: %v", len(seen), seen)
	}
	wantCounts(t, s, queue.Counts{queue.Queued: 3, queue.Done: 600})
}

func testEachLargeBodies(t *testing.T, open Opener) {
	s := fresh(t, open)
	for i := range 20 {
		x := queue.Execution{Body: bytes.Repeat([]byte{byte(i)}, 512_000)}
		add(t, s, x)
	}
	n := 0
	for x, err := range s.Each(t.Context(), queue.Filter{}) {
		if err != nil {
			t.Fatal(err)
		}
		if len(x.Body) != 512_000 || x.Body[0] != byte(n) || x.Body[511_999] != byte(n) {
			t.Fatalf("body %d is damaged", n)
		}
		n++
	}
	if n != 20 {
		t.Errorf("got %d executions, want 20", n)
	}
}

// testClaimExclusive: many claim at once, and each execution is handed out
// exactly once.
func testClaimExclusive(t *testing.T, open Opener) {
	s := fresh(t, open)
	const n, claimers = 2000, 16
	xs := simple(n)
	for i := range xs {
		xs[i].Priority = i % 3
		if i%4 == 0 {
			xs[i].Due = t0.Add(-time.Second)
		}
	}
	add(t, s, xs...)
	var mu sync.Mutex
	seen := map[int64]int{}
	var wg sync.WaitGroup
	for i := range claimers {
		wg.Go(func() {
			for {
				got, err := s.Claim(t.Context(), t0, 1+i)
				if err != nil {
					t.Errorf("Claim: %v", err)
					return
				}
				if len(got) == 0 {
					return
				}
				mu.Lock()
				for _, x := range got {
					seen[x.ID]++
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	for id := int64(1); id <= n; id++ {
		if seen[id] != 1 {
			t.Errorf("execution %d was handed out %d times", id, seen[id])
		}
	}
	wantCounts(t, s, queue.Counts{queue.Claimed: n})
}

// testUpdateExclusive: of many that want to end an execution one succeeds, and
// the failures of the others harm nobody.
func testUpdateExclusive(t *testing.T, open Opener) {
	s := fresh(t, open)
	const n, rivals = 50, 8
	add(t, s, simple(n)...)
	claim(t, s, t0, n)
	won := make([]atomic.Int32, n+1)
	var wg sync.WaitGroup
	for range rivals {
		wg.Go(func() {
			for id := int64(1); id <= n; id++ {
				err := s.Update(t.Context(), queue.Update{ID: id, From: queue.Claimed, To: queue.Done, At: t0})
				switch {
				case err == nil:
					won[id].Add(1)
				case !errors.Is(err, queue.ErrStale):
					t.Errorf("Update: %v", err)
				}
			}
		})
	}
	wg.Wait()
	for id := 1; id <= n; id++ {
		if w := won[id].Load(); w != 1 {
			t.Errorf("%d updates of execution %d succeeded", w, id)
		}
	}
	wantCounts(t, s, queue.Counts{queue.Done: n})
}

// testAddConcurrently: the IDs of one Add follow each other, and none is given
// twice.
func testAddConcurrently(t *testing.T, open Opener) {
	s := fresh(t, open)
	const adders, each, batch = 16, 10, 7
	var mu sync.Mutex
	seen := map[int64]bool{}
	var wg sync.WaitGroup
	for range adders {
		wg.Go(func() {
			for range each {
				xs := simple(batch)
				if err := s.Add(t.Context(), xs); err != nil {
					t.Errorf("Add: %v", err)
					return
				}
				mu.Lock()
				for i, x := range xs {
					if x.ID != xs[0].ID+int64(i) || seen[x.ID] {
						t.Errorf("one Add was given %v", ids(xs))
					}
					seen[x.ID] = true
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	wantCounts(t, s, queue.Counts{queue.Queued: adders * each * batch})
	if got := len(all(t, s, queue.Filter{})); got != adders*each*batch {
		t.Errorf("stored %d, want %d", got, adders*each*batch)
	}
}

// testCloseWhileWriting: what an Add acknowledged is there; what Close came
// before is refused and is not.
func testCloseWhileWriting(t *testing.T, open Opener) {
	dir := t.TempDir()
	s := openAt(t, open, dir)
	var added atomic.Int64
	var wg sync.WaitGroup
	begun := make(chan struct{}, 8)
	for range 8 {
		wg.Go(func() {
			for i := 0; ; i++ {
				if i == 3 {
					begun <- struct{}{}
				}
				err := s.Add(t.Context(), simple(1))
				if err == nil {
					added.Add(1)
					continue
				}
				if !errors.Is(err, queue.ErrClosed) {
					t.Errorf("Add while closing: %v", err)
				}
				return
			}
		})
	}
	for range 8 {
		<-begun
	}
	if err := s.Close(); err != nil {
		t.Fatalf("Close: %v", err)
	}
	wg.Wait()
	s = openAt(t, open, dir)
	wantCounts(t, s, queue.Counts{queue.Queued: added.Load()})
	if got := int64(len(all(t, s, queue.Filter{}))); got != added.Load() {
		t.Errorf("stored %d, acknowledged %d", got, added.Load())
	}
}
