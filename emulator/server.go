package emulator

import (
	"context"
	"encoding/json"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Server is one emulated platform: its limits, tokens, executions and ledger.
// [New] makes one; the zero value is not usable. All methods and both handlers
// may be used concurrently. It runs no goroutine of its own and needs no close.
type Server struct {
	cfg     Config // with defaults; never changes
	rules   []*rule
	login   *rule // nil without a log-in limit
	faults  []fault
	flows   map[string]bool // nil means that every flow exists
	secrets map[string]string
	epoch   time.Time

	// mu guards all that follows. It is never held while waiting, reading or
	// writing.
	mu        sync.Mutex
	faultRand *rand.Rand
	retryRand *rand.Rand
	timeRand  *rand.Rand
	idRand    *rand.Rand
	started   bool          // the script's clock runs
	start     time.Duration // since epoch
	meters    map[meterKey]*meter
	order     []*meter // the meters of limits in the order of their first use
	holds     map[meterKey][]hold
	tokens    map[string]*token
	issued    int
	launches  launches
	ledger    ledger
}

// meterKey names the state of one limit for one key. Rule tokenRule stands for
// the token itself, loginRule for the log-in's limit.
type meterKey struct {
	rule int
	key  string
}

const (
	tokenRule = -1
	loginRule = -2
)

// New checks the config and returns a server for it. An error names the field
// that is wrong. In a [testing/synctest] bubble, call it inside the bubble.
func New(cfg Config) (*Server, error) {
	if err := cfg.Rates.validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	s := &Server{
		cfg:     cfg,
		faults:  newFaults(cfg.Script),
		secrets: make(map[string]string),
		epoch:   time.Now(),
		tokens:  make(map[string]*token),
	}
	for _, l := range cfg.Limits {
		s.rules = append(s.rules, newRule(l, cfg.Script))
	}
	if cfg.LoginLimit != (Limit{}) {
		s.login = newRule(cfg.LoginLimit, nil)
	}
	for _, c := range cfg.Clients {
		s.secrets[c.ID] = c.Secret
	}
	if cfg.Flows != nil {
		s.flows = make(map[string]bool)
		for _, id := range cfg.Flows {
			s.flows[id] = true
		}
	}
	s.idRand = rand.New(rand.NewPCG(cfg.Seed, 4))
	s.Reset()
	return s, nil
}

// Reset makes the server forget what happened: the ledger and its counters, the
// limits' levels, the announcements, the launched executions; the script starts
// anew and the random choices repeat. Tokens stay valid.
func (s *Server) Reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faultRand = rand.New(rand.NewPCG(s.cfg.Seed, 1))
	s.retryRand = rand.New(rand.NewPCG(s.cfg.Seed, 2))
	s.timeRand = rand.New(rand.NewPCG(s.cfg.Seed, 3))
	s.started, s.start = s.cfg.ScriptFromNew, s.now()
	s.meters = make(map[meterKey]*meter)
	s.order = nil
	s.holds = make(map[meterKey][]hold)
	s.launches = launches{keep: s.cfg.KeepExecutions, byID: make(map[string]*launch)}
	s.ledger = newLedger(s.ledger.generation+1, s.cfg.LedgerRows)
}

// now is the time since New.
func (s *Server) now() time.Duration { return time.Since(s.epoch) }

// API returns the platform: POST /oauth/token and everything under /api/v2,
// told apart by the path. A fault that cuts a connection panics with
// [http.ErrAbortHandler], which net/http's server turns into a closed
// connection, or a reset stream over HTTP/2.
func (s *Server) API() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/oauth/token" {
			s.serveLogin(w, r)
			return
		}
		s.serveAPI(w, r)
	})
}

// answer is what goes back, decided under the lock and written outside of it.
type answer struct {
	status  int
	kind    string // Content-Type; empty means JSON
	allow   string // the Allow header of a 405
	body    []byte
	cut     bool          // close the connection instead
	delay   time.Duration // before writing
	decided time.Duration
	announcement
	holdKey  meterKey // what the announcement holds back
	accepted bool     // by the limits
	refused  string   // the limit that refused
}

// visit is one request on its way through the server.
type visit struct {
	generation int
	row        int // in the ledger, or -1
	at         time.Duration
	id         string // correlation id
	token      *token // nil if unknown
	login      bool
}

func (s *Server) serveAPI(w http.ResponseWriter, r *http.Request) {
	q := newRequest(r)
	v := s.arrive(r, q)
	if err := s.readBody(r, q); err != nil {
		s.leave(v)
		panic(http.ErrAbortHandler)
	}
	a := s.decide(v, q)
	s.reply(w, r, v, a)
}

