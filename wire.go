package headgate

import (
	"net/http/httptrace"
	"sync"
)

// wire watches one attempt on its way to a connection. It knows something only
// if the base is, or leads to, an http.Transport: others do not call it.
type wire struct {
	trace  httptrace.ClientTrace
	permit Permit

	mu        sync.Mutex
	asked     bool // for a connection
	connected bool // there is one: from here on, something may be sent
}

// wires are used again: the hooks are called within RoundTrip alone.
var wires = sync.Pool{New: func() any {
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
}}

// neverConnected reports whether surely nothing was sent.
func (w *wire) neverConnected() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.asked && !w.connected
}

// release gives w back.
func (w *wire) release() {
	w.permit, w.asked, w.connected = Permit{}, false, false
	wires.Put(w)
}
