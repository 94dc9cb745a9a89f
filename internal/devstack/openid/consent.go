package openid

import (
	"encoding/json"
	"net/http"

	"github.com/zitadel/oidc/v3/pkg/op"
)

// consentPath is where Ory Hydra's admin API has consent sessions. The provider
// answers there as Hydra does, for its own tokens: a grant that is revoked takes
// all of them with it.
const consentPath = "/admin/oauth2/auth/sessions/consent"

// AdminURL is the base of the admin API.
func (p *Provider) AdminURL() string { return p.Issuer }

// consent notes a grant; the store is locked.
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

// listConsents is `GET …/consent?subject=`: an unknown subject has none.
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
		sessions = append(sessions, session{scopes, map[string]any{"subject": subject, "client": map[string]string{"client_id": client}}})
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(sessions)
}

// revokeConsents is `DELETE …/consent?subject=&client=` or `&all=true`: 204, for
// an unknown subject too.
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
