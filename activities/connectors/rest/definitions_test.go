package rest_test

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/leaverhq/leaver/activities/connectors"
	"github.com/leaverhq/leaver/activities/connectors/contract"
	"github.com/leaverhq/leaver/activities/connectors/rest"
)

// vendor is the API of a definition's downstream, as the vendor documents it.
type vendor struct {
	settings map[string]string
	kind     connectors.Kind
	// reference of a credential; %s is its key, by which requests name it.
	reference string
	// bySecret is set if requests name the credential by its secret, which is its key.
	bySecret bool
	auth     string // the header that every request must have, as "Name: value"; empty for none
	routes   []route
	// token is the access token that the vendor issues at POST /token, to which the tests point token_url.
	token  string
	header string // that every answer has, as "Name: value"; empty for none
	uuids  bool   // the keys of credentials are UUIDs
	// forgets is set if the vendor's API cannot end the credential.
	forgets bool
	// silent is set if the vendor does not say whether the credential existed.
	silent bool
}

// route is a request of the vendor's API; %s in its texts is the credential's key.
type route struct {
	call  string // method and path
	sends string // what the query, body or headers must contain; each line of it
	alive reply  // while the credential is alive
	ended reply
	ends  bool // the credential
	// restores is set if the request undoes a block.
	restores bool
	own      bool // the request authenticates with the credential itself
	// lists is an element of a list of all live credentials, which stands for %all in the body.
	lists string
	// makes is set if the request makes another credential, whose key stands for %new in the body.
	makes bool
	// each is the part of the answer about each credential of a bulk request, which stands for %each in the body.
	each string
}

type reply struct {
	status int
	body   string
}

// These settings stand for files with the connector's secrets.
const (
	adminSecret = "env:REST_TEST_SECRET"
	accountKey  = "env:REST_TEST_KEY"
)

