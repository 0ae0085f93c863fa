package gateway

import (
	"context"
	"net/http"
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
	spend  func() // is called for each attempt that leaves
}

// observe is the org's Observer.
func (m *meter) observe(e headgate.Event) {
	switch e.Kind {
	case headgate.Sent:
		m.onWire.Add(1)
		m.spend()
	case headgate.Answered:
		m.onWire.Add(-1)
	}
	m.Org.Observe(e)
}

// waited counts the waits of a call.
func (m *meter) waited(urgency int, waits map[string]time.Duration) {
	for cause, d := range waits {
		m.Wait(cause, urgency, d)
	}
}

// over counts a held call that is over.
func (c *held) over(outcome string) {
	c.org.meter.waited(c.urgency, c.tries.Waits)
	c.org.meter.Call("held", outcome, c.caller.name, time.Since(c.came))
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
			Name: o.name, Estimates: o.limiter.Estimates(), Held: o.held.Load(), InFlight: o.meter.onWire.Load(),
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
