package emulator

import (
	"context"
	"encoding/json"
	"fmt"
	"go/parser"
	gotoken "go/token"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// The emulator is an independent witness: nothing of ours, nothing but the
// standard library.
func TestImports(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		f, err := parser.ParseFile(gotoken.NewFileSet(), file, nil, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		for _, imp := range f.Imports {
			if host, _, _ := strings.Cut(strings.Trim(imp.Path.Value, `"`), "/"); strings.Contains(host, ".") {
				t.Errorf("%s imports %s", file, imp.Path.Value)
			}
		}
	}
}

func Test429(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTester(t, Config{Limits: []Limit{{Algorithm: Fixed, Max: 300}}})
		for range 300 {
			c.wantStatus(c.execute(), 200)
		}
		time.Sleep(18*sec + 500*ms)
		r := c.execute()
		c.wantStatus(r, 429)
		id := r.header.Get("ININ-Correlation-Id")
		want := `{"message":"Rate limit exceeded the maximum. Retry the request in [42] seconds",` +
			`"code":"too.many.requests.retry.after","status":429,"contextId":"` + id + `","details":[],"errors":[],` +
			`"limit":{"key":"token.rate.per.minute","namespace":"platform.api","value":300}}`
		if r.body != want {
			t.Errorf("body\n%s, want\n%s", r.body, want)
		}
		if got := r.header.Get("Retry-After"); got != "42" {
			t.Errorf("Retry-After %q", got)
		}
		if got := r.header.Get("Content-Type"); got != "application/json" {
			t.Errorf("Content-Type %q", got)
		}
		if !regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`).MatchString(id) {
			t.Errorf("correlation id %q", id)
		}
	})
}

func TestRetryAfterModes(t *testing.T) {
	const now = "[3] seconds" // the real wait is 2.5 s
	tests := []struct {
		cfg     Config
		header  string // a regular expression
		message string // what it contains
		hold    time.Duration
	}{
		{Config{}, `3`, now, 3 * sec},
		{Config{RetryAfter: RetryAfterExact}, `2\.5`, "[2.5] seconds", 2500 * ms},
		{Config{RetryAfter: RetryAfterDate}, `Sat, 01 Jan 2000 00:00:04 GMT`, now, 2750 * ms}, // at 00:00:01.25
		{Config{RetryAfter: RetryAfterShortWhole}, `2`, "[2] seconds", 2 * sec},
		{Config{RetryAfter: RetryAfterShort}, `1\.25`, "[1.25] seconds", 1250 * ms},
		{Config{RetryAfter: RetryAfterZero}, `0`, "[0] seconds", 0},
		{Config{RetryAfter: RetryAfterNegative}, `-5`, "[-5] seconds", 0},
		{Config{RetryAfter: RetryAfterHuge}, `10000000000`, "[10000000000] seconds", 0},
		{Config{RetryAfter: RetryAfterGarbage}, `soon|NaN|Inf|12 minutes|1;2|--3|0x1F|Thu, 99 .*`, "seconds", 0},
		{Config{RetryAfter: RetryAfterAbsent}, ``, now, 0},
		{Config{RetryAfter: RetryAfterAbsent, Message: MessageNone}, ``, `maximum.",`, 0},
		{Config{RetryAfter: RetryAfterGarbage, Message: MessageReal}, `.+`, now, 0},
		{Config{Message: MessageOlder}, `3`, `maximum [24] requests within [60] seconds","code":"too.many.requests",`, 3 * sec},
		{Config{HideLimit: true}, `3`, now, 3 * sec},
	}
	for i, tt := range tests {
		t.Run(fmt.Sprint(i, tt.cfg.RetryAfter, tt.cfg.Message), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tt.cfg.Limits = bucketOf(0.4, 1)
				c := newTester(t, tt.cfg)
				time.Sleep(1250 * ms)
				c.wantStatus(c.execute(), 200)
				r := c.execute()
				c.wantStatus(r, 429)
				got := r.header.Get("Retry-After")
				if !regexp.MustCompile("^(" + tt.header + ")$").MatchString(got) {
					t.Errorf("Retry-After %q", got)
				}
				if _, has := r.header["Retry-After"]; has != (tt.header != "") {
					t.Errorf("Retry-After is there: %v", has)
				}
				if !strings.Contains(r.body, tt.message) {
					t.Errorf("message %q lacks %q", r.body, tt.message)
				}
				if strings.Contains(r.body, `"limit"`) == tt.cfg.HideLimit {
					t.Errorf("limit object in %s", r.body)
				}
				if row := c.rows()[1]; row.RetryAfter != got || row.RefusedBy != "token.rate.per.minute" {
					t.Errorf("ledger has %+v", row)
				}
				// It holds for exactly as long as it says: early until 1 ms before.
				time.Sleep(51 * ms)
				c.do("GET", limitsPath, "")
				early := c.Report().Early
				if want := int64(0); tt.hold > 0 && early != 1 || tt.hold == 0 && early != want {
					t.Errorf("%d early inside the wait of %v", early, tt.hold)
				}
			})
		})
	}
}

