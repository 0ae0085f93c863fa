package deliver

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/headgate/headgate/internal/queue"
)

// MaxAnswer is how much of an answer is kept.
const MaxAnswer = 1 << 20

// What is read of an answer at once: more than is kept, so that a token at the
// cut is seen whole, and much more of a launched flow's, whose state must be
// found in it.
const (
	maxRead       = MaxAnswer + 64<<10
	maxReadStatus = 16 << 20
)

// answer is an answer's body.
type answer struct {
	body []byte // without the token
	kind string // its content type
	part bool   // body is not all of it
	size int64  // of all of it, as far as it was read
	more bool   // there was more than that
	err  error  // it broke off
}

// readBody reads the answer to its end and closes it. secrets are taken out of
// it: some servers repeat what they were sent. What is over most bytes is not
// in the body.
func readBody(resp *http.Response, most int64, secrets []string) (a answer) {
	defer resp.Body.Close()
	a.kind = resp.Header.Get("Content-Type")
	a.body, a.err = io.ReadAll(io.LimitReader(resp.Body, most))
	a.size = int64(len(a.body))
	if a.err == nil && a.size == most {
		var rest int64
		rest, a.err = io.Copy(io.Discard, io.LimitReader(resp.Body, 64*MaxAnswer))
		a.size += rest
		a.part, a.more = rest > 0, rest == 64*MaxAnswer
	}
	a.body = redact(a.body, secrets)
	return a
}

// keep puts into step what is to be kept of the answer.
func (a answer) keep(step *queue.Step) {
	step.Answer, step.AnswerType = a.body, a.kind
	if a.isCut() {
		step.Answer = bytes.Clone(a.body[:min(len(a.body), MaxAnswer)])
		step.Tally.AnswerBytes = a.size
	}
}

func (a answer) isCut() bool { return a.part || len(a.body) > MaxAnswer }

// cut says that not all of the answer was kept, "" if it was.
func (a answer) cut() string {
	switch {
	case !a.isCut():
		return ""
	case a.more:
		return fmt.Sprintf("the answer has more than %d bytes, of which the first %d are kept", a.size, MaxAnswer)
	}
	return fmt.Sprintf("the answer has %d bytes, of which the first %d are kept", a.size, MaxAnswer)
}

const redacted = "[redacted]"

// redact returns b without the secrets, nor the beginning of one at its end.
func redact(b []byte, secrets []string) []byte {
	for _, secret := range secrets {
		for _, form := range forms(secret) {
			if bytes.Contains(b, []byte(form)) {
				b = bytes.ReplaceAll(b, []byte(form), []byte(redacted))
			}
			// What is shorter gives nothing away.
			for n := min(len(form)-1, len(b)); n >= 4; n-- {
				if bytes.HasSuffix(b, []byte(form[:n])) {
					b = append(bytes.Clone(b[:len(b)-n]), redacted...)
					break
				}
			}
		}
	}
	return b
}

// forms returns how secret may stand in an answer: as it is, or in JSON.
func forms(secret string) []string {
	all := []string{secret}
	if quoted, err := json.Marshal(secret); err == nil {
		all = append(all, string(quoted[1:len(quoted)-1]))
	}
	return append(all, strings.ReplaceAll(secret, "/", `\/`))
}

// secrets returns what must not be kept of an answer to req, which may be nil:
// the token that it was sent with, and the one that is sent now.
func (s *Sender) secrets(req *http.Request) (all []string) {
	if req != nil {
		header := req.Header.Get("Authorization")
		if _, token, ok := strings.Cut(header, " "); ok && token != "" {
			all = append(all, token)
		} else if header != "" {
			all = append(all, header)
		}
	}
	if s.Transport != nil && s.Transport.Auth != nil {
		if token, ok := s.Transport.Auth.Current(); ok && token != "" {
			all = append(all, token)
		}
	}
	return all
}

// Text returns err's message without the token: what a server sends in place of
// HTTP may stand in it.
func (s *Sender) Text(err error) string {
	return string(redact([]byte(err.Error()), s.secrets(nil)))
}
