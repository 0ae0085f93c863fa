package headgate

import (
	"context"
	"net/http/httptrace"
	"sync"
)

// wire watches one attempt on its way to a connection. It knows something only
// if the base is, or leads to, an http.Transport: others do not call it.
type wire struct {
	trace  httptrace.ClientTrace
	permit Permit
	// chained: the trace calls the caller's as well, and serves once.
	chained bool

	mu        sync.Mutex
	asked     bool // for a connection
	connected bool // there is one: from here on, something may be sent
}

// wires are used again: the hooks are called within RoundTrip alone. The trace
// itself is read after that too, so it is never changed.
var wires = sync.Pool{New: func() any { return newWire() }}

func newWire() *wire {
	w := new(wire)
	w.trace.GetConn = func(string) {
		w.mu.Lock()
		w.asked = true
		w.mu.Unlock()
	}
	w.trace.GotConn = func(httptrace.GotConnInfo) {
		w.mu.Lock()
		w.connected = true
		w.mu.Unlock()
		// The server begins to count now, not when dialling began.
		w.permit.left()
	}
	return w
}

// watch returns a wire for an attempt with permit, and the context to make it
// with.
func watch(ctx context.Context, permit Permit) (*wire, context.Context) {
	var w *wire
	if httptrace.ContextClientTrace(ctx) == nil {
		w = wires.Get().(*wire)
	} else {
		w = newWire()
		w.chained = true // WithClientTrace adds the caller's hooks to ours
	}
	w.permit = permit
	return w, httptrace.WithClientTrace(ctx, &w.trace)
}

// neverConnected reports whether surely nothing was sent.
func (w *wire) neverConnected() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.asked && !w.connected
}

// release gives w back.
func (w *wire) release() {
	if w.chained {
		return
	}
	w.permit, w.asked, w.connected = Permit{}, false, false
	wires.Put(w)
}