func TestRetryAfterFluctuates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		run := func(seed uint64) string {
			c := newTester(t, Config{Seed: seed, Limits: bucketOf(1, 1), RetryAfter: RetryAfterFluctuating, RetryAfterMin: 2 * sec, RetryAfterMax: 5 * sec})
			c.execute()
			var all []string
			for range 200 {
				all = append(all, c.execute().header.Get("Retry-After"))
			}
			return strings.Join(all, " ")
		}
		a := run(1)
		seen := make(map[string]int)
		for v := range strings.SplitSeq(a, " ") {
			seen[v]++
		}
		if len(seen) != 4 || seen["2"] < 25 || seen["3"] < 25 || seen["4"] < 25 || seen["5"] < 25 {
			t.Errorf("not uniform from 2 to 5: %v", seen)
		}
		if run(1) != a {
			t.Error("the same seed gives other values")
		}
		if run(2) == a {
			t.Error("another seed gives the same values")
		}
	})
}

func TestErrors(t *testing.T) {
	big := `{"x":"` + strings.Repeat("x", MaxBodyBytes-8) + `"}` // exactly the maximum
	for _, tt := range []struct {
		name, method, path, body string
		cfg                      Config
		status                   int
		code                     string
	}{
		{"unknown path", "POST", "/api/v2/flows", "{}", Config{}, 404, "not found"},
		{"outside of the api", "GET", "/", "", Config{}, 404, "not found"},
		{"no flow id", "POST", "/api/v2/architect/flows//execute", "{}", Config{}, 404, "not found"},
		{"execute is off", "POST", flowPath, "{}", Config{Endpoints: EndpointsLaunch}, 404, "not found"},
		{"launch is off", "POST", launchPath, `{"flowId":"F"}`, Config{Endpoints: EndpointsExecute}, 404, "not found"},
		{"status is off", "GET", launchPath + "/x", "", Config{Endpoints: EndpointsExecute}, 404, "not found"},
		{"launch is on", "POST", launchPath, `{"flowId":"F"}`, Config{Endpoints: EndpointsLaunch}, 200, ""},
		{"execute is on", "POST", flowPath, "{}", Config{Endpoints: EndpointsExecute}, 200, ""},
		{"flow exists", "POST", flowPath, "{}", Config{Flows: []string{"F"}}, 200, ""},
		{"flow does not exist", "POST", flowPath, "{}", Config{Flows: []string{"G"}}, 404, "not.found"},
		{"launch of a flow that does not exist", "POST", launchPath, `{"flowId":"F"}`, Config{Flows: []string{"G"}}, 404, "not.found"},
		{"execution does not exist", "GET", launchPath + "/x", "", Config{}, 404, "not.found"},
		{"method", "GET", flowPath, "", Config{}, 405, "method not allowed"},
		{"method of the status", "POST", launchPath + "/x", "{}", Config{}, 405, "method not allowed"},
		{"not JSON", "POST", flowPath, "{", Config{}, 400, "bad.request"},
		{"no body", "POST", flowPath, "", Config{}, 400, "bad.request"},
		{"launch without a flow", "POST", launchPath, `{}`, Config{}, 400, "bad.request"},
		{"launch of another form", "POST", launchPath, `[1]`, Config{}, 400, "bad.request"},
		{"as large as can be", "POST", flowPath, big, Config{}, 200, ""},
		{"too large", "POST", flowPath, big + " ", Config{}, 413, "request.entity.too.large"},
		{"asked for", "POST", flowPath, `{"emulatorStatus":403}`, Config{}, 403, "emulator.asked"},
		{"asked for in a launch", "POST", launchPath, `{"flowId":"F","inputData":{"Flow.emulatorStatus":"422"}}`, Config{}, 422, "emulator.asked"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := newTester(t, tt.cfg)
			r := c.do(tt.method, tt.path, tt.body)
			c.wantStatus(r, tt.status)
			if r.header.Get("ININ-Correlation-Id") == "" {
				t.Error("no correlation id")
			}
			executed := c.Report().Executed
			if want := tt.status == 200; (executed == 1) != want {
				t.Errorf("executed %d", executed)
			}
			if tt.status == 200 {
				return
			}
			var b struct {
				Code, ContextID string
				Status          int
				Details         []any
			}
			r.decode(t, &b)
			if b.Code != tt.code || b.Status != tt.status || b.ContextID != r.header.Get("ININ-Correlation-Id") || b.Details == nil {
				t.Errorf("body %s", r.body)
			}
		})
	}
}

