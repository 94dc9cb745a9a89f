// Package patch reads resources and applies PATCH operations (RFC 7644 section 3.5.2) by their schemas.
// It knows no HTTP and no database.
package patch

import (
	"errors"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/google/uuid"

	"github.com/leaverhq/leaver/internal/textkey"
	"github.com/leaverhq/leaver/scim/filter"
	"github.com/leaverhq/leaver/scim/schema"
)

const (
	// MaxOperations bounds the operations of one PATCH.
	MaxOperations = 1000
	// maxComparisons bounds the comparisons of list elements by one PATCH, one per element
	// and comparison of a value filter. The size of a message does not bound this work.
	maxComparisons = 100_000
)

// Operation is one operation of a PATCH (RFC 7644 section 3.5.2).
type Operation struct {
	Op       string // add, replace or remove
	Path     string
	HasPath  bool
	Value    any
	HasValue bool
	// inValue is set if the path is a name in the value of an operation without a path.
	inValue bool
}

// Parse parses a PatchOp message. Names and ops are case-insensitive.
func Parse(body map[string]any) ([]Operation, error) {
	var list []any
	found := false
	for key, value := range body {
		if strings.EqualFold(key, "Operations") {
			list, found = value.([]any)
		}
	}
	if !found || len(list) == 0 {
		return nil, schema.Errorf(schema.InvalidSyntax, "Operations must be a non-empty array")
	}
	if len(list) > MaxOperations {
		return nil, schema.Errorf(schema.TooMany, "Operations must have at most %d elements, got %d", MaxOperations,
			len(list))
	}
	operations := make([]Operation, 0, len(list))
	for _, v := range list {
		members, ok := v.(map[string]any)
		if !ok {
			return nil, schema.Errorf(schema.InvalidSyntax, "each operation must be an object")
		}
		o, err := ParseOperation(members)
		if err != nil {
			return nil, err
		}
		operations = append(operations, o)
	}
	return operations, nil
}

// ParseOperation parses one operation of a PatchOp message.
func ParseOperation(members map[string]any) (Operation, error) {
	var o Operation
	for key, value := range members {
		switch strings.ToLower(key) {
		case "op":
			op, _ := value.(string)
			o.Op = strings.ToLower(op)
		case "path":
			path, ok := value.(string)
			if value != nil && !ok {
				return o, schema.Errorf(schema.InvalidPath, "path must be a string")
			}
			o.Path, o.HasPath = path, strings.TrimSpace(path) != ""
		case "value":
			o.Value, o.HasValue = value, true
		}
	}
	switch o.Op {
	case "add", "replace":
		if !o.HasValue {
			return o, schema.Errorf(schema.InvalidValue, "%s requires a value", o.Op)
		}
	case "remove":
		o.HasValue = o.HasValue && o.Value != nil // null is the same as no value
		if !o.HasPath {
			return o, schema.Errorf(schema.NoTarget, "remove requires a path")
		}
	default:
		return o, schema.Errorf(schema.InvalidSyntax, "op must be one of add, replace, remove, got %q", schema.Clip(o.Op))
	}
	return o, nil
}

// matcher returns the current members of the group, and the added ones, that match a
// condition.
type matcher func(added []uuid.UUID, where filter.Condition) ([]uuid.UUID, error)

// Apply applies operations in order to a copy of the resource and returns the copy, or an
// error if any operation fails. It returns changes of a group's members separately.
func Apply(
	rt *schema.ResourceType, rd Reader, current schema.Object, operations []Operation, match matcher,
) (schema.Object, Delta, error) {
	left := maxComparisons
	p := patcher{
		rt: rt, reader: rd, object: schema.Clone(current).(schema.Object), match: match,
		delta: &Delta{SkipUnknown: rd.SkipsMembers}, left: &left,
	}
	for _, o := range operations {
		if err := p.apply(o); err != nil {
			return nil, Delta{}, err
		}
	}
	return prune(p.object, rt), *p.delta, nil
}

type patcher struct {
	rt     *schema.ResourceType
	reader Reader
	object schema.Object
	match  matcher
	delta  *Delta
	left   *int // remaining comparisons
}

// spend deducts comparisons from the PATCH's budget. It returns an error if the budget is
// exhausted.
func (p patcher) spend(comparisons int) error {
	if *p.left -= comparisons; *p.left < 0 {
		return schema.Errorf(schema.TooMany,
			"the operations need more than %d comparisons of list elements: split them into several PATCH requests",
			maxComparisons)
	}
	return nil
}

