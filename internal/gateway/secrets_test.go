package gateway

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/headgate/headgate/genesys"
	"github.com/headgate/headgate/internal/config"
	"github.com/headgate/headgate/internal/keys"
)

// syncBuffer is a log that may be read while it is written.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// Whatever goes well or wrong, no secret is in the log at its most talkative, in
// the metrics, on the page, in the API's answers, in the gateway's own refusals
// or in its files. The log is not masked here: nothing may rely on that.
func TestNoSecretLeaks(t *testing.T) {
	p := &platform{answer: func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.Contains(r.URL.Path, "echo"): // some servers repeat what they were sent
			fmt.Fprintf(w, `{"you sent":%q}`, r.Header.Get("Authorization"))
		case strings.Contains(r.URL.Path, "garbage"):
			if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
				fmt.Fprintf(conn, "you sent %s\r\n\r\n", r.Header.Get("Authorization"))
				conn.Close()
			}
		case strings.Contains(r.URL.Path, "refused"):
			w.WriteHeader(400)
			fmt.Fprintf(w, `{"message":"bad token %s"}`, r.Header.Get("Authorization"))
		}
	}}
	api := httptest.NewServer(p)
	defer api.Close()
	hook := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
			conn.Close() // the client's error holds the address
		}
	}))
	defer hook.Close()

	key, hash := keys.New()
	opKey, opHash := keys.New()
	stranger, _ := keys.New()
	const clientSecret, callbackSecret, inAddress = "secret-of-the-client", "secret-of-callbacks", "secret-in-an-address"
	f := config.Single(config.Org{
		Name: "acme", APIURL: api.URL, LoginURL: api.URL + "/login", MaxWait: time.Minute,
		Credentials: genesys.Credentials{ClientID: "client", ClientSecret: genesys.NewSecret(clientSecret)},
		Limits:      unlimited(),
	})
	f.Data = t.TempDir()
	f.Callbacks = config.Callbacks{Hosts: []string{strings.TrimPrefix(hook.URL, "http://")}, Secret: genesys.NewSecret(callbackSecret)}
	crm := f.Orgs[0].Guest("crm")
	crm.Key = hash
	f.Orgs[0].Callers = []config.Caller{crm}
	f.Operators = []config.Operator{{Name: "ops", Key: opHash}}
	var log syncBuffer
	g, err := Open(Config{File: f, Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	must(t, err)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	ctx, stop := context.WithCancel(t.Context())
	over := make(chan error)
	go func() { over <- g.Serve(ctx, t.Context(), []net.Listener{l}, nil) }()
	b := &bench{t: t, g: g, url: "http://" + l.Addr().String(), file: f}
	k := &keyed{bench: b, p: p, crm: key, op: opKey}

	token := k.token("crm", key)
	session := k.login()
	_, cookie, _ := strings.Cut(session, "=")
	secrets := map[string]string{
		"the caller's key": key, "the operator's key": opKey, "a wrong key": stranger, "the gateway's token": token,
		"the session": cookie, "the platform's token": platformToken, "the client's secret": clientSecret,
		"the callbacks' secret": callbackSecret, "the address's secret": inAddress,
		"Authorization": "another-authorization", "Cookie": "another-cookie",
	}
	answers := map[string]string{}
	form := "Content-Type: application/x-www-form-urlencoded"
	for _, field := range []string{bearer(stranger), "Headgate-Key: " + stranger, "Authorization: Basic " + "another-authorization", "Cookie: headgate_session=another-cookie"} {
		answers["a wrong "+field] = b.do("GET", "/api/v2/x", "", field).body
	}
	answers["a wrong login"] = b.do("POST", "/oauth/token", "grant_type=client_credentials&client_id=crm&client_secret="+stranger, form).body
	answers["a wrong session"] = b.do("POST", sessionPath, "key="+stranger, form).body
	answers["a garbled form"] = b.do("POST", "/oauth/token", "client_secret="+stranger+"%zz", form).body
	cookies := []string{"Cookie: a=another-cookie", "Headgate-Correlation-Id: " + key}
	for i, path := range []string{"x", "garbage", "refused", "echo"} {
		held := b.do("POST", "/api/v2/"+path, body(i), append(cookies, bearer(token))...)
		if path != "echo" && path != "refused" { // what the platform says is the platform's
			answers["held, "+path] = held.body
		}
		x := b.do("POST", "/api/v2/"+path, body(i), append(cookies, bearer(key), "Prefer: respond-async", "Headgate-Callback: "+hook.URL+"/"+inAddress, "Headgate-Delivery: at-most-once")...).execution(t)
		answers["kept, "+path] = b.do("GET", x.Self, "", bearer(key), "Prefer: wait=10").body
		answers["its answer, "+path] = b.do("GET", x.Self+"/answer", "", bearer(key)).body
	}
	for _, field := range []string{"Headgate-Callback: https://evil.example.com/" + inAddress, "Idempotency-Key: \"" + inAddress, "Prefer: wait=" + inAddress, "Headgate-Deadline: " + inAddress} {
		answers[field] = strings.ReplaceAll(b.do("POST", "/api/v2/x", body(1), bearer(key), field).body, field, "")
	}
	wait(t, "a callback to fail", func() bool { return strings.Contains(log.String(), "a callback was not taken") })
	for _, path := range []string{"/metrics", "/headgate/", "/headgate/v1/orgs", "/headgate/v1/executions", "/readyz", "/healthz", loginPagePath} {
		answers[path] = b.do("GET", path, "", bearer(opKey)).body
	}
	view := (source{g}).View(t.Context())
	answers["the page's view"] = fmt.Sprintf("%+v", view)
	stop()
	must(t, <-over)
	must(t, g.Close())
	answers["the log"] = log.String()
	files, err := filepath.Glob(filepath.Join(f.Data, "*"))
	must(t, err)
	for _, path := range files {
		text, err := os.ReadFile(path)
		must(t, err)
		answers[filepath.Base(path)] = string(text)
	}
	if len(files) < 2 || !strings.Contains(answers["the log"], "/api/v2/garbage") {
		t.Errorf("there is nothing to look at: %v", files)
	}
	for where, text := range answers {
		for what, secret := range secrets {
			if what == "the address's secret" && strings.HasSuffix(where, ".journal") {
				continue // it is needed there
			}
			if i := strings.Index(text, secret); i >= 0 {
				t.Errorf("%s is in %s: %q", what, where, text[max(0, i-60):i+len(secret)])
			}
		}
	}
}

// The bytes on the wire to the platform hold no secret of a caller either.
func TestNoSecretTravels(t *testing.T) {
	var wire syncBuffer
	p := &platform{}
	api := httptest.NewUnstartedServer(p)
	api.Listener = tapped{api.Listener, &wire}
	api.Start()
	defer api.Close()
	b := newBench(t, plan{api: p, change: func(f *config.File) {
		f.Orgs[0].APIURL, f.Orgs[0].LoginURL = api.URL+"/base", api.URL+"/login"
	}})
	fields := []string{"Authorization: Bearer callers-own", "Cookie: callers-own", "Headgate-Key: callers-own", "Proxy-Authorization: callers-own", "Headgate-Callback-Secret: callers-own"}
	b.do("POST", "/api/v2/x", body(1), fields...)
	x := b.do("POST", "/api/v2/x", body(2), append(fields, "Prefer: respond-async")...).execution(t)
	b.do("GET", x.Self, "", "Prefer: wait=10")
	if text := wire.String(); strings.Contains(text, "callers-own") || strings.Count(text, "POST /base/api/v2/x HTTP/1.1\r\n") != 2 {
		t.Errorf("on the wire: %s", text)
	}
}

// tapped is a listener whose connections tell what they get.
type tapped struct {
	net.Listener
	to io.Writer
}

func (t tapped) Accept() (net.Conn, error) {
	c, err := t.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return tappedConn{c, t.to}, nil
}

type tappedConn struct {
	net.Conn
	to io.Writer
}

func (t tappedConn) Read(p []byte) (int, error) {
	n, err := t.Conn.Read(p)
	t.to.Write(p[:n])
	return n, err
}
