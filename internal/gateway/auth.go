package gateway

import (
	"encoding/json"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/headgate/headgate/internal/keys"
)

// identity is who makes a request.
type identity struct {
	operator string // the name of an operator, or ""
	org      *org   // where the caller is at home; nil for operators
	caller   *caller
}

// anyone is an operator where the file names no keys: on loopback alone.
const anyone = "anyone"

func (i identity) name() string {
	if i.operator != "" {
		return i.operator
	}
	return i.caller.name
}

// sees reports whether o is any of the one's business.
func (i identity) sees(o *org) bool { return i.operator != "" || i.org == o }

const tokenLife = 24 * time.Hour

// credentials are those of a request: a name and a key, or a key or a token
// alone.
type credentials struct {
	name, key string
	bearer    string
}

// credentialsOf finds the credentials for the gateway in a request. Where tokens
// pass through, Authorization is for the platform.
func credentialsOf(r *http.Request, passThrough bool) (c credentials) {
	if key := r.Header.Get(fieldHeadgateKey); key != "" {
		return credentials{bearer: key}
	}
	if passThrough {
		return credentials{}
	}
	if name, key, ok := r.BasicAuth(); ok {
		return credentials{name: unescaped(name), key: unescaped(key)}
	}
	if scheme, token, ok := strings.Cut(r.Header.Get("Authorization"), " "); ok && strings.EqualFold(scheme, "Bearer") {
		return credentials{bearer: strings.TrimSpace(token)}
	}
	return credentials{}
}

// unescaped undoes the form encoding that OAuth asks for in Basic credentials
// (RFC 6749 §2.3.1) and that not all clients do. Keys and names hold nothing
// that it could change.
func unescaped(s string) string {
	if u, err := url.QueryUnescape(s); err == nil {
		return u
	}
	return s
}

// identify says who makes a call, and for which org: the one that the request
// names, or else the one that its key leads to, or else the only one.
func (g *Gateway) identify(r *http.Request, s *setting, o *org) (identity, *problem) {
	c := credentialsOf(r, o != nil && o.settings().PassThrough)
	home, name, ok := g.check(c, s, time.Now())
	if o == nil {
		o = home
	}
	if o == nil && !ok {
		o = s.fallback
	}
	switch {
	case o == nil && s.keyed():
		return identity{}, unauthorized()
	case o == nil:
		return identity{}, unknownOrg.problem("neither the host nor the path names an org of the file")
	case ok && home == o:
		return identity{org: o, caller: o.callers.named(name)}, nil
	case len(o.settings().Callers) == 0:
		if p := g.checkGuest(r, s); p != nil {
			return identity{}, p
		}
		return identity{org: o, caller: o.callers.guest(g.guestName(c, o))}, nil
	}
	return identity{}, unauthorized()
}

// checkGuest refuses what a browser was made to send by a page of another site:
// who needs no key must at least be a program on this machine, or know the name
// of the gateway.
//
// A GET is refused as well, unlike one of the gateway's own: the platform lets
// any page read its answers, because it trusts in tokens, and here none is asked
// for.
func (g *Gateway) checkGuest(r *http.Request, s *setting) *problem {
	asPost := &http.Request{Method: http.MethodPost, Header: r.Header, Host: r.Host, URL: r.URL}
	if g.crossOrigin.Check(asPost) != nil {
		return forbidden.problem("the request comes from a page of another site")
	}
	if !isLocalName(r.Host) && s.byHost[hostOf(r.Host)] == nil {
		return forbidden.problem("the header field Host: without keys the gateway answers to localhost and to the hosts of its file alone")
	}
	return nil
}

// unauthorized is the same for whatever is wrong with a key.
func unauthorized() *problem {
	return noKey.problem("the request brings no key of a caller of this org: as a bearer token, as Basic credentials, in Headgate-Key, or by a token of /oauth/token").
		with("WWW-Authenticate", `Bearer realm="headgate"`)
}

// check finds the caller with these credentials: its org, and its name.
func (g *Gateway) check(c credentials, s *setting, now time.Time) (o *org, name string, ok bool) {
	switch {
	case c.name != "":
		id, ok := s.callers.ByNameAndKey(c.name, c.key)
		return s.home(id, ok)
	case keys.IsToken(c.bearer):
		claims, err := g.issuer.Verify(c.bearer, keys.ForCalls, now)
		if err != nil {
			return nil, "", false
		}
		o := s.org(claims.Org)
		print := s.fingerprint(claims.Org, claims.Caller)
		switch {
		case o == nil, print != claims.Key: // its key was changed or taken away
			return nil, "", false
		case print == "" && len(o.settings().Callers) > 0: // no key was needed then
			return nil, "", false
		}
		return o, claims.Caller, true
	case c.bearer != "":
		id, ok := s.callers.ByKey(c.bearer)
		return s.home(id, ok)
	}
	return nil, "", false
}

