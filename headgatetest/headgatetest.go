// Package headgatetest gives tests an emulated platform and a client of it,
// connected in memory: no socket, no port, no server to stop.
//
//	p := headgatetest.New(t, emulator.Config{
//		Limits: []emulator.Limit{{Rate: 50, Burst: 100}},
//	})
//	client := &http.Client{Transport: yourTransport(p.Transport())}
//	…
//	if r := p.Emulator.Report(); r.Doubled > 0 || r.Early > 0 {
//		t.Errorf("not polite:\n%v", r)
//	}
//
// It works inside a [testing/synctest] bubble, where an hour takes no time; make
// the pair inside the bubble. Every goroutine that it starts ends with its
// request, and the cleanup of the test waits for them.
//
// For a test of law and order on the wire rather than of a client's logic, serve
// emulator.Server.API with net/http/httptest instead.
package headgatetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"runtime/debug"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/headgate/headgate/emulator"
)

// URL is the base of both the log-in and the API of a [Pair]. Its transport
// reaches the emulator under any other host as well, so clients that build
// their hosts from a region work unchanged.
const URL = "http://emulator.test"

// Network is what lies between the two sides. The zero value is a perfect one:
// no time passes on it and every connection succeeds.
type Network struct {
	// Latency is how long a request, and an answer, is on its way: a call
	// takes twice that. Zero means no time.
	Latency time.Duration
	// Jitter is added to each Latency, a uniform share of it. Zero means none.
	Jitter time.Duration
	// Seed feeds Jitter. Zero is a seed like any other.
	Seed uint64
	// Refusals are the times in which connections are refused.
	Refusals []Refusal
}

// Refusal is a time in which connections are refused: the request never leaves.
// From and To are offsets since the first request; it holds from From until just
// before To. To zero means for ever.
type Refusal struct {
	From, To time.Duration
}

// Pair is an emulator and the way to it. Its methods may be used concurrently.
type Pair struct {
	// Emulator is the platform: its report, its ledger, its tokens.
	Emulator *emulator.Server
	// URL is the constant of that name, for configs that want a base.
	URL string

	network Network
	api     http.Handler
	done    context.Context    // ends with the test
	stop    context.CancelFunc // ends done
	wg      sync.WaitGroup     // of requests under way

	mu      sync.Mutex // guards what follows
	rng     *rand.Rand
	started time.Time
	refuse  int // connections still to be refused
	refused int
	closed  bool
}

// New returns a pair with a perfect network. A config that is no good fails the
// test. Where cfg.EarlyGrace is zero there is none: nothing is on the wire when
// an answer is written.
func New(t testing.TB, cfg emulator.Config) *Pair {
	t.Helper()
	return NewNetwork(t, cfg, Network{})
}

// NewNetwork is New with a network between the two. Where cfg.EarlyGrace is
// zero, it is what an answer and the next request need on the wire:
// 2·(Latency + Jitter).
func NewNetwork(t testing.TB, cfg emulator.Config, network Network) *Pair {
	t.Helper()
	if network.Latency < 0 || network.Jitter < 0 {
		t.Fatalf("headgatetest: Network.Latency and Jitter must not be negative, got %v and %v", network.Latency, network.Jitter)
	}
	if cfg.EarlyGrace == 0 {
		if cfg.EarlyGrace = 2 * (network.Latency + network.Jitter); cfg.EarlyGrace == 0 {
			cfg.EarlyGrace = -1
		}
	}
	srv, err := emulator.New(cfg)
	if err != nil {
		t.Fatalf("headgatetest: %v", err)
	}
	p := &Pair{Emulator: srv, URL: URL, network: network, api: srv.API(), rng: rand.New(rand.NewPCG(network.Seed, 1))}
	p.done, p.stop = context.WithCancel(context.Background())
	t.Cleanup(p.close)
	return p
}

// close ends the requests under way and waits for them.
func (p *Pair) close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.stop()
	p.wg.Wait()
}

// Client returns a client of the emulator, without a timeout.
func (p *Pair) Client() *http.Client { return &http.Client{Transport: p.Transport()} }

// Transport returns the way to the emulator. It serves every request in a
// goroutine of its own, as a server would, so a call whose context ends returns
// at once; what was sent is executed all the same. A connection that the
// emulator cuts gives an error that wraps [io.ErrUnexpectedEOF], a refused one a
// [*net.OpError] with Op "dial" that wraps [syscall.ECONNREFUSED].
func (p *Pair) Transport() http.RoundTripper { return (*transport)(p) }

// RefuseNext makes the next n connections fail as refused.
func (p *Pair) RefuseNext(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refuse = n
}

// Refused is how many connections were refused so far. The emulator knows
// nothing of them.
func (p *Pair) Refused() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.refused
}

// transport is a Pair as an http.RoundTripper.
type transport Pair

var errClosed = errors.New("headgatetest: the test is over")

