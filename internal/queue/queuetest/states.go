package queuetest

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"

	"github.com/headgate/headgate/internal/queue"
)

func testClaimOrder(t *testing.T, open Opener) {
	s := fresh(t, open)
	xs := simple(7)
	for i, p := range []int{0, 5, -1, 0, -1, 5, 0} {
		xs[i].Priority = p
		xs[i].Body = fmt.Appendf(nil, "body %d", i)
	}
	add(t, s, xs...)
	if got := claim(t, s, t0, 0); len(got) != 0 {
		t.Errorf("Claim of none: got %v", ids(got))
	}
	got := claim(t, s, t0, 3)
	wantIDs(t, "first Claim", got, 3, 5, 1)
	for _, x := range got {
		want := xs[x.ID-1]
		want.State = queue.Claimed
		if !reflect.DeepEqual(x, want) {
			t.Errorf("claimed:\n got %+v\nwant %+v", x, want)
		}
	}
	wantCounts(t, s, queue.Counts{queue.Queued: 4, queue.Claimed: 3})
	// What goes back keeps its place, and a newcomer takes its own.
	update(t, s, queue.Update{ID: 5, From: queue.Claimed, To: queue.Queued})
	add(t, s, queue.Execution{Priority: -9})
	wantIDs(t, "second Claim", claim(t, s, t0, 3), 8, 5, 4)
	wantIDs(t, "third Claim", claim(t, s, t0, 100), 7, 2, 6)
	if got := claim(t, s, t0, 100); len(got) != 0 {
		t.Errorf("Claim of an empty queue: got %v", ids(got))
	}
}

func testClaimDue(t *testing.T, open Opener) {
	s := fresh(t, open)
	xs := simple(6)
	for i, d := range []time.Duration{0, 10, -10, 20, 10, 10} {
		if d != 0 {
			xs[i].Due = t0.Add(d)
		}
	}
	xs[4].Priority = -1
	add(t, s, xs...)
	wantIDs(t, "Claim at t0", claim(t, s, t0, 100), 1, 3)
	wantIDs(t, "Claim a nanosecond early", claim(t, s, t0.Add(9), 100))
	// A due time that has come gives no advantage and no disadvantage.
	add(t, s, queue.Execution{}, queue.Execution{Priority: -1})
	wantIDs(t, "Claim on time", claim(t, s, t0.Add(10), 100), 5, 8, 2, 6, 7)
	update(t, s, queue.Update{ID: 2, From: queue.Claimed, To: queue.Queued, Due: t0.Add(30)})
	wantIDs(t, "Claim of the rest", claim(t, s, t0.Add(20), 100), 4)
	wantIDs(t, "Claim of what was put off", claim(t, s, t0.Add(30), 100), 2)
}

// testClaimManyDue: more come due at once than a store may care to let in with
// one Claim. None is forgotten or handed out twice, and those that were never
// held back are not held up.
func testClaimManyDue(t *testing.T, open Opener) {
	s := fresh(t, open)
	const n = 5000
	xs := simple(n)
	for i := range xs {
		xs[i].Due = t0.Add(time.Duration(rand.IntN(50)))
	}
	add(t, s, xs...)
	urgent := add(t, s, queue.Execution{Priority: -5})[0].ID
	wantIDs(t, "first Claim", claim(t, s, t0.Add(time.Hour), 1), urgent)
	seen := map[int64]bool{}
	for {
		got := claim(t, s, t0.Add(time.Hour), 700)
		for _, x := range got {
			if seen[x.ID] {
				t.Fatalf("%d was handed out twice", x.ID)
			}
			seen[x.ID] = true
		}
		if len(got) < 700 {
			break
		}
	}
	if len(seen) != n {
		t.Errorf("handed out %d, want %d", len(seen), n)
	}
}

func testNextDue(t *testing.T, open Opener) {
	s := fresh(t, open)
	want := func(what string, want time.Time, wantOK bool) {
		t.Helper()
		due, ok, err := s.NextDue(t.Context())
		if err != nil || due != want || ok != wantOK {
			t.Errorf("%s: NextDue is %v, %v, %v, want %v, %v", what, due, ok, err, want, wantOK)
		}
	}
	want("empty", time.Time{}, false)
	add(t, s, queue.Execution{Due: t0.Add(2)}, queue.Execution{Due: t0.Add(1), Priority: 9})
	want("two held back", t0.Add(1), true)
	add(t, s, queue.Execution{}, queue.Execution{State: queue.Done})
	want("one not held back", time.Time{}, true)
	wantIDs(t, "Claim", claim(t, s, t0, 5), 3)
	want("it is claimed", t0.Add(1), true)
	wantIDs(t, "Claim", claim(t, s, t0.Add(1), 5), 2)
	want("one left", t0.Add(2), true)
	update(t, s, queue.Update{ID: 2, From: queue.Claimed, To: queue.Queued, Due: t0.Add(1)})
	want("back again", t0.Add(1), true)
	wantIDs(t, "Claim of the first of two that came due", claim(t, s, t0.Add(9), 1), 1)
	// One that came due may be reported as such, or by its time.
	if due, ok, err := s.NextDue(t.Context()); err != nil || !ok || due.After(t0.Add(2)) {
		t.Errorf("one came due: NextDue is %v, %v, %v", due, ok, err)
	}
	wantIDs(t, "Claim of the other", claim(t, s, t0.Add(9), 1), 2)
	want("nothing queued", time.Time{}, false)
}