func TestExecuteEchoes(t *testing.T) {
	c := newTester(t, Config{})
	var b struct {
		ID, FlowID, Status string
		PayloadBytes       int
		Payload            map[string]string
	}
	c.do("POST", flowPath, `{"who": "me"}`).decode(t, &b)
	if b.ID == "" || b.FlowID != "F" || b.Status != "COMPLETED" || b.PayloadBytes != 13 || b.Payload["who"] != "me" {
		t.Errorf("got %+v", b)
	}
}

func TestLatency(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTester(t, Config{Latency: 300 * ms, Jitter: 100 * ms, ReadLatency: 40 * ms, Limits: bucketOf(1, 30)})
		took := func(f func() reply, status int) time.Duration {
			start := time.Now()
			c.wantStatus(f(), status)
			return time.Since(start)
		}
		lo, hi := time.Hour, time.Duration(0)
		for range 25 {
			d := took(c.execute, 200)
			lo, hi = min(lo, d), max(hi, d)
		}
		if lo < 300*ms || lo > 330*ms || hi < 370*ms || hi > 400*ms {
			t.Errorf("from %v to %v", lo, hi)
		}
		if d := took(func() reply { return c.do("GET", limitsPath, "") }, 200); d != 40*ms {
			t.Errorf("a read took %v", d)
		}
		if d := took(func() reply { return c.do("POST", flowPath, "{") }, 400); d != 0 {
			t.Errorf("an error took %v", d)
		}
	})
}

// What was accepted is executed, even if nobody waits for the answer.
func TestClientLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTester(t, Config{Latency: 10 * sec, Script: []Fault{{Kind: Outage, From: 100 * sec, To: 200 * sec}}, EarlyGrace: -1})
		ctx, cancel := context.WithTimeout(t.Context(), sec)
		defer cancel()
		start := time.Now()
		if r := serve(c.API(), c.request(ctx, "POST", flowPath, "{}")); r.status != 0 || time.Since(start) != sec {
			t.Errorf("status %d after %v", r.status, time.Since(start))
		}
		r := c.Report()
		if r.Executed != 1 || r.Unanswered != 1 {
			t.Errorf("report %+v", r)
		}
		if row := c.rows()[0]; row.Answered || !row.Executed {
			t.Errorf("row %+v", row)
		}
		// An announcement that nobody reads holds nobody back.
		time.Sleep(99 * sec)
		serve(c.API(), c.request(ctx, "POST", flowPath, "{}"))
		time.Sleep(sec)
		c.execute()
		if r := c.Report(); r.Early != 0 || r.Unanswered != 2 {
			t.Errorf("report %+v", r)
		}
		// A body that breaks off executes nothing.
		req := httptest.NewRequestWithContext(t.Context(), "POST", flowPath, errReader{})
		if r := serve(c.API(), req); r.status != 0 {
			t.Errorf("status %d", r.status)
		}
		if r := c.Report(); r.Executed != 1 || r.Arrivals != 4 || r.Unanswered != 3 {
			t.Errorf("report %+v", r)
		}
	})
}

