package genesys

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/headgate/headgate"
	"github.com/headgate/headgate/emulator"
)

var plenty = []headgate.Limit{TokenLimit(1000, 1000)}

func TestExecute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := connect(t, emulator.Config{Limits: []emulator.Limit{}}, Config{Limits: plenty})
		for _, payload := range []any{nil, map[string]int{"n": 1}, []byte(`{"n":2}`), json.RawMessage(`{"n":3}`), struct {
			N int `json:"n"`
		}{4}} {
			res, err := p.org.Flows().Execute(t.Context(), "flow-1", payload)
			if err != nil {
				t.Fatal(err)
			}
			var got struct {
				FlowID  string          `json:"flowId"`
				Payload json.RawMessage `json:"payload"`
			}
			if err := json.Unmarshal(res.Output, &got); err != nil {
				t.Fatal(err)
			}
			want, err := encode(payload)
			if err != nil || got.FlowID != "flow-1" || string(got.Payload) != string(want) || res.Status != 200 || res.Tries.Sent != 1 {
				t.Errorf("%+v of %s, want payload %s", res, res.Output, want)
			}
		}
		for row := range p.Emulator.Ledger() {
			if row.Path != "/oauth/token" && row.Path != "/api/v2/architect/flows/flow-1/execute" {
				t.Errorf("path %s", row.Path)
			}
		}
	})
}

func TestNothingIsSentThatCannotBe(t *testing.T) {
	base := roundTrip(func(*http.Request) (*http.Response, error) {
		t.Error("it was sent")
		return nil, io.EOF
	})
	f := &Flows{Transport: &headgate.Transport{Base: base}, APIURL: "https://api.test"}
	ctx := t.Context()
	largest := []byte(`"` + strings.Repeat("a", MaxRequestBytes-2) + `"`)
	for name, c := range map[string]struct {
		do   func() (any, error)
		want string
	}{
		"one byte too many": {func() (any, error) { return f.Execute(ctx, "a", append(largest, ' ')) }, "the body has 512001 bytes, the platform's request.bytes.max is 512000"},
		"launch too large": {func() (any, error) {
			return f.Launch(ctx, LaunchRequest{FlowID: "a", Name: string(largest)})
		}, "request.bytes.max"},
		"not JSON":      {func() (any, error) { return f.Execute(ctx, "a", []byte(`{`)) }, "the body is not JSON: unexpected end"},
		"not encodable": {func() (any, error) { return f.Execute(ctx, "a", make(chan int)) }, "the body is not JSON: json: unsupported type"},
		"input not encodable": {func() (any, error) {
			return f.Launch(ctx, LaunchRequest{FlowID: "a", InputData: map[string]any{"a": func() {}}})
		}, "the body is not JSON"},
		"no flow":         {func() (any, error) { return f.Execute(ctx, "", nil) }, "the id is empty"},
		"no flow, launch": {func() (any, error) { return f.Launch(ctx, LaunchRequest{}) }, "the id is empty"},
		"slash":           {func() (any, error) { return f.Execute(ctx, "a/b", nil) }, `"a/b" can't be an id`},
		"dots":            {func() (any, error) { return f.Status(ctx, "..") }, `".." can't be an id`},
		"newline":         {func() (any, error) { return f.Status(ctx, "a\nb") }, `"a b" can't be an id`},
	} {
		_, err := c.do()
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
			continue
		}
		_, body := errors.AsType[*BodyError](err)
		_, id := errors.AsType[*FlowIDError](err)
		if !body && !id {
			t.Errorf("%s: %T", name, err)
		}
	}
	if err := CheckBody(largest); err != nil {
		t.Errorf("%d bytes: %v", len(largest), err)
	}
}

