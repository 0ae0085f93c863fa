package genesys

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/headgate/headgate"
	"github.com/headgate/headgate/emulator"
	"github.com/headgate/headgate/headgatetest"
)

func TestSchedule(t *testing.T) {
	const s = time.Second
	for _, c := range []struct {
		name        string
		took, life  time.Duration
		lot         float64
		until, next time.Duration // since sent
	}{
		{"10 s, early", s, 10 * s, 0, 9900 * time.Millisecond, 8 * s},
		{"10 s, late: the login must fit", s, 10 * s, 1, 9900 * time.Millisecond, 8700 * time.Millisecond},
		{"300 s, early", s, 300 * s, 0, 297 * s, 240 * s},
		{"300 s, late", s, 300 * s, 1, 297 * s, 264 * s},
		{"300 s, slow login", 40 * s, 300 * s, 1, 297 * s, 249 * s},
		{"48 h, early", s, 172_800 * s, 0, 172_790 * s, 138_240 * s},
		{"48 h, late", s, 172_800 * s, 1, 172_790 * s, 152_064 * s},
		{"login takes most of the life", 7 * s, 10 * s, 0.5, 9900 * time.Millisecond, 7 * s},
		{"login takes half of the life", 4500 * time.Millisecond, 10 * s, 0.5, 9900 * time.Millisecond, 5 * s},
		{"login takes longer than the life", 11 * s, 10 * s, 0.5, 9900 * time.Millisecond, 11 * s},
	} {
		const sent = 1000 * s
		until, next := schedule(sent, sent+c.took, c.life, c.lot)
		if until-sent != c.until || next-sent != c.next {
			t.Errorf("%s: until %v, renewed at %v, want %v, %v", c.name, until-sent, next-sent, c.until, c.next)
		}
	}
}

func TestLoginRefusedWith400(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const refusal = `{"error":"invalid_request","description":"rate limit exceeded; try again later","error_description":"rate limit exceeded; try again later"}`
		var events []headgate.Event
		var mu sync.Mutex
		h := &host{life: time.Hour, script: []*http.Response{reply(400, refusal), reply(400, refusal, "Retry-After", "7"), reply(429, `{}`, "Retry-After", "3")}}
		s := source(t, h, TokenConfig{
			Retry: headgate.Retry{Jitter: headgate.NoJitter},
			Observer: func(e headgate.Event) {
				mu.Lock()
				defer mu.Unlock()
				if e.Kind == headgate.GateClosed {
					events = append(events, e)
				}
			},
		})
		start := time.Now()
		mustToken(t, s)
		took := time.Since(start)
		// 5 s without a Retry-After, 7 s and 3 s with up to a tenth more.
		if took < 15*time.Second || took > 16500*time.Millisecond || h.logins() != 4 {
			t.Errorf("logged in after %v and %d attempts, want 15s to 16.5s, 4", took, h.logins())
		}
		for _, e := range events {
			if e.Limit != LimitLogin {
				t.Errorf("the gate of %q closed, want %q", e.Limit, LimitLogin)
			}
		}
		if len(events) != 3 {
			t.Errorf("%d gates closed, want 3", len(events))
		}
	})
}

func TestLoginLimitOfThePlatform(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// Two logins a minute; three credentials' worth of restarts.
		p := headgatetest.New(t, emulator.Config{LoginLimit: emulator.Limit{Algorithm: emulator.Fixed, Max: 2}})
		for i := range 3 {
			s, err := NewTokenSource(TokenConfig{
				ClientID: emulator.DefaultClientID, ClientSecret: NewSecret(emulator.DefaultClientSecret),
				LoginURL: p.URL, Base: p.Transport(),
			})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			start := time.Now()
			mustToken(t, s)
			if waited := time.Since(start); i < 2 && waited != 0 || i == 2 && (waited < time.Minute || waited > 3*time.Minute) {
				t.Errorf("login %d took %v", i, waited)
			}
		}
	})
}

