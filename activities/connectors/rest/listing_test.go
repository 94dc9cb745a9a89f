package rest_test

import (
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/leaverhq/leaver/activities/connectors"
	"github.com/leaverhq/leaver/activities/connectors/contract"
	"github.com/leaverhq/leaver/activities/connectors/rest"
)

// ada is the principal whose credentials the vendors' lists show, between those of others.
var ada = connectors.Principal{
	ID: uuid.MustParse("019a0000-0000-7000-8000-000000000001"), Names: []string{"Ada@example.com"},
}

// listing is what a vendor's API answers to the operations discover, check and block.
type listing struct {
	// answers by method, path and query, with the status 201 or 404 if they begin with it. AT in a body is the server's address;
	// an unknown request is answered 404.
	answers map[string]string
	links   map[string]string // the Link header of answers
	found   []connectors.Found
	checks  string // the request of check
	// blocks is the request of block for the reference; suspends is what its body must contain.
	blocks, reference, suspends string
	// issues is what issue returns, with the settings for drills, and calls what the requests of issue and remove contain.
	issues   *connectors.Issued
	settings map[string]string
	calls    map[string]string
}

// soql is the request of a query in Salesforce.
func soql(query string) string {
	return "GET /services/data/v62.0/query?" + url.Values{"q": {query}}.Encode()
}

