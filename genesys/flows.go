package genesys

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"time"
	"unicode"

	"github.com/headgate/headgate"
)

// Flows executes flows. [Org.Flows] makes one. It is safe for concurrent use.
//
// There are two forms of the call: Execute answers with the flow's result;
// Launch starts an execution whose end Status and Wait report. Both send a POST
// for which the platform knows no idempotency key. What becomes of one that
// left and was not answered is for the Transport's Delivery to say: with
// [headgate.AtLeastOnce], which the Transport of Org.Flows has, it is sent
// again and may be executed twice; with [headgate.AtMostOnce] its outcome stays
// unknown. [headgate.WithCall] changes it for one call. Either way
// Tries.Unanswered counts such attempts.
//
// Errors are
//   - *[BodyError], *[FlowIDError]: nothing was sent
//   - *[headgate.LimitError]: no permit in time
//   - *[LoginError]: no token
//   - *[APIError]: the API said no
//   - *[headgate.UnknownError]: an attempt may have been executed and none
//     succeeded; it wraps how the last one ended, which may be an *APIError
type Flows struct {
	// Transport sends the requests. Required.
	Transport *headgate.Transport
	// APIURL is the address of the API, such as
	// https://api.mypurecloud.ie: see [Region.APIURL]. Required.
	APIURL string
}

// MaxRequestBytes is the platform's request.bytes.max: a larger body is refused.
const MaxRequestBytes = 512_000

// BodyError says that a body is larger than the platform takes, or not JSON.
type BodyError struct {
	// Size is the number of bytes, above MaxRequestBytes; or Err says what
	// else is wrong.
	Size int
	Err  error
}

// Error names the platform's limit.
func (e *BodyError) Error() string {
	if e.Err != nil {
		return "the body is not JSON: " + e.Err.Error()
	}
	return fmt.Sprintf("the body has %d bytes, the platform's request.bytes.max is %d", e.Size, MaxRequestBytes)
}

// Unwrap returns Err.
func (e *BodyError) Unwrap() error { return e.Err }

// FlowIDError says that a flow's or an execution's id can't be one.
type FlowIDError struct{ ID string }

// Error shows the id.
func (e *FlowIDError) Error() string {
	if e.ID == "" {
		return "the id is empty"
	}
	return fmt.Sprintf("%q can't be an id", clean(e.ID))
}

// CheckID returns a *[FlowIDError] if id can't be the id of a flow or of an
// execution. The platform's are UUIDs; others are let through if they fit a
// path.
func CheckID(id string) error {
	if id == "" || id == "." || id == ".." || len(id) > 200 || strings.IndexFunc(id, func(c rune) bool {
		return c == '/' || c == '\\' || unicode.IsSpace(c) || !unicode.IsPrint(c)
	}) >= 0 {
		return &FlowIDError{ID: id}
	}
	return nil
}

// CheckBody returns a *[BodyError] if body can't be sent.
func CheckBody(body []byte) error {
	if len(body) > MaxRequestBytes {
		return &BodyError{Size: len(body)}
	}
	if !json.Valid(body) {
		var v any
		err := json.Unmarshal(body, &v)
		if err == nil {
			err = errors.New("invalid")
		}
		return &BodyError{Err: err}
	}
	return nil
}

// LaunchPath is the path of the POST that launches an execution.
const LaunchPath = "/api/v2/flows/executions"

const (
	executePrefix = "/api/v2/architect/flows/"
	executeSuffix = "/execute"
)

// IsExecution reports whether a POST to path executes a flow, in either form.
func IsExecution(path string) bool {
	if path == LaunchPath {
		return true
	}
	flow, ok := strings.CutPrefix(path, executePrefix)
	flow, is := strings.CutSuffix(flow, executeSuffix)
	return ok && is && flow != "" && !strings.Contains(flow, "/")
}

// ExecutePath returns the path of the POST that executes a flow, escaped.
func ExecutePath(flowID string) string {
	return executePrefix + url.PathEscape(flowID) + executeSuffix
}

// StatusPath returns the path of the GET that tells how an execution stands,
// escaped.
func StatusPath(executionID string) string { return LaunchPath + "/" + url.PathEscape(executionID) }

