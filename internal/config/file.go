// Package config reads the gateway's file. Everything that is wrong with it is
// found at once, with the line, and what is returned needs no further care:
// references are resolved, defaults filled in, contradictions refused.
// docs/gateway-config.md says what each key is for.
package config

import (
	"time"

	"github.com/headgate/headgate"
	"github.com/headgate/headgate/genesys"
	"github.com/headgate/headgate/internal/keys"
	"github.com/headgate/headgate/internal/schedule"
)

// File is what the gateway's file says, with all defaults filled in.
type File struct {
	// Name is the path of the file; "" if there is none.
	Name string
	// Listen are the addresses, at least one, as host:port. An empty host is
	// every address of the machine.
	Listen []string
	// Data is the folder for journals and the gateway's own secret.
	Data string
	// TLS, if its Cert is not empty, is what the gateway serves with. They
	// belong together: Load has seen it.
	TLS TLS
	// TLSInFront says that something in front of the gateway has TLS.
	TLSInFront bool
	// Operators may see and do everything. They are in the file's order.
	Operators []Operator
	// Bounds are how much is held at once. Those of its Room are in each org
	// again.
	Bounds Bounds
	// Keep is how long executions stay once they have ended.
	Keep time.Duration
	// Drain is how long the gateway waits for what is held before it ends.
	// 0 does not wait.
	Drain time.Duration
	// Callbacks says who may be told of the end of an execution.
	Callbacks Callbacks
	// PublicMetrics lets anybody read /metrics who can reach it.
	PublicMetrics bool
	// Orgs, at least one, are in the file's order.
	Orgs []Org

	defaultMaxWait time.Duration // of orgs that say none
}

// TLS names the files of a certificate and its key.
type TLS struct{ Cert, Key string }

// Operator is somebody who runs the gateway.
type Operator struct {
	Name string
	Key  keys.Hash
}

// Bounds are how much the gateway holds at once. All are above 0.
type Bounds struct {
	// Room is for one org, unless the org has its own.
	Room
	// Header is how many bytes the header of a request may have.
	Header int64
	// Body is how many bytes the body of a request may have.
	Body int64
	// Buffer is how much of a body is kept in memory, to send it again. A
	// longer one is streamed and can be sent once.
	Buffer int64
	// Buffered is how many bytes of bodies are in memory, of all calls.
	Buffered int64
}

// Room is how much may wait for one org. All are above 0.
type Room struct {
	// Held is how many calls may be held, with somebody waiting for each.
	Held, HeldPerCaller int
	// Queued is how many executions may be on disk that have not ended.
	Queued, QueuedPerCaller int64
	// QueuedBytes is how long their bodies may be together.
	QueuedBytes, QueuedBytesPerCaller int64
}

// Callbacks says where to the end of an execution may be told.
type Callbacks struct {
	// Hosts are those that may be told, in lower case, with a port if it is
	// not the scheme's own. None: callbacks are refused.
	Hosts []string
	// Secret signs them. There is one if there are hosts.
	Secret genesys.Secret
}

// Org is one org and the ways to it.
type Org struct {
	// Name is 1 to 40 of a-z, 0-9 and -.
	Name string
	// Region is what the file says; "" if it says addresses instead.
	Region string
	// APIURL and LoginURL are the platform's, without a slash at the end.
	APIURL, LoginURL string
	// PassThrough sends callers' own tokens to the platform. Else the gateway
	// logs in with Credentials, which are empty with PassThrough.
	PassThrough bool
	Credentials genesys.Credentials
	// Hosts are the names, in lower case and without a port, by which a
	// request chooses this org.
	Hosts []string
	// Path is the segment with its slash, such as /acme, by which a request
	// chooses this org; "" for none. It is none of the gateway's own.
	Path string
	// Default: the org of requests that choose none. One org at most has it,
	// and the only one always.
	Default bool
	// Limits are those of the file. Nil: it names none, and the org is asked
	// for its own, or, where tokens pass through, the published ones hold.
	Limits []headgate.Limit
	// Delivery is what becomes of calls that left and were not answered. Nil:
	// it depends on the call.
	Delivery *headgate.Delivery
	// MaxWait bounds the time for which a call is held that does not say how
	// long.
	MaxWait time.Duration
	// Concurrency is how many queued executions are under way at once.
	Concurrency int
	// Timeout is how long one attempt may stay unanswered.
	Timeout time.Duration
	// Bounds are how much may wait for this org.
	Bounds Room
	// Peaks are hours in which a share is kept for urgent calls. Where they
	// overlap the largest share counts.
	Peaks []Peak
	// Callers are those who may call, in the file's order. None: anybody.
	Callers []Caller
}

// Peak keeps a share of the limits for urgent calls during some hours.
type Peak struct {
	Hours schedule.Schedule
	// Keep is the share, above 0, at most 1.
	Keep float64
	// Urgent is the least urgency to which it is kept: 0 to 7 of RFC 9218,
	// where 0 is the most urgent.
	Urgent int
}

// Caller is somebody who may call an org.
type Caller struct {
	Name string
	Key  keys.Hash
	// Weight is how large its share is beside those of the others who wait.
	Weight float64
	// Urgency is that of calls that say none, MostUrgent the best that they
	// get whatever they say: 0 to 7 of RFC 9218.
	Urgency, MostUrgent int
	// Held, Queued and QueuedBytes are as in [Room]. All are above 0.
	Held                int
	Queued, QueuedBytes int64
}

// DefaultUrgency is that of a call that says none: RFC 9218 §4.1.
const DefaultUrgency = 3

// Guest returns what holds for a caller who needs no key, or who is not in the
// file.
func (o *Org) Guest(name string) Caller {
	return Caller{
		Name: name, Weight: 1, Urgency: DefaultUrgency,
		Held: o.Bounds.HeldPerCaller, Queued: o.Bounds.QueuedPerCaller, QueuedBytes: o.Bounds.QueuedBytesPerCaller,
	}
}
