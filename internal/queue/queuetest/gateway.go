package queuetest

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/headgate/headgate/internal/queue"
)

func keyed(caller, key string) queue.Execution {
	return queue.Execution{Caller: caller, Key: key, Method: "POST", Path: "/" + caller + "/" + key}
}

func wantExisting(t *testing.T, what string, xs []queue.Execution, want ...bool) {
	t.Helper()
	for i, x := range xs {
		if x.Existing != want[i] {
			t.Errorf("%s: Existing of number %d is %v, want %v", what, i, x.Existing, want[i])
		}
	}
}

// testKeys: the same key of the same caller is the same execution, in one Add,
// in another, in whatever state it is, and after opening again.
func testKeys(t *testing.T, open Opener) {
	dir := t.TempDir()
	s := openAt(t, open, dir)
	xs := add(t, s, keyed("a", "1"), keyed("", "1"), keyed("a", "1"), keyed("b", "1"), keyed("a", ""), keyed("a", ""))
	wantIDs(t, "Add", xs, 1, 2, 1, 3, 4, 5)
	wantExisting(t, "Add", xs, false, false, true, false, false, false)
	if xs[0].Revision != 1 || xs[5].Revision != 1 {
		t.Errorf("added with the revisions %d and %d", xs[0].Revision, xs[5].Revision)
	}
	// What an earlier use of the slice left behind does not count.
	again := keyed("a", "2")
	again.Existing, again.ID, again.Revision = true, 77, 9
	xs = add(t, s, again, keyed("a", "1"))
	wantIDs(t, "second Add", xs, 6, 1)
	wantExisting(t, "second Add", xs, false, true)
	wantCounts(t, s, queue.Counts{queue.Queued: 6})

	// An Add that is refused keeps no key.
	bad := []queue.Execution{keyed("a", "3"), {State: queue.Sent}}
	wantError(t, "Add as sent", s.Add(t.Context(), bad), queue.ErrIllegal)

	claim(t, s, t0, 1)
	update(t, s, queue.Update{ID: 1, From: queue.Claimed, To: queue.Done, At: t0})
	xs = add(t, s, keyed("a", "1"), keyed("a", "3"))
	wantIDs(t, "Add after the end", xs, 1, 7)
	wantExisting(t, "Add after the end", xs, true, false)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openAt(t, open, dir)
	other := keyed("a", "1")
	other.Path, other.Body = "/other", []byte("x")
	xs = add(t, s, other, keyed("c", "1"), keyed("a", "2"))
	wantIDs(t, "Add after reopening", xs, 1, 8, 6)
	wantExisting(t, "Add after reopening", xs, true, false, true)
	if got := all(t, s, queue.Filter{Limit: 1})[0]; got.Path != "/a/1" || got.Key != "1" || got.Caller != "a" || got.Existing {
		t.Errorf("stored %+v", got)
	}
}

