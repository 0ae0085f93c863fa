package progress

import (
	"encoding/json"
	"io"
	"strings"
	"sync"
	"time"
)

// lineWriter writes whole lines, one at a time.
type lineWriter struct {
	mu sync.Mutex
	w  io.Writer // guarded by mu
}

func (l *lineWriter) line(b []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, _ = l.w.Write(append(b, '\n')) // nobody is left to tell
}

// silence shows messages only.
type silence struct{ out lineWriter }

func (*silence) paint(Snapshot)      {}
func (*silence) end(Snapshot)        {}
func (c *silence) print(line string) { c.out.line([]byte(clean(line))) }

// plainHeartbeat is how long plain lines stay away while nothing changes.
const plainHeartbeat = 30 * time.Second

// plain writes a line when something has changed.
type plain struct {
	out   lineWriter
	ascii bool
	last  Snapshot // the last one shown, and as what; only paint and end
	text  string   // touch them
}

func (c *plain) print(line string) { c.out.line([]byte(clean(line))) }

func (c *plain) paint(s Snapshot) {
	// What merely counts down is no change.
	now, last := s, c.last
	for _, p := range []*Snapshot{&now, &last} {
		p.Rate, p.Left, p.LeftKnown, p.Elapsed = 0, 0, false, 0
		if p.WaitingFor != "" {
			p.WaitingFor = "something"
		}
	}
	if now == last && s.Elapsed-c.last.Elapsed < plainHeartbeat {
		return
	}
	c.show(s)
}

func (c *plain) end(s Snapshot) { c.show(s) }

func (c *plain) show(s Snapshot) {
	c.last = s
	parts := []string{counted(s)}
	for _, p := range append([]string{percent(s), speed(s), left(s)}, details(s)...) {
		if p != "" {
			parts = append(parts, p)
		}
	}
	text := "[" + brief(s.Elapsed) + "] " + strings.Join(parts, ", ")
	if c.ascii {
		text = toASCII(text)
	}
	if text != c.text {
		c.text = text
		c.out.line([]byte(text))
	}
}

// Event is a line of the JSON mode. Its field names are stable; more may
// come. The counts are in every progress and end event.
type Event struct {
	// Event is "progress", "end" for the last one, or "message" for text.
	Event string `json:"event"`
	// Text is set for messages, which have no other field.
	Text string `json:"text,omitempty"`
	*Numbers
}

// Numbers are the fields of a progress or end event.
type Numbers struct {
	ElapsedMS  int64   `json:"elapsedMs"`
	Total      int64   `json:"total"` // 0 if not known yet
	Ended      int64   `json:"ended"` // done + failed + expired + unknown
	Done       int64   `json:"done"`
	Failed     int64   `json:"failed"`
	Expired    int64   `json:"expired"`
	Unknown    int64   `json:"unknown"`
	InFlight   int64   `json:"inFlight"`
	Waiting    int64   `json:"waiting"`
	Refused    int64   `json:"refused"` // answers with 429
	Retried    int64   `json:"retried"`
	PerSecond  float64 `json:"perSecond"` // ended, lately
	LeftMS     *int64  `json:"leftMs"`    // null if not known
	WaitingFor string  `json:"waitingFor,omitempty"`
	Note       string  `json:"note,omitempty"`
}

// jsonLines writes events.
type jsonLines struct{ out lineWriter }

func (c *jsonLines) print(line string) { c.event(Event{Event: "message", Text: line}) }
func (c *jsonLines) paint(s Snapshot)  { c.event(Event{Event: "progress", Numbers: numbers(s)}) }
func (c *jsonLines) end(s Snapshot)    { c.event(Event{Event: "end", Numbers: numbers(s)}) }

func (c *jsonLines) event(e Event) {
	b, err := json.Marshal(e)
	if err != nil { // can't be: numbers leaves nothing out that has no JSON
		return
	}
	c.out.line(b)
}

func numbers(s Snapshot) *Numbers {
	n := &Numbers{
		ElapsedMS: s.Elapsed.Milliseconds(),
		Total:     s.Total, Ended: s.Ended(),
		Done: s.Done, Failed: s.Failed, Expired: s.Expired, Unknown: s.Unknown,
		InFlight: s.InFlight, Waiting: s.Waiting,
		Refused: s.Refused, Retried: s.Retried,
		WaitingFor: s.WaitingFor, Note: s.Note,
	}
	if s.Rate > 0 && s.Rate < 1e15 { // NaN and infinity have no JSON
		n.PerSecond = float64(int64(s.Rate*1000+0.5)) / 1000
	}
	if s.LeftKnown {
		n.LeftMS = new(max(s.Left, 0).Milliseconds())
	}
	return n
}
