package api

import (
	"encoding/json"
	"net/http"

	"github.com/leaverhq/leaver/internal/auth"
	"github.com/leaverhq/leaver/internal/httpjson"
)

func (s *Server) listClients(w http.ResponseWriter, r *http.Request) {
	clients, err := s.Auth.Clients(r.Context(), tenantOf(r).ID)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	answerPage(w, clients, "")
}

func (s *Server) addClient(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Description string          `json:"description"`
		Scopes      []auth.Scope    `json:"scopes"`
		JWKSURL     string          `json:"jwksUrl"`
		JWKS        json.RawMessage `json:"jwks"`
		Issuer      string          `json:"issuer"`
	}
	err := httpjson.Decode(w, r, &body)
	var added auth.Client
	if err == nil {
		added, err = s.Auth.AddClient(r.Context(), tenantOf(r).ID, auth.Client{
			Description: body.Description, Scopes: body.Scopes, JWKSURL: body.JWKSURL, JWKS: body.JWKS, Issuer: body.Issuer,
		})
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	httpjson.Answer(w, http.StatusCreated, added)
}

func (s *Server) removeClient(w http.ResponseWriter, r *http.Request) {
	id, err := pathID(r)
	if err == nil {
		err = s.Auth.RemoveClient(r.Context(), tenantOf(r).ID, id)
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}