// NewExecute returns the request that executes a flow with body as its payload,
// for callers who send it themselves. It checks both.
func (f *Flows) NewExecute(ctx context.Context, flowID string, body []byte) (*http.Request, error) {
	if err := CheckID(flowID); err != nil {
		return nil, err
	}
	return f.post(ctx, ExecutePath(flowID), body)
}

// NewLaunch returns the request that launches an execution; body is a
// [LaunchRequest] in JSON. It checks the body's size and that it is JSON.
func (f *Flows) NewLaunch(ctx context.Context, body []byte) (*http.Request, error) {
	return f.post(ctx, LaunchPath, body)
}

// NewStatus returns the request that asks how an execution stands.
func (f *Flows) NewStatus(ctx context.Context, executionID string) (*http.Request, error) {
	if err := CheckID(executionID); err != nil {
		return nil, err
	}
	return f.request(ctx, http.MethodGet, StatusPath(executionID), nil)
}

func (f *Flows) post(ctx context.Context, path string, body []byte) (*http.Request, error) {
	if err := CheckBody(body); err != nil {
		return nil, err
	}
	req, err := f.request(ctx, http.MethodPost, path, bytes.NewReader(body))
	if err == nil {
		req.Header.Set("Content-Type", "application/json")
	}
	return req, err
}

func (f *Flows) request(ctx context.Context, method, path string, body io.Reader) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, method, strings.TrimSuffix(f.APIURL, "/")+path, body)
	if err == nil {
		req.Header.Set("Accept", "application/json")
	}
	return req, err
}

// Result is what came of [Flows.Execute].
type Result struct {
	// Status is the HTTP status, 0 if no answer came.
	Status int
	// Output is the answer's body: the flow's result as JSON. Nil if there
	// was no success, or no body.
	Output json.RawMessage
	// CorrelationID is what the platform's support asks for.
	CorrelationID string
	// Tries is what it took.
	Tries headgate.Tries
}

// Execute executes a flow with the payload, by
// POST /api/v2/architect/flows/{flowId}/execute, and returns its result.
//
// The payload is what [json.Marshal] makes of it; a [json.RawMessage] and a
// []byte are JSON already, and nil is {}. The Result is never nil: with an
// error it says what was tried.
func (f *Flows) Execute(ctx context.Context, flowID string, payload any) (*Result, error) {
	res := &Result{}
	body, err := encode(payload)
	if err != nil {
		return res, err
	}
	req, err := f.NewExecute(ctx, flowID, body)
	if err != nil {
		return res, err
	}
	answer, err := f.send(req)
	res.Status, res.CorrelationID, res.Tries = answer.status, answer.correlation, answer.tries
	if err == nil && len(answer.body) > 0 {
		res.Output = answer.body
	}
	return res, err
}

// encode makes JSON of a payload.
func encode(payload any) ([]byte, error) {
	switch p := payload.(type) {
	case nil:
		return []byte("{}"), nil
	case []byte:
		return p, nil
	case json.RawMessage:
		return p, nil
	}
	body, err := json.Marshal(payload)
	if err != nil {
		return nil, &BodyError{Err: err}
	}
	return body, nil
}

// answer is what came back.
type answer struct {
	status      int
	correlation string
	body        []byte
	tries       headgate.Tries
}

// send sends req as often as it takes. An error comes with what is known.
func (f *Flows) send(req *http.Request) (a answer, err error) {
	resp, tries, err := f.Transport.Send(req)
	a.tries = tries
	if err != nil {
		return a, err
	}
	a.status, a.correlation = resp.StatusCode, resp.Header.Get("ININ-Correlation-Id")
	a.body, err = readAll(resp)
	if resp.StatusCode/100 == 2 {
		if err != nil {
			return a, fmt.Errorf("the call succeeded: %w", err)
		}
		return a, nil
	}
	e := ErrorOf(resp, a.body)
	e.Hint = EndpointHint(req.URL.Path, a.status, string(a.body))
	if tries.Unanswered > 0 {
		return a, &headgate.UnknownError{Unanswered: tries.Unanswered, Err: e}
	}
	return a, e
}

