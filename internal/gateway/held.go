package gateway

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httputil"
	"strings"
	"time"

	"github.com/headgate/headgate"
	"github.com/headgate/headgate/genesys"
	"github.com/headgate/headgate/internal/deliver"
)

// held is one call that is held until it may go, and then answered.
type held struct {
	g       *Gateway
	org     *org
	caller  *caller
	wish    wish
	path    string // for the platform, as it was escaped, without the query
	plain   string // the same, unescaped
	urgency int
	came    time.Time
	login   bool // it goes to the login, not to the API

	body     []byte // all of it, unless it is streamed
	streamed bool
	tries    headgate.Tries // what it took, once the transport is done with it
	later    bool           // it had no place in time, and is to be kept for later
}

type heldKey struct{}

func heldOf(ctx context.Context) *held { return ctx.Value(heldKey{}).(*held) }

// hold serves a call whose caller waits for the platform's answer.
func (c *held) hold(w http.ResponseWriter, r *http.Request) {
	call := headgate.Call{
		Priority: c.urgency - defaultUrgency,
		Caller:   c.caller.name,
		Weight:   c.caller.weight(),
		MaxWait:  c.maxWait(),
		Delivery: new(c.delivery(r.Method)),
	}
	ctx := context.WithValue(headgate.WithCall(r.Context(), call), heldKey{}, c)
	c.org.proxy.ServeHTTP(w, r.WithContext(ctx))
	if c.later && r.Context().Err() == nil {
		c.keep(w, r)
	}
}

// maxWait returns how long the call may wait, for permits and between attempts.
func (c *held) maxWait() time.Duration {
	wait := c.org.settings().MaxWait
	if c.wish.hasWait {
		wait = c.wish.wait
	}
	if !c.wish.deadline.IsZero() {
		wait = min(wait, c.wish.deadline.Sub(c.came))
	}
	return max(wait, time.Nanosecond) // 0 would be no bound
}

// delivery says what becomes of the call if it left and no answer comes: what
// its caller says, else what the file says, else at-least-once for executions
// of flows, which are built for it, and at-most-once for all others.
func (c *held) delivery(method string) headgate.Delivery {
	switch conf := c.org.settings(); {
	case c.wish.delivery != nil:
		return *c.wish.delivery
	case conf.Delivery != nil:
		return *conf.Delivery
	case method == http.MethodPost && genesys.IsExecution(c.path):
		return headgate.AtLeastOnce
	}
	return headgate.AtMostOnce
}

// newProxy returns the proxy to the org's API.
func (o *org) newProxy() *httputil.ReverseProxy {
	return &httputil.ReverseProxy{
		Rewrite:        o.rewrite,
		Transport:      heldTransport{o},
		ModifyResponse: answered,
		ErrorHandler:   unanswered,
		BufferPool:     &copyBuffers,
		ErrorLog:       o.errorLog(),
	}
}

// rewrite makes of a caller's request the platform's. Where it goes is the org's
// alone to say, and who sends it too.
func (o *org) rewrite(p *httputil.ProxyRequest) {
	c := heldOf(p.In.Context())
	base := o.link().base
	if c.login {
		base = o.link().login
	}
	p.Out.URL = below(base, c.path, c.plain, p.In.URL.RawQuery)
	p.Out.Host = ""
	strip(p.Out.Header)
	if o.settings().PassThrough {
		if bearer := p.In.Header["Authorization"]; len(bearer) > 0 {
			p.Out.Header["Authorization"] = bearer
		}
	}
}

// strip removes what is the gateway's, or between it and the caller.
func strip(h http.Header) {
	for _, name := range []string{"Authorization", "Cookie", fieldPrefer, fieldPriority, fieldKey} {
		h.Del(name)
	}
	for name := range h {
		if strings.HasPrefix(name, fieldPrefix) {
			delete(h, name)
		}
	}
}

// heldTransport is what sends the calls of an org that are held.
type heldTransport struct{ org *org }

// RoundTrip waits, sends, and sends again. What it took it notes in the call.
func (t heldTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	c := heldOf(req.Context())
	if !c.streamed && len(c.body) > 0 {
		req.ContentLength = int64(len(c.body))
		req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(c.body)), nil }
		req.Body, _ = req.GetBody()
	}
	resp, tries, err := t.org.link().transport.Send(req)
	c.tries = tries
	return resp, err
}

// errNoPlace is why an answer of the platform is not passed on: its call had no
// place in time.
var errNoPlace = errors.New("no place in time")

// answered adds to the platform's answer what happened to the call.
func answered(resp *http.Response) error {
	c := heldOf(resp.Request.Context())
	if resp.StatusCode == http.StatusTooManyRequests && !c.streamed {
		return errNoPlace
	}
	c.annotate(resp.Header)
	c.over(outcomeOf(resp.StatusCode))
	return nil
}

// outcomeOf is the outcome of a call that the platform has answered.
func outcomeOf(status int) string {
	if status >= 400 {
		return "failed"
	}
	return "done"
}

// unanswered answers in place of the platform.
func unanswered(w http.ResponseWriter, req *http.Request, err error) {
	c := heldOf(req.Context())
	limit, isLimit := errors.AsType[*headgate.LimitError](err)
	var unknown *headgate.UnknownError
	var p *problem
	switch {
	case req.Context().Err() != nil:
		c.over("cancelled")
		return // nobody is there any more
	case errors.Is(err, headgate.ErrShut):
		p = draining.problem("the gateway stops, and the call had not been sent").retryAfter(time.Second).with("Connection", "close")
	case (isLimit || errors.Is(err, errNoPlace)) && c.wish.async && c.tries.Unanswered == 0:
		c.later = true
		return
	case isLimit:
		p = c.noPlace(limit.Limit, limit.Wait)
	case errors.Is(err, errNoPlace):
		f := c.org.limiter.Forecast(c.org.ask(c.plain, c.urgency-defaultUrgency), 1)
		p = c.noPlace(f.Limit, f.Wait)
	case errors.As(err, &unknown):
		p = unknownOutcome.problem("the request left and was not answered: " + c.org.clean(unknown.Err))
		p.Sent = c.tries.Sent
	case deliver.NeverLeft(err):
		p = unreachable.problem(c.org.clean(err)).retryAfter(5 * time.Second)
	case c.tries.Sent == 0:
		p = cannotLogIn.problem(c.org.clean(err)).retryAfter(5 * time.Second)
	default:
		p = unknownOutcome.problem(c.org.clean(err))
		p.Sent = c.tries.Sent
	}
	c.over(map[int]string{429: "refused", 503: "refused"}[p.Status])
	c.annotate(w.Header())
	p.write(w)
}

// noPlace is the refusal of a call that can't go in the time that it has.
func (c *held) noPlace(limit string, wait time.Duration) *problem {
	p := tooSoon.problem("it would have to wait for " + limit + " for " + wait.Round(time.Millisecond).String() + ", and may wait for " + c.maxWait().String())
	p.Limit, p.Sent = limit, c.tries.Sent
	return p.retryAfter(wait)
}
