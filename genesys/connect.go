package genesys

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/headgate/headgate"
)

// Config says how to reach an org. Credentials with a Region are all that it
// needs.
type Config struct {
	// Credentials are the OAuth client: see [CredentialsFromEnv]. Required.
	Credentials Credentials
	// Region is where the org lives, in any form that [LookupRegion] knows.
	// "" is Credentials.Region.
	Region string
	// APIURL and LoginURL replace those of the region, for a gateway or an
	// emulator. With both, no region is needed.
	APIURL, LoginURL string

	// Limits are the org's limits. Nil is [Limits], the published defaults;
	// [Org.WithOwnLimits] asks the API. If none of them is named "login",
	// [LoginLimit] is added. Where APIURL or LoginURL has a path, those of
	// the limits follow it.
	Limits []headgate.Limit
	// Learn and Ceiling are those of the limits that are published or the
	// org's own; Limits say it for themselves.
	Learn   headgate.Learning
	Ceiling float64
	// Limiter hands out the permits, for several connections that draw on
	// the same limits. Limits must be empty then, and what Limits says of
	// logins and paths is the caller's. Nil: one of the connection's own.
	Limiter *headgate.Limiter
	// Retry says when to send again. The zero value is its default.
	Retry headgate.Retry
	// AtMostOnce keeps a flow execution that left and was not answered from
	// being sent again: it may be lost, never doubled. The default sends it
	// again: it may be doubled, never lost. Other POSTs, through
	// [Org.Client], are never sent again in such a case.
	AtMostOnce bool

	// Base makes the attempts. Nil is http.DefaultTransport.
	Base http.RoundTripper
	// Org names the org for limits that count it. "" is the host of the
	// API.
	Org string
	// Observer is told what happens. Nil: nobody.
	Observer headgate.Observer
	// Logger is told about logins. Nil: nobody.
	Logger *slog.Logger
}

// Org is a connection to one org, by one OAuth client. Its parts share one
// limiter and one token. It is safe for concurrent use; its fields must not be
// changed.
type Org struct {
	// APIURL is the address of the API, without a slash at its end.
	APIURL string
	// Transport sends any request to the API. It is careful: a POST that
	// left and was not answered is not sent again.
	Transport *headgate.Transport
	// Limiter hands out the permits.
	Limiter *headgate.Limiter
	// Tokens logs in.
	Tokens *TokenSource

	config   Config
	apiHost  string // scheme://host
	loginURL string
	flows    *Flows
}

// Connect puts together what it takes to speak to an org. It sends nothing: the
// login comes with the first call, or with [Org.Login]. An error names the
// field that is wrong, or is a *[RegionError].
func Connect(c Config) (*Org, error) {
	o := &Org{APIURL: strings.TrimSuffix(c.APIURL, "/"), loginURL: strings.TrimSuffix(c.LoginURL, "/"), config: c}
	if o.APIURL == "" || o.loginURL == "" {
		region, err := LookupRegion(cmp.Or(c.Region, c.Credentials.Region))
		if err != nil {
			return nil, err
		}
		o.APIURL = cmp.Or(o.APIURL, region.APIURL())
		o.loginURL = cmp.Or(o.loginURL, region.LoginURL())
	}
	api, err := parseBase("APIURL", o.APIURL)
	if err != nil {
		return nil, err
	}
	if _, err := parseBase("LoginURL", o.loginURL); err != nil {
		return nil, err
	}
	o.apiHost = api.Scheme + "://" + api.Host
	o.config.Org = cmp.Or(c.Org, api.Host)
	o.Limiter = c.Limiter
	switch {
	case c.Limiter == nil:
		if o.Limiter, err = o.newLimiter(c.Limits); err != nil {
			return nil, err
		}
	case len(c.Limits) > 0:
		return nil, errors.New("Limits and Limiter are both set: give the limits to headgate.NewLimiter")
	}
	o.Tokens, err = NewTokenSource(TokenConfig{
		ClientID:     c.Credentials.ClientID,
		ClientSecret: c.Credentials.ClientSecret,
		LoginURL:     o.loginURL,
		Base:         c.Base,
		Limiter:      o.Limiter,
		Retry:        c.Retry,
		Observer:     c.Observer,
		Logger:       c.Logger,
		Org:          o.config.Org,
	})
	if err != nil {
		return nil, err
	}
	o.build()
	return o, nil
}

// newLimiter makes the limiter for limits, or for the published ones.
func (o *Org) newLimiter(limits []headgate.Limit) (*headgate.Limiter, error) {
	if limits == nil {
		limits = o.learning(Limits())
	}
	limits = Placed(limits, o.APIURL, o.loginURL)
	return headgate.NewLimiter(headgate.LimiterConfig{Limits: limits, Observer: o.config.Observer})
}

