package headgatetest_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/headgate/headgate/emulator"
	"github.com/headgate/headgate/headgatetest"
)

const flowURL = headgatetest.URL + "/api/v2/architect/flows/F/execute"

// post sends a payload and returns the status, and how long it took.
func post(ctx context.Context, p *headgatetest.Pair, url string, body io.Reader) (int, time.Duration, error) {
	start := time.Now()
	req, err := http.NewRequestWithContext(ctx, "POST", url, body)
	if err != nil {
		return 0, 0, err
	}
	res, err := p.Client().Do(req)
	if err != nil {
		return 0, time.Since(start), err
	}
	defer res.Body.Close()
	_, err = io.Copy(io.Discard, res.Body)
	return res.StatusCode, time.Since(start), err
}

func TestPair(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := headgatetest.New(t, emulator.Config{Latency: 300 * time.Millisecond})
		form := strings.NewReader("grant_type=client_credentials")
		req, err := http.NewRequestWithContext(t.Context(), "POST", "https://login.mypurecloud.de/oauth/token", form)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		req.SetBasicAuth(emulator.DefaultClientID, emulator.DefaultClientSecret)
		res, err := p.Client().Do(req)
		if err != nil || res.StatusCode != 200 {
			t.Fatal(res, err)
		}
		res.Body.Close()

		start := time.Now()
		req, _ = http.NewRequestWithContext(t.Context(), "POST", p.URL+"/api/v2/architect/flows/F/execute", strings.NewReader(`{"a":1}`))
		req.Header.Set("Authorization", "Bearer "+p.Emulator.IssueToken())
		if res, err = p.Client().Do(req); err != nil || res.StatusCode != 200 || res.Request != req {
			t.Fatal(res, err)
		}
		defer res.Body.Close()
		body, _ := io.ReadAll(res.Body)
		if took := time.Since(start); took != 300*time.Millisecond {
			t.Errorf("took %v", took)
		}
		if !strings.Contains(string(body), `"payload":{"a":1}`) || res.ContentLength != int64(len(body)) || res.Header.Get("ININ-Correlation-Id") == "" {
			t.Errorf("got %s with %v", body, res.Header)
		}
		if r := p.Emulator.Report(); r.Logins != 1 || r.Executed != 1 {
			t.Errorf("report\n%v", r)
		}
	})
}

func TestLatency(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := headgatetest.NewNetwork(t, emulator.Config{AnyToken: true}, headgatetest.Network{Latency: 40 * time.Millisecond})
		if _, took, err := post(t.Context(), p, flowURL, strings.NewReader("1")); err != nil || took != 80*time.Millisecond {
			t.Errorf("took %v: %v", took, err)
		}
		p = headgatetest.NewNetwork(t, emulator.Config{AnyToken: true}, headgatetest.Network{Jitter: 100 * time.Millisecond})
		_, a, _ := post(t.Context(), p, flowURL, strings.NewReader("1"))
		_, b, _ := post(t.Context(), p, flowURL, strings.NewReader("2"))
		if a <= 0 || b <= 0 || a == b || max(a, b) > 200*time.Millisecond {
			t.Errorf("took %v and %v", a, b)
		}
	})
}

// With latency, what is on the wire when an announcement comes is excused, and
// not a moment more.
func TestEarlyGraceFollowsLatency(t *testing.T) {
	for _, tt := range []struct {
		grace, second time.Duration
		early         int64
	}{
		{0, 100 * time.Millisecond, 0},               // sent when the 429 arrives
		{0, 100*time.Millisecond + 1, 1},             // sent after it
		{-1, 100*time.Millisecond - 1, 1},            // explicit: none
		{time.Second, time.Second / 2, 0},            // explicit: more
		{0, 2*time.Second + 100*time.Millisecond, 0}, // after the wait
	} {
		synctest.Test(t, func(t *testing.T) {
			p := headgatetest.NewNetwork(t, emulator.Config{AnyToken: true, Limits: []emulator.Limit{{Rate: 0.5, Burst: 1}}, EarlyGrace: tt.grace},
				headgatetest.Network{Latency: 50 * time.Millisecond})
			var wg sync.WaitGroup
			wg.Go(func() { post(t.Context(), p, flowURL, strings.NewReader("1")) })
			wg.Go(func() { post(t.Context(), p, flowURL, strings.NewReader("2")) })
			wg.Go(func() {
				time.Sleep(tt.second)
				post(t.Context(), p, flowURL, strings.NewReader("3"))
			})
			wg.Wait()
			if r := p.Emulator.Report(); r.Early != tt.early {
				t.Errorf("sent at %v: %d early, want %d", tt.second, r.Early, tt.early)
			}
		})
	}
}

func TestCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := headgatetest.NewNetwork(t, emulator.Config{AnyToken: true, Rates: emulator.Rates{CutAfter: 1}}, headgatetest.Network{Latency: time.Second})
		_, took, err := post(t.Context(), p, flowURL, strings.NewReader("1"))
		if !errors.Is(err, io.ErrUnexpectedEOF) || took != 2*time.Second {
			t.Errorf("error %v after %v", err, took)
		}
		if r := p.Emulator.Report(); r.Executed != 1 || r.Cut != 1 {
			t.Errorf("report\n%v", r)
		}
	})
}

// A call whose context ends returns at once; what was sent is executed.
func TestClientLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := headgatetest.NewNetwork(t, emulator.Config{AnyToken: true, Latency: time.Hour}, headgatetest.Network{Latency: time.Second})
		for _, after := range []time.Duration{500 * time.Millisecond, 1500 * time.Millisecond} { // on the wire; at the server
			ctx, cancel := context.WithTimeout(t.Context(), after)
			_, took, err := post(ctx, p, flowURL, strings.NewReader(after.String()[:1]))
			cancel()
			if !errors.Is(err, context.DeadlineExceeded) || took != after {
				t.Errorf("error %v after %v", err, took)
			}
		}
		time.Sleep(time.Minute)
		if r := p.Emulator.Report(); r.Executed != 2 || r.Unanswered != 2 {
			t.Errorf("report\n%v", r)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, _, err := post(ctx, p, flowURL, strings.NewReader("3")); !errors.Is(err, context.Canceled) {
			t.Errorf("error %v", err)
		}
		if r := p.Emulator.Report(); r.Arrivals != 2 {
			t.Errorf("a call that had ended was sent\n%v", r)
		}
	})
}

func TestRefusals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := headgatetest.NewNetwork(t, emulator.Config{AnyToken: true}, headgatetest.Network{
			Refusals: []headgatetest.Refusal{{From: 5 * time.Second, To: 10 * time.Second}, {From: time.Hour}},
		})
		p.RefuseNext(2)
		start := time.Now()
		for _, st := range []struct {
			at      time.Duration
			refused bool
		}{
			{0, true}, {0, true}, {0, false},
			{5*time.Second - 1, false}, {5 * time.Second, true}, {10*time.Second - 1, true}, {10 * time.Second, false},
			{time.Hour, true}, {24 * time.Hour, true},
		} {
			time.Sleep(time.Until(start.Add(st.at)))
			_, _, err := post(t.Context(), p, flowURL, strings.NewReader("1"))
			var op *net.OpError
			if is := errors.As(err, &op) && op.Op == "dial" && errors.Is(err, syscall.ECONNREFUSED); is != st.refused {
				t.Errorf("at %v: %v", st.at, err)
			}
		}
		if r := p.Emulator.Report(); r.Arrivals != 3 || p.Refused() != 6 {
			t.Errorf("%d refused\n%v", p.Refused(), r)
		}
	})
}

// closer is a body that knows whether it was closed.
type closer struct {
	io.Reader
	closed chan struct{}
}

func newCloser(r io.Reader) *closer { return &closer{r, make(chan struct{})} }

func (c *closer) Close() error { close(c.closed); return nil }

// The body is closed on every way out, exactly once.
func TestBodyIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := headgatetest.New(t, emulator.Config{AnyToken: true, Latency: time.Hour})
		send := func(ctx context.Context, body *closer) error {
			req, _ := http.NewRequestWithContext(ctx, "POST", flowURL, body)
			res, err := p.Transport().RoundTrip(req)
			if err == nil {
				res.Body.Close()
			}
			synctest.Wait()
			select {
			case <-body.closed:
			default:
				t.Error("not closed")
			}
			return err
		}
		if err := send(t.Context(), newCloser(strings.NewReader("1"))); err != nil {
			t.Error(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := send(ctx, newCloser(strings.NewReader("2"))); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		if err := send(ctx, newCloser(strings.NewReader("3"))); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		p.RefuseNext(1)
		if err := send(t.Context(), newCloser(strings.NewReader("4"))); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Error(err)
		}
		broken := errors.New("broken")
		if err := send(t.Context(), newCloser(io.MultiReader(strings.NewReader("5"), failing{broken}))); !errors.Is(err, broken) {
			t.Error(err)
		}
		if r := p.Emulator.Report(); r.Arrivals != 2 {
			t.Errorf("report\n%v", r)
		}
	})
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// A body that never comes does not hold back a client that leaves, and leaves no
// goroutine behind: the bubble would say so.
func TestBodyThatNeverComes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := headgatetest.New(t, emulator.Config{AnyToken: true})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		r, _ := io.Pipe()
		if _, took, err := post(ctx, p, flowURL, r); !errors.Is(err, context.DeadlineExceeded) || took != time.Second {
			t.Errorf("error %v after %v", err, took)
		}
	})
}