func vendors() map[string]vendor {
	ok, gone, none := reply{200, `{}`}, reply{404, `{}`}, reply{204, ``}
	notFound := reply{404, `{"kind":"Status","reason":"NotFound","code":404}`}
	return map[string]vendor{
		"google-workspace": {
			kind: connectors.Grant, reference: "ada@example.com/%s", token: "t1", auth: "Authorization: Bearer t1",
			settings: map[string]string{"service_account": "leaver@p.iam.gserviceaccount.com", "key": accountKey, "admin": "admin@example.com"},
			routes: []route{
				{call: "DELETE /admin/directory/v1/users/ada@example.com/tokens/%s", alive: none, ended: gone, ends: true},
				{call: "GET /admin/directory/v1/users/ada@example.com/tokens/%s", alive: reply{200, `{"clientId":"%s","scopes":["mail"]}`}, ended: gone},
			},
		},
		"google-token": {
			kind: connectors.AccessToken, reference: "token", bySecret: true,
			routes: []route{
				{call: "POST /revoke", sends: "token=%s", alive: reply{200, ``}, ended: reply{400, `{"error":"invalid_token"}`}, ends: true},
				{call: "POST /tokeninfo", sends: "access_token=%s", alive: reply{200, `{"scope":"mail"}`}, ended: reply{400, `{"error":"invalid_token"}`}},
			},
		},
		"github-app": {
			kind: connectors.Grant, reference: "ada", bySecret: true, auth: "Authorization: Basic Y2xpZW50OmFkbWluLXNlY3JldA==",
			settings: map[string]string{"client_id": "client", "client_secret": adminSecret},
			routes: []route{
				{call: "DELETE /applications/client/grant", sends: `{"access_token":"%s"}`, alive: none, ended: gone, ends: true},
				{call: "POST /applications/client/token", sends: `{"access_token":"%s"}`, alive: reply{200, `{"id":1,"app":{"client_id":"client"},"user":{"login":"ada"}}`}, ended: gone},
			},
		},
		"github-tokens": {
			kind: connectors.APIKey, reference: "token", bySecret: true,
			routes: []route{
				{call: "POST /credentials/revoke", sends: `"%s"`, alive: reply{202, `{}`}, ended: reply{202, `{}`}, ends: true, each: "%s"},
				{call: "GET /user", sends: "Authorization: Bearer %s", alive: reply{200, `{"login":"ada"}`}, ended: reply{401, `{"message":"Bad credentials","status":"401"}`}},
			},
		},
		"github-org-tokens": {
			kind: connectors.APIKey, reference: "ada/%s", token: "t1", auth: "Authorization: Bearer t1",
			settings: map[string]string{"organization": "acme", "client_id": "Iv1", "installation": "9", "key": accountKey},
			routes: []route{
				{call: "POST /orgs/acme/personal-access-tokens", sends: "%s", alive: reply{202, `{}`}, ended: reply{202, `{}`}, ends: true, each: "%s"},
				{call: "GET /orgs/acme/personal-access-tokens", sends: "owner%5B%5D=ada", alive: reply{200, `[{"id":%s,"owner":{"login":"ada"}}]`}, ended: reply{200, `[]`}},
			},
		},
		"snowflake-tokens": {
			kind: connectors.APIKey, reference: "ADA/%s", silent: true, auth: "X-Snowflake-Authorization-Token-Type: KEYPAIR_JWT",
			settings: map[string]string{"account": "ACME-EU", "login": "LEAVER", "fingerprint": "SHA256:x", "role": "R", "key": accountKey},
			routes: []route{
				{call: "POST /api/v2/statements", sends: `ALTER USER \"ADA\" REMOVE PROGRAMMATIC ACCESS TOKEN IF EXISTS \"%s\"`, alive: reply{200, `{"code":"090001"}`}, ended: reply{200, `{"code":"090001"}`}, ends: true},
				{call: "POST /api/v2/statements", sends: `TOKENS FOR USER \"ADA\"`, alive: reply{200, `{"code":"090001","resultSetMetaData":{"numRows":1},"data":[["%s","ADA","R","2030-01-02","ACTIVE"]]}`}, ended: reply{200, `{"code":"090001","resultSetMetaData":{"numRows":0},"data":[]}`}},
			},
		},
		"snowflake-key-pairs": {
			kind: connectors.APIKey, reference: "ADA/%s", auth: "X-Snowflake-Authorization-Token-Type: KEYPAIR_JWT",
			settings: map[string]string{"account": "ACME-EU", "login": "LEAVER", "fingerprint": "SHA256:x", "role": "R", "key": accountKey},
			routes: []route{
				{call: "POST /api/v2/statements", sends: `\"%s\" SET DISABLED = FALSE`, alive: reply{200, `{"code":"090001"}`}, ended: reply{200, `{"code":"090001"}`}, restores: true},
				{call: "POST /api/v2/statements", sends: `\"%s\" SET DISABLED = TRUE`, alive: reply{200, `{"code":"090001"}`}, ended: reply{200, `{"code":"090001"}`}, ends: true},
				{call: "POST /api/v2/statements", sends: `ALTER USER \"ADA\" REMOVE KEY PAIR \"%s\"`, alive: reply{200, `{"code":"090001"}`}, ended: reply{422, `{"code":"002003","message":"Key pair %s does not exist."}`}, ends: true},
				{call: "POST /api/v2/statements", sends: `KEY PAIRS FOR USER \"ADA\"`, alive: reply{200, `{"code":"090001","resultSetMetaData":{"numRows":1},"data":[["%s","ADA","SHA256:y",null,"ACTIVE"]]}`}, ended: reply{200, `{"code":"090001","resultSetMetaData":{"numRows":0},"data":[]}`}},
			},
		},
		"snowflake-users": {
			kind: connectors.ServiceAccount, reference: "%s", auth: "X-Snowflake-Authorization-Token-Type: KEYPAIR_JWT",
			settings: map[string]string{"account": "ACME-EU", "login": "LEAVER", "fingerprint": "SHA256:x", "role": "R", "warehouse": "W", "key": accountKey},
			routes: []route{
				{call: "POST /api/v2/statements", sends: `\"%s\" SET DISABLED = FALSE`, alive: reply{200, `{"code":"090001"}`}, ended: reply{200, `{"code":"090001"}`}, restores: true},
				{call: "POST /api/v2/statements", sends: `\"%s\" SET DISABLED = TRUE`, alive: reply{200, `{"code":"090001"}`}, ended: reply{200, `{"code":"090001"}`}, ends: true},
				{call: "POST /api/v2/statements", sends: `DESCRIBE USER \"%s\"`, alive: reply{200, `{"code":"090001","data":[["NAME","%s"],["DISABLED","false"]]}`}, ended: reply{200, `{"code":"090001","data":[["NAME","%s"],["DISABLED","true"]]}`}},
			},
		},
		"vault-leases": {
			kind: connectors.ServiceAccount, reference: "database/creds/readonly/%s", auth: "X-Vault-Token: admin-secret", silent: true,
			settings: map[string]string{"token": adminSecret},
			routes: []route{
				{call: "POST /v1/sys/leases/revoke", sends: `{"lease_id":"database/creds/readonly/%s","sync":true}`, alive: none, ended: none, ends: true},
				{call: "POST /v1/sys/leases/lookup", sends: `{"lease_id":"database/creds/readonly/%s"}`, alive: reply{200, `{"data":{"id":"database/creds/readonly/%s","ttl":3600}}`}, ended: reply{400, `{"errors":["invalid lease"]}`}},
			},
		},
		"vault-roles": {
			kind: connectors.ServiceAccount, reference: "database/%s", auth: "X-Vault-Token: admin-secret", silent: true,
			settings: map[string]string{"token": adminSecret},
			routes: []route{
				{call: "POST /v1/sys/leases/revoke-prefix/database/creds/%s", sends: `{"sync":true}`, alive: none, ended: none, ends: true},
				{call: "GET /v1/sys/leases/lookup/database/creds/%s", sends: "list=true", alive: reply{200, `{"data":{"keys":["27e1b9a1"]}}`}, ended: reply{404, `{"errors":[]}`}},
			},
		},
		"vault-static-roles": {
			kind: connectors.ServiceAccount, reference: "database/%s", auth: "X-Vault-Token: admin-secret",
			settings: map[string]string{"token": adminSecret},
			routes:   []route{{call: "POST /v1/database/rotate-role/%s", alive: none, ended: none, ends: true}},
		},
		"vault-tokens": {
			kind: connectors.AccessToken, reference: "%s", auth: "X-Vault-Token: admin-secret", settings: map[string]string{"token": adminSecret},
			routes: []route{
				{call: "POST /v1/auth/token/revoke-accessor", sends: `{"accessor":"%s"}`, alive: none, ended: reply{400, `{"errors":["1 error occurred:\n\t* invalid accessor\n\n"]}`}, ends: true},
				{call: "POST /v1/auth/token/lookup-accessor", sends: `{"accessor":"%s"}`, alive: reply{200, `{"data":{"accessor":"%s","ttl":3600}}`}, ended: reply{403, `{"errors":["1 error occurred:\n\t* invalid accessor\n\n"]}`}},
			},
		},
		"github-sso": {
			kind: connectors.APIKey, reference: "%s", auth: "Authorization: Bearer admin-secret",
			settings: map[string]string{"organization": "acme", "token": adminSecret},
			routes:   []route{{call: "DELETE /orgs/acme/credential-authorizations/%s", alive: none, ended: gone, ends: true}},
		},
		"github-actions": {
			kind: connectors.ScheduledRun, reference: "acme/crm/%s", auth: "Authorization: Bearer admin-secret",
			settings: map[string]string{"token": adminSecret},
			routes: []route{
				{call: "PUT /repos/acme/crm/actions/workflows/%s/enable", alive: none, ended: none, restores: true},
				{call: "PUT /repos/acme/crm/actions/workflows/%s/disable", alive: none, ended: none, ends: true},
				{call: "GET /repos/acme/crm/actions/workflows/%s", alive: reply{200, `{"state":"active"}`}, ended: reply{200, `{"state":"disabled_manually"}`}},
			},
		},
		"slack": {
			kind: connectors.AccessToken, reference: "token", bySecret: true,
			routes: []route{
				{call: "POST /auth.revoke", sends: "Authorization: Bearer %s", alive: reply{200, `{"ok":true,"revoked":true}`}, ended: reply{200, `{"ok":false,"error":"token_revoked"}`}, ends: true},
				{call: "POST /auth.test", sends: "Authorization: Bearer %s", alive: reply{200, `{"ok":true,"user_id":"U1"}`}, ended: reply{200, `{"ok":false,"error":"token_revoked"}`}},
			},
		},
		"microsoft-graph-grants": {
			kind: connectors.Grant, reference: "%s", token: "t1", auth: "Authorization: Bearer t1",
			settings: map[string]string{"directory": "d1", "client_id": "c", "client_secret": adminSecret},
			routes: []route{
				{call: "DELETE /oauth2PermissionGrants/%s", alive: none, ended: gone, ends: true},
				{call: "GET /oauth2PermissionGrants/%s", alive: reply{200, `{"id":"%s"}`}, ended: gone},
			},
		},
		"gitlab-service-accounts": {
			kind: connectors.APIKey, reference: "57/%s", auth: "Private-Token: admin-secret",
			settings: map[string]string{"group": "345", "owner_token": adminSecret, "scopes": "api"},
			routes: []route{
				{call: "DELETE /api/v4/groups/345/service_accounts/57/personal_access_tokens/%s", alive: none, ended: reply{404, `{"message":"404 Personal Access Token Not Found"}`}, ends: true},
				{call: "GET /api/v4/groups/345/service_accounts/57/personal_access_tokens", sends: "state=active", alive: reply{200, `[%all]`}, lists: `{"id":%s,"user_id":57,"active":true}`},
				{call: "GET /api/v4/personal_access_tokens/self", sends: "Private-Token: %s", own: true, alive: reply{200, `{"id":%s,"user_id":57,"scopes":["api"]}`}, ended: reply{401, `{"message":"401 Unauthorized"}`}},
				{call: "POST /api/v4/groups/345/service_accounts/57/personal_access_tokens", sends: "scopes%5B%5D=api", makes: true, alive: reply{201, `{"id":%new,"user_id":57,"token":"%new"}`}},
			},
		},
		"microsoft-application-passwords": {
			kind: connectors.APIKey, reference: "019a0000-0000-7000-8000-00000000000a/%s", uuids: true, token: "t1", auth: "Authorization: Bearer t1",
			settings: map[string]string{"directory": "d1", "client_id": "c", "client_secret": adminSecret},
			routes: []route{
				{call: "POST /applications(appId='019a0000-0000-7000-8000-00000000000a')/removePassword", sends: `{"keyId":"%s"}`, alive: none, ended: reply{400, `{"error":{"code":"Request_BadRequest","message":"No password credential found with keyId '%s'."}}`}, ends: true},
				{call: "GET /applications(appId='019a0000-0000-7000-8000-00000000000a')", alive: reply{200, `{"appId":"019a0000-0000-7000-8000-00000000000a","passwordCredentials":[%all]}`}, lists: `{"keyId":"%s"}`},
				{call: "POST /d1/oauth2/v2.0/token", sends: "client_id=019a0000-0000-7000-8000-00000000000a&client_secret=%s", own: true, alive: reply{200, `{"access_token":"a"}`}, ended: reply{401, `{"error":"invalid_client"}`}},
				{call: "POST /applications(appId='019a0000-0000-7000-8000-00000000000a')/addPassword", sends: `"displayName":"leaver `, makes: true, alive: reply{200, `{"keyId":"%new","secretText":"%new"}`}},
			},
		},
		"microsoft-graph-sessions": {
			kind: connectors.Session, reference: "%s", token: "t1", auth: "Authorization: Bearer t1",
			settings: map[string]string{"directory": "d1", "client_id": "c", "client_secret": adminSecret},
			routes: []route{{
				call: "POST /users/%s/revokeSignInSessions", alive: reply{200, `{"value":true}`},
				ended: reply{200, `{"value":true}`}, ends: true,
			}},
		},
		"microsoft-agent-identities": {
			kind: connectors.ServiceAccount, reference: "%s", uuids: true, token: "t1", auth: "Authorization: Bearer t1",
			settings: map[string]string{"directory": "d1", "client_id": "c", "client_secret": adminSecret},
			routes: []route{
				{call: "PATCH /servicePrincipals/%s/microsoft.graph.agentIdentity", sends: `{"accountEnabled":true}`, alive: none, ended: none, restores: true},
				{call: "PATCH /servicePrincipals/%s/microsoft.graph.agentIdentity", sends: `{"accountEnabled":false}`, alive: none, ended: none, ends: true},
				{call: "GET /servicePrincipals/%s/microsoft.graph.agentIdentity", alive: reply{200, `{"id":"%s","accountEnabled":true}`}, ended: reply{200, `{"id":"%s","accountEnabled":false}`}},
			},
		},
		"slack-sessions": {
			kind: connectors.Session, reference: "T1/%s", auth: "Authorization: Bearer admin-secret",
			settings: map[string]string{"token": adminSecret},
			routes: []route{
				{call: "POST /admin.users.session.reset", sends: "user_id=%s", alive: reply{200, `{"ok":true}`}, ended: reply{200, `{"ok":true}`}, ends: true},
				{call: "POST /admin.users.session.list", sends: "team_id=T1&user_id=%s", alive: reply{200, `{"ok":true,"active_sessions":[{"user_id":"%s"}]}`}, ended: reply{200, `{"ok":true,"active_sessions":[]}`}},
			},
		},
		"databricks-jobs": {
			kind: connectors.ScheduledRun, reference: "%s", auth: "Authorization: Bearer admin-secret",
			settings: map[string]string{"token": adminSecret},
			routes: []route{
				{call: "POST /api/2.2/jobs/update", sends: `{"fields_to_remove":["schedule","trigger","continuous"],"job_id":%s}`, alive: reply{200, `{}`}, ended: reply{200, `{}`}, ends: true},
				{call: "GET /api/2.2/jobs/get", sends: "job_id=%s", alive: reply{200, `{"settings":{"schedule":{"pause_status":"UNPAUSED"}}}`}, ended: reply{200, `{"settings":{}}`}},
			},
		},
		"salesforce": {
			kind: connectors.AccessToken, reference: "token", bySecret: true,
			routes: []route{
				{call: "POST /services/oauth2/revoke", sends: "token=%s", alive: reply{200, ``}, ended: reply{400, `{"error":"invalid_token"}`}, ends: true},
			},
		},
		"salesforce-tokens": {
			kind: connectors.RefreshToken, reference: "%s", token: "t1", auth: "Authorization: Bearer t1",
			settings: map[string]string{"client_id": "c", "client_secret": adminSecret},
			routes: []route{
				{call: "POST /services/oauth2/revoke", sends: "token=%s", alive: reply{200, ``}, ended: reply{400, `{"error":"invalid_token"}`}, ends: true},
				{call: "GET /services/data/v62.0/query", sends: "DeleteToken+%3D+%27%s%27", alive: reply{200, `{"totalSize":1,"records":[{"DeleteToken":"%s"}]}`}, ended: reply{200, `{"totalSize":0,"records":[]}`}},
			},
		},
		"atlassian": {
			kind: connectors.APIKey, reference: "a1/%s", auth: "Authorization: Bearer admin-secret",
			settings: map[string]string{"organization": "o1", "api_key": adminSecret},
			routes: []route{
				{call: "DELETE /users/a1/manage/api-tokens/%s", alive: none, ended: gone, ends: true},
				{call: "GET /users/a1/manage/api-tokens", alive: reply{200, `[{"id":"other"},{"id":"%s"}]`}, ended: reply{200, `[{"id":"other"}]`}},
			},
		},
		"aws-cognito-users": {
			kind: connectors.ServiceAccount, reference: "%s",
			settings: map[string]string{"region": "eu-central-1", "pool": "eu-central-1_p", "access_key_id": "AKIAEXAMPLE", "secret_access_key": adminSecret},
			routes: []route{
				{call: "POST /", sends: cognito("AdminEnableUser"), alive: ok, ended: ok, restores: true},
				{call: "POST /", sends: cognito("AdminDisableUser"), alive: ok, ended: ok, ends: true},
				{call: "POST /", sends: cognito("AdminGetUser"), alive: reply{200, `{"Username":"%s","Enabled":true}`}, ended: reply{200, `{"Username":"%s","Enabled":false}`}},
			},
		},
		"okta-ai-agents": {
			kind: connectors.Grant, reference: "wlp1/%s", auth: "Authorization: SSWS admin-secret", settings: map[string]string{"api_token": adminSecret},
			routes: []route{
				{call: "POST /workload-principals/api/v1/ai-agents/wlp1/connections/%s/lifecycle/activate", alive: reply{200, `{"id":"%s","status":"ACTIVE"}`}, ended: reply{200, `{"id":"%s","status":"ACTIVE"}`}, restores: true},
				{call: "POST /workload-principals/api/v1/ai-agents/wlp1/connections/%s/lifecycle/deactivate", alive: reply{200, `{"id":"%s","status":"INACTIVE"}`}, ended: reply{200, `{"id":"%s","status":"INACTIVE"}`}, ends: true},
				{call: "GET /workload-principals/api/v1/ai-agents/wlp1/connections/%s", alive: reply{200, `{"id":"%s","status":"ACTIVE"}`}, ended: reply{200, `{"id":"%s","status":"INACTIVE"}`}},
			},
		},
		"okta": {
			kind: connectors.RefreshToken, reference: "00u1/0oa1/%s", auth: "Authorization: SSWS admin-secret",
			settings: map[string]string{"api_token": adminSecret},
			routes: []route{
				{call: "DELETE /api/v1/users/00u1/clients/0oa1/tokens/%s", alive: none, ended: reply{404, `{"errorCode":"E0000007"}`}, ends: true},
				{call: "GET /api/v1/users/00u1/clients/0oa1/tokens/%s", alive: reply{200, `{"id":"%s","status":"ACTIVE"}`}, ended: reply{404, `{"errorCode":"E0000007"}`}},
			},
		},
		"hubspot": {
			kind: connectors.RefreshToken, reference: "token", bySecret: true,
			settings: map[string]string{"client_id": "c", "client_secret": adminSecret},
			routes: []route{
				{call: "POST /oauth/2026-03/token/revoke", sends: "token=%s", alive: reply{204, ``}, ended: reply{400, `{"status":"BAD_REFRESH_TOKEN"}`}, ends: true},
				{call: "POST /oauth/2026-03/token/introspect", sends: "token=%s", alive: reply{200, `{"active":true}`}, ended: reply{200, `{"active":false}`}},
				{call: "POST /oauth/2026-03/token", sends: "refresh_token=%s", alive: reply{200, `{"access_token":"x"}`}, ended: reply{400, `{"error":"invalid_grant"}`}},
			},
		},
		"linear": {
			kind: connectors.AccessToken, reference: "token", bySecret: true,
			routes: []route{
				{call: "POST /oauth/revoke", sends: "Authorization: Bearer %s", alive: reply{200, ``}, ended: reply{401, `{}`}, ends: true},
				{call: "POST /graphql", sends: "Authorization: Bearer %s", alive: reply{200, `{"data":{"viewer":{"id":"u1"}}}`}, ended: reply{401, `{"errors":[]}`}},
			},
		},
		"notion": {
			kind: connectors.AccessToken, reference: "token", bySecret: true, auth: "Authorization: Basic YzphZG1pbi1zZWNyZXQ=",
			settings: map[string]string{"client_id": "c", "client_secret": adminSecret},
			routes: []route{
				{call: "POST /v1/oauth/revoke", sends: `{"token":"%s"}`, alive: reply{200, `{"request_id":"r"}`}, ended: reply{200, `{"request_id":"r"}`}, ends: true},
				{call: "POST /v1/oauth/introspect", sends: `{"token":"%s"}`, alive: reply{200, `{"active":true}`}, ended: reply{200, `{"active":false}`}},
			},
		},
		"composio": {
			kind: connectors.Grant, reference: "%s", auth: "X-Api-Key: admin-secret", settings: map[string]string{"api_key": adminSecret},
			routes: []route{
				{call: "POST /api/v3.1/connected_accounts/%s/revoke", alive: reply{200, `{"revoked_tokens":["access_token","refresh_token"],"connected_account":{"id":"%s","status":"REVOKED"}}`}, ended: reply{200, `{"revoked_tokens":[],"connected_account":{"id":"%s","status":"REVOKED"}}`}, ends: true},
				{call: "PATCH /api/v3/connected_accounts/%s/status", sends: `{"enabled":false}`, alive: reply{200, `{"success":true}`}, ended: reply{200, `{"success":true}`}, ends: true},
				{call: "PATCH /api/v3/connected_accounts/%s/status", sends: `{"enabled":true}`, alive: reply{200, `{"success":true}`}, ended: reply{200, `{"success":true}`}, restores: true},
				{call: "GET /api/v3/connected_accounts/%s", alive: reply{200, `{"status":"ACTIVE"}`}, ended: reply{200, `{"status":"REVOKED"}`}},
			},
		},
		"nango": {
			kind: connectors.Grant, reference: "hubspot/%s", auth: "Authorization: Bearer admin-secret", forgets: true,
			settings: map[string]string{"secret_key": adminSecret},
			routes: []route{
				{call: "DELETE /connections/%s", sends: "provider_config_key=hubspot", alive: reply{200, `{"success":true}`}, ended: reply{400, `{"error":{"code":"unknown_connection"}}`}, ends: true},
				{call: "GET /connections/%s", sends: "provider_config_key=hubspot", alive: ok, ended: reply{400, `{"error":{"code":"unknown_connection"}}`}},
			},
		},
		"auth0-token-vault": {
			kind: connectors.Grant, reference: "auth0%%7C1/%s", token: "t1", auth: "Authorization: Bearer t1", forgets: true,
			settings: map[string]string{"client_id": "c", "client_secret": adminSecret},
			routes: []route{
				{call: "DELETE /api/v2/users/auth0|1/federated-connections-tokensets/%s", alive: none, ended: gone, ends: true},
				{call: "GET /api/v2/users/auth0|1/federated-connections-tokensets", alive: reply{200, `[{"id":"%s","connection":"google-oauth2"}]`}, ended: reply{200, `[]`}},
			},
		},
		"auth0": {
			kind: connectors.RefreshToken, reference: "%s", token: "t1", auth: "Authorization: Bearer t1",
			settings: map[string]string{"client_id": "c", "client_secret": adminSecret},
			routes: []route{
				{call: "DELETE /api/v2/refresh-tokens/%s", alive: none, ended: gone, ends: true},
				{call: "GET /api/v2/refresh-tokens/%s", alive: reply{200, `{"id":"%s"}`}, ended: gone},
			},
		},
		"openai-service-accounts": {
			kind: connectors.ServiceAccount, reference: "%s", auth: "Authorization: Bearer admin-secret",
			settings: map[string]string{"project": "p1", "admin_key": adminSecret},
			routes: []route{
				{call: "DELETE /organization/projects/p1/service_accounts/%s", alive: reply{200, `{"object":"organization.project.service_account.deleted","id":"%s","deleted":true}`}, ended: gone, ends: true},
				{call: "GET /organization/projects/p1/service_accounts/%s", alive: reply{200, `{"id":"%s","role":"member"}`}, ended: gone},
			},
		},
		"kubernetes-service-accounts": {
			kind: connectors.ServiceAccount, reference: "crm/%s", auth: "Authorization: Bearer admin-secret", settings: map[string]string{"token": adminSecret},
			routes: []route{
				{call: "DELETE /api/v1/namespaces/crm/serviceaccounts/%s", alive: reply{200, `{"kind":"ServiceAccount"}`}, ended: notFound, ends: true},
				{call: "GET /api/v1/namespaces/crm/serviceaccounts/%s", alive: reply{200, `{"kind":"ServiceAccount","metadata":{"name":"%s"}}`}, ended: notFound},
			},
		},
		"databricks-service-principals": {
			kind: connectors.ServiceAccount, reference: "%s", auth: "Authorization: Bearer admin-secret", settings: map[string]string{"token": adminSecret},
			routes: []route{
				{call: "PATCH /api/2.0/preview/scim/v2/ServicePrincipals/%s", sends: `"value":true`, alive: none, ended: none, restores: true},
				{call: "PATCH /api/2.0/preview/scim/v2/ServicePrincipals/%s", sends: `"value":false`, alive: none, ended: none, ends: true},
				{call: "GET /api/2.0/preview/scim/v2/ServicePrincipals/%s", alive: reply{200, `{"id":"%s","active":true}`}, ended: reply{200, `{"id":"%s","active":false}`}},
			},
		},
		"okta-grants": {
			kind: connectors.Grant, reference: "00u1/%s", auth: "Authorization: SSWS admin-secret", settings: map[string]string{"api_token": adminSecret},
			routes: []route{
				{call: "DELETE /api/v1/users/00u1/grants/%s", alive: none, ended: reply{404, `{"errorCode":"E0000007"}`}, ends: true},
				{call: "GET /api/v1/users/00u1/grants/%s", alive: reply{200, `{"id":"%s","status":"ACTIVE","scopeId":"mail"}`}, ended: reply{200, `{"id":"%s","status":"REVOKED","scopeId":"mail"}`}},
			},
		},
		"openai": {
			kind: connectors.APIKey, reference: "%s", auth: "Authorization: Bearer admin-secret",
			settings: map[string]string{"project": "p1", "admin_key": adminSecret},
			routes: []route{
				{call: "DELETE /organization/projects/p1/api_keys/%s", alive: reply{200, `{"id":"%s","deleted":true}`}, ended: gone, ends: true},
				{call: "GET /organization/projects/p1/api_keys/%s", alive: reply{200, `{"id":"%s"}`}, ended: gone},
			},
		},
		"anthropic": {
			kind: connectors.APIKey, reference: "%s", auth: "X-Api-Key: admin-secret", settings: map[string]string{"admin_key": adminSecret},
			routes: []route{
				{call: "POST /v1/organizations/api_keys/%s", sends: `{"status":"archived"}`, alive: reply{200, `{"id":"%s","status":"archived"}`}, ended: reply{200, `{"id":"%s","status":"archived"}`}, ends: true},
				{call: "POST /v1/organizations/api_keys/%s", sends: `{"status":"inactive"}`, alive: reply{200, `{"id":"%s","status":"inactive"}`}, ended: reply{200, `{"id":"%s","status":"inactive"}`}, ends: true},
				{call: "POST /v1/organizations/api_keys/%s", sends: `{"status":"active"}`, alive: reply{200, `{"id":"%s","status":"active"}`}, ended: reply{200, `{"id":"%s","status":"active"}`}, restores: true},
				{call: "GET /v1/organizations/api_keys/%s", alive: reply{200, `{"status":"active"}`}, ended: reply{200, `{"status":"archived"}`}},
			},
		},
		"databricks-tokens": {
			kind: connectors.APIKey, reference: "%s", auth: "Authorization: Bearer admin-secret", settings: map[string]string{"token": adminSecret},
			routes: []route{
				{call: "DELETE /api/2.0/token-management/tokens/%s", alive: ok, ended: reply{404, `{"error_code":"RESOURCE_DOES_NOT_EXIST"}`}, ends: true},
				{call: "GET /api/2.0/token-management/tokens/%s", alive: reply{200, `{"token_info":{"token_id":"%s"}}`}, ended: reply{404, `{"error_code":"RESOURCE_DOES_NOT_EXIST"}`}},
			},
		},
		"kubernetes-cronjobs": {
			kind: connectors.ScheduledRun, reference: "crm/%s", auth: "Authorization: Bearer admin-secret", settings: map[string]string{"token": adminSecret},
			routes: []route{
				{call: "PATCH /apis/batch/v1/namespaces/crm/cronjobs/%s", sends: `{"spec":{"suspend":false}}`, alive: reply{200, `{"spec":{"suspend":false}}`}, ended: reply{200, `{"spec":{"suspend":false}}`}, restores: true},
				{call: "PATCH /apis/batch/v1/namespaces/crm/cronjobs/%s", sends: `{"spec":{"suspend":true}}`, alive: reply{200, `{"spec":{"suspend":true}}`}, ended: reply{200, `{"spec":{"suspend":true}}`}, ends: true},
				{call: "GET /apis/batch/v1/namespaces/crm/cronjobs/%s", alive: reply{200, `{"spec":{"suspend":false}}`}, ended: reply{200, `{"spec":{"suspend":true}}`}},
			},
		},
		"kubernetes-tokens": {
			kind: connectors.APIKey, reference: "crm/%s", auth: "Authorization: Bearer admin-secret", settings: map[string]string{"token": adminSecret},
			routes: []route{
				{call: "DELETE /api/v1/namespaces/crm/secrets/%s", alive: reply{200, `{"kind":"Status"}`}, ended: notFound, ends: true},
				{call: "POST /apis/authentication.k8s.io/v1/tokenreviews", sends: `"token":"%s"`, alive: reply{201, `{"status":{"authenticated":true}}`}, ended: reply{201, `{"status":{"error":"invalid bearer token"}}`}},
			},
		},
		"gitlab": {
			kind: connectors.APIKey, reference: "%s", auth: "Private-Token: admin-secret", settings: map[string]string{"token": adminSecret},
			routes: []route{
				{call: "DELETE /api/v4/personal_access_tokens/%s", alive: none, ended: gone, ends: true},
				{call: "GET /api/v4/personal_access_tokens/%s", alive: reply{200, `{"active":true,"revoked":false}`}, ended: reply{200, `{"active":false,"revoked":true}`}},
			},
		},
		"gitea": {
			kind: connectors.APIKey, reference: "ada/%s", auth: "Authorization: Basic cm9vdDphZG1pbi1zZWNyZXQ=", header: "X-Total-Count: 1",
			settings: map[string]string{"admin": "root", "password": adminSecret},
			routes: []route{
				{call: "DELETE /api/v1/users/ada/tokens/%s", sends: "Sudo: ada", alive: none, ended: gone, ends: true},
				{call: "GET /api/v1/users/ada/tokens", sends: "Sudo: ada", alive: reply{200, `[{"id":7,"name":"%s"}]`}, ended: reply{200, `[{"id":8,"name":"other"}]`}},
			},
		},
		"grafana": {
			kind: connectors.APIKey, reference: "3/%s", auth: "Authorization: Bearer admin-secret", settings: map[string]string{"api_token": adminSecret},
			routes: []route{
				{call: "DELETE /api/serviceaccounts/3/tokens/%s", alive: reply{200, `{"message":"API key deleted"}`}, ended: reply{404, `{"message":"Failed to delete API key"}`}, ends: true},
				{call: "GET /api/serviceaccounts/3/tokens", alive: reply{200, `[{"id":%s}]`}, ended: reply{200, `[]`}},
			},
		},
		"airflow": {
			kind: connectors.ScheduledRun, reference: "%s", auth: "Authorization: Bearer admin-secret", settings: map[string]string{"token": adminSecret},
			routes: []route{
				{call: "PATCH /api/v2/dags/%s", sends: `{"is_paused":false}`, alive: reply{200, `{"is_paused":false}`}, ended: reply{200, `{"is_paused":false}`}, restores: true},
				{call: "PATCH /api/v2/dags/%s", sends: "update_mask=is_paused", alive: reply{200, `{"is_paused":true}`}, ended: reply{200, `{"is_paused":true}`}, ends: true},
				{call: "GET /api/v2/dags/%s", alive: reply{200, `{"is_paused":false}`}, ended: reply{200, `{"is_paused":true}`}},
			},
		},
		"n8n": {
			kind: connectors.ScheduledRun, reference: "%s", auth: "X-N8n-Api-Key: admin-secret", settings: map[string]string{"api_key": adminSecret},
			routes: []route{
				{call: "POST /api/v1/workflows/%s/unpublish", alive: reply{200, `{"id":"%s"}`}, ended: reply{200, `{"id":"%s"}`}, ends: true},
				{call: "GET /api/v1/workflows/%s", alive: reply{200, `{"id":"%s","activeVersionId":"v1"}`}, ended: reply{200, `{"id":"%s","activeVersionId":null}`}},
			},
		},
		"scim-bulk": {
			kind: connectors.ServiceAccount, reference: "%s", auth: "Authorization: Bearer admin-secret", settings: map[string]string{"token": adminSecret},
			routes: []route{
				{call: "POST /Bulk", sends: `"path":"/Users/%s"`, alive: reply{200, `{"Operations":[%each]}`}, ended: reply{200, `{"Operations":[%each]}`}, ends: true, each: `{"bulkId":"%s","method":"PATCH","status":"204"}`},
				{call: "GET /Users/%s", alive: reply{200, `{"id":"%s","active":true}`}, ended: reply{200, `{"id":"%s","active":false}`}},
			},
		},
		"scim": {
			kind: connectors.ServiceAccount, reference: "%s", auth: "Authorization: Bearer admin-secret", settings: map[string]string{"token": adminSecret},
			routes: []route{
				{call: "PATCH /Users/%s", sends: `"value":false`, alive: reply{200, `{"id":"%s","active":false}`}, ended: reply{200, `{"id":"%s","active":false}`}, ends: true},
				{call: "GET /Users/%s", alive: reply{200, `{"id":"%s","active":true}`}, ended: reply{200, `{"id":"%s","active":false}`}},
			},
		},
	}
}

