package app

import (
	"context"
	"errors"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/leaverhq/leaver/internal/health"
)

// Metrics is what Prometheus scrapes. It names no tenant and nobody.
func (a *App) Metrics() http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		health.NewCollector(health.NewStore(a.db)), newTemporalCollector(a),
		prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "leaver_payloads_unopened_total", Help: "Number of workflow payloads that no key in this process's key set can open.",
		}, func() float64 { return float64(a.sealer.Unopened()) }),
	)
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{Registry: registry}))
	return mux
}

// metricsRetry is how soon an address that another process has is tried again.
const metricsRetry = 5 * time.Second

// serveMetrics answers scrapes until stop is called, on a listener of its own, so that the
// public listener exposes no metrics. It retries in the background while a draining
// predecessor holds the address.
func (a *App) serveMetrics(ctx context.Context, address string) (stop func()) {
	if address == "" {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	server := newServer(a.Metrics(), a.log)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
			if err == nil {
				a.log.Info("serving metrics", "address", listener.Addr().String())
				err = server.Serve(listener)
			}
			if errors.Is(err, http.ErrServerClosed) || ctx.Err() != nil {
				return
			}
			a.log.Warn("metrics are not served; will try again (metrics.worker_listen gives `leaver worker` an address of its own)", "error", err)
			select {
			case <-ctx.Done():
				return
			case <-time.After(metricsRetry):
			}
		}
	}()
	return func() { cancel(); _ = server.Close(); <-done }
}