// arrive notes a request as soon as its header is here.
func (s *Server) arrive(r *http.Request, q *request) *visit {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	if !s.started {
		s.started, s.start = true, now
	}
	v := &visit{generation: s.ledger.generation, at: now, id: s.newIDLocked(), token: s.tokenLocked(r.Header.Get("Authorization"))}
	row := Row{At: now, Method: q.method, Path: q.path}
	if v.token != nil {
		row.Token, row.Client = v.token.name, v.token.client
		keys := []meterKey{{tokenRule, v.token.name}}
		for i, rule := range s.rules {
			if rule.match.matches(q.method, q.path) {
				keys = append(keys, meterKey{i, v.token.keyFor(rule.Per, q.template)})
			}
		}
		if left := s.earlyLocked(now, keys); left > 0 {
			row.Early = true
			s.ledger.early++
			s.ledger.earliest = max(s.ledger.earliest, left)
		}
	}
	s.ledger.arrivals++
	s.ledger.peak.add(now)
	v.row = s.ledger.add(row)
	return v
}

// decide settles what happens to a request, all at one instant.
func (s *Server) decide(v *visit, q *request) answer {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	row := s.ledger.row(v)
	fault, slow := s.pickFaultLocked(now, q.method, q.path, false)
	if fault != nil {
		row.Fault = fault.Kind
	} else if slow > 0 {
		row.Fault = Slow
	}
	a := s.settleLocked(v, q, fault, slow, now, row)
	a.decided = now
	row.Status, row.RefusedBy, row.RetryAfter = a.status, a.refused, a.header
	if v.generation == s.ledger.generation {
		s.ledger.settled(a, now)
	}
	return a
}

func (s *Server) settleLocked(v *visit, q *request, fault *Fault, slow, now time.Duration, row *Row) answer {
	if a, ok := s.frontLocked(fault, now, v.id); ok {
		if v.token != nil {
			a.holdKey = meterKey{tokenRule, v.token.name}
		}
		a.delay = slow
		return a
	}
	if a, ok := s.unauthorizedLocked(v, now, q); ok {
		row.Fault = ""
		return a
	}
	if a, ok := s.refuseLocked(v, q, now); ok {
		row.Fault = ""
		return a
	}
	var a answer
	if back, ok := s.backLocked(fault, v.id); !ok {
		a = s.respondLocked(v, q, now, row)
	} else {
		if fault.Kind == CutAfter || fault.Executes {
			a = s.respondLocked(v, q, now, row)
		}
		back.delay = a.delay
		a = back
	}
	a.delay += slow
	a.accepted = true
	return a
}

// refuseLocked draws on every limit that the request matches, or on none and
// returns the 429 of the one that asks to wait longest.
func (s *Server) refuseLocked(v *visit, q *request, now time.Duration) (answer, bool) {
	t := now - s.start
	var drawn []*meter
	worst, wait := -1, time.Duration(0)
	var keys []meterKey
	for i, rule := range s.rules {
		if !rule.match.matches(q.method, q.path) {
			continue
		}
		key := meterKey{i, v.token.keyFor(rule.Per, q.template)}
		m := s.meters[key]
		if m == nil {
			m = newMeter(rule, key.key, t)
			s.meters[key] = m
			s.order = append(s.order, m)
		}
		m.advance(t)
		if ok, d := m.ready(t); !ok && (worst < 0 || d > wait) {
			worst, wait = len(drawn), d
		}
		drawn, keys = append(drawn, m), append(keys, key)
	}
	if worst < 0 {
		for _, m := range drawn {
			m.take(t)
			m.accepted++
		}
		return answer{}, false
	}
	m := drawn[worst]
	m.refused++
	if s.cfg.RefusalsCost {
		for _, m := range drawn {
			m.penalise(t)
		}
		_, wait = m.ready(t)
	}
	a := s.tooMany(m, wait, v.id)
	a.holdKey = keys[worst]
	if s.cfg.HideLimit || s.cfg.EarlyPerToken {
		a.holdKey = meterKey{tokenRule, v.token.name}
	}
	return a, true
}

// tooMany is the platform's 429.
func (s *Server) tooMany(m *meter, wait time.Duration, id string) answer {
	ann := s.cfg.announce(s.cfg.RetryAfter, wait, s.retryRand)
	window := m.now().window
	if m.rule.Algorithm == Bucket {
		window = time.Minute
	}
	value := m.rule.value(m.now())
	e := errorBody{Status: http.StatusTooManyRequests, ContextID: id}
	e.Message, e.Code = s.cfg.Message.message(ann, wait, value, window)
	if !s.cfg.HideLimit {
		e.Limit = &limitBody{Key: m.rule.Name, Namespace: m.rule.Namespace, Value: value}
	}
	a := e.answer()
	a.announcement = ann
	a.refused = m.rule.Name
	return a
}

