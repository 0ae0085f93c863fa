package gateway

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/headgate/headgate/internal/queue"
)

const (
	executionsPath = "/headgate/v1/executions/"
	listMost       = 500 // executions on one page
	listDefault    = 50
	longPollMost   = 5 * time.Minute
)

// seconds is a time as the API writes it.
type seconds float64

func secondsOf(d time.Duration) seconds { return seconds(d.Round(time.Millisecond).Seconds()) }

// executionView is an execution as the API shows it.
type executionView struct {
	ID       string             `json:"id"`
	Self     string             `json:"self"`
	Org      string             `json:"org"`
	Caller   string             `json:"caller,omitempty"`
	Key      string             `json:"idempotency_key,omitempty"`
	State    string             `json:"state"` // queued, sending or an outcome
	Method   string             `json:"method"`
	Path     string             `json:"path"`
	Urgency  int                `json:"urgency"`
	Delivery string             `json:"delivery,omitempty"`
	Accepted time.Time          `json:"accepted,omitzero"`
	Deadline time.Time          `json:"deadline,omitzero"`
	Due      time.Time          `json:"due,omitzero"`
	Ended    time.Time          `json:"ended,omitzero"`
	Estimate *seconds           `json:"estimate,omitempty"`
	Sent     int                `json:"sent"`
	Refused  int                `json:"refused,omitempty"`
	Retries  int                `json:"retries,omitempty"`
	Maybe    int                `json:"maybe_executed,omitempty"`
	Waits    map[string]seconds `json:"waits,omitempty"`
	Status   int                `json:"status,omitempty"`
	Reason   string             `json:"reason,omitempty"`
	// Answer is there for one execution alone: JSON as it is, other text as a
	// string, anything else as base64.
	Answer         json.RawMessage `json:"answer,omitempty"`
	AnswerType     string          `json:"answer_type,omitempty"`
	AnswerEncoding string          `json:"answer_encoding,omitempty"`
}

// stateWord is the word of the API for a state: that an execution was claimed
// is the queue's own affair.
func stateWord(s queue.State) string {
	switch s {
	case queue.Claimed:
		return queue.Queued.String()
	case queue.Sent:
		return "sending"
	}
	return s.String()
}

// view makes of x what the API shows.
func (o *org) view(x *queue.Execution, whole bool) executionView {
	v := executionView{
		ID: o.idOf(x.ID), Self: executionsPath + o.idOf(x.ID), Org: o.name, Caller: x.Caller, Key: x.Key,
		State: stateWord(x.State), Method: x.Method, Path: x.Path, Urgency: x.Priority + defaultUrgency,
		Accepted: x.Accepted, Deadline: x.Deadline, Due: x.Due, Ended: x.Ended,
		Sent: x.Tally.Sent, Refused: x.Tally.Refused, Retries: x.Tally.Retries, Maybe: x.Tally.Unanswered,
		Status: x.Status, Reason: x.Reason,
	}
	if x.Delivery != queue.AsConfigured {
		v.Delivery = x.Delivery.String()
	}
	for cause, d := range x.Tally.Waits {
		if v.Waits == nil {
			v.Waits = map[string]seconds{}
		}
		v.Waits[cause] = secondsOf(d)
	}
	if whole && x.Answer != nil {
		v.AnswerType = x.AnswerType
		v.Answer, v.AnswerEncoding = answerJSON(x.Answer)
	}
	return v
}

func answerJSON(answer []byte) (text json.RawMessage, encoding string) {
	switch {
	case json.Valid(answer):
		return answer, ""
	case utf8.Valid(answer):
		text, _ = json.Marshal(string(answer))
		return text, "text"
	}
	text, _ = json.Marshal(base64.StdEncoding.EncodeToString(answer))
	return text, "base64"
}

// serveExecutions serves what is below /headgate/v1/executions. Callers see
// their own executions, operators all.
func (g *Gateway) serveExecutions(w http.ResponseWriter, r *http.Request, who identity, path string) {
	id, action, _ := strings.Cut(path, "/")
	switch {
	case id == "" && action == "":
		if allow(w, r, http.MethodGet, http.MethodHead) {
			g.list(w, r, who)
		}
		return
	case action != "" && action != "resolve" && action != "answer":
		notFound.problem("an execution has /answer and /resolve").write(w)
		return
	}
	o, x, p := g.find(r.Context(), who, id)
	if p != nil {
		p.write(w)
		return
	}
	switch action {
	case "answer":
		if allow(w, r, http.MethodGet, http.MethodHead) {
			g.rawAnswer(w, r, o, x)
		}
	case "resolve":
		if allow(w, r, http.MethodPost) {
			g.resolve(w, r, who, o, x)
		}
	default:
		switch {
		case !allow(w, r, http.MethodGet, http.MethodHead, http.MethodDelete):
		case r.Method == http.MethodDelete:
			g.cancel(w, r, o, x)
		case wantsEvents(r):
			g.streamExecution(w, r, o, x)
		default:
			g.get(w, r, o, x)
		}
	}
}

