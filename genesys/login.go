package genesys

import (
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/headgate/headgate"
)

const (
	loginPath = "/oauth/token"
	// loginPatience is how long one attempt to log in may take, the answer
	// read included: a connection that hangs must not hold up everybody for
	// ever.
	loginPatience = 30 * time.Second
	maxLogin      = 1 << 20

	// The platform's shortest and longest lives of a token: what counts if
	// an answer does not say, or says more.
	shortestLife = 300 * time.Second
	longestLife  = 172_800 * time.Second
)

// LoginError says that there is no token, because logging in failed. It never
// holds the secret.
type LoginError struct {
	// ClientID and LoginURL say who tried to log in where.
	ClientID, LoginURL string
	// Rejected: the login host said no to these credentials. Trying again
	// does not help before somebody has changed something there or here.
	Rejected bool
	// Status is the HTTP status, 0 if no answer came.
	Status int
	// Code and Message are what the login host said, such as
	// "invalid_client"; "" if it did not say.
	Code, Message string
	// CorrelationID is what the platform's support asks for.
	CorrelationID string
	// NextTry is when the next call may log in; until then, all get this
	// error at once.
	NextTry time.Time
	// Err is what went wrong if there is no status: a network error, or a
	// *[headgate.LimitError].
	Err error
}

// Error says what happened and what to check.
func (e *LoginError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "logging in as client %s at %s: ", e.ClientID, e.LoginURL)
	switch {
	case e.Status == 0:
		b.WriteString(e.Err.Error())
		return b.String()
	case e.Rejected:
		b.WriteString("the credentials were rejected: ")
	}
	fmt.Fprintf(&b, "status %d", e.Status)
	if e.Code != "" {
		fmt.Fprintf(&b, ", %s", e.Code)
	}
	if e.Message != "" {
		fmt.Fprintf(&b, ": %s", e.Message)
	}
	if e.Err != nil {
		fmt.Fprintf(&b, ": %v", e.Err)
	}
	if e.CorrelationID != "" {
		fmt.Fprintf(&b, " (correlation id %s)", e.CorrelationID)
	}
	switch {
	case e.Rejected:
		b.WriteString("; check the client id and its secret, that the org is in the region of this login URL, " +
			"that the client's grant type is Client Credentials, and that the client has a role")
	case e.Status < 400 || e.Status == http.StatusNotFound || e.Status == http.StatusMethodNotAllowed:
		b.WriteString("; check the login URL")
	}
	return b.String()
}

// Unwrap returns Err.
func (e *LoginError) Unwrap() error { return e.Err }

// token is what a login gives.
type token struct {
	value string
	// until is when it is not used any more, renew when to log in again;
	// both in the time of the source.
	until, renew time.Duration
	use          useState
}

// login is one login: as many attempts as it takes, in turn.
type login struct {
	source *TokenSource
	done   chan struct{} // closed once token or err is set
	token  *token
	err    error

	// Of the latest attempt, in the time of the source.
	sent, received time.Duration
}

