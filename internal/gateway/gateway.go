// Package gateway is the daemon: one door to the API for every client, in any
// language, for many orgs. A call is held until it may go, or kept for later on
// disk; docs/gateway.md is for its operators and docs/http-api.md says what goes
// over the wire.
package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/headgate/headgate/internal/config"
	"github.com/headgate/headgate/internal/dashboard"
	"github.com/headgate/headgate/internal/keys"
	"github.com/headgate/headgate/internal/telemetry"
)

// Config says what a gateway serves.
type Config struct {
	// File is what the gateway's file says. Required.
	File *config.File
	// Version is shown on the page.
	Version string
	// Logger is told what happens; nil discards.
	Logger *slog.Logger
	// Base makes the attempts; nil is a transport for each org.
	Base http.RoundTripper
	// Env is the environment, for the variables of OpenTelemetry; nil has
	// none set.
	Env func(name string) string
}

// Gateway is a running gateway. Its ServeHTTP serves everything: the proxy, the
// login, the executions, the page, metrics and health.
type Gateway struct {
	config Config
	log    *slog.Logger
	issuer *keys.Issuer

	current     atomic.Pointer[setting]
	buffered    atomic.Int64 // bytes of bodies in memory
	refusing    atomic.Bool  // whatever waits for a permit is refused
	telemetry   *telemetry.Telemetry
	metricsHTTP http.Handler
	tracer      *telemetry.Tracer
	flush       func(context.Context) error // of the traces
	page        *dashboard.Page
	pageHTTP    http.Handler
	callbacks   *callbacks
	crossOrigin *http.CrossOriginProtection

	reloading  sync.Mutex // one reload at a time
	background context.Context
	end        context.CancelFunc
	running    sync.WaitGroup
	leavingMu  sync.Mutex
	leaving    map[string]*org // those that no file names any more
	draining   chan struct{}   // closed when the gateway stops
	stopOnce   sync.Once
	// Contexts apart: of taking work from the queues, and of doing it.
	take, do         context.Context
	stopTake, stopDo context.CancelFunc
}

// Open starts a gateway: journals are opened, what a crash left in them is
// recovered, and the queues are at work when it returns. It listens to nothing:
// serve it with an http.Server, or with [Serve].
func Open(c Config) (*Gateway, error) {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	g := &Gateway{
		config: c, log: c.Logger, draining: make(chan struct{}), leaving: map[string]*org{},
		telemetry: telemetry.New(c.Version), crossOrigin: http.NewCrossOriginProtection(),
	}
	if c.Env == nil {
		c.Env = func(string) string { return "" }
	}
	tracer, flush, err := telemetry.Tracing(context.Background(), c.Version, c.Env)
	if err != nil {
		return nil, err
	}
	tracer.LogTo(c.Logger)
	g.tracer, g.flush = tracer, flush
	g.metricsHTTP = g.telemetry.Handler()
	g.telemetry.Ready(func() bool { return !g.isDraining() })
	g.callbacks = newCallbacks(g)
	secret, err := keys.LoadSecret(filepath.Join(c.File.Data, "gateway.secret"))
	if err != nil {
		return nil, err
	}
	g.issuer = keys.NewIssuer(secret)
	g.background, g.end = context.WithCancel(context.Background())
	g.take, g.stopTake = context.WithCancel(context.Background())
	g.do, g.stopDo = context.WithCancel(context.Background())
	s, err := g.newSetting(c.File, nil)
	if err != nil {
		g.Close()
		return nil, err
	}
	g.current.Store(s)
	for _, o := range s.orgs {
		o.start()
	}
	g.telemetry.Collect(g.states)
	if g.page, err = dashboard.New(dashboard.Config{Source: source{g}, Prefix: strings.TrimSuffix(pagePrefix, "/"), Logger: c.Logger}); err != nil {
		g.Close()
		return nil, err
	}
	g.pageHTTP = g.page.Handler()
	// Its streams end first, or they would hold up the end of the server.
	watched, unwatch := context.WithCancel(g.background)
	context.AfterFunc(g.take, unwatch)
	g.running.Go(func() { g.page.Run(watched) })
	return g, nil
}

func (g *Gateway) setting() *setting  { return g.current.Load() }
func (g *Gateway) file() *config.File { return g.setting().file }

func (g *Gateway) isDraining() bool {
	select {
	case <-g.draining:
		return true
	default:
		return false
	}
}

// Reload takes over another file. Calls that are held go on and keep their
// place; what can't be changed while it runs (listen, data, tls) is an error,
// and then nothing was changed.
func (g *Gateway) Reload(f *config.File) error {
	g.reloading.Lock()
	defer g.reloading.Unlock()
	old := g.setting()
	if f.Data != old.file.Data || !slices.Equal(f.Listen, old.file.Listen) {
		return errors.New("listen and data can't be changed while the gateway runs: restart it")
	}
	s, err := g.newSetting(f, old)
	if err != nil {
		return err
	}
	g.current.Store(s)
	for _, o := range s.orgs {
		if old.org(o.name) == nil {
			o.start()
		}
	}
	for _, o := range old.orgs {
		if s.org(o.name) == nil {
			g.retire(o)
		}
	}
	return nil
}

// retire ends an org that the file does not name any more: what is held for it
// goes on, what is queued stays on disk.
func (g *Gateway) retire(o *org) {
	o.gone = make(chan struct{})
	g.leavingMu.Lock()
	g.leaving[o.name] = o
	g.leavingMu.Unlock()
	g.running.Go(func() {
		if !o.leave() {
			return
		}
		if err := o.close(); err != nil {
			g.log.Warn("closing an org", "org", o.name, "err", err)
		}
		g.telemetry.Forget(o.name)
		close(o.gone)
	})
}

