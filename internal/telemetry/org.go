package telemetry

import (
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/headgate/headgate"
)

const (
	// maxLimits is how many limits of an org have series of their own: as
	// many hidden ones as a limiter keeps.
	maxLimits = 64
	// maxCallers is how many callers of an org have series of their own.
	maxCallers = 256
	// urgencies are 0, the most urgent, to 7 (RFC 9218).
	urgencies = 8
)

// The bounds of the histograms, in seconds.
var (
	waitBounds   = []float64{.01, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900, 3600}
	answerBounds = []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60}
	callBounds   = []float64{.01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 14400, 86400}
)

// Org is the meters of one org. Its methods are safe for concurrent use, do not
// block, and do not allocate for names that were seen before.
type Org struct {
	all []prometheus.Collector

	sent, retried, gaveUp prometheus.Counter

	answers    closed[prometheus.Counter]
	answerTime prometheus.Observer
	refused    closed[prometheus.Counter]
	logins     [2][2]prometheus.Counter // at the gateway, succeeded
	callbacks  closed[prometheus.Counter]

	limits  *names[*limitMeters]
	callers *names[*callerMeters]
	callSum [len(kinds)][len(outcomes)]lazy
	calls   *prometheus.HistogramVec
}

// closed is a closed set of words with something for each, the last word being
// for whatever is none of the others.
type closed[T any] struct {
	words []string
	each  []T
}

func newClosed[T any](words []string, make func(word string) T) closed[T] {
	c := closed[T]{words: words}
	for _, w := range words {
		c.each = append(c.each, make(w))
	}
	return c
}

func (c *closed[T]) get(word string) T { return c.each[indexOf(c.words, word)] }

// indexOf returns the place of word, the last one if it is not there.
func indexOf(words []string, word string) int {
	for i, w := range words {
		if w == word {
			return i
		}
	}
	return len(words) - 1
}

// The closed sets of labels.
var (
	classes   = []string{"1xx", "2xx", "3xx", "4xx", "429", "5xx", "none"}
	kinds     = [...]string{"held", "kept", other}
	outcomes  = [...]string{"done", "failed", "expired", "unknown", "refused", "cancelled", "error"}
	bounds    = []string{"held", "queued", "bytes", "buffered", "storage", "draining", other}
	delivered = []string{"delivered", "failed", "given_up", other}
)

// lazy is a histogram that is made when it is first used: most combinations of
// labels never are.
type lazy struct {
	p atomic.Pointer[prometheus.Observer]
}

func (l *lazy) observe(v float64, make func() prometheus.Observer) {
	p := l.p.Load()
	if p == nil {
		o := make() // the same one, whoever asks
		p = &o
		l.p.Store(p)
	}
	(*p).Observe(v)
}

// limitMeters is what is counted for one limit.
type limitMeters struct {
	closed, opened, found prometheus.Counter
	empty, retryAfter     prometheus.Counter
	waits                 [urgencies]lazy
	name                  string
	vec                   *prometheus.HistogramVec
}

// callerMeters is what is counted for one caller.
type callerMeters struct {
	accepted prometheus.Counter
	calls    [len(kinds)][len(outcomes)]atomic.Pointer[prometheus.Counter]
	name     string
	vec      *prometheus.CounterVec
}

func newOrg(name string) *Org {
	o := new(Org)
	m := maker{o, prometheus.Labels{"org": name}}

	o.sent = m.counter("headgate_requests_sent_total", "Attempts that left, first ones and repeated ones.")
	o.retried = m.counter("headgate_requests_retried_total", "Attempts after which the request is to be sent again.")
	o.gaveUp = m.counter("headgate_requests_given_up_total", "Requests that failed and are not sent again.")

	answers := m.counters("headgate_answers_total", "Answers by class of status; none: no answer came.", "class")
	o.answers = newClosed(classes, func(w string) prometheus.Counter { return answers.WithLabelValues(w) })
	o.answerTime = m.histograms("headgate_answer_seconds", "Time from an attempt's leaving to its answer, or to its end without one.", answerBounds).WithLabelValues()
	refused := m.counters("headgate_calls_refused_total", "Calls that were turned away by a bound of the gateway.", "reason")
	o.refused = newClosed(bounds, func(w string) prometheus.Counter { return refused.WithLabelValues(w) })
	logins := m.counters("headgate_logins_total", "Logins of callers at the gateway and of the gateway at the platform.", "at", "result")
	for i, at := range []string{"platform", "gateway"} {
		o.logins[i] = [2]prometheus.Counter{logins.WithLabelValues(at, "failed"), logins.WithLabelValues(at, "ok")}
	}
	callbacks := m.counters("headgate_callbacks_total", "Attempts to call back, and those given up.", "result")
	o.callbacks = newClosed(delivered, func(w string) prometheus.Counter { return callbacks.WithLabelValues(w) })

	gates := m.counters("headgate_gate_closed_total", "Refusals that closed the gate of a limit.", "limit")
	opened := m.counters("headgate_gate_opened_total", "Probes behind a gate that were accepted.", "limit")
	found := m.counters("headgate_limits_found_total", "Refusals that brought to light what a limit counts.", "limit")
	why := m.counters("headgate_waited_seconds_total", "Seconds that permits were waited for, by the limit that held them up and why.", "limit", "why")
	waits := m.histograms("headgate_wait_seconds", "How long calls waited, by the limit that they waited for the longest.", waitBounds, "limit", "urgency")
	o.limits = newNames(maxLimits, func(name string) *limitMeters {
		return &limitMeters{
			closed: gates.WithLabelValues(name), opened: opened.WithLabelValues(name), found: found.WithLabelValues(name),
			empty: why.WithLabelValues(name, "empty"), retryAfter: why.WithLabelValues(name, "retry_after"),
			name: name, vec: waits,
		}
	})

	o.calls = m.histograms("headgate_call_seconds", "Time from a call's arrival to its end.", callBounds, "kind", "outcome")
	accepted := m.counters("headgate_calls_accepted_total", "Calls accepted for later.", "caller")
	calls := m.counters("headgate_calls_total", "Calls that are over.", "caller", "kind", "outcome")
	o.callers = newNames(maxCallers, func(name string) *callerMeters {
		return &callerMeters{accepted: accepted.WithLabelValues(name), name: name, vec: calls}
	})
	return o
}

