package dashboard

import (
	"cmp"
	"encoding/json"
	"math"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"
)

// What follows is what the page's script reads. Times are in milliseconds
// since 1970, durations in milliseconds, and null is what is not known.

// wireOverview is all that the page shows of the orgs that are not open.
type wireOverview struct {
	At       int64         `json:"at"`
	Every    int64         `json:"every"`
	Keep     int64         `json:"keep"`
	Version  string        `json:"version"`
	Draining bool          `json:"draining"`
	Orgs     []wireSummary `json:"orgs"`
}

type wireSummary struct {
	Name    string `json:"name"`
	Paused  bool   `json:"paused"`
	Trouble string `json:"trouble"`
	Peak    string `json:"peak"`
	Held    int    `json:"held"`
	Flight  int    `json:"inFlight"`
	Queued  int64  `json:"queued"`
	Unknown int64  `json:"unknown"`
	Rate    number `json:"rate"`
	Closed  int64  `json:"closed"`
}

type wireOrg struct {
	wireSummary
	Queue   wireQueue       `json:"queue"`
	Limits  []wireLimit     `json:"limits"`
	Over    int64           `json:"over"`
	Callers []wireCaller    `json:"callers"`
	Waiting []wireWaiting   `json:"waiting"`
	Queued  []wireExecution `json:"queuedRows"`
	Unknown []wireExecution `json:"unknownRows"`
}

type wireQueue struct {
	Queued   int64 `json:"queued"`
	Unknown  int64 `json:"unknown"`
	Done     int64 `json:"done"`
	Failed   int64 `json:"failed"`
	Expired  int64 `json:"expired"`
	Oldest   int64 `json:"oldest"`
	Estimate int64 `json:"estimate"`
}

type wireLimit struct {
	Name       string    `json:"name"`
	Scope      string    `json:"scope"`
	Rate       number    `json:"rate"`
	Burst      number    `json:"burst"`
	Level      number    `json:"level"`
	Pace       number    `json:"pace"`
	Sure       number    `json:"sure"`
	Window     int64     `json:"window"`
	Algorithm  string    `json:"algorithm"`
	Learning   string    `json:"learning"`
	Waiting    int       `json:"waiting"`
	RetryAfter int64     `json:"retryAfter"`
	Others     number    `json:"others"`
	Sent       uint64    `json:"sent"`
	Accepted   uint64    `json:"accepted"`
	Rejected   uint64    `json:"rejected"`
	Rates      [3]number `json:"rates"`
}

type wireCaller struct {
	Name    string `json:"name"`
	Weight  number `json:"weight"`
	Sent    uint64 `json:"sent"` // within wireOrg.Over
	Waiting int    `json:"waiting"`
	Queued  int64  `json:"queued"`
}

type wireWaiting struct {
	ID       string `json:"id"`
	Caller   string `json:"caller"`
	Method   string `json:"method"`
	Path     string `json:"path"`
	Priority int    `json:"priority"`
	Since    *int64 `json:"since"`
	Expected *int64 `json:"expected"`
	Why      string `json:"why"`
}

type wireExecution struct {
	ID       string `json:"id"`
	Caller   string `json:"caller"`
	Method   string `json:"method"`
	Path     string `json:"path"`
	Reason   string `json:"reason"`
	At       *int64 `json:"at"`
	Expected *int64 `json:"expected"`
	Attempts int    `json:"attempts"`
}

// wireHistory is what the plots of an org begin with: columns of equal length.
type wireHistory struct {
	At     []int64            `json:"at"`
	Limits []wireLimitHistory `json:"limits"`
}

type wireLimitHistory struct {
	Name     string   `json:"name"`
	Scope    string   `json:"scope"`
	Level    []number `json:"level"`
	Sent     []number `json:"sent"`
	Accepted []number `json:"accepted"`
	Rejected []number `json:"rejected"`
}

// number is written with four digits, and as null if it is not finite, which
// JSON has no word for.
type number float64

func (n number) MarshalJSON() ([]byte, error) {
	f := float64(n)
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return []byte("null"), nil
	}
	return strconv.AppendFloat(nil, f, 'g', 4, 64), nil
}

// encode can't fail: the wire types hold nothing that JSON can't say.
func encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic("dashboard: encoding its own type: " + err.Error())
	}
	return b
}

func (p *Page) overviewLocked() wireOverview {
	w := wireOverview{
		At:       millis(p.at),
		Every:    p.cfg.Interval.Milliseconds(),
		Keep:     p.cfg.Keep.Milliseconds(),
		Version:  cut(p.view.Version),
		Draining: p.view.Draining,
		Orgs:     make([]wireSummary, 0, len(p.view.Orgs)),
	}
	for _, o := range first(p.view.Orgs, maxOrgs) {
		w.Orgs = append(w.Orgs, p.summaryLocked(&o))
	}
	return w
}