func listings() map[string]listing {
	owned := func(kind connectors.Kind, references ...string) (found []connectors.Found) {
		for _, reference := range references {
			found = append(found, connectors.Found{Kind: kind, Reference: reference, Principal: ada.ID})
		}
		return found
	}
	named := func(kind connectors.Kind, references ...string) []connectors.Found {
		found := owned(kind, references...)
		for i := range found {
			found[i].Named = true
		}
		return found
	}
	scoped := func(found []connectors.Found, scopes ...string) []connectors.Found {
		for i := range found {
			found[i].Scopes = scopes
		}
		return found
	}
	expiring := func(found []connectors.Found, at time.Time) []connectors.Found {
		found[0].ExpiresAt = &at
		return found
	}
	day := time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)
	id := ada.ID.String()
	return map[string]listing{
		"airflow": {
			answers: map[string]string{
				"GET /api/v2/dags?limit=100&owners=Ada%40example.com&paused=false": `{"dags":[
					{"dag_id":"daily","owners":["airflow","Ada@example.com"]},{"dag_id":"other","owners":["Ada@example.com.au"]}]}`,
				"GET /api/v2/dags?limit=100&offset=2&owners=Ada%40example.com&paused=false": `{"dags":[]}`,
				"GET /api/v2/dags?limit=100&owners=" + id + "&paused=false":                 `{"dags":[]}`,
				"GET /api/v2/dags?limit=1":                                                  `{"dags":[],"total_entries":7}`,
				"PATCH /api/v2/dags/a%2Fb?update_mask=is_paused":                            `{"is_paused":true}`,
			},
			found:  named(connectors.ScheduledRun, "daily"),
			checks: "GET /api/v2/dags?limit=1",
			blocks: "PATCH /api/v2/dags/a%2Fb?update_mask=is_paused", reference: "a/b", suspends: `{"is_paused":true}`,
		},
		"atlassian": {
			answers: map[string]string{
				"GET /admin/api-access/v1/orgs/o1/api-tokens": `{"data":[
					{"id":"t1","status":"ALLOWED","expiresAt":"2027-01-01T00:00:00Z","user":{"id":"a1","email":"ada@example.com"}},
					{"id":"t2","status":"REVOKED","user":{"id":"a1","email":"ada@example.com"}}],
					"links":{"next":"AT/admin/api-access/v1/orgs/o1/api-tokens?cursor=2"}}`,
				"GET /admin/api-access/v1/orgs/o1/api-tokens?cursor=2": `{"data":[
					{"id":"t3","status":"ALLOWED","user":{"id":"a2","email":"bob@example.com"}}],"links":{}}`,
			},
			found:  expiring(named(connectors.APIKey, "a1/t1"), day),
			checks: "GET /admin/api-access/v1/orgs/o1/api-tokens",
		},
		"aws-cognito-users": {
			answers: map[string]string{"POST /": `{}`},
			checks:  "POST /",
			blocks:  "POST /", reference: "ada", suspends: `"Username":"ada"`,
		},
		"composio": {
			answers: map[string]string{
				"GET /api/v3/connected_accounts?limit=100&statuses=ACTIVE&user_ids=" + id: `{"items":[
					{"id":"ca_1","user_id":"` + id + `"}],"next_cursor":"c2"}`,
				"GET /api/v3/connected_accounts?cursor=c2&limit=100&statuses=ACTIVE&user_ids=" + id: `{"items":[
					{"id":"ca_2","user_id":"` + id + `"}],"next_cursor":null}`,
				"GET /api/v3/connected_accounts?limit=100&statuses=ACTIVE&user_ids=Ada%40example.com": `{"items":[]}`,
				"GET /api/v3/connected_accounts?limit=1":                                              `{"items":[]}`,
				"PATCH /api/v3/connected_accounts/ca_1/status":                                        `{"success":true}`,
			},
			found:  owned(connectors.Grant, "ca_1", "ca_2"),
			checks: "GET /api/v3/connected_accounts?limit=1",
			blocks: "PATCH /api/v3/connected_accounts/ca_1/status", reference: "ca_1", suspends: `{"enabled":false}`,
		},
		"databricks-jobs": {
			answers: map[string]string{
				"GET /api/2.2/jobs/list?limit=100": `{"jobs":[
					{"job_id":11,"creator_user_name":"ada@example.com","settings":{"schedule":{}}},
					{"job_id":15,"creator_user_name":"ada@example.com","settings":{}},
					{"job_id":12,"creator_user_name":"bob@example.com","settings":{"trigger":{}}}],
					"next_page_token":"p2"}`,
				"GET /api/2.2/jobs/list?limit=100&page_token=p2": `{"jobs":[
					{"job_id":13,"creator_user_name":"Ada@example.com","settings":{"continuous":{}}},{"job_id":14,"settings":{}}]}`,
				"GET /api/2.2/jobs/list?limit=1": `{}`,
			},
			found:  named(connectors.ScheduledRun, "11", "13"),
			checks: "GET /api/2.2/jobs/list?limit=1",
		},
		"microsoft-agent-identities": {
			answers: map[string]string{
				"PATCH /servicePrincipals/019a0000-0000-7000-8000-0000000000a1/microsoft.graph.agentIdentity": ``,
				"GET /servicePrincipals/microsoft.graph.agentIdentity?%24select=id&%24top=1":                  `{"value":[]}`,
			},
			checks:    "GET /servicePrincipals/microsoft.graph.agentIdentity?%24select=id&%24top=1",
			blocks:    "PATCH /servicePrincipals/019a0000-0000-7000-8000-0000000000a1/microsoft.graph.agentIdentity",
			reference: "019A0000-0000-7000-8000-0000000000A1", suspends: `{"accountEnabled":false}`,
		},
		"microsoft-graph-sessions": {
			answers: map[string]string{
				"POST /users/00000000-0000-0000-0000-000000000000/revokeSignInSessions": `404 {"error":{"code":"Request_ResourceNotFound"}}`,
			},
			checks: "POST /users/00000000-0000-0000-0000-000000000000/revokeSignInSessions",
		},
		"auth0": {
			answers: map[string]string{"GET /api/v2/refresh-tokens/leaver-check": `404 {"statusCode":404,"error":"Not Found"}`},
			checks:  "GET /api/v2/refresh-tokens/leaver-check",
		},
		"gitea": {
			answers: map[string]string{"GET /api/v1/user": `{"login":"root","is_admin":true}`},
			checks:  "GET /api/v1/user",
		},
		"kubernetes-tokens": {
			answers: map[string]string{
				"POST /apis/authentication.k8s.io/v1/tokenreviews": `201 {"status":{"error":"[invalid bearer token]"}}`,
			},
			checks: "POST /apis/authentication.k8s.io/v1/tokenreviews",
		},
		"notion": {
			answers: map[string]string{"POST /v1/oauth/introspect": `{"active":false}`},
			checks:  "POST /v1/oauth/introspect",
		},
		"slack-sessions": {
			answers: map[string]string{"POST /auth.test": `{"ok":true}`},
			checks:  "POST /auth.test",
		},
		"databricks-tokens": {
			answers: map[string]string{
				"GET /api/2.0/token-management/tokens?created_by_username=Ada%40example.com": `{"token_infos":[
					{"token_id":"t1","created_by_username":"ada@example.com","expiry_time":1798761600000},
					{"token_id":"t2","created_by_username":"ada@example.com","expiry_time":-1}]}`,
				"GET /api/2.0/token-management/tokens?created_by_username=" + id: `{}`,
				"GET /api/2.0/token-management/tokens":                           `{}`,
			},
			found:  expiring(named(connectors.APIKey, "t1", "t2"), day),
			checks: "GET /api/2.0/token-management/tokens",
		},
		"github-sso": {
			answers: map[string]string{
				"GET /orgs/acme/credential-authorizations?login=Ada%40example.com&per_page=100": `[]`,
				"GET /orgs/acme/credential-authorizations?login=" + id + "&per_page=100": `[
					{"login":"` + id + `","credential_id":161195,"scopes":["repo"]}]`,
				"GET /orgs/acme/credential-authorizations?login=" + id + "&page=2&per_page=100": `[
					{"login":"` + id + `","credential_id":161196,"scopes":["repo"]},{"login":"bob","credential_id":161197}]`,
				"GET /orgs/acme/credential-authorizations?per_page=1": `[]`,
			},
			links: map[string]string{
				"GET /orgs/acme/credential-authorizations?login=" + id + "&per_page=100": `<AT/orgs/acme/credential-authorizations?` +
					`login=` + id + `&page=2&per_page=100>; rel="next", <AT/orgs/acme/credential-authorizations?page=9>; rel="last"`,
			},
			found:  scoped(owned(connectors.APIKey, "161195", "161196"), "repo"),
			checks: "GET /orgs/acme/credential-authorizations?per_page=1",
		},
		"gitlab": {
			answers: map[string]string{
				"GET /api/v4/personal_access_tokens/self":                                `{"id":4,"scopes":["api"]}`,
				"GET /api/v4/users?per_page=100&search=" + id:                            `[]`,
				"GET /api/v4/users?per_page=100&search=Ada%40example.com":                `[{"id":8,"username":"ada.e","email":"ada@example.com.au"},{"id":7,"username":"ada","email":"ada@example.com"},{"id":9,"username":"bot","email":null}]`,
				"GET /api/v4/personal_access_tokens?per_page=100&state=active&user_id=7": `[{"id":41,"user_id":7,"scopes":["api"],"expires_at":"2027-01-01"},{"id":42,"user_id":7,"scopes":["api"],"expires_at":null}]`,
			},
			found:  expiring(scoped(named(connectors.APIKey, "41", "42"), "api"), day),
			checks: "GET /api/v4/personal_access_tokens/self",
		},
		"google-workspace": {
			answers: map[string]string{
				"GET /admin/directory/v1/users/Ada@example.com/tokens": `{"kind":"admin#directory#tokenList","items":[
					{"clientId":"c1.apps.googleusercontent.com","scopes":["mail"]}]}`,
				"GET /admin/directory/v1/users/admin@example.com/tokens": `{"kind":"admin#directory#tokenList"}`,
			},
			found:  scoped(named(connectors.Grant, "Ada@example.com/c1.apps.googleusercontent.com"), "mail"),
			checks: "GET /admin/directory/v1/users/admin@example.com/tokens",
		},
		"grafana": {
			answers: map[string]string{"GET /api/serviceaccounts/search?perpage=1": `{"totalCount":0,"serviceAccounts":[]}`},
			checks:  "GET /api/serviceaccounts/search?perpage=1",
		},
		"grafana drills": {
			answers: map[string]string{
				"POST /api/serviceaccounts/4/tokens": `{"id":17,"name":"leaver-drill-x","key":"glsa_new"}`,
			},
			settings: map[string]string{"drill_account": "4"},
			issues:   &connectors.Issued{Kind: connectors.APIKey, Reference: "4/17", Secret: "glsa_new"},
			calls:    map[string]string{"POST /api/serviceaccounts/4/tokens": `"name":"leaver-drill-`},
		},
		"gitea drills": {
			answers: map[string]string{
				"DELETE /api/v1/users/drills/tokens/leaver-drill": ``,
				"POST /api/v1/users/drills/tokens":                `201 {"id":3,"name":"leaver-drill","sha1":"new"}`,
			},
			settings: map[string]string{"drill_user": "drills"},
			issues:   &connectors.Issued{Kind: connectors.APIKey, Reference: "drills/leaver-drill", Secret: "new"},
			calls: map[string]string{
				"DELETE /api/v1/users/drills/tokens/leaver-drill": "",
				"POST /api/v1/users/drills/tokens":                `{"name":"leaver-drill","scopes":["read:misc"]}`,
			},
		},
		"kubernetes-cronjobs": {
			answers: map[string]string{
				"GET /apis/batch/v1/cronjobs?labelSelector=leaver.dev%2Fprincipal&limit=500": `{"kind":"CronJobList",
					"metadata":{"continue":"c2"},"items":[
					{"metadata":{"namespace":"crm","name":"sync","labels":{"leaver.dev/principal":"` + id + `"}}},
					{"metadata":{"namespace":"crm","name":"bobs","labels":{"leaver.dev/principal":"bob"}}}]}`,
				"GET /apis/batch/v1/cronjobs?continue=c2&labelSelector=leaver.dev%2Fprincipal&limit=500": `{"kind":"CronJobList",
					"metadata":{},"items":[{"metadata":{"namespace":"ops","name":"mail","labels":{"leaver.dev/principal":"` + id + `"}}}]}`,
				"GET /apis/batch/v1/cronjobs?limit=1":               `{"kind":"CronJobList","metadata":{},"items":[]}`,
				"PATCH /apis/batch/v1/namespaces/crm/cronjobs/sync": `{"kind":"CronJob","spec":{"suspend":true}}`,
			},
			found:  owned(connectors.ScheduledRun, "crm/sync", "ops/mail"),
			checks: "GET /apis/batch/v1/cronjobs?limit=1",
			blocks: "PATCH /apis/batch/v1/namespaces/crm/cronjobs/sync", reference: "crm/sync", suspends: `{"spec":{"suspend":true}}`,
		},
		"microsoft-graph-grants": {
			answers: map[string]string{
				"GET /oauth2PermissionGrants?%24select=id&%24top=1": `{"value":[]}`,
				"GET /users/Ada@example.com/oauth2PermissionGrants": `{"value":[{"id":"g1","scope":"Mail.Read User.Read"}],
					"@odata.nextLink":"AT/users/Ada@example.com/oauth2PermissionGrants?$skiptoken=2"}`,
				"GET /users/Ada@example.com/oauth2PermissionGrants?$skiptoken=2": `{"value":[
					{"id":"g2","scope":"Mail.Read User.Read"}]}`,
			},
			found:  scoped(named(connectors.Grant, "g1", "g2"), "Mail.Read", "User.Read"),
			checks: "GET /oauth2PermissionGrants?%24select=id&%24top=1",
		},
		"gitlab-service-accounts": {
			answers: map[string]string{"GET /api/v4/groups/345/service_accounts?per_page=1": `[{"id":57}]`},
			checks:  "GET /api/v4/groups/345/service_accounts?per_page=1",
		},
		"microsoft-application-passwords": {
			answers: map[string]string{
				"GET /users/Ada@example.com/ownedObjects/microsoft.graph.application?%24select=appId%2CpasswordCredentials": `{"value":[
					{"appId":"019a0000-0000-7000-8000-00000000000a","passwordCredentials":[
						{"keyId":"019a0000-0000-7000-8000-000000000001","endDateTime":"2027-01-01T00:00:00Z"},
						{"keyId":"019a0000-0000-7000-8000-000000000002"}]},
					{"appId":"019a0000-0000-7000-8000-00000000000b","passwordCredentials":[]}],
					"@odata.nextLink":"AT/users/Ada@example.com/ownedObjects/microsoft.graph.application?$skiptoken=2"}`,
				"GET /users/Ada@example.com/ownedObjects/microsoft.graph.application?$skiptoken=2": `{"value":[
					{"appId":"019a0000-0000-7000-8000-00000000000c","passwordCredentials":[{"keyId":"019a0000-0000-7000-8000-000000000003"}]}]}`,
				"GET /users/" + id + "/ownedObjects/microsoft.graph.application?%24select=appId%2CpasswordCredentials": `{"value":[]}`,
				"GET /applications?%24select=id&%24top=1":                                                              `{"value":[]}`,
			},
			checks: "GET /applications?%24select=id&%24top=1",
			found: expiring(named(connectors.APIKey,
				"019a0000-0000-7000-8000-00000000000a/019a0000-0000-7000-8000-000000000001",
				"019a0000-0000-7000-8000-00000000000a/019a0000-0000-7000-8000-000000000002",
				"019a0000-0000-7000-8000-00000000000c/019a0000-0000-7000-8000-000000000003"), day),
		},
		"okta-ai-agents": {
			answers: map[string]string{
				"GET /workload-principals/api/v1/ai-agents?limit=1":                                     `{"data":[]}`,
				"POST /workload-principals/api/v1/ai-agents/wlp1/connections/mcn1/lifecycle/deactivate": `{"id":"mcn1","status":"INACTIVE"}`,
			},
			checks: "GET /workload-principals/api/v1/ai-agents?limit=1",
			blocks: "POST /workload-principals/api/v1/ai-agents/wlp1/connections/mcn1/lifecycle/deactivate", reference: "wlp1/mcn1",
		},
		"salesforce-tokens": {
			answers: map[string]string{
				soql("SELECT User.Username, DeleteToken FROM OauthToken WHERE User.Username = 'Ada@example.com'"): `{
					"totalSize":3,"done":false,"nextRecordsUrl":"/services/data/v62.0/query/01g-500","records":[
					{"User":{"Username":"ada@example.com"},"DeleteToken":"d1"},{"User":{"Username":"ada@example.com"},"DeleteToken":null}]}`,
				"GET /services/data/v62.0/query/01g-500": `{"totalSize":3,"done":true,"records":[
					{"User":{"Username":"ada@example.com"},"DeleteToken":"d2"}]}`,
				soql("SELECT User.Username, DeleteToken FROM OauthToken WHERE User.Username = '" + id + "'"): `{"totalSize":0,"records":[]}`,
				soql("SELECT PermissionsCustomizeApplication FROM UserPermissionAccess"):                     `{"records":[{"PermissionsCustomizeApplication":true}]}`,
			},
			found:  named(connectors.RefreshToken, "d1", "d2"),
			checks: soql("SELECT PermissionsCustomizeApplication FROM UserPermissionAccess"),
		},
		"n8n": {
			answers: map[string]string{"GET /api/v1/workflows?limit=1": `{"data":[]}`},
			checks:  "GET /api/v1/workflows?limit=1",
		},
		"nango": {
			answers: map[string]string{
				"GET /connections?endUserId=" + id: `{"connections":[
					{"provider_config_key":"hubspot","connection_id":"c/1","end_user":{"id":"` + id + `"}}]}`,
				"GET /connections?endUserId=Ada%40example.com": `{"connections":[]}`,
				"GET /connections?search=leaver-check":         `{"connections":[]}`,
			},
			found:  owned(connectors.Grant, "hubspot/c%2F1"),
			checks: "GET /connections?search=leaver-check",
		},
		"okta": {
			answers: map[string]string{"GET /api/v1/users?limit=1": `[]`},
			checks:  "GET /api/v1/users?limit=1",
		},
		"openai-service-accounts": {
			answers: map[string]string{"GET /organization/projects/p1": `{"id":"p1"}`},
			checks:  "GET /organization/projects/p1",
		},
		"kubernetes-service-accounts": {
			answers: map[string]string{"GET /api/v1/serviceaccounts?limit=1": `{"items":[]}`},
			checks:  "GET /api/v1/serviceaccounts?limit=1",
		},
		"databricks-service-principals": {
			answers: map[string]string{
				"GET /api/2.0/preview/scim/v2/ServicePrincipals?count=1": `{"Resources":[]}`,
				"PATCH /api/2.0/preview/scim/v2/ServicePrincipals/7":     ``,
			},
			checks: "GET /api/2.0/preview/scim/v2/ServicePrincipals?count=1",
			blocks: "PATCH /api/2.0/preview/scim/v2/ServicePrincipals/7", reference: "7", suspends: `"value":false`,
		},
		"okta-grants": {
			answers: map[string]string{
				"GET /api/v1/users/Ada@example.com/grants?limit=200": `[
					{"id":"oag1","userId":"00u1","status":"ACTIVE","scopeId":"mail"},{"id":"oag2","userId":"00u1","status":"REVOKED","scopeId":"mail"}]`,
				"GET /api/v1/users/Ada@example.com/grants?after=oag2&limit=200": `[{"id":"oag3","userId":"00u1","status":"ACTIVE","scopeId":"mail"}]`,
				"GET /api/v1/users/" + id + "/grants?limit=200":                 `[]`,
				"GET /api/v1/users?limit=1":                                     `[]`,
			},
			links:  map[string]string{"GET /api/v1/users/Ada@example.com/grants?limit=200": `<AT/api/v1/users/Ada@example.com/grants?after=oag2&limit=200>; rel="next"`},
			found:  scoped(named(connectors.Grant, "00u1/oag1", "00u1/oag3"), "mail"),
			checks: "GET /api/v1/users?limit=1",
		},
		"openai": {
			answers: map[string]string{
				"GET /organization/projects/p1/api_keys?limit=100&owner_project_access=any": `{"object":"list","data":[
					{"id":"key_1","owner":{"type":"user","user":{"email":"ada@example.com"}}},
					{"id":"key_2","owner":{"type":"service_account","service_account":{"name":"ada@example.com"}}}],
					"last_id":"key_2","has_more":true}`,
				"GET /organization/projects/p1/api_keys?after=key_2&limit=100&owner_project_access=any": `{"object":"list","data":[
					{"id":"key_3","owner":{"type":"user","user":{"email":"ada@example.com"}}}],"last_id":"key_3","has_more":false}`,
				"GET /organization/projects/p1": `{"id":"p1"}`,
			},
			found:  named(connectors.APIKey, "key_1", "key_3"),
			checks: "GET /organization/projects/p1",
		},
		"scim": {
			answers: map[string]string{"GET /ServiceProviderConfig": `{"patch":{"supported":true}}`},
			checks:  "GET /ServiceProviderConfig",
		},
		"github-org-tokens": {
			answers: map[string]string{
				"GET /orgs/acme/personal-access-tokens?per_page=100": `[{"id":7,"owner":{"login":"ada@example.com"},"token_expires_at":null},{"id":8,"owner":{"login":"bob"}}]`,
				"GET /orgs/acme/personal-access-tokens?per_page=1":   `[]`,
			},
			found: []connectors.Found{
				{Kind: connectors.APIKey, Reference: "ada@example.com/7", Principal: ada.ID, Named: true},
			},
			checks: "GET /orgs/acme/personal-access-tokens?per_page=1",
		},
		"snowflake-tokens": {
			answers: map[string]string{"POST /api/v2/statements": `{"code":"090001","data":[]}`},
			checks:  "POST /api/v2/statements",
		},
		"snowflake-key-pairs": {
			answers: map[string]string{"POST /api/v2/statements": `{"code":"090001","data":[]}`},
			checks:  "POST /api/v2/statements",
			blocks:  "POST /api/v2/statements", reference: `ADA/A"B`, suspends: `ALTER USER \"ADA\" MODIFY KEY PAIR \"A\"\"B\" SET DISABLED = TRUE"`,
		},
		"snowflake-users": {
			answers: map[string]string{"POST /api/v2/statements": `{"code":"090001"}`},
			checks:  "POST /api/v2/statements",
			blocks:  "POST /api/v2/statements", reference: `A"DA`, suspends: `ALTER USER \"A\"\"DA\" SET DISABLED = TRUE"`,
		},
		"vault-roles": {
			answers: map[string]string{"GET /v1/auth/token/lookup-self": `{"data":{"policies":["leaver"]}}`},
			checks:  "GET /v1/auth/token/lookup-self",
		},
		"vault-static-roles": {
			answers: map[string]string{"GET /v1/auth/token/lookup-self": `{"data":{"policies":["leaver"]}}`},
			checks:  "GET /v1/auth/token/lookup-self",
		},
		"vault-leases": {
			answers: map[string]string{"GET /v1/auth/token/lookup-self": `{"data":{"policies":["leaver"]}}`},
			checks:  "GET /v1/auth/token/lookup-self",
		},
		"vault-tokens": {
			answers: map[string]string{"GET /v1/auth/token/lookup-self": `{"data":{"policies":["leaver"]}}`},
			checks:  "GET /v1/auth/token/lookup-self",
		},
		"scim-bulk": {
			answers: map[string]string{"GET /ServiceProviderConfig": `{"bulk":{"supported":true}}`},
			checks:  "GET /ServiceProviderConfig",
		},
		"anthropic": {
			answers: map[string]string{
				"GET /v1/organizations/users?email=Ada%40example.com": `{"data":[{"id":"user_1","email":"ada@example.com"}],"has_more":false}`,
				"GET /v1/organizations/users?email=" + id:             `{"data":[],"has_more":false}`,
				"GET /v1/organizations/api_keys?created_by_user_id=user_1&limit=1000&status=active": `{"data":[
					{"id":"k1","status":"active","created_by":{"id":"user_1","type":"user"}}],"has_more":true,"last_id":"k1"}`,
				"GET /v1/organizations/api_keys?after_id=k1&created_by_user_id=user_1&limit=1000&status=active": `{"data":[
					{"id":"k2","status":"active","created_by":{"id":"user_1","type":"user"}}],"has_more":false,"last_id":"k2"}`,
				"GET /v1/organizations/api_keys?limit=1": `{"data":[],"has_more":false}`,
				"POST /v1/organizations/api_keys/k1":     `{"id":"k1","status":"inactive"}`,
			},
			found:  named(connectors.APIKey, "k1", "k2"),
			checks: "GET /v1/organizations/api_keys?limit=1",
			blocks: "POST /v1/organizations/api_keys/k1", reference: "k1", suspends: `{"status":"inactive"}`,
		},
		"github-actions": {
			answers: map[string]string{"PUT /repos/acme/crm/actions/workflows/7/disable": ``, "GET /rate_limit": `{"resources":{}}`},
			checks:  "GET /rate_limit",
			blocks:  "PUT /repos/acme/crm/actions/workflows/7/disable", reference: "acme/crm/7",
		},
	}
}

