package oauth2

import (
	"encoding/json"
	"net/http"
	"strconv"
	"time"

	"github.com/leaverhq/leaver/activities/connectors"
)

// readRevocation classifies a revocation response (RFC 7009 section 2.2).
func readRevocation(resp *http.Response, body []byte, t connectors.Target) (connectors.Answer, error) {
	code := connectors.ErrorCode(body)
	switch {
	case resp.StatusCode == http.StatusOK, resp.StatusCode == http.StatusNoContent:
		return connectors.Answer{
			Outcome: connectors.Done, Detail: "revocation returned " + strconv.Itoa(resp.StatusCode),
		}, nil
	case resp.StatusCode == http.StatusBadRequest && code == "unsupported_token_type":
		// A self-contained token cannot be revoked; it can only expire.
		if t.ExpiresAt == nil {
			return connectors.Answer{}, connectors.Permanent("the server cannot revoke this type of token, " +
				"and its expiry is not known: revoke the grant it came from")
		}
		detail := "the server cannot revoke this type of token; it expires at " + t.ExpiresAt.UTC().Format(time.RFC3339)
		return connectors.Answer{Outcome: connectors.Expires, Detail: detail}, nil
	}
	return connectors.Answer{}, connectors.StatusError(resp, code)
}

// readIntrospection returns the vitality in an introspection response (RFC 7662 section 2.2).
func readIntrospection(resp *http.Response, body []byte) (connectors.Vitality, string, error) {
	if resp.StatusCode != http.StatusOK {
		return connectors.Unknown, "", connectors.StatusError(resp, connectors.ErrorCode(body))
	}
	var answer struct {
		Active *bool `json:"active"`
	}
	if err := json.Unmarshal(body, &answer); err != nil || answer.Active == nil {
		return connectors.Unknown, "", connectors.Retryable("introspection returned 200 without a boolean `active`")
	}
	if *answer.Active {
		return connectors.Alive, "introspection returned active: true", nil
	}
	return connectors.Dead, "introspection returned active: false", nil
}

// grant contains the tokens of a token response, which have to be revoked.
type grant struct {
	AccessToken  string `json:"access_token"`
	RefreshToken string `json:"refresh_token"`
}

// readRefresh returns the vitality in a token response (RFC 6749 sections 5.1 and 5.2). Only
// invalid_grant proves that the token is dead.
func readRefresh(resp *http.Response, body []byte) (connectors.Vitality, string, *grant, error) {
	code := connectors.ErrorCode(body)
	switch {
	case resp.StatusCode == http.StatusOK:
		var g grant
		if err := json.Unmarshal(body, &g); err != nil || g.AccessToken == "" {
			return connectors.Unknown, "", nil, connectors.Retryable("the token endpoint returned 200 without a token")
		}
		return connectors.Alive, "the refresh grant still succeeded", &g, nil
	case (resp.StatusCode == http.StatusBadRequest || resp.StatusCode == http.StatusUnauthorized) &&
		code == "invalid_grant":
		return connectors.Dead, "the refresh grant was refused: invalid_grant", nil, nil
	}
	return connectors.Unknown, "", nil, connectors.StatusError(resp, code)
}
