package openid

import (
	"encoding/json"
	"net/http"

	"github.com/zitadel/oidc/v3/pkg/op"
)

// consentPath is the path of consent sessions in Ory Hydra's admin API. The
// provider implements it for its own tokens, as Hydra does: revoking a grant
// revokes all its tokens.
const consentPath = "/admin/oauth2/auth/sessions/consent"

// AdminURL returns the base URL of the admin API.
func (p *Provider) AdminURL() string { return p.Issuer }

// consent records a grant. The caller must hold s.mu.
func (s *store) consent(request op.TokenRequest) {
	subject, client := request.GetSubject(), ClientID
	if of, ok := request.(interface{ GetClientID() string }); ok {
		client = of.GetClientID()
	}
	if s.consents[subject] == nil {
		s.consents[subject] = make(map[string][]string)
	}
	s.consents[subject][client] = request.GetScopes()
}

// listConsents handles `GET …/consent?subject=`. An unknown subject has no consents.
func (s *store) listConsents(w http.ResponseWriter, r *http.Request) {
	subject := r.URL.Query().Get("subject")
	if subject == "" {
		refuse(w)
		return
	}
	type session struct {
		Scope   []string       `json:"grant_scope"`
		Request map[string]any `json:"consent_request"`
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	sessions := []session{}
	for client, scopes := range s.consents[subject] {
		sessions = append(sessions,
			session{scopes, map[string]any{"subject": subject, "client": map[string]string{"client_id": client}}})
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(sessions)
}

// revokeConsents handles `DELETE …/consent?subject=&client=` and `&all=true`. It
// responds with 204, also for an unknown subject.
func (s *store) revokeConsents(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	subject, client, all := query.Get("subject"), query.Get("client"), query.Get("all") == "true"
	if subject == "" || (client == "" && !all) {
		refuse(w)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for of := range s.consents[subject] {
		if all || of == client {
			_ = s.TerminateSession(r.Context(), subject, of)
			delete(s.consents[subject], of)
		}
	}
	w.WriteHeader(http.StatusNoContent)
}

func refuse(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusBadRequest)
	_, _ = w.Write([]byte(`{"error":"invalid_request"}`))
}