func (p patcher) apply(o Operation) error {
	if o.HasPath {
		return p.on(o)
	}
	if p.reader.Interop {
		return schema.Errorf(schema.InvalidSyntax, "%s requires a path", o.Op)
	}
	// Without a path, the names in the value are the paths; they may have dots and URNs.
	members, ok := o.Value.(map[string]any)
	if !ok {
		return schema.Errorf(schema.InvalidValue, "%s without a path requires an object as value", o.Op)
	}
	for _, name := range slices.Sorted(maps.Keys(members)) {
		if err := p.member(o.Op, name, members[name]); err != nil {
			return err
		}
	}
	return nil
}

func (p patcher) member(op, name string, value any) error {
	if strings.EqualFold(name, "schemas") {
		return nil
	}
	return p.on(Operation{Op: op, Path: name, HasPath: true, Value: value, HasValue: true, inValue: true})
}

// on applies an operation with a path.
func (p patcher) on(o Operation) error {
	t, err := p.path(o.Path)
	switch {
	case err != nil:
		return err
	case t == nil && o.Op != "remove":
		return misdirected(p.rt, o.Path, o.Value)
	case t == nil:
		return nil
	}
	return p.at(t, o)
}

func (p patcher) at(t *target, o Operation) error {
	switch {
	case t.ignored, t.readOnly && t.attr.Name == "groups":
		if o.inValue {
			return nil // clients echo these attributes
		}
		return p.readOnly(o.Path)
	case t.whole && t.schema.ID == schema.LifecycleURN:
		return p.readOnly(t.schema.ID)
	case t.whole:
		return p.schema(t.schema, o)
	case t.readOnly:
		return p.readOnly(t.name())
	case t.attr.Unbounded:
		return p.members(t, o)
	}
	in := container(p.object, p.rt, t.schema)
	switch {
	case o.Op == "remove":
		return p.remove(in, t, o)
	case t.attr.MultiValued && (t.where != nil || t.sub != nil):
		return p.elements(in, t, o)
	case t.attr.MultiValued:
		return p.list(in, t, o)
	case t.sub != nil:
		return p.subAttribute(in, t, o.Value)
	}
	return p.simple(in, t, o)
}

// readOnly rejects an operation on a read-only attribute for a strict tenant, and ignores it
// for others.
func (p patcher) readOnly(name string) error {
	if p.reader.Strict {
		return schema.Errorf(schema.NotMutable, "%s is read-only", schema.Clip(name))
	}
	return nil
}

// path resolves a path. It returns nil for a path to ignore.
func (p patcher) path(text string) (*target, error) {
	t, err := parsePath(p.rt, text)
	var unknown *unknownAttributeError
	switch {
	case errors.As(err, &unknown) && !p.reader.Strict:
		return nil, nil //nolint:nilnil // ignored is a value here
	case errors.As(err, &unknown):
		return nil, schema.Errorf(p.reader.unknown(schema.InvalidPath), "%s", unknown.Error())
	}
	return t, err
}

// schema applies an operation to a schema as a whole.
func (p patcher) schema(s *schema.Schema, o Operation) error {
	if o.Op == "remove" {
		if s != p.rt.Schema {
			delete(p.object, s.ID)
		}
		return nil
	}
	members, ok := o.Value.(map[string]any)
	if !ok {
		return schema.Errorf(schema.InvalidValue, "%s must be an object", s.ID)
	}
	for _, name := range slices.Sorted(maps.Keys(members)) {
		if strings.EqualFold(name, "schemas") {
			continue
		}
		if err := p.member(o.Op, s.ID+":"+name, members[name]); err != nil {
			return err
		}
	}
	return nil
}

func (p patcher) simple(in schema.Object, t *target, o Operation) error {
	value, err := p.reader.value(t.attr, o.Value)
	if err != nil {
		return err
	}
	have, isObject := in[t.attr.Name].(schema.Object)
	if members, ok := o.Value.(map[string]any); ok && isObject && removeNulls(have, t.attr, members) {
		if len(have) == 0 {
			delete(in, t.attr.Name)
		}
		if value == nil {
			return nil
		}
	}
	if value == nil {
		delete(in, t.attr.Name)
		return nil
	}
	// Sub-attributes that are not given are kept (RFC 7644 section 3.5.2.3). An edge is
	// replaced as a whole.
	merges := !p.reader.Interop || o.Op != "replace"
	if have, ok := in[t.attr.Name].(schema.Object); ok && merges && !t.attr.Edge {
		for name, v := range value.(schema.Object) {
			have[name] = v
		}
		return nil
	}
	in[t.attr.Name] = value
	return nil
}

// removeNulls deletes the sub-attributes that are given as null, which unassigns them (RFC
// 7643 section 2.5), and reports whether there were any.
func removeNulls(have schema.Object, a *schema.Attribute, members map[string]any) bool {
	found := false
	for name, value := range members {
		if sub := a.Sub(name); value == nil && sub != nil {
			delete(have, sub.Name)
			found = true
		}
	}
	return found
}

