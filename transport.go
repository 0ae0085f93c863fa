package headgate

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

// Authorizer supplies the token that requests are sent with. Its methods are
// safe for concurrent use.
type Authorizer interface {
	// Name names the credential, not the token: limits per token count by
	// it. It never changes.
	Name() string
	// Token returns a token that is good for a request that leaves now,
	// logging in first if need be. An error says that no request can be
	// sent.
	Token(ctx context.Context) (string, error)
	// Current returns the token if one is at hand, without waiting.
	Current() (token string, ok bool)
	// Reject says that the server answered 401 to token. If that is the
	// current one, the next call of Token logs in again.
	Reject(token string)
}

// Transport is an [http.RoundTripper] that paces requests in front of a limit,
// waits out what the server asks for, and sends again what surely was not
// executed, and nothing else unless it is told to:
//
//	client := &http.Client{Transport: &headgate.Transport{
//		Limits: []headgate.Limit{{Name: "api", Rate: 50, Burst: 100}},
//	}}
//
// Every attempt takes a permit from the Limiter: first tries, retries and
// polls. A request waits in RoundTrip until it may go; its context, and
// Retry.MaxWait, bound that. Use no http.Client.Timeout with a Transport: it
// would count the waiting.
//
// When it gives up, RoundTrip returns the last response as it came, or an
// error that wraps the cause: a *[LimitError] if there was no permit in time,
// an *[UnknownError] if the request left and no answer came.
//
// A request with a body is sent again only if its GetBody is set, as
// http.NewRequest does for a bytes.Reader, bytes.Buffer and strings.Reader.
//
// The fields must not be changed after the first use. A Transport is safe for
// concurrent use; make one for each credential and share the Limiter.
type Transport struct {
	// Base makes the attempts. Nil is http.DefaultTransport. It must not
	// retry and not pace on its own.
	Base http.RoundTripper
	// Limiter hands out the permits. Nil: one of the transport's own, with
	// Limits.
	Limiter *Limiter
	// Limits are those of the own Limiter; they must be empty if Limiter
	// is set. With neither, nothing is paced until the server refuses.
	Limits []Limit
	// Retry says when to send again. The zero value is the default.
	Retry Retry
	// Delivery says what becomes of requests that may have been executed.
	// The zero value, AtMostOnce, never doubles one.
	Delivery Delivery
	// Auth supplies the Authorization header. Nil: requests are sent with
	// the one that they have.
	Auth Authorizer
	// Org and Client say whose requests these are, for limits that count
	// these. Org is the host of the URL if empty.
	Org, Client string
	// Leaving is called before each attempt, with the permit in hand, and may
	// wait: whether the gate is still open is asked after it. Nil: nothing
	// is.
	Leaving func()
	// Read reads an answer. Nil is ReadAnswer. It may call Peek.
	Read func(*http.Response) Observation
	// Observer is told what happens. Nil: nobody. The own Limiter has the
	// same one.
	Observer Observer

	once    sync.Once
	limiter *Limiter
	invalid error
	bearers sync.Map // Authorization header → its name in an Ask
	named   int      // how many entries bearers has; guarded by namedMu
	namedMu sync.Mutex
}

// Call changes for one request what the Transport says for all. Attach it with
// [WithCall].
type Call struct {
	// Priority is the place in line: see Ask.Priority.
	Priority int
	// Caller is on whose behalf the request is made, and Weight how large
	// its share is beside that of others who wait: see Ask.Caller and
	// Ask.Weight.
	Caller string
	Weight float64
	// MaxWait replaces Retry.MaxWait, if above 0.
	MaxWait time.Duration
	// Delivery replaces Transport.Delivery, if not nil.
	Delivery *Delivery
}

type callKey struct{}

// WithCall returns a context whose requests are made as c says.
func WithCall(ctx context.Context, c Call) context.Context {
	return context.WithValue(ctx, callKey{}, &c)
}

// CallOf returns what WithCall attached to ctx; the zero Call if nothing.
func CallOf(ctx context.Context) Call { return *callOf(ctx) }

var noCall Call

func callOf(ctx context.Context) *Call {
	if c, ok := ctx.Value(callKey{}).(*Call); ok {
		return c
	}
	return &noCall
}

// setUp fills what is left out, once.
func (t *Transport) setUp() error {
	t.once.Do(func() {
		t.limiter = t.Limiter
		t.invalid = t.Retry.Validate()
		if t.invalid != nil {
			return
		}
		if t.limiter == nil {
			t.limiter, t.invalid = NewLimiter(LimiterConfig{Limits: t.Limits, Observer: t.Observer})
		} else if len(t.Limits) > 0 {
			t.invalid = errors.New("transport: Limits and Limiter are both set: give the limits to NewLimiter")
		}
	})
	return t.invalid
}