// cognito is what a request of Amazon Cognito for an operation contains.
func cognito(operation string) string {
	return "X-Amz-Target: AWSCognitoIdentityProviderService." + operation + "\n" + `{"UserPoolId":"eu-central-1_p","Username":"%s"}`
}

// running is a vendor's API with the credentials that it has issued.
type running struct {
	vendor
	t  *testing.T
	at string

	mu    sync.Mutex
	n     int
	alive map[string]bool
	last  string // the newest credential, which lists show
	// refused is the answer to each request; nil for those of the routes.
	refused *refusal
}

func start(t *testing.T, v vendor) *running {
	t.Helper()
	r := &running{vendor: v, t: t, alive: make(map[string]bool)}
	server := httptest.NewServer(r)
	t.Cleanup(server.Close)
	r.at = server.URL
	return r
}

// ServeHTTP answers as the vendor's documentation says, and 401 without its authentication.
func (r *running) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	raw, _ := io.ReadAll(req.Body)
	var text strings.Builder
	fmt.Fprintf(&text, "%s\n%s\n", req.URL.RawQuery, raw)
	for name, values := range req.Header {
		fmt.Fprintf(&text, "%s: %s\n", name, values[0])
	}
	w.Header().Set("Content-Type", "application/json")
	if name, value, ok := strings.Cut(r.header, ": "); ok {
		w.Header().Set(name, value)
	}
	own := slices.ContainsFunc(r.routes, func(route route) bool {
		first, _, _ := strings.Cut(route.sends, "%s")
		return route.own && route.call == req.Method+" "+req.URL.Path && strings.Contains(text.String(), first)
	})
	if r.token != "" && !own && strings.HasSuffix(req.URL.Path, "/token") {
		fmt.Fprintf(w, `{"access_token":%q,"token_type":"Bearer","expires_in":3600}`, r.token)
		return
	}
	if r.token != "" && strings.HasSuffix(req.URL.Path, "/access_tokens") {
		w.WriteHeader(http.StatusCreated)
		fmt.Fprintf(w, `{"token":%q,"expires_at":"2100-01-02T03:04:05Z"}`, r.token)
		return
	}
	if r.refused != nil {
		maps.Copy(w.Header(), r.refused.header)
		w.WriteHeader(r.refused.status)
		_, _ = io.WriteString(w, r.refused.body)
		return
	}
	if r.auth != "" && !own && !strings.Contains(text.String(), r.auth+"\n") {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for key, alive := range r.alive {
		for _, route := range r.routes {
			call, sends := strings.ReplaceAll(route.call, "%s", key), strings.ReplaceAll(route.sends, "%s", key)
			missing := func(line string) bool { return !strings.Contains(text.String(), line) }
			if call != req.Method+" "+req.URL.Path || slices.ContainsFunc(strings.Split(sends, "\n"), missing) ||
				!strings.Contains(route.call+route.sends, "%s") && key != r.last {
				continue
			}
			answer := route.ended
			if alive || route.makes || route.lists != "" {
				answer = route.alive
			}
			if route.ends || route.restores {
				r.alive[key] = route.restores
			}
			body := strings.ReplaceAll(answer.body, "%s", key)
			if route.makes {
				body = strings.ReplaceAll(body, "%new", r.newKey())
			}
			body = strings.ReplaceAll(body, "%all", strings.Join(r.listed(route.lists), ","))
			if route.each != "" {
				body = strings.ReplaceAll(body, "%each", strings.Join(r.endAll(route, text.String()), ","))
			}
			w.WriteHeader(answer.status)
			_, _ = io.WriteString(w, body)
			return
		}
	}
	if own {
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = io.WriteString(w, `{"error":"invalid_client"}`)
		return
	}
	w.WriteHeader(http.StatusNotFound)
}

