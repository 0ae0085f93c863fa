package emulator

import (
	"encoding/json"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
)

// Whatever comes in, there is an answer with a correlation id, JSON where it
// says so, and nothing is executed that is not valid.
func FuzzAPI(f *testing.F) {
	f.Add("POST", flowPath, "", `{"x":1}`)
	f.Add("POST", launchPath, "", `{"flowId":"F","name":"n","inputData":{"Flow.emulatorStatus":403}}`)
	f.Add("POST", launchPath, "", `{"flowId":"F","inputData":"emulatorStatus"}`)
	f.Add("POST", flowPath, "", `{"emulatorStatus":{}}`)
	f.Add("POST", flowPath, "Bearer x", `[[[[`)
	f.Add("GET", launchPath+"/x", "", "")
	f.Add("GET", limitsPath, "Basic Og==", "")
	f.Add("DELETE", "/api/v2/architect/flows/%2F/execute", "", "")
	f.Add("POST", "/oauth/token", "Basic ZW11bGF0b3ItY2xpZW50OmVtdWxhdG9yLXNlY3JldA==", "grant_type=client_credentials")
	f.Add("POST", "/oauth/token", "Basic JTo=", "grant_type=%zz")
	f.Add("GET", "/oauth/token?grant_type=client_credentials", "Bearer", "")
	f.Fuzz(func(t *testing.T, method, target, auth, body string) {
		u, err := url.ParseRequestURI(target)
		if err != nil {
			t.Skip()
		}
		s, err := New(Config{LedgerRows: 1})
		if err != nil {
			t.Fatal(err)
		}
		r := httptest.NewRequest("POST", "/", strings.NewReader(body))
		r.Method, r.URL = method, u
		r.Header.Set("Authorization", auth)
		if auth == "" {
			r.Header.Set("Authorization", "Bearer "+s.IssueToken())
		}
		if u.Path == "/oauth/token" {
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		}
		res := serve(s.API(), r)
		if res.status < 200 || res.status > 599 || res.header.Get("ININ-Correlation-Id") == "" {
			t.Errorf("%+v", res)
		}
		if !json.Valid([]byte(res.body)) {
			t.Errorf("not JSON: %q", res.body)
		}
		rep := s.Report()
		if rep.Executed > 0 && (res.status != 200 || !json.Valid([]byte(body))) {
			t.Errorf("executed %q, answered %d", body, res.status)
		}
		if rep.Arrivals+rep.Logins+rep.LoginsFailed != 1 {
			t.Errorf("counted %+v", rep)
		}
		for row := range s.Ledger() {
			if b, err := json.Marshal(row); err != nil || !json.Valid(b) {
				t.Errorf("row %+v: %v", row, err)
			}
		}
	})
}

// A pattern either is refused or can be matched against anything.
func FuzzPattern(f *testing.F) {
	f.Add("POST /api/v2/*/x/**", "POST", "/api/v2/a/x/b")
	f.Add("/", "GET", "/")
	f.Add(" /", "", "")
	f.Fuzz(func(t *testing.T, p, method, path string) {
		if validatePattern("Match", p) != nil {
			return
		}
		got := parsePattern(p).matches(method, path)
		if p != "" && !strings.ContainsAny(p, "* ") && got != (p == path) {
			t.Errorf("%q on %q is %v", p, path, got)
		}
	})
}
