package scim

import (
	"net/http"
	"strings"

	"github.com/go-chi/chi/v5"
	"github.com/google/uuid"

	"github.com/leaverhq/leaver/internal/directory"
	"github.com/leaverhq/leaver/internal/lifecycle"
	"github.com/leaverhq/leaver/internal/tenant"
)

// resourceHandler serves one resource type: all take the same path.
type resourceHandler struct {
	*Server
	rt *ResourceType
}

func (h resourceHandler) reader(r *http.Request) reader {
	return reader{strict: caller(r).Tenant.Profile == tenant.ProfileStrict}
}

func cause(r *http.Request, trigger string) lifecycle.Cause {
	return lifecycle.Cause{Trigger: trigger, Actor: caller(r).Actor()}
}

// id reads the path's id. One that is no UUID names no resource.
func id(r *http.Request) (uuid.UUID, error) {
	text := chi.URLParam(r, "id")
	id, err := uuid.Parse(text)
	if err != nil || len(text) != len(id.String()) {
		return uuid.Nil, directory.ErrNotFound
	}
	return id, nil
}

func (h resourceHandler) create(w http.ResponseWriter, r *http.Request) {
	raw, err := readObject(w, r)
	if err != nil {
		h.writeError(w, r, err)
		return
	}
	resource, err := h.read(r, raw)
	if err != nil {
		h.writeError(w, r, err)
		return
	}
	stored, err := h.lifecycle.Create(r.Context(), caller(r).Tenant.ID, resource, cause(r, "scim-post"))
	if err != nil {
		h.writeError(w, r, err)
		return
	}
	w.Header().Set("Location", h.rt.location(h.base(r), stored.ID))
	h.answer(w, r, http.StatusCreated, stored)
}

// read turns a POST's or PUT's body into a resource.
func (h resourceHandler) read(r *http.Request, raw map[string]any) (*directory.Resource, error) {
	object, err := h.reader(r).resource(h.rt, raw)
	if err != nil {
		return nil, err
	}
	if err := checkRequired(h.rt, object); err != nil {
		return nil, err
	}
	return toResource(h.rt, object)
}

func (h resourceHandler) get(w http.ResponseWriter, r *http.Request) {
	id, err := id(r)
	if err != nil {
		h.writeError(w, r, err)
		return
	}
	resource, err := h.directory.Get(r.Context(), caller(r).Tenant.ID, h.rt.Name, id)
	if err != nil {
		h.writeError(w, r, err)
		return
	}
	if match := r.Header.Get("If-None-Match"); match != "" && matchesETag(match, resource) {
		w.Header().Set("ETag", etag(resource))
		w.WriteHeader(http.StatusNotModified)
		return
	}
	h.answer(w, r, http.StatusOK, resource)
}

func (h resourceHandler) replace(w http.ResponseWriter, r *http.Request) {
	h.update(w, r, "scim-put", func(raw map[string]any, pathID uuid.UUID) (edit, error) {
		// A body for another resource must not change this one (Keycloak #46658).
		if bodyID, ok := raw["id"].(string); ok && bodyID != "" && !strings.EqualFold(bodyID, pathID.String()) {
			return nil, badRequest(invalidValue, "the body's id is not the path's")
		}
		resource, err := h.read(r, raw)
		if err != nil {
			return nil, err
		}
		return func(current *directory.Resource) (*directory.Resource, error) {
			resource.ID, resource.Version, resource.Created = current.ID, current.Version, current.Created
			return resource, nil
		}, nil
	})
}

func (h resourceHandler) patch(w http.ResponseWriter, r *http.Request) {
	h.update(w, r, "scim-patch", func(raw map[string]any, _ uuid.UUID) (edit, error) {
		operations, err := parsePatch(raw)
		if err != nil {
			return nil, err
		}
		return func(current *directory.Resource) (*directory.Resource, error) {
			original, err := toObject(h.rt, current)
			if err != nil {
				return nil, err
			}
			object, err := patch(h.rt, h.reader(r), original, operations)
			if err != nil {
				return nil, err
			}
			// What the stored record lacked already fails nobody's change.
			if err := checkRequired(h.rt, object); err != nil && checkRequired(h.rt, original) == nil {
				return nil, err
			}
			after, err := toResource(h.rt, object)
			if err != nil {
				return nil, err
			}
			after.ID, after.Version, after.Created = current.ID, current.Version, current.Created
			return after, nil
		}, nil
	})
}