func TestLaunch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTester(t, Config{RunTime: 10 * sec, Limits: []Limit{}})
		var l struct {
			ID, Name, SelfURI string
			FlowVersion       struct{ ID string }
		}
		launch := func(body string) {
			t.Helper()
			r := c.do("POST", launchPath, body)
			c.wantStatus(r, 200)
			r.decode(t, &l)
		}
		type status struct {
			ID, Name, Status, DateCompleted, SelfURI string
			OutputData                               map[string]any
			FlowErrorInfo                            *struct{ Code, Message string }
		}
		poll := func() (s status) {
			t.Helper()
			r := c.do("GET", l.SelfURI, "")
			c.wantStatus(r, 200)
			r.decode(t, &s)
			return s
		}
		launch(`{"flowId":"F","name":"n","inputData":{"Flow.x":7}}`)
		if l.ID == "" || l.Name != "n" || l.FlowVersion.ID == "" || l.SelfURI != launchPath+"/"+l.ID {
			t.Errorf("launched %+v", l)
		}
		time.Sleep(10*sec - 1)
		if s := poll(); s.Status != "RUNNING" || s.OutputData != nil || s.DateCompleted != "" {
			t.Errorf("before its end: %+v", s)
		}
		time.Sleep(time.Nanosecond)
		if s := poll(); s.Status != "COMPLETED" || s.OutputData["Flow.x"] != 7.0 || s.DateCompleted != "2000-01-01T00:00:10.000Z" || s.Name != "n" || s.ID != l.ID {
			t.Errorf("at its end: %+v", s)
		}
		for _, want := range []string{"FAILED", "ERROR", "TERMINATED", "UNKNOWN", "RUNNING", "COMPLETED"} {
			launch(`{"flowId":"F","inputData":{"emulatorStatus":"` + want + `"}}`)
			if s := poll(); s.Status != "RUNNING" {
				t.Errorf("%s before its end: %+v", want, s)
			}
			time.Sleep(10 * sec)
			s := poll()
			if s.Status != want || (s.FlowErrorInfo != nil) != (want == "FAILED" || want == "ERROR") || (s.OutputData != nil) != (want == "COMPLETED") {
				t.Errorf("%s at its end: %+v", want, s)
			}
		}
	})
}

func TestOutcomesAndForgetting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTester(t, Config{RunTime: -1, KeepExecutions: 500, Limits: []Limit{}, Outcomes: Outcomes{Failed: 0.2, Error: 0.1, Terminated: 0.1}})
		var ids []string
		for i := range 600 {
			var l struct{ ID string }
			c.do("POST", launchPath, fmt.Sprintf(`{"flowId":"F","name":"%d"}`, i)).decode(t, &l)
			ids = append(ids, l.ID)
		}
		seen := make(map[string]int)
		for i, id := range ids {
			r := c.do("GET", launchPath+"/"+id, "")
			if i < 100 {
				c.wantStatus(r, 404)
				continue
			}
			var s struct{ Status string }
			r.decode(t, &s)
			seen[s.Status]++
		}
		near := func(got, want int) bool { return got > want/2 && got < want*3/2 }
		if !near(seen["FAILED"], 100) || !near(seen["ERROR"], 50) || !near(seen["TERMINATED"], 50) || !near(seen["COMPLETED"], 300) {
			t.Errorf("outcomes %v", seen)
		}
	})
}

