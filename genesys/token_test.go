package genesys

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/headgate/headgate"
	"github.com/headgate/headgate/emulator"
	"github.com/headgate/headgate/headgatetest"
)

// host is a login host that answers as script says, or with a new token.
type host struct {
	life, takes time.Duration
	script      []*http.Response // nil is a token
	err         []error

	mu sync.Mutex
	n  int
}

func (h *host) RoundTrip(req *http.Request) (*http.Response, error) {
	h.mu.Lock()
	n := h.n
	h.n++
	h.mu.Unlock()
	select {
	case <-time.After(h.takes):
	case <-req.Context().Done():
		return nil, req.Context().Err()
	}
	if n < len(h.err) && h.err[n] != nil {
		return nil, h.err[n]
	}
	if n < len(h.script) && h.script[n] != nil {
		return h.script[n], nil
	}
	return reply(200, fmt.Sprintf(`{"access_token":"token-%d","token_type":"bearer","expires_in":%d}`, n, int(h.life.Seconds()))), nil
}

func (h *host) logins() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.n
}

func TestTenSecondTokens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pair := headgatetest.New(t, emulator.Config{
			TokenLifetime: 10 * time.Second,
			LoginLatency:  time.Second,
			Limits:        []emulator.Limit{},
		})
		wire := &wireLog{base: pair.Transport()}
		org, err := Connect(Config{
			Credentials: Credentials{ClientID: emulator.DefaultClientID, ClientSecret: NewSecret(emulator.DefaultClientSecret)},
			APIURL:      pair.URL, LoginURL: pair.URL, Base: wire,
			Limits: []headgate.Limit{TokenLimit(1000, 1000)},
		})
		if err != nil {
			t.Fatal(err)
		}
		defer org.Close()
		if err := org.Login(t.Context()); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		for i := 0; time.Since(start) < time.Minute; i++ {
			before := time.Now()
			if _, err := org.Flows().Execute(t.Context(), "F", map[string]int{"n": i}); err != nil {
				t.Fatal(err)
			}
			if waited := time.Since(before); waited != 0 {
				t.Errorf("call %d waited %v after %v", i, waited, time.Since(start))
			}
			time.Sleep(20 * time.Millisecond)
		}
		r := pair.Emulator.Report()
		if r.ByStatus[401] != 0 || r.Executed != 3000 {
			t.Errorf("%d times 401, %d executed, want 0 and 3000", r.ByStatus[401], r.Executed)
		}
		logins := wire.seen()
		if len(logins) < 7 || len(logins) > 8 || wire.most != 1 {
			t.Errorf("%d logins, %d at once, want 7 or 8, 1", len(logins), wire.most)
		}
		for i, at := range logins[1:] {
			if apart := at - logins[i]; apart < 8*time.Second || apart > 8700*time.Millisecond {
				t.Errorf("login %d comes %v after the one before, want 8s to 8.7s", i+1, apart)
			}
		}
	})
}

func TestPrefetchTimes(t *testing.T) {
	for _, life := range []time.Duration{10 * time.Second, 300 * time.Second, 48 * time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			h := &host{life: life, takes: time.Second}
			wire := &wireLog{base: h}
			s := source(t, wire, TokenConfig{})
			for range 5 { // always in use
				mustToken(t, s)
				for range 100 {
					sleep(life / 100)
					if _, ok := s.Current(); !ok {
						t.Fatalf("life %v: no token", life)
					}
				}
			}
			logins := wire.seen()
			for i, at := range logins[1:] {
				share := float64(at-logins[i]) / float64(life)
				if share < 0.80 || share > 0.88 {
					t.Errorf("life %v: login %d at %v of the life of the one before, want 0.80 to 0.88", life, i+1, share)
				}
			}
			if len(logins) < 6 || len(logins) > 7 {
				t.Errorf("life %v: %d logins in 5 lives", life, len(logins))
			}
		})
	}
}

func TestOneLoginForAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &host{life: time.Hour, takes: 3 * time.Second}
		s := source(t, h, TokenConfig{})
		start := time.Now()
		var wg sync.WaitGroup
		for range 200 {
			wg.Go(func() {
				token, err := s.Token(t.Context())
				if token != "token-0" || err != nil || time.Since(start) != 3*time.Second {
					t.Errorf("%q, %v after %v, want token-0 after 3s", token, err, time.Since(start))
				}
			})
		}
		wg.Wait()
		if n := h.logins(); n != 1 {
			t.Errorf("%d logins for 200 callers, want 1", n)
		}
	})
}

