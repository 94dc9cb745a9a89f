package app

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/leaverhq/leaver/internal/assurance"
)

// Metrics is what Prometheus scrapes. It names no tenant and nobody.
func (a *App) Metrics() http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		assurance.NewCollector(assurance.NewStore(a.db)),
		prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "leaver_payloads_unopened_total", Help: "Number of workflow payloads that no key in this process's key set can open.",
		}, func() float64 { return float64(a.sealer.Unopened()) }),
	)
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{Registry: registry}))
	return mux
}

// serveMetrics answers scrapes until ctx ends, on a listener of its own, so that
// what is open to the world tells no numbers.
func (a *App) serveMetrics(ctx context.Context) (stop func(), err error) {
	if a.config.Metrics.Listen == "" {
		return func() {}, nil
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", a.config.Metrics.Listen)
	if err != nil {
		return nil, fmt.Errorf("listen for the metrics: %w", err)
	}
	server := newServer(a.Metrics(), a.log)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			a.log.Error("metrics are not served any more", "error", err)
		}
	}()
	return func() { _ = server.Close(); <-done }, nil
}
