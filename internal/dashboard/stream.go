package dashboard

import (
	"bytes"
	"errors"
	"net/http"
	"time"
)

const (
	// backlog is how many views a browser may be behind before its
	// connection is given up. It comes again, and gets the history.
	backlog = 8
	// writeWithin bounds the writing of one view.
	writeWithin = 10 * time.Second
)

var (
	errClients = errors.New("too many browsers look at this page")
	errStopped = errors.New("the gateway is stopping")
)

// stream is one browser's connection.
type stream struct {
	org    string      // the one that is open there; "" for none
	frames chan []byte // closed when the stream is dropped
}

// join registers a browser and returns its stream, whose first frame holds
// the history and the view of now, so that no view is missing between.
func (p *Page) join(org string) (*stream, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.state == stopped:
		return nil, errStopped
	case len(p.streams) >= p.cfg.Clients:
		return nil, errClients
	}
	s := &stream{org: org, frames: make(chan []byte, backlog)}
	var b bytes.Buffer
	event(&b, "history", encode(p.pastLocked(org)))
	p.viewLocked(&b, encode(p.overviewLocked()), org)
	s.frames <- b.Bytes()
	p.streams[s] = struct{}{}
	return s, nil
}

func (p *Page) leave(s *stream) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dropLocked(s)
}

// dropLocked ends a stream. It may be called twice.
func (p *Page) dropLocked(s *stream) {
	if _, ok := p.streams[s]; ok {
		delete(p.streams, s)
		close(s.frames)
	}
}

func (p *Page) dropAllLocked() {
	for s := range p.streams {
		p.dropLocked(s)
	}
}

// publishLocked hands the view to every browser. What they have in common is
// encoded once, and nothing is where nobody looks.
func (p *Page) publishLocked() {
	if len(p.streams) == 0 {
		return
	}
	overview := encode(p.overviewLocked())
	frames := map[string][]byte{}
	for s := range p.streams {
		frame, ok := frames[s.org]
		if !ok {
			var b bytes.Buffer
			p.viewLocked(&b, overview, s.org)
			frame = b.Bytes()
			frames[s.org] = frame
		}
		select {
		case s.frames <- frame:
		default:
			p.dropLocked(s) // too slow
		}
	}
}

// viewLocked writes the event of one view, in two lines of data so that the
// overview need not be encoded again for each org.
func (p *Page) viewLocked(b *bytes.Buffer, overview []byte, org string) {
	open := []byte("null")
	if o := p.findLocked(org); o != nil {
		open = encode(p.orgLocked(o))
	}
	event(b, "view", join(`{"overview":`, overview, `,`), join(`"org":`, open, `}`))
}

func join(before string, b []byte, after string) []byte {
	return append(append([]byte(before), b...), after...)
}

// event writes one server-sent event. JSON has no line break in it.
func event(b *bytes.Buffer, name string, lines ...[]byte) {
	b.WriteString("event: " + name + "\n")
	for _, line := range lines {
		b.WriteString("data: ")
		b.Write(line)
		b.WriteByte('\n')
	}
	b.WriteByte('\n')
}

// events serves one browser until it goes, is too slow, or Run ends.
func (p *Page) events(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no") // a proxy that gathers would hold the views back
	if r.Method == http.MethodHead {
		return
	}
	select {
	case <-p.ready:
	case <-r.Context().Done():
		return
	}
	s, err := p.join(r.URL.Query().Get("org"))
	if err != nil {
		h.Set("Retry-After", "5")
		problem(w, http.StatusServiceUnavailable, err.Error())
		return
	}
	defer p.leave(s)
	rc := http.NewResponseController(w)
	for {
		select {
		case frame, ok := <-s.frames:
			if !ok {
				return
			}
			_ = rc.SetWriteDeadline(time.Now().Add(writeWithin)) // not supported: the backlog bounds it
			if _, err := w.Write(frame); err != nil {
				return
			}
			if err := rc.Flush(); err != nil {
				if errors.Is(err, http.ErrNotSupported) {
					p.cfg.Logger.Error("the page gets no events: what stands in front of its handler can't flush")
				}
				return
			}
		case <-r.Context().Done():
			return
		}
	}
}