func (p patcher) subAttribute(in schema.Object, t *target, value any) error {
	read, err := p.reader.value(t.sub, value)
	if err != nil {
		return err
	}
	object, ok := in[t.attr.Name].(schema.Object)
	if !ok {
		object = schema.Object{}
	}
	if read == nil || (t.sub.Name == "value" && read == "") {
		delete(object, t.sub.Name)
	} else {
		object[t.sub.Name] = read
	}
	if in[t.attr.Name] = object; len(object) == 0 {
		delete(in, t.attr.Name)
	}
	return nil
}

// list adds to or replaces a multi-valued attribute.
func (p patcher) list(in schema.Object, t *target, o Operation) error {
	if elements, ok := o.Value.([]any); ok && slices.Contains(elements, nil) { // which would be read as no element
		return schema.Errorf(schema.InvalidValue, "%s must not have null as an element", t.attr.Name)
	}
	value, err := p.reader.value(t.attr, o.Value)
	if err != nil {
		return err
	}
	added, _ := value.([]any)
	var have []any
	if o.Op == "add" {
		have, _ = in[t.attr.Name].([]any)
	}
	if err := p.spend(len(have) + len(added)); err != nil {
		return err
	}
	merged := newSet(t.attr, have)
	var touched []any // existing values change nothing (RFC 7644 section 3.5.2.1)
	for _, v := range added {
		if element, changed := merged.add(v); changed {
			touched = append(touched, element)
		}
	}
	if len(merged.values) > max(schema.MaxElements, len(have)) {
		return schema.Errorf(schema.TooMany, "%s would have more than %d elements", t.attr.Name, schema.MaxElements)
	}
	p.setList(in, t.attr, merged.values, touched)
	return nil
}

// elements sets the elements that a value filter selects. If it selects none, it creates
// one, as Entra expects; for a strict tenant a replace fails with noTarget (RFC 7644).
func (p patcher) elements(in schema.Object, t *target, o Operation) error {
	have, _ := in[t.attr.Name].([]any)
	if err := p.spend(len(have) * comparisons(t.where)); err != nil {
		return err
	}
	var touched []any
	for _, v := range have {
		if element, ok := v.(schema.Object); ok && (t.where == nil || filter.Match(t.where, element)) {
			touched = append(touched, v)
		}
	}
	if len(touched) == 0 {
		if isUnassigned(o.Value) {
			return nil // there is nothing to clear
		}
		if len(have) >= schema.MaxElements {
			return schema.Errorf(schema.TooMany, "%s would have more than %d elements", t.attr.Name, schema.MaxElements)
		}
		if p.reader.Strict && o.Op == "replace" {
			return schema.Errorf(schema.NoTarget, "no element of %s matches the path", t.attr.Name)
		}
		element := schema.Object{}
		for name, v := range t.assertions {
			element[name] = v
		}
		have, touched = append(have, element), []any{element}
	}
	for _, v := range touched {
		if err := p.setElement(v.(schema.Object), t, o.Value); err != nil {
			return err
		}
	}
	p.setList(in, t.attr, newSet(t.attr, have).values, touched)
	return nil
}

func (p patcher) setElement(element schema.Object, t *target, value any) error {
	if t.sub != nil {
		return p.setSub(element, t, value)
	}
	read, err := p.reader.single(t.attr, value)
	if err != nil {
		return err
	}
	object, _ := read.(schema.Object)
	for name, v := range object {
		element[name] = v
	}
	return nil
}

// setSub sets or clears a sub-attribute of an element.
func (p patcher) setSub(element schema.Object, t *target, value any) error {
	read, err := p.reader.value(t.sub, value)
	switch {
	case err != nil:
		return err
	case read != nil && (t.sub.Name != "value" || read != ""):
		element[t.sub.Name] = read
	case t.attr.Edge && t.sub.Name == "value":
		return immutableEdge(t)
	default:
		if delete(element, t.sub.Name); onlyLabels(element) {
			clear(element)
		}
	}
	return nil
}

// setList stores a list without empty elements. If a touched element is primary, no other
// element is.
func (p patcher) setList(in schema.Object, a *schema.Attribute, list, touched []any) {
	list = slices.DeleteFunc(list, func(v any) bool {
		object, ok := v.(schema.Object)
		return ok && (len(object) == 0 || (a.Edge && object["value"] == nil))
	})
	if slices.ContainsFunc(touched, isPrimary) {
		last := make(map[uintptr]bool, len(touched))
		for _, t := range touched {
			if object, ok := t.(schema.Object); ok {
				last[identity(object)] = true
			}
		}
		for _, v := range list {
			if isPrimary(v) && !last[identity(v.(schema.Object))] {
				v.(schema.Object)["primary"] = false
			}
		}
	}
	if in[a.Name] = onePrimary(list, len(list)); len(list) == 0 {
		delete(in, a.Name)
	}
}

