package telemetry

import (
	"context"
	"net/http"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// Span is the span of one call, or of what was done for an execution. Nil is a valid one that does nothing. It holds
// no query, path, header or body, and no text of an error, which may quote
// these. It is safe for concurrent use.
type Span struct{ span trace.Span }

// CallEnd is what a span says of its call. Fields that are zero are left out.
type CallEnd struct {
	Org, Caller string
	// Limit is what was waited for the longest, Wait how long altogether.
	Limit string
	Wait  time.Duration
	// Attempts is how many left, Status what was answered to the caller.
	Attempts, Status int
	// Execution is the id of what was accepted for later.
	Execution string
	// Outcome is that of [Org.Call]. Failed, expired, unknown and error make
	// the span one that failed.
	Outcome string
}

// Inject makes h, which goes along with the call, name this span as the parent of
// what happens next. Without a span it leaves h as it is, so that the traceparent
// of the caller passes through.
func (s *Span) Inject(h http.Header) {
	if s == nil {
		return
	}
	ctx := trace.ContextWithSpan(context.Background(), s.span)
	propagation.TraceContext{}.Inject(ctx, propagation.HeaderCarrier(h))
}

// End ends the span. Later calls do nothing.
func (s *Span) End(c CallEnd) {
	if s == nil {
		return
	}
	var a attributes
	a.text("headgate.org", c.Org)
	a.text("headgate.caller", c.Caller)
	a.text("headgate.limit", c.Limit)
	a.seconds("headgate.wait_seconds", c.Wait)
	a.number("headgate.attempts", c.Attempts)
	a.number("http.response.status_code", c.Status)
	a.text("headgate.execution", c.Execution)
	a.text("headgate.outcome", c.Outcome)
	s.span.SetAttributes(a...)
	switch c.Outcome {
	case "failed", "expired", "unknown", "error":
		s.span.SetStatus(codes.Error, c.Outcome)
	}
	s.span.End()
}

// attributes gathers those that are set.
type attributes []attribute.KeyValue

func (a *attributes) text(key, value string) {
	if value != "" {
		*a = append(*a, attribute.String(key, label(value)))
	}
}

func (a *attributes) number(key string, value int) {
	if value != 0 {
		*a = append(*a, attribute.Int(key, value))
	}
}

func (a *attributes) seconds(key string, value time.Duration) {
	if value != 0 {
		*a = append(*a, attribute.Float64(key, value.Seconds()))
	}
}
