package gateway

import (
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// traces is an OTLP receiver.
type traces struct {
	*httptest.Server
	mu    sync.Mutex
	spans []*tracepb.Span
}

func newTraces(t *testing.T) *traces {
	r := &traces{}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, _ := io.ReadAll(req.Body)
		var export collector.ExportTraceServiceRequest
		if err := proto.Unmarshal(body, &export); err != nil {
			t.Errorf("not an export of traces: %v", err)
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, rs := range export.ResourceSpans {
			for _, ss := range rs.ScopeSpans {
				r.spans = append(r.spans, ss.Spans...)
			}
		}
	}))
	t.Cleanup(r.Close)
	return r
}

// below returns the spans whose parent is id, in the order of their beginning, and
// fails unless they have that name.
func (r *traces) below(t *testing.T, id []byte, name string, n int) (spans []*tracepb.Span) {
	t.Helper()
	for _, s := range r.spans {
		if string(s.ParentSpanId) == string(id) {
			spans = append(spans, s)
		}
	}
	if len(spans) != n {
		t.Fatalf("%d spans below %x, want %d %s: %v", len(spans), id, n, name, r.spans)
	}
	for _, s := range spans {
		if s.Name != name || hex.EncodeToString(s.TraceId) != traceOf {
			t.Errorf("%s of trace %x, want %s of %s", s.Name, s.TraceId, name, traceOf)
		}
	}
	return spans
}

const (
	traceOf = "0af7651916cd43dd8448eb211c80319c"
	heldBy  = "b7ad6b7169203331"
	keptBy  = "c7ad6b7169203332"
)

// A trace goes on through the gateway: from the caller to each attempt, which the
// platform is told of, and through the queue and a restart.
func TestTraces(t *testing.T) {
	r := newTraces(t)
	var platform platform
	refuse := true
	platform.answer = func(w http.ResponseWriter, _ *http.Request) {
		if refuse {
			refuse = false
			w.Header().Set("Retry-After", "0")
			w.WriteHeader(http.StatusTooManyRequests)
		}
	}
	b := newPlatform(t, &platform, nil)
	b.end()
	b.env = func(name string) string {
		if name == "OTEL_EXPORTER_OTLP_ENDPOINT" {
			return r.URL
		}
		return ""
	}
	b.open(nil)
	if a := b.do("POST", executePath, body(1), "Traceparent: 00-"+traceOf+"-"+heldBy+"-01"); a.status != 200 {
		t.Fatalf("answered %d: %s", a.status, a.body)
	}
	b.g.setting().orgs[0].limiter.Pause()
	if a := b.do("POST", executePath, body(2), "Prefer: respond-async", "Traceparent: 00-"+traceOf+"-"+keptBy+"-01"); a.status != 202 {
		t.Fatalf("answered %d: %s", a.status, a.body)
	}
	b.end()
	b.open(nil)
	if a := b.do("GET", executionsPath+"acme.1", "", "Prefer: wait=10"); a.execution(t).State != "done" {
		t.Fatalf("it ended as %s", a.body)
	}
	b.end() // which sends the rest of the spans

	r.mu.Lock()
	defer r.mu.Unlock()
	bytesOf := func(id string) []byte { b, _ := hex.DecodeString(id); return b }
	held := r.below(t, r.below(t, bytesOf(heldBy), "headgate.call", 1)[0].SpanId, "headgate.attempt", 2)
	queued := r.below(t, r.below(t, bytesOf(keptBy), "headgate.call", 1)[0].SpanId, "headgate.execution", 1)
	kept := r.below(t, queued[0].SpanId, "headgate.attempt", 1)
	seen, _ := platform.got()
	if len(seen) != 3 {
		t.Fatalf("the platform got %d requests", len(seen))
	}
	for i, s := range append(held, kept...) {
		want := "00-" + traceOf + "-" + hex.EncodeToString(s.SpanId) + "-01"
		if got := strings.Join(seen[i].Header["Traceparent"], ", "); got != want {
			t.Errorf("the platform's request %d has traceparent %q, want %q", i, got, want)
		}
	}
}
