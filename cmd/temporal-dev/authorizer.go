package main

import (
	"context"
	"strings"

	commonpb "go.temporal.io/api/common/v1"
	"go.temporal.io/server/common/authorization"
	"go.temporal.io/server/common/config"
)

// callerAuthorizer allows every call and names the caller. With principal
// propagation, the server records the name in each history event of the call.
type callerAuthorizer struct{}

// Authorize implements authorization.Authorizer. The name is the claim mapper's
// subject, else the identity that SDK, CLI and UI put into their requests.
func (callerAuthorizer) Authorize(
	_ context.Context, claims *authorization.Claims, target *authorization.CallTarget,
) (authorization.Result, error) {
	result := authorization.Result{Decision: authorization.DecisionAllow}
	switch {
	case claims != nil && claims.Subject != "":
		result.Principal = &commonpb.Principal{Type: claims.AuthType, Name: claims.Subject}
	case target != nil:
		if r, ok := target.Request.(interface{ GetIdentity() string }); ok && r.GetIdentity() != "" {
			result.Principal = &commonpb.Principal{Type: "identity", Name: r.GetIdentity()}
		}
	}
	return result, nil
}

// callerClaims reads the caller's name from the authorization header ("Bearer
// NAME") without verifying it: the server is for one developer, on loopback.
type callerClaims struct{}

func newCallerClaims(*config.Config) authorization.ClaimMapper { return callerClaims{} }

// GetClaims implements authorization.ClaimMapper.
func (callerClaims) GetClaims(info *authorization.AuthInfo) (*authorization.Claims, error) {
	claims := &authorization.Claims{System: authorization.RoleAdmin}
	if name := strings.TrimSpace(strings.TrimPrefix(info.AuthToken, "Bearer ")); name != "" {
		claims.AuthType, claims.Subject = "bearer", name
	}
	return claims, nil
}

// AuthInfoRequired returns false: the authorization header is optional.
func (callerClaims) AuthInfoRequired() bool { return false }
