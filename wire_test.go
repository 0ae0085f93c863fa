package headgate_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/headgate/headgate"
)

// cutter answers the first request on each connection and cuts the second one
// after it has come: net/http would send it again by itself.
func cutter(t *testing.T) (url string, arrivals *atomic.Int64) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	arrivals = new(atomic.Int64)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				r := bufio.NewReader(conn)
				for range 2 {
					req, err := http.ReadRequest(r)
					if err != nil {
						return
					}
					io.Copy(io.Discard, req.Body)
					if arrivals.Add(1); arrivals.Load()%2 == 0 {
						return
					}
					io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
				}
			}()
		}
	}()
	return "http://" + l.Addr().String(), arrivals
}

// Every arrival at the server has paid for a permit.
func TestNothingGoesAroundTheLimiter(t *testing.T) {
	for _, test := range []struct{ method, key string }{{"GET", ""}, {"HEAD", ""}, {"POST", "key"}, {"POST", ""}} {
		url, arrivals := cutter(t)
		var sent atomic.Int64
		tr := &headgate.Transport{
			Base: &http.Transport{}, Retry: headgate.Retry{Base: time.Millisecond}, Delivery: headgate.AtLeastOnce,
			Observer: func(e headgate.Event) {
				if e.Kind == headgate.Sent {
					sent.Add(1)
				}
			},
		}
		for range 10 {
			var body io.Reader
			if test.method == "POST" {
				body = strings.NewReader("{}")
			}
			req, err := http.NewRequestWithContext(t.Context(), test.method, url, body)
			if err != nil {
				t.Fatal(err)
			}
			if test.key != "" {
				req.Header.Set("Idempotency-Key", test.key)
			}
			resp, err := tr.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
		}
		if arrivals.Load() != sent.Load() {
			t.Errorf("%s %s: %d permits, %d arrivals", test.method, test.key, sent.Load(), arrivals.Load())
		}
	}
}

// A GET looks the same on the wire.
func TestGetHasNoBodyOnTheWire(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if body, _ := io.ReadAll(r.Body); len(body) > 0 || r.ContentLength != 0 || len(r.TransferEncoding) > 0 || r.Header.Get("Content-Length") != "" {
			t.Errorf("%q, length %d, %v", body, r.ContentLength, r.TransferEncoding)
		}
	}))
	defer srv.Close()
	client := &http.Client{Transport: &headgate.Transport{}}
	resp, err := client.Get(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
}

// A connection that never comes about has carried nothing, whatever ended it.
func TestContextThatEndsWhileDialling(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	dialling := make(chan struct{})
	base := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		close(dialling)
		<-ctx.Done()
		return nil, ctx.Err()
	}}
	go func() { <-dialling; cancel() }()
	tr := &headgate.Transport{Base: base}
	_, tries, err := tr.Send(post(t, "{}").WithContext(ctx))
	var unknown *headgate.UnknownError
	if !errors.Is(err, context.Canceled) || errors.As(err, &unknown) || tries.Unanswered != 0 {
		t.Errorf("got %v, %+v: nothing was sent", err, tries)
	}
}

// A TLS handshake that takes too long has carried nothing of the request.
func TestHandshakeThatTimesOut(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	tr := &headgate.Transport{Base: &http.Transport{TLSHandshakeTimeout: 50 * time.Millisecond}, Retry: headgate.Retry{MaxRetries: -1}}
	req := post(t, "{}")
	req.URL.Scheme, req.URL.Host = "https", l.Addr().String()
	_, tries, err := tr.Send(req)
	if err == nil || tries.Unanswered != 0 {
		t.Errorf("got %v, %+v: nothing was sent", err, tries)
	}
}

// An attempt that takes too long is like any that was not answered; the call
// goes on.
func TestAttemptTimeout(t *testing.T) {
	release := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
	defer srv.Close()
	defer close(release)
	for _, cause := range []error{headgate.ErrAttemptTimeout, context.Canceled} {
		ctx, cancel := context.WithCancelCause(t.Context())
		timer := time.AfterFunc(50*time.Millisecond, func() { cancel(cause) })
		defer timer.Stop()
		req := post(t, "{}").WithContext(ctx)
		req.URL.Host = strings.TrimPrefix(srv.URL, "http://")
		var tries headgate.Tries
		tr := &headgate.Transport{Delivery: headgate.AtLeastOnce}
		r := tr.Attempt(req, &tries, nil)
		want := headgate.Again
		if cause != headgate.ErrAttemptTimeout {
			want = headgate.Unknown
		}
		if r.Verdict.Action != want || tries.Unanswered != 1 {
			t.Errorf("%v: %+v", cause, r.Verdict)
		}
	}
}

// pipes is a network in a bubble on which a connection takes a while.
type pipes struct {
	conns chan net.Conn
	dial  time.Duration
}

func (p pipes) Accept() (net.Conn, error) {
	conn, ok := <-p.conns
	if !ok {
		return nil, net.ErrClosed
	}
	return conn, nil
}
func (p pipes) Close() error   { return nil }
func (p pipes) Addr() net.Addr { return &net.TCPAddr{} }
func (p pipes) DialContext(context.Context, string, string) (net.Conn, error) {
	time.Sleep(p.dial)
	here, there := net.Pipe()
	p.conns <- there
	return here, nil
}

// The server counts from when requests arrive: while connections are made, a
// full bucket does not refill and no window begins. A slow answer changes
// nothing about that.
func TestCountsFromTheConnection(t *testing.T) {
	for _, test := range []struct {
		limit headgate.Limit
		sixth time.Duration
	}{
		{limit("api", 10, 5), 300 * time.Millisecond},
		{headgate.Limit{Name: "w", Max: 5, Window: time.Second}, 1225 * time.Millisecond},
	} {
		synctest.Test(t, func(t *testing.T) {
			network := pipes{make(chan net.Conn, 10), 200 * time.Millisecond}
			srv := &http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) { time.Sleep(10 * time.Second) })}
			go srv.Serve(network)
			base := &http.Transport{DialContext: network.DialContext, DisableKeepAlives: true}
			var mu sync.Mutex
			var sent []time.Duration
			start := time.Now()
			tr := &headgate.Transport{Base: base, Limiter: exact(t, test.limit), Observer: func(e headgate.Event) {
				if e.Kind == headgate.Sent {
					mu.Lock()
					defer mu.Unlock()
					sent = append(sent, time.Since(start))
				}
			}}
			var wg sync.WaitGroup
			for range 6 {
				wg.Go(func() {
					if resp, err := tr.RoundTrip(post(t, "{}")); err == nil {
						resp.Body.Close()
					}
				})
			}
			wg.Wait()
			if len(sent) != 6 || sent[4] != 0 || sent[5] != test.sixth {
				t.Errorf("%s: sent after %v, want the sixth after %v", test.limit.Name, sent, test.sixth)
			}
			close(network.conns)
			srv.Close()
			base.CloseIdleConnections()
		})
	}
}

// The caller's own trace is called, for its own requests alone.
func TestCallersTrace(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer srv.Close()
	tr := &headgate.Transport{}
	calls := 0
	for i := range 10 {
		ctx := t.Context()
		if i%2 == 0 {
			ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { calls++ }})
		}
		req := post(t, "{}").WithContext(ctx)
		req.URL.Host = strings.TrimPrefix(srv.URL, "http://")
		resp, err := tr.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
	}
	if calls != 5 {
		t.Errorf("the trace of 5 requests was called %d times", calls)
	}
}
