package gateway

import (
	"bufio"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/headgate/headgate"
	"github.com/headgate/headgate/internal/config"
	"github.com/headgate/headgate/internal/queue"
)

// Whatever the target of a request says: what goes to the platform has the org's
// own scheme and host and a path below that of its API, held or kept.
func FuzzTarget(f *testing.F) {
	for _, target := range []string{
		"/api/v2/users/me", "/acme/api/v2/x?a=b#c", "//evil/api/", "http://api@evil/api/", "/acme/..%2fapi", "/api/../../",
		`/api/..\x`, "/api/%2e%2e/x", "/api/..;/x", "/api/%00", "/api/a b", "/api/%c0%ae%c0%ae/", "/api/x?@evil//", "@evil/api/", "*", "/%61cme/api/é",
		"/acme/api/%C3%A9?%zz", "/oauth/token", "/acme/login/oauth/token", "/api/[::1]:80", "/api/(x)!*'", "/api/x??", "evil:80",
	} {
		f.Add("GET", target, "localhost", false)
		f.Add("POST", target, "acme.test@evil", true)
		f.Add("GET /", target, "acme.test", true)
	}
	base, err := url.Parse("https://api.test/base")
	if err != nil {
		f.Fatal(err)
	}
	acme := &org{name: "acme"}
	acme.conn.Store(&link{base: base, login: base})
	s := &setting{byPath: map[string]*org{"/acme": acme}, byHost: map[string]*org{"acme.test": acme}}
	f.Fuzz(func(t *testing.T, method, target, host string, two bool) {
		r, err := readRequest(method, target, host, two)
		if err != nil || checkTarget(r) != nil {
			return
		}
		to := s.route(r)
		if to.target != toAPI {
			return
		}
		u := below(base, to.path, plainPath(r, to.path), r.URL.RawQuery)
		stored := to.path
		if r.URL.RawQuery != "" {
			stored += "?" + r.URL.RawQuery
		}
		kept, err := http.NewRequest(method, base.String()+stored, nil)
		if err != nil {
			t.Fatalf("%q is stored as %q and can't be sent: %v", target, stored, err)
		}
		for how, u := range map[string]*url.URL{"held": u, "kept": kept.URL} {
			again, err := url.Parse(u.String())
			if err != nil {
				t.Fatalf("%s: %q: %v", how, u, err)
			}
			if again.Scheme != "https" || again.Host != "api.test" || again.User != nil || again.Fragment != "" || u.Opaque != "" {
				t.Fatalf("%s: %q goes to %q", how, target, u)
			}
			line := u.RequestURI()
			path, query, _ := strings.Cut(line, "?")
			if !strings.HasPrefix(path, "/base/api/") || badPath(path) != "" || badTarget(line) != "" || query != r.URL.RawQuery {
				t.Fatalf("%s: %q goes to %q", how, target, line)
			}
		}
		if held := u.RequestURI(); held != kept.URL.RequestURI() {
			t.Fatalf("%q goes to %q held and to %q kept", target, held, kept.URL.RequestURI())
		}
	})
}

// readRequest makes the request that the server makes of a target, in HTTP/1 or
// HTTP/2.
func readRequest(method, target, host string, two bool) (*http.Request, error) {
	if !two {
		return http.ReadRequest(bufio.NewReader(strings.NewReader(method + " " + target + " HTTP/1.1\r\nHost: " + host + "\r\n\r\n")))
	}
	u, err := url.ParseRequestURI(target)
	if err != nil {
		return nil, err
	}
	return &http.Request{Method: method, URL: u, RequestURI: target, Host: host, Header: http.Header{}}, nil
}

// Of the fields by which a caller says how it is to be served, whatever is in
// them: an error that names the field, or a wish within its bounds.
func FuzzWish(f *testing.F) {
	f.Add("respond-async, wait=10", "u=1, i", `"key"`, "at-most-once", "600", "https://hooks.test/")
	f.Add(`wait="0x1p4";x=y,WAIT=5`, "u=9,u=3", "k", "twice", "Wed, 25 Nov 2026 09:00:00 GMT", "")
	f.Add("wait=NaN", "u=", "", "", "-Inf", "")
	f.Add("wait=1e400", "u=0;x", "\x00", "At-Least-Once", "2026-11-25T09:00:00Z", "https://u@h/")
	now := time.Date(2026, 11, 25, 8, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, prefer, priority, key, delivery, deadline, callback string) {
		h := http.Header{
			fieldPrefer: {prefer}, fieldPriority: {priority}, fieldKey: {key}, fieldDelivery: {delivery},
			fieldDeadline: {deadline}, fieldCallback: {callback},
		}
		w, err := parseWish(h, now)
		if err != nil {
			if e, ok := err.(*fieldError); !ok || len(h[e.field]) == 0 || e.takes == "" {
				t.Fatalf("%v", err)
			}
			return
		}
		switch {
		case w.urgency < -1 || w.urgency > 7,
			w.wait < 0 || w.wait > maxWaitWish || w.wait > 0 && !w.hasWait,
			w.key == "" || len(w.key) > maxKey,
			w.delivery != nil && *w.delivery != headgate.AtLeastOnce && *w.delivery != headgate.AtMostOnce,
			!w.deadline.IsZero() && w.deadline.Sub(now) > maxDeadline:
			t.Fatalf("%+v of %q", w, h)
		}
		// A key in quotes is the key without them.
		if quoted, ok := parseKey([]string{`"` + w.key + `"`}); !ok || quoted != w.key {
			t.Fatalf("%q in quotes: %q", w.key, quoted)
		}
	})
}

