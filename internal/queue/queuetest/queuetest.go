// Package queuetest is the suite that every [queue.Store] passes, and a store
// in memory for tests.
package queuetest

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/headgate/headgate/internal/queue"
)

// Opener opens the store that lives at dir, a folder of its own that exists.
// Called again with the same dir after Close, it opens what was stored there.
// A store without files takes dir as a name.
type Opener func(tb testing.TB, dir string) queue.Store

// Run runs the suite. Nothing in it waits for a clock.
func Run(t *testing.T, open Opener) {
	for _, c := range []struct {
		name string
		test func(*testing.T, Opener)
	}{
		{"Add", testAdd},
		{"AddIllegal", testAddIllegal},
		{"ClaimOrder", testClaimOrder},
		{"ClaimDue", testClaimDue},
		{"ClaimManyDue", testClaimManyDue},
		{"NextDue", testNextDue},
		{"Update", testUpdate},
		{"Transitions", testTransitions},
		{"Each", testEach},
		{"EachWhileWriting", testEachWhileWriting},
		{"EachLargeBodies", testEachLargeBodies},
		{"Meta", testMeta},
		{"Reopen", testReopen},
		{"Context", testContext},
		{"Close", testClose},
		{"CloseWhileWriting", testCloseWhileWriting},
		{"ClaimExclusive", testClaimExclusive},
		{"UpdateExclusive", testUpdateExclusive},
		{"AddConcurrently", testAddConcurrently},
		{"Keys", testKeys},
		{"KeysConcurrently", testKeysConcurrently},
		{"Get", testGet},
		{"Revision", testRevision},
		{"Load", testLoad},
		{"Oldest", testOldest},
		{"Prune", testPrune},
		{"PruneWhileWriting", testPruneWhileWriting},
		{"ClaimBefore", testClaimBefore},
		{"Turns", testTurns},
		{"TurnsReopen", testTurnsReopen},
		{"TurnsGivenBack", testTurnsGivenBack},
		{"Lists", testLists},
		{"CancelResolve", testCancelResolve},
		{"Model", testModel},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, open) })
	}
}

// t0 is when the suite takes place: with nanoseconds, which must be kept.
var t0 = time.Date(2026, 11, 23, 9, 0, 0, 123456789, time.UTC)

func fresh(t *testing.T, open Opener) queue.Store {
	t.Helper()
	return openAt(t, open, t.TempDir())
}

func openAt(t *testing.T, open Opener, dir string) queue.Store {
	t.Helper()
	s := open(t, dir)
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return s
}

func simple(n int) []queue.Execution {
	xs := make([]queue.Execution, n)
	for i := range xs {
		xs[i] = queue.Execution{Method: "POST", Path: fmt.Sprintf("/%d", i)}
	}
	return xs
}

func add(t *testing.T, s queue.Store, xs ...queue.Execution) []queue.Execution {
	t.Helper()
	if err := s.Add(t.Context(), xs); err != nil {
		t.Fatalf("Add: %v", err)
	}
	return xs
}

func claim(t *testing.T, s queue.Store, now time.Time, n int) []queue.Execution {
	t.Helper()
	xs, err := s.Claim(t.Context(), now, n)
	if err != nil {
		t.Fatalf("Claim: %v", err)
	}
	return xs
}

func update(t *testing.T, s queue.Store, u queue.Update) {
	t.Helper()
	if err := s.Update(t.Context(), u); err != nil {
		t.Fatalf("Update of %d from %v to %v: %v", u.ID, u.From, u.To, err)
	}
}

func all(t *testing.T, s queue.Store, f queue.Filter) (xs []queue.Execution) {
	t.Helper()
	for x, err := range s.Each(t.Context(), f) {
		if err != nil {
			t.Fatalf("Each: %v", err)
		}
		xs = append(xs, x)
	}
	return xs
}

func ids(xs []queue.Execution) []int64 {
	out := make([]int64, 0, len(xs))
	for _, x := range xs {
		out = append(out, x.ID)
	}
	return out
}

func wantIDs(t *testing.T, what string, got []queue.Execution, want ...int64) {
	t.Helper()
	if g := ids(got); !reflect.DeepEqual(g, append([]int64{}, want...)) {
		t.Errorf("%s: got %v, want %v", what, g, want)
	}
}

func wantCounts(t *testing.T, s queue.Store, want queue.Counts) {
	t.Helper()
	got, err := s.Counts(t.Context())
	if err != nil {
		t.Fatalf("Counts: %v", err)
	}
	if got != want {
		t.Errorf("Counts: got %v, want %v", got, want)
	}
}

func wantError(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: got error %v, want %v", what, err, want)
	}
}

