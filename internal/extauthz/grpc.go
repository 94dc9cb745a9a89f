package extauthz

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	envoy "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	kind "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	"github.com/leaverhq/leaver/internal/auth"
)

// GRPCPath is the path of the check method.
const GRPCPath = envoy.Authorization_Check_FullMethodName

// maxMessage limits a check request, in bytes. Envoy sends no body unless it is configured to.
const maxMessage = 256 << 10

// NewGRPC returns a handler of Envoy's authorization service. It answers a request that is not gRPC as
// [Server.ServeHTTP] does, so that nothing is answered before the proxy's token has been checked.
func (s *Server) NewGRPC() http.Handler {
	server := grpc.NewServer(grpc.MaxRecvMsgSize(maxMessage))
	envoy.RegisterAuthorizationServer(server, &grpcServer{server: s})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor == 2 && strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc") {
			server.ServeHTTP(w, r)
			return
		}
		s.ServeHTTP(w, r)
	})
}

// grpcServer implements envoy.AuthorizationServer.
type grpcServer struct {
	envoy.UnimplementedAuthorizationServer
	server *Server
}

// Check decides about one request. The proxy's token is in the metadata of the call, action and
// resource in the context extensions of the route.
func (g *grpcServer) Check(ctx context.Context, r *envoy.CheckRequest) (*envoy.CheckResponse, error) {
	attributes := r.GetAttributes()
	proxied, extensions := attributes.GetRequest().GetHttp(), attributes.GetContextExtensions()
	v := g.server.check(ctx, request{
		Gateway: gatewayToken(ctx), Token: bearer(proxied.GetHeaders()["authorization"]), Method: proxied.GetMethod(),
		Action: extensions["leaver-action"], Resource: extensions["leaver-resource"],
	})
	if v.Status == http.StatusOK {
		return &envoy.CheckResponse{
			Status:       &status.Status{Code: int32(codes.OK)},
			HttpResponse: &envoy.CheckResponse_OkResponse{OkResponse: &envoy.OkHttpResponse{Headers: v.options()}},
		}, nil
	}
	body, err := json.Marshal(map[string]string{"reason": v.Reason})
	if err != nil {
		return nil, err
	}
	return &envoy.CheckResponse{
		Status: &status.Status{Code: int32(codes.PermissionDenied)},
		HttpResponse: &envoy.CheckResponse_DeniedResponse{DeniedResponse: &envoy.DeniedHttpResponse{
			Status: &kind.HttpStatus{Code: kind.StatusCode(v.Status)}, //nolint:gosec // a status of HTTP
			Body:   string(body), Headers: v.options(),
		}},
	}, nil
}

func (v verdict) options() []*core.HeaderValueOption {
	var options []*core.HeaderValueOption
	for name, value := range v.headers() {
		options = append(options, &core.HeaderValueOption{Header: &core.HeaderValue{Key: name, Value: value}})
	}
	return options
}

// gatewayToken returns leaver's token of the proxy, or "". A repeated value is refused.
func gatewayToken(ctx context.Context) string {
	values := metadata.ValueFromIncomingContext(ctx, strings.ToLower(tokenHeader))
	if len(values) != 1 {
		return ""
	}
	return values[0]
}

// bearer returns the token of an Authorization header, or "". Envoy joins repeated headers by commas, which
// no token contains.
func bearer(header string) string {
	return auth.Bearer(http.Header{"Authorization": strings.Split(header, ",")})
}
