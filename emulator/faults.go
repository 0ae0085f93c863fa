package emulator

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// FaultKind is what goes wrong.
type FaultKind string

// The values of [FaultKind]. Those of the first group answer in front of the
// limits and draw from none; those of the second happen to a request that the
// limits accepted; those of the third happen to a limit, not to a request.
const (
	Unavailable       FaultKind = "unavailable"        // 503 with Retry-After
	UnavailableSilent FaultKind = "unavailable-silent" // 503 without Retry-After
	CutBefore         FaultKind = "cut-before"         // the connection closes, unexecuted and unanswered
	Outage            FaultKind = "outage"             // 503 whose Retry-After reaches to the outage's end; or cuts

	InternalError  FaultKind = "internal-error"  // 500
	BadGateway     FaultKind = "bad-gateway"     // 502, with a page instead of JSON
	GatewayTimeout FaultKind = "gateway-timeout" // 504
	Slow           FaultKind = "slow"            // answered, but later
	CutAfter       FaultKind = "cut-after"       // executed, then the connection closes unanswered

	Traffic FaultKind = "traffic" // others draw on a limit
	Change  FaultKind = "change"  // a limit gets another size
)

// Fault is one entry of the script: what goes wrong, when, and for whom.
type Fault struct {
	Kind FaultKind
	// From and To are offsets since the script's start (see
	// Config.ScriptFromNew): the fault is on from From until just before To.
	// To zero means for ever. A Change has no To.
	From, To time.Duration
	// Share of the requests that it hits while it is on, from 0 to 1. Zero
	// means all. Not for Traffic and Change.
	Share float64
	// Match restricts it to some requests, in the form of Limit.Match. Zero
	// means all but log-ins.
	Match string
	// Logins makes it hit log-ins too. A log-in that fails by a fault of the
	// second group issues no token, except that of CutAfter. Before the script
	// starts, a log-in counts as at offset 0.
	Logins bool

	// RetryAfter is what a 503 of kind Unavailable announces, or an Outage that
	// never ends. Zero means 1 s.
	RetryAfter time.Duration
	// Mode is the form of the 503's Retry-After. Zero means RetryAfterCeil.
	Mode RetryAfterMode
	// Cut makes an Outage close connections, like CutBefore, instead of
	// answering.
	Cut bool
	// Delay is how much later a Slow answer comes. Zero means 2 s.
	Delay time.Duration
	// Executes makes a 500, 502 or 504 lie: the flow is executed first.
	Executes bool

	// Limit is the name of the limit that Traffic or Change is about.
	Limit string
	// PerSecond is how many requests per second Traffic makes, evenly, the
	// first at From. They are accepted and refused like any other, on every key
	// of the limit, and go first when they arrive at the same instant.
	PerSecond float64
	// Rate, Burst, Max and Window are a Change's new sizes, from From on; zero
	// leaves one as it is. A bucket keeps its level, cut to the new burst; a
	// window keeps its count.
	Rate, Burst float64
	Max         int
	Window      time.Duration
}

// Rates are faults that hit a share of all requests, from 0 (never) to 1
// (always), each tried in the order of the fields.
type Rates struct {
	Unavailable       float64
	UnavailableSilent float64
	CutBefore         float64
	InternalError     float64
	BadGateway        float64
	GatewayTimeout    float64
	CutAfter          float64
	Slow              float64

	// RetryAfter is what Unavailable announces. Zero means 1 s.
	RetryAfter time.Duration
	// Delay is how much later a Slow answer comes. Zero means 2 s.
	Delay time.Duration
	// Executes makes 500, 502 and 504 lie: the flow is executed first.
	Executes bool
}

type ratedShare struct {
	name  string
	kind  FaultKind
	share float64
}

func (r Rates) shares() []ratedShare {
	return []ratedShare{
		{"Unavailable", Unavailable, r.Unavailable},
		{"UnavailableSilent", UnavailableSilent, r.UnavailableSilent},
		{"CutBefore", CutBefore, r.CutBefore},
		{"InternalError", InternalError, r.InternalError},
		{"BadGateway", BadGateway, r.BadGateway},
		{"GatewayTimeout", GatewayTimeout, r.GatewayTimeout},
		{"CutAfter", CutAfter, r.CutAfter},
		{"Slow", Slow, r.Slow},
	}
}

func (r Rates) faults() []Fault {
	var fs []Fault
	for _, s := range r.shares() {
		if s.share > 0 {
			fs = append(fs, Fault{Kind: s.kind, Share: s.share, RetryAfter: r.RetryAfter, Delay: r.Delay, Executes: r.Executes})
		}
	}
	return fs
}

func (r Rates) validate() error {
	for _, s := range r.shares() {
		if !isShare(s.share) {
			return fmt.Errorf("emulator: Config.Rates.%s must be a share from 0 to 1, got %v", s.name, s.share)
		}
	}
	if r.RetryAfter < 0 || r.Delay < 0 {
		return fmt.Errorf("emulator: Config.Rates.RetryAfter and Delay must not be negative, got %v and %v", r.RetryAfter, r.Delay)
	}
	return nil
}