// listed returns an element for each live credential.
func (r *running) listed(element string) (list []string) {
	for key, alive := range r.alive {
		if alive {
			list = append(list, strings.ReplaceAll(element, "%s", key))
		}
	}
	return list
}

// endAll ends each credential that a bulk request names, and returns the parts of the answer.
func (r *running) endAll(route route, request string) (parts []string) {
	for key := range r.alive {
		if strings.Contains(request, strings.ReplaceAll(route.sends, "%s", key)) {
			r.alive[key] = false
			parts = append(parts, strings.ReplaceAll(route.each, "%s", key))
		}
	}
	return parts
}

// issue creates a credential.
func (r *running) issue(*testing.T) connectors.Target {
	r.mu.Lock()
	defer r.mu.Unlock()
	key := r.newKey()
	t := connectors.Target{Item: uuid.New(), Principal: uuid.New(), Kind: r.kind, Reference: fmt.Sprintf(r.reference, key)}
	if r.bySecret {
		t.Reference = r.reference
	}
	t.Secret = connectors.Secret(key)
	return t
}

// newKey returns the key of a new credential.
func (r *running) newKey() string {
	r.n++
	key := fmt.Sprintf("%d%d", 70_000_000+r.n, len(r.reference))
	if r.uuids {
		key = uuid.NewString()
	}
	r.alive[key], r.last = true, key
	return key
}

