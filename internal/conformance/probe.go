package conformance

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

const (
	contentType = "application/scim+json"
	maxAnswer   = 64 << 20 // bytes
	cleanUpTime = 30 * time.Second
	errorURN    = "urn:ietf:params:scim:api:messages:2.0:Error"
	listURN     = "urn:ietf:params:scim:api:messages:2.0:ListResponse"
	userURN     = "urn:ietf:params:scim:schemas:core:2.0:User"
	groupURN    = "urn:ietf:params:scim:schemas:core:2.0:Group"
	entURN      = "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User"
	patchPrefix = `{"schemas":["urn:ietf:params:scim:api:messages:2.0:PatchOp"],"Operations":[`
)

// probe sends requests to the target and records the resources that it creates.
type probe struct {
	ctx    context.Context //nolint:containedctx // a probe lives for one run
	target Target
	mark   string // part of every name that the probe creates
	made   []string
	count  int
	// filtered is the userName of the user that all filters test; empty until it is created.
	filtered string
	config   map[string]any            // ServiceProviderConfig
	types    []map[string]any          // ResourceTypes
	schemas  map[string]map[string]any // by id
}

// answer is the response to a request.
type answer struct {
	request string
	status  int
	header  http.Header
	raw     []byte
	body    map[string]any
}

func (a answer) String() string {
	return fmt.Sprintf("%s answered %d %s", a.request, a.status, clip(string(a.raw)))
}

func clip(s string) string {
	const most = 300
	if len(s) > most {
		return strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}

// do sends a request. Headers come in pairs; an empty value removes one.
func (p *probe) do(method, path, body string, headers ...string) (answer, error) {
	a := answer{request: method + " " + path}
	req, err := http.NewRequestWithContext(p.ctx, method, strings.TrimSuffix(p.target.URL, "/")+path,
		bytes.NewBufferString(body))
	if err != nil {
		return a, err
	}
	req.Header.Set("Authorization", "Bearer "+p.target.Token)
	req.Header.Set("Accept", contentType)
	if body != "" {
		req.Header.Set("Content-Type", contentType)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		if req.Header.Set(headers[i], headers[i+1]); headers[i+1] == "" {
			req.Header.Del(headers[i])
		}
	}
	resp, err := p.target.Client.Do(req)
	if err != nil {
		return a, err
	}
	defer func() { _ = resp.Body.Close() }()
	a.status, a.header = resp.StatusCode, resp.Header
	if a.raw, err = io.ReadAll(io.LimitReader(resp.Body, maxAnswer)); err != nil {
		return a, err
	}
	_ = json.Unmarshal(a.raw, &a.body) // checks that need JSON report its absence
	if id, ok := a.body["id"].(string); ok && method == http.MethodPost && a.status == http.StatusCreated {
		endpoint, _, _ := strings.Cut(path, "?")
		p.made = append(p.made, endpoint+"/"+id)
	}
	return a, nil
}

// want sends a request and returns an error unless the response has the status.
func (p *probe) want(status int, method, path, body string, headers ...string) (answer, error) {
	a, err := p.do(method, path, body, headers...)
	if err == nil && a.status != status {
		err = fmt.Errorf("want %d: %v", status, a)
	}
	return a, err
}

// refused is like want, but the body must be an error of RFC 7644 section 3.12.
func (p *probe) refused(status int, scimType, method, path, body string, headers ...string) error {
	a, err := p.want(status, method, path, body, headers...)
	if err != nil {
		return err
	}
	if err := Contains(a.body, map[string]any{"schemas": []any{errorURN}, "status": fmt.Sprint(status)}); err != nil {
		return fmt.Errorf("the body is not a SCIM error: %w: %v", err, a)
	}
	for name := range a.body {
		if !slices.Contains([]string{"schemas", "status", "scimType", "detail"}, name) {
			return fmt.Errorf("the error has the member %q, which RFC 7644 section 3.12 does not define: %v", name, a)
		}
	}
	// scimType is optional (RFC 7644 section 3.12), but must be correct if present.
	if got, _ := a.body["scimType"].(string); scimType != "" && got != "" && got != scimType {
		return fmt.Errorf("want scimType %s: %v", scimType, a)
	}
	return nil
}

// name returns a unique name.
func (p *probe) name(kind string) string {
	p.count++
	return fmt.Sprintf("leaver-probe-%s-%s-%d", p.mark, kind, p.count)
}

// create creates a resource and returns its path.
func (p *probe) create(endpoint, body string) (path string, a answer, err error) {
	if a, err = p.want(http.StatusCreated, http.MethodPost, endpoint, body); err != nil {
		return "", a, err
	}
	id, ok := a.body["id"].(string)
	if !ok {
		return "", a, fmt.Errorf("the response has no id: %v", a)
	}
	return endpoint + "/" + id, a, nil
}

// user creates a user. more is further members of its JSON, or empty.
func (p *probe) user(more string) (path, name string, err error) {
	name = p.name("user")
	if more != "" {
		more = "," + more
	}
	path, _, err = p.create("/Users", fmt.Sprintf(`{"schemas":[%q],"userName":%q%s}`, userURN, name, more))
	return path, name, err
}

func idOf(path string) string { return path[strings.LastIndex(path, "/")+1:] }

func filterPath(endpoint, filter string) string {
	return endpoint + "?filter=" + url.QueryEscape(filter)
}

// discover reads the provider's ServiceProviderConfig, Schemas and ResourceTypes.
func (p *probe) discover() error {
	a, err := p.want(http.StatusOK, http.MethodGet, "/ServiceProviderConfig", "")
	if a.status == http.StatusUnauthorized || a.status == http.StatusForbidden {
		return fmt.Errorf("%w: %v", ErrRefused, a)
	}
	if err != nil {
		return err
	}
	if p.config = a.body; a.body == nil {
		return fmt.Errorf("the response is not JSON: %v", a)
	}
	p.schemas = make(map[string]map[string]any)
	for _, schema := range p.listed("/Schemas") {
		id, _ := schema["id"].(string)
		p.schemas[id] = schema
	}
	p.types = p.listed("/ResourceTypes")
	return nil
}

// listed returns the resources of a discovery endpoint, or nil if it fails: a check reports
// the failure.
func (p *probe) listed(path string) []map[string]any {
	a, err := p.do(http.MethodGet, path, "")
	if err != nil {
		return nil
	}
	return resourcesOf(a)
}

func resourcesOf(a answer) []map[string]any {
	list, _ := a.body["Resources"].([]any)
	resources := make([]map[string]any, 0, len(list))
	for _, r := range list {
		if object, ok := r.(map[string]any); ok {
			resources = append(resources, object)
		}
	}
	return resources
}

// needs returns a skip if the provider does not declare the feature as supported.
func (p *probe) needs(feature string) error {
	claims, _ := p.config[feature].(map[string]any)
	if claims["supported"] == true {
		return nil
	}
	return &skip{"ServiceProviderConfig says that " + feature + " is not supported"}
}

// cleanUp deletes the created resources in reverse order and ignores errors.
func (p *probe) cleanUp() {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(p.ctx), cleanUpTime)
	defer cancel()
	p.ctx = ctx
	for _, path := range slices.Backward(p.made) {
		_, _ = p.do(http.MethodDelete, path, "")
	}
}