// RoundTrip sends the request as often as it takes. See [Transport].
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, _, err := t.Send(req)
	return resp, err
}

// Send is RoundTrip, and says what it took.
func (t *Transport) Send(req *http.Request) (*http.Response, Tries, error) {
	var tries Tries
	var last Result
	start := time.Now()
	if a := admissionOf(req.Context()); a != nil {
		tries, start = a.Tries, a.start
	}
	for {
		r := t.attempt(req, &tries, start, nil)
		switch {
		case r.Verdict.Action == Unsent && last.answered():
			// What could not be waited out is handed back as it came,
			// unless the server asks for more than anyone waits.
			limit, ok := errors.AsType[*LimitError](r.Err)
			if !ok || limit.RetryAfter > t.maxRetryAfter() {
				last.drop()
				last = r
			}
			return t.gaveUp(req, last, &tries)
		case r.Verdict.Action != Again:
			last.drop()
			if r.Verdict.Action == Return && r.Err == nil {
				return r.Response, tries, nil
			}
			return t.gaveUp(req, r, &tries)
		}
		last.drop()
		last = r
		if !rewindable(req) || !t.pause(req, r, &tries, start) {
			return t.gaveUp(req, last, &tries)
		}
		t.Observer.emit(Event{Kind: Retried, Attempt: tries.Sent, Method: req.Method, Path: req.URL.Path, Wait: r.Verdict.After, Status: r.Observation.Status, Err: r.Err})
	}
}

func (t *Transport) maxRetryAfter() time.Duration { return t.Retry.filled().MaxRetryAfter }

// gaveUp returns the last result as RoundTrip does.
func (t *Transport) gaveUp(req *http.Request, r Result, tries *Tries) (*http.Response, Tries, error) {
	t.Observer.emit(Event{Kind: GaveUp, Attempt: tries.Sent, Method: req.Method, Path: req.URL.Path, Status: r.Observation.Status, Err: r.Err})
	if tries.Unanswered > 0 {
		switch {
		case r.Err != nil:
			return nil, *tries, &UnknownError{Unanswered: tries.Unanswered, Err: r.Err}
		case r.Observation.Refused:
			// The last attempt was surely not executed; another may
			// have been.
			r.drop()
			return nil, *tries, &UnknownError{Unanswered: tries.Unanswered, Err: fmt.Errorf("an attempt was not answered, and the last one was refused with status %d", r.Observation.Status)}
		}
	}
	return r.Response, *tries, r.Err
}

// pause waits before a retry and reports whether there is time for it.
func (t *Transport) pause(req *http.Request, r Result, tries *Tries, start time.Time) bool {
	after := r.Verdict.After
	if after == 0 {
		return req.Context().Err() == nil
	}
	due := time.Now().Add(after)
	if until := t.until(callOf(req.Context()), start); !until.IsZero() && due.After(until) {
		return false
	}
	if deadline, ok := req.Context().Deadline(); ok && due.After(deadline) {
		return false
	}
	timer := time.NewTimer(after)
	defer timer.Stop()
	select {
	case <-timer.C:
		tries.waited(WaitBackoff, after)
		return true
	case <-req.Context().Done():
		return false
	}
}

// until returns when the waiting of a call has to be over; zero: any time.
func (t *Transport) until(c *Call, start time.Time) time.Time {
	wait := t.Retry.MaxWait
	if c.MaxWait > 0 {
		wait = c.MaxWait
	}
	if wait == 0 {
		return time.Time{}
	}
	return start.Add(wait)
}

// Result is what came of one attempt.
type Result struct {
	// Response is the answer, whose body the caller closes; nil if Err is
	// set.
	Response *http.Response
	// Err says why there is none: a *[LimitError] or the Authorizer's error
	// if Verdict.Action is Unsent, else the Base's.
	Err error
	// Verdict says what to do now.
	Verdict Verdict
	// Observation is what the limiter was told.
	Observation Observation
}

func (r *Result) answered() bool { return r.Response != nil || r.Err != nil }

// drop closes a response that nobody will get. What a server sends with a
// refusal is short and was read already, so that the connection is kept.
func (r *Result) drop() {
	if r.Response != nil {
		r.Response.Body.Close()
	}
}

// Attempt makes one attempt and no more, for callers that keep the state of
// their calls elsewhere, such as a durable queue: tries is what happened
// before and is brought up to date. Before the request leaves, with the
// permit in hand, leave is called if it is not nil; if it fails, nothing is
// sent and its error is returned with the verdict Unsent.
//
// Retry.MaxWait counts from this call. The waits between attempts are the
// caller's: for a refusal, ask again at once; the gate makes it wait.
func (t *Transport) Attempt(req *http.Request, tries *Tries, leave func() error) Result {
	if tries.Sent > 0 && req.GetBody != nil && req.Body != nil {
		req.Body.Close() // GetBody's is sent
	}
	return t.attempt(req, tries, time.Now(), leave)
}

