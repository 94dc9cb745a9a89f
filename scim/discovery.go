package scim

import (
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/go-chi/chi/v5"

	"github.com/leaverhq/leaver/internal/ssf"
	"github.com/leaverhq/leaver/internal/tenant"
	"github.com/leaverhq/leaver/scim/schema"
)

type supported struct {
	Supported bool `json:"supported"`
}

type meta struct {
	ResourceType string `json:"resourceType"`
	Location     string `json:"location"`
}

// serviceProviderConfig serves the ServiceProviderConfig (RFC 7643 section 5).
func (s *Server) serviceProviderConfig(w http.ResponseWriter, r *http.Request) {
	type bulk struct {
		supported
		MaxOperations  int `json:"maxOperations"`
		MaxPayloadSize int `json:"maxPayloadSize"`
	}
	type filter struct {
		supported
		MaxResults int `json:"maxResults"`
	}
	type scheme struct {
		Type        string `json:"type"`
		Name        string `json:"name"`
		Description string `json:"description"`
		Primary     bool   `json:"primary"`
	}
	type pagination struct {
		Cursor        bool   `json:"cursor"`
		Index         bool   `json:"index"`
		Method        string `json:"defaultPaginationMethod"`
		DefaultSize   int    `json:"defaultPageSize"`
		MaxSize       int    `json:"maxPageSize"`
		CursorTimeout int    `json:"cursorTimeout"` // seconds
	}
	type securityEvents struct {
		AsyncRequest string   `json:"asyncRequest"`
		EventURIs    []string `json:"eventUris"`
	}
	writeJSON(w, http.StatusOK, struct {
		Schemas        []string       `json:"schemas"`
		Documentation  string         `json:"documentationUri"`
		Patch          supported      `json:"patch"`
		Bulk           bulk           `json:"bulk"`
		Filter         filter         `json:"filter"`
		ChangePassword supported      `json:"changePassword"`
		Sort           supported      `json:"sort"`
		ETag           supported      `json:"etag"`
		Pagination     pagination     `json:"pagination"`
		SecurityEvents securityEvents `json:"securityEvents"`
		Authentication []scheme       `json:"authenticationSchemes"`
		// Interop is a member of draft-zollner-scim-interop-profile section 4.
		Interop bool `json:"interopProfileConformant,omitempty"`
		Meta    meta `json:"meta"`
	}{
		Schemas:       []string{schema.ServiceConfigURN},
		Documentation: "https://github.com/leaverhq/leaver/blob/main/docs/SCIM.md",
		Patch:         supported{true}, Bulk: bulk{supported{true}, maxBulk, maxBody},
		Filter: filter{supported{true}, maxCount},
		Sort:   supported{true}, ETag: supported{true},
		Pagination:     pagination{true, true, "index", defaultCount, maxCount, int(cursorTimeout.Seconds())},
		SecurityEvents: securityEvents{"request", provisioningEvents()},
		Authentication: []scheme{
			{
				"oauthbearertoken", "Bearer token",
				"A token of class scim, created with `leaver token create`, or an access token of the tenant's token endpoint " +
					"for a client that was added with `leaver client add`.", true,
			},
			{"oauth2", "OAuth 2.0 JWT", "A JWT of a trusted issuer, added with `leaver issuer add`.", false},
		},
		Interop: sessionOf(r).Tenant.Profile == tenant.ProfileInterop,
		Meta:    meta{"ServiceProviderConfig", sessionOf(r).base + "/ServiceProviderConfig"},
	})
}

type resourceTypeBody struct {
	Schemas          []string        `json:"schemas"`
	ID               string          `json:"id"`
	Name             string          `json:"name"`
	Endpoint         string          `json:"endpoint"`
	Description      string          `json:"description"`
	Schema           string          `json:"schema"`
	SchemaExtensions []extensionBody `json:"schemaExtensions,omitempty"`
	Meta             meta            `json:"meta"`
}

type extensionBody struct {
	Schema   string `json:"schema"`
	Required bool   `json:"required"`
}

