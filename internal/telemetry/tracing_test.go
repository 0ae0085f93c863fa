package telemetry

import (
	"bytes"
	"context"
	"encoding/hex"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/trace"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
)

// environment returns what looks variables up in pairs of name and value.
func environment(pairs ...string) func(string) string {
	return func(name string) string {
		for i := 0; i < len(pairs); i += 2 {
			if pairs[i] == name {
				return pairs[i+1]
			}
		}
		return ""
	}
}

const (
	traceID     = "0af7651916cd43dd8448eb211c80319c"
	parentID    = "b7ad6b7169203331"
	traceparent = "00-" + traceID + "-" + parentID + "-01"
)

func incoming(method string) *http.Request {
	r := httptest.NewRequest(method, "/api/v2/flows?token=querysecret", strings.NewReader("bodysecret"))
	r.Header.Set("Authorization", "headersecret")
	return r
}

func TestTracingOff(t *testing.T) {
	for _, env := range []func(string) string{
		environment(),
		environment("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1", "OTEL_SDK_DISABLED", "True"),
		environment("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://127.0.0.1:1", "OTEL_TRACES_EXPORTER", "none"),
	} {
		tracer, shutdown, err := Tracing(t.Context(), "test", env)
		if tracer != nil || err != nil {
			t.Fatalf("%v, %v", tracer, err)
		}
		r := incoming(http.MethodGet)
		r.Header.Set("traceparent", traceparent)
		ctx, span := tracer.Call(r)
		if ctx != r.Context() || span != nil {
			t.Error("not what the request had")
		}
		tracer.LogTo(slog.Default())
		out := r.Header.Clone()
		span.Inject(out)
		if out.Get("traceparent") != traceparent {
			t.Errorf("traceparent became %q", out.Get("traceparent"))
		}
		span.End(CallEnd{})
		if err := shutdown(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

func TestTracingRefuses(t *testing.T) {
	for _, test := range []struct{ name, value string }{
		{"OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"},
		{"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/json"},
		{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "collector:4318"},
		{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "unix:///collector"},
		{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://%zz"},
	} {
		tracer, _, err := Tracing(t.Context(), "test", environment(test.name, test.value, "OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1"))
		if err == nil || !strings.Contains(err.Error(), test.name) || tracer != nil {
			t.Errorf("%v: error %v", test, err)
		}
	}
}

// attributesOf returns attributes as text.
func attributesOf(span *tracepb.Span) map[string]string {
	m := map[string]string{}
	for _, a := range span.Attributes {
		m[a.Key] = strings.TrimSpace(a.Value.String())
	}
	return m
}

func TestSpan(t *testing.T) {
	r := newReceiver(t)
	tracer, shutdown, err := Tracing(t.Context(), "1.2.3", environment("OTEL_EXPORTER_OTLP_ENDPOINT", r.URL+"/"))
	if err != nil {
		t.Fatal(err)
	}
	req := incoming(http.MethodPost)
	req.Header.Set("traceparent", traceparent)
	req.Header.Set("tracestate", "vendor=x")
	ctx, span := tracer.Call(req)
	sc := trace.SpanContextFromContext(ctx)
	if sc.TraceID().String() != traceID || !sc.IsSampled() {
		t.Errorf("the context has %v", sc)
	}
	out := req.Header.Clone()
	span.Inject(out)
	if want := "00-" + traceID + "-" + sc.SpanID().String() + "-01"; out.Get("traceparent") != want || out.Get("tracestate") != "vendor=x" {
		t.Errorf("upstream gets %q, %q, want %q", out.Get("traceparent"), out.Get("tracestate"), want)
	}
	span.End(CallEnd{
		Org: "acme", Caller: "billing", Limit: "token.rate.per.minute", Wait: 2500 * time.Millisecond,
		Attempts: 3, Status: 200, Execution: "e-1", Outcome: "done",
	})
	span.End(CallEnd{Org: "twice"})
	if err := shutdown(context.Background()); err != nil {
		t.Fatal(err)
	}

	if len(r.spans) != 1 || len(r.paths) != 1 || r.paths[0] != "/v1/traces" {
		t.Fatalf("%d spans at %v", len(r.spans), r.paths)
	}
	if r.names["service.name"] != "headgate" || r.names["service.version"] != "1.2.3" {
		t.Errorf("resource %v", r.names)
	}
	s := r.spans[0]
	if s.Name != "headgate.call" || s.Kind != tracepb.Span_SPAN_KIND_SERVER ||
		hex.EncodeToString(s.TraceId) != traceID || hex.EncodeToString(s.ParentSpanId) != parentID ||
		hex.EncodeToString(s.SpanId) != sc.SpanID().String() || s.Status.GetCode() != tracepb.Status_STATUS_CODE_UNSET {
		t.Errorf("span %v", s)
	}
	want := map[string]string{
		"http.request.method": `string_value:"POST"`, "headgate.org": `string_value:"acme"`, "headgate.caller": `string_value:"billing"`,
		"headgate.limit": `string_value:"token.rate.per.minute"`, "headgate.wait_seconds": "double_value:2.5",
		"headgate.attempts": "int_value:3", "http.response.status_code": "int_value:200",
		"headgate.execution": `string_value:"e-1"`, "headgate.outcome": `string_value:"done"`,
	}
	if got := attributesOf(s); !maps.Equal(got, want) {
		t.Errorf("attributes %v, want %v", got, want)
	}
	if bytes.Contains(r.raw, []byte("secret")) {
		t.Errorf("a secret left: %q", r.raw)
	}
}

func TestSpanOfItsOwn(t *testing.T) {
	r := newReceiver(t)
	tracer, shutdown, err := Tracing(t.Context(), "test", environment("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", r.URL+"/elsewhere"))
	if err != nil {
		t.Fatal(err)
	}
	req := incoming("SECRET")
	_, span := tracer.Call(req)
	span.Inject(req.Header)
	span.End(CallEnd{Outcome: "unknown"})
	if err := shutdown(context.Background()); err != nil {
		t.Fatal(err)
	}
	if len(r.spans) != 1 || r.paths[0] != "/elsewhere" {
		t.Fatalf("%d spans at %v", len(r.spans), r.paths)
	}
	s := r.spans[0]
	if len(s.ParentSpanId) != 0 || s.Status.GetCode() != tracepb.Status_STATUS_CODE_ERROR || s.Status.Message != "unknown" ||
		attributesOf(s)["http.request.method"] != `string_value:"_OTHER"` {
		t.Errorf("span %v", s)
	}
	if !strings.Contains(req.Header.Get("traceparent"), hex.EncodeToString(s.TraceId)) {
		t.Errorf("upstream gets %q", req.Header.Get("traceparent"))
	}
}

// An endpoint that is away is told of in the log, and fails nothing.
func TestTracingEndpointAway(t *testing.T) {
	away := httptest.NewServer(http.NotFoundHandler())
	away.Close()
	tracer, shutdown, err := Tracing(t.Context(), "test", environment("OTEL_EXPORTER_OTLP_ENDPOINT", away.URL))
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	tracer.LogTo(slog.New(slog.NewTextHandler(&log, nil)))
	_, span := tracer.Call(incoming(http.MethodGet))
	span.End(CallEnd{})
	ctx, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
	defer cancel()
	_ = shutdown(ctx)
	if !strings.Contains(log.String(), "traces could not be sent") || !strings.Contains(log.String(), "spans=1") {
		t.Errorf("log %q", &log)
	}
}