// allow reports whether the request has one of the methods, and answers it if
// not.
func allow(w http.ResponseWriter, r *http.Request, methods ...string) bool {
	if slices.Contains(methods, r.Method) {
		return true
	}
	list := strings.Join(methods, ", ")
	wrongMethod.problem("it takes "+list).with("Allow", list).write(w)
	return false
}

// find looks an execution up. One of another caller's is not there.
func (g *Gateway) find(ctx context.Context, who identity, id string) (*org, *queue.Execution, *problem) {
	none := notFound.problem("there is no execution with this id: it may have been forgotten some time after its end")
	name, n, ok := parseID(id)
	if !ok {
		return nil, nil, none
	}
	o := g.setting().org(name)
	if o == nil || !who.sees(o) {
		return nil, nil, none
	}
	x, err := o.store.Get(ctx, n)
	switch {
	case errors.Is(err, queue.ErrNotFound):
		return nil, nil, none
	case err != nil:
		o.log.Warn("an execution can't be read", "err", err)
		return nil, nil, diskFull.problem("the journal can't be read").retryAfter(5 * time.Second)
	case who.operator == "" && x.Caller != who.caller.name:
		return nil, nil, none
	}
	return o, &x, nil
}

// writeJSON answers with v.
func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(v)
}

// get answers with one execution, after Prefer: wait=N when it has ended or the
// time is over.
func (g *Gateway) get(w http.ResponseWriter, r *http.Request, o *org, x *queue.Execution) {
	wish, err := parseWish(r.Header, time.Now())
	if err != nil {
		badRequest.problem(err.Error()).write(w)
		return
	}
	if wish.hasWait && !x.State.Ended() {
		leave, p := o.attend()
		if p != nil {
			p.write(w)
			return
		}
		defer leave()
		if ended, ok := o.await(r.Context(), x.ID, min(wish.wait, longPollMost)); ok {
			x = ended
		} else if now, err := o.store.Get(r.Context(), x.ID); err == nil {
			x = &now
		}
		w.Header().Set("Preference-Applied", "wait="+strconv.Itoa(int(min(wish.wait, longPollMost).Seconds())))
	}
	v := o.view(x, true)
	if x.State == queue.Queued || x.State == queue.Claimed {
		v.Estimate = new(secondsOf(o.estimate(x)))
	}
	writeJSON(w, http.StatusOK, v)
}

// rawAnswer answers as the platform did.
func (g *Gateway) rawAnswer(w http.ResponseWriter, r *http.Request, o *org, x *queue.Execution) {
	if !x.State.Ended() {
		p := conflict.problem("it has no answer yet: it is " + stateWord(x.State))
		p.Instance = executionsPath + o.idOf(x.ID)
		p.write(w)
		return
	}
	// It is the platform's, and may be a page. In a browser it must not act for
	// the operator who looks at it.
	w.Header().Set("Content-Security-Policy", "default-src 'none'; sandbox")
	o.answer(w, x)
}

// cancel ends an execution that has not been sent.
func (g *Gateway) cancel(w http.ResponseWriter, r *http.Request, o *org, x *queue.Execution) {
	now, p := o.cancel(r.Context(), x.ID)
	if p != nil {
		p.write(w)
		return
	}
	writeJSON(w, http.StatusOK, o.view(now, true))
}

// resolve decides about an unknown execution.
func (g *Gateway) resolve(w http.ResponseWriter, r *http.Request, who identity, o *org, x *queue.Execution) {
	var body struct {
		Action string `json:"action"`
	}
	if kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); kind != "application/json" {
		badRequest.problem("the header field Content-Type: takes application/json").write(w)
		return
	}
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, 4096))
	d.DisallowUnknownFields()
	if err := d.Decode(&body); err != nil {
		badRequest.problem(`the body: takes {"action": "send-again"} or {"action": "give-up"}`).write(w)
		return
	}
	now, p := o.resolve(r.Context(), x.ID, body.Action, who.name())
	if p != nil {
		p.write(w)
		return
	}
	writeJSON(w, http.StatusOK, o.view(now, true))
}