// The end of the test ends what is still under way.
func TestCleanup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		errs := make(chan error, 1)
		var p *headgatetest.Pair
		start := time.Now()
		inner(t, func(t testing.TB) {
			p = headgatetest.New(t, emulator.Config{AnyToken: true, Latency: time.Hour})
			go func() {
				_, _, err := post(context.Background(), p, flowURL, strings.NewReader("1"))
				errs <- err
			}()
			time.Sleep(time.Second)
		})
		if err := <-errs; err == nil || time.Since(start) != time.Second {
			t.Errorf("error %v after %v", err, time.Since(start))
		}
		if _, _, err := post(t.Context(), p, flowURL, strings.NewReader("2")); err == nil {
			t.Error("works after the test")
		}
	})
}

// inner runs f with a TB whose cleanups run when f returns.
func inner(t testing.TB, f func(testing.TB)) {
	tb := &innerTB{TB: t}
	f(tb)
	for _, c := range tb.cleanups {
		c()
	}
}

type innerTB struct {
	testing.TB
	cleanups []func()
	fatal    string
}

func (t *innerTB) Helper() {}

func (t *innerTB) Cleanup(f func()) { t.cleanups = append(t.cleanups, f) }

func (t *innerTB) Fatalf(format string, args ...any) {
	t.fatal = fmt.Sprintf(format, args...)
	panic(t)
}

func TestBadConfigFailsTheTest(t *testing.T) {
	fatal := func(cfg emulator.Config, n headgatetest.Network) (msg string) {
		tb := &innerTB{TB: t}
		defer func() {
			recover()
			msg = tb.fatal
		}()
		headgatetest.NewNetwork(tb, cfg, n)
		return ""
	}
	if got := fatal(emulator.Config{Endpoints: "x"}, headgatetest.Network{}); !strings.Contains(got, "Config.Endpoints") {
		t.Errorf("got %q", got)
	}
	if got := fatal(emulator.Config{}, headgatetest.Network{Jitter: -1}); !strings.Contains(got, "Network.Latency and Jitter") {
		t.Errorf("got %q", got)
	}
}

// 200 callers at once: what passes is the burst, and what follows, the pace.
func TestManyCallers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := headgatetest.New(t, emulator.Config{AnyToken: true, RetryAfter: emulator.RetryAfterExact, Limits: []emulator.Limit{{Rate: 50, Burst: 100}}})
		var wg sync.WaitGroup
		for i := range 200 {
			wg.Go(func() {
				for k := range 5 {
					status, _, err := post(t.Context(), p, flowURL, strings.NewReader(fmt.Sprint(i*5+k)))
					if err != nil || status != 200 && status != 429 {
						t.Error(status, err)
					}
				}
			})
		}
		wg.Wait()
		if r := p.Emulator.Report(); r.Arrivals != 1000 || r.Executed != 100 || r.Rejected != 900 || r.Doubled != 0 || r.Early != 0 {
			t.Errorf("report\n%v", r)
		}
	})
}

func BenchmarkPair(b *testing.B) {
	p := headgatetest.New(b, emulator.Config{AnyToken: true, Limits: []emulator.Limit{}, LedgerRows: -1})
	b.ReportAllocs()
	for b.Loop() {
		if status, _, err := post(b.Context(), p, flowURL, strings.NewReader("1")); err != nil || status != 200 {
			b.Fatal(status, err)
		}
	}
}

// sendAll of the example is polite.
func TestSendAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := headgatetest.New(t, emulator.Config{Limits: []emulator.Limit{{Rate: 1, Burst: 3}}, AnyToken: true, Expected: 10})
		if err := sendAll(p.Client(), p.URL, 10); err != nil {
			t.Fatal(err)
		}
		if r := p.Emulator.Report(); r.Lost > 0 || r.Doubled > 0 || r.Early > 0 || r.Span != 7*time.Second {
			t.Errorf("report\n%v", r)
		}
	})
}
