// Package queue holds durable executions: calls that were accepted, that
// survive a crash, and that each end in exactly one outcome.
//
// The states and the ways between them are drawn in docs/states.md. This
// package knows neither HTTP nor a database: a [Store] keeps the executions,
// a Sender makes one attempt, the Dispatcher carries work from one to the
// other.
package queue

import (
	"context"
	"errors"
	"iter"
	"time"
)

// State is where an execution stands. The numbers are stored: never reorder.
type State int

const (
	// Queued executions wait for their turn; those with a Due time in the
	// future wait for that first.
	Queued State = iota
	// Claimed executions are in a dispatcher's hands and nothing has left
	// since: after a crash they are simply queued again.
	Claimed
	// Sent executions have an attempt on the wire whose answer is not
	// recorded. After a crash nobody knows whether it ran.
	Sent

	// The four outcomes. An execution that has one never changes again, but
	// for Unknown: somebody may decide about it, see [Resolve].

	// Done: the server executed it.
	Done
	// Failed: the server said no for good, or the request could not be made.
	Failed
	// Expired: its deadline passed, or it was cancelled, before it was sent.
	Expired
	// Unknown: it was sent and the answer never came.
	Unknown
)

// Ended reports whether s is an outcome.
func (s State) Ended() bool { return s >= Done }

// String returns the state's word, as results and messages show it.
func (s State) String() string {
	switch s {
	case Queued:
		return "queued"
	case Claimed:
		return "claimed"
	case Sent:
		return "sent"
	case Done:
		return "done"
	case Failed:
		return "failed"
	case Expired:
		return "expired"
	case Unknown:
		return "unknown"
	}
	return "invalid"
}

// Execution is one durable call.
type Execution struct {
	// ID is given by the store in the order of acceptance, from 1 upwards
	// without gaps among those that one Add stores. None is given twice.
	ID int64
	// Existing is set by Add, either way: true if Caller and Key are those
	// of an execution that is stored. It is not stored itself.
	Existing bool

	// Who asks, and when. It never changes after Add.
	Caller   string    // "" for nobody in particular
	Key      string    // the caller's name for it, see Store.Add; "" for none
	Accepted time.Time // as Add was told; zero for not told

	// What to send. It never changes after Add.
	Method   string
	Path     string    // with the query, as in a request line
	Body     []byte    // nil for none; an empty one is read back as nil
	Extra    []byte    // what else the Sender needs; stored as it is, as Body is
	Priority int       // lower goes first; 0 is normal
	Deadline time.Time // not sent after this; zero for none
	Delivery Delivery  // zero for that of the Dispatcher, or of Recover

	// Weight is how large its Caller's share is beside that of others of the
	// same Priority: a caller with 3 has three executions claimed for each
	// that one with 1 has, as long as both have some. It is kept between
	// 0.001 and 1000. 0 is for work that is not shared out: its Turn is 0. It
	// is for Add alone, and not stored.
	Weight float64
	// Turn is given by the store as it is added, and never changes: see
	// Store.Add.
	Turn int64

	// Revision is 1 when it is added and grows by one with each Update: see
	// Update.Revision. A Claim leaves it.
	Revision int64

	// Where it stands.
	State State
	Due   time.Time // not claimed before this; zero for at once

	// Remote is the server's handle on work that it accepted and has not
	// finished (the id of a launched flow). An execution that has one is
	// followed to its end and never launched again.
	Remote string

	Tally Tally

	// How it ended, or what the last attempt met.
	Status int    // the last HTTP status, 0 if there was no answer
	Reason string // why it is not done, for people; empty when all is well
	Answer []byte // the server's answer; nil if none, and if it was empty
	// AnswerType is the content type of Answer; "" if it is not known.
	AnswerType string
	Ended      time.Time
}

