package gateway

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/headgate/headgate/internal/config"
	"github.com/headgate/headgate/internal/keys"
)

// keyed is a gateway with two orgs, callers and an operator. Keys are drawn anew.
type keyed struct {
	*bench
	p                     *platform
	crm, bulk, globex, op string
}

func newKeyed(t testing.TB, p *platform) *keyed {
	k := &keyed{p: p}
	caller := func(o *config.Org, name string) (key string) {
		c := o.Guest(name)
		key, c.Key = keys.New()
		o.Callers = append(o.Callers, c)
		return key
	}
	k.bench = newPlatform(t, p, func(f *config.File) {
		other := f.Orgs[0]
		other.Name, other.Path, other.Default = "globex", "/globex", false
		k.crm, k.bulk, k.globex = caller(&f.Orgs[0], "crm"), caller(&f.Orgs[0], "bulk"), caller(&other, "crm")
		f.Orgs = append(f.Orgs, other)
		var hash keys.Hash
		k.op, hash = keys.New()
		f.Operators = []config.Operator{{Name: "ops", Key: hash}}
	})
	return k
}

func bearer(key string) string { return "Authorization: Bearer " + key }

// token logs a caller in.
func (k *keyed) token(name, key string) string {
	k.t.Helper()
	a := k.do("POST", "/oauth/token", "grant_type=client_credentials&client_id="+name+"&client_secret="+key, "Content-Type: application/x-www-form-urlencoded")
	_, rest, ok := strings.Cut(a.body, `"access_token":"`)
	token, _, _ := strings.Cut(rest, `"`)
	if a.status != 200 || !ok {
		k.t.Fatalf("logging in: %d %s", a.status, a.body)
	}
	return token
}

// login begins a session of the page.
func (k *keyed) login() (cookie string) {
	k.t.Helper()
	a := k.do("POST", sessionPath, "key="+k.op, "Content-Type: application/x-www-form-urlencoded", "Sec-Fetch-Site: same-origin")
	set := a.header.Get("Set-Cookie")
	value, attributes, _ := strings.Cut(set, ";")
	if a.status != 303 || !strings.Contains(attributes, "HttpOnly") || !strings.Contains(attributes, "SameSite=Strict") || !strings.Contains(attributes, "Path=/headgate/") {
		k.t.Fatalf("logging in at the page: %d %q", a.status, set)
	}
	return "Cookie: " + value
}

// A name that another site has made to lead here opens nothing where no key is
// asked for, and neither does a page of another site.
func TestNoKeysOnLoopback(t *testing.T) {
	p := &platform{}
	b := newPlatform(t, p, nil)
	id := b.do("POST", executePath, body(1), "Prefer: respond-async").execution(t).Self
	wait(t, "the execution to go", func() bool { seen, _ := p.got(); return len(seen) == 1 })
	form := "grant_type=client_credentials&client_id=a&client_secret=b"
	for _, c := range []struct{ method, path string }{
		{"GET", "/headgate/"}, {"GET", "/headgate/v1/orgs"}, {"GET", "/headgate/v1/executions"}, {"GET", id}, {"DELETE", id},
		{"POST", "/headgate/v1/orgs/acme/pause"}, {"GET", "/metrics"}, {"GET", "/headgate/api/events"},
		{"POST", "/oauth/token"}, {"POST", "/acme/oauth/token"},
		{"GET", "/api/v2/users/me"}, {"POST", executePath}, {"POST", "/acme" + executePath},
	} {
		a := b.do(c.method, c.path, form, "Host: evil.example.com", "Content-Type: application/x-www-form-urlencoded")
		if a.status != 401 && a.status != 403 {
			t.Errorf("%s %s for evil.example.com: %d %s", c.method, c.path, a.status, a.body)
		}
		if c.method == "GET" && !strings.HasPrefix(c.path, "/api/") {
			continue // other pages can't read what it answers
		}
		for _, field := range []string{"Origin: http://evil.example.com", "Origin: null", "Sec-Fetch-Site: cross-site", "Sec-Fetch-Site: same-site"} {
			if a := b.do(c.method, c.path, form, field, "Content-Type: application/x-www-form-urlencoded"); a.status != 403 {
				t.Errorf("%s %s, %s: %d %s", c.method, c.path, field, a.status, a.body)
			}
		}
	}
	if seen, _ := p.got(); len(seen) > 0 {
		t.Errorf("the platform got %s %s", seen[0].Method, seen[0].URL)
	}
	if b.g.setting().orgs[0].limiter.Paused() {
		t.Error("it was paused")
	}
	for _, field := range []string{"Origin: " + b.url, "Sec-Fetch-Site: same-origin", "Sec-Fetch-Site: none"} {
		if a := b.do("GET", "/api/v2/users/me", "", field); a.status != 200 {
			t.Errorf("%s: %d %s", field, a.status, a.body)
		}
	}
}