// recorder answers with a listing, and records the requests and their bodies.
type recorder struct {
	listing
	vendor
	at     string
	bodies map[string]string
}

func (r *recorder) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	raw, _ := io.ReadAll(req.Body)
	call := req.Method + " " + req.URL.RequestURI()
	name, value, authenticates := strings.Cut(r.auth, ": ")
	w.Header().Set("Content-Type", "application/json")
	answer, ok := r.answers[call]
	switch {
	case r.token != "" && strings.HasSuffix(req.URL.Path, "/token"):
		answer = `{"access_token":"` + r.token + `","token_type":"Bearer","expires_in":3600}`
	case r.token != "" && strings.HasSuffix(req.URL.Path, "/access_tokens"):
		answer = `{"token":"` + r.token + `","expires_at":"2100-01-02T03:04:05Z"}`
	case authenticates && req.Header.Get(name) != value:
		w.WriteHeader(http.StatusUnauthorized)
	case !ok:
		w.WriteHeader(http.StatusNotFound)
		answer = `{}`
	case answer == "":
		w.WriteHeader(http.StatusNoContent)
	}
	for _, status := range []int{http.StatusCreated, http.StatusNotFound} {
		if body, has := strings.CutPrefix(answer, strconv.Itoa(status)+" "); has {
			w.WriteHeader(status)
			answer = body
		}
	}
	if link := r.links[call]; link != "" {
		w.Header().Set("Link", strings.ReplaceAll(link, "AT", r.at))
	}
	r.bodies[call] = string(raw)
	_, _ = io.WriteString(w, strings.ReplaceAll(answer, "AT/", r.at+"/"))
}

