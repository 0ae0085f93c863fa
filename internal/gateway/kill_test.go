package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/headgate/headgate"
	"github.com/headgate/headgate/emulator"
	"github.com/headgate/headgate/genesys"
	"github.com/headgate/headgate/internal/config"
)

// gatewayEnv holds what a process is to serve that a test starts, in JSON.
const gatewayEnv = "HEADGATE_TEST_GATEWAY"

// serving is what a process of a test serves.
type serving struct {
	API, Address, Data, Hook string
	Rate, Burst              float64
	Drain                    time.Duration
}

func (s serving) file() *config.File {
	// Each process logs in, and the login's own limit outlives them too: so
	// many in a minute would wait for it.
	logins := genesys.LoginLimit()
	logins.Rate, logins.Burst, logins.Max, logins.Window = 100, 100, 0, 0
	f := config.Single(config.Org{
		Name: "acme", APIURL: s.API, LoginURL: s.API,
		Credentials: genesys.Credentials{ClientID: emulator.DefaultClientID, ClientSecret: genesys.NewSecret(emulator.DefaultClientSecret)},
		Limits:      []headgate.Limit{{Name: genesys.LimitToken, Match: "/api/", Rate: s.Rate, Burst: s.Burst}, logins},
		MaxWait:     time.Minute, Timeout: 30 * time.Second,
	})
	f.Data, f.Listen, f.Drain = s.Data, []string{s.Address}, s.Drain
	if s.Hook != "" {
		f.Callbacks = config.Callbacks{Hosts: []string{s.Hook}, Secret: genesys.NewSecret(hookSecret)}
	}
	return f
}

// gatewayChild serves until SIGTERM.
func gatewayChild(job string) error {
	var s serving
	if err := json.Unmarshal([]byte(job), &s); err != nil {
		return err
	}
	l, err := net.Listen("tcp", s.Address)
	if err != nil {
		return err
	}
	g, err := Open(Config{File: s.file(), Version: "test"})
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	return errors.Join(g.Serve(ctx, context.Background(), []net.Listener{l}, nil), g.Close())
}

// spawn starts a process that serves s.
func (s serving) spawn(t testing.TB) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	must(t, err)
	job, _ := json.Marshal(s)
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), gatewayEnv+"="+string(job))
	cmd.Stderr = os.Stderr
	must(t, cmd.Start())
	return cmd
}

// freeAddress is an address on loopback that nobody listens on.
func freeAddress(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	return l.Addr().String()
}

// promise is a call that was answered with 202.
type promise struct {
	n    int
	id   string
	once bool // at-most-once
	told bool // it has a callback
}

// stubborn makes a call that is kept, again and again until it is accepted: by
// its key it is one call, whatever breaks.
func stubborn(ctx context.Context, url string, p promise, hook string) (promise, error) {
	for {
		req, err := http.NewRequestWithContext(ctx, "POST", url+executePath, strings.NewReader(body(p.n)))
		if err != nil {
			return p, err
		}
		req.Header.Set("Prefer", "respond-async")
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Idempotency-Key", fmt.Sprint("key-", p.n))
		if p.once {
			req.Header.Set("Headgate-Delivery", "at-most-once")
		}
		if p.told {
			req.Header.Set("Headgate-Callback", hook)
		}
		resp, err := client.Do(req)
		if err == nil {
			text, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			var v executionView
			switch {
			case err == nil && resp.StatusCode == http.StatusAccepted && json.Unmarshal(text, &v) == nil && v.ID != "":
				if p.id != "" && p.id != v.ID {
					return p, fmt.Errorf("key-%d is %s and was %s", p.n, v.ID, p.id)
				}
				p.id = v.ID
				return p, nil
			case err == nil && resp.StatusCode != http.StatusServiceUnavailable:
				return p, fmt.Errorf("key-%d: answered %d: %s", p.n, resp.StatusCode, text)
			}
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return p, ctx.Err()
		}
	}
}

// executions counts the executions of each key that the emulator has seen.
func executions(srv *emulator.Server) map[string]int {
	n := map[string]int{}
	for row := range srv.Ledger() {
		if row.Executed {
			n[row.Key]++
		}
	}
	return n
}