// An id is written in one way only.
func FuzzID(f *testing.F) {
	for _, id := range []string{"acme.1", "acme.01", ".1", "acme.", "a.b.3", "acme.9223372036854775807", "acme.9223372036854775808", "acme.-1", "acme.+1", "acme.1 "} {
		f.Add(id)
	}
	f.Fuzz(func(t *testing.T, id string) {
		name, n, ok := parseID(id)
		if ok && (n < 1 || (&org{name: name}).idOf(n) != id) {
			t.Fatalf("%q is %q and %d", id, name, n)
		}
	})
}

// A caller's list is of its own executions, whatever its parameters.
func FuzzList(f *testing.F) {
	for _, query := range []string{"", "org=acme&caller=b", "caller=b&caller=", "state=queued,done&state=unknown", "limit=500&order=oldest&after=acme.7", "limit=%zz", "a;b", "org=globex"} {
		f.Add(query)
	}
	acme, globex := &org{name: "acme"}, &org{name: "globex"}
	g := &Gateway{}
	g.current.Store(&setting{file: &config.File{}, orgs: []*org{acme, globex}, byName: map[string]*org{"acme": acme, "globex": globex}})
	who := identity{org: acme, caller: &caller{name: "a"}}
	f.Fuzz(func(t *testing.T, query string) {
		r := &http.Request{URL: &url.URL{RawQuery: query}}
		q, p := g.parseList(r, who)
		if p != nil {
			if p.Status != 400 && p.Status != 404 || p.Detail == "" {
				t.Fatalf("%+v", p)
			}
			return
		}
		if q.org != acme || q.filter.Caller != "a" || q.filter.Limit < 1 || q.filter.Limit > listMost || q.filter.After < 0 {
			t.Fatalf("%q: %s %+v", query, q.org.name, q.filter)
		}
	})
}

// Callbacks go to the hosts on the list, whatever the address looks like.
func FuzzCallback(f *testing.F) {
	for _, address := range []string{
		"https://hooks.test/x?y", "https://hooks.test:8443/", "http://127.0.0.1:9/", "https://hooks.test@evil/", "https://evil/#hooks.test", `https://hooks.test\@evil/`,
		"https:hooks.test", "//hooks.test/", "https://HOOKS.test/", "https://hooks.test%2eevil/", "http://127.evil.test:9/", "https://hooks.test\r\nX: y", "ftp://hooks.test/",
	} {
		f.Add(address)
	}
	hosts := map[string]bool{"hooks.test": true, "hooks.test:8443": true, "127.0.0.1:9": true, "127.evil.test:9": true}
	g := &Gateway{}
	file := &config.File{}
	for host := range hosts {
		file.Callbacks.Hosts = append(file.Callbacks.Hosts, host)
	}
	g.current.Store(&setting{file: file})
	c := newCallbacks(g)
	f.Fuzz(func(t *testing.T, address string) {
		if p := c.check(address); p != nil {
			if !strings.Contains(p.Detail, fieldCallback) {
				t.Fatalf("%+v", p)
			}
			return
		}
		req, err := http.NewRequest("POST", address, nil)
		if err != nil {
			t.Fatalf("%q passes and can't be sent: %v", address, err)
		}
		plain := req.URL.Scheme == "http" && req.URL.Host == "127.0.0.1:9"
		if !hosts[strings.ToLower(req.URL.Host)] || req.URL.User != nil || req.URL.Scheme != "https" && !plain {
			t.Fatalf("%q passes", address)
		}
	})
}

// What is stored beside an execution may be anything: it makes no request fail
// that has nothing wrong with it.
func FuzzExtra(f *testing.F) {
	f.Add([]byte(`{"header":{"Content-Type":["application/json"],"Accept":[]},"callback":"https://hooks.test/"}`))
	f.Add([]byte(`{"header":{"content-type":["a"],"Authorization":["x"],"X\r\nY":["z"]}}`))
	f.Add([]byte(`{"header":null}`))
	f.Add([]byte("null"))
	f.Add([]byte("{"))
	f.Fuzz(func(t *testing.T, text []byte) {
		o := &org{name: "acme"}
		req, err := http.NewRequest("POST", "https://api.test/api/x", nil)
		if err != nil {
			t.Fatal(err)
		}
		o.shape(queue.Execution{Caller: "a", Extra: text}, req, new(headgate.Call))
		for name, values := range req.Header {
			var e extra
			json.Unmarshal(text, &e)
			if name != "User-Agent" && !isKept(name) {
				t.Fatalf("%q sets %s: %q", text, name, values)
			}
		}
	})
}
