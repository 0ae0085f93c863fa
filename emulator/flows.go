package emulator

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// route is one of the calls that the platform knows.
type route int

const (
	routeUnknown route = iota
	routeExecute
	routeLaunch
	routeStatus
	routeLimits
)

// echoBytes is the largest payload that an answer repeats.
const echoBytes = 4096

// request is what is read from an HTTP request, before any lock.
type request struct {
	method, path string
	authorized   bool // has an Authorization header
	route        route
	template     string // the path with its ids folded
	arg          string // the id or namespace in the path

	tooLarge bool
	invalid  string // why the body is no good, or empty
	body     []byte
	flow     string
	name     string
	input    json.RawMessage
	wanted   string // what the payload asks the emulator for
	key      string // of Config.Key, or empty
	hash     uint64 // of the key
}

func newRequest(r *http.Request) *request {
	q := &request{method: r.Method, path: r.URL.Path, authorized: r.Header.Get("Authorization") != ""}
	q.template = "unknown"
	rest, ok := strings.CutPrefix(r.URL.Path, "/api/v2/")
	if !ok {
		return q
	}
	seg := strings.Split(rest, "/")
	is := func(want ...string) bool {
		if len(seg) != len(want) {
			return false
		}
		for i, w := range want {
			if seg[i] == "" || w != "" && seg[i] != w {
				return false
			}
		}
		return true
	}
	switch {
	case is("architect", "flows", "", "execute"):
		q.route, q.template, q.arg = routeExecute, "/api/v2/architect/flows/{flowId}/execute", seg[2]
	case is("flows", "executions"):
		q.route, q.template = routeLaunch, "/api/v2/flows/executions"
	case is("flows", "executions", ""):
		q.route, q.template, q.arg = routeStatus, "/api/v2/flows/executions/{flowExecutionId}", seg[2]
	case is("organizations", "limits", "namespaces", ""):
		q.route, q.template, q.arg = routeLimits, "/api/v2/organizations/limits/namespaces/{namespaceName}", seg[3]
	}
	return q
}

func (q *request) isExecution() bool { return q.route == routeExecute || q.route == routeLaunch }

// parse reads what the answer needs from the body of an execution.
func (q *request) parse(r *http.Request, body []byte, key func(*http.Request, []byte) string) {
	if !q.isExecution() || q.method != http.MethodPost {
		return
	}
	q.body = body
	if !json.Valid(body) {
		q.invalid = "The request body is not valid JSON."
		return
	}
	q.flow = q.arg
	payload := json.RawMessage(body)
	if q.route == routeLaunch {
		var b struct {
			FlowID    string          `json:"flowId"`
			Name      string          `json:"name"`
			InputData json.RawMessage `json:"inputData"`
		}
		if err := json.Unmarshal(body, &b); err != nil {
			q.invalid = "The request body does not have the form of a flow execution launch."
			return
		}
		if b.FlowID == "" {
			q.invalid = "flowId is required."
			return
		}
		q.flow, q.name, q.input = b.FlowID, b.Name, b.InputData
		payload = b.InputData
	}
	q.wanted = wanted(payload)
	if key != nil {
		q.key = key(r, body)
		sum := sha256.Sum256([]byte(q.key))
		q.hash = binary.BigEndian.Uint64(sum[:])
		return
	}
	h := sha256.New()
	h.Write([]byte(q.flow))
	h.Write([]byte{0})
	h.Write(body)
	q.hash = binary.BigEndian.Uint64(h.Sum(nil))
}

// wanted finds what a payload asks the emulator for under the name
// emulatorStatus, or Flow.emulatorStatus as inputData has it.
func wanted(payload json.RawMessage) string {
	if !bytes.Contains(payload, []byte("emulatorStatus")) {
		return ""
	}
	var m map[string]json.RawMessage
	if json.Unmarshal(payload, &m) != nil {
		return ""
	}
	for _, name := range []string{"emulatorStatus", "Flow.emulatorStatus"} {
		if raw, ok := m[name]; ok {
			var s string
			if json.Unmarshal(raw, &s) == nil {
				return s
			}
			return string(raw)
		}
	}
	return ""
}