func (t *Transport) attempt(req *http.Request, tries *Tries, start time.Time, leave func() error) Result {
	permit, token, out, err := t.clear(req, tries, start, leave)
	if err != nil {
		return unsent(req, err)
	}
	tries.Sent++
	var left time.Time
	if t.Observer != nil {
		left = time.Now()
		t.Observer(Event{Kind: Sent, Attempt: tries.Sent, Method: req.Method, Path: req.URL.Path})
	}
	w, ctx := watch(out.Context(), permit)
	resp, err := t.base().RoundTrip(out.WithContext(ctx))
	r := t.judge(req, resp, err, w.neverConnected(), tries)
	w.release()
	permit.Done(r.Observation)
	if r.Observation.Status == http.StatusUnauthorized && t.Auth != nil {
		t.Auth.Reject(token)
	}
	if t.Observer != nil {
		t.Observer(Event{Kind: Answered, Attempt: tries.Sent, Method: req.Method, Path: req.URL.Path, Wait: time.Since(left), Status: r.Observation.Status, Err: err})
	}
	return r
}

// clear brings an attempt to the point at which it may leave: with its token,
// its permit, and what leave does done. If the gate closes while leave is at
// work, it waits for another permit.
func (t *Transport) clear(req *http.Request, tries *Tries, start time.Time, leave func() error) (permit Permit, token string, out *http.Request, err error) {
	for {
		if permit, token, err = t.first(req, tries, start); err != nil {
			return Permit{}, "", nil, err
		}
		if out, err = t.outgoing(req, tries, token); err == nil && leave != nil {
			err = leave()
			leave = nil
		}
		if err == nil && t.Leaving != nil {
			t.Leaving()
		}
		if err == nil && permit.MayLeave() {
			return permit, token, out, nil
		}
		permit.Return()
		if out != nil && out.Body != nil && out.Body != req.Body {
			out.Body.Close()
		}
		if err != nil {
			return Permit{}, "", nil, err
		}
	}
}

func (t *Transport) base() http.RoundTripper {
	if t.Base == nil {
		return http.DefaultTransport
	}
	return t.Base
}

// unsent is the result of an attempt that did not leave.
func unsent(req *http.Request, err error) Result {
	if req.Body != nil {
		req.Body.Close()
	}
	return Result{Err: err, Verdict: Verdict{Action: Unsent}}
}

// permit waits for a token, then for a permit, in this order: a permit that
// waits for a login would be counted long before its request arrives. It
// begins anew if the token has run out meanwhile.
func (t *Transport) permit(req *http.Request, tries *Tries, start time.Time) (permit Permit, token string, err error) {
	if err := t.setUp(); err != nil {
		return Permit{}, "", err
	}
	ctx := req.Context()
	call := callOf(ctx)
	ask := Ask{
		Org:           t.Org,
		Client:        t.Client,
		Path:          req.URL.Path,
		Priority:      call.Priority,
		Caller:        call.Caller,
		Weight:        call.Weight,
		Until:         t.until(call, start),
		MaxRetryAfter: t.maxRetryAfter(),
		hold:          true,
	}
	if ask.Org == "" {
		ask.Org = req.URL.Host
	}
	if t.Auth == nil {
		ask.Token = t.bearer(req.Header.Get("Authorization"))
	} else {
		ask.Token = t.Auth.Name()
	}
	for {
		if err = t.logIn(ctx, tries, ask.Until); err != nil {
			return Permit{}, "", err
		}
		permit, err = t.limiter.Take(ctx, ask)
		tries.waitedFor(permit.Wait)
		if err != nil {
			if limit, ok := errors.AsType[*LimitError](err); ok {
				tries.waitedFor(limit.Waited)
			}
			return Permit{}, "", err
		}
		if t.Auth == nil {
			return permit, "", nil
		}
		if token, ok := t.Auth.Current(); ok {
			return permit, token, nil
		}
		permit.Return()
	}
}

// logIn waits until there is a token, if need be.
func (t *Transport) logIn(ctx context.Context, tries *Tries, until time.Time) error {
	if t.Auth == nil {
		return nil
	}
	if _, ok := t.Auth.Current(); ok {
		return nil
	}
	if !until.IsZero() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, until)
		defer cancel()
	}
	start := time.Now()
	_, err := t.Auth.Token(ctx)
	tries.waited(WaitLogin, time.Since(start))
	return err
}

// salt makes the names of credentials that people think up of no use outside
// this process: they could be found by trial.
var salt = sync.OnceValue(func() string { return rand.Text() })

