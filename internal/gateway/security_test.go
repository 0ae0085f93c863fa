package gateway

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/headgate/headgate/internal/config"
	"github.com/headgate/headgate/internal/keys"
	"github.com/headgate/headgate/internal/queue"
)

// platform is an API that notes what it gets, and answers with 200.
type platform struct {
	answer http.HandlerFunc // in place of 200, for all but the login

	mu   sync.Mutex
	seen []*http.Request
	body []string
}

const platformToken = "the-token-of-the-platform"

func (p *platform) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/login"+loginPath {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"access_token":%q,"token_type":"bearer","expires_in":86400}`, platformToken)
		return
	}
	body, err := io.ReadAll(r.Body)
	if err == nil {
		p.mu.Lock()
		p.seen, p.body = append(p.seen, r), append(p.body, string(body))
		p.mu.Unlock()
	}
	if p.answer != nil {
		p.answer(w, r)
	}
}

// got returns what came since the last time.
func (p *platform) got() (seen []*http.Request, body []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	seen, body, p.seen, p.body = p.seen, p.body, nil, nil
	return seen, body
}

// guard fails the test if a request is about to leave for anywhere but the org's
// API, which is below a path, and its login.
type guard struct {
	t          testing.TB
	api, login string
}

func (g *guard) RoundTrip(req *http.Request) (*http.Response, error) {
	if u := req.URL.String(); !strings.HasPrefix(u, g.api+"/api/") && u != g.login+loginPath || badPath(req.URL.EscapedPath()) != "" {
		g.t.Errorf("%s %s leaves", req.Method, u)
	}
	if req.Host != "" && req.Host != strings.TrimPrefix(g.api[:strings.LastIndex(g.api, "/")], "http://") {
		g.t.Errorf("%s %s leaves for the host %q", req.Method, req.URL, req.Host)
	}
	return http.DefaultTransport.RoundTrip(req)
}

// newPlatform is a gateway without keys before p.
func newPlatform(t testing.TB, p *platform, change func(*config.File)) *bench {
	g := &guard{t: t}
	return newBench(t, plan{api: p, base: g, change: func(f *config.File) {
		o := &f.Orgs[0]
		g.api, g.login = o.APIURL+"/base", o.LoginURL+"/login"
		o.APIURL, o.LoginURL = g.api, g.login
		if change != nil {
			change(f)
		}
	}})
}

// raw sends bytes and reads answers until there are no more, or for a moment
// after the first.
func (b *bench) raw(request string) (answers []answerTo) {
	b.t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(b.url, "http://"))
	must(b.t, err)
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(conn, request); err != nil {
		return nil
	}
	method, _, _ := strings.Cut(request, " ")
	for r := bufio.NewReader(conn); ; {
		resp, err := http.ReadResponse(r, &http.Request{Method: method})
		if err != nil {
			return answers
		}
		text, _ := io.ReadAll(resp.Body)
		answers = append(answers, answerTo{resp.StatusCode, resp.Header, string(text)})
		conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	}
}

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