func TestPaths(t *testing.T) {
	f := &Flows{APIURL: "https://api.test/prefix/"}
	for id, want := range map[string]string{
		"9f1c2b7e-0000-4000-8000-000000000001": "https://api.test/prefix/api/v2/architect/flows/9f1c2b7e-0000-4000-8000-000000000001/execute",
		"a?b#c%é":                              "https://api.test/prefix/api/v2/architect/flows/a%3Fb%23c%25%C3%A9/execute",
	} {
		req, err := f.NewExecute(t.Context(), id, []byte("{}"))
		if err != nil || req.URL.String() != want || req.Method != "POST" || req.GetBody == nil || req.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%q: %v, %v, want %s", id, req.URL, err, want)
		}
	}
	if got := StatusPath("a/b"); got != "/api/v2/flows/executions/a%2Fb" {
		t.Error(got)
	}
}

func TestErrorsOfTheAPI(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := connect(t, emulator.Config{Limits: []emulator.Limit{}, Flows: []string{"F"}, Endpoints: emulator.EndpointsLaunch}, Config{Limits: plenty})
		ctx := t.Context()
		for name, c := range map[string]struct {
			do     func() (headgate.Tries, error)
			status int
			hint   string
		}{
			"no such endpoint": {func() (headgate.Tries, error) {
				res, err := p.org.Flows().Execute(ctx, "F", nil)
				return res.Tries, err
			}, 404, "Launch"},
			"no such flow": {func() (headgate.Tries, error) {
				e, err := p.org.Flows().Launch(ctx, LaunchRequest{FlowID: "G"})
				return e.Tries, err
			}, 404, ""},
			"bad request": {func() (headgate.Tries, error) {
				e, err := p.org.Flows().Launch(ctx, LaunchRequest{FlowID: "F", InputData: map[string]any{"Flow.emulatorStatus": 403}})
				return e.Tries, err
			}, 403, ""},
		} {
			tries, err := c.do()
			e, ok := errors.AsType[*APIError](err)
			if !ok || e.Status != c.status || e.CorrelationID == "" || tries.Sent != 1 || (c.hint == "") != (e.Hint == "") || !strings.Contains(e.Error(), c.hint) {
				t.Errorf("%s: %v after %+v, want %d with hint %q", name, err, tries, c.status, c.hint)
			}
		}
	})
}

func TestDelivery(t *testing.T) {
	for _, c := range []struct {
		name    string
		config  Config
		perCall *headgate.Delivery
		fault   emulator.FaultKind
		unknown bool
	}{
		{"default", Config{}, nil, emulator.CutAfter, false},
		{"default, 500", Config{}, nil, emulator.InternalError, false},
		{"AtMostOnce", Config{AtMostOnce: true}, nil, emulator.CutAfter, true},
		{"AtMostOnce, 500", Config{AtMostOnce: true}, nil, emulator.InternalError, true},
		{"one call at most once", Config{}, new(headgate.AtMostOnce), emulator.CutAfter, true},
		{"one call at least once", Config{AtMostOnce: true}, new(headgate.AtLeastOnce), emulator.CutAfter, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			c.config.Limits = plenty
			p := connect(t, emulator.Config{Limits: []emulator.Limit{}, Script: []emulator.Fault{
				{Kind: c.fault, Executes: c.fault == emulator.InternalError, To: 1},
			}}, c.config)
			ctx := headgate.WithCall(t.Context(), headgate.Call{Delivery: c.perCall})
			res, err := p.org.Flows().Execute(ctx, "F", nil)
			r := p.Emulator.Report()
			if res.Tries.Unanswered != 1 {
				t.Errorf("%s: %+v, want one unanswered", c.name, res.Tries)
			}
			unknown, ok := errors.AsType[*headgate.UnknownError](err)
			if ok != c.unknown || ok && unknown.Unanswered != 1 || !c.unknown && err != nil {
				t.Errorf("%s: %v, want unknown: %v", c.name, err, c.unknown)
			}
			if _, api := errors.AsType[*APIError](err); api != (c.unknown && c.fault == emulator.InternalError) {
				t.Errorf("%s: %v", c.name, err)
			}
			if want := int64(2); c.unknown && r.Executed != 1 || !c.unknown && r.Executed != want {
				t.Errorf("%s: executed %d times", c.name, r.Executed)
			}
		})
	}
}