// kill -9 at random moments under load, and started again: every 202 ends in one
// outcome, nothing is executed twice that does not say so, keys hold, and no
// restart refills a bucket.
func TestKill(t *testing.T) {
	kills, pace := 20, 100*time.Millisecond
	if *figures {
		kills = 100
	}
	if testing.Short() {
		kills = 5
	}
	const rate, burst = 100, 50
	srv, url := emulate(t, emulator.Config{
		Limits:  []emulator.Limit{{Rate: rate, Burst: burst, Per: emulator.PerClient}},
		Latency: 20 * time.Millisecond, Jitter: 60 * time.Millisecond,
	})
	hook := newReceiver(t)
	s := serving{API: url, Address: freeAddress(t), Data: t.TempDir(), Rate: rate, Burst: burst, Hook: hook.host(), Drain: time.Second}
	base := "http://" + s.Address

	ctx, stop := context.WithCancel(t.Context())
	var load sync.WaitGroup
	var mu sync.Mutex
	var promises []promise
	var next, held atomic.Int64
	for range 4 {
		load.Go(func() { // kept
			for ctx.Err() == nil {
				n := int(next.Add(1))
				p, err := stubborn(t.Context(), base, promise{n: n, once: n%5 == 0, told: n%7 == 0}, hook.URL)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				promises = append(promises, p)
				mu.Unlock()
				sleep(ctx, time.Duration(rand.Int64N(int64(pace))))
			}
		})
		load.Go(func() { // held: what they take from the bucket must be remembered too
			for ctx.Err() == nil {
				resp, err := client.Post(base+executePath, "application/json", strings.NewReader(fmt.Sprintf(`{"held":%d}`, held.Add(1))))
				if err == nil {
					io.Copy(io.Discard, resp.Body)
					resp.Body.Close()
				} else {
					sleep(ctx, 20*time.Millisecond)
				}
			}
		})
	}
	inFlight, start := 0, time.Now()
	for i := range kills {
		before := srv.Report().Executed
		cmd := s.spawn(t)
		if i%2 == 0 { // half of the kills meet a process at work, however long it takes to start
			wait(t, "work", func() bool { return srv.Report().Executed > before })
		}
		sleep(t.Context(), time.Duration(rand.IntN(600))*time.Millisecond)
		cmd.Process.Kill()
		cmd.Wait()
		if srv.Report().Executed > before {
			inFlight++
		}
	}
	last := s.spawn(t)
	stop()
	load.Wait()
	ends := map[string]executionView{}
	for _, p := range promises {
		wait(t, "the end of "+p.id, func() bool {
			v, ok := look(base, p.id)
			ends[p.id] = v
			return ok && v.Ended != (time.Time{})
		})
	}
	// A key is the same execution for as long as there is one.
	for _, p := range promises {
		if _, err := stubborn(t.Context(), base, p, hook.URL); err != nil {
			t.Error(err)
		}
	}
	for _, p := range promises {
		if p.told {
			wait(t, "the callback of "+p.id, func() bool { return len(hook.of(p.id)) > 0 })
		}
	}
	must(t, last.Process.Signal(syscall.SIGTERM))
	if err := last.Wait(); err != nil {
		t.Errorf("the last process: %v", err)
	}
	report, executed := srv.Report(), executions(srv)
	doubled, maybe, unknown := 0, 0, 0
	for _, p := range promises {
		v, n := ends[p.id], executed[body(p.n)]
		if v.Maybe > 0 {
			maybe++
		}
		switch {
		case n > 1 && (p.once || v.Maybe < n-1):
			t.Errorf("%s was executed %d times and says that it may have been %d times more (at-most-once %v)", p.id, n, v.Maybe, p.once)
		case n > 1:
			doubled++
		case v.State == "unknown" && p.once:
			unknown++
		case v.State != "done" || n != 1:
			t.Errorf("%s is %s (%s) and was executed %d times", p.id, v.State, v.Reason, n)
		}
	}
	t.Logf("%d kills in %v, %d with work under way: %d kept, %d held, %d executed; %d twice, %d may be, %d unknown; %d refused, %d early",
		kills, time.Since(start).Round(time.Second), inFlight, len(promises), held.Load(), report.Executed, doubled, maybe, unknown, report.Rejected, report.Early)
	if inFlight < kills/2 || len(promises) < kills {
		t.Errorf("%d kills met a process at work, %d calls were kept: the test shows little", inFlight, len(promises))
	}
	if most := 3 + report.Executed/500; report.Rejected > most || report.Early > 0 {
		t.Errorf("%d refused, %d early: a restart has refilled a bucket", report.Rejected, report.Early)
	}
}

// look reads an execution.
func look(base, id string) (v executionView, ok bool) {
	resp, err := client.Get(base + executionsPath + id)
	if err != nil {
		return v, false
	}
	defer resp.Body.Close()
	var b bytes.Buffer
	b.ReadFrom(resp.Body)
	return v, resp.StatusCode == http.StatusOK && json.Unmarshal(b.Bytes(), &v) == nil
}

// emulate serves an emulator on loopback whose keys are the bodies.
func emulate(t testing.TB, c emulator.Config) (*emulator.Server, string) {
	t.Helper()
	c.Key = func(_ *http.Request, body []byte) string { return string(body) }
	srv, err := emulator.New(c)
	must(t, err)
	server := httptest.NewServer(srv.API())
	t.Cleanup(server.Close)
	return srv, server.URL
}

// kill -9 in the middle of a burst of held calls, which no journal knows of: the
// next process does not send what has left already once more.
func TestKillInBurst(t *testing.T) {
	const rate, burst, rounds = 10, 100, 6
	srv, url := emulate(t, emulator.Config{Limits: []emulator.Limit{{Rate: rate, Burst: burst, Per: emulator.PerClient}}, Latency: 5 * time.Millisecond})
	s := serving{API: url, Address: freeAddress(t), Data: t.TempDir(), Rate: rate, Burst: burst, Drain: time.Second}
	base := "http://" + s.Address
	var calls atomic.Int64
	for round := range rounds {
		cmd := s.spawn(t)
		wait(t, "the gateway", func() bool {
			resp, err := client.Get(base + "/readyz")
			if err == nil {
				resp.Body.Close()
			}
			return err == nil
		})
		before := srv.Report().Accepted
		ctx, stop := context.WithCancel(t.Context())
		var crowd sync.WaitGroup
		for range 2 * burst {
			crowd.Go(func() {
				req, _ := http.NewRequestWithContext(ctx, "POST", base+executePath, strings.NewReader(body(int(calls.Add(1)))))
				if resp, err := client.Do(req); err == nil {
					resp.Body.Close()
				}
			})
		}
		enough := before + int64(5+rand.IntN(burst/4))
		wait(t, "a part of the burst", func() bool { return srv.Report().Accepted >= enough })
		cmd.Process.Kill()
		cmd.Wait()
		stop()
		crowd.Wait()
		t.Logf("round %d: %d accepted, %d refused", round, srv.Report().Accepted-before, srv.Report().Rejected)
	}
	if r := srv.Report(); r.Rejected > 1 {
		t.Errorf("%d of %d refused: restarts have refilled the bucket", r.Rejected, r.Arrivals)
	}
}
