// Package deliver makes the attempts of durable executions: what stands between
// the queue, which knows no HTTP, and the transport, which keeps nothing.
package deliver

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/headgate/headgate"
	"github.com/headgate/headgate/genesys"
	"github.com/headgate/headgate/internal/queue"
)

// Sender makes the attempts of executions: the other half of a
// [queue.Dispatcher], which keeps their state. Both use the verdict of the
// Transport. Its fields must not be changed after the first Send.
type Sender struct {
	// Transport makes the attempts.
	Transport *headgate.Transport
	// APIURL is what the executions' paths are appended to.
	APIURL string
	// Delivery says what becomes of attempts that may have been executed.
	Delivery headgate.Delivery
	// Follow: an answer to a launch is not the end; the launched flow is
	// polled to its own.
	Follow bool
	// Timeout bounds each attempt, from when it leaves until its answer is
	// read. One that takes longer is given up and was not answered: Delivery
	// decides; polls are asked again. 0: no bound.
	Timeout time.Duration
	// MaxUnreachable is how long no connection to an API that has answered
	// before is borne with; 0 means 2 minutes. Until then executions stay
	// queued and try again, as often as it takes.
	MaxUnreachable time.Duration
	// Unreachable is called when no connection could be made to the API,
	// after all the retries of an execution: to one that has never answered,
	// or for MaxUnreachable. It should end the taking of work: the
	// executions stay queued. Nil: they try again, for ever.
	Unreachable func(error)
	// Shape, if set, gives a launch the headers and the call that its
	// execution asks for. Nil: JSON goes out and is asked for.
	Shape func(x queue.Execution, req *http.Request, call *headgate.Call)
	// Answered, if set, is told of each answer, and whether it is that of a
	// poll.
	Answered func(o headgate.Observation, poll bool)

	mu       sync.Mutex // guards what follows
	answered bool       // the API has answered something
	away     time.Time  // the first failure to connect since; zero for none
}

// unreachableRetry is how long an execution waits that could not be sent for
// lack of a connection, after all its retries.
const unreachableRetry = 5 * time.Second

// Send is the [queue.Sender].
func (s *Sender) Send(ctx context.Context, x queue.Execution, leave func() error) (queue.Step, error) {
	x.Tally.AnswerBytes = 0
	if x.Remote != "" {
		return s.poll(ctx, x, leave)
	}
	b := s.bound(ctx, leave)
	defer b.end()
	req, err := s.request(b, x, x.Method, x.Path)
	if err != nil {
		return queue.Step{To: queue.Failed, Tally: x.Tally, Reason: err.Error()}, nil
	}
	tries := triesOf(x.Tally)
	r := s.Transport.Attempt(req, &tries, b.leave)
	step := queue.Step{Tally: tallyOf(x.Tally, tries), Status: r.Observation.Status}
	s.heard(r, false)
	switch r.Verdict.Action {
	case headgate.Unsent:
		return s.unsent(ctx, b, x, r.Err, step)
	case headgate.Again:
		s.drain(r.Response)
		return s.again(b, r, step), nil
	case headgate.Unknown:
		s.unknown(ctx, b, r, &step)
		return step, nil
	}
	if r.Err != nil {
		s.noConnection(ctx, r.Err, &step)
		return step, nil
	}
	s.conclude(x, r.Response, &step)
	return step, nil
}

func (s *Sender) request(b *bounded, x queue.Execution, method, path string) (*http.Request, error) {
	call := headgate.Call{Priority: x.Priority, Delivery: &s.Delivery}
	req, err := http.NewRequest(method, s.APIURL+path, nil)
	if err != nil {
		return nil, err
	}
	if method != http.MethodGet && x.Body != nil {
		req.Header.Set("Content-Type", "application/json")
		req.ContentLength = int64(len(x.Body))
		req.GetBody = func() (io.ReadCloser, error) { return &departing{bytes.NewReader(x.Body), b}, nil }
		req.Body, _ = req.GetBody()
	}
	req.Header.Set("Accept", "application/json")
	if s.Shape != nil {
		s.Shape(x, req, &call)
	}
	return req.WithContext(headgate.WithCall(b.ctx, call)), nil
}

