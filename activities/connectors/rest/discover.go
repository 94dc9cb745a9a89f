package rest

import (
	"context"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
	"github.com/google/uuid"
	yaml "go.yaml.in/yaml/v3"

	"github.com/leaverhq/leaver/activities/connectors"
)

const (
	// maxPages and maxFound bound one discovery.
	maxPages = 200
	maxFound = 20_000
)

// discovery says where a list is in an answer, what its items mean, and how the next page is requested.
type discovery struct {
	kind  connectors.Kind
	items *expression
	// when selects items; nil selects all.
	when      *expression
	reference *expression // a text, or a list of the parts
	owner     *expression // a name or the SCIM id of the principal
	expires   *expression
	scopes    *expression
	next      *expression // the cursor of the next page; empty or an error for none
	cursor    string      // the query parameter for the cursor
	nextURL   *expression // the address of the next page; empty or an error for none
	link      bool        // the next page is in the Link header (RFC 8288)
	page      string      // the query parameter for page numbers, from that of the request or from 1
	offset    string      // the query parameter for the number of items before the page
}

var validParameter = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_.\[\]-]*$`)

func parseDiscovery(n *yaml.Node, env *cel.Env) (*discovery, error) {
	d := &discovery{}
	var kind string
	value := func(into **expression) func(*yaml.Node) error { return expressionInto(env, into) }
	err := decodeFields(n, fields{
		"kind": scalar(&kind), "items": value(&d.items),
		"when":      func(n *yaml.Node) (err error) { d.when, err = compileCondition(env, n); return err },
		"reference": value(&d.reference), "owner": value(&d.owner), "expires": value(&d.expires),
		"scopes": value(&d.scopes), "next": value(&d.next), "cursor": scalar(&d.cursor),
		"next_url": value(&d.nextURL), "link": boolean(&d.link), "page": scalar(&d.page), "offset": scalar(&d.offset),
	})
	d.kind = connectors.Kind(kind)
	paging := 0
	for _, given := range []bool{d.next != nil, d.nextURL != nil, d.link, d.page != "", d.offset != ""} {
		if given {
			paging++
		}
	}
	for _, parameter := range []string{d.cursor, d.page, d.offset} {
		if err == nil && parameter != "" && (!validParameter.MatchString(parameter) || parameter == "true") {
			err = at(n, "cursor, page and offset are names of query parameters, got %q", parameter)
		}
	}
	switch {
	case err != nil:
		return nil, err
	case kind == "" || d.items == nil || d.reference == nil || d.owner == nil:
		return nil, at(n, "kind, items, reference and owner are required")
	case paging > 1 || (d.next != nil) != (d.cursor != ""):
		return nil, at(n, "the next page is given by one of: next and cursor, next_url, link, page, offset")
	}
	return d, nil
}

// Discover implements connectors.Discoverer. If the request names the principal, it is sent for each name of each of
// them, and otherwise once.
func (c *Connector) Discover(ctx context.Context, principals []connectors.Principal) ([]connectors.Found, error) {
	o := c.definition.operations[opDiscover]
	names := make(map[string]uuid.UUID)
	for _, p := range principals {
		names[p.ID.String()] = p.ID
		for _, name := range p.Names {
			names[strings.ToLower(name)] = p.ID
		}
	}
	if !o.request.names(namePrincipal) {
		return c.list(ctx, o, c.settings, names)
	}
	var found []connectors.Found
	for _, p := range principals {
		var refused error
		answered := false
		for _, name := range append([]string{p.ID.String()}, p.Names...) {
			more, known, err := c.discoverNamed(ctx, o, p.ID, name)
			switch {
			case err == nil:
				answered = answered || known
			case connectors.IsPermanent(err): // of this name, such as an address of another domain
				refused = err
			default:
				return nil, err
			}
			found = append(found, more...)
		}
		if !answered && refused != nil {
			return nil, refused
		}
	}
	return found, nil
}

// discoverNamed returns what a downstream attributes to one name of a principal. known is false if a lookup shows that
// it does not know the name.
func (c *Connector) discoverNamed(
	ctx context.Context, o *operation, principal uuid.UUID, name string,
) (found []connectors.Found, known bool, err error) {
	v := maps.Clone(c.settings)
	v[namePrincipal] = name
	if lookup := c.definition.operations[opLookup]; lookup != nil {
		r, err := c.ask(ctx, opLookup, v)
		if err != nil || r.means == meansGone {
			return nil, false, err
		}
		activation := answered(r.resp, r.body, v, c.definition.texts)
		ids := lookup.id.texts(activation)
		if ids == nil {
			ids = []string{lookup.id.text(activation)}
		}
		switch {
		case len(ids) == 0:
			return nil, false, nil
		case len(ids) > 1:
			return nil, false, connectors.Permanent("the downstream has %d principals of one name", len(ids))
		case ids[0] == "":
			return nil, false, connectors.Permanent("the definition %s: lookup: the answer has no id where it is expected",
				c.definition.Name)
		}
		v[namePrincipal] = ids[0]
	}
	names := map[string]uuid.UUID{principal.String(): principal, strings.ToLower(v[namePrincipal]): principal}
	found, err = c.list(ctx, o, v, names)
	return found, true, err
}

// list reads all pages of a list, and returns the items that belong to one of the names.
func (c *Connector) list(
	ctx context.Context, o *operation, v values, names map[string]uuid.UUID,
) ([]connectors.Found, error) {
	u, err := o.request.address(v)
	if err != nil {
		return nil, err
	}
	var found []connectors.Found
	seen := make(map[string]bool)
	before := 0 // items of earlier pages
	for page := 1; ; page++ {
		if seen[u.String()] {
			return nil, connectors.Permanent("the downstream's list repeats a page for ever")
		}
		if seen[u.String()] = true; page > maxPages || len(found) > maxFound {
			return nil, connectors.Permanent("the downstream's list has more than %d pages or %d items of these principals",
				maxPages, maxFound)
		}
		a, err := c.sendTo(ctx, opDiscover, []values{v}, u, nil)
		if err != nil {
			return nil, err
		}
		r, err := c.read(opDiscover, a, v, nil)
		if err != nil {
			return nil, err
		}
		activation := answered(r.resp, r.body, v, c.definition.texts)
		items, err := listOf(o.discover.items, activation)
		if err != nil {
			return nil, err
		}
		for _, item := range items {
			activation["item"] = item
			f, ok, err := o.discover.found(activation, names)
			if err != nil {
				return nil, err
			}
			if !ok {
				continue
			}
			if _, err := c.definition.split(f.Reference); err != nil {
				return nil, connectors.Permanent("the definition %s: discover: %w", c.definition.Name, err)
			}
			found = append(found, f)
		}
		before += len(items)
		next, err := o.discover.nextPage(u, r.resp, activation, position{before, len(items) == 0})
		if err != nil || next == nil {
			return found, err
		}
		u = next
	}
}

// listOf returns the items of the list that an expression returns.
func listOf(e *expression, activation map[string]any) ([]ref.Val, error) {
	list, _, err := e.program.Eval(activation)
	lister, ok := list.(traits.Lister)
	if err != nil || !ok {
		return nil, connectors.Retryable("the downstream's list is not where the definition expects it")
	}
	var items []ref.Val
	for it := lister.Iterator(); it.HasNext() == types.True; {
		items = append(items, it.Next())
	}
	return items, nil
}

// found returns what an item is, if it belongs to one of the names.
func (d *discovery) found(
	activation map[string]any, names map[string]uuid.UUID,
) (f connectors.Found, ok bool, err error) {
	if d.when != nil {
		if ok, err = d.when.holds(activation); err != nil || !ok {
			return connectors.Found{}, false, err
		}
	}
	owner := strings.ToLower(d.owner.text(activation))
	principal, ok := names[owner]
	reference := d.reference.reference(activation)
	if !ok {
		return connectors.Found{}, false, nil
	}
	if reference == "" {
		return connectors.Found{}, false, d.reference.mistyped(activation)
	}
	f = connectors.Found{
		Kind: d.kind, Reference: reference, Principal: principal, Named: owner != principal.String(),
	}
	if d.expires != nil {
		f.ExpiresAt = d.expires.time(activation)
	}
	if d.scopes != nil {
		f.Scopes = d.scopes.texts(activation)
	}
	return f, true, nil
}

// reference returns the reference that an expression returns as a text or as a list of the parts; empty for an error or
// another type.
func (e *expression) reference(activation map[string]any) string {
	if parts := e.texts(activation); parts != nil {
		return join(parts)
	}
	return e.text(activation)
}

// mistyped returns a permanent error if the expression does not fit the types that the answer has, which CEL calls "no
// such overload". Without the error, credentials would be missed.
func (e *expression) mistyped(activation map[string]any) error {
	if _, _, err := e.program.Eval(activation); err != nil && strings.Contains(err.Error(), "no such overload") {
		return connectors.Permanent("the expression on line %d of the definition does not fit the types of the answer",
			e.node.Line)
	}
	return nil
}

// text returns the text that an expression returns; empty for an error or another type.
func (e *expression) text(activation map[string]any) string {
	value, _, err := e.program.Eval(activation)
	if err != nil {
		return ""
	}
	return textOf(value.Value())
}

// time returns the time that an expression returns; nil for an error or another type.
func (e *expression) time(activation map[string]any) *time.Time {
	value, _, err := e.program.Eval(activation)
	if err != nil {
		return nil
	}
	return timeOf(value.Value())
}

// texts returns the texts of a list that an expression returns; nil for an error or another type.
func (e *expression) texts(activation map[string]any) []string {
	value, _, err := e.program.Eval(activation)
	lister, ok := value.(traits.Lister)
	if err != nil || !ok {
		return nil
	}
	texts := []string{}
	for it := lister.Iterator(); it.HasNext() == types.True; {
		texts = append(texts, textOf(it.Next().Value()))
	}
	return texts
}

var nextLink = regexp.MustCompile(`<([^>]*)>[^,]*;\s*rel="?next"?`)

// position is how far a list has been read: the number of items, and whether the last page is empty.
type position struct {
	items int
	empty bool
}

// linked returns the address of a link. One to another host is an error: the request carries the connector's
// credentials.
func linked(u *url.URL, link string) (*url.URL, error) {
	next, err := u.Parse(link)
	if err != nil || next.Scheme != u.Scheme || next.Host != u.Host {
		return nil, connectors.Permanent("the downstream's list links to another host")
	}
	return next, nil
}

// nextPage returns the address of the next page, or nil.
func (d *discovery) nextPage(
	u *url.URL, resp *http.Response, activation map[string]any, read position,
) (*url.URL, error) {
	with := func(name, value string) *url.URL {
		next := *u
		query := next.Query()
		query.Set(name, value)
		next.RawQuery = query.Encode()
		return &next
	}
	switch {
	case d.link:
		match := nextLink.FindStringSubmatch(strings.Join(resp.Header.Values("Link"), ", "))
		if match == nil {
			return nil, nil //nolint:nilnil // there is no next page
		}
		return linked(u, match[1])
	case d.nextURL != nil:
		if next := d.nextURL.text(activation); next != "" {
			return linked(u, next)
		}
	case d.next != nil:
		if cursor := d.next.text(activation); cursor != "" {
			return with(d.cursor, cursor), nil
		}
	case d.page != "" && !read.empty:
		current, err := strconv.Atoi(u.Query().Get(d.page))
		if err != nil {
			current = 1
		}
		return with(d.page, strconv.Itoa(current+1)), nil
	case d.offset != "" && !read.empty:
		return with(d.offset, strconv.Itoa(read.items)), nil
	}
	return nil, nil //nolint:nilnil // there is no next page
}
