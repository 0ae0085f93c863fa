package emulator

import (
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

const goodForm = "grant_type=client_credentials"

func TestLogin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTester(t, Config{TokenLifetime: 10*sec + 500*ms, LoginLatency: sec, Limits: []Limit{}})
		r := c.login(DefaultClientID, DefaultClientSecret, goodForm)
		c.wantStatus(r, 200)
		if c.now() != sec {
			t.Errorf("took %v", c.now())
		}
		var b struct {
			Token   string `json:"access_token"`
			Type    string `json:"token_type"`
			Expires int    `json:"expires_in"`
		}
		r.decode(t, &b)
		if b.Token == "" || b.Type != "bearer" || b.Expires != 10 || r.header.Get("ININ-Correlation-Id") == "" {
			t.Errorf("got %s", r.body)
		}
		// Its life begins at the end of the log-in.
		first := c.token
		c.token = b.Token
		time.Sleep(9500 * ms)
		c.wantStatus(c.execute(), 200)
		c.token = first // was issued at 0
		r = c.execute()
		c.wantStatus(r, 401)
		if !strings.Contains(r.body, `"credentials.expired"`) {
			t.Errorf("got %s", r.body)
		}
		c.token = b.Token
		time.Sleep(sec - 1)
		c.wantStatus(c.execute(), 200)
		time.Sleep(time.Nanosecond)
		c.wantStatus(c.execute(), 401)
		rep := c.Report()
		if rep.Logins != 1 || rep.ByStatus[401] != 2 || rep.Accepted != 2 || rep.Executed != 2 {
			t.Errorf("report\n%v", rep)
		}
	})
}

func TestLoginErrors(t *testing.T) {
	for _, tt := range []struct {
		name, id, secret, form string
		status                 int
		code                   string
	}{
		{"wrong secret", DefaultClientID, "x", goodForm, 401, "invalid_client"},
		{"wrong client", "x", DefaultClientSecret, goodForm, 401, "invalid_client"},
		{"no credentials", "", "", goodForm, 401, "invalid_client"},
		{"no grant", DefaultClientID, DefaultClientSecret, "", 400, "invalid_request"},
		{"another grant", DefaultClientID, DefaultClientSecret, "grant_type=password", 400, "unsupported_grant_type"},
		{"a broken form", DefaultClientID, DefaultClientSecret, "%", 400, "invalid_request"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := newTester(t, Config{})
			r := c.login(tt.id, tt.secret, tt.form)
			c.wantStatus(r, tt.status)
			var b struct {
				Error, Description string
				ErrorDescription   string `json:"error_description"`
			}
			r.decode(t, &b)
			if b.Error != tt.code || b.Description == "" || b.ErrorDescription != b.Description {
				t.Errorf("got %s", r.body)
			}
			if rep := c.Report(); rep.LoginsFailed != 1 || rep.Logins != 0 || rep.LoginsRefused != 0 {
				t.Errorf("report\n%v", rep)
			}
			if (tt.status == 401) != (r.header.Get("WWW-Authenticate") == "Basic") {
				t.Errorf("header %v", r.header)
			}
		})
	}
	c := newTester(t, Config{})
	if r := serve(c.API(), httptest.NewRequest("GET", "/oauth/token", nil)); r.status != 405 || r.header.Get("Allow") != "POST" {
		t.Errorf("GET: %d %v", r.status, r.header)
	}
}

// Credentials come as they are, or encoded as RFC 6749 wants.
func TestLoginEncoding(t *testing.T) {
	c := newTester(t, Config{Clients: []Client{{"a+b", "c%2Fd"}}})
	c.wantStatus(c.login("a+b", "c%2Fd", goodForm), 200)
	c.wantStatus(c.login("a%2Bb", "c%252Fd", goodForm), 200)
	c.wantStatus(c.login("a+b", "c/d", goodForm), 401)
}

func TestLoginLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTester(t, Config{
			Clients:    []Client{{"one", "emulator-secret"}, {"two", "emulator-secret"}},
			LoginLimit: Limit{Algorithm: Fixed, Max: 2, Window: 60 * sec},
		})
		c.wantStatus(c.login("one", "emulator-secret", goodForm), 200)
		c.wantStatus(c.login("one", "x", goodForm), 401) // draws too
		r := c.login("one", "emulator-secret", goodForm)
		const want = `{"error":"invalid_request","description":"rate limit exceeded; try again later","error_description":"rate limit exceeded; try again later"}`
		if r.status != 400 || r.body != want || r.header.Get("Retry-After") != "" {
			t.Errorf("%d %s", r.status, r.body)
		}
		c.wantStatus(c.login("two", "emulator-secret", goodForm), 200)
		time.Sleep(60 * sec)
		c.wantStatus(c.login("one", "emulator-secret", goodForm), 200)
		if r := c.Report(); r.Logins != 3 || r.LoginsRefused != 1 || r.LoginsFailed != 1 {
			t.Errorf("report\n%v", r)
		}
		if row := c.rows()[2]; row.RefusedBy != "login" || row.Client != "one" {
			t.Errorf("row %+v", row)
		}
	})
}

func TestTokens(t *testing.T) {
	c := newTester(t, Config{})
	code := func() string {
		r := c.execute()
		c.wantStatus(r, 401)
		if r.header.Get("WWW-Authenticate") != "Bearer" {
			t.Errorf("header %v", r.header)
		}
		var b struct{ Code string }
		r.decode(t, &b)
		return b.Code
	}
	c.wantStatus(c.execute(), 200)
	c.RevokeTokens()
	if got := code(); got != "bad.credentials" {
		t.Errorf("revoked: %s", got)
	}
	c.token = "x"
	if got := code(); got != "bad.credentials" {
		t.Errorf("unknown: %s", got)
	}
	c.token = ""
	if got := code(); got != "authentication.required" {
		t.Errorf("none: %s", got)
	}
	c.token = c.IssueToken()
	c.wantStatus(c.execute(), 200)
	if r := c.Report(); r.Logins != 0 || r.Executed != 2 || r.Arrivals != 5 {
		t.Errorf("report\n%v", r)
	}
}

func TestAnyToken(t *testing.T) {
	c := newTester(t, Config{AnyToken: true, Limits: bucketOf(0.001, 1)})
	for _, token := range []string{"", "a", "b"} { // each has a bucket of its own
		c.token = token
		c.wantStatus(c.execute(), 200)
		c.wantStatus(c.execute(), 429)
	}
}
