package gateway

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/headgate/headgate/internal/config"
	"github.com/headgate/headgate/internal/queue"
)

// Whatever the request line and the Host field say, a request goes to the org's
// own API and below its path, or it goes nowhere.
func TestTargetTricks(t *testing.T) {
	evil := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("a foreign host got %s %s", r.Method, r.URL)
	}))
	defer evil.Close()
	foreign := strings.TrimPrefix(evil.URL, "http://")
	p := &platform{}
	b := newPlatform(t, p, nil)
	for _, c := range []struct {
		line   string // method and target
		status int
		want   string // what the platform gets, if anything
	}{
		{"GET /api/v2/users/me", 200, "/base/api/v2/users/me"},
		{"GET /acme/api/v2/users/me?a=b", 200, "/base/api/v2/users/me?a=b"},
		{"GET /api/v2/a%20b%C3%A9", 200, "/base/api/v2/a%20b%C3%A9"},
		{"GET /api/v2/x?u=http://" + foreign + "/?a@b//..%2f", 200, "/base/api/v2/x?u=http://" + foreign + "/?a@b//..%2f"},
		{"GET /api/@" + foreign, 200, "/base/api/@" + foreign},
		{"GET /api/v2/x?y?z", 200, "/base/api/v2/x?y?z"},
		{"GET http://" + foreign + "/api/v2/users/me", 400, ""},
		{"GET http://api@" + foreign + "/api/v2/users/me", 400, ""},
		{"GET https://" + foreign, 400, ""},
		{"GET //" + foreign + "/api/v2/users/me", 400, ""},
		{"GET ///" + foreign + "/api/", 400, ""},
		{"GET /acme//" + foreign + "/api/", 400, ""},
		{"GET /api//" + foreign, 400, ""},
		{"GET @" + foreign + "/api/", 400, ""},
		{"GET :80@" + foreign + "/api/", 400, ""},
		{"GET api/v2/users/me", 400, ""},
		{"GET ?/api/", 400, ""},
		{"GET *", 400, ""},
		{"CONNECT " + foreign, 400, ""},
		{"CONNECT /api/v2/users/me", 400, ""},
		{"TRACE /api/v2/users/me", 405, ""},
		{"TRACK /api/v2/users/me", 405, ""},
		{"GET /acme/..%2fapi/v2/", 400, ""},
		{"GET /api/../../x", 400, ""},
		{"GET /api/./x", 400, ""},
		{"GET /api/%2e%2e/x", 400, ""},
		{"GET /api/%2E./x", 400, ""},
		{"GET /api/..", 400, ""},
		{"GET /api/..;/x", 400, ""},
		{"GET /api/..;a=b/x", 400, ""},
		{"GET /api/%c0%ae%c0%ae/x", 400, ""},
		{"GET /api/%ff", 400, ""},
		{`GET /api/..\..\x`, 400, ""},
		{"GET /api/%5c%5c" + foreign, 400, ""},
		{"GET /api%2fv2%2fx", 400, ""},
		{"GET /api/a%00b", 400, ""},
		{"GET /api/a%0d%0ab", 400, ""},
		{"GET /api/a%7fb", 400, ""},
		{"GET /api/a\x00b", 400, ""},
		{"GET /api/a%", 400, ""},
		{"GET /api/a%zz", 400, ""},
		{"GET /api/a#b", 400, ""},
		{"GET /api/a?b#c", 400, ""},
		{"GET /api/a b", 400, ""},
		{"GET /API/v2/x", 404, ""},
		{"GET /%61cme/api/x", 404, ""},
		{"GET /acme/acme/api/x", 404, ""},
		{"GET /nobody/api/x", 404, ""},
		{"GET /acme", 404, ""},
		{"GET /" + strings.Repeat("a", 100_000), 431, ""},
		{"GET /api/" + strings.Repeat("a", 20_000), 200, "/base/api/" + strings.Repeat("a", 20_000)},
	} {
		answers := b.raw(c.line + " HTTP/1.1\r\nHost: localhost\r\n\r\n")
		seen, _ := p.got()
		line := c.line[:min(len(c.line), 60)]
		if len(answers) != 1 || answers[0].status != c.status {
			t.Errorf("%q: answered %v", line, answers)
		}
		switch {
		case c.want == "" && len(seen) > 0:
			t.Errorf("%q: the platform got %s", line, seen[0].RequestURI)
		case c.want != "" && (len(seen) != 1 || seen[0].RequestURI != c.want || "http://"+seen[0].Host != b.api.URL):
			t.Errorf("%q: the platform got %v", line, seen)
		}
	}
}

