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
)

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