// comparisons returns how many comparisons a condition makes per element.
func comparisons(c filter.Condition) int {
	switch c := c.(type) {
	case filter.And:
		return comparisons(c.Left) + comparisons(c.Right)
	case filter.Or:
		return comparisons(c.Left) + comparisons(c.Right)
	case filter.Not:
		return comparisons(c.Inner)
	case filter.Element:
		return comparisons(c.Where)
	default:
		return 1
	}
}

// isUnassigned reports whether a value means none (RFC 7643 section 2.5).
func isUnassigned(value any) bool {
	list, isList := value.([]any)
	return value == nil || value == "" || (isList && len(list) == 0)
}

func isPrimary(v any) bool {
	object, ok := v.(schema.Object)
	return ok && object["primary"] == true
}

// identity returns the address of a map, which distinguishes it from an equal one.
func identity(o schema.Object) uintptr { return reflect.ValueOf(o).Pointer() }

// immutableEdge is the error of a change that would leave an edge without the resource that it leads to.
func immutableEdge(t *target) error {
	return schema.Errorf(schema.NotMutable, "%s is immutable: remove the element of %s", t.name(), t.attr.Name)
}

func (p patcher) remove(in schema.Object, t *target, o Operation) error {
	if t.attr.Edge && t.attr.MultiValued && t.sub != nil && t.sub.Name == "value" {
		return immutableEdge(t)
	}
	if !t.attr.MultiValued {
		return p.removeSingle(in, t)
	}
	have, _ := in[t.attr.Name].([]any)
	if t.where == nil && t.sub == nil && !o.HasValue {
		delete(in, t.attr.Name)
		return nil
	}
	if err := p.spend(len(have) * comparisons(t.where)); err != nil {
		return err
	}
	selected := func(v any) bool {
		element, ok := v.(schema.Object)
		return t.where == nil || (ok && filter.Match(t.where, element))
	}
	if o.HasValue && t.where == nil && t.sub == nil {
		if err := p.spend(len(have) * len(schema.ListOf(o.Value))); err != nil {
			return err
		}
		matches, err := p.matches(t.attr, o.Value)
		if err != nil {
			return err
		}
		selected = matches
	}
	var left []any
	for _, v := range have {
		element, isObject := v.(schema.Object)
		switch {
		case !selected(v):
			left = append(left, v)
		case t.sub != nil && isObject:
			if delete(element, t.sub.Name); onlyLabels(element) {
				clear(element)
			}
			left = append(left, v)
		}
	}
	p.setList(in, t.attr, left, nil)
	return nil
}

// matches returns a function that selects the elements in a remove's value: those with the
// same value or with all given members (JumpCloud, Entra). An empty list selects none.
func (p patcher) matches(a *schema.Attribute, value any) (func(any) bool, error) {
	read, err := p.reader.value(a, value)
	if err != nil {
		return nil, err
	}
	wanted, _ := read.([]any)
	values := make(map[string]bool, len(wanted))
	for _, w := range wanted {
		if object, ok := w.(schema.Object); ok {
			if s, isString := object["value"].(string); isString {
				values[textkey.Fold(s)] = true
			}
		}
	}
	return func(v any) bool {
		object, isObject := v.(schema.Object)
		if isObject {
			if s, ok := object["value"].(string); ok && values[textkey.Fold(s)] {
				return true
			}
		}
		return slices.ContainsFunc(wanted, func(w any) bool { return contains(a, v, w) })
	}, nil
}

// contains reports whether v equals w or, if w is an object without a value, whether v has
// all members of w.
func contains(a *schema.Attribute, v, w any) bool {
	have, ok := v.(schema.Object)
	want, isObject := w.(schema.Object)
	if !ok || !isObject {
		return equalValues(a, v, w)
	}
	if _, named := want["value"]; named {
		return false // already compared by value
	}
	for name, value := range want {
		if sub := a.Sub(name); sub == nil || !equalValues(sub, have[name], value) {
			return false
		}
	}
	return len(want) > 0
}

func (p patcher) removeSingle(in schema.Object, t *target) error {
	object, isObject := in[t.attr.Name].(schema.Object)
	if t.where != nil && (!isObject || !filter.Match(t.where, object)) {
		return nil
	}
	if t.sub == nil {
		delete(in, t.attr.Name)
		return nil
	}
	if isObject {
		if delete(object, t.sub.Name); len(object) == 0 {
			delete(in, t.attr.Name)
		}
	}
	return nil
}
