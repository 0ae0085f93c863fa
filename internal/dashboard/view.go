package dashboard

import (
	"context"
	"errors"
	"time"
)

// What a Source says with its errors, so that the page can answer with the
// right status: wrap them with what an operator should read.
var (
	// ErrNotFound: there is no such org or execution.
	ErrNotFound = errors.New("not found")
	// ErrConflict: it is no longer what the page showed, for example an
	// execution that somebody else has resolved meanwhile.
	ErrConflict = errors.New("no longer so")
)

// What may be done with an unknown execution.
const (
	// SendAgain queues it again: it may then be executed twice.
	SendAgain = "send-again"
	// GiveUp ends it: it may have been executed.
	GiveUp = "give-up"
)

// Source is what the page shows and changes. Its methods are called from many
// goroutines at once. The text of an error is shown to the operator and
// logged.
type Source interface {
	// View returns the state of now. It is called once each interval from one
	// goroutine, should take milliseconds, and returns soon after ctx ends.
	// What it returns is not changed afterwards.
	View(ctx context.Context) View
	// Resolve ends the doubt about an unknown execution: action is
	// [SendAgain] or [GiveUp]. It returns nil once that is on disk.
	Resolve(ctx context.Context, id, action string) error
	// Pause keeps every call of an org from being sent, Resume ends that.
	// Either is no error where it is so already.
	Pause(ctx context.Context, org string) error
	Resume(ctx context.Context, org string) error
	// Cancel ends a queued execution that was not sent. It returns nil once
	// that is on disk.
	Cancel(ctx context.Context, id string) error
}

// View is all that the page shows of one moment. Any text in it may come from
// the network: the page shows it as text, and cuts what is very long. A number
// that is not finite counts as not known.
type View struct {
	// At is the time of the view by the gateway's clock. What the page says
	// of waits and ages is reckoned from it.
	At time.Time
	// Version is the gateway's.
	Version string
	// Draining says that no new call is taken any more.
	Draining bool
	// Orgs are shown in this order; keep it from one view to the next. Names
	// must differ.
	Orgs []Org
}

// Org is the state of one org.
type Org struct {
	Name   string
	Paused bool
	// Trouble says in words why nothing goes, or why nothing is accepted:
	// "login refused: …", "the disk is full". "" means well.
	Trouble string
	// Peak says in words what peak hours do now; "" outside of them.
	Peak string
	// Limits are shown in this order; the first 32 of them. Where there are
	// more, put those first that somebody waits for. Name and Scope together
	// must differ.
	Limits []Limit
	// Held is how many callers' calls wait at the gateway now, InFlight how
	// many are on the wire.
	Held, InFlight int
	Queue          Queue
	// Callers are shown by what they sent in the last minute; the first 200.
	Callers []Caller
	// Waiting are the first calls in line, in the order in which they will
	// go; the first 50 are shown.
	Waiting []Waiting
	// Queued and Unknown are the first executions of each; 50 are shown.
	Queued, Unknown []Execution
}

// Limit is what is believed of one limit.
type Limit struct {
	// Name is the server's, Scope what of it is counted: which token, client
	// or path; "" for the whole org.
	Name, Scope string
	// Rate is in requests a second, or 0 if not known. Burst is what the full
	// bucket holds, or what fits into Window if that is above 0; 0 if not
	// known. Level is how many could go now. Pace is at how many a second
	// they are sent; 0 where no pace holds them back.
	Rate, Burst, Level, Pace float64
	// RateSure is how sure Rate is, from 0, a guess, to 1. It is shown for a
	// limit that learns.
	RateSure float64
	Window   time.Duration
	// Algorithm is in words. Learning is what the learner is at; "" or "off"
	// for what is only configured.
	Algorithm, Learning string
	// Waiting is how many stand in line for it, RetryAfter for how long the
	// server has asked to stay away from now on.
	Waiting    int
	RetryAfter time.Duration
	// Others is how many requests a second somebody else seems to make.
	Others float64
	// Sent, Accepted and Rejected count requests since the start. One that
	// falls is taken to have begun again.
	Sent, Accepted, Rejected uint64
}

// Queue counts the durable executions of an org.
type Queue struct {
	Queued, Unknown, Done, Failed, Expired int64
	// Oldest is the age of the oldest queued one, Estimate when the last of
	// them will have gone; 0 if not known.
	Oldest, Estimate time.Duration
}

// Caller is one who calls.
type Caller struct {
	Name string
	// Weight is its fair share beside the others'.
	Weight float64
	// Sent counts its requests since the start.
	Sent uint64
	// Waiting and Queued are its held calls and its queued executions.
	Waiting int
	Queued  int64
}

// Waiting is one call that is held, or an execution, that waits for its
// permit.
type Waiting struct {
	// ID tells it from the others, if it has one.
	ID                   string
	Caller, Method, Path string
	// Priority is the urgency of RFC 9218: 0 goes first, 7 last.
	Priority int
	// Since is when it came, Expected when it will go; zero if not known.
	Since, Expected time.Time
	// Why is what it waits for, in words.
	Why string
}

// Execution is one durable call that waits for its turn, or that was sent and
// whose answer never came.
type Execution struct {
	ID, Caller, Method, Path string
	// Reason is why it is not done.
	Reason string
	// At is when it was accepted; for an unknown one when it became that.
	At time.Time
	// Expected is when it will go; zero if not known.
	Expected time.Time
	// Attempts were put on the wire for it.
	Attempts int
}
