// Package dashboard is the page that the gateway serves: for each org the
// level of every limit's bucket against what was sent, accepted and rejected,
// who calls, what waits and why, and the executions of which nobody knows
// whether they were executed, with buttons that resolve them.
//
// It renders a [View] and knows nothing of the gateway. One goroutine
// ([Page.Run]) asks a [Source] for the view once a second and keeps what the
// plots need of the last minutes; browsers get that, and then each view, by
// server-sent events.
//
// Who may look and who may act is decided in front of [Page.Handler]: it asks
// for no key. What it does for itself is in handler.go.
package dashboard

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"
)

// Config says what a [Page] shows and where.
type Config struct {
	// Source is what it shows; required.
	Source Source
	// Prefix is the path under which the handler stands, such as
	// "/headgate": it begins with a slash and does not end with one. "" is
	// the root.
	Prefix string
	// Interval is the time between two views; 0 means 1 s.
	Interval time.Duration
	// Keep is how far back the plots go; 0 means 10 min. A limit takes 16
	// bytes for each view.
	Keep time.Duration
	// Clients is how many browsers may look at once, others are told to come
	// back later; 0 means 64.
	Clients int
	// Logger is told of changes and of what fails; nil discards.
	Logger *slog.Logger
}

// Page is the page. Make it with [New]; it is safe for concurrent use.
type Page struct {
	cfg    Config
	assets map[string]asset

	mu      sync.Mutex // guards what follows; nothing waits with it held
	state   runState
	ready   chan struct{} // closed with the first view, or without one when Run ends
	at      time.Time     // of view; without a monotonic reading, for browsers see the wall clock
	view    View
	history *history
	streams map[*stream]struct{}
}

type runState int

const (
	notRunning runState = iota
	running
	stopped
)

// New returns a page that shows nothing until [Page.Run] runs.
func New(cfg Config) (*Page, error) {
	cfg.Interval = cmp.Or(cfg.Interval, time.Second)
	cfg.Keep = cmp.Or(cfg.Keep, 10*time.Minute)
	cfg.Clients = cmp.Or(cfg.Clients, 64)
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	switch {
	case cfg.Source == nil:
		return nil, errors.New("dashboard: Source must be set")
	case cfg.Prefix != "" && (!strings.HasPrefix(cfg.Prefix, "/") || strings.HasSuffix(cfg.Prefix, "/") || strings.ContainsAny(cfg.Prefix, "{} ")):
		return nil, fmt.Errorf("dashboard: Prefix %q must begin with a slash and not end with one, and have no brace or space", cfg.Prefix)
	case cfg.Interval < 10*time.Millisecond:
		return nil, fmt.Errorf("dashboard: Interval must be 10ms or more, is %v", cfg.Interval)
	case cfg.Keep < cfg.Interval || cfg.Keep/cfg.Interval > 100_000:
		return nil, fmt.Errorf("dashboard: Keep must be from one Interval to 100,000 of them, is %v", cfg.Keep)
	case cfg.Clients < 0:
		return nil, errors.New("dashboard: Clients must not be negative")
	}
	return &Page{
		cfg:     cfg,
		assets:  loadAssets(),
		ready:   make(chan struct{}),
		history: newHistory(int(cfg.Keep/cfg.Interval) + 1),
		streams: map[*stream]struct{}{},
	}, nil
}

// Run takes a view each interval, keeps what the plots need and hands it to
// the browsers that look. It returns nil when ctx ends; the browsers'
// connections are then told to end, so that an [http.Server] can shut down:
// end ctx before you call Shutdown. A page runs once.
func (p *Page) Run(ctx context.Context) error {
	p.mu.Lock()
	if p.state != notRunning {
		p.mu.Unlock()
		return errors.New("dashboard: Run was called before")
	}
	p.state = running
	p.mu.Unlock()
	defer p.stop()

	ticker := time.NewTicker(p.cfg.Interval)
	defer ticker.Stop()
	for {
		p.take(p.cfg.Source.View(ctx))
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// take makes v what is shown.
func (p *Page) take(v View) {
	at := v.At
	if at.IsZero() {
		at = time.Now()
	}
	at = at.Round(0).Truncate(time.Millisecond)
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case at.Equal(p.at):
		return // nothing new
	case at.Before(p.at):
		// The clock was put back. A plot can't go back, so it begins again.
		p.history = newHistory(p.history.keep)
		p.dropAllLocked()
	}
	p.at, p.view = at, v
	p.history.add(at, first(v.Orgs, maxOrgs))
	select {
	case <-p.ready:
	default:
		close(p.ready)
	}
	p.publishLocked()
}

func (p *Page) stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.state = stopped
	p.dropAllLocked()
	select {
	case <-p.ready:
	default:
		close(p.ready)
	}
}

// findLocked returns the org of that name in the view, or nil.
func (p *Page) findLocked(name string) *Org {
	orgs := first(p.view.Orgs, maxOrgs)
	for i := range orgs {
		if orgs[i].Name == name {
			return &orgs[i]
		}
	}
	return nil
}