func (s *Server) resourceTypeBodies(r *http.Request) ([]resourceTypeBody, error) {
	types, err := s.types(r)
	if err != nil {
		return nil, err
	}
	var bodies []resourceTypeBody
	for _, rt := range types {
		body := resourceTypeBody{
			Schemas: []string{schema.ResourceTypeURN}, ID: rt.Name, Name: rt.Name, Endpoint: rt.Endpoint,
			Description: rt.Schema.Description, Schema: rt.Schema.ID,
			Meta: meta{"ResourceType", sessionOf(r).base + "/ResourceTypes/" + rt.Name},
		}
		for _, extension := range rt.Extensions {
			body.SchemaExtensions = append(body.SchemaExtensions, extensionBody{Schema: extension.ID})
		}
		bodies = append(bodies, body)
	}
	return bodies, nil
}

func (s *Server) resourceTypes(w http.ResponseWriter, r *http.Request) {
	bodies, err := s.resourceTypeBodies(r)
	writeDiscovery(s, w, r, bodies, err)
}

func (s *Server) resourceType(w http.ResponseWriter, r *http.Request) {
	bodies, err := s.resourceTypeBodies(r)
	writeDiscovered(s, w, r, bodies, err, func(b resourceTypeBody) bool { return b.Name == chi.URLParam(r, "name") })
}

type schemaBody struct {
	Schemas []string `json:"schemas"`
	schema.Schema
	Meta meta `json:"meta"`
}

// schemaBodies returns all schemas, each once: the lifecycle extension belongs to two
// types.
func (s *Server) schemaBodies(r *http.Request) ([]schemaBody, error) {
	types, err := s.types(r)
	if err != nil {
		return nil, err
	}
	var bodies []schemaBody
	seen := make(map[string]bool)
	for _, rt := range types {
		for _, within := range rt.Schemas() {
			if !seen[within.ID] {
				seen[within.ID] = true
				location := sessionOf(r).base + "/Schemas/" + within.ID
				bodies = append(bodies, schemaBody{[]string{schema.SchemaURN}, *within, meta{"Schema", location}})
			}
		}
	}
	return bodies, nil
}

// provisioningEvents returns the events of RFC 9967 that are sent to receivers.
func provisioningEvents() []string {
	return slices.DeleteFunc(ssf.Events(), func(e string) bool {
		return !strings.HasPrefix(e, "urn:ietf:params:scim:event:")
	})
}

func (s *Server) listSchemas(w http.ResponseWriter, r *http.Request) {
	bodies, err := s.schemaBodies(r)
	writeDiscovery(s, w, r, bodies, err)
}

func (s *Server) schema(w http.ResponseWriter, r *http.Request) {
	bodies, err := s.schemaBodies(r)
	urn := chi.URLParam(r, "urn")
	if plain, err := url.PathUnescape(urn); err == nil {
		urn = plain // some clients escape the colons
	}
	writeDiscovered(s, w, r, bodies, err, func(b schemaBody) bool { return strings.EqualFold(b.ID, urn) })
}

// writeDiscovered sends the first body for which is returns true, or responds 404.
func writeDiscovered[T any](s *Server, w http.ResponseWriter, r *http.Request, bodies []T, err error, is func(T) bool) {
	if i := slices.IndexFunc(bodies, is); err == nil && i >= 0 {
		writeJSON(w, http.StatusOK, bodies[i])
		return
	}
	if err == nil {
		err = failure(http.StatusNotFound, "no such schema or resource type")
	}
	s.writeError(w, r, err)
}

// writeDiscovery sends a list of all bodies. It rejects a filter, so that no client takes
// the whole list for the matches (RFC 7644 section 4).
func writeDiscovery[T any](s *Server, w http.ResponseWriter, r *http.Request, bodies []T, err error) {
	if err == nil && r.URL.Query().Get("filter") != "" {
		err = failure(http.StatusForbidden, "discovery endpoints do not support filters")
	}
	if err != nil {
		s.writeError(w, r, err)
		return
	}
	writeJSON(w, http.StatusOK, struct {
		Schemas      []string `json:"schemas"`
		TotalResults int      `json:"totalResults"`
		StartIndex   int      `json:"startIndex"`
		ItemsPerPage int      `json:"itemsPerPage"`
		Resources    []T      `json:"Resources"`
	}{[]string{schema.ListURN}, len(bodies), 1, len(bodies), bodies})
}

// me responds 501, because the caller is an IdP and not a resource (RFC 7644 section 3.11).
func (s *Server) me(w http.ResponseWriter, r *http.Request) {
	s.writeError(w, r, failure(http.StatusNotImplemented,
		"/Me is not supported: a SCIM token does not belong to a user"))
}