// list answers with a page of executions, the newest first.
func (g *Gateway) list(w http.ResponseWriter, r *http.Request, who identity) {
	q, p := g.parseList(r, who)
	if p != nil {
		p.write(w)
		return
	}
	out := struct {
		Executions []executionView `json:"executions"`
		Next       string          `json:"next,omitempty"`
	}{Executions: []executionView{}}
	q.filter.Limit++
	for x, err := range q.org.store.Each(r.Context(), q.filter) {
		if err != nil {
			q.org.log.Warn("executions can't be read", "err", err)
			diskFull.problem("the journal can't be read").retryAfter(5 * time.Second).write(w)
			return
		}
		if len(out.Executions) == q.filter.Limit-1 {
			next := r.URL.Query()
			next.Set("after", out.Executions[len(out.Executions)-1].ID)
			out.Next = strings.TrimSuffix(executionsPath, "/") + "?" + next.Encode()
			break
		}
		out.Executions = append(out.Executions, q.org.view(&x, false))
	}
	writeJSON(w, http.StatusOK, out)
}

type listQuery struct {
	org    *org
	filter queue.Filter
}

// parseList reads the parameters of a list.
func (g *Gateway) parseList(r *http.Request, who identity) (q listQuery, p *problem) {
	bad := func(name, takes string) *problem {
		return badRequest.problem(fmt.Sprintf("the parameter %s takes %s", name, takes))
	}
	q.filter = queue.Filter{Newest: true, Limit: listDefault}
	parameters, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return q, badRequest.problem("the query can't be read: it takes parameters such as limit=50&state=queued")
	}
	for name, values := range parameters {
		value := values[len(values)-1]
		switch name {
		case "org":
			if q.org = g.setting().org(value); q.org == nil || !who.sees(q.org) {
				return q, unknownOrg.problem("there is no org with this name")
			}
		case "state":
			for word := range strings.SplitSeq(strings.Join(values, ","), ",") {
				states, ok := statesOf(word)
				if !ok {
					return q, bad(name, "queued, sending, done, failed, expired or unknown, or several with commas")
				}
				q.filter.States = append(q.filter.States, states...)
			}
		case "caller":
			q.filter.Caller = value
		case "limit":
			n, err := strconv.Atoi(value)
			if err != nil || n < 1 || n > listMost {
				return q, bad(name, fmt.Sprintf("1 to %d", listMost))
			}
			q.filter.Limit = n
		case "order":
			if value != "newest" && value != "oldest" {
				return q, bad(name, "newest or oldest")
			}
			q.filter.Newest = value == "newest"
		case "after":
			_, n, ok := parseID(value)
			if !ok {
				return q, bad(name, "the id of the last execution of the page before")
			}
			q.filter.After = n
		default:
			return q, badRequest.problem("there is no parameter " + strconv.Quote(name) + ": there are org, state, caller, limit, order and after")
		}
	}
	if who.operator == "" {
		q.filter.Caller = who.caller.name
		q.org = who.org
	}
	if q.org == nil {
		if q.org = g.setting().only(); q.org == nil {
			return q, bad("org", "the name of an org: there are several")
		}
	}
	return q, nil
}

func statesOf(word string) ([]queue.State, bool) {
	switch word {
	case "queued":
		return []queue.State{queue.Queued, queue.Claimed}, true
	case "sending":
		return []queue.State{queue.Sent}, true
	}
	for _, s := range []queue.State{queue.Done, queue.Failed, queue.Expired, queue.Unknown} {
		if s.String() == word {
			return []queue.State{s}, true
		}
	}
	return nil, false
}

func wantsEvents(r *http.Request) bool {
	return strings.Contains(r.Header.Get("Accept"), "text/event-stream")
}

// streamExecution tells of each change of an execution, as server-sent events,
// until it has ended.
func (g *Gateway) streamExecution(w http.ResponseWriter, r *http.Request, o *org, x *queue.Execution) {
	leave, p := o.attend()
	if p != nil {
		p.write(w)
		return
	}
	defer leave()
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no")
	control := http.NewResponseController(w)
	var last []byte
	for {
		changed := o.watch(x.ID)
		now, err := o.store.Get(r.Context(), x.ID)
		if err != nil {
			o.unwatch(x.ID, changed)
			return
		}
		v := o.view(&now, now.State.Ended())
		text, _ := json.Marshal(v)
		if string(text) != string(last) {
			fmt.Fprintf(w, "event: %s\ndata: %s\n\n", v.State, text)
			last = text
		} else {
			fmt.Fprint(w, ": still there\n\n")
		}
		if control.Flush() != nil || now.State.Ended() {
			o.unwatch(x.ID, changed)
			return
		}
		select {
		case <-changed:
		case <-time.After(15 * time.Second):
		case <-r.Context().Done():
		case <-g.draining:
		}
		o.unwatch(x.ID, changed)
		if r.Context().Err() != nil || g.isDraining() {
			return
		}
	}
}
