package genesys

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"
)

const (
	message42 = "Rate limit exceeded the maximum. Retry the request in [42] seconds"
	body429   = `{"message":"` + message42 + `","code":"too.many.requests.retry.after","status":429,"contextId":"x-1","details":[],"errors":[],"limit":{"key":"token.rate.per.minute","namespace":"platform.api","value":300}}`
	bodyLogin = `{"error":"invalid_request","description":"rate limit exceeded; wait","error_description":"rate limit exceeded; wait"}`
)

func TestReadAnswer(t *testing.T) {
	const api, login = "https://api.test/api/v2/flows/executions", "https://login.test/oauth/token"
	for _, c := range []struct {
		name, url  string
		status     int
		retryAfter string
		body       string

		refused bool
		limit   string
		wait    time.Duration // -1: none
	}{
		{"429", api, 429, "42", body429, true, "token.rate.per.minute", 42 * time.Second},
		{"header missing", api, 429, "", body429, true, "token.rate.per.minute", 42 * time.Second},
		{"header garbage", api, 429, "soon", body429, true, "token.rate.per.minute", 42 * time.Second},
		{"no limit in the body", api, 429, "1", `{"message":"` + message42 + `"}`, true, "", time.Second},
		{"limit is null", api, 429, "1", `{"limit":null}`, true, "", time.Second},
		{"limit is a string", api, 429, "1", `{"limit":"token.rate.per.minute"}`, true, "", time.Second},
		{"limit is a number, message is not text", api, 429, "", `{"limit":7,"message":{"a":1}}`, true, "", -1},
		{"key is a number", api, 429, "1", `{"limit":{"key":7}}`, true, "", time.Second},
		{"key is no key", api, 429, "1", `{"limit":{"key":"a\nb"}}`, true, "", time.Second},
		{"key is very long", api, 429, "1", `{"limit":{"key":"` + strings.Repeat("a", 101) + `"}}`, true, "", time.Second},
		{"other fields of other types", api, 429, "1", `{"message":1,"code":[],"limit":{"key":"a.b","value":"many"}}`, true, "a.b", time.Second},
		{"older form", api, 429, "", `{"code":"too.many.requests","message":"Rate limit exceeded the maximum [300] requests within [60] seconds"}`, true, "", -1},
		{"not JSON", api, 429, "", `<html>`, true, "", -1},
		{"no body", api, 429, "", ``, true, "", -1},
		{"503", api, 503, "5", ``, true, "", 5 * time.Second},
		{"503 without", api, 503, "", ``, false, "", -1},
		{"200", api, 200, "5", body429, false, "", -1},
		{"400 of the API with the words", api, 400, "", bodyLogin, false, "", -1},
		{"400 of the API", api, 400, "", `{"message":"rate limit exceeded"}`, false, "", -1},

		{"login", login, 400, "", bodyLogin, true, LimitLogin, -1},
		{"login, capitals", login, 400, "", `{"error":"a","error_description":"Rate Limit Exceeded"}`, true, LimitLogin, -1},
		{"login, description alone", login, 400, "", `{"error":"a","description":"rate limit exceeded; x"}`, true, LimitLogin, -1},
		{"login, Retry-After", login, 400, "9", bodyLogin, true, LimitLogin, 9 * time.Second},
		{"login, seconds in the message", login, 400, "", `{"error":"a","error_description":"rate limit exceeded; retry in 8 seconds"}`, true, LimitLogin, 8 * time.Second},
		{"login behind a prefix", "https://gw.test/login/oauth/token", 400, "", bodyLogin, true, LimitLogin, -1},
		{"login, 429", login, 429, "3", ``, true, LimitLogin, 3 * time.Second},
		{"login, wrong credentials", login, 400, "", `{"error":"invalid_client","error_description":"client not found"}`, false, "", -1},
		{"login, not JSON", login, 400, "", `rate limit exceeded`, false, "", -1},
		{"no request known", "", 400, "", bodyLogin, true, LimitLogin, -1},
	} {
		resp := reply(c.status, c.body)
		if c.retryAfter != "" {
			resp.Header.Set("Retry-After", c.retryAfter)
		}
		if c.url != "" {
			resp.Request = httptest.NewRequest("POST", c.url, nil)
		}
		o := ReadAnswer(resp)
		wait := time.Duration(-1)
		if o.HasRetryAfter {
			wait = o.RetryAfter
		}
		if o.Status != c.status || o.Refused != c.refused || o.Limit != c.limit || c.refused && wait != c.wait {
			t.Errorf("%s: %+v, want refused %v by %q for %v", c.name, o, c.refused, c.limit, c.wait)
		}
		if body, err := io.ReadAll(resp.Body); string(body) != c.body || err != nil || resp.StatusCode != c.status {
			t.Errorf("%s: afterwards the body is %q, %v, the status %d", c.name, body, err, resp.StatusCode)
		}
	}
}

