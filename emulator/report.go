package emulator

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// Report is what the emulator saw. The counters are exact, whatever the ledger
// keeps. Log-ins are counted apart and are not among Arrivals.
//
// # Early
//
// An arrival is early if it comes while a Retry-After still runs that was
// announced to what it draws on. In detail:
//
//   - A 429 that names its limit announces to that limit's key: the same token,
//     client, org or path. One that does not (Config.HideLimit), any 503, and
//     with Config.EarlyPerToken each 429, announces to the token of the request
//     that it answers.
//   - The announcement begins when its answer was written. Arrivals up to
//     Config.EarlyGrace later are excused, for they were on the wire already.
//   - It ends the announced time after the writing of the answer began: a client
//     that waits from when it read the answer is never early. An HTTP date ends
//     when it says. Arrivals less than 1 ms before the end are excused.
//   - Only a Retry-After in the header counts; what is 0, negative, garbage,
//     absent, or 10000000000 announces nothing, and neither does an answer whose
//     client was gone.
//
// Status polls and reads of the limits can be early like any other request.
type Report struct {
	Arrivals   int64 // requests but log-ins
	Accepted   int64 // let through by every limit, whatever came of them
	Rejected   int64 // refused by a limit with 429
	Cut        int64 // the connection was cut
	Unanswered int64 // the client was gone before its answer
	ByStatus   map[int]int64

	Executed int64 // flow executions, answered or not
	Distinct int64 // executions with different keys
	// Doubled is how many executions were one too many: Executed − Distinct.
	Doubled int64
	// DoubledKeys is how many keys were executed more than once.
	DoubledKeys int64
	// Expected is Config.Expected, and Lost how many of them never came: both 0
	// if unknown.
	Expected, Lost int64

	Early int64 // see above
	// EarlyBy is the longest time by which an arrival was early.
	EarlyBy time.Duration

	// Peak and PeakAccepted are the most arrivals, and the most of those that
	// were accepted, in any 100 ms.
	Peak, PeakAccepted int64

	Logins        int64 // tokens that log-ins brought
	LoginsRefused int64 // refused by the log-in's own limit
	LoginsFailed  int64 // wrong credentials and faults

	// Span is from the first accepted arrival to the last.
	Span time.Duration
	// Limits says how each limit was used, in order of first use.
	Limits []LimitUse

	// LedgerDropped is how many arrivals the ledger does not keep.
	LedgerDropped int64
}

// LimitUse is what became of one limit for one key.
type LimitUse struct {
	Name string
	Key  string // which token (by number), client or path; "org"
	// Accepted and Refused are requests; a request that several limits refused
	// counts for the one that was named.
	Accepted, Refused int64
	// Other is what other traffic (a fault of the script) drew.
	Other int64
	// Span is from the first that it accepted to the last.
	Span time.Duration
	// Ideal is the shortest span in which it could accept as many, full at the
	// first: (n − burst)/rate for a bucket, whole windows for a window. The
	// script's changes of the limit are in it.
	Ideal time.Duration
	// Use is how many it accepted as a share of what it could have in Span: 1
	// means that nothing was left.
	Use float64
}

// LostOf says how many of the expected distinct executions never came.
func (r Report) LostOf(expected int) int64 { return max(0, int64(expected)-r.Distinct) }

// Report returns the state of all counters at this moment.
func (s *Server) Report() Report {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := &s.ledger
	r := Report{
		Arrivals: l.arrivals, Accepted: l.accepted, Rejected: l.rejected, Cut: l.cut, Unanswered: l.unanswered,
		ByStatus: make(map[int]int64, len(l.byStatus)),
		Executed: l.executed, Distinct: int64(len(l.keys)), Doubled: l.executed - int64(len(l.keys)), DoubledKeys: l.doubledKeys,
		Expected: int64(s.cfg.Expected), Early: l.early, EarlyBy: l.earliest,
		Peak: int64(l.peak.most), PeakAccepted: int64(l.peakAccepted.most),
		Logins: l.logins, LoginsRefused: l.loginsRefused, LoginsFailed: l.loginsFailed,
		Span: l.last - l.first, LedgerDropped: l.seq - int64(len(l.rows)),
	}
	maps.Copy(r.ByStatus, l.byStatus)
	if r.Expected > 0 {
		r.Lost = r.LostOf(s.cfg.Expected)
	}
	for _, m := range s.order {
		u := LimitUse{Name: m.rule.Name, Key: m.key, Accepted: m.accepted, Refused: m.refused, Other: m.other}
		if n := m.accepted + m.other; n > 0 {
			u.Span = m.last - m.first
			u.Ideal = m.rule.ideal(m.first, n)
			u.Use = float64(n) / m.rule.possible(m.first, m.last)
		}
		r.Limits = append(r.Limits, u)
	}
	return r
}

