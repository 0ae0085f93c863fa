package gateway

import (
	"encoding/json"
	"math"
	"net/http"
	"strconv"
	"time"
)

// problem is an answer of the gateway's own, in the form of RFC 9457: the
// platform's never have its media type, so that they can be told apart.
type problem struct {
	Type   string `json:"type"` // a path here, where it is explained
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail,omitempty"`
	// Instance is the execution that it is about.
	Instance string `json:"instance,omitempty"`
	// Limit is the limit that stands in the way.
	Limit string `json:"limit,omitempty"`
	// RetryAfter is the field of that name, in seconds and not rounded.
	RetryAfter float64 `json:"retry_after,omitempty"`
	// Sent is how often the request has left before, if it did.
	Sent int `json:"sent,omitempty"`

	header map[string]string
	counts string // the reason in the metrics, if a bound is in the way
}

const problemsPath = "/headgate/v1/problems/"

// kindOfProblem is one kind, with what it means to whoever meets it.
type kindOfProblem struct {
	name   string
	status int
	title  string
	means  string
}

// The kinds of problems. docs/http-api.md lists them.
var (
	badRequest     = kindOfProblem{"bad-request", 400, "The request can't be understood", "Something in the request itself is wrong: the detail names the header field, the parameter or the part of the path. Nothing was sent. The same request will be refused again."}
	noKey          = kindOfProblem{"unauthorized", 401, "No valid key", "The gateway knows callers by their keys. Log in at /oauth/token with the caller's name and key, or send the key as a bearer token. What is wrong with it is not said."}
	forbidden      = kindOfProblem{"forbidden", 403, "Not with this key", "The key is good, and not for this: another caller's execution, or what only operators may do. A page of another site may not do anything either."}
	unknownOrg     = kindOfProblem{"unknown-org", 404, "No such org", "Neither the host name, nor the beginning of the path, nor the key leads to an org of the gateway's file."}
	notFound       = kindOfProblem{"not-found", 404, "Not found", "The gateway has no such thing. Calls to the platform are below /api/."}
	wrongMethod    = kindOfProblem{"method-not-allowed", 405, "Not with this method", "The field Allow says which methods there are."}
	conflict       = kindOfProblem{"conflict", 409, "Not in this state", "The execution has gone on meanwhile: look at it again."}
	bodyTooLarge   = kindOfProblem{"body-too-large", 413, "The body is too large", "The detail says how much is taken. What is to be stored for later is bounded more tightly than what passes through."}
	keyReused      = kindOfProblem{"key-reused", 422, "The Idempotency-Key belongs to another request", "The same key came before with another method, path or body. Nothing was accepted and nothing was sent."}
	tooSoon        = kindOfProblem{"limit", 429, "It could not have gone in time", "The platform's limit leaves no place for the call within the time that it may wait. It was not sent, or was surely not executed. Retry-After says when its turn would come, by its place in line and the pace of the limit. With Prefer: respond-async it would have been accepted for later."}
	slowBody       = kindOfProblem{"slow-body", 408, "The body did not come", "The body of the request came too slowly. The platform has never had all of it."}
	overBound      = kindOfProblem{"busy", 503, "The gateway holds as much as it may", "A bound of the gateway's file is reached: calls held, or executions or bytes queued, in all or of this caller. Nothing was accepted and nothing was sent."}
	diskFull       = kindOfProblem{"storage", 503, "Nothing can be stored now", "What is accepted must be on disk first, and the disk takes nothing. Nothing was accepted and nothing was sent. Calls that wait for their answer go on."}
	draining       = kindOfProblem{"draining", 503, "The gateway is about to stop", "It was not sent. Send it again: another process will take it."}
	cannotLogIn    = kindOfProblem{"login", 502, "The platform does not let the gateway in", "The gateway can't log in for this org: its operator must look at its credentials. Nothing was sent."}
	unreachable    = kindOfProblem{"unreachable", 502, "The platform can't be reached", "No connection could be made. Nothing was sent."}
	unknownOutcome = kindOfProblem{"unknown-outcome", 502, "Nobody knows whether it was executed", "The request left, and no usable answer came. It may have been executed. Sending it again may execute it twice."}
	expired        = kindOfProblem{"expired", 504, "Its time was over before it was sent", "It was surely not executed."}
	loginMode      = kindOfProblem{"pass-through", 501, "Not where tokens pass through", "The caller's own token goes to the platform for this org, and is never stored: calls can't be kept for later."}
)

func kindsOfProblems() []kindOfProblem {
	return []kindOfProblem{
		badRequest, noKey, forbidden, unknownOrg, notFound, wrongMethod, conflict, bodyTooLarge, keyReused, tooSoon, slowBody,
		overBound, diskFull, draining, cannotLogIn, unreachable, unknownOutcome, expired, loginMode,
	}
}

// problem returns one of that kind.
func (k *kindOfProblem) problem(detail string) *problem {
	return &problem{Type: problemsPath + k.name, Title: k.title, Status: k.status, Detail: detail}
}

// retryAfter sets the field, in whole seconds rounded up, at least one.
func (p *problem) retryAfter(d time.Duration) *problem {
	d = max(d, 0)
	p.RetryAfter = math.Round(d.Seconds()*1000) / 1000
	return p.with("Retry-After", strconv.FormatInt(int64(max(1, math.Ceil(d.Seconds()))), 10))
}

// with sets a header field.
func (p *problem) with(field, value string) *problem {
	if p.header == nil {
		p.header = map[string]string{}
	}
	p.header[field] = value
	return p
}

// write answers with p.
func (p *problem) write(w http.ResponseWriter) {
	h := w.Header()
	for field, value := range p.header {
		h.Set(field, value)
	}
	h.Set("Content-Type", "application/problem+json")
	h.Set("Cache-Control", "no-store")
	h.Del("Content-Length")
	h.Del("Content-Encoding")
	w.WriteHeader(p.Status)
	json.NewEncoder(w).Encode(p)
}

// explain serves what the types of problems lead to.
func explain(w http.ResponseWriter, name string) {
	for _, k := range kindsOfProblems() {
		if k.name == name {
			w.Header().Set("Content-Type", "text/plain; charset=utf-8")
			w.Write([]byte(k.title + " (" + strconv.Itoa(k.status) + ")\n\n" + k.means + "\n"))
			return
		}
	}
	notFound.problem("there is no such kind of problem").write(w)
}
