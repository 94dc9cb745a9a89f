// Package tracing sends traces by OpenTelemetry: from a request through the outbox, the workflow and its activities
// to the downstreams' answers. Spans have IDs and names of connectors, no personal data and no texts of errors.
package tracing

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"sync/atomic"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"
	"go.opentelemetry.io/contrib/exporters/autoexport"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.40.0"
	"go.opentelemetry.io/otel/trace"
	temporal "go.temporal.io/sdk/contrib/opentelemetry"
	"go.temporal.io/sdk/interceptor"
)

// scope names leaver's own spans.
const scope = "github.com/leaverhq/leaver"

// flushTimeout bounds how long Close waits for the collector.
const flushTimeout = 5 * time.Second

// Tracer sends traces. A nil Tracer sends none.
type Tracer struct {
	provider *sdk.TracerProvider
}

// Open returns the tracer that the OTEL_* variables configure (OpenTelemetry's specification, Environment Variable
// Specification), or nil if they name neither an exporter nor an endpoint.
func Open(ctx context.Context, log *slog.Logger) (*Tracer, error) {
	if !configured() {
		return nil, nil //nolint:nilnil // a nil Tracer sends nothing
	}
	exporter, err := autoexport.NewSpanExporter(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the OTEL_* variables: %w", err)
	}
	own := resource.NewSchemaless(semconv.ServiceName("leaver"))
	service, err := resource.Merge(own, resource.Environment())
	if err != nil {
		return nil, fmt.Errorf("read OTEL_RESOURCE_ATTRIBUTES: %w", err)
	}
	return &Tracer{sdk.NewTracerProvider(
		sdk.WithBatcher(&logged{SpanExporter: exporter, log: log}), sdk.WithResource(service),
	)}, nil
}

func configured() bool {
	if os.Getenv("OTEL_SDK_DISABLED") == "true" || os.Getenv("OTEL_TRACES_EXPORTER") == "none" {
		return false
	}
	return os.Getenv("OTEL_TRACES_EXPORTER") != "" || os.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT") != "" ||
		os.Getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") != ""
}

// Close sends what was not sent yet.
func (t *Tracer) Close() {
	if t == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), flushTimeout)
	defer cancel()
	_ = t.provider.Shutdown(ctx) // logged by the exporter
}

// logged logs when a collector begins to refuse spans, and when it takes them again. Spans that it does not take are
// lost: nothing waits for them.
type logged struct {
	sdk.SpanExporter
	log     *slog.Logger
	failing atomic.Bool
}

// ExportSpans implements sdk.SpanExporter.
func (l *logged) ExportSpans(ctx context.Context, spans []sdk.ReadOnlySpan) error {
	err := l.SpanExporter.ExportSpans(ctx, spans)
	switch failed := err != nil; {
	case failed == l.failing.Swap(failed):
	case failed:
		l.log.Warn("failed to send traces; they are lost until the collector is back", "error", err)
	default:
		l.log.Info("sent traces again")
	}
	return nil
}

// Handler traces the requests of next, a router of chi, by their routes. Callers are outside: a request begins a trace
// of its own, which is linked to the caller's.
func (t *Tracer) Handler(next http.Handler) http.Handler {
	if t == nil {
		return next
	}
	tracer := t.provider.Tracer(scope)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/livez" || r.URL.Path == "/readyz" {
			next.ServeHTTP(w, r)
			return
		}
		caller := propagation.TraceContext{}.Extract(context.Background(), propagation.HeaderCarrier(r.Header))
		ctx, span := tracer.Start(r.Context(), r.Method, trace.WithNewRoot(), trace.WithSpanKind(trace.SpanKindServer),
			trace.WithLinks(trace.LinkFromContext(caller)), trace.WithAttributes(semconv.HTTPRequestMethodKey.String(r.Method)))
		defer span.End()
		ctx = context.WithValue(ctx, chi.RouteCtxKey, chi.NewRouteContext())
		wrapped := middleware.NewWrapResponseWriter(w, r.ProtoMajor)
		next.ServeHTTP(wrapped, r.WithContext(ctx))
		route := chi.RouteContext(ctx).RoutePattern()
		span.SetName(r.Method + " " + route)
		span.SetAttributes(semconv.HTTPRoute(route), semconv.HTTPResponseStatusCode(wrapped.Status()))
		if wrapped.Status() >= http.StatusInternalServerError {
			span.SetStatus(codes.Error, "")
		}
	})
}

// Interceptors returns the interceptors of Temporal's client, which are also those of its workers.
func (t *Tracer) Interceptors() ([]interceptor.ClientInterceptor, error) {
	if t == nil {
		return nil, nil
	}
	traced, err := temporal.NewTracingInterceptor(temporal.TracerOptions{
		Tracer: t.provider.Tracer(scope), DisableBaggage: true, TextMapPropagator: propagation.TraceContext{},
		// Another client of the namespace can write the header.
		AllowInvalidParentSpans: true,
		SpanStarter: func(
			ctx context.Context, t trace.Tracer, name string, options ...trace.SpanStartOption,
		) trace.Span {
			_, span := t.Start(ctx, name, options...)
			return discreet{span}
		},
	})
	if err != nil {
		return nil, fmt.Errorf("trace workflows: %w", err)
	}
	return []interceptor.ClientInterceptor{traced}, nil
}

// discreet is a span without the texts of errors. Temporal keeps them encrypted.
type discreet struct{ trace.Span }

// SetStatus implements trace.Span.
func (d discreet) SetStatus(code codes.Code, _ string) { d.Span.SetStatus(code, "") }

// RecordError implements trace.Span.
func (d discreet) RecordError(error, ...trace.EventOption) {}

// Parent returns the context's span as a traceparent (W3C Trace Context), or an empty string without one.
func Parent(ctx context.Context) string {
	carrier := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(ctx, carrier)
	return carrier["traceparent"]
}

// Continue returns a context whose spans are children of a [Parent], unless ctx has a span.
func Continue(ctx context.Context, parent string) context.Context {
	if trace.SpanContextFromContext(ctx).IsValid() {
		return ctx
	}
	return propagation.TraceContext{}.Extract(ctx, propagation.MapCarrier{"traceparent": parent})
}

// Connector notes the connector that the context's span is about.
func Connector(ctx context.Context, name string) {
	trace.SpanFromContext(ctx).SetAttributes(attribute.String("leaver.connector", name))
}
