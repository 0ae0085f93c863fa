package genesys

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/headgate/headgate"
	"github.com/headgate/headgate/emulator"
)

func TestConnectChecks(t *testing.T) {
	limiter, err := headgate.NewLimiter(headgate.LimiterConfig{})
	if err != nil {
		t.Fatal(err)
	}
	good := Config{Credentials: Credentials{ClientID: "a", ClientSecret: NewSecret(testSecret), Region: "eu-west-1"}}
	for want, change := range map[string]func(*Config){
		"media only":            func(c *Config) { c.Region = "europe-paris" },
		"no region given":       func(c *Config) { c.Credentials.Region = "" },
		"ClientID is empty":     func(c *Config) { c.Credentials.ClientID = "" },
		"ClientSecret is empty": func(c *Config) { c.Credentials.ClientSecret = Secret{} },
		"APIURL must":           func(c *Config) { c.APIURL = "api.test" },
		"LoginURL must":         func(c *Config) { c.LoginURL = "ftp://login.test" },
		"both set":              func(c *Config) { c.Limits, c.Limiter = Limits(), limiter },
		"Rate is":               func(c *Config) { c.Limits = []headgate.Limit{{Name: "a", Burst: 1}} },
		"retry: Max":            func(c *Config) { c.Retry.Max = -1 },
	} {
		c := good
		change(&c)
		if _, err := Connect(c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want an error about %q", err, want)
		}
	}
	org, err := Connect(good)
	if err != nil || org.APIURL != "https://api.mypurecloud.ie" || org.Tokens.url != "https://login.mypurecloud.ie/oauth/token" {
		t.Errorf("%+v, %v", org, err)
	}
	c := good
	c.Region, c.LoginURL = "mypurecloud.de", "https://gw.test/login/"
	org, err = Connect(c)
	if err != nil || org.APIURL != "https://api.mypurecloud.de" || org.Tokens.url != "https://gw.test/login/oauth/token" {
		t.Errorf("%+v, %v", org, err)
	}
	c = good
	c.Limiter = limiter
	if org, err = Connect(c); err != nil || org.Limiter != limiter || org.Tokens.limiter != limiter {
		t.Errorf("%+v, %v", org, err)
	}
	if own, err := org.WithOwnLimits(t.Context()); own != org || err == nil {
		t.Errorf("%v, %v, want that a limiter of the caller's stays", own, err)
	}
}

// Every field that Connect passes on acts.
func TestConnectPassesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		kinds := map[headgate.EventKind]int{}
		var out bytes.Buffer
		p := connect(t, emulator.Config{Limits: []emulator.Limit{{Rate: 1, Burst: 1}}}, Config{
			Org:    "org-7",
			Limits: []headgate.Limit{TokenLimit(1, 2)},
			Retry:  headgate.Retry{MaxWait: time.Second},
			Observer: func(e headgate.Event) {
				mu.Lock()
				kinds[e.Kind]++
				mu.Unlock()
			},
			Logger: slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug})),
		})
		var limited int
		for i := range 10 {
			_, err := p.org.Flows().Execute(t.Context(), "F", map[string]int{"n": i})
			if _, ok := errors.AsType[*headgate.LimitError](err); ok {
				limited++
			} else if _, api := errors.AsType[*APIError](err); err != nil && !api {
				t.Error(err)
			}
		}
		for _, kind := range []headgate.EventKind{headgate.Sent, headgate.Answered, headgate.PermitWaited} {
			if kinds[kind] == 0 {
				t.Errorf("no event %q: %v", kind, kinds)
			}
		}
		if !strings.Contains(out.String(), "logged in") {
			t.Errorf("the log is %q", out.String())
		}
		states := p.org.Limiter.Snapshot()
		if len(states) == 0 {
			t.Error("no state")
		}
		for _, s := range states {
			if s.Org != "org-7" || s.Client != emulator.DefaultClientID {
				t.Errorf("%+v, want org-7 and the client", s)
			}
		}
	})
}