func TestErrorOf(t *testing.T) {
	resp := reply(400, "", "ININ-Correlation-Id", "c-1")
	resp.Request = httptest.NewRequest("POST", "/", nil)
	resp.Request.Header.Set("Authorization", "Bearer token-x")
	for _, c := range []struct {
		body string
		want APIError
		text string
	}{
		{`{"message":"The flow is wrong.","code":"bad.request","status":400,"contextId":"x-1"}`,
			APIError{400, "bad.request", "The flow is wrong.", "c-1", "x-1", ""},
			"the API answered 400 Bad Request: The flow is wrong. [bad.request] (correlation id c-1)"},
		{`<html>Bad</html>`, APIError{400, "", "", "c-1", "", ""}, "the API answered 400 Bad Request (correlation id c-1)"},
		{``, APIError{400, "", "", "c-1", "", ""}, "the API answered 400 Bad Request (correlation id c-1)"},
		{`{"message":"a token-x b"}`, APIError{400, "", "a [redacted] b", "c-1", "", ""}, "the API answered 400 Bad Request: a [redacted] b (correlation id c-1)"},
		{`{"message":"a\u001b[31m\nb"}`, APIError{400, "", "a [31m b", "c-1", "", ""}, "the API answered 400 Bad Request: a [31m b (correlation id c-1)"},
		{`{"error":"invalid_request","error_description":"no"}`, APIError{400, "invalid_request", "no", "c-1", "", ""}, "the API answered 400 Bad Request: no [invalid_request] (correlation id c-1)"},
		{`{"message":7,"code":"x"}`, APIError{400, "x", "", "c-1", "", ""}, "the API answered 400 Bad Request [x] (correlation id c-1)"},
	} {
		e := ErrorOf(resp, []byte(c.body))
		if *e != c.want || e.Error() != c.text {
			t.Errorf("%s: %+v\n%v\nwant %+v\n%v", c.body, *e, e, c.want, c.text)
		}
	}
	e := ErrorOf(reply(503, ""), []byte(`{"contextId":"x-1","message":"`+strings.Repeat("é", 1000)+`"}`))
	if !strings.HasSuffix(e.Error(), "é… (correlation id x-1)") || len(e.Message) > maxText+5 {
		t.Errorf("a long message: %v", e)
	}
}

func TestEndpointHint(t *testing.T) {
	const nothing, noFlow = `{"message":"HTTP 404 Not Found","code":"not found","status":404}`, `{"message":"The requested flow was not found.","code":"not.found"}`
	for _, c := range []struct {
		path   string
		status int
		body   string
		want   string
	}{
		{ExecutePath("a"), 404, nothing, "Launch"},
		{ExecutePath("a"), 405, nothing, "Launch"},
		{ExecutePath("a"), 404, "", "Launch"},
		{LaunchPath, 404, nothing, "Execute"},
		{ExecutePath("a"), 404, noFlow, ""},
		{LaunchPath, 404, noFlow, ""},
		{ExecutePath("a"), 400, nothing, ""},
		{StatusPath("a"), 404, nothing, ""},
		{"/api/v2/users", 404, nothing, ""},
	} {
		got := EndpointHint(c.path, c.status, c.body)
		if (c.want == "") != (got == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s %d %s: %q, want %q", c.path, c.status, c.body, got, c.want)
		}
	}
}

func FuzzAnswers(f *testing.F) {
	for _, s := range []string{body429, bodyLogin, `{"entities":[{"key":"token.rate.per.minute","value":300}]}`,
		`{"access_token":"a","token_type":"bearer","expires_in":86399}`, `{"id":"e-1","status":"COMPLETED","outputData":{"a":1}}`, `{`, `[]`, `null`, `"a"`, "\xff"} {
		f.Add([]byte(s))
	}
	shown := func(t *testing.T, s string) {
		t.Helper()
		if !utf8.ValidString(s) || len(s) > maxText+len("…") || strings.IndexFunc(s, func(c rune) bool { return !unicode.IsPrint(c) }) >= 0 {
			t.Errorf("%q is not fit to be shown", s)
		}
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, status := range []int{400, 401, 429, 503} {
			resp := reply(status, string(body))
			resp.Header = http.Header{}
			o := ReadAnswer(resp)
			shown(t, o.Limit)
			if o.RetryAfter < 0 || o.Status != status {
				t.Errorf("%+v", o)
			}
			again, err := io.ReadAll(resp.Body)
			if err != nil || string(again) != string(body) {
				t.Errorf("the body changed to %q, %v", again, err)
			}
			e := ErrorOf(resp, body)
			shown(t, e.Code)
			shown(t, e.Message)
			shown(t, e.ContextID)
		}
		if limits, err := parseLimits(body); err == nil {
			for _, l := range limits {
				if err := l.Validate(); err != nil {
					t.Error(err)
				}
			}
		}
		if value, life, err := parseToken(body); err == nil && (value == "" || life <= 0 || life > longestLife) {
			t.Errorf("%q, %v", value, life)
		}
		for _, parse := range []func([]byte) (*Execution, error){ParseLaunch, ParseStatus} {
			e, err := parse(body)
			if e == nil || err == nil && e.ID == "" || e.Status == "" {
				t.Fatalf("%+v, %v", e, err)
			}
			shown(t, e.ID)
			shown(t, string(e.Status))
		}
	})
}