// Tally counts what happened to one execution. It is kept over restarts.
type Tally struct {
	// Sent counts attempts that were put on the wire, polls not among them.
	Sent int `json:"sent,omitempty"`
	// Refused counts answers that a limit refused: surely not executed.
	Refused int `json:"refused,omitempty"`
	// Retries counts the attempts that a failure other than a refusal cost;
	// Forgiven of them no longer count against the most that are made.
	Retries  int `json:"retries,omitempty"`
	Forgiven int `json:"forgiven,omitempty"`
	// Unanswered counts attempts that may have been executed although no
	// usable answer came. If it is above 0 and the execution is done, it
	// may have been executed more than once.
	Unanswered int `json:"unanswered,omitempty"`
	// Resolved of the Unanswered no longer forbid to send again under
	// at-most-once: somebody knew of them and decided so. See [Resolve].
	Resolved int `json:"resolved,omitempty"`
	// Unauthorized counts 401 answers since another one came.
	Unauthorized int `json:"unauthorized,omitempty"`
	// LastBackoff is the latest wait that backoff chose; decorrelated
	// jitter grows from it.
	LastBackoff time.Duration `json:"last_backoff,omitempty"`
	// Waits says how long it waited for each cause: a limit's name,
	// "Retry-After", "backoff".
	Waits map[string]time.Duration `json:"waits,omitempty"`
	// Polls counts the status requests that followed launched work.
	Polls int `json:"polls,omitempty"`
	// AnswerBytes is how long the answer was, if not all of it was kept.
	AnswerBytes int64 `json:"answer_bytes,omitempty"`
}

// Update moves one execution from one state to another.
type Update struct {
	ID   int64
	From State // the state that it must be in, else ErrStale
	To   State
	// Revision, if not 0, must be the execution's, else ErrStale: nobody has
	// changed it since it was read.
	Revision int64
	// At is when. It is stored as Ended if To is an outcome.
	At time.Time
	// The rest replaces what is stored.
	Due        time.Time
	Remote     string
	Tally      Tally
	Status     int
	Reason     string
	Answer     []byte
	AnswerType string
}

// Filter chooses executions to read.
type Filter struct {
	States []State // empty: all
	Caller string  // only this caller's; "": everybody's
	// Newest turns the order round: by descending ID.
	Newest bool
	// After is where to go on: only those with a greater ID, and with Newest
	// only those with a smaller one. 0: from the first in order.
	After int64
	Limit int // at most so many; 0: all
	// Unanswered: only those with a Tally.Unanswered above 0. To look for
	// them among a million must take no more than seconds.
	Unanswered bool
}

// Counts says how many executions are in each state, indexed by State.
type Counts [Unknown + 1]int64

// Load is what one caller has open: neither ended nor pruned.
type Load struct {
	Rows  int64
	Bytes int64 // of their bodies
}

// Total returns the number of executions in c.
func (c Counts) Total() (n int64) {
	for _, v := range c {
		n += v
	}
	return n
}

// Open returns how many have no outcome yet.
func (c Counts) Open() int64 { return c[Queued] + c[Claimed] + c[Sent] }

// Errors that every Store returns, wrapped or bare.
var (
	// ErrStale: the execution is not in the state that the update starts
	// from, or does not exist. Nothing was changed.
	ErrStale = errors.New("execution is not in the expected state")
	// ErrIllegal: there is no way between the two states (see [Legal]), or
	// an execution was to be added in a state that nothing begins in.
	// Nothing was changed.
	ErrIllegal = errors.New("no way between these states")
	// ErrNotFound: no execution has this ID, or it was pruned.
	ErrNotFound = errors.New("no such execution")
	// ErrFull: there is no room on the disk. Nothing was changed, and the
	// call may be made again once there is room.
	ErrFull = errors.New("no space left for the journal")
	// ErrClosed: the store was closed.
	ErrClosed = errors.New("store is closed")
)