type edit = func(*directory.Resource) (*directory.Resource, error)

// update is what PUT and PATCH share: prepare reads the body before anything
// is locked, and the edit it returns runs under the resource's lock.
func (h resourceHandler) update(w http.ResponseWriter, r *http.Request, trigger string,
	prepare func(raw map[string]any, id uuid.UUID) (edit, error),
) {
	id, err := id(r)
	if err != nil {
		h.writeError(w, r, err)
		return
	}
	raw, err := readObject(w, r)
	if err != nil {
		h.writeError(w, r, err)
		return
	}
	change, err := prepare(raw, id)
	if err != nil {
		h.writeError(w, r, err)
		return
	}
	stored, err := h.lifecycle.Update(r.Context(), caller(r).Tenant.ID, h.rt.Name, id, cause(r, trigger),
		func(current *directory.Resource) (*directory.Resource, error) {
			if err := ifMatch(r, current); err != nil {
				return nil, err
			}
			after, err := change(current)
			if err != nil {
				return nil, err
			}
			return after, guardReactivation(r, current, after)
		})
	if err != nil {
		h.writeError(w, r, err)
		return
	}
	if trigger == "scim-patch" && h.rt.Name == directory.TypeGroup && caller(r).Tenant.Profile == tenant.ProfileEntra {
		w.Header().Set("ETag", etag(stored))
		w.WriteHeader(http.StatusNoContent)
		return
	}
	h.answer(w, r, http.StatusOK, stored)
}

func (h resourceHandler) delete(w http.ResponseWriter, r *http.Request) {
	id, err := id(r)
	if err == nil {
		err = h.lifecycle.Delete(r.Context(), caller(r).Tenant.ID, h.rt.Name, id, cause(r, lifecycle.TriggerDelete),
			func(current *directory.Resource) error { return ifMatch(r, current) })
	}
	if err != nil {
		h.writeError(w, r, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// answer sends one resource, projected as the request asks.
func (h resourceHandler) answer(w http.ResponseWriter, r *http.Request, status int, resource *directory.Resource) {
	p, err := parseProjection(h.rt, r.URL.Query())
	if err != nil {
		h.writeError(w, r, err)
		return
	}
	body, err := p.apply(h.rt.render(h.base(r), resource))
	if err != nil {
		h.writeError(w, r, err)
		return
	}
	w.Header().Set("ETag", etag(resource))
	writeBytes(w, status, body)
}

// ifMatch is the precondition of RFC 7644 section 3.14.
func ifMatch(r *http.Request, current *directory.Resource) error {
	if match := r.Header.Get("If-Match"); match != "" && !matchesETag(match, current) {
		return failure(http.StatusPreconditionFailed, "the resource has changed: its version is "+etag(current))
	}
	return nil
}

func matchesETag(header string, resource *directory.Resource) bool {
	for candidate := range strings.SplitSeq(header, ",") {
		candidate = strings.TrimSpace(candidate)
		if candidate == "*" || strings.TrimPrefix(candidate, "W/") == strings.TrimPrefix(etag(resource), "W/") {
			return true
		}
	}
	return false
}

// guardReactivation: an agent that was ended comes back only by a client that
// has seen its current state (Governed Agent Lifecycle Profile, 2026-09).
func guardReactivation(r *http.Request, before, after *directory.Resource) error {
	if before.Type != directory.TypeAgent || !before.Restricted || after.Active == nil || !*after.Active {
		return nil
	}
	if r.Header.Get("If-Match") == "" {
		return failure(http.StatusConflict, "reactivating an agent needs If-Match with its version, which is "+etag(before))
	}
	return nil
}
