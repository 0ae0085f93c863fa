package telemetry

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// Tracer makes the spans of calls. Nil is a valid one that does nothing. It is
// safe for concurrent use.
type Tracer struct {
	tracer trace.Tracer
	log    *atomic.Pointer[slog.Logger]
}

// Tracing returns a tracer that sends to the OTLP endpoint that the environment
// names, over HTTP as protobuf, and what to call at the end so that it sends
// what it still has. Where the environment names none, or turns tracing off
// (OTEL_SDK_DISABLED, OTEL_TRACES_EXPORTER=none), the tracer is nil. Shutdown is
// never nil, unless there is an error.
//
// env is os.Getenv, or a test's. The endpoint, the protocol and what turns
// tracing off are read from it; the rest of OpenTelemetry's variables (headers,
// time-outs, sampler, service name) are those of the process.
//
// An endpoint that is away harms no call: spans are dropped when too many wait.
func Tracing(ctx context.Context, version string, env func(string) string) (*Tracer, func(context.Context) error, error) {
	name, address := endpoint(env)
	if address == "" {
		return nil, func(context.Context) error { return nil }, nil
	}
	if u, err := url.Parse(address); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, nil, fmt.Errorf("tracing: %s is not an http or https URL", name) // it may hold a password
	}
	for _, name := range []string{"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"} {
		if protocol := env(name); protocol != "" {
			if protocol != "http/protobuf" {
				return nil, nil, fmt.Errorf("tracing: %s is %q: only http/protobuf is spoken", name, protocol)
			}
			break
		}
	}
	exporter, err := otlptracehttp.New(ctx, otlptracehttp.WithEndpointURL(address))
	if err != nil {
		return nil, nil, fmt.Errorf("tracing: opening the exporter: %w", err)
	}
	res, err := resource.New(ctx,
		resource.WithAttributes(attribute.String("service.name", "headgate"), attribute.String("service.version", version)),
		resource.WithTelemetrySDK(), resource.WithFromEnv())
	if err != nil {
		return nil, nil, fmt.Errorf("tracing: reading OTEL_RESOURCE_ATTRIBUTES: %w", err)
	}
	t := &Tracer{log: new(atomic.Pointer[slog.Logger])}
	t.LogTo(nil)
	provider := sdktrace.NewTracerProvider(
		sdktrace.WithBatcher(reporting{exporter, t.log}),
		sdktrace.WithResource(res))
	t.tracer = provider.Tracer("github.com/headgate/headgate", trace.WithInstrumentationVersion(version))
	return t, provider.Shutdown, nil
}

// endpoint returns where traces go, "" for nowhere, and the variable that says
// so.
func endpoint(env func(string) string) (name, address string) {
	if strings.EqualFold(env("OTEL_SDK_DISABLED"), "true") || strings.EqualFold(env("OTEL_TRACES_EXPORTER"), "none") {
		return "", ""
	}
	const traces, all = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"
	if address = env(traces); address != "" {
		return traces, address
	}
	if address = env(all); address != "" {
		return all, strings.TrimSuffix(address, "/") + "/v1/traces"
	}
	return "", ""
}

// LogTo says where it is told that traces could not be sent. Nil, and before:
// nowhere.
func (t *Tracer) LogTo(log *slog.Logger) {
	if t == nil {
		return
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	t.log.Store(log)
}

// reporting is an exporter whose errors go to a log, instead of to the one that
// all users of OpenTelemetry in a process share.
type reporting struct {
	*otlptrace.Exporter
	log *atomic.Pointer[slog.Logger]
}

func (r reporting) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	if err := r.Exporter.ExportSpans(ctx, spans); err != nil {
		r.log.Load().WarnContext(ctx, "traces could not be sent", "spans", len(spans), "err", err)
	}
	return nil
}

// Call begins the span of a call that has arrived, which continues the trace
// that the request's traceparent names, if it has one. The context has the span.
// A nil tracer returns the request's context and a nil span.
func (t *Tracer) Call(r *http.Request) (context.Context, *Span) {
	if t == nil {
		return r.Context(), nil
	}
	ctx := propagation.TraceContext{}.Extract(r.Context(), propagation.HeaderCarrier(r.Header))
	ctx, span := t.tracer.Start(ctx, "headgate.call",
		trace.WithSpanKind(trace.SpanKindServer),
		trace.WithAttributes(attribute.String("http.request.method", method(r.Method))))
	return ctx, &Span{span}
}

// Execution begins the span of what is done for an execution that was kept: it
// continues the trace that h names, the header that was stored with it. The
// context has the span. A nil tracer returns ctx and a nil span.
func (t *Tracer) Execution(ctx context.Context, h http.Header) (context.Context, *Span) {
	if t == nil {
		return ctx, nil
	}
	ctx = propagation.TraceContext{}.Extract(ctx, propagation.HeaderCarrier(h))
	ctx, span := t.tracer.Start(ctx, "headgate.execution", trace.WithSpanKind(trace.SpanKindConsumer))
	return ctx, &Span{span}
}

// Base returns base with a span for each attempt that belongs to one of the spans
// above; the platform is told of it. A nil tracer returns base itself.
func (t *Tracer) Base(base http.RoundTripper) http.RoundTripper {
	if t == nil {
		return base
	}
	return attempts{t, base}
}

type attempts struct {
	*Tracer
	base http.RoundTripper
}

func (a attempts) RoundTrip(req *http.Request) (*http.Response, error) {
	if !trace.SpanContextFromContext(req.Context()).IsValid() {
		return a.base.RoundTrip(req)
	}
	ctx, span := a.tracer.Start(req.Context(), "headgate.attempt",
		trace.WithSpanKind(trace.SpanKindClient),
		trace.WithAttributes(attribute.String("http.request.method", method(req.Method))))
	defer span.End()
	header := req.Header.Clone()
	req = req.WithContext(ctx)
	req.Header = header
	propagation.TraceContext{}.Inject(ctx, propagation.HeaderCarrier(header))
	resp, err := a.base.RoundTrip(req)
	if err != nil {
		span.SetStatus(codes.Error, "no answer")
		return nil, err
	}
	span.SetAttributes(attribute.Int("http.response.status_code", resp.StatusCode))
	if resp.StatusCode >= 400 {
		span.SetStatus(codes.Error, "")
	}
	return resp, nil
}

// method returns a method that HTTP knows, or _OTHER: it comes from the network.
func method(m string) string {
	switch m {
	case "":
		return http.MethodGet
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch,
		http.MethodDelete, http.MethodOptions, http.MethodTrace, http.MethodConnect:
		return m
	}
	return "_OTHER"
}