// Behind a gateway with prefixes the limits still hold.
func TestPrefixes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &host{life: time.Hour}
		org, err := Connect(Config{
			Credentials: Credentials{ClientID: "a", ClientSecret: NewSecret(testSecret)},
			APIURL:      "https://gw.test/genesys/api", LoginURL: "https://gw.test/genesys/login",
			Limits: []headgate.Limit{TokenLimit(1, 1)},
			Base: roundTrip(func(req *http.Request) (*http.Response, error) {
				if req.URL.Path == "/genesys/login/oauth/token" {
					return h.RoundTrip(req)
				}
				if req.URL.Path != "/genesys/api/api/v2/architect/flows/F/execute" {
					t.Errorf("path %s", req.URL.Path)
				}
				return reply(200, `{}`), nil
			}),
		})
		if err != nil {
			t.Fatal(err)
		}
		defer org.Close()
		if err := org.Login(t.Context()); err != nil {
			t.Fatal(err)
		}
		if states := org.Limiter.Snapshot(); len(states) != 1 || states[0].Limit != LimitLogin {
			t.Errorf("%+v, want that the login has paid", states)
		}
		start := time.Now()
		for range 5 {
			if _, err := org.Flows().Execute(t.Context(), "F", nil); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(start); took != 4*time.Second {
			t.Errorf("5 calls at 1/s took %v, want 4s", took)
		}
		names := map[string]bool{}
		for _, s := range org.Limiter.Snapshot() {
			names[s.Limit] = true
		}
		if !names[LimitToken] || names["token"] || names[LimitLogin] {
			t.Errorf("%v, want the token's limit, and the login's full again", names)
		}
	})
}

func TestClientKeepsTheTokenToTheAPI(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := connect(t, emulator.Config{Limits: []emulator.Limit{}}, Config{Limits: plenty})
		resp, err := p.org.Client().Get(p.URL + "/api/v2/organizations/limits/namespaces/platform.api")
		if err != nil || resp.StatusCode != 200 {
			t.Fatalf("%v, %v", resp, err)
		}
		resp.Body.Close()
		before := p.Emulator.Report().Arrivals
		for _, address := range []string{"http://elsewhere.test/api/v2/x", "https://emulator.test/api/v2/x", "http://emulator.test:81/"} {
			if _, err := p.org.Client().Post(address, "text/plain", io.NopCloser(strings.NewReader("a"))); err == nil || !strings.Contains(err.Error(), "not sent") {
				t.Errorf("%s: %v, want an error", address, err)
			}
		}
		if after := p.Emulator.Report().Arrivals; after != before {
			t.Errorf("%d were sent", after-before)
		}
	})
}

func TestClientIsCareful(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var paths []string
		org, err := Connect(Config{
			Credentials: Credentials{ClientID: "a", ClientSecret: NewSecret(testSecret)},
			APIURL:      "https://api.test", LoginURL: "https://login.test", Limits: plenty,
			Base: roundTrip(func(req *http.Request) (*http.Response, error) {
				paths = append(paths, req.URL.Path)
				switch req.URL.Path {
				case loginPath:
					return reply(200, `{"access_token":"token-x"}`), nil
				case "/redirected":
					return reply(307, "", "Location", "https://api.test/elsewhere"), nil
				}
				return nil, io.ErrUnexpectedEOF
			}),
		})
		if err != nil {
			t.Fatal(err)
		}
		defer org.Close()
		_, err = org.Client().Post("https://api.test/post", "text/plain", strings.NewReader("a"))
		if _, ok := errors.AsType[*headgate.UnknownError](err); !ok {
			t.Errorf("%v, want an UnknownError", err)
		}
		resp, err := org.Client().Get("https://api.test/redirected")
		if err != nil || resp.StatusCode != 307 {
			t.Errorf("%v, %v, want the redirect itself", resp, err)
		}
		if want := "/oauth/token /post /redirected"; strings.Join(paths, " ") != want {
			t.Errorf("%v were sent, want %s", paths, want)
		}
	})
}

