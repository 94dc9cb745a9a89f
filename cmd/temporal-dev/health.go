package main

import (
	"context"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

// health answers health checks of the frontend with UNAVAILABLE until started is set. The frontend itself is
// healthy before the services and the Web UI that start after it, and any of these can still end the process.
type health struct{ started atomic.Bool }

// intercept is a grpc.UnaryServerInterceptor.
func (h *health) intercept(
	ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler,
) (any, error) {
	if info.FullMethod == grpc_health_v1.Health_Check_FullMethodName && !h.started.Load() {
		return nil, status.Error(codes.Unavailable, "the server is starting")
	}
	return handler(ctx, req)
}