func testUpdate(t *testing.T, open Opener) {
	s := fresh(t, open)
	x := queue.Execution{
		Method: "POST", Path: "/p", Body: []byte("b"), Priority: 2, Deadline: t0.Add(time.Hour),
		Remote: "old", Reason: "old", Status: 1, Answer: []byte("old"), Tally: queue.Tally{Polls: 9},
	}
	x = add(t, s, x)[0]
	claim(t, s, t0, 1)
	tally := queue.Tally{
		Sent: 1, Refused: 2, Retries: 3, Unanswered: 4, Resolved: 3, Unauthorized: 5, LastBackoff: 6, Forgiven: 2, AnswerBytes: 1 << 40,
		Waits: map[string]time.Duration{"Retry-After": 7, "token": 8}, Polls: 9,
	}
	u := queue.Update{
		ID: x.ID, From: queue.Claimed, To: queue.Sent, At: t0, Due: t0.Add(5), Remote: "r",
		Tally: tally, Status: 429, Reason: "slow down", Answer: []byte("no"), AnswerType: "text/html",
	}
	update(t, s, u)
	x.State, x.Due, x.Remote, x.Tally, x.Status, x.Reason, x.Answer, x.AnswerType =
		queue.Sent, u.Due, u.Remote, tally, u.Status, u.Reason, u.Answer, u.AnswerType
	x.Revision = 2
	check := func(what string) {
		t.Helper()
		if got := all(t, s, queue.Filter{})[0]; !reflect.DeepEqual(got, x) {
			t.Errorf("%s:\n got %+v\nwant %+v", what, got, x)
		}
	}
	check("sent: Ended is for outcomes only")
	// Replaced means replaced: what the update does not say is gone.
	update(t, s, queue.Update{ID: x.ID, From: queue.Sent, To: queue.Done, At: t0.Add(9)})
	x.State, x.Ended, x.Revision = queue.Done, t0.Add(9), 3
	x.Due, x.Remote, x.Tally, x.Status, x.Reason, x.Answer, x.AnswerType = time.Time{}, "", queue.Tally{}, 0, "", nil, ""
	check("done")
}

// put brings a new execution to a state by legal ways.
func put(t *testing.T, s queue.Store, to queue.State) int64 {
	t.Helper()
	id := add(t, s, queue.Execution{Priority: -1})[0].ID // before whatever else is queued
	if to == queue.Queued {
		return id
	}
	wantIDs(t, "Claim", claim(t, s, t0, 1), id)
	from := queue.Claimed
	if to == queue.Claimed {
		return id
	}
	if to == queue.Sent || to == queue.Done || to == queue.Unknown {
		update(t, s, queue.Update{ID: id, From: from, To: queue.Sent})
		from = queue.Sent
	}
	if to != queue.Sent {
		update(t, s, queue.Update{ID: id, From: from, To: to, At: t0})
	}
	return id
}

// testTransitions tries every way there is and is not.
func testTransitions(t *testing.T, open Opener) {
	s := fresh(t, open)
	add(t, s, simple(1)...) // so that there is another one to be confused with
	const last = queue.Unknown
	for from := queue.Queued; from <= last; from++ {
		for to := queue.Queued; to <= last+1; to++ {
			id := put(t, s, from)
			before, err := s.Counts(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			what := fmt.Sprintf("%v to %v", from, to)
			err = s.Update(t.Context(), queue.Update{ID: id, From: from, To: to, At: t0, Reason: "moved"})
			now := all(t, s, queue.Filter{After: id - 1, Limit: 1})[0]
			if queue.LegalUpdate(from, to) {
				if err != nil || now.State != to {
					t.Errorf("%s: got %v, and it is %v", what, err, now.State)
				}
				before[from]--
				before[to]++
			} else {
				wantError(t, what, err, queue.ErrIllegal)
				if now.State != from || now.Reason == "moved" {
					t.Errorf("%s: refused, and yet it is now %+v", what, now)
				}
			}
			wantCounts(t, s, before)
			if now.State == queue.Queued { // out of the way of the next Claim
				update(t, s, queue.Update{ID: id, From: queue.Queued, To: queue.Failed})
			}
		}
	}
	// From a state that it is not in, or that is not there at all.
	for from := queue.Queued; from <= queue.Sent; from++ {
		for is := queue.Queued; is <= last; is++ {
			if is == from {
				continue
			}
			id := put(t, s, is)
			err := s.Update(t.Context(), queue.Update{ID: id, From: from, To: queue.Failed, Reason: "moved"})
			wantError(t, fmt.Sprintf("from %v when it is %v", from, is), err, queue.ErrStale)
			if now := all(t, s, queue.Filter{After: id - 1, Limit: 1})[0]; now.State != is || now.Reason == "moved" {
				t.Errorf("stale, and yet it is now %+v", now)
			}
			if is == queue.Queued {
				update(t, s, queue.Update{ID: id, From: queue.Queued, To: queue.Failed})
			}
		}
	}
	for _, id := range []int64{0, -1, 1 << 40} {
		err := s.Update(t.Context(), queue.Update{ID: id, From: queue.Queued, To: queue.Failed})
		wantError(t, fmt.Sprintf("update of %d", id), err, queue.ErrStale)
	}
}