// A 429 closes the gate of the limit that it names, under either of its names,
// and also of one that nobody knew.
func TestNamedLimit(t *testing.T) {
	for key, want := range map[string]string{
		LimitOrgUser: LimitOrgUser, LimitToken: LimitToken, LimitAnyToken: LimitToken, "architect.rate": "architect.rate", "": LimitToken,
	} {
		synctest.Test(t, func(t *testing.T) {
			var closed []string
			refused := false
			h := &host{life: time.Hour}
			org, err := Connect(Config{
				Credentials: Credentials{ClientID: "a", ClientSecret: NewSecret(testSecret)},
				APIURL:      "https://api.test", LoginURL: "https://login.test",
				Base: roundTrip(func(req *http.Request) (*http.Response, error) {
					if req.URL.Path == loginPath {
						return h.RoundTrip(req)
					}
					if !refused {
						refused = true
						return reply(429, `{"limit":{"key":"`+key+`"}}`, "Retry-After", "42"), nil
					}
					return reply(200, `{}`), nil
				}),
				Observer: func(e headgate.Event) {
					if e.Kind == headgate.GateClosed {
						closed = append(closed, e.Limit)
					}
				},
			})
			if err != nil {
				t.Fatal(err)
			}
			defer org.Close()
			start := time.Now()
			res, err := org.Flows().Execute(t.Context(), "F", nil)
			if took := time.Since(start); err != nil || took < 42*time.Second || took > 43*time.Second || res.Tries.Refused != 1 {
				t.Errorf("%s: %+v, %v after %v, want 42s to 43s", key, res, err, took)
			}
			if len(closed) != 1 || closed[0] != want {
				t.Errorf("%s closes the gates of %q, want %q", key, closed, want)
			}
		})
	}
}

// The peak hour: a known limit, many callers, tokens that end on the way.
func TestBurstWithShortTokens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := connect(t, emulator.Config{
			Limits:        []emulator.Limit{{Rate: 50, Burst: 100}},
			TokenLifetime: 10 * time.Second, LoginLatency: time.Second,
			LoginLimit: emulator.Limit{Algorithm: emulator.Fixed, Max: 10},
		}, Config{Limits: []headgate.Limit{TokenLimit(50, 100)}})
		if err := p.org.Login(t.Context()); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		var wg sync.WaitGroup
		rows := make(chan int)
		for range 200 {
			wg.Go(func() {
				for n := range rows {
					if _, err := p.org.Flows().Execute(t.Context(), "F", map[string]int{"n": n}); err != nil {
						t.Error(err)
					}
				}
			})
		}
		for n := range 1000 {
			rows <- n
		}
		close(rows)
		wg.Wait()
		span := time.Since(start)
		r := p.Emulator.Report()
		// The emulator counts per token, and a new token has a full bucket;
		// ours counts per credential, does not rely on it, and finds out.
		if r.Executed != 1000 || r.Doubled != 0 || r.Early != 0 || r.Rejected > 3 || r.ByStatus[401] != 0 || r.Logins < 2 || r.Logins > 3 {
			t.Errorf("%v", r)
		}
		if most := 18 * time.Second * 102 / 100; span > most {
			t.Errorf("took %v, want %v at most", span, most)
		}
	})
}

func TestLoginSaysAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := connect(t, emulator.Config{}, Config{Credentials: Credentials{ClientID: "nobody", ClientSecret: NewSecret(testSecret)}})
		err := p.org.Login(context.Background())
		if e, ok := errors.AsType[*LoginError](err); !ok || !e.Rejected || e.Status != 401 || p.since() != 0 {
			t.Errorf("%v after %v", err, p.since())
		}
		_, err = p.org.Flows().Execute(t.Context(), "F", nil)
		if _, ok := errors.AsType[*LoginError](err); !ok {
			t.Errorf("%v, want a LoginError", err)
		}
	})
}
