package queuetest

import (
	"fmt"
	"slices"
	"testing"

	"github.com/headgate/headgate/internal/queue"
)

// shared returns n executions of a caller with that weight.
func shared(caller string, weight float64, n int) []queue.Execution {
	xs := simple(n)
	for i := range xs {
		xs[i].Caller, xs[i].Weight = caller, weight
	}
	return xs
}

// take claims n, puts them on the wire, and returns how many each caller had of
// them.
func take(t *testing.T, s queue.Store, n int) map[string]int {
	t.Helper()
	had := map[string]int{}
	for _, x := range claim(t, s, t0, n) {
		had[x.Caller]++
		update(t, s, queue.Update{ID: x.ID, From: queue.Claimed, To: queue.Sent, Tally: queue.Tally{Sent: 1}})
	}
	return had
}

// wantShares fails unless each caller had so many, give or take one.
func wantShares(t *testing.T, what string, had map[string]int, want map[string]int) {
	t.Helper()
	for caller, n := range want {
		if d := had[caller] - n; d < -1 || d > 1 {
			t.Errorf("%s: callers had %v, want %v", what, had, want)
			return
		}
	}
}

// testTurns: callers of the same priority share it by weight, whoever came first
// and with however many.
func testTurns(t *testing.T, open Opener) {
	s := fresh(t, open)
	add(t, s, shared("bulk", 1, 1000)...)
	wantShares(t, "alone", take(t, s, 50), map[string]int{"bulk": 50})
	// Who had nothing begins in the present: neither after what is queued, nor
	// with what it did not take before.
	late := add(t, s, shared("late", 3, 300)...)
	wantShares(t, "3 to 1", take(t, s, 100), map[string]int{"bulk": 25, "late": 75})
	add(t, s, shared("third", 1, 300)...)
	wantShares(t, "3 to 1 to 1", take(t, s, 100), map[string]int{"bulk": 20, "late": 60, "third": 20})
	// Weights count for what is added with them.
	add(t, s, shared("third", 4, 300)...)
	wantShares(t, "what was added before", take(t, s, 100), map[string]int{"bulk": 20, "late": 60, "third": 20})
	// Another priority is another line, and goes before or after all of it.
	urgent := shared("bulk", 1, 4)
	for i := range urgent {
		urgent[i].Priority = -1
	}
	add(t, s, urgent...)
	wantShares(t, "urgent", take(t, s, 4), map[string]int{"bulk": 4})
	// What is not shared out goes first.
	if xs := add(t, s, simple(2)...); xs[0].Turn != 0 || xs[1].Turn != 0 {
		t.Errorf("turns without a weight: %d, %d", xs[0].Turn, xs[1].Turn)
	}
	wantShares(t, "unshared", take(t, s, 2), map[string]int{"": 2})

	for i, x := range late {
		got, err := s.Get(t.Context(), x.ID)
		if err != nil || got.Turn != x.Turn || got.Weight != 0 {
			t.Fatalf("stored: turn %d, weight %v, %v, want turn %d", got.Turn, got.Weight, err, x.Turn)
		}
		if i > 0 && x.Turn <= late[i-1].Turn {
			t.Fatalf("turns do not grow: %d after %d", x.Turn, late[i-1].Turn)
		}
	}
	// Weights that are none.
	odd := shared("odd", 1, 3)
	odd[0].Weight, odd[1].Weight, odd[2].Weight = -1, 1e9, 1e-9
	if add(t, s, odd...); odd[1].Turn-odd[0].Turn != 1e8 || odd[2].Turn-odd[1].Turn != 100 {
		t.Errorf("turns of odd weights: %d, %d, %d", odd[0].Turn, odd[1].Turn, odd[2].Turn)
	}
	ended := shared("odd", 1, 1)
	ended[0].State = queue.Done
	if add(t, s, ended...); ended[0].Turn != 0 {
		t.Errorf("one that had ended got turn %d", ended[0].Turn)
	}
}

// testTurnsReopen: a restart changes nothing of it.
func testTurnsReopen(t *testing.T, open Opener) {
	var had [2][]string
	for i := range had {
		dir := t.TempDir()
		s := openAt(t, open, dir)
		step := func() {
			t.Helper()
			if i == 0 {
				return
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s = openAt(t, open, dir)
		}
		note := func(n int) {
			t.Helper()
			for _, x := range claim(t, s, t0, n) {
				had[i] = append(had[i], fmt.Sprint(x.Caller, " ", x.Turn))
				update(t, s, queue.Update{ID: x.ID, From: queue.Claimed, To: queue.Sent})
			}
		}
		add(t, s, shared("a", 1, 20)...)
		note(10)
		step() // the present is known
		add(t, s, shared("b", 2, 10)...)
		step() // and who has had what
		add(t, s, shared("a", 1, 5)...)
		add(t, s, shared("b", 2, 5)...)
		note(25)
		step()
		note(5)
		step() // nobody waits: who had less has not saved it up
		add(t, s, shared("c", 1, 2)...)
		add(t, s, shared("a", 1, 2)...)
		note(9)
	}
	if !slices.Equal(had[0], had[1]) {
		t.Errorf("with restarts:\n got %v\nwant %v", had[1], had[0])
	}
	if last := had[0][40:]; len(had[0]) != 44 || last[0][0] != 'c' {
		t.Errorf("in the end: %v of %d", last, len(had[0]))
	}
}

// testTurnsGivenBack: what is cancelled costs its caller next to nothing, and
// what was put on the wire does.
func testTurnsGivenBack(t *testing.T, open Opener) {
	s := fresh(t, open)
	add(t, s, shared("bulk", 1, 500)...)
	take(t, s, 10)
	gone := add(t, s, shared("fickle", 1, 400)...)
	for _, x := range gone[2:] {
		if _, err := queue.Cancel(t.Context(), s, x.ID, t0); err != nil {
			t.Fatal(err)
		}
	}
	again := add(t, s, shared("fickle", 1, 100)...)
	if again[0].Turn != gone[2].Turn {
		t.Errorf("after 398 of 400 were cancelled the next has turn %d, want %d", again[0].Turn, gone[2].Turn)
	}
	wantShares(t, "after cancelling", take(t, s, 100), map[string]int{"bulk": 50, "fickle": 50})

	// What was sent, and what the present has passed, is not given back.
	x := claim(t, s, t0, 1)[0]
	update(t, s, queue.Update{ID: x.ID, From: queue.Claimed, To: queue.Sent, Tally: queue.Tally{Sent: 1}})
	update(t, s, queue.Update{ID: x.ID, From: queue.Sent, To: queue.Failed, Tally: queue.Tally{Sent: 1}})
	late := shared("late", 1, 20)
	for i := range late {
		late[i].Due = t0.Add(1)
	}
	add(t, s, late...)
	take(t, s, 60)
	last := add(t, s, shared("late", 1, 50)...)
	for _, x := range late {
		if _, err := queue.Cancel(t.Context(), s, x.ID, t0); err != nil {
			t.Fatal(err)
		}
	}
	if next := add(t, s, shared("late", 1, 1)...); next[0].Turn != last[49].Turn+1e5 {
		t.Errorf("turns that have passed were given back: the next is %d after %d", next[0].Turn, last[49].Turn)
	}
}