// respondLocked answers a request that was let through, and executes it if it
// is an execution and nothing is wrong with it.
func (s *Server) respondLocked(v *visit, q *request, now time.Duration, row *Row) answer {
	method := http.MethodPost
	switch q.route {
	case routeStatus, routeLimits:
		method = http.MethodGet
	}
	switch {
	case q.route == routeUnknown,
		q.route == routeExecute && s.cfg.Endpoints == EndpointsLaunch,
		(q.route == routeLaunch || q.route == routeStatus) && s.cfg.Endpoints == EndpointsExecute:
		return platformError(404, "not found", "HTTP 404 Not Found", v.id)
	case q.method != method:
		a := platformError(405, "method not allowed", "HTTP 405 Method Not Allowed", v.id)
		a.allow = method
		return a
	case q.tooLarge:
		return platformError(413, "request.entity.too.large", fmt.Sprintf("The request body is larger than the maximum of %d bytes (request.bytes.max).", MaxBodyBytes), v.id)
	case q.invalid != "":
		return platformError(400, "bad.request", q.invalid, v.id)
	case q.route == routeStatus:
		return s.statusLocked(q.arg, v.id, now)
	case q.route == routeLimits:
		return s.limitsLocked(q.arg, now)
	case s.flows != nil && !s.flows[q.flow]:
		return platformError(404, "not.found", "The requested flow was not found.", v.id)
	}
	if status, err := strconv.Atoi(q.wanted); err == nil && status >= 400 && status <= 599 {
		return platformError(status, "emulator.asked", "The payload asked for this status.", v.id)
	}
	return s.executeLocked(v, q, now, row)
}

// executeLocked runs a flow. From here on it has happened, answered or not.
func (s *Server) executeLocked(v *visit, q *request, now time.Duration, row *Row) answer {
	row.Executed = true
	row.Key = q.key
	if row.Key == "" {
		row.Key = fmt.Sprintf("%s#%016x", q.flow, q.hash)
	}
	if v.generation == s.ledger.generation {
		s.ledger.executedOne(q.hash)
	}
	id := s.newIDLocked()
	var a answer
	if q.route == routeExecute {
		res := struct {
			ID      string          `json:"id"`
			FlowID  string          `json:"flowId"`
			Status  string          `json:"status"`
			Bytes   int             `json:"payloadBytes"`
			Payload json.RawMessage `json:"payload,omitempty"`
		}{id, q.flow, "COMPLETED", len(q.body), nil}
		if len(q.body) <= echoBytes {
			res.Payload = q.body
		}
		a = jsonAnswer(http.StatusOK, res)
	} else {
		l := s.launchLocked(id, q, now)
		a = jsonAnswer(http.StatusOK, struct {
			ID          string      `json:"id"`
			Name        string      `json:"name,omitempty"`
			FlowVersion flowVersion `json:"flowVersion"`
			SelfURI     string      `json:"selfUri"`
		}{l.id, l.name, l.version(), l.selfURI()})
	}
	a.delay = s.cfg.Latency + s.jitterLocked(s.cfg.Jitter)
	return a
}

func (s *Server) jitterLocked(d time.Duration) time.Duration {
	if d <= 0 {
		return 0
	}
	return time.Duration(s.timeRand.Float64() * float64(d))
}

// limitsLocked is the limits API: what holds now.
func (s *Server) limitsLocked(namespace string, now time.Duration) answer {
	entities := []limitBody{}
	for _, r := range s.rules {
		if r.Namespace == namespace {
			entities = append(entities, limitBody{r.Name, r.Namespace, r.value(r.settings[r.settingAt(now-s.start)])})
		}
	}
	a := jsonAnswer(http.StatusOK, struct {
		Entities []limitBody `json:"entities"`
	}{entities})
	a.delay = s.cfg.ReadLatency
	return a
}