// Placed returns limits for a limiter that is given to [Config.Limiter]: with
// [LoginLimit], unless one of them is named "login", and following the path of
// each address, if it has one.
func Placed(limits []headgate.Limit, apiURL, loginURL string) []headgate.Limit {
	limits = slices.Clone(limits)
	if !slices.ContainsFunc(limits, func(l headgate.Limit) bool { return l.Name == LimitLogin }) {
		limits = append(limits, LoginLimit())
	}
	for i, l := range limits {
		switch {
		case strings.HasPrefix(l.Match, apiMatch):
			limits[i].Match = pathOf(apiURL) + l.Match
		case l.Match == loginMatch:
			limits[i].Match = pathOf(loginURL) + l.Match
		}
	}
	return limits
}

// learning makes published limits, or the org's own, learn as Config says. One that
// does not learn is spread evenly: nobody would find out that it is no window.
func (o *Org) learning(limits []headgate.Limit) []headgate.Limit {
	for i := range limits {
		l := &limits[i]
		if l.Name == LimitLogin {
			continue
		}
		if l.Learn, l.Ceiling = o.config.Learn, o.config.Ceiling; l.Learn == headgate.LearnOff && l.Max > 0 {
			l.Rate, l.Burst = headgate.Even(float64(l.Max), l.Window)
			l.Max, l.Window = 0, 0
		}
	}
	return limits
}

// pathOf returns the path of an address, "" of one that is none.
func pathOf(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	return strings.TrimSuffix(u.Path, "/")
}

// build makes the transports.
func (o *Org) build() {
	delivery := headgate.AtLeastOnce
	if o.config.AtMostOnce {
		delivery = headgate.AtMostOnce
	}
	o.Transport = o.transport(headgate.AtMostOnce)
	o.flows = &Flows{Transport: o.transport(delivery), APIURL: o.APIURL}
}

func (o *Org) transport(delivery headgate.Delivery) *headgate.Transport {
	return &headgate.Transport{
		Base:     o.config.Base,
		Limiter:  o.Limiter,
		Retry:    o.config.Retry,
		Delivery: delivery,
		Auth:     o.Tokens,
		Org:      o.config.Org,
		Client:   o.config.Credentials.ClientID,
		Read:     ReadAnswer,
		Observer: o.config.Observer,
	}
}

// Flows executes flows.
func (o *Org) Flows() *Flows { return o.flows }

// Client returns an HTTP client for the rest of the API: its requests are
// paced, sent with a token, and sent again where that is safe. It refuses to
// send the token to another host than the API's and follows no redirects. Set
// no Timeout on it, which would count the waiting: use contexts.
func (o *Org) Client() *http.Client {
	return &http.Client{
		Transport:     apiOnly{o},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// apiOnly is the transport of an org for requests to its API and no others.
type apiOnly struct{ org *Org }

func (a apiOnly) RoundTrip(req *http.Request) (*http.Response, error) {
	if address := req.URL.Scheme + "://" + req.URL.Host; address != a.org.apiHost {
		if req.Body != nil {
			req.Body.Close()
		}
		return nil, fmt.Errorf("not sent: %s is not the API, and the token is for nobody else", address)
	}
	return a.org.Transport.RoundTrip(req)
}

// Login logs in unless there is a token, to find out at once whether the
// credentials are good. The error is that of [TokenSource.Token].
func (o *Org) Login(ctx context.Context) error {
	_, err := o.Tokens.Token(ctx)
	return err
}

// FetchLimits asks for the org's own limits: see the function of that name.
func (o *Org) FetchLimits(ctx context.Context) ([]headgate.Limit, error) {
	return FetchLimits(ctx, o.Transport, o.APIURL)
}

// WithOwnLimits asks for the org's own limits and returns a connection that
// keeps to them, with the same token. It takes over what the limiter knows; use
// it before anything else is sent, and o no more. If the question fails, or if
// the limiter is not the connection's own (Config.Limiter), it returns o beside
// the error: the connection is usable, with the limits it had.
func (o *Org) WithOwnLimits(ctx context.Context) (*Org, error) {
	if o.config.Limiter != nil {
		return o, errors.New("the Limiter is the caller's: make one of what FetchLimits returns")
	}
	limits, err := o.FetchLimits(ctx)
	if err != nil {
		return o, err
	}
	own := &Org{APIURL: o.APIURL, Tokens: o.Tokens, config: o.config, apiHost: o.apiHost, loginURL: o.loginURL}
	if own.Limiter, err = own.newLimiter(o.learning(limits)); err != nil {
		return o, fmt.Errorf("using the org's limits: %w", err)
	}
	own.Limiter.Restore(o.Limiter.Snapshot())
	own.Tokens.useLimiter(own.Limiter)
	own.build()
	return own, nil
}

// Close ends what goes on in the background: see [TokenSource.Close].
func (o *Org) Close() { o.Tokens.Close() }
