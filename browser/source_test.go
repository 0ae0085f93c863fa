package browser

import (
	"context"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/headgate/headgate/internal/dashboard"
)

// script is a source in which a second passes with each view. It has one
// bucket that behaves, many orgs that only look like something, and does what
// the buttons ask for.
type script struct {
	mu      sync.Mutex
	now     time.Time
	tick    int
	callers []string
	orgs    []dashboard.Org
	busy    int      // index of the org that has the bucket
	level   float64  // of the bucket
	waiting []held   // in line, the first goes first
	every   int      // a burst each so many seconds; 0 for none
	done    []string // what the buttons did
	still   bool     // views bring nothing new
}

type held struct {
	caller, path string
	since        time.Time
	priority     int
}

const (
	perSecond = 50
	capacity  = 100
)

func (s *script) View(context.Context) dashboard.View {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.still {
		return dashboard.View{At: s.now, Orgs: s.orgs}
	}
	s.now = s.now.Add(time.Second)
	s.tick++
	if s.every > 0 && s.tick%s.every == 5 {
		s.burstLocked(420 + 160*(s.tick/s.every%3))
	}
	orgs := slices.Clone(s.orgs)
	s.workLocked(&s.orgs[s.busy])
	orgs[s.busy] = s.orgs[s.busy]
	return dashboard.View{At: s.now, Version: "v0.4.0", Orgs: orgs}
}

// workLocked lets a second pass for the org that has the bucket.
func (s *script) workLocked(o *dashboard.Org) {
	s.level = min(capacity, s.level+perSecond)
	// A trickle, so that it never stands quite still.
	trickle := 9 + int(6*math.Sin(float64(s.tick)/7))
	for i := range trickle {
		s.waiting = append(s.waiting, held{s.callers[i%3], paths[i%len(paths)], s.now, 3})
	}
	goes := len(s.waiting)
	if o.Paused {
		goes = 0
	}
	goes = min(goes, int(s.level))
	s.level -= float64(goes)
	rejected := 0
	if goes > 40 && s.tick%7 == 0 {
		rejected = 6
	}
	o.Callers = slices.Clone(o.Callers)
	for _, w := range s.waiting[:goes] {
		o.Callers[slices.Index(s.callers, w.caller)].Sent++
	}
	s.waiting = s.waiting[goes:]
	if o.Queue.Queued > 0 && !o.Paused {
		o.Queue.Queued--
		o.Queue.Done++
	}
	o.Held, o.InFlight = len(s.waiting), goes/5
	o.Limits = slices.Clone(o.Limits)
	l := &o.Limits[0]
	l.Level, l.Waiting = s.level, len(s.waiting)
	l.Sent += uint64(goes)
	l.Accepted += uint64(goes - rejected)
	l.Rejected += uint64(rejected)
	l = &o.Limits[1]
	l.Level = 220 + 60*math.Cos(float64(s.tick)/40)
	l.Sent += uint64(goes / 12)
	l.Accepted += uint64(goes / 12)
	o.Waiting = nil
	counts := map[string]int{}
	for i, w := range s.waiting {
		counts[w.caller]++
		if i < 50 {
			o.Waiting = append(o.Waiting, dashboard.Waiting{
				ID: fmt.Sprintf("w-%d-%d", w.since.Unix(), i), Caller: w.caller, Method: "POST", Path: w.path, Priority: w.priority, Since: w.since,
				Expected: s.now.Add(time.Duration(float64(i+1) / perSecond * float64(time.Second))),
				Why:      "flow.executions empty",
			})
		}
	}
	for i := range o.Callers {
		o.Callers[i].Waiting = counts[o.Callers[i].Name]
	}
}

// stand stops the script, or lets it go on.
func (s *script) stand(still bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.still = still
}

func (s *script) burst(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.burstLocked(n)
}

func (s *script) burstLocked(n int) {
	for i := range n {
		who := i % 7 % len(s.callers)
		s.waiting = append(s.waiting, held{s.callers[who], paths[i%len(paths)], s.now, 1 + 2*who})
	}
	slices.SortStableFunc(s.waiting, func(a, b held) int { return a.priority - b.priority })
}

func (s *script) Resolve(_ context.Context, id, action string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := &s.orgs[s.busy]
	i := slices.IndexFunc(o.Unknown, func(x dashboard.Execution) bool { return x.ID == id })
	if i < 0 {
		return fmt.Errorf("execution %s is %w unknown", id, dashboard.ErrConflict)
	}
	o.Unknown = slices.Delete(slices.Clone(o.Unknown), i, i+1)
	o.Queue.Unknown--
	s.done = append(s.done, action+" "+id)
	return nil
}

func (s *script) Cancel(_ context.Context, id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := &s.orgs[s.busy]
	i := slices.IndexFunc(o.Queued, func(x dashboard.Execution) bool { return x.ID == id })
	if i < 0 {
		return fmt.Errorf("execution %s: %w", id, dashboard.ErrNotFound)
	}
	o.Queued = slices.Delete(slices.Clone(o.Queued), i, i+1)
	s.done = append(s.done, "cancel "+id)
	return nil
}

