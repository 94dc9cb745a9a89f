package rest

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"

	yaml "go.yaml.in/yaml/v3"

	"github.com/leaverhq/leaver/activities/connectors"
)

// request is the request of an operation.
type request struct {
	method  string
	url     *template
	auth    *auth // its own or the definition's; nil for none
	query   map[string]*template
	headers map[string]*template
	form    map[string]*template
	json    *body
	// secret is whether the target's secret is in the request.
	secret bool
}

// body is a JSON body: an object, a list, or a leaf, which is a template or another scalar.
type body struct {
	members  map[string]*body
	elements []*body
	repeated bool // the only element stands for each credential of a bulk request
	leaf     *template
	value    any
}

var methods = []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete}

func (d *Definition) parseRequest(n *yaml.Node, in scope) (request, error) {
	r := request{method: http.MethodGet, auth: d.auth}
	var jsonNode *yaml.Node
	err := decodeFields(n, fields{
		"method": scalar(&r.method),
		"url":    func(n *yaml.Node) (err error) { r.url, err = d.parseURL(n, in); return err },
		"auth":   func(n *yaml.Node) (err error) { r.auth, err = parseOwnAuth(n, in); return err },
		"query":  templates(&r.query, in), "headers": headers(&r.headers, in), "form": templates(&r.form, in),
		"json": func(n *yaml.Node) (err error) { jsonNode = n; r.json, err = parseBody(n, in); return err },
	})
	switch {
	case err != nil:
		return r, err
	case r.url == nil:
		return r, at(n, "url is required")
	case !slices.Contains(methods, r.method):
		return r, at(n, "method must be one of %s, got %q", strings.Join(methods, ", "), r.method)
	case jsonNode != nil && r.form != nil:
		return r, at(jsonNode, "a request has json or form, and not both")
	}
	r.secret = r.names(nameSecret) || r.auth.names(nameSecret)
	return r, nil
}

// names reports whether a template of the request, other than of its authentication, has a placeholder.
func (r *request) names(name string) bool {
	names := func(t *template) bool { return slices.Contains(t.names, name) }
	return r.plain(names) || r.json.any(names)
}

// plain reports whether a template of the request matches, other than of its authentication and its JSON body.
func (r *request) plain(matches func(*template) bool) bool {
	for _, all := range []map[string]*template{r.query, r.headers, r.form} {
		for _, t := range all {
			if matches(t) {
				return true
			}
		}
	}
	return matches(r.url)
}

// parseOwnAuth reads the authentication of one request. The connector has one access token or key, for the others.
func parseOwnAuth(n *yaml.Node, in scope) (*auth, error) {
	a, err := parseAuth(n, in)
	if err == nil && a.isShared() {
		err = at(n, "the authentication of one request cannot request an access token, or have a key: the connector has one")
	}
	return a, err
}

// parseURL parses the URL of a request: a setting or an https address, and a path. A secret in it would be
// logged by every proxy.
func (d *Definition) parseURL(n *yaml.Node, in scope) (*template, error) {
	t, err := parseTemplate(n, in)
	switch {
	case err != nil:
		return nil, err
	case t.uses(in.secrets):
		return nil, at(n, "a secret must not be in the URL: use a header, the body, or query")
	case strings.ContainsAny(strings.Join(t.texts, ""), "?#"):
		return nil, at(n, "write the query as query, where values are escaped")
	}
	if err := t.checkPlain(); err != nil {
		return nil, err
	}
	isSetting := func(name string) bool {
		return slices.ContainsFunc(d.Settings, func(s Setting) bool { return s.Name == name })
	}
	if t.texts[0] == "" && len(t.names) > 0 && isSetting(t.names[0]) {
		if !strings.HasPrefix(t.texts[1], "/") {
			return nil, at(n, "a / must follow {%s}", t.names[0])
		}
		if !slices.Contains(d.bases, t.names[0]) {
			d.bases = append(d.bases, t.names[0])
		}
		return t, nil
	}
	if u, err := url.Parse(t.texts[0]); err != nil || u.Scheme != "https" || u.Host == "" || u.Path == "" {
		return nil, at(n, "the URL must begin with a setting, such as {url}, or with https:// and a host")
	}
	return t, nil
}

// headers decodes a mapping of headers.
func headers(into *map[string]*template, in scope) func(*yaml.Node) error {
	return func(n *yaml.Node) error {
		err := templates(into, in)(n)
		for name, t := range *into {
			if err == nil {
				err = t.checkPlain()
			}
			if err == nil && !validHeader.MatchString(name) {
				err = at(n, "%q is not the name of a header", name)
			}
		}
		return err
	}
}

// validHeader matches a token of RFC 9110 section 5.6.2.
var validHeader = regexp.MustCompile("^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")

// templates decodes a mapping of templates.
func templates(into *map[string]*template, in scope) func(*yaml.Node) error {
	return func(n *yaml.Node) error {
		*into = make(map[string]*template)
		return eachMember(n, func(key, value *yaml.Node) error {
			t, err := parseTemplate(value, in)
			if err == nil {
				err = t.checkPlain(formatSOQL)
			}
			(*into)[key.Value] = t
			return err
		})
	}
}