// maker makes what an org is measured with.
type maker struct {
	org    *Org
	labels prometheus.Labels
}

func (m maker) counter(name, help string) prometheus.Counter {
	return m.counters(name, help).WithLabelValues()
}

func (m maker) counters(name, help string, labels ...string) *prometheus.CounterVec {
	v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help, ConstLabels: m.labels}, labels)
	m.org.all = append(m.org.all, v)
	return v
}

func (m maker) histograms(name, help string, bounds []float64, labels ...string) *prometheus.HistogramVec {
	v := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, ConstLabels: m.labels, Buckets: bounds}, labels)
	m.org.all = append(m.org.all, v)
	return v
}

func (o *Org) collect(ch chan<- prometheus.Metric) {
	for _, c := range o.all {
		c.Collect(ch)
	}
}

// Observe counts what happens on the way of calls: it is the
// [headgate.Observer] of an org's Transport and Limiter. Of waits it counts the
// parts; the histogram of them is Wait's.
func (o *Org) Observe(e headgate.Event) {
	switch e.Kind {
	case headgate.PermitWaited:
		for _, p := range e.Parts {
			m := o.limits.get(p.Limit)
			addSeconds(m.empty, p.Empty)
			addSeconds(m.retryAfter, p.RetryAfter)
		}
	case headgate.Sent:
		o.sent.Inc()
	case headgate.Answered:
		o.answers.each[classOf(e.Status)].Inc()
		o.answerTime.Observe(e.Wait.Seconds())
	case headgate.GateClosed:
		o.limits.get(e.Limit).closed.Inc()
	case headgate.GateOpened:
		o.limits.get(e.Limit).opened.Inc()
	case headgate.Retried:
		o.retried.Inc()
	case headgate.GaveUp:
		o.gaveUp.Inc()
	case headgate.LimitFound:
		o.limits.get(e.Limit).found.Inc()
	}
}

// addSeconds adds what a counter can be told: it panics at less than nothing.
func addSeconds(c prometheus.Counter, d time.Duration) {
	if d > 0 {
		c.Add(d.Seconds())
	}
}

// classOf returns the place of a status in classes.
func classOf(status int) int {
	switch {
	case status == 429:
		return 4
	case status >= 100 && status < 500:
		return status/100 - 1
	case status >= 500:
		return 5
	}
	return 6
}

// Wait tells how long a call waited for its permit. Cause is the limit that it
// waited for the longest, or what else held it up; "" if it went at once.
// Urgency is 0, the most urgent, to 7; what is beyond counts as the end that it
// is beyond.
func (o *Org) Wait(cause string, urgency int, d time.Duration) {
	m := o.limits.get(cause)
	u := max(0, min(urgency, urgencies-1))
	m.waits[u].observe(d.Seconds(), func() prometheus.Observer {
		return m.vec.WithLabelValues(m.name, strconv.Itoa(u))
	})
}

// Call tells of a call that is over. Kind is "held" for a caller that waited,
// "kept" for an execution that was accepted for later; outcome is done, failed,
// expired, unknown, refused, cancelled or error, and d the time from its
// arrival. An outcome that is none of these counts as error.
func (o *Org) Call(kind, outcome, caller string, d time.Duration) {
	k, out := indexOf(kinds[:], kind), indexOf(outcomes[:], outcome)
	o.callSum[k][out].observe(d.Seconds(), func() prometheus.Observer {
		return o.calls.WithLabelValues(kinds[k], outcomes[out])
	})
	m := o.callers.get(caller)
	p := m.calls[k][out].Load()
	if p == nil {
		c := m.vec.WithLabelValues(m.name, kinds[k], outcomes[out])
		p = &c
		m.calls[k][out].Store(p)
	}
	(*p).Inc()
}

// Accepted counts a call of that caller that was accepted for later.
func (o *Org) Accepted(caller string) { o.callers.get(caller).accepted.Inc() }

// Refused counts a call that a bound turned away: held, queued, bytes, buffered,
// storage or draining.
func (o *Org) Refused(reason string) { o.refused.get(reason).Inc() }

// Login counts a login: at the gateway (own) or at the platform.
func (o *Org) Login(own, ok bool) {
	at, result := 0, 0
	if own {
		at = 1
	}
	if ok {
		result = 1
	}
	o.logins[at][result].Inc()
}

// Callback counts an attempt to call back that was delivered or failed, and a
// callback that was given_up.
func (o *Org) Callback(result string) { o.callbacks.get(result).Inc() }