// bearer names the token in an Authorization header without giving it away. A
// bearer token has the same name in every process.
func (t *Transport) bearer(header string) string {
	if header == "" {
		return ""
	}
	if name, ok := t.bearers.Load(header); ok {
		return name.(string)
	}
	text := header
	if !strings.HasPrefix(header, "Bearer ") {
		text = salt() + header
	}
	sum := sha256.Sum256([]byte(text))
	name := hex.EncodeToString(sum[:8])
	t.namedMu.Lock()
	if t.named++; t.named > 1024 { // tokens come and go
		t.bearers.Clear()
		t.named = 1
	}
	t.namedMu.Unlock()
	t.bearers.Store(header, name)
	return name
}

func rewindable(req *http.Request) bool {
	return req.Body == nil || req.Body == http.NoBody || req.GetBody != nil
}

// outgoing returns the request to put on the wire: req itself if nothing in it
// has to change.
func (t *Transport) outgoing(req *http.Request, tries *Tries, token string) (*http.Request, error) {
	again := tries.Sent > 0 && req.GetBody != nil
	replayed := replayable(req)
	if t.Auth == nil && !again && !replayed {
		return req, nil
	}
	out := new(http.Request)
	*out = *req
	if again {
		body, err := req.GetBody()
		if err != nil {
			return nil, err
		}
		out.Body = body
	}
	if replayed {
		if rewindable(out) && (out.Body == nil || out.Body == http.NoBody) {
			out.Body = emptyBody{}
		}
		out.GetBody = nil
	}
	if t.Auth != nil {
		out.Header = req.Header.Clone()
		if out.Header == nil {
			out.Header = http.Header{}
		}
		out.Header.Set("Authorization", "Bearer "+token)
	}
	return out, nil
}

// replayable reports whether net/http would send the request again by itself
// after a connection broke: it must not, for every attempt pays.
func replayable(req *http.Request) bool {
	switch req.Method {
	case "", http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace:
		return true
	}
	return len(req.Header["Idempotency-Key"]) > 0 || len(req.Header["X-Idempotency-Key"]) > 0
}

// emptyBody is a body of which net/http does not know that it is empty before
// it has read it. It is not sent.
type emptyBody struct{}

func (emptyBody) Read([]byte) (int, error) { return 0, io.EOF }
func (emptyBody) Close() error             { return nil }

// judge reads the answer once: what it says of the limits, and what to do.
func (t *Transport) judge(req *http.Request, resp *http.Response, err error, neverConnected bool, tries *Tries) Result {
	s := sentence{err: err, canLogIn: t.Auth != nil, delivery: t.Delivery, idempotent: idempotent(req.Method)}
	if d := callOf(req.Context()).Delivery; d != nil {
		s.delivery = *d
	}
	if err != nil {
		s.notSent, s.final = notSent(err)
		s.notSent = s.notSent || neverConnected
		s.final = s.final || gone(req.Context())
		s.unsent, s.abandoned = s.notSent, req.Context().Err() != nil
	} else {
		s.Observation = t.read(resp)
		s.Status = resp.StatusCode
	}
	if s.Refused && s.Missing == nil {
		s.Missing, s.orLearned = t.Retry.missing, t.Retry.RetryAfter == 0
	}
	r := Result{Response: resp, Err: err, Verdict: t.Retry.verdict(s, tries), Observation: s.Observation}
	if r.Verdict.Action == Again && resp != nil {
		Peek(resp) // it may be handed back after other attempts
	}
	return r
}

// gone reports whether nobody waits for an answer any more.
func gone(ctx context.Context) bool {
	return ctx.Err() != nil && !errors.Is(context.Cause(ctx), ErrAttemptTimeout)
}

func (t *Transport) read(resp *http.Response) Observation {
	if t.Read == nil {
		return ReadAnswer(resp)
	}
	return t.Read(resp)
}

// idempotent reports whether HTTP says that a method may be sent again.
func idempotent(method string) bool {
	switch method {
	case "", http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace, http.MethodPut, http.MethodDelete:
		return true
	}
	return false
}

// notSent reports whether err came before any of the request left, and whether
// it would come again whatever is tried.
func notSent(err error) (notSent, final bool) {
	var certificate *tls.CertificateVerificationError
	var authority x509.UnknownAuthorityError
	var host x509.HostnameError
	if errors.As(err, &certificate) || errors.As(err, &authority) || errors.As(err, &host) {
		return true, true
	}
	var name *net.DNSError
	if errors.As(err, &name) {
		return true, name.IsNotFound
	}
	var op *net.OpError
	return errors.As(err, &op) && (op.Op == "dial" || op.Op == "proxyconnect"), false
}
