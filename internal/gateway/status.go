package gateway

import (
	"context"
	"time"

	"github.com/headgate/headgate/internal/queue"
)

// orgView is an org as the API shows it.
type orgView struct {
	Name   string      `json:"name"`
	Paused bool        `json:"paused"`
	Held   int64       `json:"held"`
	Queue  queueView   `json:"queue"`
	Limits []limitView `json:"limits"`
	Peak   string      `json:"peak,omitempty"`
	// Trouble says why nothing goes, or is accepted.
	Trouble string `json:"trouble,omitempty"`
}

type queueView struct {
	Queued   int64   `json:"queued"`
	Sending  int64   `json:"sending"`
	Done     int64   `json:"done"`
	Failed   int64   `json:"failed"`
	Expired  int64   `json:"expired"`
	Unknown  int64   `json:"unknown"`
	Oldest   seconds `json:"oldest,omitempty"`   // how long ago the oldest was accepted
	Estimate seconds `json:"estimate,omitempty"` // until the last of them has gone
}

type limitView struct {
	Name       string  `json:"name"`
	Scope      string  `json:"scope,omitempty"`
	Algorithm  string  `json:"algorithm"`
	Rate       float64 `json:"rate"` // a second
	RateSure   float64 `json:"rate_sure"`
	Burst      float64 `json:"burst"`
	BurstSure  float64 `json:"burst_sure"`
	Window     seconds `json:"window,omitempty"`
	Level      float64 `json:"level"`
	Waiting    int     `json:"waiting"`
	RetryAfter seconds `json:"retry_after,omitempty"`
	Others     float64 `json:"others,omitempty"` // a second, by somebody else
	Sent       uint64  `json:"sent"`
	Accepted   uint64  `json:"accepted"`
	Refused    uint64  `json:"refused"`
}

// status is what the API says of an org.
func (o *org) status() orgView {
	ctx := context.Background()
	now := time.Now()
	counts, _ := o.store.Counts(ctx)
	v := orgView{
		Name: o.name, Paused: o.limiter.Paused(), Held: o.held.Load(), Limits: []limitView{},
		Peak: o.peakWords(now), Trouble: o.trouble(),
		Queue: queueView{
			Queued: counts[queue.Queued] + counts[queue.Claimed], Sending: counts[queue.Sent],
			Done: counts[queue.Done], Failed: counts[queue.Failed], Expired: counts[queue.Expired], Unknown: counts[queue.Unknown],
		},
	}
	if v.Queue.Queued > 0 {
		if oldest, ok, err := o.store.Oldest(ctx); err == nil && ok && !oldest.IsZero() {
			v.Queue.Oldest = secondsOf(now.Sub(oldest))
		}
		v.Queue.Estimate = secondsOf(o.forecast(int(v.Queue.Queued)))
	}
	for _, e := range o.estimates() {
		v.Limits = append(v.Limits, limitView{
			Name: e.Limit, Scope: scopeOf(e), Algorithm: e.Algorithm.String(),
			Rate: e.Rate, RateSure: e.RateSure, Burst: e.Burst, BurstSure: e.BurstSure, Window: secondsOf(e.Window),
			Level: e.Level, Waiting: e.Waiting, RetryAfter: secondsOf(e.RetryAfter), Others: e.Others,
			Sent: e.Sent, Accepted: e.Accepted, Refused: e.Refused,
		})
	}
	return v
}

// forecast says when the last of n calls would have gone.
func (o *org) forecast(n int) time.Duration {
	return o.limiter.Forecast(o.ask("/api/", 0), n).Wait
}

// trouble says why nothing goes, or nothing is accepted; "" if all is well.
func (o *org) trouble() string {
	if err := o.dispatcher.Trouble(); err != nil {
		return o.clean(err)
	}
	return ""
}

// clean is err for those who may not see more: without addresses and paths that
// it may hold.
func (o *org) clean(err error) string {
	return o.link().sender.Text(err)
}
