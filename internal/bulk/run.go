package bulk

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/headgate/headgate"
	"github.com/headgate/headgate/genesys"
	"github.com/headgate/headgate/internal/deliver"
	"github.com/headgate/headgate/internal/progress"
	"github.com/headgate/headgate/internal/queue"
)

// Run carries the rows of a journal to their outcomes.
type Run struct {
	Store       queue.Store
	Sender      *deliver.Sender
	Limiter     *headgate.Limiter
	Ask         headgate.Ask // what the rows draw on, for the estimate
	Concurrency int
	// Results gets one line a row, in order. Nil: io.Discard.
	Results io.Writer
	// Began is when the user gave the command, for the time that has passed.
	Began time.Time
	// Meter saw the events of the Sender's transport.
	Meter *Meter

	counts atomic.Pointer[queue.Counts]
	lately speed
}

// Do works until all rows have outcomes. When take ends it lets those in flight
// end and returns; when do ends it gives them up. It returns what has an
// outcome, and the error that stopped it, nil for the end of take.
func (r *Run) Do(take, do context.Context) (*Summary, error) {
	take, unreachable := context.WithCancelCause(take)
	defer unreachable(nil)
	var mu sync.Mutex
	var fatal error
	if r.Sender.Answered == nil {
		r.Sender.Answered = r.Meter.answered
	}
	r.Sender.Unreachable = func(err error) {
		mu.Lock()
		defer mu.Unlock()
		if fatal == nil {
			fatal = &UnreachableError{Err: err}
			unreachable(fatal)
		}
	}
	d := &queue.Dispatcher{
		Store: r.Store, Send: r.Sender.Send, Concurrency: r.Concurrency,
		Delivery: deliveryOf(r.Sender.Delivery),
	}
	if r.Results == nil {
		r.Results = io.Discard
	}
	results := &Results{Store: r.Store, W: r.Results}
	done := make(chan error, 1)
	go func() { done <- d.Run(take, do) }()
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if err := results.Advance(context.WithoutCancel(do)); err != nil {
				unreachable(err)
				<-done
				return &results.Summary, err
			}
		case err := <-done:
			if err == nil {
				mu.Lock()
				err = fatal
				mu.Unlock()
			}
			if advance := results.Advance(context.WithoutCancel(do)); err == nil {
				err = advance
			}
			return &results.Summary, err
		}
	}
}

// UnreachableError says that no connection to the API could be made.
type UnreachableError struct{ Err error }

// Error says so.
func (e *UnreachableError) Error() string { return fmt.Sprintf("can't reach the API: %v", e.Err) }

// Unwrap returns Err.
func (e *UnreachableError) Unwrap() error { return e.Err }

func deliveryOf(d headgate.Delivery) queue.Delivery {
	if d == headgate.AtMostOnce {
		return queue.AtMostOnce
	}
	return queue.AtLeastOnce
}

// Progress returns how the run is getting on. It is called from one goroutine.
func (r *Run) Progress() progress.Snapshot {
	counts, err := r.Store.Counts(context.Background())
	if err != nil {
		if last := r.counts.Load(); last != nil {
			counts = *last
		}
	} else {
		r.counts.Store(&counts)
	}
	s := progress.Snapshot{
		Total:    counts.Total(),
		Done:     counts[queue.Done],
		Failed:   counts[queue.Failed],
		Expired:  counts[queue.Expired],
		Unknown:  counts[queue.Unknown],
		InFlight: counts[queue.Sent],
		Waiting:  counts[queue.Queued] + counts[queue.Claimed],
		Refused:  r.Meter.Refused(),
		Retried:  r.Meter.Retried(),
		Elapsed:  time.Since(r.Began),
	}
	s.Rate = r.lately.of(s.Total-counts.Open(), time.Now())
	if counts.Open() == 0 {
		return s
	}
	f := r.Limiter.Forecast(r.Ask, int(s.Waiting))
	s.Left, s.LeftKnown = f.Wait, f.Bounded
	now := r.Limiter.Forecast(r.Ask, 1)
	if now.Wait == 0 && s.Rate > 0 {
		// The limit is not what holds them up.
		s.Left = max(s.Left, time.Duration(float64(counts.Open())/s.Rate*float64(time.Second)))
		s.LeftKnown = true
	}
	switch {
	case s.Waiting == 0:
	case now.RetryAfter > 0:
		s.WaitingFor = fmt.Sprintf("%s: Retry-After %.1fs", now.Limit, now.RetryAfter.Seconds())
	case now.Wait > 0:
		s.WaitingFor = now.Limit
	}
	return s
}