// The Host field chooses among the file's orgs at most.
func TestHostTricks(t *testing.T) {
	p := &platform{}
	b := newPlatform(t, p, func(f *config.File) { f.Orgs[0].Hosts = []string{"acme.example.com"} })
	for host, status := range map[string]int{
		"localhost": 200, "localhost:80": 200, "LOCALHOST": 200, "127.0.0.1": 200, "127.9.9.9:8080": 200, "[::1]:8080": 200,
		"acme.example.com": 200, "ACME.example.com:8080": 200,
		"evil.example.com": 403, "127.evil.example.com": 403, "127.0.0.1.evil.example.com": 403, "localhost.evil.example.com": 403,
		"0.0.0.0": 403, "localhost@evil.example.com": 400, "evil.example.com:localhost": 403, "[::1].evil.example.com": 403,
		"acme.example.com.evil.example.com": 403, "": 200, "a/b": 400, "a b": 400,
	} {
		answers := b.raw("GET /api/v2/users/me HTTP/1.1\r\nHost: " + host + "\r\n\r\n")
		seen, _ := p.got()
		if len(answers) != 1 || answers[0].status != status || len(seen) != map[bool]int{true: 1}[status == 200] {
			t.Errorf("Host: %q: answered %v, %d sent", host, answers, len(seen))
		}
		if len(seen) == 1 && "http://"+seen[0].Host != b.api.URL {
			t.Errorf("Host: %q: the platform was called %q", host, seen[0].Host)
		}
	}
	for _, request := range []string{
		"GET /api/v2/users/me HTTP/1.1\r\n\r\n",
		"GET /api/v2/users/me HTTP/1.1\r\nHost: localhost\r\nHost: acme.example.com\r\n\r\n",
	} {
		if answers := b.raw(request); len(answers) != 1 || answers[0].status != 400 {
			t.Errorf("%q: answered %v", request, answers)
		}
	}
	p.got()
	// HTTP/1.0 knows no Host, and ends the connection.
	if answers := b.raw("GET /api/v2/users/me HTTP/1.0\r\n\r\n"); len(answers) != 1 || answers[0].status != 200 {
		t.Errorf("HTTP/1.0 without Host: %v", answers)
	}
	if answers := b.raw("GET /headgate/v1/orgs HTTP/1.0\r\n\r\n"); len(answers) != 1 || answers[0].status != 200 {
		t.Errorf("the API by HTTP/1.0 without Host: %v", answers)
	}
	// And a connection is good for several requests.
	if answers := b.raw(strings.Repeat("GET /api/v2/users/me HTTP/1.1\r\nHost: localhost\r\n\r\n", 3)); len(answers) != 3 {
		t.Errorf("three requests on one connection: %v", answers)
	}
}

// Redirects are the caller's to follow.
func TestRedirectsAreNotFollowed(t *testing.T) {
	evil := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("a foreign host got %s %s, %v", r.Method, r.URL, r.Header)
	}))
	defer evil.Close()
	p := &platform{answer: func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, evil.URL+"/api/x", http.StatusTemporaryRedirect)
	}}
	hook := httptest.NewServer(http.RedirectHandler(evil.URL, http.StatusTemporaryRedirect))
	defer hook.Close()
	b := newPlatform(t, p, func(f *config.File) {
		f.Callbacks.Hosts = []string{strings.TrimPrefix(hook.URL, "http://")}
	})
	if a := b.do("POST", executePath, body(1)); a.status != 307 || a.header.Get("Location") != evil.URL+"/api/x" {
		t.Errorf("a call: %d %v", a.status, a.header)
	}
	x := b.do("POST", executePath, body(2), "Prefer: respond-async", "Headgate-Callback: "+hook.URL).execution(t)
	if end := b.do("GET", x.Self, "", "Prefer: wait=10").execution(t); end.State != "failed" || end.Status != 307 {
		t.Errorf("an execution: %+v", end)
	}
	wait(t, "the callback to be tried", func() bool {
		return strings.Contains(b.do("GET", "/metrics", "").body, `outcome="failed"`)
	})
}

// The login of the gateway does not follow redirects either: the secret would
// travel.
func TestLoginIsNotRedirected(t *testing.T) {
	evil := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("a foreign host got %s %s, %v", r.Method, r.URL, r.Header)
	}))
	defer evil.Close()
	b := newBench(t, plan{api: http.RedirectHandler(evil.URL+loginPath, http.StatusTemporaryRedirect)})
	if p := b.do("POST", executePath, body(1)).problem(t); p.Status != 502 || !strings.HasSuffix(p.Type, cannotLogIn.name) {
		t.Errorf("%+v", p)
	}
}

// What is stored is sent to the org's API whatever stands in its path.
func TestStoredPathStaysBelowTheAPI(t *testing.T) {
	p := &platform{}
	b := newPlatform(t, p, nil)
	for _, query := range []string{"", "?a=b", "?@evil.example.com/", "?//evil.example.com", "??", "?a=%2f..%2f"} {
		b.do("POST", "/api/@evil.example.com:80/x"+query, body(1), "Prefer: respond-async, wait=10")
		x := b.do("POST", "/api/@evil.example.com:80/x"+query, body(1), "Prefer: respond-async").execution(t)
		b.do("GET", x.Self, "", "Prefer: wait=10")
		seen, _ := p.got()
		if len(seen) != 2 || seen[0].RequestURI != seen[1].RequestURI || seen[0].RequestURI != "/base/api/@evil.example.com:80/x"+query {
			t.Errorf("%s: %v", query, seen)
		}
	}
	// A journal that was written by something else is not believed.
	o := b.g.setting().orgs[0]
	for _, path := range []string{"@evil.example.com/api/", ".evil.example.com/api/x", ":80@evil.example.com/", "//evil.example.com/api/", "/../x", "/api/../x", "/api/%2e%2e/x", "/headgate/", "", "?x", "/api/x#y"} {
		step, err := o.send(t.Context(), storedAt(path), func() error { return nil })
		if err != nil || step.To.String() != "failed" {
			t.Errorf("%q: %v, %v", path, step.To, err)
		}
	}
	if seen, _ := p.got(); len(seen) > 0 {
		t.Errorf("the platform got %v", seen[0].URL)
	}
}

// storedAt is an execution with that path.
func storedAt(path string) queue.Execution {
	return queue.Execution{ID: 1, Method: "POST", Path: path, Body: []byte("{}"), Caller: "crm"}
}
