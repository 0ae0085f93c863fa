package gateway

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync"
	"time"
)

// bodyTime is how long the part of a body that is buffered may take to come, or
// all of one that nobody wants.
const bodyTime = 30 * time.Second

// copyBuffers are those with which answers are passed on.
var copyBuffers bufferPool

type bufferPool struct{ pool sync.Pool }

func (b *bufferPool) Get() []byte {
	if p, ok := b.pool.Get().(*[]byte); ok {
		return *p
	}
	return make([]byte, 32<<10)
}

func (b *bufferPool) Put(p []byte) { b.pool.Put(&p) }

// takeBody reads the body of a request, so that it can be sent again, and so
// that it shows when its caller goes away. One that is larger than what is
// buffered is streamed: it can be sent once only. release gives the room back.
func (c *held) takeBody(w http.ResponseWriter, r *http.Request) (release func(), p *problem) {
	bounds := &c.g.file().Bounds
	if r.ContentLength == 0 || r.Body == nil || r.Body == http.NoBody {
		r.Body = http.NoBody
		return func() {}, nil
	}
	if r.ContentLength > bounds.Body {
		return nil, tooLarge(bounds.Body)
	}
	room := min(bounds.Buffer, bounds.Body)
	if r.ContentLength > 0 {
		room = min(room, r.ContentLength)
	}
	if c.g.buffered.Add(room) > bounds.Buffered {
		c.g.buffered.Add(-room)
		p = overBound.problem("the gateway holds as many bytes of bodies as it may (bounds.buffered)").retryAfter(time.Second)
		p.counts = "buffered"
		return nil, p
	}
	release = func() { c.g.buffered.Add(-room) }
	if p = c.readBody(w, r, room, bounds.Body); p != nil {
		release()
		return nil, p
	}
	if used := int64(len(c.body)); used < room { // its length was not known
		c.g.buffered.Add(used - room)
		room = used
	}
	return release, nil
}

// readBody reads up to room bytes of the body; what is over is left to be
// streamed.
func (c *held) readBody(w http.ResponseWriter, r *http.Request, room, most int64) *problem {
	control := http.NewResponseController(w)
	body := http.MaxBytesReader(w, r.Body, most)
	var err error
	if r.ContentLength > 0 {
		c.body = make([]byte, room)
		_, err = io.ReadFull(body, c.body)
		c.streamed = r.ContentLength > room
	} else {
		c.body, err = io.ReadAll(io.LimitReader(body, room+1))
		c.streamed = int64(len(c.body)) > room
	}
	switch {
	case err != nil:
		// The deadline stays: the server reads on, to the end.
		return bodyProblem(err, fmt.Sprintf("its first %d bytes did not come within %v", room, bodyTime))
	case c.streamed:
		r.Body = streamed{io.MultiReader(bytes.NewReader(c.body), &watched{body, control}), body}
	default:
		r.Body, r.TransferEncoding = http.NoBody, nil // its length is known now
	}
	control.SetReadDeadline(time.Time{}) // that of ServeHTTP
	return nil
}

// bodyProblem says what was wrong with a body that could not be read.
func bodyProblem(err error, slow string) *problem {
	if large, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return tooLarge(large.Limit)
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return slowBody.problem(slow).with("Connection", "close")
	}
	return badRequest.problem("the body broke off")
}

func tooLarge(most int64) *problem {
	return bodyTooLarge.problem(fmt.Sprintf("at most %d bytes are taken", most))
}

// watched is the part of a body that is streamed: it may come slowly, and must
// come.
type watched struct {
	io.Reader
	control *http.ResponseController
}

func (b *watched) Read(p []byte) (int, error) {
	b.control.SetReadDeadline(time.Now().Add(bodyTime))
	n, err := b.Reader.Read(p)
	switch {
	case err == io.EOF:
		b.control.SetReadDeadline(time.Time{})
	case err != nil:
		err = &bodyError{err}
	}
	return n, err
}

// bodyError is what is wrong with the caller's body, and not with the platform.
type bodyError struct{ err error }

func (e *bodyError) Error() string { return "the body of the request: " + e.err.Error() }
func (e *bodyError) Unwrap() error { return e.err }

// streamed is a body of which the beginning was read.
type streamed struct {
	io.Reader
	io.Closer
}