func testAdd(t *testing.T, open Opener) {
	s := fresh(t, open)
	if err := s.Add(t.Context(), nil); err != nil {
		t.Errorf("Add of nothing: %v", err)
	}
	full := queue.Execution{
		Caller: "crm", Key: "k\x001", Accepted: t0.Add(-time.Second), Delivery: queue.AtMostOnce,
		Method: "POST", Path: "/api/v2/x?a=1&b=%20", Body: []byte("{\"a\":\x00\xff}"), Priority: -3,
		Extra: []byte("\x00extra"), Deadline: t0.Add(time.Hour), Due: t0.Add(time.Minute),
		Remote: "r", Tally: queue.Tally{Sent: 1, Waits: map[string]time.Duration{"token": time.Second}},
		Status: 503, Reason: "wegen Überlastung", Answer: []byte("busy"), AnswerType: "text/plain",
	}
	ended := queue.Execution{State: queue.Failed, Reason: "too large", Ended: t0, Status: 413}
	empty := queue.Execution{Body: []byte{}, Extra: []byte{}, Answer: []byte{}, Tally: queue.Tally{Waits: map[string]time.Duration{}}}
	xs := add(t, s, full, ended, empty)
	wantIDs(t, "Add", xs, 1, 2, 3)
	wantIDs(t, "second Add", add(t, s, simple(2)...), 4, 5)

	got := all(t, s, queue.Filter{})
	for i, want := range []queue.Execution{full, ended, {}} {
		want.ID, want.Revision = int64(i)+1, 1
		if !reflect.DeepEqual(got[i], want) {
			t.Errorf("stored:\n got %+v\nwant %+v", got[i], want)
		}
	}
	wantCounts(t, s, queue.Counts{queue.Queued: 4, queue.Failed: 1})

	// What the caller does to its slices afterwards is its own business.
	full.Body[0], full.Extra[0], full.Tally.Waits["token"] = '!', '!', 0
	if got := all(t, s, queue.Filter{Limit: 1})[0]; got.Body[0] != '{' || got.Extra[0] != 0 || got.Tally.Waits["token"] != time.Second {
		t.Errorf("the store shares memory with its caller: %+v", got)
	}

	// Other zones, monotonic readings, and times beyond what fits.
	now := time.Now()
	far := time.Date(9000, 1, 1, 0, 0, 0, 0, time.UTC)
	id := add(t, s, queue.Execution{
		Deadline: t0.In(time.FixedZone("", 7200)), State: queue.Done, Ended: now, Due: far,
	})[0].ID
	x := all(t, s, queue.Filter{After: id - 1})[0]
	if x.Deadline != t0 || x.Ended != now.UTC().Round(0) {
		t.Errorf("times: got %v and %v, want %v and %v", x.Deadline, x.Ended, t0, now.UTC().Round(0))
	}
	if x.Due.Before(t0.AddDate(100, 0, 0)) {
		t.Errorf("a due time in the year 9000 became %v", x.Due)
	}
}

func testAddIllegal(t *testing.T, open Opener) {
	s := fresh(t, open)
	for _, state := range []queue.State{queue.Claimed, queue.Sent, -1, queue.Unknown + 1} {
		xs := simple(3)
		xs[2].State = state
		wantError(t, fmt.Sprintf("Add as %v", state), s.Add(t.Context(), xs), queue.ErrIllegal)
	}
	// All or none: not even the first two are there.
	wantCounts(t, s, queue.Counts{})
	if xs := all(t, s, queue.Filter{}); len(xs) != 0 {
		t.Errorf("an Add that failed left %+v", xs)
	}
	wantIDs(t, "Add after failures", add(t, s, simple(1)...), 1)
}

func testMeta(t *testing.T, open Opener) {
	dir := t.TempDir()
	s := openAt(t, open, dir)
	want := func(s queue.Store, key string, want []byte) {
		t.Helper()
		got, err := s.Meta(t.Context(), key)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("Meta(%q): got %q, %v, want %q", key, got, err, want)
		}
	}
	set := func(key string, v []byte) {
		t.Helper()
		if err := s.SetMeta(t.Context(), key, v); err != nil {
			t.Fatalf("SetMeta: %v", err)
		}
	}
	want(s, "none", nil)
	v := []byte("one\x00two")
	set("a", v)
	v[0] = '!'
	want(s, "a", []byte("one\x00two"))
	set("a", []byte("other"))
	set("empty", []byte{})
	set("b", []byte("b"))
	set("gone", []byte("x"))
	set("gone", nil)
	set("never", nil)
	check := func(s queue.Store) {
		t.Helper()
		want(s, "a", []byte("other"))
		want(s, "empty", []byte{})
		want(s, "b", []byte("b"))
		want(s, "gone", nil)
		want(s, "never", nil)
	}
	check(s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	check(openAt(t, open, dir))
}

