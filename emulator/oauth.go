package emulator

import (
	"crypto/subtle"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// token is one access token. It is guarded by the server's mutex, but for the
// name, client and form of its key, which never change.
type token struct {
	name    string // what the ledger calls it: never the token itself
	client  string
	open    bool // let in by AnyToken
	expires time.Duration
	revoked bool
}

// keyFor is the key under which a limit counts the token's request.
func (t *token) keyFor(per Per, template string) string {
	switch per {
	case PerToken:
		return t.name
	case PerClient:
		return t.client
	case PerPath:
		return template
	}
	return "org"
}

// IssueToken returns a new token of the first client, as a log-in would, but
// without one: nothing of it is in the ledger.
func (s *Server) IssueToken() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.issueLocked(s.cfg.Clients[0].ID)
}

// RevokeTokens makes every token issued so far invalid: requests with one are
// answered with 401 from now on.
func (s *Server) RevokeTokens() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.tokens {
		t.revoked = true
	}
}

func (s *Server) issueLocked(client string) string {
	value := "emulator-token-" + s.newIDLocked()
	s.addTokenLocked(value, client).expires = s.now() + s.cfg.TokenLifetime
	return value
}

func (s *Server) addTokenLocked(value, client string) *token {
	s.issued++
	t := &token{name: "token-" + strconv.Itoa(s.issued), client: client}
	s.tokens[value] = t
	return t
}

// tokenLocked finds the token of an Authorization header, valid or not.
func (s *Server) tokenLocked(authorization string) *token {
	scheme, value, _ := strings.Cut(authorization, " ")
	if strings.EqualFold(scheme, "Bearer") {
		if t := s.tokens[strings.TrimSpace(value)]; t != nil {
			return t
		}
	}
	if !s.cfg.AnyToken {
		return nil
	}
	t := s.tokens[authorization]
	if t == nil {
		t = s.addTokenLocked(authorization, "anyone")
		t.open = true
	}
	return t
}

// unauthorizedLocked is the 401 of a request without a valid token.
func (s *Server) unauthorizedLocked(v *visit, now time.Duration, q *request) (answer, bool) {
	t := v.token
	switch {
	case t == nil && !q.authorized:
		return platformError(401, "authentication.required", "No authentication bearer token specified in authorization header.", v.id), true
	case t == nil, t.revoked:
		return platformError(401, "bad.credentials", "Invalid login credentials.", v.id), true
	case !t.open && now >= t.expires:
		return platformError(401, "credentials.expired", "The supplied credentials have expired.", v.id), true
	}
	return answer{}, false
}

// loginError is OAuth's form of an error, with the platform's second name for
// the description.
func loginError(status int, code, description string) answer {
	return jsonAnswer(status, struct {
		Error            string `json:"error"`
		Description      string `json:"description"`
		ErrorDescription string `json:"error_description"`
	}{code, description, description})
}

// serveLogin is POST /oauth/token.
func (s *Server) serveLogin(w http.ResponseWriter, r *http.Request) {
	id, secret, basic := r.BasicAuth()
	if !s.knows(id, secret) {
		// The platform takes both as they are; RFC 6749, 2.3.1, and clients that
		// follow it, encode them first.
		i, err1 := url.QueryUnescape(id)
		p, err2 := url.QueryUnescape(secret)
		if err1 == nil && err2 == nil && s.knows(i, p) {
			id, secret = i, p
		}
	}
	v := s.arriveLogin(r, id)
	var grant string
	if r.Method == http.MethodPost {
		r.Body = http.MaxBytesReader(w, r.Body, 64<<10)
		if r.ParseForm() == nil {
			grant = r.PostForm.Get("grant_type")
		}
	}
	a, issue := s.decideLogin(v, r.Method, id, secret, basic, grant)
	if issue {
		if !sleep(r.Context(), a.delay) {
			s.leave(v)
			panic(http.ErrAbortHandler)
		}
		a = s.issue(v, id, a.cut)
	}
	s.reply(w, r, v, a)
}

// knows says whether these are the credentials of a client.
func (s *Server) knows(id, secret string) bool {
	want, ok := s.secrets[id]
	return ok && subtle.ConstantTimeCompare([]byte(want), []byte(secret)) == 1
}

func (s *Server) arriveLogin(r *http.Request, id string) *visit {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	v := &visit{generation: s.ledger.generation, at: now, id: s.newIDLocked(), login: true}
	if _, known := s.secrets[id]; !known {
		id = ""
	}
	v.row = s.ledger.add(Row{At: now, Client: id, Method: r.Method, Path: r.URL.Path})
	return v
}

// decideLogin says what a log-in gets; with issue, a token after a.delay.
func (s *Server) decideLogin(v *visit, method, id, secret string, basic bool, grant string) (a answer, issue bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	row := s.ledger.row(v)
	defer func() {
		row.Status, row.RetryAfter, row.RefusedBy = a.status, a.header, a.refused
		switch {
		case v.generation != s.ledger.generation, issue:
		case a.refused != "":
			s.ledger.loginsRefused++
		default:
			s.ledger.loginsFailed++
		}
	}()
	fault, slow := s.pickFaultLocked(now, method, "/oauth/token", true)
	if fault != nil {
		row.Fault = fault.Kind
	} else if slow > 0 {
		row.Fault = Slow
	}
	if a, ok := s.frontLocked(fault, now, v.id); ok {
		a.delay = slow
		return a, false
	}
	_, known := s.secrets[id]
	if s.login != nil {
		key := "org"
		if s.login.Per == PerClient && known {
			key = id
		}
		m := s.meters[meterKey{loginRule, key}]
		if m == nil {
			m = newMeter(s.login, key, now)
			s.meters[meterKey{loginRule, key}] = m
		}
		if ok, _ := m.ready(now); !ok {
			a := loginError(400, "invalid_request", "rate limit exceeded; try again later")
			a.refused = "login"
			return a, false
		}
		m.take(now)
		m.accepted++
	}
	switch {
	case method != http.MethodPost:
		a = loginError(405, "invalid_request", "method not allowed")
		a.allow = http.MethodPost
		return a, false
	case !basic || !s.knows(id, secret):
		return loginError(401, "invalid_client", "client not found or its secret is wrong"), false
	case grant == "":
		return loginError(400, "invalid_request", "grant_type is missing"), false
	case grant != "client_credentials":
		return loginError(400, "unsupported_grant_type", "only client_credentials is supported"), false
	}
	if a, ok := s.backLocked(fault, v.id); ok && !a.cut {
		a.delay = s.cfg.LoginLatency + slow
		return a, false
	} else if ok {
		return answer{cut: true, delay: s.cfg.LoginLatency + slow}, true
	}
	return answer{delay: s.cfg.LoginLatency + slow}, true
}

// issue ends a log-in with a token, whose life begins now.
func (s *Server) issue(v *visit, client string, cut bool) answer {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := jsonAnswer(http.StatusOK, struct {
		AccessToken string `json:"access_token"`
		TokenType   string `json:"token_type"`
		ExpiresIn   int64  `json:"expires_in"`
	}{s.issueLocked(client), "bearer", int64(s.cfg.TokenLifetime / time.Second)})
	row := s.ledger.row(v)
	if a.cut = cut; !cut {
		row.Status = a.status
	}
	row.Token = "token-" + strconv.Itoa(s.issued)
	if v.generation == s.ledger.generation {
		s.ledger.logins++
	}
	return a
}