func TestLaunchAndWait(t *testing.T) {
	for _, end := range []Status{StatusCompleted, StatusFailed, StatusError, StatusTerminated} {
		synctest.Test(t, func(t *testing.T) {
			p := connect(t, emulator.Config{Limits: []emulator.Limit{}, RunTime: 10 * time.Second}, Config{Limits: plenty})
			ctx := t.Context()
			e, err := p.org.Flows().Launch(ctx, LaunchRequest{FlowID: "F", Name: "row 1", InputData: map[string]any{"Flow.a": 1, "Flow.emulatorStatus": end}})
			if err != nil || e.ID == "" || e.Name != "row 1" || e.Status != StatusUnknown || e.Tries.Sent != 1 || e.Err() != nil {
				t.Fatalf("%+v, %v", e, err)
			}
			now, err := p.org.Flows().Status(ctx, e.ID)
			if err != nil || now.Status != StatusRunning || now.Output != nil {
				t.Fatalf("%+v, %v", now, err)
			}
			start := time.Now()
			done, err := p.org.Flows().Wait(ctx, e.ID)
			took := time.Since(start)
			if err != nil || done.Status != end || done.ID != e.ID || done.Tries.Sent < 4 || done.Tries.Sent > 6 {
				t.Fatalf("%+v, %v", done, err)
			}
			// Polls at 1, 2.5, 4.75, 8.1, 13.2 s.
			if took < 10*time.Second || took > 14510*time.Millisecond {
				t.Errorf("the end was seen after %v", took)
			}
			failed, ok := errors.AsType[*FlowError](done.Err())
			switch end {
			case StatusCompleted:
				if done.Err() != nil || !strings.Contains(string(done.Output), `"Flow.a":1`) {
					t.Errorf("%s, %v", done.Output, done.Err())
				}
			default:
				if !ok || failed.Status != end || done.Output != nil || (end != StatusTerminated) != (failed.Info != nil) || !strings.Contains(failed.Error(), string(end)) {
					t.Errorf("%+v, %v", done, done.Err())
				}
			}
		})
	}
}

func TestWaitEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := connect(t, emulator.Config{Limits: []emulator.Limit{}, RunTime: time.Hour}, Config{Limits: plenty})
		e, err := p.org.Flows().Launch(t.Context(), LaunchRequest{FlowID: "F"})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		start := time.Now()
		last, err := p.org.Flows().Wait(ctx, e.ID)
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != time.Minute || last.Status != StatusRunning || last.ID != e.ID {
			t.Errorf("%+v, %v after %v", last, err, time.Since(start))
		}
		start = time.Now()
		if last, err = p.org.Flows().Wait(t.Context(), "none"); time.Since(start) > 2*time.Second {
			t.Errorf("%v after %v", err, time.Since(start))
		}
		if api, ok := errors.AsType[*APIError](err); !ok || api.Status != 404 || last.Status != StatusUnknown {
			t.Errorf("%+v, %v, want a 404", last, err)
		}
	})
}

func TestPollAfter(t *testing.T) {
	var seen time.Duration
	for n, want := range []float64{1, 1.5, 2.25, 3.375, 5.0625, 7.59375, 11.390625, 17.0859375, 25.62890625, 30, 30, 30} {
		d := PollAfter(n).Seconds()
		if d < 0.9*want || d > 1.1*want {
			t.Errorf("poll %d after %v s, want %v ± 10 %%", n, d, want)
		}
	}
	for range 10 {
		d := PollAfter(0)
		if d == seen {
			t.Error("no jitter")
		}
		seen = d
	}
	if d := PollAfter(1 << 40); d > 33*time.Second || d < 27*time.Second {
		t.Error(d)
	}
}

// Every poll pays: a hundred that wait do not get the others refused.
func TestPollsPay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := connect(t, emulator.Config{Limits: []emulator.Limit{{Rate: 10, Burst: 10}}, RunTime: 20 * time.Second},
			Config{Limits: []headgate.Limit{TokenLimit(10, 10)}})
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() {
				e, err := p.org.Flows().Launch(t.Context(), LaunchRequest{FlowID: "F"})
				if err == nil {
					e, err = p.org.Flows().Wait(t.Context(), e.ID)
				}
				if err != nil || e.Status != StatusCompleted {
					t.Errorf("%+v, %v", e, err)
				}
			})
		}
		wg.Wait()
		if r := p.Emulator.Report(); r.Rejected != 0 || r.Early != 0 || r.Accepted < 300 {
			t.Errorf("%v", r)
		}
	})
}