func TestLimitsAPI(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTester(t, Config{
			Limits: []Limit{{Rate: 5, Burst: 10}, {Name: "w", Algorithm: Fixed, Max: 40, Per: PerOrg}, {Name: "v", Value: 9, Rate: 9}, {Name: "other", Namespace: "architect", Rate: 9}},
			Script: []Fault{{Kind: Change, Limit: "w", From: 10 * sec, Max: 20}},
		})
		get := func(ns string) string {
			return c.do("GET", "/api/v2/organizations/limits/namespaces/"+ns, "").body
		}
		const form = `{"entities":[{"key":"token.rate.per.minute","namespace":"platform.api","value":300},{"key":"w","namespace":"platform.api","value":%d},{"key":"v","namespace":"platform.api","value":9}]}`
		if got, want := get("platform.api"), fmt.Sprintf(form, 40); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		time.Sleep(10 * sec)
		if got, want := get("platform.api"), fmt.Sprintf(form, 20); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		if got := get("architect"); !strings.Contains(got, `"other"`) {
			t.Errorf("got %s", got)
		}
		if got := get("none"); got != `{"entities":[]}` {
			t.Errorf("got %s", got)
		}
	})
}

func TestAdmin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTester(t, Config{Limits: bucketOf(1, 2), Expected: 5})
		c.login(DefaultClientID, DefaultClientSecret, "grant_type=client_credentials")
		time.Sleep(1500 * ms)
		for range 3 {
			c.execute()
		}
		var rep struct {
			Arrivals, Executed, Rejected, Logins, Lost int
			ByStatus                                   map[string]int
			Limits                                     []struct{ IdealSeconds, Use float64 }
		}
		c.admin("GET", "/report").decode(t, &rep)
		if rep.Arrivals != 3 || rep.Executed != 2 || rep.Rejected != 1 || rep.Logins != 1 || rep.Lost != 3 || rep.ByStatus["429"] != 1 || len(rep.Limits) != 1 || rep.Limits[0].Use != 1 {
			t.Errorf("report %+v", rep)
		}
		if text := c.admin("GET", "/report.txt").body; text != c.Report().String() || !strings.Contains(text, "executed") {
			t.Errorf("report.txt\n%s", text)
		}
		ledger := c.admin("GET", "/ledger").body
		if strings.Contains(ledger, c.token) || strings.Contains(ledger, "emulator-secret") {
			t.Error("a secret is in the ledger")
		}
		lines := strings.Split(strings.TrimSpace(ledger), "\n")
		if len(lines) != 4 {
			t.Fatalf("ledger\n%s", ledger)
		}
		want := []string{
			`{"seq":1,"at":-1.5,"answered":-1.5,"token":"token-2","client":"emulator-client","method":"POST","path":"/oauth/token","status":200}`,
			`{"seq":2,"at":0,"answered":0,"token":"token-1","client":"emulator-client","method":"POST","path":"/api/v2/architect/flows/F/execute","key":"KEY","status":200,"executed":true}`,
			`{"seq":4,"at":0,"answered":0,"token":"token-1","client":"emulator-client","method":"POST","path":"/api/v2/architect/flows/F/execute","status":429,"refusedBy":"token.rate.per.minute","retryAfter":"1"}`,
		}
		for i, n := range []int{0, 1, 3} {
			if got := regexp.MustCompile(`F#[0-9a-f]{16}`).ReplaceAllString(lines[n], "KEY"); got != want[i] {
				t.Errorf("line %d\n%s, want\n%s", n, got, want[i])
			}
		}
		if r := c.admin("GET", "/reset"); r.status != 405 {
			t.Errorf("GET /reset: %d", r.status)
		}
		if r := c.admin("POST", "/reset"); r.status != 204 {
			t.Errorf("POST /reset: %d", r.status)
		}
		if r := c.Report(); r.Arrivals != 0 || r.Executed != 0 || r.Logins != 0 || len(r.Limits) != 0 || len(c.rows()) != 0 {
			t.Errorf("after reset: %+v", r)
		}
		c.wantStatus(c.execute(), 200) // the bucket is full again, the token still good
		c.wantStatus(c.execute(), 200)
		c.admin("POST", "/revoke")
		c.wantStatus(c.execute(), 401)
	})
}