// works reports whether the credential is alive.
func (r *running) works(_ *testing.T, t connectors.Target) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.alive[t.Secret.Reveal()]
}

// connector returns a connector of the definition for an address.
func (v vendor) connector(t *testing.T, d *rest.Definition, at string) *rest.Connector {
	t.Helper()
	settings := maps.Clone(v.settings)
	if settings == nil {
		settings = make(map[string]string)
	}
	for name, value := range settings {
		switch value {
		case adminSecret:
			settings[name] = secretFile(t, "admin-secret")
		case accountKey:
			settings[name] = secretFile(t, testKey(t))
		}
	}
	for _, s := range d.Settings {
		switch s.Name {
		case "url", "login":
			settings[s.Name] = at
		case "token_url":
			settings[s.Name] = at + "/token"
		}
	}
	c, err := rest.New(d, settings)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func TestDefinitions_FulfilTheContract(t *testing.T) {
	all, err := rest.Load("")
	if err != nil {
		t.Fatal(err)
	}
	known := vendors()
	for _, name := range all.Names() {
		v, ok := known[name]
		if !ok {
			t.Errorf("the definition %s has no test", name)
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := start(t, v)
			c := v.connector(t, all[name], r.at)
			registration := connectors.Registration{Kind: v.kind, Reference: r.issue(t).Reference, HasSecret: true}
			if got, err := c.Accepts(registration); err != nil || got != registration.Reference {
				t.Fatalf("Accepts(%q) returned %q, %v", registration.Reference, got, err)
			}
			if v.forgets {
				forgets(t, r, c)
				return
			}
			_, verifies := connectors.As[connectors.Verifier](c)
			probesThisKind := name != "salesforce" && name != "salesforce-tokens" // which never see a death
			suite := contract.Suite{
				Connector: c, Verifies: verifies && probesThisKind, Issue: r.issue, Works: r.works, Silent: v.silent,
				Down: v.connector(t, all[name], "http://"+contract.Closed(t)),
			}
			if name == "gitlab" || name == "google-workspace" { // one without and one with an access token of its own
				suite.Hanging = v.connector(t, all[name], "http://"+contract.Silent(t))
			}
			contract.Run(t, suite)
		})
	}
}

