package extauthz

import (
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/leaverhq/leaver/activities/connectors"
	"github.com/leaverhq/leaver/internal/auth"
	"github.com/leaverhq/leaver/internal/authzen"
	"github.com/leaverhq/leaver/internal/httpjson"
)

// IntrospectionPath is the path of the introspection proxy.
const IntrospectionPath = "/access/v1/introspect"

// Introspect answers a token introspection request (RFC 7662): a token is active if its issuer says so,
// and if its subject and its client may act. The request is sent on to the issuer, with the caller's own
// Authorization for it; the caller's token of leaver is in the header X-Leaver-Token.
func (s *Server) Introspect(w http.ResponseWriter, r *http.Request) {
	answer, err := s.introspect(w, r)
	if err != nil {
		httpjson.Fail(w, r, s.Log, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	// Fails only if the client has disconnected.
	_, _ = w.Write(answer) //nolint:gosec // G705: the issuer's answer, which is JSON
}

// inactive is the answer about every token that is not active (RFC 7662 section 2.2).
var inactive = []byte(`{"active":false}`)

func (s *Server) introspect(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	caller, err := s.Auth.Authenticate(r.Context(), r.Header.Get(tokenHeader), auth.ClassPlatform, auth.ClassGateway)
	if errors.Is(err, auth.ErrUnauthorized) {
		return nil, httpjson.Problem{
			Status: http.StatusUnauthorized,
			Detail: tokenHeader + " must be a token of class platform, or an access token with the scope authzen",
		}
	}
	if err != nil {
		return nil, err
	}
	issuer, err := s.Auth.Introspection(r.Context(), caller)
	if errors.Is(err, auth.ErrIssuerNotFound) {
		return nil, httpjson.Problem{Status: http.StatusConflict, Detail: fmt.Sprintf(
			"the tenant has no issuer %q with an introspection URL: run `leaver issuer add --use access --introspection-url` "+
				"(after `leaver issuer remove`, if the issuer is there without the URL), "+
				"and name the issuer in `leaver token create --class platform --issuer`", caller.Issuer)}
	}
	if err != nil {
		return nil, err
	}
	answer, err := s.askIssuer(w, r, issuer.IntrospectionURL)
	if err != nil {
		return nil, err
	}
	var said struct {
		Active  bool   `json:"active"`
		Issuer  string `json:"iss"`
		Subject string `json:"sub"`
		Client  string `json:"client_id"`
		Issued  int64  `json:"iat"`
	}
	if err := json.Unmarshal(answer, &said); err != nil {
		return nil, httpjson.Problem{Status: http.StatusBadGateway, Detail: "the issuer's answer is not a JSON object"}
	}
	// The claims of another issuer are not names at this one.
	if !said.Active || said.Subject == "" || (said.Issuer != "" && said.Issuer != caller.Issuer) {
		return inactive, nil
	}
	access := auth.Access{Issuer: caller.Issuer, Subject: said.Subject, Client: said.Client}
	if said.Issued > 0 {
		access.IssuedAt = time.Unix(said.Issued, 0)
	}
	decision, err := s.Store.DecideToken(r.Context(), caller.Tenant, access, authzen.Request{
		Action: "introspect", ResourceType: "mcp_server", Resource: issuer.Audience,
	})
	if err != nil {
		return nil, err
	}
	if decision.Reason != authzen.Allow {
		return inactive, nil
	}
	return answer, nil
}

// forwarded returns the parameters of a request that are sent on: the token, and the client's
// authentication (RFC 6749 section 2.3.1, RFC 7523 section 2.2).
func forwarded() []string {
	return []string{
		"token", "token_type_hint", "client_id", "client_secret", "client_assertion", "client_assertion_type",
	}
}

// askIssuer sends an introspection request on, and returns the body of a successful answer.
func (s *Server) askIssuer(w http.ResponseWriter, r *http.Request, address string) ([]byte, error) {
	media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || media != "application/x-www-form-urlencoded" {
		return nil, httpjson.Problem{
			Status: http.StatusBadRequest, Detail: "Content-Type must be application/x-www-form-urlencoded",
		}
	}
	r.Body = http.MaxBytesReader(w, r.Body, connectors.MaxBody)
	if err := r.ParseForm(); err != nil || len(r.PostForm["token"]) != 1 {
		return nil, httpjson.Problem{Status: http.StatusBadRequest, Detail: "token is required once"}
	}
	form := url.Values{}
	for _, name := range forwarded() {
		if value := r.PostForm.Get(name); value != "" {
			form.Set(name, value)
		}
	}
	req, err := http.NewRequestWithContext(r.Context(), http.MethodPost, address, strings.NewReader(form.Encode()))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Accept", "application/json")
	if values := r.Header.Values("Authorization"); len(values) == 1 {
		req.Header.Set("Authorization", values[0])
	}
	resp, body, err := connectors.Exchange(s.Client, req)
	switch {
	case err != nil:
		return nil, httpjson.Problem{Status: http.StatusBadGateway, Detail: "the issuer does not answer: " + err.Error()}
	case resp.StatusCode == http.StatusUnauthorized:
		return nil, httpjson.Problem{Status: http.StatusUnauthorized, Detail: "the issuer refused the caller's credentials"}
	case resp.StatusCode != http.StatusOK:
		return nil, httpjson.Problem{
			Status: http.StatusBadGateway, Detail: fmt.Sprintf("the issuer answered %d", resp.StatusCode),
		}
	}
	return body, nil
}