// All wrong keys get one answer, whatever is wrong with them, and reach nothing.
func TestWrongKeys(t *testing.T) {
	p := &platform{}
	k := newKeyed(t, p)
	token, elsewhere := k.token("crm", k.crm), k.token("crm", k.globex)
	stranger, _ := keys.New()
	forged := keys.NewIssuer(keys.NewSecret()).Issue(keys.Claims{Org: "acme", Caller: "crm", Key: keys.HashOf(k.crm).Fingerprint()}, keys.ForCalls, time.Now(), time.Hour)
	old := k.g.issuer.Issue(keys.Claims{Org: "acme", Caller: "crm", Key: keys.HashOf(k.crm).Fingerprint()}, keys.ForCalls, time.Now().Add(-2*time.Hour), time.Hour)
	session := k.g.issuer.Issue(keys.Claims{Caller: "ops", Key: keys.HashOf(k.op).Fingerprint()}, keys.ForPage, time.Now(), time.Hour)
	guest := k.g.issuer.Issue(keys.Claims{Org: "acme", Caller: "nobody"}, keys.ForCalls, time.Now(), time.Hour)
	basic := func(name, key string) string {
		r := &http.Request{Header: http.Header{}}
		r.SetBasicAuth(name, key)
		return "Authorization: " + r.Header.Get("Authorization")
	}
	for what, field := range map[string]string{
		"a token": bearer(token), "a key": bearer(k.crm), "Headgate-Key": "Headgate-Key: " + k.crm,
		"Basic": basic("crm", k.crm), "Basic with the org": basic("acme/crm", k.crm),
	} {
		if a := k.do("GET", "/acme/api/v2/x", "", field); a.status != 200 {
			t.Errorf("%s: %d %s", what, a.status, a.body)
		}
	}
	p.got()
	var first answerTo
	for what, field := range map[string]string{
		"none": "X: y", "a stranger's key": bearer(stranger), "no key": bearer("x"), "empty": bearer(""),
		"another scheme": "Authorization: Digest x", "a forged token": bearer(forged), "an expired token": bearer(old),
		"a session": bearer(session), "a session as cookie": "Cookie: " + sessionCookie + "=" + session, "a token as cookie": "Cookie: " + sessionCookie + "=" + token,
		"a guest's token": bearer(guest), "a cut token": bearer(token[:len(token)-1]), "a changed token": bearer(token[:8] + "x" + token[9:]),
		"a token of another org": bearer(elsewhere), "a key of another org": bearer(k.globex),
		"the operator's key":         bearer(k.op),
		"a known name, a wrong key":  basic("crm", stranger),
		"an unknown name":            basic("nobody", stranger),
		"a known name, another's":    basic("crm", k.bulk),
		"an unknown name, one's key": basic("nobody", k.crm),
		"no name":                    basic("", k.crm), "nothing": basic("", ""),
	} {
		a := k.do("GET", "/acme/api/v2/x", "", field)
		a.header.Del("Date")
		a.header.Del(fieldCorrelation)
		if first.status == 0 {
			first = a
		}
		if a.status != 401 || fmt.Sprint(a) != fmt.Sprint(first) {
			t.Errorf("%s: %v, another: %v", what, a, first)
		}
	}
	if seen, _ := p.got(); len(seen) > 0 {
		t.Errorf("%d calls reached the platform", len(seen))
	}
	var login answerTo
	for _, pair := range [][2]string{{"crm", stranger}, {"nobody", stranger}, {"nobody", k.crm}, {"crm", k.bulk}, {"crm", ""}, {"", ""}, {"", k.crm}, {"ops", k.op}} {
		a := k.do("POST", "/oauth/token", "grant_type=client_credentials&client_id="+pair[0]+"&client_secret="+pair[1], "Content-Type: application/x-www-form-urlencoded")
		a.header.Del("Date")
		a.header.Del(fieldCorrelation)
		if login.status == 0 {
			login = a
		}
		if a.status != 401 || fmt.Sprint(a) != fmt.Sprint(login) {
			t.Errorf("logging in as %q: %v, another: %v", pair[0], a, login)
		}
	}
	// Without a key nobody learns which orgs there are.
	for _, path := range []string{"/acme/api/x", "/globex/api/x", "/nobody/api/x", "/api/x", "/acme/x", "/metrics", "/headgate/", "/headgate/v1/orgs", "/headgate/v1/orgs/acme", "/headgate/v1/executions/acme.1"} {
		if a := k.do("GET", path, ""); a.status != 401 {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}
	if a := k.do("GET", "/readyz", ""); a.status != 200 || strings.Contains(a.body, "acme") {
		t.Errorf("/readyz: %d %s", a.status, a.body)
	}
}

// With a key go its tokens and sessions, and a token of the time when no key was
// needed is none.
func TestReloadTakesTokensAway(t *testing.T) {
	k := newKeyed(t, &platform{})
	token, stays := k.token("crm", k.crm), k.token("bulk", k.bulk)
	session := k.login()
	if a := k.do("GET", "/headgate/v1/orgs", "", session); a.status != 200 {
		t.Fatalf("the session: %d %s", a.status, a.body)
	}
	f := *k.file
	f.Orgs = append([]config.Org(nil), f.Orgs...)
	f.Orgs[0].Callers = append([]config.Caller(nil), f.Orgs[0].Callers...)
	_, f.Orgs[0].Callers[0].Key = keys.New()
	_, hash := keys.New()
	f.Operators = []config.Operator{{Name: "ops", Key: hash}}
	must(t, k.g.Reload(&f))
	for what, c := range map[string]struct {
		path, field string
		status      int
	}{
		"a token of the key before": {"/acme/api/x", bearer(token), 401},
		"the key before":            {"/acme/api/x", bearer(k.crm), 401},
		"another caller's token":    {"/acme/api/x", bearer(stays), 200},
		"the session":               {"/headgate/v1/orgs", session, 401},
	} {
		if a := k.do("GET", c.path, "", c.field); a.status != c.status {
			t.Errorf("%s: %d %s", what, a.status, a.body)
		}
	}
	// Orgs without callers, and then with them.
	f.Orgs[0].Callers = nil
	open := f
	must(t, k.g.Reload(&open))
	guest := k.token("nobody", "x")
	if a := k.do("GET", "/acme/api/x", "", bearer(guest)); a.status != 200 {
		t.Errorf("a guest: %d %s", a.status, a.body)
	}
	must(t, k.g.Reload(k.file))
	if a := k.do("GET", "/acme/api/x", "", bearer(guest)); a.status != 401 {
		t.Errorf("a guest's token, where a key is needed: %d %s", a.status, a.body)
	}
}

// The page and its session are for operators, from pages of the gateway's own.
func TestSession(t *testing.T) {
	k := newKeyed(t, &platform{})
	form := "Content-Type: application/x-www-form-urlencoded"
	for what, key := range map[string]string{"a caller's key": k.crm, "nothing": "", "a wrong key": "hg_x"} {
		if a := k.do("POST", sessionPath, "key="+key, form); a.header.Get("Set-Cookie") != "" || a.header.Get("Location") != loginPagePath+"?wrong" {
			t.Errorf("%s: %d %v", what, a.status, a.header)
		}
	}
	session := k.login()
	for _, field := range []string{"Origin: https://evil.example.com", "Origin: null", "Sec-Fetch-Site: cross-site", "Sec-Fetch-Site: same-site"} {
		for _, path := range []string{"/headgate/v1/orgs/acme/pause", "/headgate/api/pause", sessionPath} {
			if a := k.do("POST", path, `{"org":"acme"}`, session, field, "Content-Type: application/json"); a.status != 403 {
				t.Errorf("POST %s, %s: %d %s", path, field, a.status, a.body)
			}
		}
	}
	if k.g.setting().orgs[0].limiter.Paused() {
		t.Error("it was paused")
	}
	if a := k.do("POST", "/headgate/v1/orgs/acme/pause", "", session, "Sec-Fetch-Site: same-origin"); a.status != 200 {
		t.Errorf("the page's own: %d %s", a.status, a.body)
	}
	for _, path := range []string{"/headgate/", "/metrics"} {
		if a := k.do("GET", path, "", bearer(k.crm)); a.status != 403 {
			t.Errorf("%s for a caller: %d %s", path, a.status, a.body)
		}
	}
	// The session opens the page, and no call.
	if a := k.do("GET", "/acme/api/x", "", session); a.status != 401 {
		t.Errorf("a call with the session: %d %s", a.status, a.body)
	}
}

// Callers have what is theirs, operators all.
func TestCallersSeeTheirOwn(t *testing.T) {
	k := newKeyed(t, &platform{answer: func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		io.WriteString(w, "<script>alert(1)</script>")
	}})
	o := k.g.setting().orgs[0]
	o.limiter.Pause()
	x := k.do("POST", "/acme"+executePath, body(1), bearer(k.crm), "Prefer: respond-async", "Idempotency-Key: k").execution(t)
	// The same key of another caller is another execution.
	if y := k.do("POST", "/acme"+executePath, body(1), bearer(k.bulk), "Prefer: respond-async", "Idempotency-Key: k").execution(t); y.ID == x.ID {
		t.Error("two callers share an Idempotency-Key")
	}
	for _, who := range []string{k.bulk, k.globex} {
		for _, c := range []struct{ method, path, body string }{
			{"GET", x.Self, ""}, {"GET", x.Self + "/answer", ""}, {"DELETE", x.Self, ""}, {"POST", x.Self + "/resolve", `{"action":"give-up"}`},
		} {
			a := k.do(c.method, c.path, c.body, bearer(who), "Content-Type: application/json")
			none := k.do(c.method, strings.Replace(c.path, x.ID, "acme.999", 1), c.body, bearer(who), "Content-Type: application/json")
			if a.status != 404 || a.body != none.body {
				t.Errorf("%s %s for another: %d %s", c.method, c.path, a.status, a.body)
			}
		}
		for _, query := range []string{"", "?caller=crm", "?org=acme&caller=crm"} {
			if a := k.do("GET", "/headgate/v1/executions"+query, "", bearer(who)); strings.Contains(a.body, x.ID) {
				t.Errorf("the list %s for another: %s", query, a.body)
			}
		}
		for _, action := range []string{"pause", "resume"} {
			if a := k.do("POST", "/headgate/v1/orgs/acme/"+action, "", bearer(who)); a.status != 403 && a.status != 404 {
				t.Errorf("%s: %d", action, a.status)
			}
		}
	}
	if a := k.do("GET", "/headgate/v1/orgs/acme", "", bearer(k.globex)); a.status != 404 {
		t.Errorf("another's org: %d %s", a.status, a.body)
	}
	if a := k.do("GET", "/headgate/v1/orgs", "", bearer(k.globex)); strings.Contains(a.body, "acme") {
		t.Errorf("the list of orgs: %s", a.body)
	}
	o.limiter.Resume()
	for _, who := range []string{k.crm, k.op} {
		if end := k.do("GET", x.Self, "", bearer(who), "Prefer: wait=10").execution(t); end.State != "done" {
			t.Errorf("%+v", end)
		}
	}
	// What the platform has answered does nothing in an operator's browser.
	if a := k.do("GET", x.Self+"/answer", "", bearer(k.op)); !strings.Contains(a.header.Get("Content-Security-Policy"), "sandbox") || a.header.Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("the answer: %v", a.header)
	}
}
