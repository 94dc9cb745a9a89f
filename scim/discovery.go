package scim

import (
	"net/http"
	"strings"

	"github.com/go-chi/chi/v5"
)

type supported struct {
	Supported bool `json:"supported"`
}

type meta struct {
	ResourceType string `json:"resourceType"`
	Location     string `json:"location"`
}

// serviceProviderConfig tells what is there (RFC 7643 section 5).
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
	writeJSON(w, http.StatusOK, struct {
		Schemas        []string  `json:"schemas"`
		Patch          supported `json:"patch"`
		Bulk           bulk      `json:"bulk"`
		Filter         filter    `json:"filter"`
		ChangePassword supported `json:"changePassword"`
		Sort           supported `json:"sort"`
		ETag           supported `json:"etag"`
		Authentication []scheme  `json:"authenticationSchemes"`
		Meta           meta      `json:"meta"`
	}{
		Schemas: []string{serviceConfigURN}, Patch: supported{true}, Bulk: bulk{MaxPayloadSize: maxBody},
		Filter: filter{supported{true}, maxCount}, ETag: supported{true},
		Authentication: []scheme{{"oauthbearertoken", "Bearer token", "A token of class scim, made by `leaver token create`.", true}},
		Meta:           meta{"ServiceProviderConfig", s.base(r) + "/ServiceProviderConfig"},
	})
}

type resourceTypeBody struct {
	Schemas          []string        `json:"schemas"`
	ID               string          `json:"id"`
	Name             string          `json:"name"`
	Endpoint         string          `json:"endpoint"`
	Schema           string          `json:"schema"`
	SchemaExtensions []extensionBody `json:"schemaExtensions,omitempty"`
	Meta             meta            `json:"meta"`
}

type extensionBody struct {
	Schema   string `json:"schema"`
	Required bool   `json:"required"`
}

func (s *Server) resourceTypeBodies(r *http.Request) []resourceTypeBody {
	var bodies []resourceTypeBody
	for _, rt := range s.types {
		body := resourceTypeBody{
			Schemas: []string{resourceTypeURN}, ID: rt.Name, Name: rt.Name, Endpoint: rt.Endpoint, Schema: rt.Schema.ID,
			Meta: meta{"ResourceType", s.base(r) + "/ResourceTypes/" + rt.Name},
		}
		for _, extension := range rt.Extensions {
			body.SchemaExtensions = append(body.SchemaExtensions, extensionBody{Schema: extension.ID})
		}
		bodies = append(bodies, body)
	}
	return bodies
}

func (s *Server) resourceTypes(w http.ResponseWriter, r *http.Request) {
	bodies := s.resourceTypeBodies(r)
	writeDiscovery(s, w, r, bodies)
}

func (s *Server) resourceType(w http.ResponseWriter, r *http.Request) {
	for _, body := range s.resourceTypeBodies(r) {
		if body.Name == chi.URLParam(r, "name") {
			writeJSON(w, http.StatusOK, body)
			return
		}
	}
	s.writeError(w, r, failure(http.StatusNotFound, "no such resource type"))
}

type schemaBody struct {
	Schemas []string `json:"schemas"`
	Schema
	Meta meta `json:"meta"`
}

func (s *Server) schemaBodies(r *http.Request) []schemaBody {
	var bodies []schemaBody
	for _, rt := range s.types {
		for _, schema := range rt.schemas() {
			bodies = append(bodies, schemaBody{[]string{schemaURN}, *schema, meta{"Schema", s.base(r) + "/Schemas/" + schema.ID}})
		}
	}
	return bodies
}

func (s *Server) schemas(w http.ResponseWriter, r *http.Request) {
	writeDiscovery(s, w, r, s.schemaBodies(r))
}

func (s *Server) schema(w http.ResponseWriter, r *http.Request) {
	for _, body := range s.schemaBodies(r) {
		if strings.EqualFold(body.ID, chi.URLParam(r, "urn")) {
			writeJSON(w, http.StatusOK, body)
			return
		}
	}
	s.writeError(w, r, failure(http.StatusNotFound, "no such schema"))
}

// writeDiscovery lists all. A filter is refused, so that nobody takes the
// whole list for its answer (RFC 7644 section 4).
func writeDiscovery[T any](s *Server, w http.ResponseWriter, r *http.Request, bodies []T) {
	if r.URL.Query().Get("filter") != "" {
		s.writeError(w, r, failure(http.StatusForbidden, "discovery endpoints take no filter"))
		return
	}
	writeList(w, bodies, len(bodies), 1)
}

// me: the caller is an IdP, which is no resource (RFC 7644 section 3.11).
func (s *Server) me(w http.ResponseWriter, r *http.Request) {
	s.writeError(w, r, failure(http.StatusNotImplemented, "a SCIM token belongs to no user"))
}