// refusal is an answer by which a vendor refuses a request.
type refusal struct {
	reply
	header    http.Header
	retryable bool
}

// rateLimits returns the answers of vendors whose rate limit is used up, where they document another than 429 with
// Retry-After.
func rateLimits() map[string]refusal {
	reset := strconv.FormatInt(time.Now().Add(time.Minute).Unix(), 10)
	github := refusal{reply: reply{403, `{"message":"API rate limit exceeded"}`}, header: http.Header{
		"X-Ratelimit-Remaining": {"0"}, "X-Ratelimit-Reset": {reset},
	}}
	okta := refusal{reply: reply{429, `{"errorCode":"E0000047"}`}, header: http.Header{"X-Rate-Limit-Remaining": {"0"}, "X-Rate-Limit-Reset": {reset}}}
	return map[string]refusal{
		"aws-cognito-users": {reply: reply{400, `{"__type":"TooManyRequestsException"}`}},
		"github-actions":    github, "github-app": github, "github-org-tokens": github, "github-sso": github, "github-tokens": github,
		"google-workspace": {reply: reply{403, `{"error":{"code":403,"errors":[{"reason":"quotaExceeded"}]}}`}},
		"okta":             okta, "okta-ai-agents": okta, "okta-grants": okta,
		"slack": {reply: reply{429, `{"ok":false,"error":"ratelimited"}`}, header: http.Header{"Retry-After": {"30"}}},
	}
}