func TestManyMeet401(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limit := TokenLimit(1000, 1000)
		limit.Learn = headgate.LearnOff // so that a burst goes in one instant
		// 0.2 s to the 401, 1.2 s for the login, 0.2 s for the call.
		p := connectOver(t, headgatetest.Network{Latency: 100 * time.Millisecond},
			emulator.Config{Limits: []emulator.Limit{}, LoginLatency: time.Second},
			Config{Limits: []headgate.Limit{limit}})
		if err := p.org.Login(t.Context()); err != nil {
			t.Fatal(err)
		}
		p.Emulator.RevokeTokens()
		start := time.Now()
		var wg sync.WaitGroup
		for i := range 200 {
			wg.Go(func() {
				res, err := p.org.Flows().Execute(t.Context(), "F", map[string]int{"n": i})
				if err != nil {
					t.Error(err)
				}
				if res.Tries.Sent != 2 || time.Since(start) != 1600*time.Millisecond {
					t.Errorf("%+v after %v, want 2 sent, 1.6s", res.Tries, time.Since(start))
				}
			})
		}
		wg.Wait()
		r := p.Emulator.Report()
		if r.Logins != 2 || r.ByStatus[401] != 200 || r.Executed != 200 || r.Doubled != 0 {
			t.Errorf("%d logins, %d times 401, %d executed, %d doubled, want 2, 200, 200, 0", r.Logins, r.ByStatus[401], r.Executed, r.Doubled)
		}
	})
}

func TestRejectOfAnOldToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := source(t, &host{life: time.Hour}, TokenConfig{})
		first := mustToken(t, s)
		s.Reject(first)
		if _, ok := s.Current(); ok {
			t.Error("a rejected token is still served")
		}
		second := mustToken(t, s)
		s.Reject(first)
		if got, ok := s.Current(); !ok || got != second {
			t.Errorf("rejecting the old token gives %q, %v, want %q to stay", got, ok, second)
		}
	})
}

func TestOldTokenServesWhileRefreshFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// The second login fails, with all its retries, then it works.
		h := &host{life: 300 * time.Second, err: make([]error, 7)}
		for i := 1; i < 7; i++ {
			h.err[i] = io.ErrUnexpectedEOF
		}
		wire := &wireLog{base: h}
		s := source(t, wire, TokenConfig{Retry: headgate.Retry{Jitter: headgate.NoJitter}})
		start := time.Now()
		for time.Since(start) < 300*time.Second {
			before := time.Now()
			if _, err := s.Token(t.Context()); err != nil || time.Since(before) != 0 {
				t.Fatalf("at %v: %v after %v", time.Since(start), err, time.Since(before))
			}
			time.Sleep(100 * time.Millisecond)
		}
		// 1+2+4+8+16 s in Retry, then 0.5 to 1 s.
		logins := wire.seen()
		if len(logins) != 8 {
			t.Fatalf("%d attempts to log in, want 8", len(logins))
		}
		if d := logins[6] - logins[1]; d != 31*time.Second {
			t.Errorf("the retries took %v, want 31s", d)
		}
		if d := logins[7] - logins[6]; d < 500*time.Millisecond || d > time.Second {
			t.Errorf("the next login came after %v, want 0.5s to 1s", d)
		}
		if got := mustToken(t, s); got != "token-7" {
			t.Errorf("the token is %q, want token-7", got)
		}
	})
}

func TestRefreshThatKeepsFailing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &host{life: 300 * time.Second, script: make([]*http.Response, 1000)}
		for i := 1; i < len(h.script); i++ {
			h.script[i] = reply(401, `{"error":"invalid_client"}`)
		}
		s := source(t, h, TokenConfig{})
		mustToken(t, s)
		sleep(296 * time.Second)
		if _, ok := s.Current(); !ok {
			t.Error("the old token does not serve to its end")
		}
		sleep(2 * time.Second)
		n := h.logins()
		if n < 4 || n > 9 { // 32 to 56 s with waits of 1, 2, 4, 8, 16, halved at most
			t.Errorf("%d logins, want 4 to 9", n)
		}
		sleep(time.Hour)
		if _, ok := s.Current(); ok {
			t.Error("the token serves past its end")
		}
		if extra := h.logins() - n; extra != 0 {
			t.Errorf("%d more logins in the background although the token has ended, want none", extra)
		}
	})
}

func TestOneCallersEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &host{life: time.Hour, takes: 3 * time.Second}
		s := source(t, h, TokenConfig{})
		start := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var wg sync.WaitGroup
		wg.Go(func() { // the first, whose call begins the login
			_, err := s.Token(ctx)
			if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != time.Second {
				t.Errorf("%v after %v, want the deadline after 1s", err, time.Since(start))
			}
		})
		synctest.Wait()
		wg.Go(func() {
			if _, err := s.Token(t.Context()); err != nil || time.Since(start) != 3*time.Second {
				t.Errorf("%v after %v, want a token after 3s", err, time.Since(start))
			}
		})
		wg.Wait()
		if h.logins() != 1 {
			t.Errorf("%d logins, want 1", h.logins())
		}
		ended, stop := context.WithCancel(t.Context())
		stop()
		if _, err := s.Token(ended); err != nil {
			t.Errorf("with a token at hand: %v", err)
		}
		s.Reject("token-0")
		_, err := s.Token(ended)
		synctest.Wait()
		if !errors.Is(err, context.Canceled) || h.logins() != 1 {
			t.Errorf("%v and %d logins, want none for a context that has ended", err, h.logins())
		}
	})
}

func TestIdleSourceStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &host{life: 100 * time.Second, takes: time.Second}
		s := source(t, h, TokenConfig{})
		mustToken(t, s)
		sleep(time.Hour)
		if n := h.logins(); n != 2 { // the one that was used was renewed
			t.Errorf("%d logins in an idle hour, want 2", n)
		}
		start := time.Now()
		if mustToken(t, s); time.Since(start) != time.Second || h.logins() != 3 {
			t.Errorf("token after %v and %d logins, want 1s, 3", time.Since(start), h.logins())
		}
		sleep(89 * time.Second) // renewed, and then idle until after the time for it
		if h.logins() != 4 {
			t.Errorf("%d logins, want 4", h.logins())
		}
		sleep(86 * time.Second)
		if h.logins() != 4 {
			t.Errorf("%d logins, want 4: nobody wants the token", h.logins())
		}
		for range 3 { // late, but the token is still good: no wait, renewed now
			start = time.Now()
			if mustToken(t, s); time.Since(start) != 0 {
				t.Errorf("token after %v, want at once", time.Since(start))
			}
		}
		sleep(time.Second)
		if h.logins() != 5 {
			t.Errorf("%d logins, want 5", h.logins())
		}
	})
}

// A failure is forgotten when a login succeeds.
func TestFailureIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &host{life: 100 * time.Second, script: []*http.Response{nil, reply(401, `{}`)}}
		s := source(t, h, TokenConfig{})
		mustToken(t, s)
		for h.logins() < 3 { // the background's second try comes within a second
			sleep(100 * time.Millisecond)
		}
		s.Reject(mustToken(t, s))
		mustToken(t, s)
	})
}

func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &host{life: 100 * time.Second, takes: time.Second}
		s := source(t, h, TokenConfig{})
		mustToken(t, s)
		s.Close()
		s.Close()
		if _, err := s.Token(t.Context()); err != nil {
			t.Errorf("the token at hand does not serve: %v", err)
		}
		sleep(time.Hour)
		if _, err := s.Token(t.Context()); !errors.Is(err, ErrClosed) || h.logins() != 1 {
			t.Errorf("%v after %d logins, want ErrClosed, 1", err, h.logins())
		}
	})
	synctest.Test(t, func(t *testing.T) { // a login on its way
		h := &host{life: 100 * time.Second, takes: 10 * time.Second}
		s := source(t, h, TokenConfig{})
		start := time.Now()
		time.AfterFunc(time.Second, s.Close)
		if _, err := s.Token(t.Context()); !errors.Is(err, ErrClosed) || time.Since(start) != time.Second {
			t.Errorf("%v after %v, want ErrClosed after 1s", err, time.Since(start))
		}
	})
}

func TestTokenConfigIsChecked(t *testing.T) {
	good := TokenConfig{ClientID: "a", ClientSecret: NewSecret(testSecret), LoginURL: "https://login.test"}
	for field, change := range map[string]func(*TokenConfig){
		"ClientID is empty":     func(c *TokenConfig) { c.ClientID = "" },
		"colon":                 func(c *TokenConfig) { c.ClientID = "a:b" },
		"ClientSecret is empty": func(c *TokenConfig) { c.ClientSecret = Secret{} },
		"LoginURL is empty":     func(c *TokenConfig) { c.LoginURL = "" },
		"LoginURL must":         func(c *TokenConfig) { c.LoginURL = "login.test" },
		"password":              func(c *TokenConfig) { c.LoginURL = "https://u:p@login.test" },
		"Max":                   func(c *TokenConfig) { c.Retry.Max = -1 },
	} {
		c := good
		change(&c)
		if _, err := NewTokenSource(c); err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%v, want an error about %q", err, field)
		}
	}
	if _, err := NewTokenSource(good); err != nil {
		t.Error(err)
	}
}

func TestBackgroundBackoff(t *testing.T) {
	s := &TokenSource{}
	for i, most := range []time.Duration{1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300} {
		s.failures = i
		var all []time.Duration
		for range 100 {
			all = append(all, s.backoff())
		}
		if lo, hi := slices.Min(all), slices.Max(all); lo < most*time.Second/2 || hi > most*time.Second || lo == hi {
			t.Errorf("after %d failures %v to %v, want half to all of %vs", i, lo, hi, int(most))
		}
	}
	s.failures = 1 << 40
	if d := s.backoff(); d < renewMax/2 || d > renewMax {
		t.Errorf("after very many %v", d)
	}
}

func BenchmarkCurrent(b *testing.B) {
	s, err := NewTokenSource(TokenConfig{ClientID: "a", ClientSecret: NewSecret(testSecret), LoginURL: "https://login.test", Base: &host{life: time.Hour}})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	if _, err := s.Token(b.Context()); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, ok := s.Current(); !ok {
			b.Fatal("no token")
		}
	}
}
