package genesys

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/headgate/headgate"
)

// ErrClosed is what [TokenSource.Token] returns after Close if it would have
// to log in.
var ErrClosed = errors.New("genesys: the token source is closed")

// How long a failed login is remembered, so that those who ask meanwhile do
// not all try again, and how the background's own tries are spaced.
const (
	rememberRejected = 5 * time.Second
	rememberFailed   = time.Second
	renewBase        = time.Second
	renewMax         = 5 * time.Minute
)

// TokenConfig configures a [TokenSource].
type TokenConfig struct {
	// ClientID and ClientSecret are the OAuth client. Required.
	ClientID     string
	ClientSecret Secret
	// LoginURL is the address of the login host, such as
	// https://login.mypurecloud.ie: see [Region.LoginURL]. Required.
	LoginURL string
	// Base makes the attempts. Nil is http.DefaultTransport. It must not
	// retry on its own. An attempt that takes longer than 30 s is given up.
	Base http.RoundTripper
	// Limiter hands out the permits for logins. It should know the limit
	// of [LoginLimit]. Nil: one of the source's own, which does.
	Limiter *headgate.Limiter
	// Retry says when a login is sent again. The zero value is its default.
	Retry headgate.Retry
	// Observer is told what happens to logins, as to any request. Nil:
	// nobody.
	Observer headgate.Observer
	// Logger is told about logins that succeed (debug) and fail (warn), and
	// of a LoginURL that would send the secret in the clear. Nil: nobody.
	Logger *slog.Logger
	// Org names the org for limits that count it. "" is the host of the
	// LoginURL.
	Org string
}

// TokenSource logs in with client credentials and keeps a token at hand; it is
// the Auth of a [headgate.Transport].
//
// There is one login at a time, however many callers wait for it, and the end
// of one caller's context does not disturb it. Every login takes a permit. The
// next one begins in the background, at 80 to 88 % of the token's life, and the
// old token serves until it is done; if it fails it is tried again, after 1 s
// and then with waits that double up to 5 minutes, of which each is drawn
// between half and all. A source whose token nobody has asked for since the
// last login stops renewing it, and begins again with the first who does.
//
// Refusals, a 429 or the 400 that says "rate limit exceeded", are waited out.
// Other failures are sent again as Retry says. Credentials that are rejected
// fail at once. A failure is remembered, for 5 s if the credentials were
// rejected and for 1 s otherwise: who needs a token meanwhile gets the same
// *[LoginError]. After that, the next one who needs a token tries again.
//
// A TokenSource is safe for concurrent use. It has no goroutine but while it
// logs in.
type TokenSource struct {
	config TokenConfig
	url    string
	epoch  time.Time
	ctx    context.Context // ends with Close
	close  context.CancelFunc

	current atomic.Pointer[token]

	mu       sync.Mutex // guards what is below
	limiter  *headgate.Limiter
	login    *login // the one on its way, or nil
	timer    *time.Timer
	failure  *LoginError   // the latest login's, or nil
	remember time.Duration // until when failure is everybody's answer
	failures int           // in a row
}

var _ headgate.Authorizer = (*TokenSource)(nil)

// useState says whether anybody wants a token.
type useState struct{ atomic.Int32 }

const (
	unused  = iota
	used    // since it came
	dormant // it was not when it would have been renewed
)