// TestDefinitions_RefusalIsNeverAResult asks vendors that refuse each request: because of a rate limit, for lack of
// rights, and with a page of a proxy.
func TestDefinitions_RefusalIsNeverAResult(t *testing.T) {
	all, err := rest.Load("")
	if err != nil {
		t.Fatal(err)
	}
	for name, v := range vendors() {
		if v.forgets {
			continue
		}
		limit, ok := rateLimits()[name]
		if !ok {
			limit = refusal{reply: reply{429, `{}`}, header: http.Header{"Retry-After": {"30"}}}
		}
		for what, refused := range map[string]refusal{
			"a rate limit":   {reply: limit.reply, header: limit.header, retryable: true},
			"missing rights": {reply: reply{403, `{}`}},
			"a proxy's page": {reply: reply{404, `<html>not found</html>`}, header: http.Header{"Content-Type": {"text/html"}}},
		} {
			t.Run(name+"/"+what, func(t *testing.T) {
				t.Parallel()
				r := start(t, v)
				r.refused = &refused
				c := v.connector(t, all[name], r.at)
				target := r.issue(t)
				answer, err := end(t.Context(), c, target)
				switch {
				case err == nil:
					t.Errorf("the end answered %+v", answer)
				case refused.retryable && connectors.IsPermanent(err):
					t.Errorf("the end: %v; want a retryable error", err)
				case refused.retryable && len(refused.header) > 0 && connectors.RetryAfter(err) < 20*time.Second:
					t.Errorf("the end is retried after %s; the vendor asks for more", connectors.RetryAfter(err))
				}
				if verifier, ok := connectors.As[connectors.Verifier](c); ok {
					if vitality, detail, err := verifier.Probe(t.Context(), target); err == nil && vitality != connectors.Unknown {
						t.Errorf("the probe saw the credential %s (%s)", vitality, detail)
					}
				}
			})
		}
	}
}

