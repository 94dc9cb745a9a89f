package scim

import (
	"net/http"
	"reflect"
	"slices"
	"strings"
	"unicode"

	"github.com/go-chi/chi/v5"
	"github.com/google/uuid"

	"github.com/leaverhq/leaver/internal/directory"
	"github.com/leaverhq/leaver/internal/lifecycle"
	"github.com/leaverhq/leaver/internal/tenant"
	"github.com/leaverhq/leaver/internal/textkey"
	"github.com/leaverhq/leaver/scim/filter"
	"github.com/leaverhq/leaver/scim/patch"
	"github.com/leaverhq/leaver/scim/schema"
)

// resourceHandler serves one resource type. At the root its name is empty, and it queries
// all types.
type resourceHandler struct {
	*Server
	name string
}

// resourceType returns the handler's resource type with the extensions of the caller's
// tenant.
func (h resourceHandler) resourceType(r *http.Request) (*schema.ResourceType, error) {
	types, err := h.types(r)
	if err != nil {
		return nil, err
	}
	return types[slices.IndexFunc(types, func(rt *schema.ResourceType) bool { return rt.Name == h.name })], nil
}

func readerFor(r *http.Request) patch.Reader {
	profile := sessionOf(r).Tenant.Profile
	interop := profile == tenant.ProfileInterop
	return patch.Reader{
		Strict: interop || profile == tenant.ProfileStrict, Interop: interop, SkipsMembers: profile == tenant.ProfileOkta,
	}
}

func cause(r *http.Request, trigger lifecycle.Trigger) lifecycle.Cause {
	return lifecycle.NewCause(r.Context(), trigger, sessionOf(r).Actor())
}

// id returns the id in the path, or [directory.ErrNotFound] if it is not a UUID.
func id(r *http.Request) (uuid.UUID, error) {
	id, ok := directory.ParseID(chi.URLParam(r, "id"))
	if !ok {
		return uuid.Nil, directory.ErrNotFound
	}
	return id, nil
}

func (h resourceHandler) create(w http.ResponseWriter, r *http.Request) {
	raw, err := h.read(w, r)
	if err == nil {
		err = h.createFrom(w, r, raw)
	}
	if err != nil {
		h.writeError(w, r, err)
	}
}

// read reads the body of a resource or of a PATCH.
func (h resourceHandler) read(w http.ResponseWriter, r *http.Request) (map[string]any, error) {
	if h.name == directory.TypeGroup {
		return h.readUpTo(w, r, maxGroupBody)
	}
	return h.readObject(w, r)
}

func (h resourceHandler) createFrom(w http.ResponseWriter, r *http.Request, raw map[string]any) error {
	rt, err := h.resourceType(r)
	if err != nil {
		return err
	}
	object, err := readerFor(r).Resource(rt, raw)
	if err == nil {
		err = patch.CheckRequired(rt, object)
	}
	if err != nil {
		return err
	}
	resource, err := toResource(readerFor(r), rt, object)
	if err == nil {
		err = checkName(rt, object)
	}
	if err == nil {
		err = checkSize(resource)
	}
	if err != nil {
		return err
	}
	if uniqueGroups(r, rt) {
		if err := claimGroupName(resource); err != nil {
			return err
		}
	}
	p, err := projectionOf(r, rt) // must fail before the commit
	if err != nil {
		return err
	}
	result, err := h.Lifecycle.Create(r.Context(), sessionOf(r).Tenant.ID, resource, cause(r, lifecycle.TriggerPost))
	if err != nil {
		return err
	}
	w.Header().Set("Location", location(rt, sessionOf(r).base, result.Resource.ID))
	return h.written(w, r, p, http.StatusCreated, result)
}

func (h resourceHandler) get(w http.ResponseWriter, r *http.Request) {
	if err := h.getOne(w, r); err != nil {
		h.writeError(w, r, err)
	}
}

