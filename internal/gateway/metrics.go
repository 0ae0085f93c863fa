package gateway

import (
	"context"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/headgate/headgate"
	"github.com/headgate/headgate/internal/queue"
	"github.com/headgate/headgate/internal/telemetry"
)

// meter is what an org tells of itself.
type meter struct {
	*telemetry.Org
	onWire atomic.Int64
}

// observe is the org's Observer.
func (m *meter) observe(e headgate.Event) {
	switch e.Kind {
	case headgate.Sent:
		m.onWire.Add(1)
	case headgate.Answered:
		m.onWire.Add(-1)
		if strings.HasSuffix(e.Path, loginPath) {
			m.Login(false, e.Status == http.StatusOK)
		}
	}
	m.Org.Observe(e)
}

// waited counts the waits of a call.
func (m *meter) waited(urgency int, waits map[string]time.Duration) {
	for cause, d := range waits {
		m.Wait(cause, urgency, d)
	}
}

// over tells of a call that is answered: to the metrics, the trace and the log.
// One that was accepted for later is told of when it ends.
func (c *held) over(outcome string, status int, execution string) {
	took := time.Since(c.came)
	if execution == "" {
		c.org.meter.waited(c.urgency, c.tries.Waits)
		c.org.meter.Call("held", outcome, c.caller.name, took)
	}
	limit, wait := longest(c.tries.Waits)
	if c.span != nil {
		c.span.End(telemetry.CallEnd{
			Org: c.org.name, Caller: c.caller.name, Limit: limit, Wait: wait,
			Attempts: c.tries.Sent, Status: status, Execution: execution, Outcome: outcome,
		})
	}
	if c.org.log.Enabled(context.Background(), slog.LevelDebug) {
		c.org.log.Debug("call", "id", c.id, "caller", c.caller.name, "method", c.method, "path", c.plain, "urgency", c.urgency,
			"outcome", outcome, "status", status, "took", took, "wait", wait, "limit", limit, "attempts", c.tries.Sent, "execution", execution)
	}
}

// refuse answers a call that is not taken in.
func (c *held) refuse(w http.ResponseWriter, p *problem) {
	if p.counts != "" {
		c.org.meter.Refused(p.counts)
	}
	c.over("refused", p.Status, "")
	p.write(w)
}

// longest returns what was waited for the longest, and how long altogether.
func longest(waits map[string]time.Duration) (cause string, all time.Duration) {
	var most time.Duration
	for name, d := range waits {
		all += d
		if d > most {
			cause, most = name, d
		}
	}
	return cause, all
}

// ended counts an execution that has ended.
func (m *meter) ended(x *queue.Execution) {
	m.waited(x.Priority+defaultUrgency, x.Tally.Waits)
	m.Call("kept", x.State.String(), x.Caller, x.Ended.Sub(x.Accepted))
}

// states are the orgs as a scrape sees them.
func (g *Gateway) states() (list []telemetry.OrgState) {
	ctx := context.Background()
	for _, o := range g.setting().orgs {
		counts, _ := o.store.Counts(ctx)
		loads, _ := o.store.Load(ctx)
		share, _, _ := o.peak(time.Now())
		s := telemetry.OrgState{
			Name: o.name, Estimates: o.estimates(), Held: o.held.Load(), InFlight: o.meter.onWire.Load(),
			Queue:  map[string]int64{},
			Paused: o.limiter.Paused(), Trouble: o.trouble() != "", ReservedShare: share,
			Callers: map[string]int64{},
		}
		for state, n := range counts {
			s.Queue[stateWord(queue.State(state))] += n
		}
		for _, l := range loads {
			s.QueuedBytes += l.Bytes
		}
		if oldest, ok, err := o.store.Oldest(ctx); err == nil && ok && !oldest.IsZero() {
			s.OldestQueued = time.Since(oldest)
		}
		for _, c := range o.limiter.Callers() {
			s.Callers[c.Caller] = int64(c.Waiting)
		}
		list = append(list, s)
	}
	return list
}

// serveMetrics serves /metrics: to operators, unless the file makes it public or
// names no keys.
func (g *Gateway) serveMetrics(w http.ResponseWriter, r *http.Request) {
	if !allow(w, r, http.MethodGet, http.MethodHead) {
		return
	}
	if !g.file().PublicMetrics {
		who, p := g.operatorOf(r)
		if p == nil && who.operator == "" {
			p = forbidden.problem("metrics are for operators")
		}
		if p != nil {
			p.write(w)
			return
		}
	}
	g.metricsHTTP.ServeHTTP(w, r)
}
