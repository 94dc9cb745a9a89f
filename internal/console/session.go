package console

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"github.com/leaverhq/leaver/internal/api"
	"github.com/leaverhq/leaver/internal/auth"
	"github.com/leaverhq/leaver/internal/fault"
	"github.com/leaverhq/leaver/internal/httpjson"
)

// maxForm bounds the body of a form, in bytes.
const maxForm = 64 << 10

type sessionKey struct{}

// session is the signed-in caller and the secret of its session.
type session struct {
	secret string
	caller auth.Caller
}

func sessionOf(ctx context.Context) session {
	s, _ := ctx.Value(sessionKey{}).(session)
	return s
}

// secure reports whether browsers reach the console by https. Over http, browsers keep a session only at loopback.
func (s *Server) secure(r *http.Request) bool {
	return strings.HasPrefix(httpjson.PageURL(r, s.PublicURL), "https:")
}

// cookie returns the cookie of a session, with the prefix that ties it to this host where https allows it.
func (s *Server) cookie(r *http.Request, secret string) *http.Cookie {
	c := &http.Cookie{
		Name: "leaver", Value: secret, Path: "/", HttpOnly: true, SameSite: http.SameSiteStrictMode,
		MaxAge: int(auth.SessionTTL.Seconds()),
	}
	if s.secure(r) {
		c.Name, c.Secure = "__Host-leaver", true
	}
	return c
}

func (s *Server) requireSession(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var current session
		cookie, err := r.Cookie(s.cookie(r, "").Name)
		if err == nil {
			current.secret = cookie.Value
			current.caller, err = s.Auth.Authenticate(r.Context(), cookie.Value, auth.OperatorClasses()...)
		}
		switch {
		case errors.Is(err, http.ErrNoCookie), errors.Is(err, auth.ErrUnauthorized):
			if r.Method == http.MethodGet && r.Header.Get("Accept") != eventStream {
				http.Redirect(w, r, api.ConsolePath+"/sign-in", http.StatusSeeOther)
				return
			}
			s.show(w, r, http.StatusUnauthorized, "error", problem{
				"Signed out", "The session has ended. Sign in again, and repeat what you did.",
			})
			return
		case err != nil:
			s.fail(w, r, err)
			return
		}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), sessionKey{}, current)))
	})
}

// signInView is the page to sign in.
type signInView struct {
	Problem string
	Login   bool // whether an identity provider is configured
}

func (s *Server) showSignIn(w http.ResponseWriter, r *http.Request) {
	s.showSignInWith(w, r, http.StatusOK, "")
}

func (s *Server) showSignInWith(w http.ResponseWriter, r *http.Request, status int, problem string) {
	s.show(w, r, status, "sign-in", signInView{problem, s.Login != nil})
}

// signIn opens a session by a token, or by the secret of a sign-in.
func (s *Server) signIn(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	secret, err := s.Auth.OpenSession(r.Context(), strings.TrimSpace(r.PostFormValue("secret")))
	coded, refused := fault.Of(err)
	switch {
	case errors.Is(err, auth.ErrUnauthorized):
		s.showSignInWith(w, r, http.StatusForbidden, "The token is unknown, expired, revoked, or not an operator's, "+
			"viewer's or auditor's.")
		return
	case refused && coded.Code() == fault.Forbidden:
		s.showSignInWith(w, r, http.StatusForbidden,
			"The link was used or has expired: create another with `leaver console`.")
		return
	case err != nil:
		s.fail(w, r, err)
		return
	}
	http.SetCookie(w, s.cookie(r, secret))
	http.Redirect(w, r, api.ConsolePath+"/", http.StatusSeeOther)
}

func (s *Server) signOut(w http.ResponseWriter, r *http.Request) {
	if err := s.Auth.CloseSession(r.Context(), sessionOf(r.Context()).secret); err != nil {
		s.fail(w, r, err)
		return
	}
	gone := s.cookie(r, "") //nolint:gosec // with the attributes of the cookie that it deletes
	gone.MaxAge = -1
	http.SetCookie(w, gone)
	http.Redirect(w, r, api.ConsolePath+"/sign-in", http.StatusSeeOther)
}
