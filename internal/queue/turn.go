package queue

import (
	"cmp"
	"math"
)

// Place is where an execution stands among those that are queued: by Priority,
// then by Turn. Those with the same place go by ID.
type Place struct {
	Priority int
	Turn     int64
}

// Place returns x's place in the queue.
func (x *Execution) Place() Place { return Place{x.Priority, x.Turn} }

// Before reports whether p comes before o.
func (p Place) Before(o Place) bool { return p.Compare(o) < 0 }

// Compare returns -1 if p comes before o, 1 if it comes after it, else 0.
func (p Place) Compare(o Place) int {
	return cmp.Or(cmp.Compare(p.Priority, o.Priority), cmp.Compare(p.Turn, o.Turn))
}

// LastPlace is that of no execution at all: everything comes before it.
func LastPlace() Place { return Place{math.MaxInt, math.MaxInt64} }

// Turns are given by start-time fair queueing, for each priority apart. An
// execution's turn is where its caller's latest ended, but not before the
// present; the present is the latest turn that was put on the wire. So whoever
// has had nothing begins at the front of the present, and saves nothing up.
//
// These are the pure parts of it; a store keeps the present of each priority,
// and of each caller in it a [Standing].

// Standing is what a caller has taken of the turns of one priority.
type Standing struct {
	Finish int64 // where its next turn begins, or in the present
	Cost   int64 // of its latest
}

// turnCost is what an execution costs a caller whose weight is 1. Turns last for
// 90 years at 30,000 executions a second.
const turnCost = 1e5

// Bounds of Execution.Weight.
const (
	leastWeight = 0.001
	mostWeight  = 1000
)

// Next takes the next turn for a caller of that weight, when present is the
// present. Turns begin with 1; a weight of 0 is for what is not shared out, whose
// turn is 0.
func (s *Standing) Next(present int64, weight float64) (turn int64) {
	if weight == 0 || math.IsNaN(weight) {
		return 0
	}
	s.Cost = int64(math.Round(turnCost / min(max(weight, leastWeight), mostWeight)))
	turn = max(present, s.Finish, 1)
	s.Finish = turn + s.Cost
	return turn
}

// GiveBack gives back a turn that is not used and has not passed, as if its cost
// were that of the latest: the caller's next begins so much earlier.
func (s *Standing) GiveBack(present, turn int64) {
	if turn >= present {
		s.Finish -= s.Cost
	}
}

// UsesNoTurn reports whether u brings an execution to an outcome that was never
// put on the wire: its turn is given back.
func (u *Update) UsesNoTurn() bool {
	return u.To.Ended() && (u.From == Queued || u.From == Claimed) && u.Tally.Sent == 0
}