// bounded is one attempt with its Timeout.
type bounded struct {
	ctx     context.Context
	timeout time.Duration
	cancel  context.CancelCauseFunc
	depart  func() error
	left    bool // depart was called, and did what it does

	mu    sync.Mutex // guards timer
	timer *time.Timer
}

// bound gives an attempt its Timeout. It runs from leave, and anew from when
// the body goes: a gate that closes in between may hold it for long.
func (s *Sender) bound(ctx context.Context, leave func() error) *bounded {
	b := &bounded{ctx: ctx, timeout: s.Timeout, cancel: func(error) {}, depart: leave}
	if s.Timeout > 0 {
		b.ctx, b.cancel = context.WithCancelCause(ctx)
	}
	return b
}

// leave is what the Transport calls before it sends.
func (b *bounded) leave() error {
	err := b.depart()
	b.left = err == nil
	if err == nil && b.timeout > 0 {
		b.start()
	}
	return err
}

func (b *bounded) start() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.timer = time.AfterFunc(b.timeout, func() { b.cancel(headgate.ErrAttemptTimeout) })
}

// departing is a body that tells when it is written to the wire.
type departing struct {
	*bytes.Reader
	b *bounded
}

func (d *departing) Read(p []byte) (int, error) {
	if d.Len() == int(d.Size()) {
		d.b.goes()
	}
	return d.Reader.Read(p)
}

// WriteTo hides the Reader's own, which would not tell.
func (d *departing) WriteTo(w io.Writer) (int64, error) {
	d.b.goes()
	return d.Reader.WriteTo(w)
}

func (*departing) Close() error { return nil }

// goes begins the time anew, if it is running.
func (b *bounded) goes() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.timer != nil && b.timer.Stop() {
		b.timer.Reset(b.timeout)
	}
}

// end comes when the answer was read.
func (b *bounded) end() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.timer != nil {
		b.timer.Stop()
	}
	b.cancel(context.Canceled)
}

// over reports whether the attempt was given up for its Timeout.
func (b *bounded) over() bool {
	return errors.Is(context.Cause(b.ctx), headgate.ErrAttemptTimeout)
}

// text says what err was.
func (s *Sender) textOf(b *bounded, err error) string {
	if b.over() {
		return fmt.Sprintf("no answer within %v", b.timeout)
	}
	return s.Text(err)
}

// unsent says what becomes of an execution that got no permit or no token.
func (s *Sender) unsent(ctx context.Context, b *bounded, x queue.Execution, err error, step queue.Step) (queue.Step, error) {
	var limit *headgate.LimitError
	switch {
	case ctx.Err() != nil && !b.left:
		return step, err // the dispatcher knows why
	case ctx.Err() != nil, b.over():
		// It waited for a second permit, behind a gate that closed as it
		// was about to leave: nothing left, whatever is recorded.
		step.To, step.Status, step.Reason = queue.Queued, x.Status, x.Reason
		return step, nil
	case !errors.As(err, &limit):
		return step, err // no request can be sent at all
	case !x.Deadline.IsZero() && x.Remote == "" && limit.At.After(x.Deadline):
		step.To = queue.Expired
		if x.Tally.Unanswered > 0 {
			step.To = queue.Unknown // expired is only what surely did not run
		}
	default:
		// The server wants everybody to stay away for longer than anyone
		// waits in line: parked until then.
		step.To, step.Due = queue.Queued, limit.At
	}
	step.Status, step.Reason = x.Status, err.Error()
	return step, nil
}

// again queues the execution for another attempt. A refusal is due at once: the
// gate of the limit makes it wait.
func (s *Sender) again(b *bounded, r headgate.Result, step queue.Step) queue.Step {
	step.To = queue.Queued
	if r.Verdict.After > 0 {
		step.Due = time.Now().Add(r.Verdict.After)
		step.Tally.Waits = added(step.Tally.Waits, headgate.WaitBackoff, r.Verdict.After)
	}
	step.Reason = fmt.Sprintf("answered %d", r.Observation.Status)
	if r.Err != nil {
		step.Reason = s.textOf(b, r.Err)
	}
	return step
}

