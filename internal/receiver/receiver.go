// Package receiver ends principals at the request of a tenant's identity provider, besides SCIM: by
// security events that a transmitter pushes (RFC 8935) and by global token revocation.
package receiver

import (
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"mime"
	"net/http"

	"github.com/go-chi/chi/v5"

	"github.com/leaverhq/leaver/internal/auth"
	"github.com/leaverhq/leaver/internal/directory"
	"github.com/leaverhq/leaver/internal/httpjson"
	"github.com/leaverhq/leaver/internal/lifecycle"
	"github.com/leaverhq/leaver/internal/ssf"
)

// The paths of the endpoints that start cascades besides SCIM. The tenant is named by the path, or
// follows from the token's issuer.
const (
	RevocationPath       = "/global-token-revocation"
	TenantRevocationPath = "/t/{tenant}/global-token-revocation"
	EventsPath           = "/t/{tenant}/events"
)

// Server receives requests to end a principal, from a tenant's identity provider.
type Server struct {
	Auth      *auth.Store
	Directory *directory.Store
	Lifecycle *lifecycle.Writer
	// PublicURL is the base URL for clients. If it is empty, the request's host is used.
	PublicURL string
	Log       *slog.Logger
}

// RevokeGlobally ends all access of the subject that a client's IdP names, as a deactivation does
// (draft-parecki-oauth-global-token-revocation-06).
func (s *Server) RevokeGlobally(w http.ResponseWriter, r *http.Request) {
	received, err := s.Auth.AuthenticateRevocation(r.Context(), auth.Bearer(r.Header), chi.URLParam(r, "tenant"))
	var known bool
	if err == nil {
		known, err = s.Auth.Known(r.Context(), received)
	}
	if errors.Is(err, auth.ErrUnauthorized) || known {
		w.Header().Set("WWW-Authenticate", `Bearer realm="leaver"`)
		err = httpjson.Problem{
			Status: http.StatusUnauthorized,
			Detail: "present an unused JWT of an issuer with the use revocation, " +
				"with iss, sub, aud, jti, iat, and exp at most an hour after iat",
		}
	}
	var body struct {
		SubjectID json.RawMessage `json:"sub_id"`
	}
	if err == nil {
		err = httpjson.DecodeLoosely(w, r, &body)
	}
	if err == nil {
		_, err = s.endSubject(r, received, body.SubjectID, lifecycle.TriggerRevocation)
	}
	if err == nil {
		err = s.Auth.Receive(r.Context(), received)
	}
	if err != nil {
		httpjson.Fail(w, r, s.Log, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// endSubject deactivates the principal that a subject identifier names. If the principal is already
// restricted, it starts another cascade, because the caller may know of access that leaver does not.
func (s *Server) endSubject(
	r *http.Request, by auth.Received, subject json.RawMessage, trigger lifecycle.Trigger,
) (directory.Named, error) {
	of := by.Tenant
	who, err := s.Directory.BySubject(r.Context(), of.ID, subject, directory.Origin{
		Own: ssf.IssuerOf(httpjson.BaseURL(r, s.PublicURL), of.Name), Issuer: by.Issuer, IssuedAt: by.IssuedAt,
	})
	if err != nil {
		return who, err
	}
	cause := lifecycle.NewCause(r.Context(), trigger, by.Actor())
	if who.Restricted {
		_, err = s.Lifecycle.EndAgain(r.Context(), of.ID, who.ID, cause)
		if !errors.Is(err, lifecycle.ErrNotRestricted) { // restored in the meantime: deactivate
			return who, err
		}
	}
	_, err = s.Lifecycle.SetActive(r.Context(), of.ID, who.Type, who.ID, false, cause)
	return who, err
}

// ending returns the events that end a principal. Other events are accepted and ignored.
func ending() []string {
	return []string{ssf.SessionRevoked, ssf.AccountDisabled, ssf.AccountPurged, ssf.CredentialCompromise}
}

const maxSET = 64 << 10 // bytes

// ReceiveEvent accepts a security event that a transmitter pushes (RFC 8935) and processes it once. A
// repeated event is accepted and ignored, so that the transmitter stops sending it.
func (s *Server) ReceiveEvent(w http.ResponseWriter, r *http.Request) {
	received, err := s.openEvent(w, r)
	var known bool
	if err == nil {
		known, err = s.Auth.Known(r.Context(), received)
	}
	if err == nil && !known {
		err = s.actUpon(r, received)
	}
	if err != nil {
		s.refuseEvent(w, r, err)
		return
	}
	w.WriteHeader(http.StatusAccepted)
}

func (s *Server) openEvent(w http.ResponseWriter, r *http.Request) (auth.Received, error) {
	media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || media != "application/secevent+jwt" {
		return auth.Received{}, setError{"invalid_request", "Content-Type must be application/secevent+jwt"}
	}
	raw, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxSET))
	if err != nil {
		return auth.Received{}, setError{"invalid_request", "the body is longer than 64 KiB or incomplete"}
	}
	received, err := s.Auth.OpenSET(r.Context(), string(raw), chi.URLParam(r, "tenant"))
	if errors.Is(err, auth.ErrUnauthorized) {
		return received, setError{
			"authentication_failed",
			"not a valid security event token: check its typ, signature, iss, aud, jti and iat, and the tenant's issuers",
		}
	}
	return received, err
}

// actUpon ends the subject of a token if one of its events requires it.
func (s *Server) actUpon(r *http.Request, received auth.Received) error {
	for _, name := range ending() {
		event, ok := received.Events[name]
		if !ok {
			continue
		}
		subject := received.SubjectID
		if subject == nil { // older transmitters put the subject into the event
			var within struct {
				Subject json.RawMessage `json:"subject"`
			}
			if json.Unmarshal(event, &within) == nil {
				subject = within.Subject
			}
		}
		who, err := s.endSubject(r, received, subject, lifecycle.TriggerSignal)
		switch {
		case errors.Is(err, directory.ErrNotFound):
			// Transmitters also send events about subjects that leaver does not know.
			s.Log.LogAttrs(r.Context(), slog.LevelInfo, "ignoring security event about an unknown subject",
				slog.String("tenant", received.Tenant.Name), slog.String("event", name))
		case err != nil:
			return err
		default:
			s.Log.LogAttrs(r.Context(), slog.LevelInfo, "ending principal because of a security event",
				slog.String("tenant", received.Tenant.Name), slog.String("event", name), slog.String("principal", who.ID.String()))
		}
		break
	}
	return s.Auth.Receive(r.Context(), received)
}

// setError is an error response (RFC 8935 section 2.3).
type setError struct {
	Code        string `json:"err"`
	Description string `json:"description"`
}

func (e setError) Error() string { return e.Description }

func (s *Server) refuseEvent(w http.ResponseWriter, r *http.Request, err error) {
	var refusal setError
	switch {
	case errors.As(err, &refusal):
	case errors.Is(err, directory.ErrInvalidSubject) || errors.Is(err, directory.ErrAmbiguousSubject):
		refusal = setError{"invalid_request", err.Error()}
	default:
		httpjson.Fail(w, r, s.Log, err)
		return
	}
	w.Header().Set("Content-Language", "en")
	httpjson.Answer(w, http.StatusBadRequest, refusal)
}
