package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/headgate/headgate"
	"github.com/headgate/headgate/internal/queue"
)

// extra is what an execution's request needs beside its body, as it is stored.
type extra struct {
	Header   http.Header `json:"header,omitempty"`
	Callback string      `json:"callback,omitempty"`
}

// keptFields are the header fields that are stored with a call that is kept for
// later, in alphabetical order. No others are: there may be a secret in them.
var keptFields = []string{
	"Accept", "Accept-Language", "Content-Encoding", "Content-Language", "Content-Type",
	"If-Match", "If-None-Match", "If-Unmodified-Since", "Traceparent", "Tracestate", "User-Agent",
}

func isKept(field string) bool { return slices.Contains(keptFields, field) }

// encodeExtra is json.Marshal of the extra of a request with this header, without
// the map that it would take for each call.
func encodeExtra(h http.Header, callback string) []byte {
	b := append(make([]byte, 0, 128), '{')
	for _, name := range keptFields {
		values := h[name]
		if len(values) == 0 {
			continue
		}
		if len(b) == 1 {
			b = append(b, `"header":{`...)
		} else {
			b = append(b, ',')
		}
		b = append(appendJSON(b, name), ':', '[')
		for i, v := range values {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendJSON(b, v)
		}
		b = append(b, ']')
	}
	if len(b) > 1 {
		b = append(b, '}')
	}
	if callback != "" {
		if len(b) > 1 {
			b = append(b, ',')
		}
		b = appendJSON(append(b, `"callback":`...), callback)
	}
	return append(b, '}')
}

// appendJSON appends s as a string of JSON.
func appendJSON(b []byte, s string) []byte {
	for i := range len(s) {
		switch c := s[i]; {
		case c < ' ', c > '~', c == '"', c == '\\', c == '<', c == '>', c == '&':
			text, _ := json.Marshal(s) // no string fails
			return append(b, text...)
		}
	}
	return append(append(append(b, '"'), s...), '"')
}

// keep accepts a call for later: it is answered once the call is on disk, and
// the call ends in one outcome whatever happens then. A caller that wants to
// wait for that may.
func (c *held) keep(w http.ResponseWriter, r *http.Request) {
	xs, p := c.execution(r)
	if p == nil {
		p = c.org.add(r.Context(), c, xs)
	}
	if p != nil {
		c.refuse(w, p)
		return
	}
	x := &xs[0]
	c.over("accepted", http.StatusAccepted, c.org.idOf(x.ID))
	wait := c.wish.wait
	switch {
	case c.later, c.wish.async && !c.wish.hasWait:
		wait = 0
	case !c.wish.hasWait:
		wait = c.org.settings().MaxWait
	}
	if wait > 0 {
		if ended, ok := c.org.await(r.Context(), x.ID, wait); ok {
			c.org.answer(w, ended)
			return
		}
	}
	c.org.accepted(w, c, x)
}

// execution makes of a call the one execution that is stored.
func (c *held) execution(r *http.Request) ([]queue.Execution, *problem) {
	switch {
	case c.org.settings().PassThrough:
		return nil, loginMode.problem("the org " + c.org.name + " passes tokens through")
	case c.streamed:
		return nil, tooLarge(c.g.file().Bounds.Buffer)
	}
	xs := []queue.Execution{{
		Caller: c.caller.name, Weight: c.caller.weight(), Key: c.wish.key, Accepted: c.came,
		Method: r.Method, Path: c.path, Body: c.body,
		Priority: c.urgency - defaultUrgency, Deadline: c.wish.deadline,
		Delivery: queueDelivery(c.delivery(r.Method)),
	}}
	x := &xs[0]
	if r.URL.RawQuery != "" {
		x.Path += "?" + r.URL.RawQuery
	}
	header := r.Header
	if c.span != nil {
		header = header.Clone()
		c.span.Inject(header)
	}
	x.Extra = encodeExtra(header, c.wish.callback)
	// What c.later has cost already is not forgotten.
	x.Tally.Sent, x.Tally.Refused, x.Tally.Retries, x.Tally.Waits = c.tries.Sent, c.tries.Refused, c.tries.Retries, c.tries.Waits
	return xs, nil
}

func queueDelivery(d headgate.Delivery) queue.Delivery {
	if d == headgate.AtMostOnce {
		return queue.AtMostOnce
	}
	return queue.AtLeastOnce
}

