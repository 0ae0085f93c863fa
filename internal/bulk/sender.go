package bulk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/headgate/headgate"
	"github.com/headgate/headgate/genesys"
	"github.com/headgate/headgate/internal/queue"
)

// MaxAnswer is how much of an answer is kept.
const MaxAnswer = 1 << 20

// Sender makes the attempts of executions: the other half of a
// [queue.Dispatcher], which keeps their state. Both use the verdict of the
// Transport.
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
	// Unreachable is called when no connection could be made to the API,
	// after all the retries of an execution. It should end the taking of
	// work: the executions stay queued.
	Unreachable func(error)
}

// Send is the [queue.Sender].
func (s *Sender) Send(ctx context.Context, x queue.Execution, leave func() error) (queue.Step, error) {
	if x.Remote != "" {
		return s.poll(ctx, x, leave)
	}
	req, err := s.request(ctx, x, x.Method, x.Path)
	if err != nil {
		return queue.Step{To: queue.Failed, Tally: x.Tally, Reason: err.Error()}, nil
	}
	tries := triesOf(x.Tally)
	r := s.Transport.Attempt(req, &tries, leave)
	step := queue.Step{Tally: tallyOf(x.Tally, tries), Status: r.Observation.Status}
	switch r.Verdict.Action {
	case headgate.Unsent:
		return s.unsent(ctx, x, r.Err, step)
	case headgate.Again:
		s.drain(r.Response)
		return s.again(r, step), nil
	case headgate.Unknown:
		s.unknown(ctx, r, &step)
		return step, nil
	}
	if r.Err != nil {
		s.noConnection(r.Err, &step)
		return step, nil
	}
	s.answered(x, r.Response, &step)
	return step, nil
}

func (s *Sender) request(ctx context.Context, x queue.Execution, method, path string) (*http.Request, error) {
	call := headgate.Call{Priority: x.Priority, Delivery: &s.Delivery}
	req, err := http.NewRequestWithContext(headgate.WithCall(ctx, call), method, s.APIURL+path, nil)
	if err != nil {
		return nil, err
	}
	if method != http.MethodGet && x.Body != nil {
		req.Header.Set("Content-Type", "application/json")
		req.ContentLength = int64(len(x.Body))
		req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(x.Body)), nil }
		req.Body, _ = req.GetBody()
	}
	req.Header.Set("Accept", "application/json")
	return req, nil
}

