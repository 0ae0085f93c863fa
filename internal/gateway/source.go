package gateway

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/headgate/headgate"
	"github.com/headgate/headgate/internal/dashboard"
	"github.com/headgate/headgate/internal/queue"
)

// source is what the page shows of the gateway.
type source struct{ g *Gateway }

const (
	shownWaiting = 50
	shownCalls   = 50
)

// View implements [dashboard.Source].
func (s source) View(ctx context.Context) dashboard.View {
	v := dashboard.View{At: time.Now(), Version: s.g.config.Version, Draining: s.g.isDraining()}
	for _, o := range s.g.setting().orgs {
		v.Orgs = append(v.Orgs, o.page(ctx, v.At))
	}
	return v
}

// page is what the page shows of an org.
func (o *org) page(ctx context.Context, now time.Time) dashboard.Org {
	v := dashboard.Org{
		Name: o.name, Paused: o.limiter.Paused(), Trouble: o.trouble(), Peak: o.peakWords(now),
		Held: int(o.held.Load()), InFlight: int(o.meter.onWire.Load()),
	}
	for _, e := range o.estimates() {
		v.Limits = append(v.Limits, dashboard.Limit{
			Name: e.Limit, Scope: scopeOf(e), Rate: e.Rate, Burst: e.Burst, Level: e.Level, Pace: e.Pace,
			RateSure: e.RateSure, Window: e.Window, Algorithm: e.Algorithm.String(), Learning: e.Learning,
			Waiting: e.Waiting, RetryAfter: e.RetryAfter, Others: e.Others,
			Sent: e.Sent, Accepted: e.Accepted, Rejected: e.Refused,
		})
	}
	counts, _ := o.store.Counts(ctx)
	v.Queue = dashboard.Queue{
		Queued: counts[queue.Queued] + counts[queue.Claimed], Unknown: counts[queue.Unknown],
		Done: counts[queue.Done], Failed: counts[queue.Failed], Expired: counts[queue.Expired],
	}
	if v.Queue.Queued > 0 {
		if oldest, ok, err := o.store.Oldest(ctx); err == nil && ok {
			v.Queue.Oldest = now.Sub(oldest)
		}
		v.Queue.Estimate = o.forecast(int(v.Queue.Queued))
	}
	loads, _ := o.store.Load(ctx)
	for _, c := range o.limiter.Callers() {
		c.Caller = cmp.Or(c.Caller, gatewayItself)
		v.Callers = append(v.Callers, dashboard.Caller{Name: c.Caller, Weight: c.Weight, Sent: c.Granted, Waiting: c.Waiting, Queued: loads[c.Caller].Rows})
	}
	for _, w := range o.limiter.Line(shownWaiting) {
		line := dashboard.Waiting{Caller: w.Caller, Path: w.Path, Priority: w.Priority + defaultUrgency, Since: w.Since, Why: why(w)}
		if w.Expected > 0 {
			line.Expected = now.Add(w.Expected)
		}
		v.Waiting = append(v.Waiting, line)
	}
	v.Queued = o.some(ctx, counts[queue.Queued], queue.Filter{States: []queue.State{queue.Queued}, Limit: shownCalls})
	v.Unknown = o.some(ctx, counts[queue.Unknown], queue.Filter{States: []queue.State{queue.Unknown}, Limit: shownCalls, Newest: true})
	return v
}

// some reads the first executions that match, if there are any.
func (o *org) some(ctx context.Context, any int64, f queue.Filter) (list []dashboard.Execution) {
	if any == 0 {
		return nil
	}
	for x, err := range o.store.Each(ctx, f) {
		if err != nil {
			break
		}
		at := x.Accepted
		if x.State == queue.Unknown {
			at = x.Ended
		}
		list = append(list, dashboard.Execution{
			ID: o.idOf(x.ID), Caller: x.Caller, Method: x.Method, Path: x.Path, Reason: x.Reason, At: at, Attempts: x.Tally.Sent,
		})
	}
	return list
}

// scopeOf says what of a limit is counted, in few words.
func scopeOf(e headgate.Estimate) string {
	switch {
	case e.Path != "":
		return e.Path
	case e.Token != "":
		return "token " + e.Token[:min(8, len(e.Token))]
	case e.Client != "":
		return "client"
	}
	return ""
}

// why says what a call in line waits for.
func why(w headgate.InLine) string {
	switch w.Cause {
	case "":
		return w.Limit + " empty"
	case headgate.WaitPaused:
		return "paused"
	}
	return w.Limit + ": " + w.Cause
}

// gatewayItself is what makes calls that no caller asked for: logins.
const gatewayItself = "the gateway itself"

// estimates are the limits of an org that are worth a look: the one that stands for
// what nobody configured is not, as long as it is in nobody's way.
func (o *org) estimates() []headgate.Estimate {
	return slices.DeleteFunc(o.limiter.Estimates(), func(e headgate.Estimate) bool {
		return e.Limit == headgate.ImplicitLimit && e.Rate == 0 && e.Waiting == 0 && e.RetryAfter == 0 && e.Refused == 0
	})
}

// peakWords says what the peak hours do now.
func (o *org) peakWords(now time.Time) string {
	share, urgent, until := o.peak(now)
	if share == 0 {
		return ""
	}
	text := fmt.Sprintf("peak hours: %.0f %% kept for calls of urgency %d and better", 100*share, urgent)
	if !until.IsZero() {
		text += ", until " + until.Format("15:04 MST")
	}
	return text
}

// Resolve implements [dashboard.Source].
func (s source) Resolve(ctx context.Context, id, action string) error {
	o, n, err := s.find(id)
	if err != nil {
		return err
	}
	_, p := o.resolve(ctx, n, action, identityOf(ctx).operator)
	return p.asError()
}

// Pause implements [dashboard.Source].
func (s source) Pause(ctx context.Context, org string) error { return s.pause(ctx, org, true) }

// Resume implements [dashboard.Source].
func (s source) Resume(ctx context.Context, org string) error { return s.pause(ctx, org, false) }

func (s source) pause(ctx context.Context, org string, pause bool) error {
	o := s.g.setting().org(org)
	if o == nil {
		return fmt.Errorf("%w: there is no org %q", dashboard.ErrNotFound, org)
	}
	return o.pause(pause, identityOf(ctx).operator).asError()
}

// Cancel implements [dashboard.Source].
func (s source) Cancel(ctx context.Context, id string) error {
	o, n, err := s.find(id)
	if err != nil {
		return err
	}
	_, p := o.cancel(ctx, n)
	return p.asError()
}

func (s source) find(id string) (*org, int64, error) {
	name, n, ok := parseID(id)
	o := s.g.setting().org(name)
	if !ok || o == nil {
		return nil, 0, fmt.Errorf("%w: there is no execution %q", dashboard.ErrNotFound, id)
	}
	return o, n, nil
}

// asError is p for the page.
func (p *problem) asError() error {
	switch {
	case p == nil:
		return nil
	case p.Status == 404:
		return fmt.Errorf("%w: %s", dashboard.ErrNotFound, p.Detail)
	case p.Status == 409:
		return fmt.Errorf("%w: %s", dashboard.ErrConflict, p.Detail)
	}
	return fmt.Errorf("%s: %s", p.Title, p.Detail)
}

type identityKey struct{}

func withIdentity(ctx context.Context, who identity) context.Context {
	return context.WithValue(ctx, identityKey{}, who)
}

func identityOf(ctx context.Context) identity {
	who, _ := ctx.Value(identityKey{}).(identity)
	return who
}
