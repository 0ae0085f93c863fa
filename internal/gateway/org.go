package gateway

import (
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/headgate/headgate"
	"github.com/headgate/headgate/genesys"
	"github.com/headgate/headgate/internal/config"
	"github.com/headgate/headgate/internal/deliver"
	"github.com/headgate/headgate/internal/queue"
	"github.com/headgate/headgate/internal/sqlite"
)

// org is one org: its limits, its queue, and the way to its API. It lives from
// the first file that names it to the first that does not.
type org struct {
	g    *Gateway
	name string
	log  *slog.Logger

	conf    atomic.Pointer[config.Org]
	conn    atomic.Pointer[link]
	limiter *headgate.Limiter
	pausing sync.Mutex // for the length of one change of the pause
	meter   *meter
	fields  atomic.Pointer[rateLimits]
	callers callers
	held    atomic.Int64
	// attending are those who wait for the end of an execution.
	attending atomic.Int64
	proxy     *httputil.ReverseProxy

	store      *sqlite.Store
	dispatcher *queue.Dispatcher
	coming     coming // executions on their way to the store
	hub
	post  *postman
	spent *spent

	life       context.Context // of what goes on in the background
	end        context.CancelFunc
	background sync.WaitGroup
	shift
}

// link is the way to an org's API, as one file has it.
type link struct {
	org       *genesys.Org // nil where tokens pass through
	base      *url.URL     // of the API
	login     *url.URL
	transport *headgate.Transport
	sender    *deliver.Sender
	wire      *http.Transport // nil if the gateway was given its own
	users     atomic.Int64
}

func (o *org) settings() *config.Org { return o.conf.Load() }
func (o *org) link() *link           { return o.conn.Load() }

// below returns the address of a path below base.
func below(base *url.URL, path, plain, query string) *url.URL {
	u := *base
	u.Path, u.RawPath, u.RawQuery = base.Path+plain, base.EscapedPath()+path, query
	return &u
}

// newOrg opens an org. Nothing of it is at work before start.
func (g *Gateway) newOrg(conf *config.Org) (o *org, err error) {
	o = &org{g: g, name: conf.Name, log: g.log.With("org", conf.Name), spent: newSpent(limitsOf(conf))}
	o.meter = &meter{Org: g.telemetry.Org(conf.Name)}
	o.conf.Store(conf)
	o.callers.apply(conf)
	o.life, o.end = context.WithCancel(g.background)
	if o.limiter, err = headgate.NewLimiter(headgate.LimiterConfig{Limits: limitsOf(conf), Observer: o.meter.observe}); err != nil {
		return nil, fmt.Errorf("org %s: %w", conf.Name, err)
	}
	if err := o.connect(conf); err != nil {
		return nil, fmt.Errorf("org %s: %w", conf.Name, err)
	}
	o.proxy = o.newProxy()
	o.post = newPostman(o)
	path := filepath.Join(g.config.File.Data, conf.Name+".journal")
	if o.store, err = sqlite.Open(path, sqlite.Options{Limiter: o.limiterState}); err != nil {
		if errors.Is(err, sqlite.ErrLocked) {
			return nil, fmt.Errorf("org %s: another gateway is at work in the data folder %s: %w", conf.Name, g.config.File.Data, err)
		}
		return nil, fmt.Errorf("org %s: %w", conf.Name, err)
	}
	if err := errors.Join(o.restoreLimiter(g.background), o.restorePause(g.background)); err != nil {
		o.store.Close()
		return nil, fmt.Errorf("org %s: %w", conf.Name, err)
	}
	recovered, err := queue.Recover(g.background, o.store, queue.AtLeastOnce, time.Now())
	if err != nil {
		o.store.Close()
		return nil, fmt.Errorf("org %s: %w", conf.Name, err)
	}
	if recovered != (queue.Recovered{}) {
		o.log.Info("recovered what an earlier process left", "requeued", recovered.Requeued, "sent_again", recovered.Resent, "unknown", recovered.Unknown)
	}
	o.dispatcher = &queue.Dispatcher{
		Store: o.store, Send: o.send, Concurrency: conf.Concurrency, Stay: true, Endure: true,
		Observe: o.observe, Logger: o.log,
	}
	return o, nil
}

// limitsOf returns an org's limits, with that of the login.
func limitsOf(conf *config.Org) []headgate.Limit {
	limits := conf.Limits
	if limits == nil {
		limits = genesys.Limits()
	}
	return genesys.Placed(limits, conf.APIURL, conf.LoginURL)
}

// connect makes the way to the API that conf describes.
func (o *org) connect(conf *config.Org) error {
	base, err := url.Parse(strings.TrimSuffix(conf.APIURL, "/"))
	if err != nil {
		return errors.New("api_url: can't be parsed")
	}
	login, err := url.Parse(strings.TrimSuffix(conf.LoginURL, "/"))
	if err != nil {
		return errors.New("login_url: can't be parsed")
	}
	l := &link{base: base, login: login}
	rt := o.g.config.Base
	if rt == nil {
		l.wire = newWire(conf)
		rt = l.wire
	}
	rt = o.g.tracer.Base(rt)
	if conf.PassThrough {
		l.transport = &headgate.Transport{Base: rt, Limiter: o.limiter, Org: base.Host}
	} else {
		l.org, err = genesys.Connect(genesys.Config{
			Credentials: conf.Credentials, APIURL: conf.APIURL, LoginURL: conf.LoginURL,
			Limiter: o.limiter, Base: rt, Observer: o.meter.observe, Logger: o.log,
		})
		if err != nil {
			return err
		}
		l.transport = l.org.Transport
	}
	l.transport.Read, l.transport.Observer = readAnswer, o.meter.observe
	l.transport.Leaving = o.spend
	l.sender = &deliver.Sender{
		Transport: l.transport, APIURL: strings.TrimSuffix(conf.APIURL, "/"),
		Delivery: headgate.AtLeastOnce, Timeout: conf.Timeout, Shape: o.shape,
	}
	if old := o.conn.Swap(l); old != nil {
		o.background.Go(func() {
			for old.users.Load() > 0 && sleep(o.life, time.Second) {
			}
			old.close()
		})
	}
	return nil
}