// NewTokenSource returns a source that has not logged in yet. An error names
// the field.
func NewTokenSource(c TokenConfig) (*TokenSource, error) {
	if c.Base == nil {
		c.Base = http.DefaultTransport
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.ClientID == "" {
		return nil, errors.New("token source: ClientID is empty")
	}
	if strings.Contains(c.ClientID, ":") {
		return nil, errors.New("token source: ClientID has a colon, which Basic authentication cannot send")
	}
	if c.ClientSecret.Reveal() == "" {
		return nil, errors.New("token source: ClientSecret is empty")
	}
	u, err := parseBase("LoginURL", c.LoginURL)
	if err != nil {
		return nil, fmt.Errorf("token source: %w", err)
	}
	if err := c.Retry.Validate(); err != nil {
		return nil, fmt.Errorf("token source: %w", err)
	}
	limiter := c.Limiter
	if limiter == nil {
		login := LoginLimit()
		login.Match = strings.TrimSuffix(u.Path, "/") + loginPath
		limiter, err = headgate.NewLimiter(headgate.LimiterConfig{Limits: []headgate.Limit{login}, Observer: c.Observer})
		if err != nil {
			return nil, fmt.Errorf("token source: %w", err)
		}
	}
	if u.Scheme == "http" && !isLoopback(u.Hostname()) {
		c.Logger.Warn("the login URL is not https: the secret is sent in the clear", "login_url", c.LoginURL)
	}
	c.Org = cmp.Or(c.Org, u.Host)
	ctx, stop := context.WithCancel(context.Background())
	return &TokenSource{
		config:  c,
		url:     strings.TrimSuffix(c.LoginURL, "/") + loginPath,
		epoch:   time.Now(),
		ctx:     ctx,
		close:   stop,
		limiter: limiter,
	}, nil
}

// parseBase reads the address that paths are appended to.
func parseBase(field, address string) (*url.URL, error) {
	u, err := url.Parse(address)
	switch {
	case address == "":
		return nil, fmt.Errorf("%s is empty", field)
	case err != nil, u.Scheme != "https" && u.Scheme != "http", u.Host == "", u.RawQuery != "", u.Fragment != "":
		return nil, fmt.Errorf("%s must be an address such as https://%s.mypurecloud.ie", field, strings.ToLower(strings.TrimSuffix(field, "URL")))
	case u.User != nil:
		return nil, fmt.Errorf("%s must not hold a user or password", field)
	}
	return u, nil
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// now is the time of the source. It goes on however the wall clock is set.
func (s *TokenSource) now() time.Duration { return time.Since(s.epoch) }

func (s *TokenSource) random() float64 { return rand.Float64() }

// String names the source, without a secret.
func (s *TokenSource) String() string {
	return "client " + s.config.ClientID + " at " + s.url
}

// Name returns the client id: limits per token count by it, whatever the token
// is at the time.
func (s *TokenSource) Name() string { return s.config.ClientID }

// Current returns the token if there is one that can still be used. It never
// waits and does not allocate.
func (s *TokenSource) Current() (value string, ok bool) {
	t := s.current.Load()
	if t == nil || s.now() >= t.until {
		return "", false
	}
	if t.use.Load() != used {
		s.use(t)
	}
	return t.value, true
}

// use notes that somebody wants t. If it is too late for renewing it at the
// usual time, it is renewed now.
func (s *TokenSource) use(t *token) {
	if t.use.Swap(used) == dormant {
		s.renew(t)
	}
}

// Token returns a token that can be used now. It waits only if there is none,
// until the one login is done that all are waiting for, or until ctx ends. The
// error is a *[LoginError], [ErrClosed], or wraps the context's.
func (s *TokenSource) Token(ctx context.Context) (string, error) {
	if value, ok := s.Current(); ok {
		return value, nil
	}
	if err := ctx.Err(); err != nil {
		return "", s.ended(err)
	}
	l, err := s.join()
	if err != nil {
		return "", err
	}
	select {
	case <-l.done:
	case <-ctx.Done():
		return "", s.ended(ctx.Err())
	}
	if l.err != nil {
		return "", l.err
	}
	s.use(l.token)
	return l.token.value, nil
}

func (s *TokenSource) ended(err error) error {
	return fmt.Errorf("waiting for client %s to log in: %w", s.config.ClientID, err)
}

// Reject says that the API answered 401 to value. If that is the token of the
// source, it is dropped, and the next who needs one logs in again: all who met
// the 401 together wait for the same login.
func (s *TokenSource) Reject(value string) {
	if t := s.current.Load(); t != nil && t.value == value {
		s.current.CompareAndSwap(t, nil)
	}
}

// Close ends the renewing, and the login on its way. A token that is at hand
// can still be used until it ends. Close may be called more than once.
func (s *TokenSource) Close() {
	s.close()
	s.mu.Lock()
	s.stopTimer()
	s.mu.Unlock()
}

// join returns the login to wait for, which may be done already.
func (s *TokenSource) join() (*login, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	if t := s.current.Load(); t != nil && now < t.until {
		l := &login{token: t, done: make(chan struct{})}
		close(l.done)
		return l, nil
	}
	switch {
	case s.ctx.Err() != nil:
		return nil, ErrClosed
	case s.login != nil:
		return s.login, nil
	case s.failure != nil && now < s.remember:
		return nil, s.failure
	}
	s.beginLocked()
	return s.login, nil
}

// renew begins a login in the background if t is still the token and somebody
// wants it.
func (s *TokenSource) renew(t *token) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.ctx.Err() != nil || s.login != nil:
	case s.current.Load() != t || s.now() >= t.until:
		// Who needs a token logs in.
	case t.use.CompareAndSwap(unused, dormant):
	default:
		s.beginLocked()
	}
}

func (s *TokenSource) beginLocked() {
	s.stopTimer()
	l := &login{source: s, done: make(chan struct{})}
	s.login = l
	go s.run(l, s.limiter)
}

func (s *TokenSource) stopTimer() {
	if s.timer != nil {
		s.timer.Stop()
	}
}

// run logs in, and plans the next login.
func (s *TokenSource) run(l *login, limiter *headgate.Limiter) {
	t, err := l.do(limiter)
	s.mu.Lock()
	now := s.now()
	s.login = nil
	failure, _ := errors.AsType[*LoginError](err)
	switch {
	case s.ctx.Err() != nil:
		if err != nil {
			l.err = ErrClosed
			break
		}
		l.token = t
		s.current.Store(t)
	case err == nil:
		s.failure, s.failures = nil, 0
		l.token = t
		s.current.Store(t)
		s.timer = time.AfterFunc(t.renew-now, func() { s.renew(t) })
	default:
		wait := rememberFailed
		if failure.Rejected {
			wait = rememberRejected
		}
		failure.NextTry = time.Now().Add(wait)
		s.failure, s.remember = failure, now+wait
		if t := s.current.Load(); t != nil && now < t.until {
			s.timer = time.AfterFunc(s.backoff(), func() { s.renew(t) })
		}
		s.failures++
		l.err = failure
	}
	s.mu.Unlock()
	s.log(l)
	close(l.done)
}

// backoff returns how long to wait before the background tries again: between
// half and all of what doubles each time.
func (s *TokenSource) backoff() time.Duration {
	d := min(renewBase<<min(s.failures, 30), renewMax)
	return d/2 + time.Duration(s.random()*float64(d/2))
}

func (s *TokenSource) log(l *login) {
	switch {
	case l.err == nil:
		s.config.Logger.Debug("logged in", "client", s.config.ClientID, "login_url", s.url,
			"took", l.received-l.sent, "usable_for", l.token.until-l.received)
	case !errors.Is(l.err, ErrClosed):
		t := s.current.Load()
		serving := t != nil && s.now() < t.until
		s.config.Logger.Warn("login failed", "client", s.config.ClientID, "err", l.err, "old_token_serves", serving)
	}
}

// useLimiter makes later logins take their permits from limiter.
func (s *TokenSource) useLimiter(limiter *headgate.Limiter) {
	s.mu.Lock()
	s.limiter = limiter
	s.mu.Unlock()
}