func TestConfigErrors(t *testing.T) {
	limit := func(l Limit) Config { return Config{Limits: []Limit{l}} }
	fault := func(f Fault) Config { return Config{Script: []Fault{f}} }
	for _, tt := range []struct {
		cfg  Config
		want string
	}{
		{Config{Clients: []Client{}}, "Config.Clients"},
		{Config{Clients: []Client{{"a", ""}, {"a", ""}}}, "Config.Clients[1].ID"},
		{Config{TokenLifetime: ms}, "Config.TokenLifetime"},
		{Config{LoginLatency: -1}, "Config.LoginLatency"},
		{Config{Latency: -1}, "Config.Latency"},
		{Config{Jitter: -1}, "Config.Jitter"},
		{Config{ReadLatency: -1}, "Config.ReadLatency"},
		{Config{RunJitter: -1}, "Config.RunJitter"},
		{Config{Endpoints: "x"}, "Config.Endpoints"},
		{Config{Outcomes: Outcomes{Failed: 0.6, Error: 0.6}}, "Config.Outcomes"},
		{Config{KeepExecutions: -1}, "Config.KeepExecutions"},
		{Config{Expected: -1}, "Config.Expected"},
		{Config{RetryAfter: "x"}, "Config.RetryAfter"},
		{Config{RetryAfterMin: 40 * sec}, "Config.RetryAfterMin"},
		{Config{RetryAfterMin: 1500 * ms}, "Config.RetryAfterMin"},
		{Config{Message: "x"}, "Config.Message"},
		{Config{LoginLimit: Limit{Rate: -1}}, "Config.LoginLimit.Rate"},
		{Config{LoginLimit: Limit{Rate: 1, Per: PerToken}}, "Config.LoginLimit.Per"},
		{limit(Limit{}), "Config.Limits[0].Rate"},
		{limit(Limit{Rate: -1}), "Config.Limits[0].Rate"},
		{limit(Limit{Rate: nan}), "Config.Limits[0].Rate"},
		{limit(Limit{Rate: 1, Burst: 0.5}), "Config.Limits[0].Burst"},
		{limit(Limit{Rate: 1, Burst: nan}), "Config.Limits[0].Burst"},
		{limit(Limit{Rate: 1, Max: 1}), "Config.Limits[0].Max"},
		{limit(Limit{Rate: 1, Per: "x"}), "Config.Limits[0].Per"},
		{limit(Limit{Rate: 1, Match: "x"}), "Config.Limits[0].Match"},
		{limit(Limit{Rate: 1, Match: "/**/x"}), "Config.Limits[0].Match"},
		{limit(Limit{Rate: 1, Value: -1}), "Config.Limits[0].Value"},
		{limit(Limit{Algorithm: "x"}), "Config.Limits[0].Algorithm"},
		{limit(Limit{Algorithm: Fixed}), "Config.Limits[0].Max"},
		{limit(Limit{Algorithm: Sliding, Max: 1, Window: -1}), "Config.Limits[0].Window"},
		{limit(Limit{Algorithm: Sliding, Max: 1, Phase: 1}), "Config.Limits[0].Phase"},
		{limit(Limit{Algorithm: Fixed, Max: 1, Window: 2, Phase: 2}), "Config.Limits[0].Phase"},
		{limit(Limit{Rate: 1, Phase: 1}), "Config.Limits[0].Max"},
		{limit(Limit{Algorithm: Sliding, Max: 1, Rate: 1}), "Config.Limits[0].Rate"},
		{Config{Limits: []Limit{{Rate: 1}, {Rate: 2}}}, "Config.Limits[1].Name"},
		{Config{Rates: Rates{CutAfter: 1.5}}, "Config.Rates.CutAfter"},
		{Config{Rates: Rates{Slow: nan}}, "Config.Rates.Slow"},
		{Config{Rates: Rates{Delay: -1}}, "Config.Rates.RetryAfter"},
		{fault(Fault{}), "Config.Script[0].Kind"},
		{fault(Fault{Kind: Slow, From: 2, To: 1}), "Config.Script[0].From"},
		{fault(Fault{Kind: Slow, Share: 2}), "Config.Script[0].Share"},
		{fault(Fault{Kind: Slow, Delay: -1}), "Config.Script[0].RetryAfter"},
		{fault(Fault{Kind: Slow, Mode: "x"}), "Config.Script[0].Mode"},
		{fault(Fault{Kind: Slow, Match: "x"}), "Config.Script[0].Match"},
		{fault(Fault{Kind: Traffic, PerSecond: 1}), "Config.Script[0].Limit"},
		{fault(Fault{Kind: Traffic, Limit: "token.rate.per.minute"}), "Config.Script[0].PerSecond"},
		{fault(Fault{Kind: Change, Limit: "token.rate.per.minute", To: 1}), "Config.Script[0].To"},
		{fault(Fault{Kind: Change, Limit: "token.rate.per.minute", Rate: 1}), "Config.Script[0].Rate"},
	} {
		_, err := New(tt.cfg)
		if err == nil || !strings.Contains(err.Error(), tt.want+" ") {
			t.Errorf("error %v, want one about %s", err, tt.want)
		}
	}
}

