package gateway

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/headgate/headgate/internal/config"
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
