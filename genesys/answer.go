package genesys

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/headgate/headgate"
)

// errorBody is what the platform answers when it does not do what it was asked:
// the API in one form, the login in another.
type errorBody struct {
	Message   string `json:"message"`
	Code      string `json:"code"`
	ContextID string `json:"contextId"`
	Limit     struct {
		Key   string  `json:"key"`
		Value float64 `json:"value"`
	} `json:"limit"`

	Error            string `json:"error"`
	Description      string `json:"description"`
	ErrorDescription string `json:"error_description"`
}

func parseError(body []byte) (e errorBody) {
	if unmarshal(body, &e) != nil {
		return errorBody{}
	}
	return e
}

// description returns what the login says.
func (e *errorBody) description() string { return cmp.Or(e.ErrorDescription, e.Description) }

// ReadAnswer reads what the platform says about limits; it is the Read of a
// [headgate.Transport]. Beyond [headgate.ReadAnswer] it knows the name of the
// limit in a 429's body, and that the login refuses with a 400 that says "rate
// limit exceeded". The body stays readable from its beginning.
func ReadAnswer(resp *http.Response) headgate.Observation {
	o := headgate.ReadAnswer(resp)
	switch {
	case o.Status == http.StatusTooManyRequests:
		e := parseError(headgate.Peek(resp))
		if isKey(e.Limit.Key) {
			o.Limit, o.Alias = e.Limit.Key, alias(e.Limit.Key)
			if strings.HasSuffix(e.Limit.Key, ".per.minute") && e.Limit.Value > 0 {
				o.Value = e.Limit.Value / 60
			}
		}
		if o.Limit == "" && isLogin(resp) {
			o.Limit = LimitLogin
		}
	case o.Status == http.StatusBadRequest && (resp.Request == nil || isLogin(resp)):
		o = readLoginAnswer(resp, o)
	}
	return o
}

// alias returns the other name of a limit for which one bucket stands: see
// [Limits].
func alias(key string) string {
	switch key {
	case LimitToken:
		return LimitAnyToken
	case LimitAnyToken:
		return LimitToken
	}
	return ""
}

// readLoginAnswer reads a 400 of the login.
func readLoginAnswer(resp *http.Response, o headgate.Observation) headgate.Observation {
	e := parseError(headgate.Peek(resp))
	if e.Error == "" || !strings.Contains(strings.ToLower(e.description()), "rate limit exceeded") {
		return o
	}
	// A 429 with the same header and body says how long; read it as one.
	as := *resp
	as.StatusCode = http.StatusTooManyRequests
	o = headgate.ReadAnswer(&as)
	o.Status, o.Limit = resp.StatusCode, LimitLogin
	return o
}

// isLogin reports whether resp answers a login.
func isLogin(resp *http.Response) bool {
	return resp.Request != nil && resp.Request.URL != nil && strings.HasSuffix(resp.Request.URL.Path, loginMatch)
}

// isKey reports whether s can be the key of a limit: what is shown to people
// is not to hold anything that a server may have put there.
func isKey(s string) bool {
	return s != "" && len(s) <= 100 && strings.IndexFunc(s, func(c rune) bool {
		return c > unicode.MaxASCII || !unicode.IsLetter(c) && !unicode.IsDigit(c) && c != '.' && c != '-' && c != '_'
	}) < 0
}

// APIError is an answer of the API that is not a success.
type APIError struct {
	// Status is the HTTP status.
	Status int
	// Code is the platform's word for what is wrong, such as
	// "bad.request"; "" if it did not say.
	Code string
	// Message is the platform's sentence; "" if it did not say one.
	Message string
	// CorrelationID is what the platform's support asks for: the header
	// ININ-Correlation-Id.
	CorrelationID string
	// ContextID is the contextId of the body, as a rule the same.
	ContextID string
	// Hint says what to do about it, if we know; see [EndpointHint].
	Hint string
}

// Error says what the platform said, and which correlation id to quote.
func (e *APIError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "the API answered %d %s", e.Status, http.StatusText(e.Status))
	if e.Message != "" {
		fmt.Fprintf(&b, ": %s", e.Message)
	}
	if e.Code != "" {
		fmt.Fprintf(&b, " [%s]", e.Code)
	}
	if id := cmp.Or(e.CorrelationID, e.ContextID); id != "" {
		fmt.Fprintf(&b, " (correlation id %s)", id)
	}
	if e.Hint != "" {
		fmt.Fprintf(&b, ": %s", e.Hint)
	}
	return b.String()
}

// ErrorOf reads an answer that is not a success; body is its body, or the
// beginning of it. It never returns nil. A token of the request that the answer
// repeats is taken out.
func ErrorOf(resp *http.Response, body []byte) *APIError {
	e := parseError(body)
	var secrets []string
	if resp.Request != nil {
		if _, token, ok := strings.Cut(resp.Request.Header.Get("Authorization"), " "); ok {
			secrets = append(secrets, token)
		}
	}
	return &APIError{
		Status:        resp.StatusCode,
		Code:          clean(cmp.Or(e.Code, e.Error), secrets...),
		Message:       clean(cmp.Or(e.Message, e.description()), secrets...),
		CorrelationID: clean(resp.Header.Get("ININ-Correlation-Id"), secrets...),
		ContextID:     clean(e.ContextID, secrets...),
	}
}

// maxText is how much of a server's sentence is shown, in bytes.
const maxText = 400

// clean makes what a server wrote fit to be shown: one line, not too long, and
// without secrets.
func clean(s string, secrets ...string) string {
	for _, secret := range secrets {
		if secret != "" {
			s = strings.ReplaceAll(s, secret, redacted)
		}
	}
	s = strings.Join(strings.Fields(strings.Map(func(c rune) rune {
		if !unicode.IsPrint(c) {
			return ' '
		}
		return c
	}, s)), " ")
	if len(s) > maxText {
		s = s[:maxText]
		for !utf8.ValidString(s) {
			s = s[:len(s)-1]
		}
		s += "…"
	}
	return s
}

// maxAnswer bounds an answer's body.
const maxAnswer = 16 << 20

var errAnswerTooLarge = errors.New("the answer has more than 16 MiB")

// readAll reads and closes the body.
func readAll(resp *http.Response) ([]byte, error) {
	defer resp.Body.Close()
	var b bytes.Buffer
	n, err := b.ReadFrom(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return b.Bytes(), fmt.Errorf("reading the answer (status %d): %w", resp.StatusCode, err)
	}
	if n > maxAnswer {
		return nil, errAnswerTooLarge
	}
	return b.Bytes(), nil
}
