package emulator

import (
	"encoding/json"
	"iter"
	"slices"
	"time"
)

// Row is one arrival in the ledger. Its times are offsets since the script's
// start, which is the first request that is not a log-in unless the config says
// otherwise.
type Row struct {
	Seq       int64         // from 1, in order of arrival
	At        time.Duration // when its header had been read
	Answered  bool          // its answer was written
	AnswerAt  time.Duration // when it was
	Token     string        // which token, by number: never the token itself
	Client    string        // the id of its client
	Method    string
	Path      string
	Key       string    // what names the execution, if it was executed
	Status    int       // 0 if the connection was cut or nothing is decided yet
	Executed  bool      // a flow was executed, answered or not
	RefusedBy string    // the limit that refused it; "login" for that of the log-in
	Fault     FaultKind // what went wrong on purpose, if anything
	Early     bool      // see Report
	// RetryAfter is the header as it was announced; empty if there was none.
	RetryAfter string
}

type rowJSON struct {
	Seq        int64     `json:"seq"`
	At         float64   `json:"at"`
	Answered   *float64  `json:"answered,omitempty"`
	Token      string    `json:"token,omitempty"`
	Client     string    `json:"client,omitempty"`
	Method     string    `json:"method"`
	Path       string    `json:"path"`
	Key        string    `json:"key,omitempty"`
	Status     int       `json:"status"`
	Executed   bool      `json:"executed,omitempty"`
	RefusedBy  string    `json:"refusedBy,omitempty"`
	Fault      FaultKind `json:"fault,omitempty"`
	Early      bool      `json:"early,omitempty"`
	RetryAfter string    `json:"retryAfter,omitempty"`
}

// MarshalJSON writes the row with its times in seconds.
func (r Row) MarshalJSON() ([]byte, error) {
	j := rowJSON{Seq: r.Seq, At: r.At.Seconds(), Token: r.Token, Client: r.Client, Method: r.Method, Path: r.Path, Key: r.Key,
		Status: r.Status, Executed: r.Executed, RefusedBy: r.RefusedBy, Fault: r.Fault, Early: r.Early, RetryAfter: r.RetryAfter}
	if r.Answered {
		j.Answered = new(r.AnswerAt.Seconds())
	}
	return json.Marshal(j)
}

// ledger counts all arrivals and keeps the first of them. It is guarded by the
// server's mutex. The times in it are since New.
type ledger struct {
	generation int // one more after each reset
	keep       int
	rows       []Row
	seq        int64 // of the last arrival

	arrivals, accepted, rejected, cut, unanswered int64
	early                                         int64
	earliest                                      time.Duration
	logins, loginsRefused, loginsFailed           int64
	byStatus                                      map[int]int64
	executed, doubledKeys                         int64
	keys                                          map[uint64]uint32 // executions by hash of the key
	first, last                                   time.Duration     // accepted
	peak, peakAccepted                            peak
}

func newLedger(generation, keep int) ledger {
	return ledger{generation: generation, keep: keep, byStatus: make(map[int]int64), keys: make(map[uint64]uint32)}
}

// add notes an arrival and returns its place among the rows, or -1.
func (l *ledger) add(r Row) int {
	l.seq++
	if len(l.rows) >= l.keep {
		return -1
	}
	r.Seq = l.seq
	l.rows = append(l.rows, r)
	return len(l.rows) - 1
}

// row returns the row of a visit to write in; a row of no account if it is not
// kept.
func (l *ledger) row(v *visit) *Row {
	if v.row < 0 || v.generation != l.generation {
		return new(Row)
	}
	return &l.rows[v.row]
}

// settled counts what was decided about an arrival.
func (l *ledger) settled(a answer, now time.Duration) {
	if a.cut {
		l.cut++
	} else {
		l.byStatus[a.status]++
	}
	if a.refused != "" {
		l.rejected++
	}
	if a.accepted {
		if l.accepted == 0 {
			l.first = now
		}
		l.last = now
		l.accepted++
		l.peakAccepted.add(now)
	}
}

func (l *ledger) executedOne(hash uint64) {
	l.executed++
	l.keys[hash]++
	if l.keys[hash] == 2 {
		l.doubledKeys++
	}
}

// peakWindow is the time in which the report looks for the most arrivals.
const peakWindow = 100 * time.Millisecond

// peak finds the most events in any window of 100 ms.
type peak struct {
	recent []time.Duration
	most   int
}

func (p *peak) add(now time.Duration) {
	old := 0
	for old < len(p.recent) && p.recent[old] <= now-peakWindow {
		old++
	}
	p.recent = append(p.recent[old:], now)
	p.most = max(p.most, len(p.recent))
}

// hold is one announced Retry-After: from when it was written to when it ends.
type hold struct{ from, to time.Duration }

// endTolerance forgives an arrival that is this little before the end: two
// clocks may round differently, no client should live off it.
const endTolerance = time.Millisecond

// holdLocked notes an announcement. An earlier one that still runs when this one
// begins to count is prolonged, for whoever is early by this one until then is
// early by that one too; so the list stays short however many refusals there
// are. Both ends grow along it.
func (s *Server) holdLocked(key meterKey, from, to time.Duration) {
	hs := s.holds[key]
	if n := len(hs); n > 0 {
		last := &hs[n-1]
		if last.to >= to {
			return
		}
		from = max(from, last.from)
		if last.from == from || last.to-endTolerance > from+s.cfg.EarlyGrace {
			last.to = to
			return
		}
	}
	s.holds[key] = append(hs, hold{from, to})
}

// earlyLocked says by how much an arrival is early, or 0.
func (s *Server) earlyLocked(now time.Duration, keys []meterKey) time.Duration {
	var left time.Duration
	for _, key := range keys {
		hs := s.holds[key]
		if hs == nil {
			continue
		}
		ended := 0
		for ended < len(hs) && hs[ended].to-endTolerance <= now {
			ended++
		}
		if hs = hs[ended:]; len(hs) == 0 {
			delete(s.holds, key)
			continue
		}
		s.holds[key] = hs
		for _, h := range hs {
			if h.from+s.cfg.EarlyGrace >= now {
				break
			}
			left = max(left, h.to-now)
		}
	}
	return left
}

// Ledger yields the rows that are kept, in order of arrival, as they were when
// the loop began.
func (s *Server) Ledger() iter.Seq[Row] {
	return func(yield func(Row) bool) {
		s.mu.Lock()
		rows, start := slices.Clone(s.ledger.rows), s.start
		s.mu.Unlock()
		for _, r := range rows {
			r.At -= start
			if r.Answered {
				r.AnswerAt -= start
			}
			if !yield(r) {
				return
			}
		}
	}
}
