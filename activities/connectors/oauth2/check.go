package oauth2

import (
	"context"
	"crypto/rand"
	"net/http"
	"net/url"

	"github.com/leaverhq/leaver/activities/connectors"
)

// Check implements connectors.Checker: the server must accept the client, at introspection or at the revocation of a
// token that does not exist, and the admin API must answer.
func (c *Connector) Check(ctx context.Context) error {
	if c.config.AdminURL != "" {
		if _, err := c.grants(ctx, "leaver-check"); err != nil {
			return err
		}
	}
	invented := url.Values{"token": {rand.Text()}}
	var resp *http.Response
	var body []byte
	var err error
	switch {
	case c.config.IntrospectionURL != "":
		resp, body, err = c.post(ctx, c.config.IntrospectionURL, invented)
	case c.config.RevocationURL != "":
		resp, body, err = c.post(ctx, c.config.RevocationURL, invented)
	default:
		return nil
	}
	if err == nil && resp.StatusCode != http.StatusOK {
		err = connectors.StatusError(resp, connectors.ErrorCode(body))
	}
	return err
}