// use returns the way to the API, which stays open until unuse.
func (o *org) use() *link {
	for {
		l := o.conn.Load()
		l.users.Add(1)
		if l == o.conn.Load() {
			return l
		}
		l.users.Add(-1) // another file was read just now
	}
}

func (l *link) unuse() { l.users.Add(-1) }

func (l *link) close() {
	if l.org != nil {
		l.org.Close()
	}
	if l.wire != nil {
		l.wire.CloseIdleConnections()
	}
}

// newWire returns what makes the attempts. It keeps as many connections as may
// be in use, so that no call waits for a handshake that was made before, and
// leaves what comes as it is.
func newWire(conf *config.Org) *http.Transport {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.MaxIdleConns, t.MaxIdleConnsPerHost = 0, 1024
	t.DisableCompression = true
	t.ResponseHeaderTimeout = conf.Timeout
	t.DialContext = (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}).DialContext
	return t
}

// start sets an org to work, or back to work if it was about to leave.
func (o *org) start() {
	if o.work(o); o.started {
		return
	}
	o.started = true
	o.background.Go(func() { o.saveLimiter(o.life) })
	o.background.Go(func() { o.prune(o.life) })
	o.background.Go(func() { o.post.run(o.life) })
	o.background.Go(func() { o.keepPeakHours(o.life) })
	if !o.settings().PassThrough {
		o.background.Go(func() { o.logIn(o.life) })
	}
}

// logIn logs in before the first call needs it, and asks for the org's own
// limits unless the file says them.
func (o *org) logIn(ctx context.Context) {
	for pause := time.Second; ; pause = min(2*pause, time.Minute) {
		l := o.link()
		err := l.org.Login(ctx)
		if err == nil && o.settings().Limits == nil {
			var limits []headgate.Limit
			if limits, err = l.org.FetchLimits(ctx); err == nil {
				err = o.limiter.SetLimits(genesys.Placed(limits, o.settings().APIURL, o.settings().LoginURL))
			}
		}
		if err == nil || ctx.Err() != nil {
			return
		}
		o.log.Warn("the org's limits are not known yet: the published ones are kept to", "err", err, "again", pause)
		if !sleep(ctx, pause) {
			return
		}
	}
}

// keepPeakHours keeps the share for urgent calls during the org's peak hours.
func (o *org) keepPeakHours(ctx context.Context) {
	for {
		share, urgent, until := o.peak(time.Now())
		o.limiter.Reserve(share, urgent-defaultUrgency)
		wait := time.Minute // a file that is loaded anew may change them
		if !until.IsZero() {
			wait = max(min(wait, time.Until(until)), time.Millisecond)
		}
		if !sleep(ctx, wait) {
			return
		}
	}
}

// peak says which share of the limits is kept for which calls at that time, and
// until when that holds.
func (o *org) peak(now time.Time) (share float64, urgent int, until time.Time) {
	for _, p := range o.settings().Peaks {
		active, change := p.Hours.At(now)
		if until.IsZero() || !change.IsZero() && change.Before(until) {
			until = change
		}
		if active && p.Keep > share {
			share, urgent = p.Keep, p.Urgent
		}
	}
	return share, urgent, until
}

// apply takes over what another file says of the org.
func (o *org) apply(conf *config.Org) error {
	old := o.settings()
	if !reflect.DeepEqual(conf.Limits, old.Limits) || conf.APIURL != old.APIURL || conf.LoginURL != old.LoginURL {
		if err := o.limiter.SetLimits(limitsOf(conf)); err != nil {
			return fmt.Errorf("org %s: %w", conf.Name, err)
		}
	}
	if conf.APIURL != old.APIURL || conf.LoginURL != old.LoginURL || conf.PassThrough != old.PassThrough ||
		conf.Timeout != old.Timeout || !reflect.DeepEqual(conf.Credentials, old.Credentials) {
		if err := o.connect(conf); err != nil {
			return fmt.Errorf("org %s: %w", conf.Name, err)
		}
	}
	o.conf.Store(conf)
	o.spent.setLimits(limitsOf(conf))
	o.callers.apply(conf)
	return nil
}

// close ends an org. Its journal is closed last.
func (o *org) close() error {
	over := o.rest()
	o.end()
	<-over
	o.background.Wait()
	o.link().close()
	o.limiter.Shut() // for requests that came by an earlier file
	o.spent.nothingLeaves()
	return o.store.Close()
}

// ask is what a call asks the limiter for.
func (o *org) ask(path string, priority int) headgate.Ask {
	t := o.link().transport
	ask := headgate.Ask{Org: t.Org, Client: t.Client, Path: o.link().base.Path + path, Priority: priority}
	if t.Auth != nil {
		ask.Token = t.Auth.Name()
	}
	return ask
}

// coming counts executions on their way to the store.
type coming struct{ rows, bytes atomic.Int64 }

func (c *coming) add(rows, bytes int64) (allRows, allBytes int64) {
	return c.rows.Add(rows), c.bytes.Add(bytes)
}

// errorLog takes what the proxy says.
func (o *org) errorLog() *log.Logger { return slog.NewLogLogger(o.log.Handler(), slog.LevelDebug) }
