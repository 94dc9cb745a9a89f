package app

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"
	otelprometheus "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/contrib/opentelemetry"
)

// sdkMetrics are the metrics of Temporal's SDK: requests, latencies, task queues and the state of its caches.
type sdkMetrics struct {
	*prometheus.Registry
	provider *metric.MeterProvider
	handler  client.MetricsHandler
}

func newSDKMetrics(log *slog.Logger) (*sdkMetrics, error) {
	m := &sdkMetrics{Registry: prometheus.NewRegistry()}
	exporter, err := otelprometheus.New(
		otelprometheus.WithRegisterer(m.Registry), otelprometheus.WithoutScopeInfo(), otelprometheus.WithoutTargetInfo(),
	)
	if err != nil {
		return nil, fmt.Errorf("export the metrics of Temporal's SDK: %w", err)
	}
	m.provider = metric.NewMeterProvider(metric.WithReader(exporter))
	m.handler = opentelemetry.NewMetricsHandler(opentelemetry.MetricsHandlerOptions{
		Meter: m.provider.Meter("temporal-sdk-go"), UseMonotonicCounters: true,
		OnError: func(err error) { log.Warn("failed to record a metric of Temporal's SDK", "error", err) },
	})
	return m, nil
}

func (m *sdkMetrics) close() { _ = m.provider.Shutdown(context.Background()) }