// launch is one execution of the asynchronous form.
type launch struct {
	id, flow, name string
	input          json.RawMessage
	launched       time.Time
	ends           time.Duration // since New
	end            string        // the status it ends with
}

type flowVersion struct {
	ID      string `json:"id"`
	Name    string `json:"name"`
	SelfURI string `json:"selfUri"`
}

func (l *launch) version() flowVersion {
	return flowVersion{"1.0", "1.0", "/api/v2/flows/" + l.flow + "/versions/1.0"}
}

func (l *launch) selfURI() string { return "/api/v2/flows/executions/" + l.id }

// launches remembers the newest executions.
type launches struct {
	keep int
	byID map[string]*launch
	ring []string
	next int
}

func (ls *launches) add(l *launch) {
	if len(ls.ring) < ls.keep {
		ls.ring = append(ls.ring, l.id)
	} else {
		delete(ls.byID, ls.ring[ls.next])
		ls.ring[ls.next] = l.id
		ls.next = (ls.next + 1) % ls.keep
	}
	ls.byID[l.id] = l
}

func (s *Server) launchLocked(id string, q *request, now time.Duration) *launch {
	l := &launch{id: id, flow: q.flow, name: q.name, launched: time.Now(), ends: now + s.cfg.RunTime + s.jitterLocked(s.cfg.RunJitter)}
	if len(q.input) <= echoBytes {
		l.input = q.input
	}
	o := s.cfg.Outcomes
	x := s.timeRand.Float64()
	switch {
	case slices.Contains([]string{"COMPLETED", "FAILED", "ERROR", "TERMINATED", "RUNNING", "UNKNOWN"}, q.wanted):
		l.end = q.wanted
	case x < o.Failed:
		l.end = "FAILED"
	case x < o.Failed+o.Error:
		l.end = "ERROR"
	case x < o.Failed+o.Error+o.Terminated:
		l.end = "TERMINATED"
	default:
		l.end = "COMPLETED"
	}
	s.launches.add(l)
	return l
}

// statusLocked is what a status poll gets.
func (s *Server) statusLocked(id, correlation string, now time.Duration) answer {
	l := s.launches.byID[id]
	if l == nil {
		return platformError(404, "not.found", "The requested flow execution was not found.", correlation)
	}
	const stamp = "2006-01-02T15:04:05.000Z"
	type flowError struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	}
	b := struct {
		ID            string          `json:"id"`
		Name          string          `json:"name,omitempty"`
		FlowVersion   flowVersion     `json:"flowVersion"`
		DateLaunched  string          `json:"dateLaunched"`
		Status        string          `json:"status"`
		DateCompleted string          `json:"dateCompleted,omitempty"`
		OutputData    json.RawMessage `json:"outputData,omitempty"`
		FlowErrorInfo *flowError      `json:"flowErrorInfo,omitempty"`
		SelfURI       string          `json:"selfUri"`
	}{ID: l.id, Name: l.name, FlowVersion: l.version(), DateLaunched: l.launched.UTC().Format(stamp), Status: "RUNNING", SelfURI: l.selfURI()}
	if now >= l.ends {
		b.Status = l.end
	}
	switch b.Status {
	case "RUNNING", "UNKNOWN":
	default:
		b.DateCompleted = s.epoch.Add(l.ends).UTC().Format(stamp)
	}
	switch b.Status {
	case "COMPLETED":
		b.OutputData = l.input
		if b.OutputData == nil {
			b.OutputData = json.RawMessage("{}")
		}
	case "FAILED", "ERROR":
		b.FlowErrorInfo = &flowError{"flow.execution." + strings.ToLower(b.Status), "The emulator was told to end the flow this way."}
	}
	a := jsonAnswer(http.StatusOK, b)
	a.delay = s.cfg.ReadLatency
	return a
}
