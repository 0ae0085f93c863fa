package gateway

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/headgate/headgate"
	"github.com/headgate/headgate/emulator"
	"github.com/headgate/headgate/genesys"
	"github.com/headgate/headgate/internal/config"
)

// TestMain is also the entry of processes that a test starts.
func TestMain(m *testing.M) {
	if job := os.Getenv(crowdEnv); job != "" {
		if err := crowdChild(job, os.Stdin); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if job := os.Getenv(gatewayEnv); job != "" {
		if err := gatewayChild(job); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// bench is a gateway on loopback before an emulator.
type bench struct {
	t        testing.TB
	emulator *emulator.Server
	api      *httptest.Server
	g        *Gateway
	url      string
	file     *config.File
	env      func(string) string
	end      func() // drains and closes
}

// plan says what a bench is to be.
type plan struct {
	emulator emulator.Config
	// limits are what the gateway is told; nil: what the emulator has.
	limits []headgate.Limit
	// change changes the file before the gateway is opened.
	change func(*config.File)
	base   http.RoundTripper
	dir    string
	api    http.Handler // in place of the emulator
	env    func(string) string
}

// fast is a limit that is in nobody's way.
var fast = []emulator.Limit{{Rate: 1e6, Burst: 1e6}}

func newBench(t testing.TB, p plan) *bench {
	t.Helper()
	b := &bench{t: t}
	if p.emulator.Limits == nil {
		p.emulator.Limits = fast
	}
	if p.emulator.Key == nil {
		p.emulator.Key = func(_ *http.Request, body []byte) string { return string(body) }
	}
	srv, err := emulator.New(p.emulator)
	must(t, err)
	b.emulator = srv
	handler := p.api
	if handler == nil {
		handler = srv.API()
	}
	b.api = httptest.NewServer(handler)
	t.Cleanup(b.api.Close)
	if p.limits == nil {
		for _, l := range p.emulator.Limits {
			p.limits = append(p.limits, headgate.Limit{Name: genesys.LimitToken, Match: "/api/", Rate: l.Rate, Burst: l.Burst})
		}
	}
	if p.dir == "" {
		p.dir = t.TempDir()
	}
	b.env = p.env
	b.file = config.Single(b.org("acme", p.limits))
	b.file.Data, b.file.Orgs[0].Path = p.dir, "/acme"
	if p.change != nil {
		p.change(b.file)
	}
	b.open(p.base)
	return b
}

// org is an org of the emulator's.
func (b *bench) org(name string, limits []headgate.Limit) config.Org {
	return config.Org{
		Name: name, Path: "/" + name, APIURL: b.api.URL, LoginURL: b.api.URL,
		Credentials: genesys.Credentials{ClientID: emulator.DefaultClientID, ClientSecret: genesys.NewSecret(emulator.DefaultClientSecret)},
		Limits:      limits, MaxWait: time.Minute, Timeout: 30 * time.Second,
	}
}

// open opens the gateway and serves it.
func (b *bench) open(base http.RoundTripper) {
	b.t.Helper()
	g, err := Open(Config{File: b.file, Version: "test", Base: base, Env: b.env})
	must(b.t, err)
	b.g = g
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(b.t, err)
	b.url = "http://" + l.Addr().String()
	ctx, stop := context.WithCancel(context.Background())
	over := make(chan error, 1)
	go func() { over <- g.Serve(ctx, context.Background(), []net.Listener{l}, nil) }()
	var once sync.Once
	b.end = func() {
		once.Do(func() {
			stop()
			must(b.t, <-over)
			must(b.t, g.Close())
		})
	}
	b.t.Cleanup(b.end)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

const executePath = "/api/v2/architect/flows/flow/execute"

// answerTo is the answer to a request, read.
type answerTo struct {
	status int
	header http.Header
	body   string
}

func (a answerTo) problem(t testing.TB) (p problem) {
	t.Helper()
	if kind := a.header.Get("Content-Type"); kind != "application/problem+json" {
		t.Fatalf("answered %d, %s: %s", a.status, kind, a.body)
	}
	must(t, json.Unmarshal([]byte(a.body), &p))
	return p
}

func (a answerTo) execution(t testing.TB) (v executionView) {
	t.Helper()
	if err := json.Unmarshal([]byte(a.body), &v); err != nil || v.ID == "" {
		t.Fatalf("answered %d, and no execution: %s", a.status, a.body)
	}
	return v
}

// do makes a request. Fields are "Name: value".
func (b *bench) do(method, path, body string, fields ...string) answerTo {
	b.t.Helper()
	req, err := http.NewRequest(method, b.url+path, strings.NewReader(body))
	must(b.t, err)
	for _, f := range fields {
		name, value, _ := strings.Cut(f, ": ")
		if name == "Host" {
			req.Host = value
		}
		req.Header.Add(name, value)
	}
	resp, err := client.Do(req)
	must(b.t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	must(b.t, err)
	return answerTo{resp.StatusCode, resp.Header, string(text)}
}

// client keeps connections for many requests at once and follows no redirects.
var client = &http.Client{
	Transport:     &http.Transport{MaxIdleConnsPerHost: 1000},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

// body is the body of execution n.
func body(n int) string { return fmt.Sprintf(`{"n":%d}`, n) }

// inLine is how many wait for a permit of the org.
func inLine(o *org) (n int) {
	for _, c := range o.limiter.Callers() {
		n += c.Waiting
	}
	return n
}

// wait waits for something to be so, for as long as a slow machine may take.
func wait(t testing.TB, what string, so func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !so(); {
		if time.Now().After(end) {
			t.Fatalf("waiting for %s: in vain", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

type gauge struct{ n atomic.Int64 }

func (g *gauge) add(n int64)  { g.n.Add(n) }
func (g *gauge) value() int64 { return g.n.Load() }