// testKeysConcurrently: of many that add the same key at once one adds it, and
// all are given its ID.
func testKeysConcurrently(t *testing.T, open Opener) {
	s := fresh(t, open)
	const rivals, keys = 16, 40
	var mu sync.Mutex
	given := map[string]int64{}
	added := 0
	var wg sync.WaitGroup
	for range rivals {
		wg.Go(func() {
			for k := range keys {
				xs := []queue.Execution{keyed("a", fmt.Sprint(k)), {}}
				if err := s.Add(t.Context(), xs); err != nil {
					t.Errorf("Add: %v", err)
					return
				}
				mu.Lock()
				if old, ok := given[xs[0].Key]; ok && old != xs[0].ID {
					t.Errorf("key %s is %d and %d", xs[0].Key, old, xs[0].ID)
				}
				given[xs[0].Key] = xs[0].ID
				if !xs[0].Existing {
					added++
				}
				if xs[1].Existing || xs[1].ID == xs[0].ID {
					t.Errorf("one without a key is %+v beside %+v", xs[1], xs[0])
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if added != keys {
		t.Errorf("%d were added, want %d", added, keys)
	}
	wantCounts(t, s, queue.Counts{queue.Queued: keys + rivals*keys})
}

func testGet(t *testing.T, open Opener) {
	s := fresh(t, open)
	x := keyed("a", "1")
	x.Body, x.Extra, x.Accepted = []byte("body"), []byte("extra"), t0
	add(t, s, simple(2)...)
	x = add(t, s, x)[0]
	got, err := s.Get(t.Context(), x.ID)
	if want := all(t, s, queue.Filter{After: 2})[0]; err != nil || !equal(got, want) || !equal(got, x) {
		t.Errorf("Get: got %+v, %v, want %+v", got, err, want)
	}
	for _, id := range []int64{0, -1, 4, 1 << 40} {
		_, err := s.Get(t.Context(), id)
		wantError(t, fmt.Sprintf("Get of %d", id), err, queue.ErrNotFound)
	}
}

// testRevision: an update of what has changed since it was read is stale, even
// if it is in the same state again.
func testRevision(t *testing.T, open Opener) {
	s := fresh(t, open)
	add(t, s, simple(1)...)
	old := claim(t, s, t0, 1)[0]
	if old.Revision != 1 {
		t.Errorf("claimed with revision %d, want 1", old.Revision)
	}
	update(t, s, queue.Update{ID: 1, From: queue.Claimed, To: queue.Queued, Revision: 1})
	err := s.Update(t.Context(), queue.Update{ID: 1, From: queue.Queued, To: queue.Expired, Revision: 1, At: t0})
	wantError(t, "Update of an old revision", err, queue.ErrStale)
	claim(t, s, t0, 1)
	err = s.Update(t.Context(), queue.Update{ID: 1, From: queue.Claimed, To: queue.Sent, Revision: 1})
	wantError(t, "Update of an old revision", err, queue.ErrStale)
	err = s.Update(t.Context(), queue.Update{ID: 1, From: queue.Claimed, To: queue.Sent, Revision: 3})
	wantError(t, "Update of a revision to come", err, queue.ErrStale)
	update(t, s, queue.Update{ID: 1, From: queue.Claimed, To: queue.Unknown, Revision: 2, At: t0})
	wantCounts(t, s, queue.Counts{queue.Unknown: 1})
	// One that goes on has not ended.
	update(t, s, queue.Update{ID: 1, From: queue.Unknown, To: queue.Queued, At: t0})
	if got := all(t, s, queue.Filter{})[0]; !got.Ended.IsZero() || got.Revision != 4 {
		t.Errorf("sent again, and yet it is %+v", got)
	}
	wantIDs(t, "Claim of what is sent again", claim(t, s, t0, 9), 1)
}

func testLoad(t *testing.T, open Opener) {
	dir := t.TempDir()
	s := openAt(t, open, dir)
	want := func(what string, want map[string]queue.Load) {
		t.Helper()
		got, err := s.Load(t.Context())
		if err != nil || !maps.Equal(got, want) {
			t.Errorf("%s: Load is %v, %v, want %v", what, got, err, want)
		}
		if got != nil {
			got["mine"] = queue.Load{} // harms nobody
		}
	}
	want("empty", map[string]queue.Load{})
	sized := func(caller string, n int) queue.Execution {
		return queue.Execution{Caller: caller, Body: make([]byte, n), Extra: []byte("not counted")}
	}
	ended := sized("d", 9)
	ended.State = queue.Failed
	add(t, s, sized("a", 10), sized("b", 100), sized("a", 1), sized("", 7), ended, sized("c", 0))
	full := map[string]queue.Load{"a": {Rows: 2, Bytes: 11}, "b": {Rows: 1, Bytes: 100}, "": {Rows: 1, Bytes: 7}, "c": {Rows: 1, Bytes: 0}}
	want("added", full)
	again := keyed("a", "1")
	again.Body = make([]byte, 5)
	add(t, s, again, again)
	full["a"] = queue.Load{Rows: 3, Bytes: 16}
	want("added once", full)
	claim(t, s, t0, 3)
	update(t, s, queue.Update{ID: 1, From: queue.Claimed, To: queue.Sent})
	want("in flight", full)
	update(t, s, queue.Update{ID: 1, From: queue.Sent, To: queue.Unknown, At: t0})
	update(t, s, queue.Update{ID: 2, From: queue.Claimed, To: queue.Done, At: t0})
	update(t, s, queue.Update{ID: 3, From: queue.Claimed, To: queue.Queued})
	full["a"] = queue.Load{Rows: 2, Bytes: 6}
	delete(full, "b")
	want("some ended", full)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openAt(t, open, dir)
	want("after reopening", full)
	update(t, s, queue.Update{ID: 1, From: queue.Unknown, To: queue.Queued})
	full["a"] = queue.Load{Rows: 3, Bytes: 16}
	want("one goes on", full)
	update(t, s, queue.Update{ID: 1, From: queue.Queued, To: queue.Unknown, At: t0})
	update(t, s, queue.Update{ID: 1, From: queue.Unknown, To: queue.Failed, At: t0})
	full["a"] = queue.Load{Rows: 2, Bytes: 6}
	want("given up", full)
	if n, err := s.Prune(t.Context(), t0.Add(1), 100); n != 3 || err != nil {
		t.Errorf("Prune: %d, %v, want 3", n, err)
	}
	want("pruned", full)
}

func testOldest(t *testing.T, open Opener) {
	s := fresh(t, open)
	want := func(what string, want time.Time, wantOK bool) {
		t.Helper()
		got, ok, err := s.Oldest(t.Context())
		if err != nil || got != want || ok != wantOK {
			t.Errorf("%s: Oldest is %v, %v, %v, want %v, %v", what, got, ok, err, want, wantOK)
		}
	}
	want("empty", time.Time{}, false)
	xs := simple(4)
	for i := range xs {
		xs[i].Accepted = t0.Add(time.Duration(i))
	}
	xs[0].State = queue.Done
	xs[2].Priority, xs[2].Due = -1, t0
	add(t, s, xs...)
	add(t, s, simple(1)...) // nobody says when
	want("one has ended", t0.Add(1), true)
	wantIDs(t, "Claim", claim(t, s, t0, 2), 3, 2)
	want("two are claimed", t0.Add(3), true)
	claim(t, s, t0, 1)
	want("accepted at no time", time.Time{}, true)
	claim(t, s, t0, 1)
	want("none is queued", time.Time{}, false)
	update(t, s, queue.Update{ID: 3, From: queue.Claimed, To: queue.Queued, Due: t0.Add(time.Hour)})
	want("one waits for a time", t0.Add(2), true)
}

// testPrune: what ended long ago goes, with its key, and no ID comes twice.
func testPrune(t *testing.T, open Opener) {
	dir := t.TempDir()
	s := openAt(t, open, dir)
	prune := func(before time.Time, n, want int) {
		t.Helper()
		if got, err := s.Prune(t.Context(), before, n); err != nil || got != want {
			t.Errorf("Prune before %v: %d, %v, want %d", before.Sub(t0), got, err, want)
		}
	}
	prune(t0, 10, 0)
	var xs []queue.Execution
	for i := range 10 {
		x := keyed("a", fmt.Sprint(i))
		if i < 8 {
			x.State, x.Ended = []queue.State{queue.Done, queue.Failed, queue.Expired, queue.Unknown}[i%4], t0.Add(time.Duration(i))
		}
		xs = append(xs, x)
	}
	xs[1].Ended = time.Time{} // nobody knows when: long ago
	add(t, s, xs...)
	claim(t, s, t0, 1) // 9
	prune(t0.Add(-1), 10, 1)
	prune(t0.Add(5), 0, 0)
	prune(t0.Add(5), 2, 2)
	prune(t0.Add(5), 10, 2)
	prune(t0.Add(5), 10, 0)
	wantIDs(t, "left", all(t, s, queue.Filter{}), 6, 7, 8, 9, 10)
	wantIDs(t, "left, newest first", all(t, s, queue.Filter{Newest: true}), 10, 9, 8, 7, 6)
	wantCounts(t, s, queue.Counts{queue.Queued: 1, queue.Claimed: 1, queue.Failed: 1, queue.Expired: 1, queue.Unknown: 1})
	_, err := s.Get(t.Context(), 1)
	wantError(t, "Get", err, queue.ErrNotFound)
	wantError(t, "Update", s.Update(t.Context(), queue.Update{ID: 4, From: queue.Unknown, To: queue.Queued}), queue.ErrStale)
	again := add(t, s, keyed("a", "0"), keyed("a", "7"), keyed("a", "9"))
	wantIDs(t, "Add", again, 11, 8, 10)

	// The greatest ID is not given again because it is gone.
	update(t, s, queue.Update{ID: 11, From: queue.Queued, To: queue.Failed, At: t0})
	update(t, s, queue.Update{ID: 10, From: queue.Queued, To: queue.Failed, At: t0})
	prune(t0.Add(time.Hour), 100, 5)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openAt(t, open, dir)
	wantCounts(t, s, queue.Counts{queue.Claimed: 1})
	wantIDs(t, "Add after reopening", add(t, s, simple(1)...), 12)
	wantIDs(t, "Claim", claim(t, s, t0, 9), 12)
}

// testPruneWhileWriting: nobody's execution goes that has not ended, whatever
// else goes on.
func testPruneWhileWriting(t *testing.T, open Opener) {
	s := fresh(t, open)
	const adders, each = 4, 50
	var wg sync.WaitGroup
	quit := make(chan struct{})
	pruned := 0
	var pruner sync.WaitGroup
	pruner.Go(func() {
		for over := false; ; {
			select {
			case <-quit:
				over = true
			default:
			}
			n, err := s.Prune(t.Context(), t0.Add(1), 7)
			if err != nil {
				t.Errorf("Prune: %v", err)
				return
			}
			pruned += n
			if over && n < 7 {
				return
			}
		}
	})
	for range adders {
		wg.Go(func() {
			for i := range each {
				xs := simple(3)
				xs[i%3].State, xs[i%3].Ended = queue.Done, t0
				if err := s.Add(t.Context(), xs); err != nil {
					t.Errorf("Add: %v", err)
				}
			}
		})
	}
	wg.Wait()
	close(quit)
	pruner.Wait()
	if pruned != adders*each {
		t.Errorf("pruned %d, want %d", pruned, adders*each)
	}
	wantCounts(t, s, queue.Counts{queue.Queued: 2 * adders * each})
	if got := len(all(t, s, queue.Filter{})); got != 2*adders*each {
		t.Errorf("left %d", got)
	}
}

func testClaimBefore(t *testing.T, open Opener) {
	s := fresh(t, open)
	xs := simple(8)
	for i, p := range []int{0, 5, -1, 0, -1, 5, -3, -3} {
		xs[i].Priority = p
	}
	xs[7].Due = t0.Add(1)
	add(t, s, xs...)
	urgent := func(what string, now time.Time, below, n int, want ...int64) {
		t.Helper()
		got, err := s.ClaimBefore(t.Context(), now, queue.Place{Priority: below}, n)
		if err != nil {
			t.Fatalf("ClaimBefore: %v", err)
		}
		wantIDs(t, what, got, want...)
	}
	urgent("none as urgent", t0, -3, 9)
	urgent("none wanted", t0, 9, 0)
	urgent("one of three", t0, 0, 1, 7)
	urgent("the others", t0, 0, 9, 3, 5)
	urgent("one that came due", t0.Add(1), 0, 9, 8)
	urgent("no more", t0.Add(1), 0, 9)
	urgent("of the next priority", t0, 1, 1, 1)
	wantIDs(t, "Claim", claim(t, s, t0, 9), 4, 2, 6)
	wantCounts(t, s, queue.Counts{queue.Claimed: 8})
}

// testLists: every filter, over executions of every kind in no order.
func testLists(t *testing.T, open Opener) {
	s := fresh(t, open)
	callers := []string{"", "a", "b"}
	var xs []queue.Execution
	for i := range 900 {
		x := queue.Execution{Caller: callers[i%3], State: []queue.State{
			queue.Queued, queue.Done, queue.Failed, queue.Queued, queue.Expired, queue.Unknown, queue.Queued,
		}[i*7%11%7], Ended: t0}
		if i%5 == 0 {
			x.Tally.Unanswered = 1
		}
		if i%4 == 0 {
			x.Due = t0.Add(time.Hour)
		}
		xs = append(xs, x)
	}
	add(t, s, xs...)
	for i, x := range claim(t, s, t0, 40) {
		if i%2 == 0 {
			update(t, s, queue.Update{ID: x.ID, From: queue.Claimed, To: queue.Sent, Tally: x.Tally})
		}
	}
	stored := all(t, s, queue.Filter{})
	for _, states := range [][]queue.State{
		nil, {queue.Queued}, {queue.Claimed}, {queue.Sent}, {queue.Unknown}, {queue.Done, queue.Unknown},
		{queue.Queued, queue.Failed}, {queue.Claimed, queue.Sent, queue.Expired}, {queue.Sent, queue.Queued, queue.Claimed},
		{queue.Unknown + 1}, {-1, queue.Failed, queue.Failed},
	} {
		for _, caller := range []string{"", "a", "nobody"} {
			for _, unanswered := range []bool{false, true} {
				for _, newest := range []bool{false, true} {
					for _, after := range []int64{0, 1, 450, 900} {
						for _, limit := range []int{0, 7} {
							f := queue.Filter{States: states, Caller: caller, Unanswered: unanswered, Newest: newest, After: after, Limit: limit}
							var want []int64
							for _, x := range stored {
								beyond := x.ID > after
								if newest {
									beyond = after == 0 || x.ID < after
								}
								if beyond && (len(states) == 0 || slices.Contains(states, x.State)) &&
									(caller == "" || x.Caller == caller) && (!unanswered || x.Tally.Unanswered > 0) {
									want = append(want, x.ID)
								}
							}
							if newest {
								slices.Reverse(want)
							}
							if limit > 0 {
								want = want[:min(limit, len(want))]
							}
							if got := ids(all(t, s, f)); !slices.Equal(got, want) {
								t.Fatalf("Each(%+v): got %v, want %v", f, got, want)
							}
						}
					}
				}
			}
		}
	}
}

// testCancelResolve: the helpers over this store.
func testCancelResolve(t *testing.T, open Opener) {
	s := fresh(t, open)
	xs := simple(4)
	xs[1].Tally.Unanswered = 1
	xs[2].Remote = "launched"
	xs[3].State, xs[3].Ended, xs[3].Reason = queue.Unknown, t0, "sent, and no answer"
	add(t, s, xs...)
	ctx := t.Context()
	stored := func(x queue.Execution) {
		t.Helper()
		if got, err := s.Get(ctx, x.ID); err != nil || !equal(got, x) {
			t.Errorf("returned %+v\n  stored %+v, %v", x, got, err)
		}
	}
	x, err := queue.Cancel(ctx, s, 1, t0)
	if err != nil || x.State != queue.Expired || x.Reason != queue.ReasonCancelled || x.Ended != t0 {
		t.Errorf("Cancel: %+v, %v", x, err)
	}
	stored(x)
	if x, err = queue.Cancel(ctx, s, 2, t0); err != nil || x.State != queue.Unknown {
		t.Errorf("Cancel of what may have been executed: %+v, %v", x, err)
	}
	stored(x)
	for id, want := range map[int64]error{1: queue.ErrStale, 3: queue.ErrStale, 4: queue.ErrStale, 9: queue.ErrNotFound} {
		_, err := queue.Cancel(ctx, s, id, t0)
		wantError(t, fmt.Sprintf("Cancel of %d", id), err, want)
	}
	if x, err = queue.Resolve(ctx, s, 4, queue.Resolution{Again: true}, t0); err != nil || x.State != queue.Queued {
		t.Errorf("Resolve: %+v, %v", x, err)
	}
	stored(x)
	if x, err = queue.Resolve(ctx, s, 2, queue.Resolution{By: "ops"}, t0); err != nil || x.State != queue.Failed {
		t.Errorf("Resolve: %+v, %v", x, err)
	}
	stored(x)
	for id, want := range map[int64]error{2: queue.ErrStale, 3: queue.ErrStale, 4: queue.ErrStale, 9: queue.ErrNotFound} {
		_, err := queue.Resolve(ctx, s, id, queue.Resolution{}, t0)
		wantError(t, fmt.Sprintf("Resolve of %d", id), err, want)
	}
	claimed, err := s.Claim(ctx, t0, 9)
	if err != nil || len(claimed) != 2 || claimed[1].Tally.Unanswered != 1 || claimed[1].Tally.Resolved != 1 {
		t.Errorf("claimed %+v, %v", claimed, err)
	}
	if _, err := queue.Cancel(ctx, s, 4, t0); !errors.Is(err, queue.ErrStale) {
		t.Errorf("Cancel of a claimed one: %v", err)
	}
}
