package devstack

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"time"
)

// Listen opens a port on loopback, and returns its URL.
func Listen(ctx context.Context, what string) (net.Listener, string, error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, "", fmt.Errorf("listen for %s: %w", what, err)
	}
	return listener, "http://" + listener.Addr().String(), nil
}

// Serve serves a handler until stop is called. The end of ctx does not stop it.
func Serve(ctx context.Context, listener net.Listener, handler http.Handler) (stop func()) {
	server := &http.Server{
		Handler: handler, ReadHeaderTimeout: 10 * time.Second,
		BaseContext: func(net.Listener) context.Context { return context.WithoutCancel(ctx) },
	}
	go func() { _ = server.Serve(listener) }() // ends by Close
	return func() { _ = server.Close() }
}