// connect says whether a connection succeeds now, and how long the two ways take.
func (p *transport) connect() (there, back time.Duration, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return 0, 0, errClosed
	}
	if p.started.IsZero() {
		p.started = time.Now()
	}
	at := time.Since(p.started)
	refuse := p.refuse > 0
	if refuse {
		p.refuse--
	}
	for _, r := range p.network.Refusals {
		refuse = refuse || at >= r.From && (r.To == 0 || at < r.To)
	}
	if refuse {
		p.refused++
		return 0, 0, &net.OpError{Op: "dial", Net: "tcp", Addr: address{}, Err: fmt.Errorf("connect: %w", syscall.ECONNREFUSED)}
	}
	there, back = p.network.Latency, p.network.Latency
	if p.network.Jitter > 0 {
		there += time.Duration(p.rng.Float64() * float64(p.network.Jitter))
		back += time.Duration(p.rng.Float64() * float64(p.network.Jitter))
	}
	p.wg.Add(1)
	return there, back, nil
}

type address struct{}

func (address) Network() string { return "tcp" }
func (address) String() string  { return "192.0.2.1:443" }

type result struct {
	response *http.Response
	err      error
}

// RoundTrip implements [http.RoundTripper].
func (p *transport) RoundTrip(req *http.Request) (*http.Response, error) {
	body := req.Body
	if body == nil {
		body = http.NoBody
	}
	ctx := req.Context()
	if err := ctx.Err(); err != nil {
		body.Close()
		return nil, context.Cause(ctx)
	}
	there, back, err := p.connect()
	if err != nil {
		body.Close()
		return nil, err
	}
	// Copied now: once RoundTrip has returned, req is its caller's again.
	sent := req.Clone(ctx)
	results := make(chan result, 1)
	go func() {
		defer p.wg.Done()
		res := p.serve(sent, body, there)
		if res.response != nil {
			res.response.Request = req
		}
		results <- res
	}()
	select {
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-p.done.Done():
		return nil, errClosed
	case res := <-results:
		if !wait(ctx, p.done, back) {
			if err := ctx.Err(); err != nil {
				return nil, context.Cause(ctx)
			}
			return nil, errClosed
		}
		return res.response, res.err
	}
}

// serve takes a request to the emulator and returns what comes back. Once it is
// sent it arrives, even if the client leaves meanwhile.
func (p *transport) serve(in *http.Request, body io.ReadCloser, there time.Duration) result {
	// A client that leaves must not wait for a body that never ends.
	closeBody := sync.OnceFunc(func() { body.Close() })
	unblock := context.AfterFunc(in.Context(), closeBody)
	sent, err := io.ReadAll(body)
	unblock()
	closeBody()
	if err != nil {
		return result{err: err}
	}
	if in.ContentLength > 0 && int64(len(sent)) != in.ContentLength {
		return result{err: fmt.Errorf("http: ContentLength=%d with Body length %d", in.ContentLength, len(sent))}
	}
	if !wait(p.done, p.done, there) {
		return result{err: errClosed}
	}
	ctx, cancel := context.WithCancel(in.Context())
	defer cancel()
	defer context.AfterFunc(p.done, cancel)()
	in = in.WithContext(ctx)
	in.Body = io.NopCloser(bytes.NewReader(sent))
	in.ContentLength = int64(len(sent))
	in.GetBody = nil
	in.RequestURI = in.URL.RequestURI()
	in.RemoteAddr = "192.0.2.2:1024"
	in.Proto, in.ProtoMajor, in.ProtoMinor = "HTTP/1.1", 1, 1
	if in.Host == "" {
		in.Host = in.URL.Host
	}
	rec := &recorder{header: make(http.Header)}
	if err := handle(p.api, rec, in); err != nil {
		return result{err: err}
	}
	return result{response: rec.response()}
}

// handle runs the handler. A handler that aborts gives the error that a client
// sees when its connection closes; any other panic gives one with its stack, for
// a panic in this goroutine would take the whole test binary down.
func handle(h http.Handler, w http.ResponseWriter, r *http.Request) (err error) {
	defer func() {
		switch v := recover(); v {
		case nil:
		case http.ErrAbortHandler:
			err = fmt.Errorf("headgatetest: connection closed without an answer: %w", io.ErrUnexpectedEOF)
		default:
			err = fmt.Errorf("headgatetest: the emulator panicked: %v\n%s", v, debug.Stack())
		}
	}()
	h.ServeHTTP(w, r)
	return nil
}

// wait waits for d and says whether neither context ended meanwhile.
func wait(a, b context.Context, d time.Duration) bool {
	if d <= 0 {
		return true
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-a.Done():
	case <-b.Done():
	}
	return false
}

// recorder keeps an answer.
type recorder struct {
	header http.Header
	sent   http.Header // as it was when the status was written
	status int
	body   bytes.Buffer
}

func (r *recorder) Header() http.Header { return r.header }

func (r *recorder) WriteHeader(status int) {
	if r.status == 0 {
		r.status, r.sent = status, r.header.Clone()
	}
}

func (r *recorder) Write(p []byte) (int, error) {
	r.WriteHeader(http.StatusOK)
	return r.body.Write(p)
}

// Flush implements [http.Flusher].
func (r *recorder) Flush() { r.WriteHeader(http.StatusOK) }

func (r *recorder) response() *http.Response {
	r.WriteHeader(http.StatusOK)
	body := r.body.Bytes()
	return &http.Response{
		Status:        strconv.Itoa(r.status) + " " + http.StatusText(r.status),
		StatusCode:    r.status,
		Proto:         "HTTP/1.1",
		ProtoMajor:    1,
		ProtoMinor:    1,
		Header:        r.sent,
		Body:          io.NopCloser(bytes.NewReader(body)),
		ContentLength: int64(len(body)),
	}
}
