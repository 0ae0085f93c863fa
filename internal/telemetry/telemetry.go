// Package telemetry is what the gateway tells of itself: metrics, traces, and
// logs that can be put together and hold no secret. docs/metrics.md is the
// table of the metrics.
//
// Labels come from closed sets, from the configuration, or from sets that are
// bounded here: nothing that the network names can make a process grow.
package telemetry

import (
	"maps"
	"net/http"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Telemetry holds the meters of a process. Make one with [New]. It is safe for
// concurrent use.
type Telemetry struct {
	registry *prometheus.Registry

	orgs   atomic.Pointer[map[string]*Org] // replaced, never changed
	orgsMu sync.Mutex                      // held while it is replaced

	states atomic.Pointer[func() []OrgState]
	ready  atomic.Pointer[func() bool]
}

// New returns meters in a registry of their own, with those of the Go runtime
// and of the process. Version is what headgate_build_info says.
func New(version string) *Telemetry {
	t := &Telemetry{registry: prometheus.NewRegistry()}
	t.orgs.Store(&map[string]*Org{})
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Name:        "headgate_build_info",
		Help:        "Always 1: which build this is.",
		ConstLabels: prometheus.Labels{"version": label(version), "go": runtime.Version()},
	})
	info.Set(1)
	t.registry.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		info,
		orgsCollector{t},
	)
	return t
}

// Handler returns what to serve at /metrics: the text format or OpenMetrics, as
// the request asks. What can't be collected is left out of the answer; the rest
// is served.
func (t *Telemetry) Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		promhttp.HandlerFor(t.gatherer(), promhttp.HandlerOpts{
			EnableOpenMetrics: true,
			ErrorHandling:     promhttp.ContinueOnError,
		}).ServeHTTP(w, r)
	})
}

// gatherer asks for the states, and returns what gathers them and all that is
// counted. Each scrape has its own, so that scrapes may overlap.
func (t *Telemetry) gatherer() prometheus.Gatherer {
	s := scrape{ready: t.ready.Load()}
	if f := t.states.Load(); f != nil && *f != nil {
		s.states = (*f)()
	}
	now := prometheus.NewRegistry()
	now.MustRegister(s)
	return prometheus.Gatherers{t.registry, now}
}

// Org returns the meters of one org, the same ones each time until it is
// forgotten. It does not allocate when it knows the name.
func (t *Telemetry) Org(name string) *Org {
	if o := (*t.orgs.Load())[name]; o != nil {
		return o
	}
	t.orgsMu.Lock()
	defer t.orgsMu.Unlock()
	known := *t.orgs.Load()
	if o := known[name]; o != nil {
		return o
	}
	o := newOrg(label(name))
	more := maps.Clone(known)
	more[name] = o
	t.orgs.Store(&more)
	return o
}

// Forget takes an org out of the metrics. Who still has its meters may go on
// using them; nobody sees it. Org begins anew with that name.
func (t *Telemetry) Forget(name string) {
	t.orgsMu.Lock()
	defer t.orgsMu.Unlock()
	fewer := maps.Clone(*t.orgs.Load())
	delete(fewer, name)
	t.orgs.Store(&fewer)
}

// Collect says whom to ask for the state of the orgs: once for each scrape, on
// the goroutine that serves it, several at once if there are several scrapes. It
// replaces the one before; nil: nobody is asked.
func (t *Telemetry) Collect(f func() []OrgState) { t.states.Store(&f) }

// Ready says whom to ask whether the gateway is ready, as /readyz does. Until
// it is called there is no headgate_ready.
func (t *Telemetry) Ready(f func() bool) { t.ready.Store(&f) }

// orgsCollector is the meters of all orgs that are there now. It describes
// nothing beforehand, because orgs come and go.
type orgsCollector struct{ t *Telemetry }

func (c orgsCollector) Describe(chan<- *prometheus.Desc) {}

func (c orgsCollector) Collect(ch chan<- prometheus.Metric) {
	for _, o := range *c.t.orgs.Load() {
		o.collect(ch)
	}
}