// do logs in.
func (l *login) do(limiter *headgate.Limiter) (*token, error) {
	c := &l.source.config
	form := url.Values{"grant_type": {"client_credentials"}}.Encode()
	req, err := http.NewRequestWithContext(l.source.ctx, http.MethodPost, l.source.url, strings.NewReader(form))
	if err != nil {
		return nil, l.failed(nil, nil, err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Accept", "application/json")
	transport := &headgate.Transport{
		Base:     l,
		Limiter:  limiter,
		Retry:    c.Retry,
		Delivery: headgate.AtLeastOnce, // one token too many does no harm
		Org:      c.Org,
		Client:   c.ClientID,
		Read:     ReadAnswer,
		Observer: c.Observer,
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return nil, l.failed(nil, nil, err)
	}
	body, err := readAll(resp)
	if err != nil || resp.StatusCode != http.StatusOK {
		return nil, l.failed(resp, body, err)
	}
	value, life, err := parseToken(body)
	if err != nil {
		return nil, l.failed(resp, nil, err)
	}
	t := &token{value: value}
	t.until, t.renew = schedule(l.sent, l.received, life, l.source.random())
	if t.until <= l.received {
		return nil, l.failed(resp, nil, fmt.Errorf("the token lives for %v and took %v to come", life, l.received-l.sent))
	}
	return t, nil
}

// RoundTrip makes one attempt. The secret is put into the request here, below
// everything that paces, counts and observes.
func (l *login) RoundTrip(req *http.Request) (*http.Response, error) {
	c := &l.source.config
	ctx, cancel := context.WithTimeout(req.Context(), loginPatience)
	defer cancel()
	out := req.Clone(ctx)
	out.SetBasicAuth(c.ClientID, c.ClientSecret.Reveal())
	l.sent = l.source.now()
	resp, err := c.Base.RoundTrip(out)
	var body []byte
	if err == nil {
		body, err = io.ReadAll(io.LimitReader(resp.Body, maxLogin))
		resp.Body.Close()
	}
	l.received = l.source.now()
	if err != nil {
		if ctx.Err() != nil && req.Context().Err() == nil {
			err = fmt.Errorf("no answer within %v", loginPatience)
		}
		return nil, err
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	resp.Request = req // the one without the secret
	return resp, nil
}

// failed makes the error of a login that got resp, with body, or err.
func (l *login) failed(resp *http.Response, body []byte, err error) *LoginError {
	c := &l.source.config
	if unknown, ok := errors.AsType[*headgate.UnknownError](err); ok {
		err = unknown.Err // whether it was executed does not matter here
	}
	e := &LoginError{ClientID: c.ClientID, LoginURL: l.source.url, Err: err}
	if resp == nil {
		return e
	}
	secret := c.ClientSecret.Reveal()
	secrets := []string{base64.StdEncoding.EncodeToString([]byte(c.ClientID + ":" + secret)), secret, url.QueryEscape(secret)}
	said := parseError(body)
	e.Status = resp.StatusCode
	e.Code = clean(cmp.Or(said.Error, said.Code), secrets...)
	e.Message = clean(cmp.Or(said.description(), said.Message), secrets...)
	e.CorrelationID = clean(resp.Header.Get("ININ-Correlation-Id"), secrets...)
	switch e.Status {
	case http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden:
		e.Rejected = !ReadAnswer(resp).Refused
	}
	return e
}

// parseToken reads the answer of a login that succeeded.
func parseToken(body []byte) (value string, life time.Duration, err error) {
	var answer struct {
		AccessToken string  `json:"access_token"`
		TokenType   string  `json:"token_type"`
		ExpiresIn   seconds `json:"expires_in"`
	}
	if unmarshal(body, &answer) != nil {
		return "", 0, errors.New("the answer is not JSON")
	}
	switch {
	case answer.AccessToken == "":
		return "", 0, errors.New("the answer has no access_token")
	case strings.IndexFunc(answer.AccessToken, func(c rune) bool { return c <= ' ' || c > '~' }) >= 0:
		return "", 0, errors.New("the access_token has characters that no header can hold")
	case answer.TokenType != "" && !strings.EqualFold(answer.TokenType, "bearer"):
		return "", 0, errors.New("the answer's token_type is not bearer")
	}
	life = shortestLife
	if answer.ExpiresIn.given {
		life = answer.ExpiresIn.Duration
	}
	if life <= 0 {
		return "", 0, errors.New("the answer's token has expired already")
	}
	return answer.AccessToken, life, nil
}

// seconds is a number of seconds in JSON, which some servers write as a string.
type seconds struct {
	time.Duration
	given bool
}

func (s *seconds) UnmarshalJSON(text []byte) error {
	n, err := strconv.ParseFloat(strings.Trim(string(text), `"`), 64)
	if err != nil || n != n {
		return nil // as if it were not there
	}
	s.given = true
	s.Duration = time.Duration(min(max(n, 0), longestLife.Seconds()) * float64(time.Second))
	return nil
}

// schedule returns until when a token is used and when to log in again, if the
// login was sent and its answer received then; lot is from 0 to 1.
//
// The life counts from when the login was sent, because that is the earliest
// that the server can have begun it. The last hundredth of it, at most 10 s, is
// left unused. The next login begins at 80 to 88 % of the life, but so early
// that it ends in time if it takes a fifth longer than this one did; and not
// before half of the life, however slow the logins are.
func schedule(sent, received, life time.Duration, lot float64) (until, renew time.Duration) {
	until = sent + life - min(life/100, 10*time.Second)
	renew = sent + time.Duration((0.80+0.08*lot)*float64(life))
	took := received - sent
	renew = min(renew, until-took-took/5)
	return until, max(renew, sent+life/2, received)
}