func testReopen(t *testing.T, open Opener) {
	dir := t.TempDir()
	s := openAt(t, open, dir)
	xs := simple(8)
	xs[5].Due = t0.Add(time.Hour)
	xs[6].Priority = -1
	add(t, s, xs...)
	claimed := claim(t, s, t0, 4) // 7, 1, 2, 3
	wantIDs(t, "Claim", claimed, 7, 1, 2, 3)
	update(t, s, queue.Update{ID: 7, From: queue.Claimed, To: queue.Sent, Tally: queue.Tally{Sent: 1}})
	update(t, s, queue.Update{ID: 1, From: queue.Claimed, To: queue.Sent, Tally: queue.Tally{Sent: 1}})
	update(t, s, queue.Update{ID: 1, From: queue.Sent, To: queue.Done, At: t0, Status: 200, Answer: []byte("ok")})
	update(t, s, queue.Update{ID: 2, From: queue.Claimed, To: queue.Queued, Due: t0.Add(time.Minute), Reason: "429"})
	before := all(t, s, queue.Filter{})
	counts, err := s.Counts(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatalf("Close: %v", err)
	}

	s = openAt(t, open, dir)
	if after := all(t, s, queue.Filter{}); !reflect.DeepEqual(after, before) {
		t.Errorf("after reopening:\n got %+v\nwant %+v", after, before)
	}
	// What was claimed is not handed out again: that is Recover's decision.
	wantCounts(t, s, counts)
	wantCounts(t, s, queue.Counts{queue.Queued: 5, queue.Claimed: 1, queue.Sent: 1, queue.Done: 1})
	wantIDs(t, "Claim after reopening", claim(t, s, t0, 100), 4, 5, 8)
	wantIDs(t, "Claim of what came due", claim(t, s, t0.Add(time.Hour), 100), 2, 6)
	wantIDs(t, "Add after reopening", add(t, s, simple(1)...), 9)
}

func testContext(t *testing.T, open Opener) {
	s := fresh(t, open)
	add(t, s, simple(2)...)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := s.Claim(ended, t0, 1)
	wantError(t, "Claim", err, context.Canceled)
	wantError(t, "Add", s.Add(ended, simple(1)), context.Canceled)
	wantError(t, "Update", s.Update(ended, queue.Update{ID: 1, To: queue.Failed}), context.Canceled)
	wantError(t, "SetMeta", s.SetMeta(ended, "k", []byte("v")), context.Canceled)
	_, err = s.Meta(ended, "k")
	wantError(t, "Meta", err, context.Canceled)
	_, err = s.Counts(ended)
	wantError(t, "Counts", err, context.Canceled)
	_, _, err = s.NextDue(ended)
	wantError(t, "NextDue", err, context.Canceled)
	_, err = s.Load(ended)
	wantError(t, "Load", err, context.Canceled)
	_, _, err = s.Oldest(ended)
	wantError(t, "Oldest", err, context.Canceled)
	_, err = s.Get(ended, 1)
	wantError(t, "Get", err, context.Canceled)
	_, err = s.ClaimBefore(ended, t0, queue.Place{Priority: 1}, 1)
	wantError(t, "ClaimBefore", err, context.Canceled)
	_, err = s.Prune(ended, t0, 1)
	wantError(t, "Prune", err, context.Canceled)
	wantError(t, "Each", firstError(ended, s), context.Canceled)
	// A context that had ended before the call changed nothing.
	wantCounts(t, s, queue.Counts{queue.Queued: 2})
	wantIDs(t, "Claim", claim(t, s, t0, 9), 1, 2)
}

func firstError(ctx context.Context, s queue.Store) error {
	for _, err := range s.Each(ctx, queue.Filter{}) {
		if err != nil {
			return err
		}
	}
	return nil
}

func testClose(t *testing.T, open Opener) {
	s := fresh(t, open)
	add(t, s, simple(2)...)
	for range 2 {
		if err := s.Close(); err != nil {
			t.Fatalf("Close: %v", err)
		}
	}
	_, err := s.Claim(t.Context(), t0, 1)
	wantError(t, "Claim", err, queue.ErrClosed)
	wantError(t, "Add", s.Add(t.Context(), simple(1)), queue.ErrClosed)
	wantError(t, "Update", s.Update(t.Context(), queue.Update{ID: 1, To: queue.Failed}), queue.ErrClosed)
	wantError(t, "SetMeta", s.SetMeta(t.Context(), "k", []byte("v")), queue.ErrClosed)
	_, err = s.Meta(t.Context(), "k")
	wantError(t, "Meta", err, queue.ErrClosed)
	_, err = s.Counts(t.Context())
	wantError(t, "Counts", err, queue.ErrClosed)
	_, _, err = s.NextDue(t.Context())
	wantError(t, "NextDue", err, queue.ErrClosed)
	_, err = s.Load(t.Context())
	wantError(t, "Load", err, queue.ErrClosed)
	_, _, err = s.Oldest(t.Context())
	wantError(t, "Oldest", err, queue.ErrClosed)
	_, err = s.Get(t.Context(), 1)
	wantError(t, "Get", err, queue.ErrClosed)
	_, err = s.ClaimBefore(t.Context(), t0, queue.Place{Priority: 1}, 1)
	wantError(t, "ClaimBefore", err, queue.ErrClosed)
	_, err = s.Prune(t.Context(), t0, 1)
	wantError(t, "Prune", err, queue.ErrClosed)
	wantError(t, "Each", firstError(t.Context(), s), queue.ErrClosed)
}