// guestName is the name of a caller who needs no key: that of the login, if it
// has one.
func (g *Gateway) guestName(c credentials, o *org) string {
	if keys.IsToken(c.bearer) {
		if claims, err := g.issuer.Verify(c.bearer, keys.ForCalls, time.Now()); err == nil && claims.Org == o.name {
			return claims.Caller
		}
	}
	return c.name
}

// logIn answers /oauth/token: what an SDK takes for the platform's client and
// secret are the name and the key of a caller, and the token is the gateway's.
// Where tokens pass through, the platform answers.
func (g *Gateway) logIn(w http.ResponseWriter, r *http.Request, s *setting, to route) {
	if !allow(w, r, http.MethodPost) {
		return
	}
	if o := to.org; o != nil && o.settings().PassThrough {
		g.passLogin(w, r, s, o)
		return
	}
	w.Header().Set("Cache-Control", "no-store")
	r.Body = http.MaxBytesReader(w, r.Body, 64<<10)
	if err := r.ParseForm(); err != nil {
		oauthError(w, http.StatusBadRequest, "invalid_request", "the body is no form (application/x-www-form-urlencoded)")
		return
	}
	if grant := r.PostForm.Get("grant_type"); grant != "client_credentials" {
		oauthError(w, http.StatusBadRequest, "unsupported_grant_type", "the gateway knows the grant client_credentials alone; where people log in themselves, let their tokens pass through (mode: pass-through)")
		return
	}
	c := credentialsOf(r, false)
	if c.name == "" {
		c = credentials{name: r.PostForm.Get("client_id"), key: r.PostForm.Get("client_secret")}
	}
	o, name, ok := g.check(c, s, time.Now())
	if to.org != nil && o != to.org {
		o, ok = to.org, false
	}
	if o == nil {
		o = s.fallback
	}
	if !ok {
		if o == nil || len(o.settings().Callers) > 0 || c.name == "" {
			w.Header().Set("WWW-Authenticate", `Basic realm="headgate"`)
			oauthError(w, http.StatusUnauthorized, "invalid_client", "the client is a caller of the gateway's file, and the secret its key")
			return
		}
		if p := g.checkGuest(r, s); p != nil {
			p.write(w)
			return
		}
		name = o.callers.guest(c.name).name
	}
	token := g.issuer.Issue(keys.Claims{Org: o.name, Caller: name, Key: s.fingerprint(o.name, name)}, keys.ForCalls, time.Now(), tokenLife)
	o.meter.Login(true, true)
	writeJSON(w, http.StatusOK, map[string]any{
		"access_token": token, "token_type": "bearer", "expires_in": int(tokenLife.Seconds()) - 1,
	})
}

// oauthError is an error in the form of RFC 6749 §5.2, which SDKs read, with the
// platform's own field beside it.
func oauthError(w http.ResponseWriter, status int, code, description string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(map[string]string{"error": code, "error_description": description, "description": description})
}

// operatorOf says who makes a request to the page or the API of the gateway's
// own: an operator or a caller.
func (g *Gateway) operatorOf(r *http.Request) (identity, *problem) {
	s := g.setting()
	c := credentialsOf(r, false)
	now := time.Now()
	if c == (credentials{}) {
		if cookie, err := r.Cookie(sessionCookie); err == nil {
			if claims, err := g.issuer.Verify(cookie.Value, keys.ForPage, now); err == nil && s.operatorKey(claims.Caller) == claims.Key {
				return identity{operator: claims.Caller}, nil
			}
		}
		if !s.keyed() && isLocalName(r.Host) {
			return identity{operator: anyone}, nil
		}
		return identity{}, unauthorized()
	}
	if name, ok := s.operatorBy(c); ok {
		return identity{operator: name}, nil
	}
	if o, name, ok := g.check(c, s, now); ok {
		return identity{org: o, caller: o.callers.named(name)}, nil
	}
	if !s.keyed() && isLocalName(r.Host) {
		return identity{operator: anyone}, nil
	}
	return identity{}, unauthorized()
}

// isLocalName reports whether a Host field names this machine: a page of another
// site, whose name was made to lead here, has its own. No browser leaves it out,
// as HTTP/1.0 allows.
func isLocalName(host string) bool {
	name := hostOf(host)
	ip, err := netip.ParseAddr(name)
	return host == "" || name == "localhost" || err == nil && ip.IsLoopback()
}

// passLogin sends a login to the platform, where tokens pass through: it draws
// on the limit of logins like any other.
func (g *Gateway) passLogin(w http.ResponseWriter, r *http.Request, s *setting, o *org) {
	who, p := g.identify(r, s, o)
	if p != nil {
		p.write(w)
		return
	}
	g.serveCall(w, r, &held{
		g: g, org: o, caller: who.caller, came: time.Now(), login: true, id: w.Header().Get(fieldCorrelation),
		method: r.Method, path: loginPath, plain: loginPath, urgency: who.caller.urgencyOf(0),
	})
}
