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

// Metrics returns the handler of GET /metrics for Prometheus. The metrics contain no tenant and
// no principal.
func (a *App) Metrics() http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		health.NewCollector(health.NewStore(a.DB)), newTemporalCollector(a),
		prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "leaver_payloads_unopened_total",
			Help: "Number of workflow payloads that no key in this process's key set can open.",
		}, func() float64 { return float64(a.Sealer.Unopened()) }),
	)
	mux := http.NewServeMux()
	all := prometheus.Gatherers{registry, a.sdkMetrics}
	mux.Handle("GET /metrics", promhttp.HandlerFor(all, promhttp.HandlerOpts{Registry: registry}))
	return mux
}

// metricsRetry is the interval between attempts to listen on an address that is in use.
const metricsRetry = 5 * time.Second

// serveMetrics serves metrics until stop is called, on a separate listener, so that the public
// listener exposes no metrics. It retries in the background while the address is in use, for
// example by a draining predecessor.
func (a *App) serveMetrics(ctx context.Context, address string) (stop func()) {
	if address == "" {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	server := newServer(a.Metrics(), a.Log)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
			if err == nil {
				a.Log.Info("serving metrics", "address", listener.Addr().String())
				err = server.Serve(listener)
			}
			if errors.Is(err, http.ErrServerClosed) || ctx.Err() != nil {
				return
			}
			a.Log.Warn("failed to serve metrics; retrying (set metrics.worker_listen if `leaver worker` runs on the same host)",
				"error", err)
			select {
			case <-ctx.Done():
				return
			case <-time.After(metricsRetry):
			}
		}
	}()
	return func() { cancel(); _ = server.Close(); <-done }
}