// maxBodyDepth bounds the nesting of a JSON body.
const maxBodyDepth = 16

func parseBody(n *yaml.Node, in scope) (*body, error) { return parseBodyAt(n, in, maxBodyDepth) }

func parseBodyAt(n *yaml.Node, in scope, left int) (b *body, err error) {
	b = &body{}
	if left == 0 {
		return nil, at(n, "a body is nested at most %d levels deep", maxBodyDepth)
	}
	switch {
	case n.Kind == yaml.MappingNode:
		b.members = make(map[string]*body)
		return b, eachMember(n, func(key, value *yaml.Node) (err error) {
			b.members[key.Value], err = parseBodyAt(value, in, left-1)
			return err
		})
	case n.Kind == yaml.SequenceNode:
		b.elements = []*body{}
		return b, each(n, func(n *yaml.Node) error {
			element, err := parseBodyAt(n, in, left-1)
			b.elements = append(b.elements, element)
			return err
		})
	case n.Kind == yaml.ScalarNode && n.Tag == "!!str":
		b.leaf, err = parseTemplate(n, in)
		return b, err
	}
	if err := n.Decode(&b.value); err != nil || n.Kind != yaml.ScalarNode {
		return nil, at(n, "must be an object, a list, a text, a number, a boolean or null")
	}
	return b, nil
}

// any reports whether a template of the body matches.
func (b *body) any(matches func(*template) bool) bool {
	if b == nil {
		return false
	}
	for _, member := range b.members {
		if member.any(matches) {
			return true
		}
	}
	return slices.ContainsFunc(b.elements, func(e *body) bool { return e.any(matches) }) ||
		b.leaf != nil && matches(b.leaf)
}

// expand returns the JSON value of the body, with the values of each credential of a bulk request.
func (b *body) expand(v values, bulk []values) (any, error) {
	switch {
	case b.members != nil:
		object := make(map[string]any, len(b.members))
		for name, member := range b.members {
			value, err := member.expand(v, bulk)
			if err != nil {
				return nil, err
			}
			object[name] = value
		}
		return object, nil
	case b.repeated:
		list := make([]any, 0, len(bulk))
		for _, v := range bulk {
			value, err := b.elements[0].expand(v, nil)
			if err != nil {
				return nil, err
			}
			list = append(list, value)
		}
		return list, nil
	case b.elements != nil:
		list := make([]any, 0, len(b.elements))
		for _, element := range b.elements {
			value, err := element.expand(v, bulk)
			if err != nil {
				return nil, err
			}
			list = append(list, value)
		}
		return list, nil
	case b.leaf != nil:
		return b.leaf.json(v)
	}
	return b.value, nil
}

// escapePath escapes a value for one segment of a path. A value that a server could take as a step is refused.
func escapePath(value string) (string, error) {
	if !isSegment(value) {
		return "", connectors.Permanent("a part of the path must not be empty or contain \".\" or \"..\" as a step")
	}
	return url.PathEscape(value), nil
}

// address returns the expanded URL. The value of a setting that it begins with is not escaped.
func (r *request) address(v values) (*url.URL, error) {
	t, prefix := *r.url, ""
	if t.texts[0] == "" {
		prefix = v[t.names[0]]
		t.texts, t.names, t.formats = t.texts[1:], t.names[1:], t.formats[1:]
	}
	path, err := t.expand(v, escapePath)
	if err != nil {
		return nil, err
	}
	u, err := url.Parse(prefix + path)
	if err != nil {
		return nil, connectors.Permanent("the definition's URL is not valid with these settings")
	}
	query := u.Query()
	for name, t := range r.query {
		query.Set(name, t.text(v))
	}
	u.RawQuery = query.Encode()
	return u, nil
}

// build returns the HTTP request, without authentication. bulk has the values of each credential of a bulk request.
func (r *request) build(ctx context.Context, v values, bulk []values, u *url.URL) (*http.Request, error) {
	var content []byte
	media := ""
	switch {
	case r.json != nil:
		value, err := r.json.expand(v, bulk)
		if err != nil {
			return nil, err
		}
		if content, err = json.Marshal(value); err != nil {
			return nil, connectors.Permanent("encode the request: %w", err)
		}
		media = "application/json"
	case r.form != nil:
		form := make(url.Values, len(r.form))
		for name, t := range r.form {
			form.Set(name, t.text(v))
		}
		content, media = []byte(form.Encode()), "application/x-www-form-urlencoded"
	}
	req, err := http.NewRequestWithContext(ctx, r.method, u.String(), bytes.NewReader(content))
	if err != nil {
		return nil, connectors.Permanent("the definition's request is not valid with these settings")
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "leaver")
	if media != "" {
		req.Header.Set("Content-Type", media)
	}
	for name, t := range r.headers {
		value, err := t.header(v)
		if err != nil {
			return nil, err
		}
		req.Header.Set(name, value)
	}
	return req, nil
}
