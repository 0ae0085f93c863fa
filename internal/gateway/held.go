package gateway

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"time"

	"github.com/headgate/headgate"
	"github.com/headgate/headgate/genesys"
	"github.com/headgate/headgate/internal/deliver"
	"github.com/headgate/headgate/internal/telemetry"
)

// held is one call that is held until it may go, and then answered.
type held struct {
	g       *Gateway
	org     *org
	link    *link // by which it goes
	caller  *caller
	wish    wish
	path    string // for the platform, as it was escaped, without the query
	plain   string // the same, unescaped
	method  string
	urgency int
	came    time.Time
	id      string // what the log calls it
	span    *telemetry.Span
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
	c.link = c.org.use()
	defer c.link.unuse()
	if admission, ok := c.admit(w, ctx, r); ok {
		c.org.proxy.ServeHTTP(w, r.WithContext(admission.Context(ctx)))
		admission.Release()
	}
	if c.later && r.Context().Err() == nil {
		c.keep(w, r)
	}
}

// admit waits for the call's turn. It stands here, and not in the proxy, because
// thousands do: they need a quarter of the stack.
func (c *held) admit(w http.ResponseWriter, ctx context.Context, r *http.Request) (*headgate.Admission, bool) {
	ask := (&http.Request{Method: r.Method, URL: below(c.base(), c.path, c.plain, "")}).WithContext(ctx)
	if c.org.settings().PassThrough {
		ask.Header = http.Header{"Authorization": r.Header["Authorization"]}
	}
	a, err := c.link.transport.Admit(ask)
	if err != nil {
		c.tries = a.Tries
		unanswered(w, ask, err)
		return nil, false
	}
	return a, true
}

// base is where the call goes.
func (c *held) base() *url.URL {
	if c.login {
		return c.link.login
	}
	return c.link.base
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
	p.Out.URL = below(c.base(), c.path, c.plain, p.In.URL.RawQuery)
	p.Out.Host = ""
	p.Out.Trailer = nil // what stands there, strip would not see
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
	stripOwn(h)
}

// stripOwn removes what only the gateway and its callers say to each other.
func stripOwn(h http.Header) {
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
	resp, tries, err := c.link.transport.Send(req)
	c.tries = tries
	return resp, err
}

// errNoPlace is why an answer of the platform is not passed on: its call had no
// place in time.
var errNoPlace = errors.New("no place in time")

// errSwitched is why another answer is not passed on: it would make of the
// connection a tunnel, which nobody has asked for.
var errSwitched = errors.New("the answer changes the protocol")

// answered adds to the platform's answer what happened to the call.
func answered(resp *http.Response) error {
	c := heldOf(resp.Request.Context())
	if resp.StatusCode == http.StatusSwitchingProtocols {
		return errSwitched
	}
	stripOwn(resp.Header)
	if resp.StatusCode == http.StatusTooManyRequests && !c.streamed {
		return errNoPlace
	}
	c.annotate(resp.Header)
	c.over(outcomeOf(resp.StatusCode), resp.StatusCode, "")
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
	broken, isBroken := errors.AsType[*bodyError](err)
	// Mostly nobody is there any more. But no answer at all would be a 200 to
	// one who has only ended its own half of the connection.
	given := !isBroken && req.Context().Err() != nil
	// A login that takes longer than the call may wait.
	late := c.tries.Sent == 0 && errors.Is(err, context.DeadlineExceeded) && time.Since(c.came) >= c.maxWait()
	var unknown *headgate.UnknownError
	var p *problem
	switch {
	case isBroken:
		p = bodyProblem(broken, fmt.Sprintf("nothing of it came for %v", bodyTime))
		c.tries.Unanswered = 0 // the platform has never had all of it
	case given && c.tries.Sent == 0:
		p = draining.problem("the call was given up before it was sent: its caller seemed to go away, or the gateway stops")
	case given:
		p = unknownOutcome.problem("the request left, and the call was given up: its caller seemed to go away, or the gateway stops")
		p.Sent = c.tries.Sent
	case errors.Is(err, headgate.ErrShut):
		p = draining.problem("the gateway stops, and the call had not been sent").retryAfter(time.Second).with("Connection", "close")
	case (isLimit || late || errors.Is(err, errNoPlace)) && c.wish.async && c.tries.Unanswered == 0:
		c.later = true
		return
	case isLimit:
		p = c.noPlace(limit.Limit, limit.Wait)
	case errors.Is(err, errNoPlace) && c.g.refusing.Load():
		p = draining.problem("the gateway stops, and the platform had refused the call").retryAfter(time.Second).with("Connection", "close")
		p.Sent = c.tries.Sent
	case errors.Is(err, errNoPlace):
		f := c.org.limiter.Forecast(c.org.ask(c.plain, c.urgency-defaultUrgency), 1)
		p = c.noPlace(f.Limit, f.Wait)
	case late:
		p = tooSoon.problem("the gateway was not logged in within the time that the call may wait: " + c.org.clean(err)).retryAfter(5 * time.Second)
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
	c.annotate(w.Header())
	outcome := "error"
	switch {
	case given:
		outcome = "cancelled"
	case p.Status == http.StatusTooManyRequests, p.Status == http.StatusServiceUnavailable:
		outcome = "refused"
	case p.Type == problemsPath+unknownOutcome.name:
		outcome = "unknown"
	}
	c.over(outcome, p.Status, "")
	p.write(w)
}

// noPlace is the refusal of a call that can't go in the time that it has.
func (c *held) noPlace(limit string, wait time.Duration) *problem {
	p := tooSoon.problem("it would have to wait for " + limit + " for " + wait.Round(time.Millisecond).String() + ", and may wait for " + c.maxWait().String())
	p.Limit, p.Sent = limit, c.tries.Sent
	return p.retryAfter(wait)
}
