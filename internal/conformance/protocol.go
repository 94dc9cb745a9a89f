package conformance

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// protocolChecks returns the checks of discovery, errors and media types.
func protocolChecks() []check {
	return []check{
		{RFC, "ServiceProviderConfig has every required member (RFC 7643 section 5)", func(p *probe) error {
			for _, name := range []string{"patch", "bulk", "filter", "changePassword", "sort", "etag"} {
				claims, _ := p.config[name].(map[string]any)
				if _, ok := claims["supported"].(bool); !ok {
					return fmt.Errorf("%s.supported is missing", name)
				}
			}
			if _, ok := p.config["authenticationSchemes"].([]any); !ok {
				return errors.New("authenticationSchemes is missing")
			}
			for _, path := range [][2]string{{"bulk", "maxOperations"}, {"bulk", "maxPayloadSize"}, {"filter", "maxResults"}} {
				if _, ok := p.config[path[0]].(map[string]any)[path[1]].(float64); !ok {
					return fmt.Errorf("%s.%s is not a number: some clients then stop using PATCH", path[0], path[1])
				}
			}
			return nil
		}},
		{RFC, "ResourceTypes and Schemas agree (RFC 7643 sections 6 and 7)", func(p *probe) error {
			if len(p.types) == 0 || len(p.schemas) == 0 {
				return errors.New("/ResourceTypes or /Schemas is empty")
			}
			for _, rt := range p.types {
				for _, urn := range urnsOf(rt) {
					if p.schemas[urn] == nil {
						return fmt.Errorf("%v has the schema %s, which is not in /Schemas", rt["name"], urn)
					}
					if _, err := p.want(http.StatusOK, http.MethodGet, "/Schemas/"+urn, ""); err != nil {
						return err
					}
				}
				if _, err := p.want(http.StatusOK, http.MethodGet, fmt.Sprintf("/ResourceTypes/%v", rt["name"]), ""); err != nil {
					return err
				}
			}
			return nil
		}},
		{RFC, "discovery refuses a filter (RFC 7644 section 4)", func(p *probe) error {
			return p.refused(http.StatusForbidden, "", http.MethodGet, filterPath("/Schemas", `id eq "x"`), "")
		}},
		{RFC, "a request without a valid token is a 401 SCIM error", func(p *probe) error {
			return errors.Join(p.refused(http.StatusUnauthorized, "", http.MethodGet, "/Users", "", "Authorization", ""),
				p.refused(http.StatusUnauthorized, "", http.MethodGet, "/Users", "", "Authorization", "Bearer "+p.target.Token+"x"))
		}},
		{RFC, "an unknown resource or endpoint is a 404 SCIM error", func(p *probe) error {
			return errors.Join(p.refused(http.StatusNotFound, "", http.MethodGet, "/Users/"+p.mark, ""),
				p.refused(http.StatusNotFound, "", http.MethodGet, "/Nowhere-"+p.mark, ""))
		}},
		{RFC, "a method that an endpoint does not support is 405", func(p *probe) error {
			return p.refused(http.StatusMethodNotAllowed, "", http.MethodPost, "/ServiceProviderConfig", "{}")
		}},
		{RFC, "a body that is not JSON is invalidSyntax", func(p *probe) error {
			return p.refused(http.StatusBadRequest, "invalidSyntax", http.MethodPost, "/Users", `{"userName":`)
		}},
		{RFC, "a body of another media type is refused; application/json is accepted", func(p *probe) error {
			a, err := p.do(http.MethodPost, "/Users", "x", "Content-Type", "text/plain")
			if err != nil || (a.status != http.StatusUnsupportedMediaType && a.status != http.StatusBadRequest) {
				return errors.Join(err, fmt.Errorf("want 415 or 400: %v", a))
			}
			_, err = p.want(http.StatusCreated, http.MethodPost, "/Users",
				fmt.Sprintf(`{"schemas":[%q],"userName":%q}`, userURN, p.name("user")), "Content-Type", "application/json")
			return err
		}},
		{RFC, "responses are application/scim+json", func(p *probe) error {
			for _, path := range []string{"/Users?count=1", "/Users/" + p.mark, "/ServiceProviderConfig"} {
				a, err := p.do(http.MethodGet, path, "")
				if err != nil {
					return err
				}
				if media, _, _ := strings.Cut(a.header.Get("Content-Type"), ";"); media != contentType {
					return fmt.Errorf("%s is %q", a.request, a.header.Get("Content-Type"))
				}
			}
			return nil
		}},
		{RFC, "/Me is the caller's resource or is not supported (RFC 7644 section 3.11)", func(p *probe) error {
			a, err := p.do(http.MethodGet, "/Me", "")
			if err == nil && !slices.Contains([]int{
				http.StatusOK, http.StatusPermanentRedirect, http.StatusNotFound, http.StatusNotImplemented,
			}, a.status) {
				err = fmt.Errorf("%v", a)
			}
			return err
		}},
		{RFC, "200 KB of parentheses are refused and the provider stays up", func(p *probe) error {
			body := fmt.Sprintf(`{"schemas":["urn:ietf:params:scim:api:messages:2.0:SearchRequest"],"filter":"%suserName pr%s"}`,
				strings.Repeat("(", 100_000), strings.Repeat(")", 100_000))
			a, err := p.do(http.MethodPost, "/Users/.search", body)
			if err != nil || a.status < http.StatusBadRequest || a.status >= http.StatusInternalServerError {
				return fmt.Errorf("%v %w", a, err)
			}
			_, err = p.want(http.StatusOK, http.MethodGet, "/ServiceProviderConfig", "")
			return err
		}},
	}
}

// urnsOf returns the URNs of a resource type's schemas.
func urnsOf(rt map[string]any) []string {
	urn, _ := rt["schema"].(string)
	urns := []string{urn}
	extensions, _ := rt["schemaExtensions"].([]any)
	for _, e := range extensions {
		if object, ok := e.(map[string]any); ok {
			if urn, ok := object["schema"].(string); ok {
				urns = append(urns, urn)
			}
		}
	}
	return urns
}