// EndpointHint says which form of the call to try instead, if the answer to
// path means that the API does not have this one: a 404 or 405 that does not
// speak of the flow. Else it returns "".
func EndpointHint(path string, status int, body string) string {
	if status != http.StatusNotFound && status != http.StatusMethodNotAllowed {
		return ""
	}
	if e := parseError([]byte(body)); strings.Contains(strings.ToLower(e.Code+e.Message), "flow") {
		return ""
	}
	switch {
	case strings.HasSuffix(path, executeSuffix):
		return "this API seems to have no such call, not only no such flow; try the other form, Launch (POST " + LaunchPath + ")"
	case strings.HasSuffix(path, LaunchPath):
		return "this API seems to have no such call; try the other form, Execute (POST /api/v2/architect/flows/{flowId}/execute)"
	}
	return ""
}

// Launch starts an execution, by POST /api/v2/flows/executions. It returns the
// execution's id, the only handle on it, and not its end: see [Flows.Wait]. The
// Execution is never nil: with an error it says what was tried.
func (f *Flows) Launch(ctx context.Context, launch LaunchRequest) (*Execution, error) {
	if err := CheckID(launch.FlowID); err != nil {
		return &Execution{}, err
	}
	body, err := json.Marshal(launch)
	if err != nil {
		return &Execution{}, &BodyError{Err: err}
	}
	req, err := f.NewLaunch(ctx, body)
	if err != nil {
		return &Execution{}, err
	}
	return f.execution(req, ParseLaunch)
}

// Status asks once how an execution stands, by
// GET /api/v2/flows/executions/{id}. The Execution is never nil.
func (f *Flows) Status(ctx context.Context, executionID string) (*Execution, error) {
	req, err := f.NewStatus(ctx, executionID)
	if err != nil {
		return &Execution{}, err
	}
	return f.execution(req, ParseStatus)
}

func (f *Flows) execution(req *http.Request, parse func([]byte) (*Execution, error)) (*Execution, error) {
	answer, err := f.send(req)
	e := &Execution{}
	if err == nil {
		e, err = parse(answer.body)
	}
	e.Tries, e.CorrelationID = answer.tries, answer.correlation
	return e, err
}

// How a Wait spaces its polls.
const (
	firstPoll   = time.Second
	longestPoll = 30 * time.Second
)

// Wait asks for the status of an execution until it has ended, however it ends:
// [Execution.Err] says whether it ended well. The first poll comes after about
// a second, and the time to the next grows by half up to 30 s, each drawn
// between 90 and 110 %. Every poll takes a permit, as any call does,
// one priority below its context's.
//
// If a poll fails or ctx ends, Wait returns the error and what it knew last; it
// can be called again. The Execution is never nil, and its Tries are the sums
// over all polls.
func (f *Flows) Wait(ctx context.Context, executionID string) (*Execution, error) {
	call := headgate.CallOf(ctx)
	call.Priority++ // behind the calls that somebody waits for
	ctx = headgate.WithCall(ctx, call)
	last := &Execution{ID: executionID, Status: StatusUnknown}
	for n := 0; ; n++ {
		timer := time.NewTimer(PollAfter(n))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return last, fmt.Errorf("waiting for execution %s, last seen %s: %w", executionID, last.Status, ctx.Err())
		}
		e, err := f.Status(ctx, executionID)
		tries := add(last.Tries, e.Tries)
		if err != nil {
			last.Tries = tries
			return last, fmt.Errorf("waiting for execution %s, last seen %s: %w", executionID, last.Status, err)
		}
		e.Tries = tries
		if last = e; e.Status.Ended() {
			return e, nil
		}
	}
}

// PollAfter returns how long to wait before poll n, from 0, of an execution's
// status, as [Flows.Wait] does. It is drawn by lot.
func PollAfter(n int) time.Duration {
	d := firstPoll
	for ; n > 0 && d < longestPoll; n-- {
		d += d / 2
	}
	d = min(d, longestPoll)
	return d - d/10 + rand.N(d/5)
}

// add returns the sum of two counts.
func add(a, b headgate.Tries) headgate.Tries {
	a.Sent += b.Sent
	a.Refused += b.Refused
	a.Retries += b.Retries
	a.Unanswered += b.Unanswered
	a.Unauthorized += b.Unauthorized
	a.LastBackoff = b.LastBackoff
	if len(b.Waits) == 0 {
		return a
	}
	waits := make(map[string]time.Duration, len(a.Waits)+len(b.Waits))
	for _, m := range []map[string]time.Duration{a.Waits, b.Waits} {
		for cause, d := range m {
			waits[cause] += d
		}
	}
	a.Waits = waits
	return a
}
