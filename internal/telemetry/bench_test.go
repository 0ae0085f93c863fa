package telemetry

import (
	"net/http"
	"testing"
	"time"

	"github.com/headgate/headgate"
)

// Each of these is on the way of every call.
var hot = map[string]func(t *Telemetry, o *Org){
	"Org": func(t *Telemetry, o *Org) { t.Org("acme") },
	"Answered": func(_ *Telemetry, o *Org) {
		o.Observe(headgate.Event{Kind: headgate.Answered, Status: 200, Wait: time.Second})
	},
	"Sent": func(_ *Telemetry, o *Org) { o.Observe(headgate.Event{Kind: headgate.Sent, Attempt: 1}) },
	"PermitWaited": func(_ *Telemetry, o *Org) {
		o.Observe(headgate.Event{Kind: headgate.PermitWaited, Limit: "token.rate.per.minute", Parts: parts})
	},
	"GateClosed": func(_ *Telemetry, o *Org) {
		o.Observe(headgate.Event{Kind: headgate.GateClosed, Limit: "token.rate.per.minute", Status: 429})
	},
	"Wait":     func(_ *Telemetry, o *Org) { o.Wait("token.rate.per.minute", 3, time.Second) },
	"Call":     func(_ *Telemetry, o *Org) { o.Call("held", "done", "billing", time.Second) },
	"Accepted": func(_ *Telemetry, o *Org) { o.Accepted("billing") },
}

var parts = []headgate.WaitPart{{Limit: "token.rate.per.minute", Empty: time.Second, RetryAfter: time.Second}}

func BenchmarkHot(b *testing.B) {
	for name, f := range hot {
		b.Run(name, func(b *testing.B) {
			t := New("test")
			o := t.Org("acme")
			b.ReportAllocs()
			for b.Loop() {
				f(t, o)
			}
		})
	}
}

func TestHotDoesNotAllocate(t *testing.T) {
	for name, f := range hot {
		tel := New("test")
		o := tel.Org("acme")
		if n := testing.AllocsPerRun(100, func() { f(tel, o) }); n != 0 {
			t.Errorf("%s allocates %v times", name, n)
		}
	}
	r, _ := http.NewRequest(http.MethodGet, "http://localhost/", nil)
	n := testing.AllocsPerRun(100, func() {
		_, s := (*Tracer)(nil).Call(r)
		s.Inject(r.Header)
		s.End(CallEnd{})
	})
	if n != 0 {
		t.Errorf("tracing that is off allocates %v times", n)
	}
}