// A name that another site has made to lead here opens nothing where no key is
// asked for, and neither does a page of another site.
func TestNoKeysOnLoopback(t *testing.T) {
	p := &platform{}
	b := newPlatform(t, p, nil)
	id := b.do("POST", executePath, body(1), "Prefer: respond-async").execution(t).Self
	wait(t, "the execution to go", func() bool { seen, _ := p.got(); return len(seen) == 1 })
	form := "grant_type=client_credentials&client_id=a&client_secret=b"
	for _, c := range []struct{ method, path string }{
		{"GET", "/headgate/"}, {"GET", "/headgate/v1/orgs"}, {"GET", "/headgate/v1/executions"}, {"GET", id}, {"DELETE", id},
		{"POST", "/headgate/v1/orgs/acme/pause"}, {"GET", "/metrics"}, {"GET", "/headgate/api/events"},
		{"POST", "/oauth/token"}, {"POST", "/acme/oauth/token"},
		{"GET", "/api/v2/users/me"}, {"POST", executePath}, {"POST", "/acme" + executePath},
	} {
		a := b.do(c.method, c.path, form, "Host: evil.example.com", "Content-Type: application/x-www-form-urlencoded")
		if a.status != 401 && a.status != 403 {
			t.Errorf("%s %s for evil.example.com: %d %s", c.method, c.path, a.status, a.body)
		}
		if c.method == "GET" && !strings.HasPrefix(c.path, "/api/") {
			continue // other pages can't read what it answers
		}
		for _, field := range []string{"Origin: http://evil.example.com", "Origin: null", "Sec-Fetch-Site: cross-site", "Sec-Fetch-Site: same-site"} {
			if a := b.do(c.method, c.path, form, field, "Content-Type: application/x-www-form-urlencoded"); a.status != 403 {
				t.Errorf("%s %s, %s: %d %s", c.method, c.path, field, a.status, a.body)
			}
		}
	}
	if seen, _ := p.got(); len(seen) > 0 {
		t.Errorf("the platform got %s %s", seen[0].Method, seen[0].URL)
	}
	if b.g.setting().orgs[0].limiter.Paused() {
		t.Error("it was paused")
	}
	for _, field := range []string{"Origin: " + b.url, "Sec-Fetch-Site: same-origin", "Sec-Fetch-Site: none"} {
		if a := b.do("GET", "/api/v2/users/me", "", field); a.status != 200 {
			t.Errorf("%s: %d %s", field, a.status, a.body)
		}
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

// What is between the caller and the gateway does not travel, in either
// direction.
func TestHeaderFieldsThatStay(t *testing.T) {
	p := &platform{answer: func(w http.ResponseWriter, _ *http.Request) {
		h := w.Header()
		h.Set("Connection", "X-Hop, Keep-Alive")
		h.Set("X-Hop", "1")
		h.Set("Keep-Alive", "timeout=5")
		h.Set("Proxy-Authenticate", "Basic")
		h.Set("X-End", "1")
		h.Set("Headgate-Execution", "acme.99")
		h.Set("Headgate-Correlation-Id", "somebody-elses")
		h.Set("Headgate-Attempts", "99")
	}}
	b := newPlatform(t, p, nil)
	request := "POST " + executePath + " HTTP/1.1\r\nHost: localhost\r\n" +
		"Authorization: Bearer callers\r\nCookie: headgate_session=callers\r\nHeadgate-Key: callers\r\nheadgate-other: callers\r\n" +
		"Connection: X-Hop, Authorization, Content-Type\r\nX-Hop: callers\r\nKeep-Alive: callers\r\nProxy-Authorization: callers\r\n" +
		"Proxy-Connection: callers\r\nPrefer: wait=5; callers\r\nPriority: u=1, callers\r\nUpgrade: h2c\r\nHTTP2-Settings: callers\r\n" +
		"X-Forwarded-For: callers\r\nForwarded: for=callers\r\nX-Forwarded-Host: callers\r\n" +
		"X-End: 1\r\nTransfer-Encoding: chunked\r\nTrailer: Authorization, Headgate-Key\r\n\r\n7\r\n{\"n\":1}\r\n0\r\nAuthorization: Bearer callers\r\nHeadgate-Key: callers\r\n\r\n"
	a := b.raw(request)
	seen, bodies := p.got()
	if len(a) != 1 || a[0].status != 200 || len(seen) != 1 || bodies[0] != body(1) {
		t.Fatalf("answered %v, %v", a, bodies)
	}
	for name, values := range seen[0].Header {
		if text := fmt.Sprint(values); strings.Contains(text, "callers") {
			t.Errorf("%s: %s travelled", name, text)
		}
	}
	if len(seen[0].Trailer) > 0 {
		t.Errorf("a trailer travelled: %v", seen[0].Trailer)
	}
	if h := seen[0].Header; h.Get("Authorization") != "Bearer "+platformToken || h.Get("X-End") != "1" || h.Get("Upgrade") != "" || h.Get("Connection") != "" {
		t.Errorf("the platform got %v", h)
	}
	h := a[0].header
	for _, name := range []string{"X-Hop", "Keep-Alive", "Proxy-Authenticate", "Connection", fieldExecution} {
		if h.Get(name) != "" {
			t.Errorf("%s: %s came back", name, h.Get(name))
		}
	}
	if h.Get("X-End") != "1" || h.Get(fieldAttempts) != "1" || len(h[fieldCorrelation]) != 1 || h.Get(fieldCorrelation) == "somebody-elses" {
		t.Errorf("answered %v", h)
	}
	if a := b.do("GET", "/api/v2/x", "", "Connection: Upgrade", "Upgrade: websocket"); a.status != 400 {
		t.Errorf("Upgrade: websocket: %d %s", a.status, a.body)
	}
}

// A trailer does not travel with a body that is streamed either.
func TestTrailersStay(t *testing.T) {
	p := &platform{}
	b := newPlatform(t, p, func(f *config.File) { f.Bounds.Buffer = 4 })
	b.raw("POST /api/v2/x HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nTrailer: Authorization\r\n\r\n7\r\n{\"n\":1}\r\n0\r\nAuthorization: Bearer callers\r\n\r\n")
	seen, bodies := p.got()
	if len(seen) != 1 || bodies[0] != body(1) || len(seen[0].Trailer) > 0 || seen[0].Header.Get("Trailer") != "" {
		t.Errorf("%v %v", seen, bodies)
	}
}

// Where tokens pass through, exactly the caller's goes, once.
func TestPassThroughSendsTheCallersToken(t *testing.T) {
	p := &platform{}
	b := newPlatform(t, p, func(f *config.File) { f.Orgs[0].PassThrough = true })
	b.raw("GET /api/v2/x HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer one\r\nConnection: Authorization\r\nCookie: a=b\r\nHeadgate-Key: k\r\n\r\n")
	if seen, _ := p.got(); len(seen) != 1 || fmt.Sprint(seen[0].Header["Authorization"]) != "[Bearer one]" || len(seen[0].Header["Cookie"])+len(seen[0].Header["Headgate-Key"]) > 0 {
		t.Errorf("%v", seen)
	}
	b.do("GET", "/api/v2/x", "")
	if seen, _ := p.got(); len(seen) != 1 || len(seen[0].Header["Authorization"]) > 0 {
		t.Errorf("without a token: %v", seen)
	}
	// The limit would count one, and the platform might read the other.
	a := b.raw("GET /api/v2/x HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer one\r\nAuthorization: Bearer two\r\n\r\n")
	if seen, _ := p.got(); len(seen) > 0 || len(a) != 1 || a[0].status != 400 || !strings.Contains(a[0].problem(t).Detail, "Authorization") {
		t.Errorf("two tokens: %v %v", a, seen)
	}
}

// An answer that switches protocols makes no tunnel.
func TestNoTunnel(t *testing.T) {
	p := &platform{answer: func(w http.ResponseWriter, r *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err == nil {
			io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\n\r\n")
			conn.Close()
		}
	}}
	b := newPlatform(t, p, nil)
	if a := b.raw("POST /api/v2/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}"); len(a) != 1 || a[0].status != 502 {
		t.Errorf("%v", a)
	}
}

// Who ends its half of the connection is taken for gone, and does not get 200.
func TestHalfClosed(t *testing.T) {
	p := &platform{}
	b := newPlatform(t, p, nil)
	o := b.g.setting().orgs[0]
	o.limiter.Pause()
	conn, err := net.Dial("tcp", strings.TrimPrefix(b.url, "http://"))
	must(t, err)
	defer conn.Close()
	io.WriteString(conn, "GET /api/v2/x HTTP/1.1\r\nHost: localhost\r\n\r\n")
	wait(t, "the call to be held", func() bool { return inLine(o) == 1 })
	must(t, conn.(*net.TCPConn).CloseWrite())
	conn.SetReadDeadline(time.Now().Add(20 * time.Second))
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err == nil && resp.StatusCode != 503 {
		t.Errorf("answered %d", resp.StatusCode)
	}
	wait(t, "its place to be free", func() bool { return o.held.Load() == 0 })
	if seen, _ := p.got(); len(seen) > 0 {
		t.Error("it was sent")
	}
}

// Of a request that two servers could read in two ways the platform gets one
// that is well formed, or nothing.
func TestSmuggling(t *testing.T) {
	p := &platform{}
	b := newPlatform(t, p, nil)
	const inner = "GET /api/v2/smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"
	for what, c := range map[string]struct {
		fields, body string
		want         string // the body that the platform gets; "-" for nothing
	}{
		"plain":              {"Content-Length: 3", "abc", "abc"},
		"CL and TE":          {"Content-Length: 4\r\nTransfer-Encoding: chunked", "3\r\nabc\r\n0\r\n\r\n", "abc"},
		"TE and CL":          {"Transfer-Encoding: chunked\r\nContent-Length: 100", "3\r\nabc\r\n0\r\n\r\n", "abc"},
		"two CL":             {"Content-Length: 3\r\nContent-Length: 60", "abc" + inner, "-"},
		"two CL in one":      {"Content-Length: 3, 60", "abc" + inner, "-"},
		"CL with a sign":     {"Content-Length: +3", "abc" + inner, "-"},
		"negative CL":        {"Content-Length: -1", "abc", "-"},
		"hexadecimal CL":     {"Content-Length: 0x3", "abc", "-"},
		"no chunk size":      {"Transfer-Encoding: chunked", "\r\nabc\r\n0\r\n\r\n", "-"},
		"bad chunk size":     {"Transfer-Encoding: chunked", "3x\r\nabc\r\n0\r\n\r\n", "-"},
		"large chunk size":   {"Transfer-Encoding: chunked", "ffffffffffffffff3\r\nabc\r\n0\r\n\r\n", "-"},
		"chunk too long":     {"Transfer-Encoding: chunked", "3\r\nabcdef\r\n0\r\n\r\n", "-"},
		"chunk by bare LF":   {"Transfer-Encoding: chunked", "3\nabc\n0\n\n", "-"},
		"xchunked":           {"Transfer-Encoding: xchunked", "3\r\nabc\r\n0\r\n\r\n", "-"},
		"two TE":             {"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", "3\r\nabc\r\n0\r\n\r\n", "-"},
		"TE of two":          {"Transfer-Encoding: identity, chunked", "3\r\nabc\r\n0\r\n\r\n", "-"},
		"TE after a tab":     {"Transfer-Encoding:\tchunked", "3\r\nabc\r\n0\r\n\r\n", "abc"},
		"TE before a space":  {"Transfer-Encoding : chunked", "3\r\nabc\r\n0\r\n\r\n", "-"},
		"CL before a space":  {"Content-Length : 3", "abc", "-"},
		"TE behind a VT":     {"Transfer-Encoding: \x0bchunked", "3\r\nabc\r\n0\r\n\r\n", "-"},
		"field without name": {": chunked", "", "-"},
		"line without colon": {"Transfer-Encoding", "", "-"},
		"bare CR":            {"X: a\rTransfer-Encoding: chunked", "", "-"},
		"NUL":                {"X: a\x00b", "", "-"},
		"folded":             {"X: a\r\n Content-Length: 3", "", ""},
	} {
		answers := b.raw("POST /api/v2/x HTTP/1.1\r\nHost: localhost\r\n" + c.fields + "\r\n\r\n" + c.body)
		seen, bodies := p.got()
		for _, r := range seen {
			if r.URL.Path != "/base/api/v2/x" {
				t.Errorf("%s: the platform got %s", what, r.URL)
			}
		}
		switch {
		case c.want == "-" && len(seen) > 0:
			t.Errorf("%s: the platform got %q", what, bodies)
		case c.want != "-" && (len(seen) != 1 || bodies[0] != c.want || seen[0].ContentLength != int64(len(c.want))):
			t.Errorf("%s: answered %v, the platform got %q", what, answers, bodies)
		}
		for _, a := range answers[min(len(answers), 1):] {
			if a.status == 200 {
				t.Errorf("%s: answered twice", what)
			}
		}
	}
}

// Too much is refused, and says so.
func TestTooMuch(t *testing.T) {
	p := &platform{}
	b := newPlatform(t, p, func(f *config.File) {
		f.Bounds.Body, f.Bounds.Buffer, f.Bounds.Header = 1000, 100, 8192
		f.Orgs[0].Bounds.Held = 1
	})
	large := strings.Repeat("x", 1001)
	chunked := fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(large), large)
	for what, c := range map[string]struct {
		request string
		status  int
	}{
		"declared":        {fmt.Sprintf("POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s", executePath, len(large), large), 413},
		"chunked":         {"POST " + executePath + " HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked, 413},
		"kept":            {fmt.Sprintf("POST %s HTTP/1.1\r\nHost: localhost\r\nPrefer: respond-async\r\nContent-Length: 500\r\n\r\n%s", executePath, large[:500]), 413},
		"declared, alone": {fmt.Sprintf("POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n", executePath, 1<<40), 413},
		"one long field":  {"GET /api/v2/x HTTP/1.1\r\nHost: localhost\r\nX: " + strings.Repeat("x", 20_000) + "\r\n\r\n", 431},
		"many fields":     {"GET /api/v2/x HTTP/1.1\r\nHost: localhost\r\n" + strings.Repeat("X: x\r\n", 4000) + "\r\n", 431},
		"just right":      {fmt.Sprintf("POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n%s", executePath, large[:1000]), 200},
	} {
		answers := b.raw(c.request)
		seen, _ := p.got()
		if len(answers) != 1 || answers[0].status != c.status || len(seen) != map[bool]int{true: 1}[c.status == 200] {
			t.Errorf("%s: answered %v, %d reached the platform", what, answers, len(seen))
		}
	}
	o := b.g.setting().orgs[0]
	o.limiter.Pause()
	done := make(chan answerTo)
	go func() { done <- b.do("POST", executePath, body(1)) }()
	wait(t, "a call to be held", func() bool { return inLine(o) == 1 })
	if a := b.do("POST", executePath, body(2)); a.status != 503 || a.header.Get("Retry-After") == "" || !strings.Contains(a.problem(t).Detail, "bounds.held") {
		t.Errorf("one too many: %d %v %s", a.status, a.header, a.body)
	}
	o.limiter.Resume()
	if a := <-done; a.status != 200 {
		t.Errorf("the one that was held: %d %s", a.status, a.body)
	}
}

// keyed is a gateway with two orgs, callers and an operator. Keys are drawn anew.
type keyed struct {
	*bench
	p                     *platform
	crm, bulk, globex, op string
}

func newKeyed(t testing.TB, p *platform) *keyed {
	k := &keyed{p: p}
	caller := func(o *config.Org, name string) (key string) {
		c := o.Guest(name)
		key, c.Key = keys.New()
		o.Callers = append(o.Callers, c)
		return key
	}
	k.bench = newPlatform(t, p, func(f *config.File) {
		other := f.Orgs[0]
		other.Name, other.Path, other.Default = "globex", "/globex", false
		k.crm, k.bulk, k.globex = caller(&f.Orgs[0], "crm"), caller(&f.Orgs[0], "bulk"), caller(&other, "crm")
		f.Orgs = append(f.Orgs, other)
		var hash keys.Hash
		k.op, hash = keys.New()
		f.Operators = []config.Operator{{Name: "ops", Key: hash}}
	})
	return k
}

func bearer(key string) string { return "Authorization: Bearer " + key }

// token logs a caller in.
func (k *keyed) token(name, key string) string {
	k.t.Helper()
	a := k.do("POST", "/oauth/token", "grant_type=client_credentials&client_id="+name+"&client_secret="+key, "Content-Type: application/x-www-form-urlencoded")
	_, rest, ok := strings.Cut(a.body, `"access_token":"`)
	token, _, _ := strings.Cut(rest, `"`)
	if a.status != 200 || !ok {
		k.t.Fatalf("logging in: %d %s", a.status, a.body)
	}
	return token
}

// All wrong keys get one answer, whatever is wrong with them, and reach nothing.
func TestWrongKeys(t *testing.T) {
	p := &platform{}
	k := newKeyed(t, p)
	token, elsewhere := k.token("crm", k.crm), k.token("crm", k.globex)
	stranger, _ := keys.New()
	forged := keys.NewIssuer(keys.NewSecret()).Issue(keys.Claims{Org: "acme", Caller: "crm", Key: keys.HashOf(k.crm).Fingerprint()}, keys.ForCalls, time.Now(), time.Hour)
	old := k.g.issuer.Issue(keys.Claims{Org: "acme", Caller: "crm", Key: keys.HashOf(k.crm).Fingerprint()}, keys.ForCalls, time.Now().Add(-2*time.Hour), time.Hour)
	session := k.g.issuer.Issue(keys.Claims{Caller: "ops", Key: keys.HashOf(k.op).Fingerprint()}, keys.ForPage, time.Now(), time.Hour)
	guest := k.g.issuer.Issue(keys.Claims{Org: "acme", Caller: "nobody"}, keys.ForCalls, time.Now(), time.Hour)
	basic := func(name, key string) string {
		r := &http.Request{Header: http.Header{}}
		r.SetBasicAuth(name, key)
		return "Authorization: " + r.Header.Get("Authorization")
	}
	for what, field := range map[string]string{
		"a token": bearer(token), "a key": bearer(k.crm), "Headgate-Key": "Headgate-Key: " + k.crm,
		"Basic": basic("crm", k.crm), "Basic with the org": basic("acme/crm", k.crm),
	} {
		if a := k.do("GET", "/acme/api/v2/x", "", field); a.status != 200 {
			t.Errorf("%s: %d %s", what, a.status, a.body)
		}
	}
	p.got()
	var first answerTo
	for what, field := range map[string]string{
		"none": "X: y", "a stranger's key": bearer(stranger), "no key": bearer("x"), "empty": bearer(""),
		"another scheme": "Authorization: Digest x", "a forged token": bearer(forged), "an expired token": bearer(old),
		"a session": bearer(session), "a session as cookie": "Cookie: " + sessionCookie + "=" + session, "a token as cookie": "Cookie: " + sessionCookie + "=" + token,
		"a guest's token": bearer(guest), "a cut token": bearer(token[:len(token)-1]), "a changed token": bearer(token[:8] + "x" + token[9:]),
		"a token of another org": bearer(elsewhere), "a key of another org": bearer(k.globex),
		"the operator's key":         bearer(k.op),
		"a known name, a wrong key":  basic("crm", stranger),
		"an unknown name":            basic("nobody", stranger),
		"a known name, another's":    basic("crm", k.bulk),
		"an unknown name, one's key": basic("nobody", k.crm),
		"no name":                    basic("", k.crm), "nothing": basic("", ""),
	} {
		a := k.do("GET", "/acme/api/v2/x", "", field)
		a.header.Del("Date")
		a.header.Del(fieldCorrelation)
		if first.status == 0 {
			first = a
		}
		if a.status != 401 || fmt.Sprint(a) != fmt.Sprint(first) {
			t.Errorf("%s: %v, another: %v", what, a, first)
		}
	}
	if seen, _ := p.got(); len(seen) > 0 {
		t.Errorf("%d calls reached the platform", len(seen))
	}
	var login answerTo
	for _, pair := range [][2]string{{"crm", stranger}, {"nobody", stranger}, {"nobody", k.crm}, {"crm", k.bulk}, {"crm", ""}, {"", ""}, {"", k.crm}, {"ops", k.op}} {
		a := k.do("POST", "/oauth/token", "grant_type=client_credentials&client_id="+pair[0]+"&client_secret="+pair[1], "Content-Type: application/x-www-form-urlencoded")
		a.header.Del("Date")
		a.header.Del(fieldCorrelation)
		if login.status == 0 {
			login = a
		}
		if a.status != 401 || fmt.Sprint(a) != fmt.Sprint(login) {
			t.Errorf("logging in as %q: %v, another: %v", pair[0], a, login)
		}
	}
	// Without a key nobody learns which orgs there are.
	for _, path := range []string{"/acme/api/x", "/globex/api/x", "/nobody/api/x", "/api/x", "/acme/x", "/metrics", "/headgate/", "/headgate/v1/orgs", "/headgate/v1/orgs/acme", "/headgate/v1/executions/acme.1"} {
		if a := k.do("GET", path, ""); a.status != 401 {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}
	if a := k.do("GET", "/readyz", ""); a.status != 200 || strings.Contains(a.body, "acme") {
		t.Errorf("/readyz: %d %s", a.status, a.body)
	}
}

// With a key go its tokens and sessions, and a token of the time when no key was
// needed is none.
func TestReloadTakesTokensAway(t *testing.T) {
	k := newKeyed(t, &platform{})
	token, stays := k.token("crm", k.crm), k.token("bulk", k.bulk)
	session := k.login()
	if a := k.do("GET", "/headgate/v1/orgs", "", session); a.status != 200 {
		t.Fatalf("the session: %d %s", a.status, a.body)
	}
	f := *k.file
	f.Orgs = append([]config.Org(nil), f.Orgs...)
	f.Orgs[0].Callers = append([]config.Caller(nil), f.Orgs[0].Callers...)
	_, f.Orgs[0].Callers[0].Key = keys.New()
	_, hash := keys.New()
	f.Operators = []config.Operator{{Name: "ops", Key: hash}}
	must(t, k.g.Reload(&f))
	for what, c := range map[string]struct {
		path, field string
		status      int
	}{
		"a token of the key before": {"/acme/api/x", bearer(token), 401},
		"the key before":            {"/acme/api/x", bearer(k.crm), 401},
		"another caller's token":    {"/acme/api/x", bearer(stays), 200},
		"the session":               {"/headgate/v1/orgs", session, 401},
	} {
		if a := k.do("GET", c.path, "", c.field); a.status != c.status {
			t.Errorf("%s: %d %s", what, a.status, a.body)
		}
	}
	// Orgs without callers, and then with them.
	f.Orgs[0].Callers = nil
	open := f
	must(t, k.g.Reload(&open))
	guest := k.token("nobody", "x")
	if a := k.do("GET", "/acme/api/x", "", bearer(guest)); a.status != 200 {
		t.Errorf("a guest: %d %s", a.status, a.body)
	}
	must(t, k.g.Reload(k.file))
	if a := k.do("GET", "/acme/api/x", "", bearer(guest)); a.status != 401 {
		t.Errorf("a guest's token, where a key is needed: %d %s", a.status, a.body)
	}
}

// login begins a session of the page.
func (k *keyed) login() (cookie string) {
	k.t.Helper()
	a := k.do("POST", sessionPath, "key="+k.op, "Content-Type: application/x-www-form-urlencoded", "Sec-Fetch-Site: same-origin")
	set := a.header.Get("Set-Cookie")
	value, attributes, _ := strings.Cut(set, ";")
	if a.status != 303 || !strings.Contains(attributes, "HttpOnly") || !strings.Contains(attributes, "SameSite=Strict") || !strings.Contains(attributes, "Path=/headgate/") {
		k.t.Fatalf("logging in at the page: %d %q", a.status, set)
	}
	return "Cookie: " + value
}

// The page and its session are for operators, from pages of the gateway's own.
func TestSession(t *testing.T) {
	k := newKeyed(t, &platform{})
	form := "Content-Type: application/x-www-form-urlencoded"
	for what, key := range map[string]string{"a caller's key": k.crm, "nothing": "", "a wrong key": "hg_x"} {
		if a := k.do("POST", sessionPath, "key="+key, form); a.header.Get("Set-Cookie") != "" || a.header.Get("Location") != loginPagePath+"?wrong" {
			t.Errorf("%s: %d %v", what, a.status, a.header)
		}
	}
	session := k.login()
	for _, field := range []string{"Origin: https://evil.example.com", "Origin: null", "Sec-Fetch-Site: cross-site", "Sec-Fetch-Site: same-site"} {
		for _, path := range []string{"/headgate/v1/orgs/acme/pause", "/headgate/api/pause", sessionPath} {
			if a := k.do("POST", path, `{"org":"acme"}`, session, field, "Content-Type: application/json"); a.status != 403 {
				t.Errorf("POST %s, %s: %d %s", path, field, a.status, a.body)
			}
		}
	}
	if k.g.setting().orgs[0].limiter.Paused() {
		t.Error("it was paused")
	}
	if a := k.do("POST", "/headgate/v1/orgs/acme/pause", "", session, "Sec-Fetch-Site: same-origin"); a.status != 200 {
		t.Errorf("the page's own: %d %s", a.status, a.body)
	}
	for _, path := range []string{"/headgate/", "/metrics"} {
		if a := k.do("GET", path, "", bearer(k.crm)); a.status != 403 {
			t.Errorf("%s for a caller: %d %s", path, a.status, a.body)
		}
	}
	// The session opens the page, and no call.
	if a := k.do("GET", "/acme/api/x", "", session); a.status != 401 {
		t.Errorf("a call with the session: %d %s", a.status, a.body)
	}
}

// Callers have what is theirs, operators all.
func TestCallersSeeTheirOwn(t *testing.T) {
	k := newKeyed(t, &platform{answer: func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		io.WriteString(w, "<script>alert(1)</script>")
	}})
	o := k.g.setting().orgs[0]
	o.limiter.Pause()
	x := k.do("POST", "/acme"+executePath, body(1), bearer(k.crm), "Prefer: respond-async", "Idempotency-Key: k").execution(t)
	// The same key of another caller is another execution.
	if y := k.do("POST", "/acme"+executePath, body(1), bearer(k.bulk), "Prefer: respond-async", "Idempotency-Key: k").execution(t); y.ID == x.ID {
		t.Error("two callers share an Idempotency-Key")
	}
	for _, who := range []string{k.bulk, k.globex} {
		for _, c := range []struct{ method, path, body string }{
			{"GET", x.Self, ""}, {"GET", x.Self + "/answer", ""}, {"DELETE", x.Self, ""}, {"POST", x.Self + "/resolve", `{"action":"give-up"}`},
		} {
			a := k.do(c.method, c.path, c.body, bearer(who), "Content-Type: application/json")
			none := k.do(c.method, strings.Replace(c.path, x.ID, "acme.999", 1), c.body, bearer(who), "Content-Type: application/json")
			if a.status != 404 || a.body != none.body {
				t.Errorf("%s %s for another: %d %s", c.method, c.path, a.status, a.body)
			}
		}
		for _, query := range []string{"", "?caller=crm", "?org=acme&caller=crm"} {
			if a := k.do("GET", "/headgate/v1/executions"+query, "", bearer(who)); strings.Contains(a.body, x.ID) {
				t.Errorf("the list %s for another: %s", query, a.body)
			}
		}
		for _, action := range []string{"pause", "resume"} {
			if a := k.do("POST", "/headgate/v1/orgs/acme/"+action, "", bearer(who)); a.status != 403 && a.status != 404 {
				t.Errorf("%s: %d", action, a.status)
			}
		}
	}
	if a := k.do("GET", "/headgate/v1/orgs/acme", "", bearer(k.globex)); a.status != 404 {
		t.Errorf("another's org: %d %s", a.status, a.body)
	}
	if a := k.do("GET", "/headgate/v1/orgs", "", bearer(k.globex)); strings.Contains(a.body, "acme") {
		t.Errorf("the list of orgs: %s", a.body)
	}
	o.limiter.Resume()
	for _, who := range []string{k.crm, k.op} {
		if end := k.do("GET", x.Self, "", bearer(who), "Prefer: wait=10").execution(t); end.State != "done" {
			t.Errorf("%+v", end)
		}
	}
	// What the platform has answered does nothing in an operator's browser.
	if a := k.do("GET", x.Self+"/answer", "", bearer(k.op)); !strings.Contains(a.header.Get("Content-Security-Policy"), "sandbox") || a.header.Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("the answer: %v", a.header)
	}
}

// Bad input is named.
func TestBadInputIsNamed(t *testing.T) {
	p := &platform{}
	b := newPlatform(t, p, nil)
	for _, field := range []string{
		"Prefer: wait=soon", "Prefer: wait=-1", "Prefer: wait=NaN", "Prefer: respond-async, wait=1e9",
		"Idempotency-Key: ", `Idempotency-Key: "a"b"`, "Idempotency-Key: é", "Idempotency-Key: " + strings.Repeat("x", 256),
		"Headgate-Delivery: twice", "Headgate-Deadline: yesterday", "Headgate-Deadline: -1", "Headgate-Deadline: 1e12", "Headgate-Deadline: NaN",
		"Headgate-Callback: https://evil.example.com/", "Upgrade: websocket",
	} {
		name, _, _ := strings.Cut(field, ":")
		if pr := b.do("POST", executePath, body(1), field).problem(t); pr.Status != 400 || !strings.Contains(pr.Detail, name) {
			t.Errorf("%.40s: %+v", field, pr)
		}
	}
	for query, name := range map[string]string{
		"limit=0": "limit", "limit=x": "limit", "limit=501": "limit", "state=gone": "state", "order=up": "order",
		"after=x": "after", "after=acme.0": "after", "after=acme.01": "after", "nothing=1": "nothing", "limit=%zz": "query", "a;b": "query",
	} {
		if pr := b.do("GET", "/headgate/v1/executions?"+query, "").problem(t); pr.Status != 400 || !strings.Contains(pr.Detail, name) {
			t.Errorf("?%s: %+v", query, pr)
		}
	}
	if pr := b.do("GET", "/headgate/v1/executions?org=nobody", "").problem(t); pr.Status != 404 {
		t.Errorf("%+v", pr)
	}
	if seen, _ := p.got(); len(seen) > 0 {
		t.Errorf("%d calls were sent", len(seen))
	}
}

// The platform's own refusals pass as they are.
func TestPlatformsRefusalsPass(t *testing.T) {
	zipped := "\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff" + "broken"
	for _, c := range []struct {
		status               int
		kind, encoding, body string
	}{
		{400, "application/json", "", `{"message":"no"}`},
		{403, "application/problem+json", "", `{"type":"/headgate/v1/problems/limit","status":429}`},
		{404, "text/html", "", "<html>"},
		{409, "application/json", "gzip", zipped},
		{422, "", "", ""},
	} {
		p := &platform{answer: func(w http.ResponseWriter, _ *http.Request) {
			w.Header()["Content-Type"] = []string{c.kind}
			if c.encoding != "" {
				w.Header().Set("Content-Encoding", c.encoding)
			}
			w.WriteHeader(c.status)
			io.WriteString(w, c.body)
		}}
		b := newPlatform(t, p, nil)
		a := b.do("POST", executePath, body(1), "Accept-Encoding: gzip")
		if a.status != c.status || a.body != c.body || a.header.Get("Content-Type") != c.kind || a.header.Get("Content-Encoding") != c.encoding {
			t.Errorf("%d: %d %v %q", c.status, a.status, a.header, a.body)
		}
		b.end()
	}
}

// HTTP/2 works with TLS, and without it by prior knowledge. A space in its target
// would end the target in HTTP/1.
func TestHTTP2(t *testing.T) {
	p := &platform{}
	b := newPlatform(t, p, nil)
	secure := httptest.NewUnstartedServer(nil)
	secure.StartTLS()
	defer secure.Close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	ctx, stop := context.WithCancel(t.Context())
	var served sync.WaitGroup
	served.Go(func() { b.g.Serve(ctx, t.Context(), []net.Listener{l}, secure.TLS) })
	defer served.Wait()
	defer stop()
	for scheme, address := range map[string]string{"http": strings.TrimPrefix(b.url, "http://"), "https": l.Addr().String()} {
		transport := secure.Client().Transport.(*http.Transport).Clone()
		transport.TLSClientConfig.NextProtos = []string{"h2"}
		transport.Protocols = new(http.Protocols)
		transport.Protocols.SetUnencryptedHTTP2(true)
		transport.Protocols.SetHTTP2(true)
		client := &http.Client{Transport: transport}
		for target, status := range map[string]int{"/api/v2/x?a=b": 200, "/api/v2/x?a b": 400, "/api/v2/x?a HTTP/1.1": 400} {
			req, err := http.NewRequest("POST", scheme+"://"+address+"/", strings.NewReader(body(1)))
			must(t, err)
			req.Host = "localhost"
			req.URL.Path, req.URL.RawQuery, _ = strings.Cut(target, "?")
			resp, err := client.Do(req)
			must(t, err)
			resp.Body.Close()
			// The platform's server would refuse it as well.
			ours := resp.Header.Get("Content-Type") == "application/problem+json"
			if resp.ProtoMajor != 2 || resp.StatusCode != status || ours != (status == 400) {
				t.Errorf("%s %s: %s %d", scheme, target, resp.Proto, resp.StatusCode)
			}
			if seen, _ := p.got(); len(seen) != map[bool]int{true: 1}[status == 200] {
				t.Errorf("%s %s: the platform got %v", scheme, target, seen)
			}
		}
		transport.CloseIdleConnections()
	}
}

// storedAt is an execution with that path.
func storedAt(path string) queue.Execution {
	return queue.Execution{ID: 1, Method: "POST", Path: path, Body: []byte("{}"), Caller: "crm"}
}