// add stores the one execution of xs, within the bounds, and has it sent when its
// turn comes.
func (o *org) add(ctx context.Context, c *held, xs []queue.Execution) *problem {
	x := &xs[0]
	release, p := o.admit(c.caller, int64(len(x.Body)))
	if p != nil {
		return p
	}
	// Not with ctx: a caller that goes away must not leave in doubt whether
	// it was accepted for those who share its transaction.
	ctx = context.WithoutCancel(ctx)
	var err error
	if c.wish.callback == "" {
		err = o.store.Add(ctx, xs)
	} else {
		err = o.store.AddNoted(ctx, xs, callbackNote)
	}
	release()
	if err != nil {
		o.log.Warn("a call could not be accepted", "err", err)
		p := diskFull.problem("the journal can't be written: " + storeTrouble(err)).retryAfter(5 * time.Second)
		p.counts = "storage"
		return p
	}
	if !x.Existing {
		o.meter.Accepted(x.Caller)
		o.dispatcher.Wake(x.Place())
		return nil
	}
	return o.sameAgain(ctx, x)
}

// sameAgain checks that a request with the key of another is that one again.
func (o *org) sameAgain(ctx context.Context, x *queue.Execution) *problem {
	first, err := o.store.Get(ctx, x.ID)
	if err != nil {
		return diskFull.problem("the journal can't be read").retryAfter(5 * time.Second)
	}
	if first.Method != x.Method || first.Path != x.Path || !bytes.Equal(first.Body, x.Body) {
		p := keyReused.problem("the key came first with another request, which is execution " + o.idOf(x.ID))
		p.Instance = executionsPath + o.idOf(x.ID)
		return p
	}
	first.Existing = true
	*x = first
	return nil
}

// storeTrouble says what kind of trouble a store has, without its path.
func storeTrouble(err error) string {
	switch {
	case errors.Is(err, queue.ErrFull):
		return "the disk is full"
	case errors.Is(err, queue.ErrClosed):
		return "it is closed"
	}
	return "see the gateway's log"
}

// accepted answers a call that is kept for later.
func (o *org) accepted(w http.ResponseWriter, c *held, x *queue.Execution) {
	v := o.view(x, false)
	if x.State == queue.Queued {
		v.Estimate = new(secondsOf(o.estimate(x)))
	}
	h := w.Header()
	h.Set("Location", v.Self)
	h.Set(fieldExecution, v.ID)
	h.Set("Preference-Applied", "respond-async")
	h.Set("Content-Type", "application/json")
	if v.Estimate != nil {
		h.Set("Retry-After", strconv.Itoa(max(1, int(float64(*v.Estimate)+0.999))))
	}
	w.WriteHeader(http.StatusAccepted)
	json.NewEncoder(w).Encode(v)
}

// answer gives the platform's answer to an execution to whoever waited for it,
// as it came, or says why there is none.
func (o *org) answer(w http.ResponseWriter, x *queue.Execution) {
	h := w.Header()
	h.Set(fieldExecution, o.idOf(x.ID))
	h.Set(fieldWait, waitField(x.Tally.Waits))
	h.Set(fieldAttempts, strconv.Itoa(x.Tally.Sent))
	if x.Tally.Unanswered > 0 {
		h.Set(fieldMaybe, strconv.Itoa(x.Tally.Unanswered))
	}
	o.rateLimits(h)
	var p *problem
	switch {
	case x.State == queue.Expired:
		p = expired.problem(x.Reason)
	case x.State == queue.Unknown || x.Status == 0:
		p = unknownOutcome.problem(x.Reason)
		p.Sent = x.Tally.Sent
	default:
		if x.AnswerType != "" {
			h.Set("Content-Type", x.AnswerType)
		}
		w.WriteHeader(x.Status)
		w.Write(x.Answer)
		return
	}
	p.Instance = executionsPath + o.idOf(x.ID)
	p.write(w)
}

// idOf is an execution's id as its callers know it.
func (o *org) idOf(id int64) string { return o.name + "." + strconv.FormatInt(id, 10) }

// parseID takes an id apart.
func parseID(id string) (org string, n int64, ok bool) {
	org, text, ok := strings.Cut(id, ".")
	if !ok || len(text) > 19 {
		return "", 0, false
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 1 || strconv.FormatInt(n, 10) != text {
		return "", 0, false
	}
	return org, n, true
}

// estimate says when x will have been sent, if nothing comes in between: by what
// is kept that may go before it, x itself, what is held, and the pace of the
// limits. Where callers share, it may be sooner.
func (o *org) estimate(x *queue.Execution) time.Duration {
	counts, err := o.store.Counts(context.Background())
	if err != nil {
		return 0
	}
	ahead := o.store.Ahead(x.Priority) - counts[queue.Sent] + o.held.Load()
	return o.limiter.Forecast(o.ask("/api/", x.Priority), int(max(1, ahead))).Wait
}