func TestWrongCredentials(t *testing.T) {
	for _, body := range []*http.Response{
		reply(400, `{"error":"invalid_client","error_description":"client not found, `+testSecret+`"}`, "ININ-Correlation-Id", "c-1"),
		reply(401, `{"error":"invalid_client","error_description":"wrong: `+base64.StdEncoding.EncodeToString([]byte("client-a:"+testSecret))+`, not+a+real+one"}`, "ININ-Correlation-Id", "c-1"),
	} {
		synctest.Test(t, func(t *testing.T) {
			h := &host{life: time.Hour, script: []*http.Response{body}}
			s := source(t, h, TokenConfig{})
			start := time.Now()
			var wg sync.WaitGroup
			for range 200 {
				wg.Go(func() {
					_, err := s.Token(t.Context())
					e, ok := errors.AsType[*LoginError](err)
					if !ok || !e.Rejected || e.Status != body.StatusCode || e.Code != "invalid_client" || e.CorrelationID != "c-1" || time.Since(start) != 0 {
						t.Errorf("%+v after %v", err, time.Since(start))
						return
					}
					for _, want := range []string{"client-a", "https://login.test/oauth/token", "secret", "region", "Client Credentials", "role", "c-1", redacted} {
						if !strings.Contains(e.Error(), want) {
							t.Errorf("%q does not name %q", e, want)
						}
					}
					if strings.Contains(e.Error(), testSecret) || strings.Contains(e.Error(), "Y2xpZW50") || strings.Contains(e.Error(), "not+a") {
						t.Errorf("%q has the secret", e)
					}
					if at := e.NextTry.Sub(start); at != 5*time.Second {
						t.Errorf("the next try is after %v, want 5s", at)
					}
				})
			}
			wg.Wait()
			time.Sleep(5*time.Second - 1)
			if _, err := s.Token(t.Context()); err == nil || h.logins() != 1 {
				t.Errorf("%v after %d logins, want an error without another", err, h.logins())
			}
			time.Sleep(time.Nanosecond)
			if _, err := s.Token(t.Context()); err != nil || h.logins() != 2 {
				t.Errorf("%v after %d logins, want to recover with the second", err, h.logins())
			}
		})
	}
}

func TestHungLogin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &host{life: time.Hour, takes: 24 * time.Hour}
		s := source(t, h, TokenConfig{Retry: headgate.Retry{MaxRetries: -1}})
		start := time.Now()
		_, err := s.Token(t.Context())
		e, ok := errors.AsType[*LoginError](err)
		if !ok || e.Rejected || e.Status != 0 || time.Since(start) != 30*time.Second || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v after %v, want a LoginError after 30s that is not the caller's deadline", err, time.Since(start))
		}
		h.takes = 0
		if _, again := s.Token(t.Context()); again != err {
			t.Errorf("%v, want the same error for a second", again)
		}
		time.Sleep(time.Second)
		mustToken(t, s)
	})
}

func TestLoginAnswersThatAreNoToken(t *testing.T) {
	for _, c := range []struct {
		answer *http.Response
		want   string
	}{
		{reply(200, `<html>`), "not JSON"},
		{reply(200, `{}`), "no access_token"},
		{reply(200, `{"access_token":"a\nb"}`), "no header can hold"},
		{reply(200, `{"access_token":"a","token_type":"mac"}`), "token_type"},
		{reply(200, `{"access_token":"a","expires_in":0}`), "expired already"},
		{reply(200, `{"access_token":"a","expires_in":1}`), "lives for 1s and took 2s"},
		{reply(302, ``, "Location", "https://elsewhere.test"), "check the login URL"},
		{reply(404, ``), "check the login URL"},
		{reply(500, `{"message":"oops"}`), "oops"},
	} {
		synctest.Test(t, func(t *testing.T) {
			h := &host{takes: 2 * time.Second, script: []*http.Response{c.answer}}
			s := source(t, h, TokenConfig{Retry: headgate.Retry{MaxRetries: -1}})
			_, err := s.Token(t.Context())
			e, ok := errors.AsType[*LoginError](err)
			if !ok || e.Rejected || e.Status != c.answer.StatusCode || !strings.Contains(e.Error(), c.want) {
				t.Errorf("%v, want a LoginError that says %q", err, c.want)
			}
		})
	}
}

func TestExpiresIn(t *testing.T) {
	for text, want := range map[string]time.Duration{
		`86399`: 86399 * time.Second, `"600"`: 600 * time.Second, `1.5`: 1500 * time.Millisecond,
		`1e300`: longestLife, `"soon"`: shortestLife, `null`: shortestLife, `{}`: shortestLife, `[]`: shortestLife, `true`: shortestLife,
	} {
		_, life, err := parseToken([]byte(`{"access_token":"a","expires_in":` + text + `}`))
		if err != nil || life != want {
			t.Errorf("expires_in %s: %v, %v, want %v", text, life, err, want)
		}
	}
	if _, life, err := parseToken([]byte(`{"access_token":"a"}`)); err != nil || life != shortestLife {
		t.Errorf("no expires_in: %v, %v", life, err)
	}
}