// end calls Revoke, or Cancel if the connector has no Revoker.
func end(ctx context.Context, c *rest.Connector, t connectors.Target) (connectors.Answer, error) {
	if revoker, ok := connectors.As[connectors.Revoker](c); ok {
		return revoker.Revoke(ctx, t)
	}
	return c.Cancel(ctx, t)
}

// TestDefinitions_Rotate makes a new secret, and checks that only the old one is ended.
func TestDefinitions_Rotate(t *testing.T) {
	all, err := rest.Load("")
	if err != nil {
		t.Fatal(err)
	}
	rotating := 0
	for name, v := range vendors() {
		if !slices.Contains(all[name].Operations(), "renew") {
			continue
		}
		rotating++
		t.Run(name, func(t *testing.T) {
			r := start(t, v)
			c := v.connector(t, all[name], r.at)
			target, other := r.issue(t), r.issue(t)
			target.Rotation = uuid.New()
			possesses := func(target connectors.Target, want connectors.Vitality) {
				t.Helper()
				if got, detail, err := c.Possesses(t.Context(), target); err != nil || got != want {
					t.Errorf("possession: %s (%s), %v; want %s", got, detail, err, want)
				}
			}
			possesses(target, connectors.Alive)
			stranger := target
			stranger.Secret = "guessed"
			possesses(stranger, connectors.Dead)
			made, err := c.Generate(t.Context(), target)
			if err != nil || made.Outcome != connectors.Done {
				t.Fatalf("generate: %+v, %v", made, err)
			}
			fresh := target
			fresh.Reference, fresh.Secret = made.Reference, made.Secret
			target.NewReference, target.NewSecret = made.Reference, made.Secret
			if answer, err := c.Renew(t.Context(), target); err != nil || answer.Outcome != connectors.Done {
				t.Errorf("renew: %+v, %v", answer, err)
			}
			possesses(fresh, connectors.Alive)
			for _, want := range []connectors.Outcome{connectors.Done, connectors.Gone} {
				if answer, err := c.Retire(t.Context(), target); err != nil || answer.Outcome != want {
					t.Errorf("retire: %+v, %v; want %s", answer, err, want)
				}
			}
			for name, c := range map[string]struct {
				target connectors.Target
				want   bool
			}{"the old": {target, false}, "the new": {fresh, true}, "another": {other, true}} {
				if r.works(t, c.target) != c.want {
					t.Errorf("%s secret works: %t", name, !c.want)
				}
			}
			if vitality, _, err := c.Probe(t.Context(), fresh); err != nil || vitality != connectors.Alive {
				t.Errorf("a probe of the new secret: %s, %v", vitality, err)
			}
		})
	}
	if rotating == 0 {
		t.Error("no definition rotates")
	}
}

// TestDefinitions_ProveNothingByAnotherName probes credentials that may live under another name.
func TestDefinitions_ProveNothingByAnotherName(t *testing.T) {
	all, err := rest.Load("")
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		reference string
		answer    reply
	}{
		"okta":                {"ada@example.com/0oa1/t1", reply{404, `{"errorCode":"E0000007"}`}},
		"okta-grants":         {"ada@example.com/g1", reply{404, `{"errorCode":"E0000007"}`}},
		"snowflake-key-pairs": {"ADA/K", reply{200, `{"code":"090001","resultSetMetaData":{"numRows":1},"data":[["K_ROTATED_1764500000000","ADA","SHA256:y",null,"ACTIVE"]]}`}},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", "application/json")
				w.WriteHeader(c.answer.status)
				_, _ = w.Write([]byte(c.answer.body))
			}))
			t.Cleanup(server.Close)
			v := vendors()[name]
			target := connectors.Target{Kind: v.kind, Reference: c.reference}
			vitality, detail, err := v.connector(t, all[name], server.URL).Probe(t.Context(), target)
			if err != nil || vitality != connectors.Unknown || detail == "" {
				t.Errorf("%s, %q, %v", vitality, detail, err)
			}
		})
	}
}

// forgets checks that the end of a credential at a broker that only forgets it is an error that says what to do.
func forgets(t *testing.T, r *running, c *rest.Connector) {
	t.Helper()
	target := r.issue(t)
	if vitality, _, err := c.Probe(t.Context(), target); err != nil || vitality != connectors.Alive {
		t.Errorf("before: %s, %v", vitality, err)
	}
	for range 2 { // the second time the broker does not know the connection any more
		_, err := c.Revoke(t.Context(), target)
		if !connectors.IsPermanent(err) || !strings.Contains(err.Error(), "vendor's own connector") {
			t.Errorf("the end answered %v", err)
		}
	}
	if vitality, _, err := c.Probe(t.Context(), target); err != nil || vitality != connectors.Unknown {
		t.Errorf("after: %s, %v; a forgotten connection proves nothing", vitality, err)
	}
}