// TestDefinitions_DiscoverCheckAndBlock runs these operations of each definition against the vendor's documented
// answers.
func TestDefinitions_DiscoverCheckAndBlock(t *testing.T) {
	all, err := rest.Load("")
	if err != nil {
		t.Fatal(err)
	}
	known, vendors := listings(), vendors()
	for _, name := range all.Names() {
		operations := all[name].Operations()
		discovers, blocks := slices.Contains(operations, "discover"), slices.Contains(operations, "block")
		checks := slices.Contains(operations, "check")
		l := known[name]
		if discovers != (l.found != nil) || checks != (l.checks != "") || blocks != (l.blocks != "") {
			t.Errorf("the test of %s does not have the definition's operations, %v", name, operations)
			continue
		}
		if !discovers && !checks && !blocks {
			continue
		}
		t.Run(name, func(t *testing.T) {
			v := vendors[name]
			r := &recorder{listing: l, vendor: v, bodies: make(map[string]string)}
			server := httptest.NewServer(r)
			defer server.Close()
			r.at = server.URL
			c := v.connector(t, all[name], r.at)
			if discovers {
				found, err := c.Discover(t.Context(), []connectors.Principal{ada})
				if diff := cmp.Diff(l.found, found); err != nil || diff != "" {
					t.Errorf("discover: %v, %s", err, diff)
				}
			}
			if checks {
				down := v.connector(t, all[name], "http://"+contract.Closed(t))
				if err := c.Check(t.Context()); err != nil {
					t.Errorf("check: %v", err)
				}
				if _, asked := r.bodies[l.checks]; !asked || down.Check(t.Context()) == nil {
					t.Errorf("check asked %v, or reports no fault of a downstream that is down", r.bodies)
				}
				answer := r.answers[l.checks]
				delete(r.answers, l.checks)
				if err := c.Check(t.Context()); err == nil {
					t.Error("check reports no fault where the API is not")
				}
				r.answers[l.checks] = answer // some APIs have one address
			}
			if blocks {
				answer, err := c.Block(t.Context(), connectors.Target{Kind: v.kind, Reference: l.reference})
				if err != nil || answer.Outcome != connectors.Done || !strings.Contains(r.bodies[l.blocks], l.suspends) {
					t.Errorf("block: %+v, %v after %v", answer, err, r.bodies)
				}
			}
		})
	}
}