func (s *script) Pause(_ context.Context, org string) error  { return s.pause(org, true) }
func (s *script) Resume(_ context.Context, org string) error { return s.pause(org, false) }

func (s *script) pause(org string, paused bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.IndexFunc(s.orgs, func(o dashboard.Org) bool { return o.Name == org })
	if i < 0 {
		return fmt.Errorf("org %q: %w", org, dashboard.ErrNotFound)
	}
	s.orgs[i].Paused = paused
	s.done = append(s.done, fmt.Sprintf("paused %s: %t", org, paused))
	return nil
}

// did returns what the buttons did since it was last asked.
func (s *script) did() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	done := s.done
	s.done = nil
	return done
}

var paths = []string{
	"/api/v2/flows/executions",
	"/api/v2/architect/flows/6f2b1c1e-7c0a-4b0e-9b4d-2a3f5c8e1d90/execute",
	"/api/v2/conversations/messages/inbound/open",
}

// hostile is a text from the network that would like to be a script.
const hostile = `<img src=x onerror="document.title='pwned'">`

// acme is the busy org of the script.
const acme = "acme emea / prod 100%"

func newScript() *script { return scriptWith(hostile) }

// scriptWith has a fourth caller of that name.
func scriptWith(caller string) *script {
	s := &script{callers: []string{"contact-form", "crm-sync", "nightly-import", caller}, now: time.Date(2026, 3, 4, 9, 50, 0, 0, time.UTC), level: capacity}
	busy := dashboard.Org{
		Name: acme,
		Peak: "peak hours until 12:00: 30 % kept for urgent calls",
		Limits: []dashboard.Limit{
			{
				Name: "flow.executions", Rate: perSecond, Burst: capacity, Pace: 48.5, RateSure: 0.93,
				Algorithm: "token bucket", Learning: "track", Others: 4.2,
			},
			{
				Name: "token.rate.per.minute", Scope: "client nightly-import", Rate: 5, Burst: 300, Window: time.Minute,
				Algorithm: "fixed window", Learning: "off",
			},
		},
		Queue: dashboard.Queue{Queued: 4312, Done: 128_408, Failed: 17, Expired: 2, Oldest: 94 * time.Second, Estimate: 86 * time.Second},
		Callers: []dashboard.Caller{
			{Name: s.callers[0], Weight: 3},
			{Name: s.callers[1], Weight: 1},
			{Name: s.callers[2], Weight: 1, Queued: 4312},
			{Name: s.callers[3], Weight: 1},
		},
	}
	for i := range 4 {
		busy.Unknown = append(busy.Unknown, dashboard.Execution{
			ID: fmt.Sprintf("unknown-%d", i), Caller: s.callers[(i+2)%4], Method: "POST", Path: paths[i%2],
			Reason: []string{"the connection was reset before the answer", "504 Gateway Timeout", "headgate was killed while it was sent", caller}[i],
			At:     s.now.Add(time.Duration(i) * time.Minute), Attempts: 1 + i%2,
		})
	}
	busy.Queue.Unknown = int64(len(busy.Unknown))
	for i := range 6 {
		busy.Queued = append(busy.Queued, dashboard.Execution{
			ID: fmt.Sprintf("queued-%d", i), Caller: s.callers[2], Method: "POST", Path: paths[1],
			At: s.now.Add(time.Duration(i) * time.Second), Expected: s.now.Add(time.Hour),
		})
	}
	s.orgs = []dashboard.Org{
		{Name: "aldgate", Limits: []dashboard.Limit{{Name: "flow.executions", Rate: 50, Burst: 100, Level: 100}}},
		busy,
		{Name: "borough", Trouble: "login refused: the platform says invalid_client", Held: 12, Limits: []dashboard.Limit{{Name: "flow.executions", Rate: 50, Burst: 100, Level: 100}}},
		{Name: "cannon street", Paused: true, Held: 3, Queue: dashboard.Queue{Queued: 90}},
		{Name: "dagenham", Held: 40, Limits: []dashboard.Limit{{Name: "token.rate.per.minute", Rate: 5, Burst: 300, RetryAfter: 41 * time.Second, Waiting: 40, Algorithm: "token bucket", Learning: "search", RateSure: 0.4}}},
		{Name: "euston", Queue: dashboard.Queue{Unknown: 2}},
	}
	s.busy = 1
	for _, name := range []string{"farringdon", "goodge street", "hainault", "ickenham", "kew", "leyton", "moorgate", "neasden"} {
		s.orgs = append(s.orgs, dashboard.Org{Name: name})
	}
	return s
}

// alone makes acme the only org.
func (s *script) alone() *script {
	s.orgs, s.busy = s.orgs[s.busy:s.busy+1], 0
	return s
}