// Store keeps executions. Every implementation passes the suite in package
// queuetest, which is the long form of what is said here.
//
// All methods are safe for concurrent use. A method that changes something
// returns nil only once the change is on disk and survives a crash of the
// process or of the machine; if it returns an error the change was not made,
// unless the context ended while it waited: then it may or may not have been.
// A store on the far side of a network can't promise more; whoever must know
// gives a context that does not end.
//
// Times come back in UTC, to the nanosecond, without a monotonic reading.
type Store interface {
	// Add accepts executions, all or none, and sets their IDs and Existing in
	// place, and the Turn and the Revision of what it adds. The State may be
	// Queued, or an outcome for one that ends on acceptance, else ErrIllegal.
	// Adding none does nothing.
	//
	// One with a Key of which the same Caller has an execution stored, in
	// whatever state, is not added: it gets the ID of that one, and Existing
	// is true. So the same request made again is accepted once, be it within
	// one Add, at the same moment, or after a crash. A Key lives as long as
	// its execution is stored. Callers do not share keys.
	//
	// A Queued one with a Weight gets the next Turn of its Caller among those
	// of its Priority: see Standing. What the callers have had, and the
	// present, outlive a restart; a caller's standing that the present has
	// passed may be forgotten. All others have Turn 0.
	Add(ctx context.Context, xs []Execution) error

	// Claim moves up to n executions that are due at now from Queued to
	// Claimed and returns them whole, by Place, then ID. No execution is
	// handed to two callers. It does not wait: none due is an empty
	// slice. Its cost does not grow with the number of executions stored;
	// to keep that, a store may let executions whose Due came by the
	// thousands since the last Claim in by Due, so that one of them with a
	// better Place may come some calls later. A short answer means that
	// there are no more.
	Claim(ctx context.Context, now time.Time, n int) ([]Execution, error)

	// ClaimBefore is Claim for those whose Place is before the one given.
	ClaimBefore(ctx context.Context, now time.Time, before Place, n int) ([]Execution, error)

	// Update changes one execution, or returns ErrStale, or ErrIllegal if
	// no execution may go that way. One that becomes Sent brings the present
	// of its Priority to its Turn, if that is later; one that has a Turn and
	// does not use it (see UsesNoTurn) gives it back to its caller.
	Update(ctx context.Context, u Update) error

	// NextDue returns when the next Queued execution is due, the zero time
	// if one was never held back or its time is known to have come (the
	// store has no clock: a due time may also have passed); ok is false if
	// none is queued.
	NextDue(ctx context.Context) (due time.Time, ok bool, err error)

	// Counts returns the number of executions in each state, in time that
	// does not grow with their number.
	Counts(ctx context.Context) (Counts, error)

	// Load returns what each caller that has executions open has of them.
	// The map is the caller's own. To ask costs as much as there are such
	// callers, and nothing for each execution, not even after opening.
	Load(ctx context.Context) (map[string]Load, error)

	// Oldest returns when the Queued execution with the smallest ID was
	// accepted; ok is false if none is queued. With times that do not go
	// backwards from Add to Add that is the oldest. Its cost does not grow
	// with the number of executions stored.
	Oldest(ctx context.Context) (accepted time.Time, ok bool, err error)

	// Get returns one execution, or ErrNotFound.
	Get(ctx context.Context, id int64) (Execution, error)

	// Each yields executions by ID. It holds no lock that writers wait for
	// and reads in bounded memory; executions that change meanwhile are
	// yielded as they were or as they are. To find the first of those that
	// match, by States and Caller, takes no longer for the others that are
	// stored; neither does it with Unanswered alone.
	Each(ctx context.Context, f Filter) iter.Seq2[Execution, error]

	// Prune forgets up to n executions that ended before that time, and
	// their keys, and returns how many. Fewer than n: there are no more. One
	// that ended at no time (zero) counts as ended long ago. No ID of what
	// was pruned is ever given again. It is one transaction, which others
	// wait for: let n be some hundreds, and call it again.
	Prune(ctx context.Context, before time.Time, n int) (int, error)

	// Meta returns a value stored under key, nil if there is none; SetMeta
	// stores one, or forgets it if value is nil.
	Meta(ctx context.Context, key string) ([]byte, error)
	SetMeta(ctx context.Context, key string, value []byte) error

	// Close waits for what is being written and releases the store. Every
	// later call of another method returns ErrClosed; Close again does
	// nothing.
	Close() error
}