func TestLoginPaysAPermit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limiter, err := headgate.NewLimiter(headgate.LimiterConfig{Limits: []headgate.Limit{{
			Name: LimitLogin, Per: headgate.PerClient, Match: loginMatch, Rate: 0.1, Burst: 1}}})
		if err != nil {
			t.Fatal(err)
		}
		h := &host{life: time.Hour}
		s := source(t, h, TokenConfig{Limiter: limiter})
		start := time.Now()
		for i := range 4 {
			s.Reject(mustToken(t, s))
			if at := time.Since(start); at != time.Duration(i)*10*time.Second {
				t.Errorf("login %d at %v, want every 10s", i, at)
			}
		}
		for _, state := range limiter.Snapshot() {
			if state.Token != "" || state.Client != "client-a" || state.Org != "login.test" {
				t.Errorf("%+v, want the client and nothing made of the secret", state)
			}
		}
	})
}

func TestNoSecretAnywhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		logger := slog.New(slog.NewJSONHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug}))
		var seen atomic.Int32
		h := &host{life: 100 * time.Second, script: []*http.Response{nil, reply(401, testSecret), reply(200, `{"access_token":"token-x","expires_in":"`+testSecret+`","token_type":"`+testSecret+`"}`)}}
		for range 50 {
			h.script = append(h.script, reply(403, `{"message":"`+testSecret+`"}`))
		}
		base := roundTrip(func(req *http.Request) (*http.Response, error) {
			if id, secret, ok := req.BasicAuth(); ok && id == "client-a" && secret == testSecret {
				seen.Add(1)
			}
			return h.RoundTrip(req)
		})
		s := source(t, base, TokenConfig{LoginURL: "http://login.test", Logger: logger, Observer: func(e headgate.Event) { logger.Info("event", "event", e) }})
		mustToken(t, s)
		sleep(200 * time.Second)
		_, err := s.Token(t.Context())
		synctest.Wait()
		fmt.Fprintf(&out, "%v %+v %#v %v %+v %+v", s, s, s, err, err, *s.failure)
		if int(seen.Load()) != h.logins() || h.logins() < 3 {
			t.Errorf("the secret was sent %d times in %d logins", seen.Load(), h.logins())
		}
		text := out.String()
		if !strings.Contains(text, "login failed") || !strings.Contains(text, "in the clear") || !strings.Contains(text, "logged in") || !strings.Contains(text, `"path":"/oauth/token"`) {
			t.Errorf("the log lacks a line: %s", text)
		}
		for _, secret := range []string{testSecret, "Y2xpZW50LWE6", "token-0", "token-x"} {
			if strings.Contains(text, secret) {
				t.Errorf("%q is in %s", secret, text)
			}
		}
	})
}

func TestLoginGivesUpWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &host{life: time.Hour, script: []*http.Response{reply(400, bodyLogin, "Retry-After", "60")}}
		s := source(t, h, TokenConfig{Retry: headgate.Retry{MaxWait: 10 * time.Second}})
		_, err := s.Token(t.Context())
		if e, ok := errors.AsType[*LoginError](err); !ok || e.Rejected || e.Status != 400 || strings.Contains(e.Error(), "check the client id") {
			t.Errorf("%v, want a refusal that is not about the credentials", err)
		}
		time.Sleep(time.Second)
		_, err = s.Token(t.Context())
		if e, ok := errors.AsType[*headgate.LimitError](err); !ok || e.Limit != LimitLogin || e.RetryAfter < 59*time.Second {
			t.Errorf("%v, want the limit", err)
		}
		time.Sleep(65 * time.Second)
		mustToken(t, s)
	})
}

func TestLoginThatCannotConnect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &host{life: time.Hour, err: []error{io.ErrUnexpectedEOF}}
		s := source(t, h, TokenConfig{Retry: headgate.Retry{MaxRetries: -1}})
		_, err := s.Token(t.Context())
		e, ok := errors.AsType[*LoginError](err)
		if !ok || e.Rejected || !errors.Is(err, io.ErrUnexpectedEOF) || e.Error() != "logging in as client client-a at https://login.test/oauth/token: unexpected EOF" {
			t.Errorf("%v", err)
		}
	})
}