// errorBody is the platform's form of an error, in its order.
type errorBody struct {
	Message   string     `json:"message"`
	Code      string     `json:"code"`
	Status    int        `json:"status"`
	ContextID string     `json:"contextId"`
	Details   []struct{} `json:"details"`
	Errors    []struct{} `json:"errors"`
	Limit     *limitBody `json:"limit,omitempty"`
}

type limitBody struct {
	Key       string `json:"key"`
	Namespace string `json:"namespace"`
	Value     int    `json:"value"`
}

func (e errorBody) answer() answer {
	e.Details, e.Errors = []struct{}{}, []struct{}{}
	return jsonAnswer(e.Status, e)
}

func platformError(status int, code, message, id string) answer {
	return errorBody{Message: message, Code: code, Status: status, ContextID: id}.answer()
}

func jsonAnswer(status int, v any) answer {
	body, err := json.Marshal(v)
	if err != nil {
		panic(err) // only our own types come here
	}
	return answer{status: status, body: body}
}

// reply waits, writes the answer and notes when it was out.
func (s *Server) reply(w http.ResponseWriter, r *http.Request, v *visit, a answer) {
	if !sleep(r.Context(), a.delay) {
		s.leave(v)
		panic(http.ErrAbortHandler)
	}
	if a.cut {
		panic(http.ErrAbortHandler)
	}
	begin := s.now()
	h := w.Header()
	h.Set("ININ-Correlation-Id", v.id)
	h.Set("Content-Length", strconv.Itoa(len(a.body)))
	h.Set("Content-Type", "application/json")
	if a.kind != "" {
		h.Set("Content-Type", a.kind)
	}
	if a.allow != "" {
		h.Set("Allow", a.allow)
	}
	if a.header != "" {
		h.Set("Retry-After", a.header)
	}
	if a.status == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", "Bearer")
		if v.login {
			h.Set("WWW-Authenticate", "Basic")
		}
	}
	w.WriteHeader(a.status)
	if _, err := w.Write(a.body); err != nil {
		s.leave(v)
		return
	}
	if a.hold > 0 {
		// An announcement counts from the moment it is on its way, so it must
		// not linger in a buffer.
		if err := http.NewResponseController(w).Flush(); err != nil && r.Context().Err() != nil {
			s.leave(v)
			return
		}
	}
	s.written(v, a, begin)
}

// written notes an answer that is out, and what it announced. The announcement
// begins to count when the answer was written, and ends as if it had been read
// when the writing began: nobody can have read it sooner.
func (s *Server) written(v *visit, a answer, begin time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if v.generation != s.ledger.generation {
		return
	}
	now := s.now()
	row := s.ledger.row(v)
	row.Answered, row.AnswerAt = true, now
	if a.hold <= 0 || a.holdKey == (meterKey{}) {
		return
	}
	if a.fixed {
		begin = a.decided
	}
	s.holdLocked(a.holdKey, now, begin+a.hold)
}

// leave notes a client that went away before its answer.
func (s *Server) leave(v *visit) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if v.generation == s.ledger.generation {
		s.ledger.unanswered++
	}
}

// sleep waits for d and says whether the client is still there.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// readBody reads the body, up to a little more than the API takes.
func (s *Server) readBody(r *http.Request, q *request) error {
	if r.Body == nil {
		r.Body = http.NoBody
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, MaxBodyBytes+1))
	if err != nil {
		return err
	}
	if len(body) > MaxBodyBytes {
		// Reading on lets the client hear the 413 instead of a broken pipe.
		if _, err := io.CopyN(io.Discard, r.Body, 8<<20); err != nil && err != io.EOF {
			return err
		}
		q.tooLarge = true
		return nil
	}
	q.parse(r, body, s.cfg.Key)
	return nil
}

// newIDLocked is a random UUID.
func (s *Server) newIDLocked() string {
	const hex = "0123456789abcdef"
	hi, lo := s.idRand.Uint64(), s.idRand.Uint64()
	var b strings.Builder
	b.Grow(36)
	for i := range 32 {
		if i == 8 || i == 12 || i == 16 || i == 20 {
			b.WriteByte('-')
		}
		n := &hi
		if i >= 16 {
			n = &lo
		}
		d := *n >> 60
		*n <<= 4
		switch i {
		case 12:
			d = 4
		case 16:
			d = 8 | d&3
		}
		b.WriteByte(hex[d])
	}
	return b.String()
}
