package genesys

import (
	"context"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/headgate/headgate"
	"github.com/headgate/headgate/emulator"
	"github.com/headgate/headgate/headgatetest"
)

// roundTrip is a base that is a function.
type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

// reply makes an answer from pairs of header fields.
func reply(status int, body string, header ...string) *http.Response {
	r := &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body))}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	return r
}

// platform is an emulator in fake time, and a connection to it.
type platform struct {
	*headgatetest.Pair
	org   *Org
	start time.Time
}

// connect must be called inside a bubble.
func connect(t *testing.T, e emulator.Config, c Config) *platform {
	t.Helper()
	return connectOver(t, headgatetest.Network{}, e, c)
}

// connectOver is connect with a network in between.
func connectOver(t *testing.T, network headgatetest.Network, e emulator.Config, c Config) *platform {
	t.Helper()
	p := &platform{Pair: headgatetest.NewNetwork(t, e, network), start: time.Now()}
	if c.Credentials.ClientID == "" {
		c.Credentials = Credentials{ClientID: emulator.DefaultClientID, ClientSecret: NewSecret(emulator.DefaultClientSecret)}
	}
	c.APIURL, c.LoginURL = p.URL, p.URL
	if c.Base == nil {
		c.Base = p.Transport()
	}
	org, err := Connect(c)
	if err != nil {
		t.Fatal(err)
	}
	p.org = org
	t.Cleanup(org.Close)
	return p
}

func (p *platform) since() time.Duration { return time.Since(p.start) }

// wireLog notes when logins leave and how many are on their way at most.
type wireLog struct {
	base http.RoundTripper

	mu       sync.Mutex
	start    time.Time
	logins   []time.Duration
	inFlight int
	most     int
}

func (w *wireLog) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Path != loginPath {
		return w.base.RoundTrip(req)
	}
	w.mu.Lock()
	if w.start.IsZero() {
		w.start = time.Now()
	}
	w.logins = append(w.logins, time.Since(w.start))
	w.inFlight++
	w.most = max(w.most, w.inFlight)
	w.mu.Unlock()
	defer func() {
		w.mu.Lock()
		w.inFlight--
		w.mu.Unlock()
	}()
	return w.base.RoundTrip(req)
}

func (w *wireLog) seen() []time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]time.Duration(nil), w.logins...)
}

// source makes a token source on base. It must be called inside a bubble.
func source(t *testing.T, base http.RoundTripper, c TokenConfig) *TokenSource {
	t.Helper()
	c.ClientID, c.ClientSecret = "client-a", NewSecret(testSecret)
	if c.LoginURL == "" {
		c.LoginURL = "https://login.test"
	}
	c.Base = base
	s, err := NewTokenSource(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

const testSecret = "not a real one"

// sleep lets fake time pass.
func sleep(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func mustToken(t *testing.T, a headgate.Authorizer) string {
	t.Helper()
	token, err := a.Token(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return token
}