func TestParseStatus(t *testing.T) {
	for body, want := range map[string]Status{
		`{"id":"a","status":"RUNNING"}`:                      StatusRunning,
		`{"id":"a","status":"completed"}`:                    StatusCompleted,
		`{"id":"a","status":"PAUSED"}`:                       "PAUSED",
		`{"id":"a"}`:                                         StatusUnknown,
		`{"id":"a","status":7}`:                              StatusUnknown,
		`{"id":"a","status":"FAILED","flowErrorInfo":"x"}`:   StatusFailed,
		`{"id":"a","status":"COMPLETED","outputData":null}`:  StatusCompleted,
		`{"id":"a","status":"TERMINATED","flowVersion":"x"}`: StatusTerminated,
	} {
		e, err := ParseStatus([]byte(body))
		if err != nil || e.Status != want || e.ID != "a" || e.Output != nil || string(e.Raw) != body {
			t.Errorf("%s: %+v, %v, want %s", body, e, err, want)
		}
	}
	for _, s := range []Status{StatusUnknown, StatusRunning, "PAUSED", ""} {
		if s.Ended() {
			t.Errorf("%q counts as an end", s)
		}
	}
	for _, body := range []string{``, `{`, `{}`, `[]`, `null`, `{"id":7}`} {
		if e, err := ParseLaunch([]byte(body)); err == nil || e == nil || !strings.HasPrefix(err.Error(), "launched, but") {
			t.Errorf("%q: %+v, %v, want an error", body, e, err)
		}
		if e, err := ParseStatus([]byte(body)); err == nil || e == nil {
			t.Errorf("%q: %+v, %v, want an error", body, e, err)
		}
	}
}

func TestAddTries(t *testing.T) {
	a := headgate.Tries{Sent: 1, Refused: 2, Retries: 3, Unanswered: 4, Unauthorized: 5, LastBackoff: 6, Waits: map[string]time.Duration{"a": 1, "b": 2}}
	sum := add(a, headgate.Tries{Sent: 10, Refused: 20, Retries: 30, Unanswered: 40, Unauthorized: 50, LastBackoff: 60, Waits: map[string]time.Duration{"b": 20, "c": 30}})
	if sum.Sent != 11 || sum.Refused != 22 || sum.Retries != 33 || sum.Unanswered != 44 || sum.Unauthorized != 55 || sum.LastBackoff != 60 ||
		!maps.Equal(sum.Waits, map[string]time.Duration{"a": 1, "b": 22, "c": 30}) || len(a.Waits) != 2 {
		t.Errorf("%+v", sum)
	}
}

// An answer that breaks off after its status was a success.
func TestBrokenAnswer(t *testing.T) {
	f := &Flows{APIURL: "https://api.test", Transport: &headgate.Transport{Base: roundTrip(func(*http.Request) (*http.Response, error) {
		r := reply(200, "")
		r.Body = io.NopCloser(io.MultiReader(strings.NewReader(`{"a"`), failing{}))
		return r, nil
	})}}
	res, err := f.Execute(t.Context(), "a", nil)
	if !errors.Is(err, io.ErrUnexpectedEOF) || !strings.Contains(err.Error(), "the call succeeded") || res.Status != 200 || res.Output != nil || res.Tries.Sent != 1 {
		t.Errorf("%+v, %v", res, err)
	}
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

func TestIsExecution(t *testing.T) {
	for path, want := range map[string]bool{
		LaunchPath: true, ExecutePath("a b"): true, "/api/v2/architect/flows/f/execute": true,
		LaunchPath + "/e": false, "/api/v2/architect/flows//execute": false, "/api/v2/architect/flows/f/x/execute": false,
		"/api/v2/architect/flows/execute": false, "/api/v2/users": false, "": false,
	} {
		if IsExecution(path) != want {
			t.Errorf("%q: %v", path, !want)
		}
	}
}