// unknown says what becomes of an execution that may have been executed and is
// not sent again by the transport.
func (s *Sender) unknown(ctx context.Context, b *bounded, r headgate.Result, step *queue.Step) {
	step.To = queue.Unknown
	if r.Err != nil {
		step.Reason = "sent, and no answer came: " + s.textOf(b, r.Err)
		if ctx.Err() != nil && !b.over() && s.Delivery == headgate.AtLeastOnce {
			step.To = queue.Queued // given up by us: the next run sends it again
		}
		return
	}
	a := readBody(r.Response, maxRead, s.secrets(r.Response.Request))
	a.keep(step)
	step.Reason = "may have been executed: " + genesys.ErrorOf(r.Response, a.body).Error()
}

// heard notes whether the API can be reached.
func (s *Sender) heard(r headgate.Result, poll bool) {
	if s.Answered != nil && r.Response != nil {
		s.Answered(r.Observation, poll)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case r.Response != nil:
		s.answered, s.away = true, time.Time{}
	case r.Verdict.Action != headgate.Unsent && NeverLeft(r.Err) && s.away.IsZero():
		s.away = time.Now()
	}
}

// gone reports whether the API is to be called unreachable.
func (s *Sender) gone() bool {
	bearable := s.MaxUnreachable
	if bearable == 0 {
		bearable = 2 * time.Minute
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.answered || !s.away.IsZero() && time.Since(s.away) >= bearable
}

// noConnection says what becomes of an execution whose request never left.
func (s *Sender) noConnection(ctx context.Context, err error, step *queue.Step) {
	step.To, step.Reason = queue.Queued, s.Text(err)
	forgive(&step.Tally)
	switch {
	case ctx.Err() != nil: // given up by us
	case s.Unreachable == nil, !s.gone():
		step.Due = time.Now().Add(unreachableRetry)
		step.Tally.Waits = added(step.Tally.Waits, headgate.WaitBackoff, unreachableRetry)
	default:
		s.Unreachable(err)
	}
}

// NeverLeft reports whether err surely came before a connection stood.
func NeverLeft(err error) bool {
	var certificate *tls.CertificateVerificationError
	var authority x509.UnknownAuthorityError
	var host x509.HostnameError
	var name *net.DNSError
	var op *net.OpError
	return errors.As(err, &certificate) || errors.As(err, &authority) || errors.As(err, &host) || errors.As(err, &name) ||
		errors.As(err, &op) && (op.Op == "dial" || op.Op == "proxyconnect")
}

// conclude says what becomes of an execution that the server has answered for
// good.
func (s *Sender) conclude(x queue.Execution, resp *http.Response, step *queue.Step) {
	most := int64(maxRead)
	if s.Follow {
		most = maxReadStatus
	}
	a := readBody(resp, most, s.secrets(resp.Request))
	a.keep(step)
	switch {
	case resp.StatusCode >= 300:
		e := genesys.ErrorOf(resp, a.body)
		e.Hint = genesys.EndpointHint(x.Path, resp.StatusCode, string(a.body))
		step.To, step.Reason = queue.Failed, e.Error()
	case a.err != nil:
		step.To = queue.Unknown
		step.Tally.Unanswered++
		step.Reason = fmt.Sprintf("answered %d, but the answer broke off: %s", resp.StatusCode, s.Text(a.err))
	case s.Follow:
		launched, err := genesys.ParseLaunch(a.body)
		if err != nil {
			step.To, step.Reason = queue.Unknown, fmt.Sprintf("launched, but can't be followed: %v", err)
			return
		}
		step.To, step.Remote, step.Due = queue.Queued, launched.ID, time.Now().Add(genesys.PollAfter(0))
		forgive(&step.Tally)
	default:
		step.To, step.Reason = queue.Done, a.cut()
	}
}

// poll asks how a launched flow is getting on. Polls go behind launches. What
// goes wrong with one is tried again as long as the run lasts: only an answer
// that would be the same every time makes the end unknown.
func (s *Sender) poll(ctx context.Context, x queue.Execution, leave func() error) (queue.Step, error) {
	x.Priority++
	b := s.bound(ctx, leave)
	defer b.end()
	req, err := s.request(b, x, http.MethodGet, genesys.StatusPath(x.Remote))
	if err != nil {
		return queue.Step{To: queue.Unknown, Tally: x.Tally, Reason: err.Error()}, nil
	}
	tries := triesOf(x.Tally)
	tries.Sent = 0 // polls are counted apart
	r := s.Transport.Attempt(req, &tries, b.leave)
	step := queue.Step{Tally: tallyOf(x.Tally, tries), Status: r.Observation.Status}
	s.heard(r, true)
	switch {
	case r.Verdict.Action == headgate.Unsent:
		return s.unsent(ctx, b, x, r.Err, step)
	case r.Verdict.Action == headgate.Again:
		s.drain(r.Response)
		return s.again(b, r, step), nil
	case r.Err != nil && ctx.Err() != nil:
		step.To = queue.Queued
		return step, nil
	case r.Err != nil && NeverLeft(r.Err):
		s.noConnection(ctx, r.Err, &step)
		return step, nil
	case r.Err != nil:
		step.Reason = s.textOf(b, r.Err)
		s.pollLater(&step)
		return step, nil
	}
	step.Tally.Polls++
	a := readBody(r.Response, maxReadStatus, s.secrets(r.Response.Request))
	if status := r.Response.StatusCode; status != http.StatusOK {
		a.keep(&step)
		step.To, step.Reason = queue.Unknown, "launched, but its end is not known: "+genesys.ErrorOf(r.Response, a.body).Error()
		if passing(status) {
			s.pollLater(&step)
		}
		return step, nil
	}
	launched, err := genesys.ParseStatus(a.body)
	switch {
	case a.err != nil:
		step.Reason = "launched; its status broke off: " + s.Text(a.err)
		s.pollLater(&step)
	case a.part:
		a.keep(&step)
		step.To, step.Reason = queue.Unknown, "launched, but its end is not known: "+a.cut()
	case err != nil || !launched.Status.Ended():
		step.Reason = "launched and running"
		s.pollLater(&step)
	case launched.Err() != nil:
		a.keep(&step)
		step.To, step.Reason = queue.Failed, launched.Err().Error()
	default:
		a.keep(&step)
		step.To, step.Reason = queue.Done, a.cut()
	}
	return step, nil
}

// pollLater queues the execution for its next poll.
func (s *Sender) pollLater(step *queue.Step) {
	step.To, step.Due, step.Answer = queue.Queued, time.Now().Add(genesys.PollAfter(step.Tally.Polls)), nil
	step.Tally.AnswerBytes = 0
	forgive(&step.Tally)
}

// passing reports whether a poll that was answered so may be answered otherwise
// another time.
func passing(status int) bool {
	switch status {
	case http.StatusUnauthorized, http.StatusRequestTimeout, http.StatusTooManyRequests:
		return true
	case http.StatusNotImplemented, http.StatusHTTPVersionNotSupported:
		return false
	}
	return status >= 500
}

// forgive lets the next request of an execution have all its retries.
func forgive(t *queue.Tally) {
	t.Forgiven, t.LastBackoff, t.Unauthorized = t.Retries, 0, 0
}

// drain drops an answer that is not wanted and keeps its connection.
func (s *Sender) drain(resp *http.Response) {
	if resp != nil {
		io.Copy(io.Discard, io.LimitReader(resp.Body, MaxAnswer))
		resp.Body.Close()
	}
}

func triesOf(t queue.Tally) headgate.Tries {
	return headgate.Tries{
		Sent: t.Sent, Refused: t.Refused, Retries: t.Retries - t.Forgiven, Unanswered: t.Unanswered,
		Unauthorized: t.Unauthorized, LastBackoff: t.LastBackoff, Waits: t.Waits,
	}
}

func tallyOf(t queue.Tally, tries headgate.Tries) queue.Tally {
	t.Refused, t.Retries, t.Unanswered = tries.Refused, tries.Retries+t.Forgiven, tries.Unanswered
	t.Unauthorized, t.LastBackoff, t.Waits = tries.Unauthorized, tries.LastBackoff, tries.Waits
	return t
}

func added(waits map[string]time.Duration, cause string, d time.Duration) map[string]time.Duration {
	if waits == nil {
		waits = map[string]time.Duration{}
	}
	waits[cause] += d
	return waits
}
