package headgate

import (
	"context"
	"net/http"
	"time"
)

// Admission is the permit for the first attempt of a request, taken before the
// request is made: see [Transport.Admit].
type Admission struct {
	// Tries has what the request has waited for; also after an error.
	Tries Tries

	permit Permit
	token  string
	start  time.Time
	held   bool // the permit is there
}

type admissionKey struct{}

// Admit waits for what the first attempt of req needs, a token and a permit, and
// sends nothing. Of req it reads the URL, the Authorization header and the
// context. It is for servers in which thousands of callers wait: here they do so
// on a small stack, and with little in their hands. Errors are those of
// [Transport.Send] for a request that did not leave, and nothing is held then.
//
// The Send of a request with [Admission.Context] begins with the permit, and its
// waits count from here. Call [Admission.Release] in any case, after Send.
func (t *Transport) Admit(req *http.Request) (*Admission, error) {
	a := &Admission{start: time.Now()}
	var err error
	a.permit, a.token, err = t.permit(req, &a.Tries, a.start)
	a.held = err == nil
	return a, err
}

// Context returns a context for a request that is to be sent with a.
func (a *Admission) Context(ctx context.Context) context.Context {
	return context.WithValue(ctx, admissionKey{}, a)
}

// Release gives the permit back if no attempt has used it. It is not safe for use
// at the same time as Send.
func (a *Admission) Release() {
	if a.held {
		a.held = false
		a.permit.Return()
	}
}

func admissionOf(ctx context.Context) *Admission {
	a, _ := ctx.Value(admissionKey{}).(*Admission)
	return a
}

// first returns the permit of the request's Admission, if it has one that was not
// used, or waits for one.
func (t *Transport) first(req *http.Request, tries *Tries, start time.Time) (permit Permit, token string, err error) {
	a := admissionOf(req.Context())
	if a == nil || !a.held {
		return t.permit(req, tries, start)
	}
	a.held = false
	if t.Auth != nil {
		if token, ok := t.Auth.Current(); !ok || token != a.token {
			a.permit.Return() // it was renewed, or refused, meanwhile
			return t.permit(req, tries, start)
		}
	}
	return a.permit, a.token, nil
}
