package auth

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"

	"github.com/leaverhq/leaver/internal/audit"
	"github.com/leaverhq/leaver/internal/database"
	"github.com/leaverhq/leaver/internal/httpjson"
)

type callerKey struct{}

// CallerOf returns the caller that [Store.Require] found, or the zero caller.
func CallerOf(r *http.Request) Caller { return CallerIn(r.Context()) }

// CallerIn returns the caller of the request whose context it is, or the zero caller.
func CallerIn(ctx context.Context) Caller {
	c, _ := ctx.Value(callerKey{}).(Caller)
	return c
}

// Require returns a middleware that lets requests with a token of one of the classes through.
func (s *Store) Require(log *slog.Logger, classes ...Class) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			c, err := s.Authenticate(r.Context(), Bearer(r.Header), classes...)
			if errors.Is(err, ErrUnauthorized) {
				w.Header().Set("WWW-Authenticate", `Bearer realm="leaver"`)
				err = httpjson.Problem{
					Status: http.StatusUnauthorized, Detail: "present " + alternatives(classes),
				}
			}
			if err != nil {
				httpjson.Fail(w, r, log, err)
				return
			}
			ctx := audit.WithActor(context.WithValue(r.Context(), callerKey{}, c), c.Actor())
			next.ServeHTTP(w, r.WithContext(ctx))
		})
	}
}

// RequireScope returns a middleware behind [Store.Require] that lets requests through whose caller may do what
// the scope stands for (RFC 6750 section 3.1).
func RequireScope(log *slog.Logger, scope Scope) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !CallerOf(r).May(scope) {
				w.Header().Set("WWW-Authenticate",
					fmt.Sprintf(`Bearer realm="leaver", error="insufficient_scope", scope=%q`, scope))
				httpjson.Fail(w, r, log, httpjson.Problem{
					Status: http.StatusForbidden, Detail: fmt.Sprintf("the token lacks the scope %s: request a token with it", scope),
				})
				return
			}
			next.ServeHTTP(w, r)
		})
	}
}

// ForChange is a middleware that lets a request use the connections for changes of principals.
func ForChange(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(w, r.WithContext(database.ForChange(r.Context())))
	})
}

// alternatives describes the tokens of some classes: those of a class that is issued, and access tokens with a
// scope.
func alternatives(classes []Class) string {
	var texts []string
	for _, class := range classes {
		if class != ClassGateway { // access tokens only
			texts = append(texts, "a valid token of class "+string(class))
		}
	}
	for _, scope := range Scopes() {
		if slices.Contains(classes, scope.class()) {
			texts = append(texts, "an access token with the scope "+string(scope))
		}
	}
	return strings.Join(texts, " or ")
}