func (f Fault) withDefaults() Fault {
	f.Share = cmp.Or(f.Share, 1)
	f.RetryAfter = cmp.Or(f.RetryAfter, time.Second)
	f.Mode = cmp.Or(f.Mode, RetryAfterCeil)
	f.Delay = cmp.Or(f.Delay, 2*time.Second)
	return f
}

func (f Fault) validate(field string, limits []Limit) error {
	if f.From < 0 || f.To < 0 || f.To != 0 && f.To <= f.From {
		return fmt.Errorf("emulator: %s.From and To must be offsets, From before To, got %v and %v", field, f.From, f.To)
	}
	if !isShare(f.Share) {
		return fmt.Errorf("emulator: %s.Share must be from 0 to 1, got %v", field, f.Share)
	}
	if f.RetryAfter < 0 || f.Delay < 0 {
		return fmt.Errorf("emulator: %s.RetryAfter and Delay must not be negative, got %v and %v", field, f.RetryAfter, f.Delay)
	}
	if !f.Mode.valid() {
		return fmt.Errorf("emulator: %s.Mode is unknown: %q", field, f.Mode)
	}
	if err := validatePattern(field+".Match", f.Match); err != nil {
		return err
	}
	switch f.Kind {
	case Unavailable, UnavailableSilent, CutBefore, Outage, InternalError, BadGateway, GatewayTimeout, Slow, CutAfter:
		return nil
	case Traffic, Change:
	default:
		return fmt.Errorf("emulator: %s.Kind is unknown: %q", field, f.Kind)
	}
	i := slices.IndexFunc(limits, func(l Limit) bool { return l.Name == f.Limit })
	if i < 0 {
		return fmt.Errorf("emulator: %s.Limit must be the name of one of Config.Limits, got %q", field, f.Limit)
	}
	if f.Kind == Traffic {
		if !isPositive(f.PerSecond) || f.PerSecond > 1e6 {
			return fmt.Errorf("emulator: %s.PerSecond must be above 0 and at most 1e6, got %v", field, f.PerSecond)
		}
		return nil
	}
	if f.To != 0 {
		return fmt.Errorf("emulator: %s.To must be zero for a change, got %v: add a second change to undo it", field, f.To)
	}
	l := limits[i]
	l.Rate, l.Burst = cmp.Or(f.Rate, l.Rate), cmp.Or(f.Burst, l.Burst)
	l.Max, l.Window = cmp.Or(f.Max, l.Max), cmp.Or(f.Window, l.Window)
	return l.validate(field)
}

// fault is a fault of a request, with its pattern parsed.
type fault struct {
	Fault
	match pattern
}

func newFaults(script []Fault) []fault {
	var fs []fault
	for _, f := range script {
		if f.Kind != Traffic && f.Kind != Change {
			fs = append(fs, fault{Fault: f, match: parsePattern(f.Match)})
		}
	}
	return fs
}

// pickFaultLocked returns the fault that hits a request now, if any, and how
// much later it is answered.
func (s *Server) pickFaultLocked(now time.Duration, method, path string, login bool) (hit *Fault, slow time.Duration) {
	at := time.Duration(0)
	if s.started {
		at = now - s.start
	}
	for i := range s.faults {
		f := &s.faults[i]
		switch {
		case at < f.From, f.To != 0 && at >= f.To:
			continue
		case login && !f.Logins:
			continue
		case f.Match != "" && !f.match.matches(method, path):
			continue
		case f.Share < 1 && s.faultRand.Float64() >= f.Share:
			continue
		}
		if f.Kind != Slow {
			return &f.Fault, slow
		}
		slow += f.Delay
	}
	return nil, slow
}

// frontLocked is the answer of a fault in front of the limits, or ok is false.
func (s *Server) frontLocked(f *Fault, now time.Duration, id string) (a answer, ok bool) {
	if f == nil {
		return answer{}, false
	}
	switch f.Kind {
	case CutBefore:
		return answer{cut: true}, true
	case UnavailableSilent:
		return platformError(503, "service.unavailable", "The service is temporarily unavailable", id), true
	case Unavailable, Outage:
		if f.Cut {
			return answer{cut: true}, true
		}
		wait := f.RetryAfter
		if f.Kind == Outage && f.To != 0 {
			at := time.Duration(0)
			if s.started {
				at = now - s.start
			}
			wait = f.To - at
		}
		a = platformError(503, "service.unavailable", "The service is temporarily unavailable", id)
		a.announcement = s.cfg.announce(f.Mode, wait, s.retryRand)
		return a, true
	}
	return answer{}, false
}

// backLocked is the answer of a fault behind the limits, or ok is false.
func (s *Server) backLocked(f *Fault, id string) (a answer, ok bool) {
	if f == nil {
		return answer{}, false
	}
	switch f.Kind {
	case InternalError:
		return platformError(500, "internal.server.error", "The server encountered an unexpected condition", id), true
	case GatewayTimeout:
		return platformError(504, "gateway.timeout", "The request timed out", id), true
	case BadGateway:
		return answer{status: 502, kind: "text/html", body: []byte("<html><head><title>502 Bad Gateway</title></head><body>502 Bad Gateway</body></html>\n")}, true
	case CutAfter:
		return answer{cut: true}, true
	}
	return answer{}, false
}