// String is the report as a table, for people.
func (r Report) String() string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	line := func(name string, value any, note string) {
		fmt.Fprintf(w, "%s\t%v\t%s\n", name, value, note)
	}
	line("arrivals", r.Arrivals, "requests, without log-ins")
	line("accepted", r.Accepted, "let through by every limit")
	line("rejected", r.Rejected, "429")
	for _, status := range slices.Sorted(maps.Keys(r.ByStatus)) {
		line(fmt.Sprintf("  status %d", status), r.ByStatus[status], "")
	}
	line("cut", r.Cut, "connection closed without an answer")
	line("unanswered", r.Unanswered, "client was gone before its answer")
	line("executed", r.Executed, "flow executions, answered or not")
	line("distinct", r.Distinct, "different ones among them")
	line("doubled", r.Doubled, fmt.Sprintf("too many, of %d different ones", r.DoubledKeys))
	if r.Expected > 0 {
		line("lost", r.Lost, fmt.Sprintf("of %d expected", r.Expected))
	}
	note := "while an announced Retry-After ran"
	if r.Early > 0 {
		note += fmt.Sprintf(", by up to %v", r.EarlyBy.Round(time.Millisecond))
	}
	line("early", r.Early, note)
	line("peak", r.Peak, "arrivals in any 100 ms")
	line("peak accepted", r.PeakAccepted, "accepted in any 100 ms")
	line("logins", r.Logins, fmt.Sprintf("%d refused by their limit, %d failed", r.LoginsRefused, r.LoginsFailed))
	line("span", r.Span.Round(time.Millisecond), "first accepted to last")
	if r.LedgerDropped > 0 {
		line("ledger dropped", r.LedgerDropped, "counted, but not kept")
	}
	w.Flush()
	if len(r.Limits) == 0 {
		return trimLines(b.String())
	}
	fmt.Fprintln(&b)
	fmt.Fprintln(w, "limit\tkey\taccepted\trefused\tother\tspan\tideal\tuse")
	for _, u := range r.Limits {
		fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%d\t%v\t%v\t%.1f%%\n", u.Name, u.Key, u.Accepted, u.Refused, u.Other,
			u.Span.Round(time.Millisecond), u.Ideal.Round(time.Millisecond), u.Use*100)
	}
	w.Flush()
	return trimLines(b.String())
}

// trimLines cuts the padding off the ends of lines.
func trimLines(s string) string {
	var b strings.Builder
	for line := range strings.Lines(s) {
		b.WriteString(strings.TrimRight(line, " \n"))
		b.WriteByte('\n')
	}
	return b.String()
}

type reportJSON struct {
	Arrivals      int64         `json:"arrivals"`
	Accepted      int64         `json:"accepted"`
	Rejected      int64         `json:"rejected"`
	Cut           int64         `json:"cut"`
	Unanswered    int64         `json:"unanswered"`
	ByStatus      map[int]int64 `json:"byStatus"`
	Executed      int64         `json:"executed"`
	Distinct      int64         `json:"distinct"`
	Doubled       int64         `json:"doubled"`
	DoubledKeys   int64         `json:"doubledKeys"`
	Expected      int64         `json:"expected,omitempty"`
	Lost          *int64        `json:"lost,omitempty"`
	Early         int64         `json:"early"`
	EarlyBy       float64       `json:"earlyBySeconds"`
	Peak          int64         `json:"peak"`
	PeakAccepted  int64         `json:"peakAccepted"`
	Logins        int64         `json:"logins"`
	LoginsRefused int64         `json:"loginsRefused"`
	LoginsFailed  int64         `json:"loginsFailed"`
	Span          float64       `json:"spanSeconds"`
	Limits        []useJSON     `json:"limits"`
	LedgerDropped int64         `json:"ledgerDropped"`
}

type useJSON struct {
	Name     string  `json:"name"`
	Key      string  `json:"key"`
	Accepted int64   `json:"accepted"`
	Refused  int64   `json:"refused"`
	Other    int64   `json:"other"`
	Span     float64 `json:"spanSeconds"`
	Ideal    float64 `json:"idealSeconds"`
	Use      float64 `json:"use"`
}

// MarshalJSON writes the report with its times in seconds. `lost` is missing if
// nothing is expected.
func (r Report) MarshalJSON() ([]byte, error) {
	j := reportJSON{
		Arrivals: r.Arrivals, Accepted: r.Accepted, Rejected: r.Rejected, Cut: r.Cut, Unanswered: r.Unanswered, ByStatus: r.ByStatus,
		Executed: r.Executed, Distinct: r.Distinct, Doubled: r.Doubled, DoubledKeys: r.DoubledKeys, Expected: r.Expected,
		Early: r.Early, EarlyBy: r.EarlyBy.Seconds(), Peak: r.Peak, PeakAccepted: r.PeakAccepted,
		Logins: r.Logins, LoginsRefused: r.LoginsRefused, LoginsFailed: r.LoginsFailed,
		Span: r.Span.Seconds(), Limits: []useJSON{}, LedgerDropped: r.LedgerDropped,
	}
	if r.Expected > 0 {
		j.Lost = &r.Lost
	}
	for _, u := range r.Limits {
		j.Limits = append(j.Limits, useJSON{u.Name, u.Key, u.Accepted, u.Refused, u.Other, u.Span.Seconds(), u.Ideal.Seconds(), u.Use})
	}
	return json.Marshal(j)
}

// Admin returns the handler for whoever runs the emulator: GET /report (JSON),
// GET /report.txt, GET /ledger (JSON Lines), POST /reset, and POST /revoke,
// which is RevokeTokens. It asks for no credentials: serve it on a listener
// apart from the API.
func (s *Server) Admin() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /report", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(s.Report())
	})
	mux.HandleFunc("GET /report.txt", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		fmt.Fprint(w, s.Report())
	})
	mux.HandleFunc("GET /ledger", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/jsonl")
		enc := json.NewEncoder(w)
		for row := range s.Ledger() {
			if enc.Encode(row) != nil {
				return
			}
		}
	})
	mux.HandleFunc("POST /reset", func(w http.ResponseWriter, r *http.Request) {
		s.Reset()
		w.WriteHeader(http.StatusNoContent)
	})
	mux.HandleFunc("POST /revoke", func(w http.ResponseWriter, r *http.Request) {
		s.RevokeTokens()
		w.WriteHeader(http.StatusNoContent)
	})
	return http.NewCrossOriginProtection().Handler(mux)
}
