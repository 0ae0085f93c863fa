package queue

import "slices"

// ways are the edges of the drawing in docs/states.md, by where they start.
// Outcomes have none, an execution that ended never changes again; but for
// Unknown, which is no knowledge: somebody may decide what becomes of it.
var ways = [Unknown + 1][]State{
	// Without passing through Claimed: what is withdrawn before its turn. To
	// Unknown: it may have run already, and must not run twice.
	Queued: {Claimed, Failed, Expired, Unknown},
	// Back to Queued: handed back, or surely not left. To an outcome without
	// Sent: a request that can't be made, a deadline, or a poll that met the
	// end of launched work.
	Claimed: {Queued, Sent, Done, Failed, Expired, Unknown},
	// Back to Queued: refused by a limit, launched and now followed, or sent
	// again under at-least-once. To Expired: refused, and the deadline comes
	// before the next attempt could.
	Sent: {Queued, Done, Failed, Expired, Unknown},
	// Only by [Resolve]: sent again, or given up.
	Unknown: {Queued, Failed},
}

// Legal reports whether an execution may go from one state to another in one
// step. Every [Store] refuses the rest with [ErrIllegal]; only Claim may take
// the way from Queued to Claimed, so that no execution is claimed twice.
func Legal(from, to State) bool {
	if from < 0 || int(from) >= len(ways) {
		return false
	}
	return slices.Contains(ways[from], to)
}

// LegalUpdate is [Legal] for [Store.Update], which may not claim.
func LegalUpdate(from, to State) bool { return to != Claimed && Legal(from, to) }

// LegalStart reports whether an execution may be added in state s.
func LegalStart(s State) bool { return s == Queued || s.Ended() && s <= Unknown }

// Delivery says what becomes of an execution whose attempt left and was never
// answered. Neither loses it, and neither doubles it in silence: it is counted
// in Tally.Unanswered, and the reason stands in the execution.
//
// Its numbers are stored: never reorder.
type Delivery int

const (
	// AsConfigured, the zero value, leaves it to the next who is asked: an
	// execution to its Dispatcher or to Recover, and those to AtLeastOnce.
	AsConfigured Delivery = iota
	// AtLeastOnce sends it again. It may be executed more than once.
	AtLeastOnce
	// AtMostOnce ends it as Unknown. It may have been executed or not.
	AtMostOnce
)

// String returns the delivery's word, as flags and files write it.
func (d Delivery) String() string {
	switch d {
	case AsConfigured:
		return "as configured"
	case AtMostOnce:
		return "at-most-once"
	}
	return "at-least-once"
}