func (p *Page) summaryLocked(o *Org) wireSummary {
	var closed time.Duration
	for i := range o.Limits {
		closed = max(closed, o.Limits[i].RetryAfter)
	}
	return wireSummary{
		Name: o.Name, Paused: o.Paused, Trouble: cut(o.Trouble), Peak: cut(o.Peak),
		Held: o.Held, Flight: o.InFlight, Queued: o.Queue.Queued, Unknown: o.Queue.Unknown,
		Rate: number(p.history.rate(o.Name)), Closed: closed.Milliseconds(),
	}
}

func (p *Page) orgLocked(o *Org) wireOrg {
	q := o.Queue
	w := wireOrg{
		wireSummary: p.summaryLocked(o),
		Queue: wireQueue{
			Queued: q.Queued, Unknown: q.Unknown, Done: q.Done, Failed: q.Failed, Expired: q.Expired,
			Oldest: q.Oldest.Milliseconds(), Estimate: q.Estimate.Milliseconds(),
		},
		Limits:  make([]wireLimit, 0, len(o.Limits)),
		Waiting: make([]wireWaiting, 0, len(o.Waiting)),
		Queued:  executions(o.Queued),
		Unknown: executions(o.Unknown),
	}
	for _, l := range first(o.Limits, maxLimits) {
		w.Limits = append(w.Limits, p.limitLocked(o.Name, &l))
	}
	for _, c := range first(o.Waiting, maxRows) {
		w.Waiting = append(w.Waiting, wireWaiting{
			ID: c.ID, Caller: cut(c.Caller), Method: cut(c.Method), Path: cut(c.Path), Priority: c.Priority,
			Since: instant(c.Since), Expected: instant(c.Expected), Why: cut(c.Why),
		})
	}
	w.Callers, w.Over = p.callersLocked(o)
	return w
}

func (p *Page) limitLocked(org string, l *Limit) wireLimit {
	w := wireLimit{
		Name: cut(l.Name), Scope: cut(l.Scope),
		Rate: number(l.Rate), Burst: number(l.Burst), Level: number(l.Level), Pace: number(l.Pace),
		Sure: number(l.RateSure), Window: l.Window.Milliseconds(), Algorithm: cut(l.Algorithm), Learning: cut(l.Learning),
		Waiting: l.Waiting, RetryAfter: l.RetryAfter.Milliseconds(), Others: number(l.Others),
		Sent: l.Sent, Accepted: l.Accepted, Rejected: l.Rejected,
	}
	newest := p.history.newest(org, limitKey{l.Name, l.Scope})
	for i, r := range newest.rates {
		w.Rates[i] = number(r)
	}
	return w
}

// callers are those who sent most, first.
func (p *Page) callersLocked(o *Org) ([]wireCaller, int64) {
	sent, over := p.history.shares(o.Name)
	list := make([]wireCaller, 0, len(o.Callers))
	for i := range o.Callers {
		c := &o.Callers[i]
		list = append(list, wireCaller{
			Name: cut(c.Name), Weight: number(c.Weight), Sent: sent[c.Name], Waiting: c.Waiting, Queued: c.Queued,
		})
	}
	slices.SortStableFunc(list, func(a, b wireCaller) int { return cmp.Compare(b.Sent, a.Sent) })
	return first(list, maxCallers), over.Milliseconds()
}

func executions(list []Execution) []wireExecution {
	rows := make([]wireExecution, 0, len(list))
	for _, x := range first(list, maxRows) {
		rows = append(rows, wireExecution{
			ID: x.ID, Caller: cut(x.Caller), Method: cut(x.Method), Path: cut(x.Path), Reason: cut(x.Reason),
			At: instant(x.At), Expected: instant(x.Expected), Attempts: x.Attempts,
		})
	}
	return rows
}

func (p *Page) pastLocked(org string) wireHistory {
	at, limits := p.history.columns(org)
	w := wireHistory{At: make([]int64, len(at)), Limits: make([]wireLimitHistory, 0, len(limits))}
	for i, t := range at {
		w.At[i] = millis(t)
	}
	for key, points := range limits {
		l := wireLimitHistory{Name: cut(key.name), Scope: cut(key.scope)}
		for _, pt := range points {
			l.Level = append(l.Level, number(pt.level))
			l.Sent = append(l.Sent, number(pt.rates[0]))
			l.Accepted = append(l.Accepted, number(pt.rates[1]))
			l.Rejected = append(l.Rejected, number(pt.rates[2]))
		}
		w.Limits = append(w.Limits, l)
	}
	return w
}

func millis(t time.Time) int64 { return t.UnixMilli() }

func instant(t time.Time) *int64 {
	if t.IsZero() {
		return nil
	}
	return new(millis(t))
}

func first[T any](s []T, n int) []T { return s[:min(n, len(s))] }

// cut bounds a text of which nobody knows how long it is.
func cut(s string) string {
	if len(s) <= maxText {
		return s
	}
	n := maxText
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + "…"
}