func (h resourceHandler) getOne(w http.ResponseWriter, r *http.Request) error {
	id, err := id(r)
	if err != nil {
		return err
	}
	rt, err := h.resourceType(r)
	if err != nil {
		return err
	}
	p, err := projectionOf(r, rt)
	if err != nil {
		return err
	}
	resource, err := h.Directory.Get(r.Context(), sessionOf(r).Tenant.ID, rt.Name, id)
	if err != nil {
		return err
	}
	if match := r.Header.Get("If-None-Match"); match != "" && matchesETag(match, resource) {
		w.Header().Set("ETag", etag(resource))
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	return h.answer(w, r, p, http.StatusOK, resource)
}

func (h resourceHandler) replace(w http.ResponseWriter, r *http.Request) {
	h.update(w, r, lifecycle.TriggerPut, func(
		rt *schema.ResourceType, raw map[string]any, pathID uuid.UUID,
	) (lifecycle.Edit, error) {
		// A body for another resource must not change this one (Keycloak #46658).
		if !bodyIs(raw, pathID) {
			return nil, badRequest(schema.InvalidValue, "id must be that of the path, %s", pathID)
		}
		object, err := readerFor(r).Resource(rt, raw)
		if err != nil {
			return nil, err
		}
		return func(_ *lifecycle.Tx, current *directory.Resource) (*directory.Resource, error) {
			original, err := toObject(rt, current)
			if err != nil {
				return nil, err
			}
			after, err := h.edited(r, rt, current, original, schema.Clone(object).(schema.Object), true)
			if err == nil {
				// A PUT without members, which Okta sends to rename a group, keeps them (RFC 7644
				// section 3.5.1).
				after.Members.Clear = rt.Name == directory.TypeGroup && givesMembers(rt, raw)
			}
			return after, err
		}, nil
	})
}

func (h resourceHandler) patch(w http.ResponseWriter, r *http.Request) {
	h.update(w, r, lifecycle.TriggerPatch, func(
		rt *schema.ResourceType, raw map[string]any, _ uuid.UUID,
	) (lifecycle.Edit, error) {
		if err := wantMessage(raw, schema.PatchURN); err != nil {
			return nil, err
		}
		operations, err := patch.Parse(raw)
		if err != nil {
			return nil, err
		}
		return func(tx *lifecycle.Tx, current *directory.Resource) (*directory.Resource, error) {
			original, err := toObject(rt, current)
			if err != nil {
				return nil, err
			}
			match := func(added []uuid.UUID, where filter.Condition) ([]uuid.UUID, error) {
				return tx.MatchMembers(r.Context(), current.ID, added, where)
			}
			object, members, err := patch.Apply(rt, readerFor(r), original, operations, match)
			if err != nil {
				return nil, err
			}
			after, err := h.edited(r, rt, current, original, object, false)
			if err == nil {
				after.Members = members
			}
			return after, err
		}, nil
	})
}

func checkSize(r *directory.Resource) error {
	if len(r.Document) > schema.MaxDocument {
		return badRequest(schema.InvalidValue,
			"the resource must be at most %d bytes without its members, got %d", schema.MaxDocument, len(r.Document))
	}
	return nil
}

// checkName returns an error if a unique name begins or ends with white space (RFC 8265
// section 3.1), which people cannot see.
func checkName(rt *schema.ResourceType, o schema.Object) error {
	name, _ := o[rt.Unique].(string)
	if strings.TrimFunc(name, unicode.IsSpace) != name {
		return badRequest(schema.InvalidValue, "%s must not begin or end with white space, got %q", rt.Unique,
			schema.Clip(name))
	}
	return nil
}

// uniqueGroups reports whether the names of groups are unique. Microsoft's validator creates
// the same group twice and expects a conflict.
func uniqueGroups(r *http.Request, rt *schema.ResourceType) bool {
	return rt.Name == directory.TypeGroup && sessionOf(r).Tenant.Profile == tenant.ProfileEntra
}

func claimGroupName(group *directory.Resource) error {
	if len(group.Display) > schema.MaxName {
		return badRequest(schema.InvalidValue, "displayName must be at most %d bytes, got %d", schema.MaxName,
			len(group.Display))
	}
	if group.Unique == nil {
		group.Unique = make(map[string]string)
	}
	group.Unique["displayName"] = textkey.Fold(group.Display)
	return nil
}

// givesMembers reports whether the body of a group has members, including an empty list.
func givesMembers(rt *schema.ResourceType, raw map[string]any) bool {
	for key, value := range raw {
		schema, name := rt.SplitURN(key)
		if inner, ok := value.(map[string]any); ok && name == "" && schema == rt.Schema && givesMembers(rt, inner) {
			return true
		}
		if value != nil && schema == rt.Schema && strings.EqualFold(name, directory.EdgeMembers) {
			return true
		}
	}
	return false
}

// edited returns the resource after original is changed to object. replaced is set for a PUT.
func (h resourceHandler) edited(
	r *http.Request, rt *schema.ResourceType, current *directory.Resource, original, object schema.Object, replaced bool,
) (*directory.Resource, error) {
	// A PUT without active does not lift a deactivation.
	if replaced && original["active"] == false && object["active"] == nil {
		object["active"] = false
	}
	// A required attribute that the stored resource already lacks must not block a change.
	if err := patch.CheckRequired(rt, object); err != nil && patch.CheckRequired(rt, original) == nil {
		return nil, err
	}
	if err := patch.CheckMutability(rt, original, object, replaced); err != nil {
		return nil, err
	}
	after, err := toResource(readerFor(r), rt, object)
	if err != nil {
		return nil, err
	}
	if len(after.Document) > len(current.Document) { // an oversized stored document must not block a change
		if err := checkSize(after); err != nil {
			return nil, err
		}
	}
	after.ID, after.Version, after.Created = current.ID, current.Version, current.Created
	if rt.Unique != "" && object[rt.Unique] == original[rt.Unique] {
		after.UniqueName = current.UniqueName // valid even if a migration found a collision
	} else if err := checkName(rt, object); err != nil {
		return nil, err
	}
	if uniqueGroups(r, rt) && (object["displayName"] != original["displayName"] || after.Unique != nil) {
		if err := claimGroupName(after); err != nil {
			return nil, err
		}
	}
	after.Changed = difference(rt, original, object)
	return after, nil
}

// difference returns the names of the attributes, except edges, in which two objects differ.
// Numbers are compared as written, so that large integers do not become equal by rounding.
func difference(rt *schema.ResourceType, before, after schema.Object) []string {
	var changed []string
	for name, value := range after {
		if a := schema.FindAttribute(rt.Schema.Attributes, name); a != nil && (a.Edge || a.Discarded) {
			continue
		}
		if !reflect.DeepEqual(before[name], value) {
			changed = append(changed, name)
		}
	}
	for name := range before {
		if a := schema.FindAttribute(rt.Schema.Attributes, name); after[name] == nil && (a == nil || !a.Edge) {
			changed = append(changed, name)
		}
	}
	return changed
}

// update handles PUT and PATCH. prepare reads the body once, before the resource is looked
// up.
func (h resourceHandler) update(w http.ResponseWriter, r *http.Request, trigger lifecycle.Trigger,
	prepare func(rt *schema.ResourceType, raw map[string]any, id uuid.UUID) (lifecycle.Edit, error),
) {
	id, err := id(r)
	var rt *schema.ResourceType
	if err == nil {
		rt, err = h.resourceType(r)
	}
	var raw map[string]any
	if err == nil {
		raw, err = h.read(w, r)
	}
	var edit lifecycle.Edit
	if err == nil {
		edit, err = prepare(rt, raw, id)
	}
	if err == nil {
		err = h.modified(w, r, rt, id, trigger, edit)
	}
	if err != nil && rt != nil && h.mustDeactivate(r, rt, trigger, raw, id, err) {
		h.Log.WarnContext(r.Context(), "deactivated the principal; refused the rest of the request",
			"tenant", sessionOf(r).Tenant.Name, "type", rt.Name, "id", id, "reason", err)
		by := cause(r, trigger)
		// Only the log has the reason, because it may quote a value.
		by.Ignored = []string{"all but the deactivation: " + string(toError(err).Type)}
		deactivate := func(_ *lifecycle.Tx, current *directory.Resource) (*directory.Resource, error) {
			return lifecycle.Deactivated(current)
		}
		whole := r.Clone(r.Context())
		whole.URL.RawQuery = "" // which may be what was refused
		err = h.modifiedBy(w, whole, rt, id, by, deactivate)
	}
	if err != nil {
		h.writeError(w, r, err)
	}
}

func (h resourceHandler) modified(
	w http.ResponseWriter, r *http.Request, rt *schema.ResourceType, id uuid.UUID,
	trigger lifecycle.Trigger, edit lifecycle.Edit,
) error {
	return h.modifiedBy(w, r, rt, id, cause(r, trigger), edit)
}

func (h resourceHandler) modifiedBy(
	w http.ResponseWriter, r *http.Request, rt *schema.ResourceType, id uuid.UUID,
	by lifecycle.Cause, edit lifecycle.Edit,
) error {
	p, err := projectionOf(r, rt)
	if err != nil {
		return err
	}
	result, err := h.modify(r, rt, id, by, edit)
	if err != nil {
		return err
	}
	status := http.StatusOK
	// In the Entra profile, a PATCH of a group returns no body, which RFC 7644 section 3.5.2
	// allows unless attributes are requested.
	if by.Trigger == lifecycle.TriggerPatch && rt.Name == directory.TypeGroup &&
		sessionOf(r).Tenant.Profile == tenant.ProfileEntra && !r.URL.Query().Has("attributes") {
		status = http.StatusNoContent
	}
	return h.written(w, r, p, status, result)
}

func (h resourceHandler) modify(
	r *http.Request, rt *schema.ResourceType, id uuid.UUID, by lifecycle.Cause, edit lifecycle.Edit,
) (lifecycle.Result, error) {
	return h.Lifecycle.Update(r.Context(), sessionOf(r).Tenant.ID, rt.Name, id, by,
		func(tx *lifecycle.Tx, current *directory.Resource) (*directory.Resource, error) {
			if err := ifMatch(r, current); err != nil {
				return nil, err
			}
			after, err := edit(tx, current)
			if err != nil {
				return nil, err
			}
			return after, guardReactivation(r, current, after)
		})
}

func (h resourceHandler) delete(w http.ResponseWriter, r *http.Request) {
	id, err := id(r)
	var result lifecycle.Result
	if err == nil {
		result, err = h.Lifecycle.Delete(r.Context(), sessionOf(r).Tenant.ID, h.name, id,
			cause(r, lifecycle.TriggerDelete),
			func(current *directory.Resource) error { return ifMatch(r, current) })
	}
	if err != nil {
		h.writeError(w, r, err)
		return
	}
	h.Directory.InvalidateCounts(sessionOf(r).Tenant.ID)
	if !h.respondAsync(w, r, result) {
		w.WriteHeader(http.StatusNoContent)
	}
}

// written responds to a write with the current resource, or with the transaction if the
// client prefers not to wait.
func (h resourceHandler) written(
	w http.ResponseWriter, r *http.Request, p projection, status int, result lifecycle.Result,
) error {
	h.Directory.InvalidateCounts(sessionOf(r).Tenant.ID)
	if h.respondAsync(w, r, result) {
		return nil
	}
	return h.answer(w, r, p, status, result.Resource)
}

// projectionOf returns the projection that the request's query asks for.
func projectionOf(r *http.Request, rt *schema.ResourceType) (projection, error) {
	if r.URL.RawQuery == "" {
		return projection{rt: rt}, nil
	}
	query := r.URL.Query()
	return newProjection(rt, splitNames(query.Get("attributes")), splitNames(query.Get("excludedAttributes")))
}

// answer sends one resource with the projection p. With status 204 it sends only the ETag.
func (h resourceHandler) answer(
	w http.ResponseWriter, r *http.Request, p projection, status int, resource *directory.Resource,
) error {
	if status == http.StatusNoContent {
		w.Header().Set("ETag", etag(resource))
		w.WriteHeader(status)
		return nil
	}
	body, err := p.apply(render(p.rt, sessionOf(r).base, resource))
	if err != nil {
		return err
	}
	w.Header().Set("ETag", etag(resource))
	if resource.Type != directory.TypeGroup {
		writeBytes(w, status, body)
		return nil
	}
	members, err := h.members(r, []*directory.Resource{resource}, map[string]projection{p.rt.Name: p})
	if err != nil {
		return err
	}
	out := &bodyWriter{w: w, status: status}
	if err := members.write(r.Context(), out, p, resource, body); err != nil {
		return out.abort(err)
	}
	out.close()
	return nil
}

// ifMatch returns a 412 error if If-Match does not match the version (RFC 7644 section 3.14).
func ifMatch(r *http.Request, current *directory.Resource) error {
	if match := r.Header.Get("If-Match"); match != "" && !matchesETag(match, current) {
		return failure(http.StatusPreconditionFailed,
			"If-Match does not match the version of the resource, "+etag(current))
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

// guardReactivation returns a 409 error if a restricted agent is reactivated without an
// If-Match: the client must have seen its current state (Governed Agent Lifecycle Profile,
// 2026-09).
func guardReactivation(r *http.Request, before, after *directory.Resource) error {
	if before.Type != directory.TypeAgent || !before.Restricted() || after.Active == nil || !*after.Active {
		return nil
	}
	if match := strings.TrimSpace(r.Header.Get("If-Match")); match == "" || match == "*" {
		return failure(http.StatusConflict, "reactivating an agent requires If-Match with its version, "+etag(before))
	}
	return nil
}