var nan = func() float64 { var z float64; return z / z }()

// The config is copied: what a caller does to its slices later does not count.
func TestConfigIsCopied(t *testing.T) {
	cfg := Config{Limits: bucketOf(1, 1), Flows: []string{"F"}, Clients: []Client{{"a", "emulator-secret"}}}
	c := newTester(t, cfg)
	if cfg.Limits[0].Name != "" {
		t.Error("the caller's slice was written to")
	}
	cfg.Limits[0].Burst, cfg.Flows[0], cfg.Clients[0].ID = 100, "G", "b"
	c.wantStatus(c.execute(), 200)
	c.wantStatus(c.execute(), 429)
	c.token = c.IssueToken()
	c.execute()
	for _, r := range c.rows() {
		if r.Client != "a" {
			t.Errorf("row %+v", r)
		}
	}
}

func TestLedgerIsBounded(t *testing.T) {
	for _, tt := range []struct{ rows, want int }{{3, 3}, {-1, 0}, {0, 11}} {
		c := newTester(t, Config{Limits: bucketOf(1, 8), LedgerRows: tt.rows})
		for range 10 {
			c.execute()
		}
		c.do("POST", flowPath, `{"n":1}`)
		rep := c.Report()
		kept := len(c.rows())
		if kept != tt.want || rep.LedgerDropped != int64(11-tt.want) || rep.Executed != 8 || rep.Distinct != 8 || rep.Rejected != 3 {
			t.Errorf("LedgerRows %d: %d rows, %+v", tt.rows, kept, rep)
		}
	}
}

func TestDocIsCurrent(t *testing.T) {
	doc, err := os.ReadFile("../docs/emulator.md")
	if err != nil {
		t.Fatal(err)
	}
	var keys map[string]any
	b, _ := json.Marshal(Report{Expected: 1})
	if err := json.Unmarshal(b, &keys); err != nil {
		t.Fatal(err)
	}
	for k := range keys {
		if !strings.Contains(string(doc), "`"+k+"`") {
			t.Errorf("docs/emulator.md does not explain the report's %s", k)
		}
	}
	for _, field := range fieldNames(Config{}, Limit{}, Fault{}, Rates{}) {
		if !strings.Contains(string(doc), "`"+field+"`") {
			t.Errorf("docs/emulator.md does not explain %s", field)
		}
	}
}

func BenchmarkExecute(b *testing.B) {
	s, err := New(Config{Limits: []Limit{{Rate: 1e9, Burst: 1e9}, {Name: "org", Per: PerOrg, Rate: 1e9, Burst: 1e9}}, LedgerRows: -1})
	if err != nil {
		b.Fatal(err)
	}
	h, auth, n := s.API(), "Bearer "+s.IssueToken(), 0
	b.ReportAllocs()
	for b.Loop() {
		n++
		r := httptest.NewRequest("POST", flowPath, strings.NewReader(fmt.Sprintf(`{"n":%d}`, n)))
		r.Header.Set("Authorization", auth)
		w := httptest.NewRecorder()
		if h.ServeHTTP(w, r); w.Code != http.StatusOK {
			b.Fatal(w.Code)
		}
	}
}
