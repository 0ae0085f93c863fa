package telemetry

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/headgate/headgate"
)

// maxBuckets is how many buckets of an org a scrape gets.
const maxBuckets = 200

// OrgState is what is so in the instant of a scrape.
type OrgState struct {
	// Name is the org's.
	Name string
	// Estimates is what is believed of its limits. A scrape gets 200 at
	// most: those that somebody waits for come first.
	Estimates []headgate.Estimate
	// Held is how many callers wait or are being answered, InFlight how many
	// attempts have left and are not answered.
	Held, InFlight int64
	// Queue is how many executions there are by state: queued, sending,
	// done, failed, expired, unknown. Other states are left out.
	Queue map[string]int64
	// OldestQueued is how long the oldest queued execution has been there, 0
	// if there is none; QueuedBytes is what all of them hold.
	OldestQueued time.Duration
	QueuedBytes  int64
	// Paused: somebody has stopped it. Trouble: what is accepted can't be
	// recorded at the moment.
	Paused, Trouble bool
	// ReservedShare is the share of the budget that is kept for urgent
	// calls now, from 0 to 1.
	ReservedShare float64
	// Callers is how many calls of each caller wait in line.
	Callers map[string]int64
}

// states of executions, as Queue names them.
var executionStates = []string{"queued", "sending", "done", "failed", "expired", "unknown"}

// scrape is the gauges of one scrape.
type scrape struct {
	states []OrgState
	ready  *func() bool
}

// gauge is a metric that is made for each scrape.
type gauge struct{ desc *prometheus.Desc }

func newGauge(name, help string, labels ...string) gauge {
	return gauge{prometheus.NewDesc(name, help, labels, nil)}
}

func (g gauge) send(ch chan<- prometheus.Metric, v float64, labels ...string) {
	ch <- prometheus.MustNewConstMetric(g.desc, prometheus.GaugeValue, v, labels...)
}

// The gauges. They are descriptions, and hold no values.
var (
	ready = newGauge("headgate_ready", "1 if the gateway is ready to take calls.")

	held        = newGauge("headgate_held_calls", "Calls whose callers wait now.", "org")
	inFlight    = newGauge("headgate_in_flight_requests", "Attempts that have left and are not answered.", "org")
	executions  = newGauge("headgate_executions", "Executions by state.", "org", "state")
	oldest      = newGauge("headgate_queue_oldest_seconds", "Age of the oldest queued execution.", "org")
	queuedBytes = newGauge("headgate_queue_bytes", "What the queued executions hold.", "org")
	paused      = newGauge("headgate_paused", "1 if somebody has paused the org.", "org")
	trouble     = newGauge("headgate_storage_trouble", "1 if what is accepted can't be recorded at the moment.", "org")
	reserved    = newGauge("headgate_reserved_ratio", "Share of the budget kept for urgent calls now.", "org")
	waiting     = newGauge("headgate_line_waiting", "Calls in line, by caller.", "org", "caller")
	leftOut     = newGauge("headgate_buckets_left_out", "Buckets beyond the number that a scrape gets.", "org")

	level      = newBucketGauge("level", "Requests that could go now.")
	rate       = newBucketGauge("rate", "Requests a second that the limit leaves to this process; absent if unknown.")
	rateSure   = newBucketGauge("rate_confidence", "How sure the rate is, from 0 to 1.")
	burst      = newBucketGauge("burst", "Requests that the full bucket, or the window, holds; absent if unknown.")
	burstSure  = newBucketGauge("burst_confidence", "How sure the burst is, from 0 to 1.")
	pace       = newBucketGauge("pace", "Requests a second at which they are sent; absent if it is not a rate that holds them back.")
	others     = newBucketGauge("others_rate", "Requests a second that somebody else makes from the limit.")
	inLine     = newBucketGauge("waiting", "Calls in line for the limit.")
	retryAfter = newBucketGauge("retry_after_seconds", "How much longer the server wants everybody to stay away.")
)

