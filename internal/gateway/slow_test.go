package gateway

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/headgate/headgate"
	"github.com/headgate/headgate/genesys"
	"github.com/headgate/headgate/internal/config"
)

// pipes is a listener in memory, for which time can be a fake.
type pipes struct{ conns chan net.Conn }

func (p *pipes) Accept() (net.Conn, error) {
	if c, ok := <-p.conns; ok {
		return c, nil
	}
	return nil, net.ErrClosed
}
func (p *pipes) Close() error   { return nil }
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }

// always is an API in memory that reads each request to its end.
type always struct{}

func (always) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Body != nil {
		if _, err := io.Copy(io.Discard, req.Body); err != nil {
			return nil, err
		}
	}
	return &http.Response{
		StatusCode: 200, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Request: req, Header: http.Header{},
		Body: io.NopCloser(strings.NewReader(`{"access_token":"x","expires_in":86400}`)),
	}, nil
}

// What comes too slowly is given up, whoever sends it and whatever it is for: a
// header, a body that is waited for, and one that nobody wants.
func TestTooSlow(t *testing.T) {
	const head = " HTTP/1.1\r\nHost: localhost\r\n"
	for what, c := range map[string]struct {
		request string
		drip    string // what comes then, each second
		status  int    // 0: none
		after   time.Duration
	}{
		"no header at all":           {"", "", 0, 10 * time.Second},
		"a header that does not end": {"GET /api/v2/x" + head, "X: y\r\n", 0, 10 * time.Second},
		"a body that does not come":  {"POST /api/v2/x" + head + "Content-Length: 100\r\n\r\n{", "", 408, bodyTime},
		"a body that comes slowly":   {"POST /api/v2/x" + head + "Content-Length: 100\r\n\r\n{", "x", 408, bodyTime},
		"a body without length":      {"POST /api/v2/x" + head + "Transfer-Encoding: chunked\r\n\r\n", "1\r\nx\r\n", 408, bodyTime},
		"the rest of a long one":     {"POST /api/v2/x" + head + "Content-Length: 3000\r\n\r\n" + strings.Repeat("x", 2000), "", 408, bodyTime},
		"one for a login":            {"POST /oauth/token" + head + "Content-Length: 100\r\n\r\ngrant", "", 400, bodyTime},
		"one for a session":          {"POST /headgate/session" + head + "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 100\r\n\r\nkey", "", 303, bodyTime},
		"one that nobody wants":      {"POST /nowhere" + head + "Content-Length: 100\r\n\r\nx", "", 404, bodyTime},
	} {
		dir := t.TempDir()
		synctest.Test(t, func(t *testing.T) {
			f := config.Single(config.Org{
				Name: "acme", APIURL: "http://api.test", LoginURL: "http://login.test", MaxWait: time.Minute,
				Credentials: genesys.Credentials{ClientID: "id", ClientSecret: genesys.NewSecret("secret")},
				Limits:      []headgate.Limit{{Name: "token", Match: "/api/", Rate: 1e6, Burst: 1e6}},
			})
			f.Data, f.Bounds.Buffer = dir, 1000
			g, err := Open(Config{File: f, Base: always{}})
			must(t, err)
			l := &pipes{make(chan net.Conn)}
			ctx, stop := context.WithCancel(t.Context())
			over := make(chan error)
			go func() { over <- g.Serve(ctx, t.Context(), []net.Listener{l}, nil) }()

			ours, theirs := net.Pipe()
			l.conns <- theirs
			start := time.Now()
			var writing sync.WaitGroup
			writing.Go(func() {
				for text := c.request; ; text = c.drip {
					if _, err := io.WriteString(ours, text); err != nil {
						return
					}
					if c.drip == "" {
						return
					}
					time.Sleep(time.Second)
				}
			})
			r := bufio.NewReader(ours)
			status := 0
			if resp, err := http.ReadResponse(r, nil); err == nil {
				status = resp.StatusCode
				io.Copy(io.Discard, resp.Body)
			}
			io.Copy(io.Discard, r) // until it is closed
			if took := time.Since(start); status != c.status || took < c.after || took > c.after+2*time.Second {
				t.Errorf("%s: %d, closed after %v", what, status, took)
			}
			ours.Close()
			writing.Wait()
			stop()
			close(l.conns)
			must(t, <-over)
			must(t, g.Close())
		})
	}
}
