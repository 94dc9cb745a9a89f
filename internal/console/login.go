package console

import (
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strconv"

	"github.com/leaverhq/leaver/internal/api"
	"github.com/leaverhq/leaver/internal/auth"
	"github.com/leaverhq/leaver/internal/fault"
	"github.com/leaverhq/leaver/internal/httpjson"
	"github.com/leaverhq/leaver/internal/login"
)

const (
	// loginTime is how long a person may take at the identity provider, in seconds.
	loginTime = 600
	// maxEcho limits the state of a command line.
	maxEcho = 128
)

func (s *Server) redirectURL(r *http.Request) string {
	return httpjson.PageURL(r, s.PublicURL) + api.ConsolePath + "/login/callback"
}

// attemptCookie returns the cookie of an attempt to sign in. It is Lax, because the provider's redirect comes from
// another site.
func (s *Server) attemptCookie(r *http.Request, value string, maxAge int) *http.Cookie {
	c := s.cookie(r, value) //nolint:gosec // Secure where browsers reach the console by https
	c.Name, c.SameSite, c.MaxAge = c.Name+"-login", http.SameSiteLaxMode, maxAge
	return c
}

// startLogin redirects to the identity provider. A command line that waits at a loopback port names the port, and a
// state that it wants back.
func (s *Server) startLogin(w http.ResponseWriter, r *http.Request) {
	attempt := login.NewAttempt()
	if text := r.URL.Query().Get("port"); text != "" {
		port, err := strconv.ParseUint(text, 10, 16)
		attempt.Port, attempt.Echo = int(port), r.URL.Query().Get("state")
		if err != nil || port == 0 || attempt.Echo == "" || len(attempt.Echo) > maxEcho {
			s.fail(w, r, httpjson.Problem{
				Status: http.StatusBadRequest, Detail: "port must be 1 to 65535, and state 1 to 128 bytes",
			})
			return
		}
	}
	raw, err := json.Marshal(attempt)
	var to string
	if err == nil {
		to, err = s.Login.URL(r.Context(), attempt, s.redirectURL(r))
	}
	if err != nil {
		s.failLogin(w, r, err)
		return
	}
	http.SetCookie(w, s.attemptCookie(r, base64.RawURLEncoding.EncodeToString(raw), loginTime))
	http.Redirect(w, r, to, http.StatusSeeOther) //nolint:gosec // the endpoint of the configured provider
}

// finishLogin signs in the person whom the identity provider has redirected back.
func (s *Server) finishLogin(w http.ResponseWriter, r *http.Request) {
	http.SetCookie(w, s.attemptCookie(r, "", -1))
	var attempt login.Attempt
	cookie, err := r.Cookie(s.attemptCookie(r, "", 0).Name)
	if err == nil {
		var raw []byte
		if raw, err = base64.RawURLEncoding.DecodeString(cookie.Value); err == nil {
			err = json.Unmarshal(raw, &attempt)
		}
	}
	query := r.URL.Query()
	if err != nil || attempt.State == "" ||
		subtle.ConstantTimeCompare([]byte(attempt.State), []byte(query.Get("state"))) == 0 {
		s.failLogin(w, r, login.ErrRefused)
		return
	}
	person, err := s.Login.Finish(r.Context(), attempt, query.Get("code"), s.redirectURL(r))
	if errors.Is(err, login.ErrNoRole) {
		refusal := s.Auth.RefusePerson(r.Context(), person.Name, person.Issuer, person.Subject, login.ErrNoRole)
		err = errors.Join(err, refusal)
	}
	var secret string
	if err == nil {
		secret, err = s.Auth.SignInPerson(r.Context(), person.Class, person.Name, person.Issuer, person.Subject)
	}
	if err == nil && attempt.Port == 0 { // otherwise the command line opens the session
		secret, err = s.Auth.OpenSession(r.Context(), secret)
	}
	if err != nil {
		s.failLogin(w, r, err)
		return
	}
	// Not a redirect: a browser does not send a Strict cookie to where a redirect from another site ends, and a form's
	// policy does not permit another host.
	next := api.ConsolePath + "/"
	if attempt.Port == 0 {
		http.SetCookie(w, s.cookie(r, secret))
	} else {
		next = "http://127.0.0.1:" + strconv.Itoa(attempt.Port) + "/?" +
			url.Values{"signIn": {secret}, "state": {attempt.Echo}}.Encode()
	}
	s.show(w, r, http.StatusOK, "signed-in", signedIn{Name: person.Name, Class: person.Class, Next: next})
}

// signedIn is the page after a sign-in at the identity provider.
type signedIn struct {
	Name  string
	Class auth.Class
	Next  string
}

// failLogin shows why a person was not signed in, on the page to sign in.
func (s *Server) failLogin(w http.ResponseWriter, r *http.Request, err error) {
	if coded, ok := fault.Of(err); ok {
		s.Log.WarnContext(r.Context(), "refused a sign-in by the identity provider", "error", err)
		s.showSignInWith(w, r, httpjson.ProblemOf(err).Status, coded.Error())
		return
	}
	s.fail(w, r, err)
}
