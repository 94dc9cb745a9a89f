package api

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/go-chi/chi/v5"

	"github.com/leaverhq/leaver/internal/auth"
	"github.com/leaverhq/leaver/internal/httpjson"
	"github.com/leaverhq/leaver/internal/mapping"
	"github.com/leaverhq/leaver/internal/tenant"
	"github.com/leaverhq/leaver/scim/schema"
)

func (s *Server) listIssuers(w http.ResponseWriter, r *http.Request) {
	issuers, err := s.Auth.Issuers(r.Context(), tenantOf(r).ID)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	answerPage(w, issuers, "")
}

func (s *Server) addIssuer(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Issuer   string     `json:"issuer"`
		Audience string     `json:"audience"`
		JWKSURL  string     `json:"jwksUrl"`
		Subjects []string   `json:"subjects"`
		Uses     []auth.Use `json:"uses"`

		IntrospectionURL string `json:"introspectionUrl"`
	}
	err := httpjson.Decode(w, r, &body)
	var added auth.Issuer
	if err == nil {
		added, err = s.Auth.AddIssuer(r.Context(), tenantOf(r).ID, auth.Issuer{
			Issuer: body.Issuer, Audience: body.Audience, JWKSURL: body.JWKSURL, Subjects: body.Subjects, Uses: body.Uses,
			IntrospectionURL: body.IntrospectionURL,
		})
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	httpjson.Answer(w, http.StatusCreated, added)
}

func (s *Server) removeIssuer(w http.ResponseWriter, r *http.Request) {
	id, err := pathID(r)
	if err == nil {
		err = s.Auth.RemoveIssuer(r.Context(), tenantOf(r).ID, id)
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func (s *Server) listSchemas(w http.ResponseWriter, r *http.Request) {
	schemas, err := s.Tenants.Schemas(r.Context(), tenantOf(r).ID)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	answerPage(w, schemas, "")
}

func (s *Server) putSchema(w http.ResponseWriter, r *http.Request) {
	var body struct {
		ResourceType string          `json:"resourceType"`
		Schema       json.RawMessage `json:"schema"`
	}
	err := httpjson.Decode(w, r, &body)
	declared := tenant.Schema{ResourceType: body.ResourceType, Definition: body.Schema}
	if err == nil {
		declared, err = s.Tenants.PutSchema(r.Context(), tenantOf(r).ID, declared,
			func(declared tenant.Schema, existing []tenant.Schema) (tenant.Schema, error) {
				checked, err := s.CheckSchema(declared, existing)
				if err == nil && checked.URN != urn(r) {
					err = &schema.DeclarationError{Path: "id", Reason: "must be the URN in the path"}
				}
				if err != nil {
					return checked, err
				}
				others := slices.DeleteFunc(slices.Clone(existing), func(e tenant.Schema) bool {
					return strings.EqualFold(e.URN, checked.URN)
				})
				return checked, s.keepsMapping(r, append(others, checked))
			})
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	httpjson.Answer(w, http.StatusOK, declared)
}

func (s *Server) deleteSchema(w http.ResponseWriter, r *http.Request) {
	if err := s.Tenants.DeleteSchema(r.Context(), tenantOf(r).ID, urn(r), func(left []tenant.Schema) error {
		return s.keepsMapping(r, left)
	}); err != nil {
		s.fail(w, r, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// keepsMapping returns 409 if the current mapping is not valid with the schemas.
func (s *Server) keepsMapping(r *http.Request, schemas []tenant.Schema) error {
	err := s.Entitlements.Check(r.Context(), tenantOf(r).ID, schemas)
	var rule *mapping.Error
	if errors.As(err, &rule) {
		return httpjson.Problem{Status: http.StatusConflict, Detail: "the mapping depends on the schema: " + rule.Error()}
	}
	return err
}

// urn returns the URN in the path. Some clients escape its colons.
func urn(r *http.Request) string {
	text := chi.URLParam(r, "urn")
	if plain, err := url.PathUnescape(text); err == nil {
		return plain
	}
	return text
}

func (s *Server) listChanges(w http.ResponseWriter, r *http.Request) {
	n, err := limit(r)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	resource, err := queryID(r, "resource")
	if err != nil {
		s.fail(w, r, err)
		return
	}
	before, err := queryCursor(r)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	changes, err := s.Audit.Changes(r.Context(), tenantOf(r).ID, resource, before, n)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	next := ""
	if len(changes) == n {
		next = strconv.FormatInt(changes[n-1].ID, 10)
	}
	answerPage(w, changes, next)
}