// TestDefinitions_IssueForDrills runs the operations issue and remove of each definition that has them.
func TestDefinitions_IssueForDrills(t *testing.T) {
	all, err := rest.Load("")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range all.Names() {
		l, known := listings()[name+" drills"]
		if known != slices.Contains(all[name].Operations(), "issue") {
			t.Errorf("the test of %s does not have the definition's operations", name)
		}
		if !known {
			continue
		}
		t.Run(name, func(t *testing.T) {
			v := vendors()[name]
			r := &recorder{listing: l, vendor: v, bodies: make(map[string]string)}
			server := httptest.NewServer(r)
			defer server.Close()
			if _, issues := connectors.As[connectors.Issuer](v.connector(t, all[name], server.URL)); issues {
				t.Error("the connector issues credentials without its settings for drills")
			}
			maps.Copy(v.settings, l.settings)
			issuer, issues := connectors.As[connectors.Issuer](v.connector(t, all[name], server.URL))
			if !issues {
				t.Fatal("the connector issues no credentials")
			}
			got, err := issuer.Issue(t.Context(), "leaver-drill", ada.ID)
			if diff := cmp.Diff(*l.issues, got); err != nil || diff != "" {
				t.Errorf("issue: %v, %s", err, diff)
			}
			if err := issuer.Remove(t.Context(), "leaver-drill"); err != nil {
				t.Errorf("remove: %v", err)
			}
			for call, want := range l.calls {
				if body, asked := r.bodies[call]; !asked || !strings.Contains(body, want) {
					t.Errorf("%s: %q, want %q", call, body, want)
				}
			}
		})
	}
}
