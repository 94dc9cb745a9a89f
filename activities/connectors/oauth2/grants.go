package oauth2

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"

	"github.com/leaverhq/leaver/activities/connectors"
)

// consentPath is the path of consent sessions in Ory Hydra's admin API
// (https://www.ory.sh/docs/hydra/reference/api, "consent sessions").
const consentPath = "/admin/oauth2/auth/sessions/consent"

const (
	// grantsPage is the page size. It keeps responses below [connectors.MaxBody], since each
	// session contains its client's metadata and its request.
	grantsPage     = 10
	maxGrantsPages = 1000
)

// consent is the part of a consent session that names a grant.
type consent struct {
	GrantScope []string `json:"grant_scope"`
	Request    struct {
		Client struct {
			ID string `json:"client_id"`
		} `json:"client"`
	} `json:"consent_request"`
}

// GrantReference returns the reference of a grant: subject/client, each path-escaped.
func GrantReference(subject, client string) string {
	return url.PathEscape(subject) + "/" + url.PathEscape(client)
}

func parseGrant(reference string) (subject, client string, err error) {
	s, c, ok := strings.Cut(reference, "/")
	if subject, err = url.PathUnescape(s); err == nil {
		client, err = url.PathUnescape(c)
	}
	if !ok || err != nil || subject == "" || client == "" {
		return "", "", connectors.Permanent(
			"the reference of a grant must be subject/client, each path-escaped, got %q", reference,
		)
	}
	return subject, client, nil
}

// Can implements connectors.Optional: grants are listed by the admin API.
func (c *Connector) Can(capability any) bool {
	if _, discovers := capability.(*connectors.Discoverer); discovers {
		return c.config.AdminURL != ""
	}
	return true
}

// Discover implements connectors.Discoverer. It returns the grants whose subject is the SCIM
// id of one of the principals.
func (c *Connector) Discover(ctx context.Context, principals []connectors.Principal) ([]connectors.Found, error) {
	if c.config.AdminURL == "" {
		return nil, nil
	}
	var found []connectors.Found
	for _, principal := range connectors.IDs(principals) {
		grants, err := c.grants(ctx, principal.String())
		if err != nil {
			return nil, err
		}
		for client, scopes := range grants {
			found = append(found, connectors.Found{
				Kind: connectors.Grant, Reference: GrantReference(principal.String(), client), Principal: principal,
				Scopes: scopes,
			})
		}
	}
	return found, nil
}

// grants returns the scopes of a subject's grants by client id.
func (c *Connector) grants(ctx context.Context, subject string) (map[string][]string, error) {
	grants := make(map[string][]string)
	token := ""
	for range maxGrantsPages {
		query := url.Values{"subject": {subject}, "page_size": {strconv.Itoa(grantsPage)}}
		if token != "" {
			query.Set("page_token", token)
		}
		resp, body, err := c.admin(ctx, http.MethodGet, query)
		if err != nil {
			return nil, err
		}
		if resp.StatusCode != http.StatusOK {
			return nil, connectors.StatusError(resp, connectors.ErrorCode(body))
		}
		var page []consent
		if err := json.Unmarshal(body, &page); err != nil {
			return nil, connectors.Retryable("the admin API returned 200 without a list of consent sessions")
		}
		for _, s := range page {
			grants[s.Request.Client.ID] = s.GrantScope
		}
		if token = nextPage(resp.Header); token == "" {
			return grants, nil
		}
	}
	return nil, connectors.Permanent(
		"the admin API returned more than %d pages of one subject's grants", maxGrantsPages,
	)
}

var nextLink = regexp.MustCompile(`<([^>]*)>\s*;\s*rel="?next"?`)

// nextPage returns the page token in Hydra's Link header (RFC 8288), or an empty string.
func nextPage(header http.Header) string {
	for _, link := range header.Values("Link") {
		if m := nextLink.FindStringSubmatch(link); m != nil {
			if u, err := url.Parse(m[1]); err == nil {
				return u.Query().Get("page_token")
			}
		}
	}
	return ""
}

// endGrant revokes a grant with all of its tokens. The API returns 204 for an unknown
// subject, too, so only the probe before proves that the grant existed.
func (c *Connector) endGrant(ctx context.Context, t connectors.Target) (connectors.Answer, error) {
	subject, client, err := parseGrant(t.Reference)
	if err != nil {
		return connectors.Answer{}, err
	}
	if err := t.CheckFence(ctx); err != nil {
		return connectors.Answer{}, err
	}
	resp, body, err := c.admin(ctx, http.MethodDelete, url.Values{"subject": {subject}, "client": {client}})
	switch {
	case err != nil:
		return connectors.Answer{}, err
	case resp.StatusCode == http.StatusNotFound && connectors.ErrorCode(body) != "":
		return connectors.Answer{Outcome: connectors.Gone, Detail: "no such grant"}, nil
	case resp.StatusCode != http.StatusNoContent:
		return connectors.Answer{}, connectors.StatusError(resp, connectors.ErrorCode(body))
	}
	return connectors.Answer{Outcome: connectors.Done, Detail: "the grant and its tokens are revoked (204)"}, nil
}

func (c *Connector) probeGrant(ctx context.Context, t connectors.Target) (connectors.Vitality, string, error) {
	subject, client, err := parseGrant(t.Reference)
	if err != nil {
		return connectors.Unknown, "", err
	}
	grants, err := c.grants(ctx, subject)
	if err != nil {
		return connectors.Unknown, "", err
	}
	if _, there := grants[client]; there {
		return connectors.Alive, "the grant is listed", nil
	}
	return connectors.Dead, fmt.Sprintf("the grant is not listed (the subject has %d others)", len(grants)), nil
}

// admin calls the admin API, which has no authentication: the network must restrict access.
func (c *Connector) admin(ctx context.Context, method string, query url.Values) (*http.Response, []byte, error) {
	address := strings.TrimSuffix(c.config.AdminURL, "/") + consentPath + "?" + query.Encode()
	req, err := http.NewRequestWithContext(ctx, method, address, http.NoBody)
	if err != nil {
		return nil, nil, connectors.Permanent("build the request: %w", err)
	}
	req.Header.Set("Accept", "application/json")
	return connectors.Exchange(c.client, req)
}