func newBucketGauge(name, help string) gauge {
	return newGauge("headgate_bucket_"+name, help, "org", "limit", "scope")
}

func (s scrape) Describe(chan<- *prometheus.Desc) {}

func (s scrape) Collect(ch chan<- prometheus.Metric) {
	if s.ready != nil {
		ready.send(ch, boolean((*s.ready)()))
	}
	seen := map[string]bool{}
	for _, o := range s.states {
		if name := label(o.Name); !seen[name] { // twice would spoil the scrape
			seen[name] = true
			o.collect(ch, name)
		}
	}
}

func (o OrgState) collect(ch chan<- prometheus.Metric, org string) {
	held.send(ch, float64(o.Held), org)
	inFlight.send(ch, float64(o.InFlight), org)
	for _, state := range executionStates {
		executions.send(ch, float64(o.Queue[state]), org, state)
	}
	oldest.send(ch, o.OldestQueued.Seconds(), org)
	queuedBytes.send(ch, float64(o.QueuedBytes), org)
	paused.send(ch, boolean(o.Paused), org)
	trouble.send(ch, boolean(o.Trouble), org)
	reserved.send(ch, o.ReservedShare, org)
	for caller, n := range boundedCallers(o.Callers) {
		waiting.send(ch, float64(n), org, caller)
	}
	collectBuckets(ch, org, o.Estimates)
}

// boundedCallers returns the callers by name, all that are too many as one.
func boundedCallers(callers map[string]int64) map[string]int64 {
	bounded := map[string]int64{}
	for _, name := range slices.Sorted(maps.Keys(callers)) {
		if name == "" {
			bounded[none] += callers[name]
		} else if len(bounded) >= maxCallers || !printable(name) {
			bounded[other] += callers[name]
		} else {
			bounded[name] += callers[name]
		}
	}
	return bounded
}

func collectBuckets(ch chan<- prometheus.Metric, org string, estimates []headgate.Estimate) {
	if len(estimates) > maxBuckets {
		estimates = slices.Clone(estimates)
		slices.SortStableFunc(estimates, func(a, b headgate.Estimate) int {
			return cmp.Or(cmp.Compare(b.Waiting, a.Waiting), cmp.Compare(b.RetryAfter, a.RetryAfter))
		})
	}
	type series struct{ limit, scope string }
	sent := map[series]bool{}
	for _, e := range estimates {
		s := series{label(e.Limit), scope(e)}
		if len(sent) < maxBuckets && !sent[s] {
			sent[s] = true
			collectBucket(ch, e, org, s.limit, s.scope)
		}
	}
	leftOut.send(ch, float64(len(estimates)-len(sent)), org)
}

func collectBucket(ch chan<- prometheus.Metric, e headgate.Estimate, labels ...string) {
	level.send(ch, e.Level, labels...)
	known := func(g gauge, v float64) {
		if v > 0 && !math.IsInf(v, 0) { // 0 would be a rate
			g.send(ch, v, labels...)
		}
	}
	known(rate, e.Rate)
	rateSure.send(ch, e.RateSure, labels...)
	known(burst, e.Burst)
	burstSure.send(ch, e.BurstSure, labels...)
	known(pace, e.Pace)
	others.send(ch, e.Others, labels...)
	inLine.send(ch, float64(e.Waiting), labels...)
	retryAfter.send(ch, e.RetryAfter.Seconds(), labels...)
}

// scope says whose bucket of a limit it is. The names of tokens and clients are
// cut short: enough to tell them apart, and of no use to anybody.
func scope(e headgate.Estimate) string {
	var parts []string
	add := func(key, value string, length int) {
		if value != "" {
			parts = append(parts, key+"="+label(value[:min(length, len(value))]))
		}
	}
	add("client", e.Client, 8)
	add("token", e.Token, 8)
	add("path", e.Path, maxName)
	if len(parts) == 0 {
		return "org"
	}
	return strings.Join(parts, " ")
}

func boolean(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