// back returns an org that is about to leave, if there is one with that name and
// it can stay. If it can't, it has gone when back returns.
func (g *Gateway) back(name string) *org {
	g.leavingMu.Lock()
	o := g.leaving[name]
	delete(g.leaving, name)
	g.leavingMu.Unlock()
	if o == nil || o.stay() {
		return o
	}
	<-o.gone
	return nil
}

// everyOrg returns the orgs that the file names, and those that are about to leave.
func (g *Gateway) everyOrg() []*org {
	g.leavingMu.Lock()
	defer g.leavingMu.Unlock()
	return slices.AppendSeq(slices.Clone(g.setting().orgs), maps.Values(g.leaving))
}

// Drain stops the taking of new work, and returns when nothing is on the wire any
// more or ctx ends. Calls that are held and have not been sent are let go on
// until then, and refused at its end; what is queued stays on disk.
func (g *Gateway) Drain(ctx context.Context) {
	g.stopOnce.Do(func() { close(g.draining) })
	g.stopTake()
	idle := make(chan struct{})
	go func() {
		defer close(idle)
		for _, o := range g.everyOrg() {
			<-o.rest()
		}
	}()
	select {
	case <-idle:
	case <-ctx.Done():
	}
}

// Refuse refuses the calls that are held and have not been sent.
func (g *Gateway) Refuse() {
	g.refusing.Store(true)
	for _, o := range g.everyOrg() {
		o.limiter.Shut()
	}
}

// Close ends the gateway. Call Drain first: what is on the wire is given up.
func (g *Gateway) Close() error {
	g.stopOnce.Do(func() { close(g.draining) })
	g.stopTake()
	g.stopDo()
	g.end()
	var errs []error
	if s := g.setting(); s != nil {
		for _, o := range s.orgs {
			errs = append(errs, o.close())
		}
	}
	g.running.Wait()
	moment, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := g.flush(moment); err != nil {
		g.log.Warn("traces were not sent", "err", err)
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("closing the gateway: %w", err)
	}
	return nil
}

const (
	ownPrefix  = "/headgate/"
	pagePrefix = "/headgate/"
	apiV1      = "/headgate/v1/"
)

// ServeHTTP serves whatever comes.
func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set(fieldCorrelation, telemetry.CorrelationID(r))
	if r.ContentLength != 0 {
		// Also for a body that nobody reads: the server waits for its end.
		http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyTime))
	}
	if p := checkTarget(r); p != nil {
		p.write(w)
		return
	}
	path := r.URL.Path
	switch {
	case strings.HasPrefix(path, ownPrefix):
		g.serveOwn(w, r, path)
	case path == "/":
		http.Redirect(w, r, pagePrefix, http.StatusFound)
	case path == "/healthz":
		g.healthz(w, r)
	case path == "/readyz":
		g.readyz(w, r)
	case path == "/metrics":
		g.serveMetrics(w, r)
	default:
		g.serveOrg(w, r)
	}
}

// serveOrg serves what goes to an org: its login, and its API.
func (g *Gateway) serveOrg(w http.ResponseWriter, r *http.Request) {
	s := g.setting()
	to := s.route(r)
	if to.target == toLogin {
		g.logIn(w, r, s, to)
		return
	}
	who, p := g.identify(r, s, to.org)
	if p == nil && to.target == nowhere {
		p = notFound.problem("calls to the platform are below /api/, or below /ORG/api/")
	}
	if p != nil {
		p.write(w)
		return
	}
	wish, err := parseWish(r.Header, time.Now())
	if err != nil {
		badRequest.problem(err.Error()).write(w)
		return
	}
	if wish.callback != "" {
		if p := g.callbacks.check(wish.callback); p != nil {
			p.write(w)
			return
		}
	}
	g.serveCall(w, r, &held{
		g: g, org: who.org, caller: who.caller, wish: wish, came: time.Now(), id: w.Header().Get(fieldCorrelation),
		method: r.Method, path: to.path, plain: plainPath(r, to.path),
		urgency: who.caller.urgencyOf(wish.urgency),
	})
}

// serveCall holds a call, or keeps it for later.
func (g *Gateway) serveCall(w http.ResponseWriter, r *http.Request, c *held) {
	ctx, span := g.tracer.Call(r)
	if span != nil {
		r = r.WithContext(ctx)
	}
	c.span = span
	leave, p := c.enter()
	if p != nil {
		c.refuse(w, p)
		return
	}
	defer leave()
	release, p := c.takeBody(w, r)
	if p != nil {
		c.refuse(w, p)
		return
	}
	defer release()
	if c.wish.key != "" || c.wish.async && !(c.wish.hasWait && c.wish.wait > 0) {
		c.keep(w, r)
		return
	}
	c.hold(w, r)
}

// enter takes a place among the calls that are held. leave gives it back.
func (c *held) enter() (leave func(), p *problem) {
	most, own := c.org.settings().Bounds.Held, c.caller.conf.Load().Held
	all, mine := c.org.held.Add(1), c.caller.held.Add(1)
	leave = func() {
		c.org.held.Add(-1)
		c.caller.held.Add(-1)
	}
	switch {
	case c.g.refusing.Load():
		p = draining.problem("the gateway stops").retryAfter(time.Second).with("Connection", "close")
		p.counts = "draining"
	case all > int64(most):
		p = overBound.problem("as many calls are held as may be (bounds.held)")
		p.counts = "held"
	case mine > int64(own):
		p = overBound.problem("this caller has as many calls held as it may (held)")
		p.counts = "held"
	default:
		return leave, nil
	}
	leave()
	return nil, p.retryAfter(c.org.drainTime())
}