// unsent says what becomes of an execution that got no permit or no token.
func (s *Sender) unsent(ctx context.Context, x queue.Execution, err error, step queue.Step) (queue.Step, error) {
	var limit *headgate.LimitError
	switch {
	case ctx.Err() != nil || !errors.As(err, &limit):
		return step, err // the dispatcher knows why, or no request can be sent at all
	case !x.Deadline.IsZero() && limit.At.After(x.Deadline):
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
func (s *Sender) again(r headgate.Result, step queue.Step) queue.Step {
	step.To = queue.Queued
	if r.Verdict.After > 0 {
		step.Due = time.Now().Add(r.Verdict.After)
		step.Tally.Waits = added(step.Tally.Waits, headgate.WaitBackoff, r.Verdict.After)
	}
	step.Reason = fmt.Sprintf("answered %d", r.Observation.Status)
	if r.Err != nil {
		step.Reason = r.Err.Error()
	}
	return step
}

// unknown says what becomes of an execution that may have been executed and is
// not sent again by the transport.
func (s *Sender) unknown(ctx context.Context, r headgate.Result, step *queue.Step) {
	step.To = queue.Unknown
	if r.Err != nil {
		step.Reason = "sent, and no answer came: " + r.Err.Error()
		if ctx.Err() != nil && s.Delivery == headgate.AtLeastOnce {
			step.To = queue.Queued // given up by us: the next run sends it again
		}
		return
	}
	body, _ := s.body(r.Response)
	step.Answer = body
	step.Reason = "may have been executed: " + genesys.ErrorOf(r.Response, body).Error()
}

// noConnection says what becomes of an execution whose request never left.
func (s *Sender) noConnection(err error, step *queue.Step) {
	step.To, step.Reason = queue.Queued, err.Error()
	step.Tally.Retries, step.Tally.LastBackoff = 0, 0 // the next run tries anew
	if s.Unreachable != nil {
		s.Unreachable(err)
	}
}

// answered says what becomes of an execution that the server has answered for
// good.
func (s *Sender) answered(x queue.Execution, resp *http.Response, step *queue.Step) {
	body, err := s.body(resp)
	step.Answer = body
	switch {
	case resp.StatusCode >= 300:
		e := genesys.ErrorOf(resp, body)
		e.Hint = genesys.EndpointHint(x.Path, resp.StatusCode, string(body))
		step.To, step.Reason = queue.Failed, e.Error()
	case err != nil:
		step.To = queue.Unknown
		step.Tally.Unanswered++
		step.Reason = fmt.Sprintf("answered %d, but the answer broke off: %v", resp.StatusCode, err)
	case s.Follow:
		launched, err := genesys.ParseLaunch(body)
		if err != nil {
			step.To, step.Reason = queue.Unknown, fmt.Sprintf("launched, but can't be followed: %v", err)
			return
		}
		step.To, step.Remote, step.Due = queue.Queued, launched.ID, time.Now().Add(genesys.PollAfter(0))
	default:
		step.To = queue.Done
	}
}

// poll asks how a launched flow is getting on. Polls go behind launches.
func (s *Sender) poll(ctx context.Context, x queue.Execution, leave func() error) (queue.Step, error) {
	x.Priority++
	req, err := s.request(ctx, x, http.MethodGet, genesys.StatusPath(x.Remote))
	if err != nil {
		return queue.Step{To: queue.Unknown, Tally: x.Tally, Reason: err.Error()}, nil
	}
	tries := triesOf(x.Tally)
	tries.Sent = 0 // polls are counted apart
	r := s.Transport.Attempt(req, &tries, leave)
	step := queue.Step{Tally: tallyOf(x.Tally, tries), Status: r.Observation.Status}
	switch {
	case r.Verdict.Action == headgate.Unsent:
		return s.unsent(ctx, x, r.Err, step)
	case r.Verdict.Action == headgate.Again:
		s.drain(r.Response)
		return s.again(r, step), nil
	case r.Err != nil && ctx.Err() != nil:
		step.To = queue.Queued
		return step, nil
	case r.Err != nil:
		s.noConnection(r.Err, &step)
		return step, nil
	}
	step.Tally.Polls++
	body, err := s.body(r.Response)
	step.Answer = body
	if r.Response.StatusCode != http.StatusOK {
		step.To, step.Reason = queue.Unknown, "launched, but its end is not known: "+genesys.ErrorOf(r.Response, body).Error()
		return step, nil
	}
	launched, perr := genesys.ParseStatus(body)
	switch {
	case err != nil || perr != nil || !launched.Status.Ended():
		step.To, step.Due, step.Answer = queue.Queued, time.Now().Add(genesys.PollAfter(step.Tally.Polls)), nil
		step.Reason = "launched and running"
	case launched.Err() != nil:
		step.To, step.Reason = queue.Failed, launched.Err().Error()
	default:
		step.To = queue.Done
	}
	return step, nil
}

// body reads the answer to its end and closes it. What is over MaxAnswer is not
// kept.
func (s *Sender) body(resp *http.Response) ([]byte, error) {
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, MaxAnswer))
	if err == nil {
		_, err = io.Copy(io.Discard, io.LimitReader(resp.Body, 64*MaxAnswer))
	}
	return body, err
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
		Sent: t.Sent, Refused: t.Refused, Retries: t.Retries, Unanswered: t.Unanswered,
		Unauthorized: t.Unauthorized, LastBackoff: t.LastBackoff, Waits: t.Waits,
	}
}

func tallyOf(t queue.Tally, tries headgate.Tries) queue.Tally {
	t.Refused, t.Retries, t.Unanswered = tries.Refused, tries.Retries, tries.Unanswered
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