// speed measures how many end a second, over the last few seconds.
type speed struct {
	samples []sample
}

type sample struct {
	at time.Time
	n  int64
}

func (s *speed) of(n int64, now time.Time) float64 {
	const span = 5 * time.Second
	s.samples = append(s.samples, sample{now, n})
	for len(s.samples) > 2 && now.Sub(s.samples[1].at) >= span {
		s.samples = s.samples[1:]
	}
	first := s.samples[0]
	if d := now.Sub(first.at).Seconds(); d > 0 {
		return float64(n-first.n) / d
	}
	return 0
}

// Meter is an Observer that counts.
type Meter struct {
	sent, refused, unavailable, retried, accepted, polls, logins atomic.Int64
	first, last                                                  atomic.Int64 // Unix nanoseconds: first sent, last accepted
}

// IsLogin reports whether e is about a login.
func IsLogin(e headgate.Event) bool { return strings.HasSuffix(e.Path, "/oauth/token") }

// Observe counts an event. It is safe for concurrent use.
func (m *Meter) Observe(e headgate.Event) {
	if IsLogin(e) {
		if e.Kind == headgate.Sent {
			m.logins.Add(1)
		}
		return
	}
	switch e.Kind {
	case headgate.Sent:
		m.sent.Add(1)
		if isPoll(e) {
			m.polls.Add(1)
		}
		m.first.CompareAndSwap(0, time.Now().UnixNano())
		if e.Attempt > 1 {
			m.retried.Add(1)
		}
	case headgate.Answered:
		switch {
		case e.Status == http.StatusTooManyRequests:
			m.refused.Add(1)
		case e.Status == http.StatusServiceUnavailable, e.Method == http.MethodGet, e.Err != nil && deliver.NeverLeft(e.Err):
			// The first of them the Sender knows more about.
		default:
			m.accept()
		}
	}
}

func (m *Meter) accept() {
	m.accepted.Add(1)
	m.last.Store(time.Now().UnixNano())
}

// answered counts the kinds of 503: with a Retry-After it refuses; without,
// nobody knows.
func (m *Meter) answered(o headgate.Observation, poll bool) {
	switch {
	case o.Status != http.StatusServiceUnavailable:
	case o.Refused:
		m.unavailable.Add(1)
	case !poll:
		m.accept()
	}
}

// isPoll reports whether e is about a request that follows a launch.
func isPoll(e headgate.Event) bool {
	return e.Method == http.MethodGet && strings.Contains(e.Path, genesys.LaunchPath+"/")
}

// Sent returns how many requests were to leave, polls among them. Refused is how
// many got a 429, Unavailable how many a 503 that said when to come again.
// Accepted is how many executions were answered otherwise, or not at all
// although they left: polls, and what met no connection, are not among them.
// Retried is how many had left before, Polls how many followed a launch.
func (m *Meter) Sent() int64        { return m.sent.Load() }
func (m *Meter) Refused() int64     { return m.refused.Load() }
func (m *Meter) Unavailable() int64 { return m.unavailable.Load() }
func (m *Meter) Accepted() int64    { return m.accepted.Load() }
func (m *Meter) Retried() int64     { return m.retried.Load() }
func (m *Meter) Polls() int64       { return m.polls.Load() }
func (m *Meter) Logins() int64      { return m.logins.Load() }

// Span returns the time from the first request to the last one that counts as
// accepted. With polls it says nothing about the pace of the launches: both
// draw on the limit.
func (m *Meter) Span() time.Duration {
	return max(0, time.Duration(m.last.Load()-m.first.Load()))
}
