package scim_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/leaverhq/leaver/internal/conformance"
	"github.com/leaverhq/leaver/internal/tenant"
)

// row is a sequence of requests that an identity provider sends. In paths and bodies {ada},
// {bob}, {cyd} and {team} are placeholders for the ids of the resources that each row starts
// with: three users and a group of Ada and Bob.
type row struct {
	name    string
	profile tenant.Profile
	steps   []step
}

// step is one request of a row. Empty expectations are not checked.
type step struct {
	request string // method and path; the query after "?" is escaped
	body    string
	headers []string
	status  int
	want    string   // JSON that the response must contain
	events  []string // kinds of events, of the principal `of`
	of      string
}

const enterprise = `urn:ietf:params:scim:schemas:extension:enterprise:2.0:User`

var okta = []row{
	{name: "O1 filters for a user that does not exist", steps: []step{
		{
			request: `GET /Users?filter=userName eq "test.user@okta.local"&startIndex=1&count=100`, status: 200,
			want: `{"schemas":["urn:ietf:params:scim:api:messages:2.0:ListResponse"],"totalResults":0,"startIndex":1,"itemsPerPage":0,"Resources":[]}`,
		},
	}},
	{name: "O2 creates a user and never gets the password back", steps: []step{
		{
			request: "POST /Users", body: `{"schemas":["urn:ietf:params:scim:schemas:core:2.0:User"],"userName":"test.user@okta.local","name":{"givenName":"Test","familyName":"User"},"emails":[{"primary":true,"value":"test.user@okta.local","type":"work"}],"displayName":"Test User","locale":"en-US","externalId":"00ujl29u0le5T6Aj10h7","groups":[],"password":"1mz050nq","active":true}`,
			status: 201, want: `{"userName":"test.user@okta.local","name":{"givenName":"Test"},"emails":[{"primary":true,"type":"work"}],"active":true,"password":"<absent>","groups":"<absent>","meta":{"resourceType":"User"}}`,
		},
		{request: `GET /Users?filter=userName eq "TEST.user@okta.local"`, status: 200, want: `{"totalResults":1,"Resources":[{"externalId":"00ujl29u0le5T6Aj10h7","password":"<absent>"}]}`},
	}},
	{name: "O3 creates the same user again", steps: []step{
		{request: "POST /Users", body: `{"userName":"ADA@example.com"}`, status: 409, want: `{"schemas":["urn:ietf:params:scim:api:messages:2.0:Error"],"status":"409","scimType":"uniqueness"}`},
	}},
	{name: "O4 sends a user back unchanged", steps: []step{
		{
			request: "PUT /Users/{ada}", status: 200,
			body: `{"schemas":["urn:ietf:params:scim:schemas:core:2.0:User"],"id":"{ada}","userName":"ada@example.com","active":true,"groups":[{"value":"{team}"}],"emails":[{"value":"ada@example.com","display":"Ada","type":"work","primary":true}],"meta":{"resourceType":"User","version":"W/\"7\""}}`,
			want: `{"id":"{ada}","emails":[{"display":"Ada"}],"groups":[{"value":"{team}"}],"meta":{"version":"W/\"2\""}}`,
		},
	}},
	{name: "O5 deactivates by PATCH without a path", steps: []step{
		{request: "PATCH /Users/{ada}", body: patchBody(`{"op":"replace","value":{"active":false}}`), status: 200, want: `{"active":false}`, of: "{ada}", events: []string{"leaver"}},
	}},
	{name: "O6 deactivates by PUT", steps: []step{
		{request: "PUT /Users/{ada}", body: `{"userName":"ada@example.com","active":false}`, status: 200, want: `{"active":false}`, of: "{ada}", events: []string{"leaver"}},
	}},
	{name: "O7 deactivates again, which starts no workflow", steps: []step{
		{request: "PATCH /Users/{ada}", body: patchBody(`{"op":"replace","value":{"active":false}}`), status: 200, of: "{ada}", events: []string{"leaver"}},
		{request: "PATCH /Users/{ada}", body: patchBody(`{"op":"replace","value":{"active":false}}`), status: 200, want: `{"meta":{"version":"W/\"2\""}}`, of: "{ada}", events: nil},
	}},
	{name: "O8 reactivates by PATCH without a path, and by PUT", steps: []step{
		{request: "PATCH /Users/{ada}", body: patchBody(`{"op":"replace","value":{"active":false}}`), status: 200},
		{request: "PATCH /Users/{ada}", body: patchBody(`{"op":"replace","value":{"active":true}}`), status: 200, want: `{"active":true}`, of: "{ada}", events: []string{"leaver", "joiner"}},
		{request: "PUT /Users/{ada}", body: `{"userName":"ada@example.com","active":false}`, status: 200},
		{request: "PUT /Users/{ada}", body: `{"userName":"ada@example.com","active":true}`, status: 200, want: `{"active":true}`, of: "{ada}", events: []string{"leaver", "joiner"}},
	}},
	{name: "O9 creates an empty group", steps: []step{
		{request: "POST /Groups", body: `{"schemas":["urn:ietf:params:scim:schemas:core:2.0:Group"],"displayName":"Test SCIMv2","members":[]}`, status: 201, want: `{"displayName":"Test SCIMv2","members":"<absent>"}`},
	}},
	{name: "O10 renames a group, with its id in the value", steps: []step{
		{request: "PATCH /Groups/{team}", body: patchBody(`{"op":"replace","value":{"id":"{team}","displayName":"Renamed"}}`), status: 200, want: `{"id":"{team}","displayName":"Renamed"}`, of: "{team}", events: []string{"team-sync"}},
	}},
	{name: "O11 swaps members in order", steps: []step{
		{
			request: "PATCH /Groups/{team}", body: patchBody(`{"op":"remove","path":"members[value eq \"{ada}\"]"},{"op":"add","path":"members","value":[{"value":"{cyd}","display":"cyd"}]}`),
			status: 200, want: `{"members":[{"value":"{bob}"},{"value":"{cyd}","type":"User"}]}`, of: "{team}", events: []string{"team-sync"},
		},
	}},
	{name: "O11 changes nothing if one operation fails", steps: []step{
		{
			request: "PATCH /Groups/{team}", body: patchBody(`{"op":"remove","path":"members[value eq \"{ada}\"]"},{"op":"add","path":"members","value":[{"value":"00000000-0000-4000-8000-000000000000"}]}`),
			status: 400, want: `{"scimType":"invalidValue","status":"400"}`,
		},
		{request: "GET /Groups/{team}", status: 200, want: `{"members":[{"value":"{ada}"},{"value":"{bob}"}]}`},
	}},
	{name: "O12 replaces the members without a path", steps: []step{
		{request: "PATCH /Groups/{team}", body: patchBody(`{"op":"replace","value":{"members":[{"value":"{cyd}"}]}}`), status: 200, want: `{"members":[{"value":"{cyd}"}]}`},
	}},
	{name: "O13 empties a group", steps: []step{
		{request: "PATCH /Groups/{team}", body: patchBody(`{"op":"replace","path":"members","value":[]}`), status: 200, want: `{"members":"<absent>"}`},
	}},
	{name: "O14 deletes a group and keeps its users", steps: []step{
		{request: "DELETE /Groups/{team}", status: 204},
		{request: "GET /Groups/{team}", status: 404, want: `{"status":"404"}`},
		{request: "GET /Users/{ada}", status: 200, want: `{"active":true,"groups":"<absent>"}`},
	}},
	{name: "O15 imports page by page", steps: []step{
		{request: "GET /Users?startIndex=1&count=2", status: 200, want: `{"totalResults":3,"itemsPerPage":2,"startIndex":1,"Resources":[{"id":"{ada}"},{"id":"{bob}"}]}`},
		{request: "GET /Users?startIndex=3&count=2", status: 200, want: `{"totalResults":3,"itemsPerPage":1,"startIndex":3,"Resources":[{"id":"{cyd}"}]}`},
	}},
	{name: "O16 gets errors in JSON", steps: []step{
		{request: "POST /Users", body: `{"userName":`, status: 400, want: `{"schemas":["urn:ietf:params:scim:api:messages:2.0:Error"],"scimType":"invalidSyntax","status":"400"}`},
		{request: "POST /Users", body: `{"displayName":"nobody"}`, status: 400, want: `{"scimType":"invalidValue"}`},
		{request: "GET /Nowhere", status: 404, want: `{"status":"404","scimType":"<absent>"}`},
	}},
}

var entra = []row{
	{name: "E1 tests the connection with a random user", steps: []step{
		{request: `GET /Users?filter=userName eq "5bd1b0d2-0000-4c39-8b70-84a5a6b5a7f1"`, status: 200, want: `{"totalResults":0,"Resources":[]}`},
	}},
	{name: "E2 sends False as a string", steps: []step{
		{request: "PATCH /Users/{ada}", body: patchBody(`{"op":"Replace","path":"active","value":"False"}`), status: 200, want: `{"active":false}`, of: "{ada}", events: []string{"leaver"}},
	}},
	{name: "E3 sends false as a boolean", steps: []step{
		{request: "PATCH /Users/{ada}", body: patchBody(`{"op":"replace","path":"active","value":false}`), status: 200, want: `{"active":false}`, of: "{ada}", events: []string{"leaver"}},
	}},
	{name: "E4 sends dotted and URN keys", steps: []step{
		{
			request: "PATCH /Users/{ada}", body: patchBody(`{"op":"replace","value":{"displayName":"B","name.givenName":"K","` + enterprise + `:employeeNumber":"A"}}`), status: 200,
			want: `{"displayName":"B","name":{"givenName":"K"},"name.givenName":"<absent>","` + enterprise + `":{"employeeNumber":"A"},"schemas":["urn:ietf:params:scim:schemas:core:2.0:User","` + enterprise + `"]}`, of: "{ada}", events: []string{"mover"},
		},
	}},
	{name: "E5 adds a work e-mail where there is none", steps: []step{
		{request: "PATCH /Users/{ada}", body: patchBody(`{"op":"Add","path":"emails[type eq \"work\"].value","value":"a@b.c"}`), status: 200, want: `{"emails":[{"type":"work","value":"a@b.c"}]}`},
	}},
	{name: "E5 replaces a work e-mail where there is none", steps: []step{
		{request: "PATCH /Users/{ada}", body: patchBody(`{"op":"Replace","path":"emails[type eq \"work\"].value","value":"a@b.c"}`), status: 200, want: `{"emails":[{"type":"work","value":"a@b.c"}]}`},
		{request: "PATCH /Users/{ada}", body: patchBody(`{"op":"Replace","path":"emails[type eq \"WORK\"].value","value":"x@y.z"}`), status: 200, want: `{"emails":[{"type":"work","value":"x@y.z"}]}`},
	}},
	{name: "E6 replaces an enterprise attribute", steps: []step{
		{request: "PATCH /Users/{ada}", body: patchBody(`{"op":"Replace","path":"` + enterprise + `:department","value":"X"}`), status: 200, want: `{"` + enterprise + `":{"department":"X"}}`},
	}},
	{name: "E7 sets the manager by a bare string", steps: []step{
		{request: "PATCH /Users/{ada}", body: patchBody(`{"op":"Add","path":"` + enterprise + `:manager","value":"{bob}"}`), status: 200, want: `{"` + enterprise + `":{"manager":{"value":"{bob}"}}}`},
	}},
	{name: "E8 sets the manager by a list, and removes it in three ways", steps: []step{
		{request: "PATCH /Users/{ada}", body: patchBody(`{"op":"Add","path":"` + enterprise + `:manager","value":[{"$ref":"../Users/1","value":"1"}]}`), status: 200, want: `{"` + enterprise + `":{"manager":{"value":"1"}}}`},
		{request: "PATCH /Users/{ada}", body: patchBody(`{"op":"Replace","path":"` + enterprise + `:manager","value":""}`), status: 200, want: `{"` + enterprise + `":"<absent>"}`},
		{request: "PATCH /Users/{ada}", body: patchBody(`{"op":"Add","path":"` + enterprise + `:manager","value":"1"}`), status: 200},
		{request: "PATCH /Users/{ada}", body: patchBody(`{"op":"Replace","path":"` + enterprise + `:manager","value":{"value":""}}`), status: 200, want: `{"` + enterprise + `":"<absent>","schemas":["urn:ietf:params:scim:schemas:core:2.0:User"]}`},
		{request: "PATCH /Users/{ada}", body: patchBody(`{"op":"Add","path":"` + enterprise + `:manager","value":"1"}`), status: 200},
		{request: "PATCH /Users/{ada}", body: patchBody(`{"op":"Remove","path":"` + enterprise + `:manager[value eq \"1\"]"}`), status: 200, want: `{"` + enterprise + `":"<absent>"}`},
	}},
	{name: "E9 adds a member with a null reference", steps: []step{
		{request: "PATCH /Groups/{team}", body: patchBody(`{"op":"Add","path":"members","value":[{"$ref":null,"value":"{cyd}"}]}`), status: 200, want: `{"members":[{"value":"{ada}"},{"value":"{bob}"},{"value":"{cyd}"}]}`},
	}},
	{name: "E10 removes only the member it names", steps: []step{
		{request: "PATCH /Groups/{team}", body: patchBody(`{"op":"Remove","path":"members","value":[{"$ref":null,"value":"{ada}"}]}`), status: 200, want: `{"members":[{"value":"{bob}"}]}`},
	}},
	{name: "E11 removes a member by a value filter", steps: []step{
		{request: "PATCH /Groups/{team}", body: patchBody(`{"op":"remove","path":"members[value eq \"{ada}\"]"}`), status: 200, want: `{"members":[{"value":"{bob}"}]}`},
	}},
	{name: "E12 sends primary as a string, in filters too", steps: []step{
		{request: "POST /Users", body: `{"userName":"eve@example.com","roles":[{"primary":"True","display":"A","value":"a","type":"WindowsAzureActiveDirectoryRole"}]}`, status: 201, want: `{"roles":[{"primary":true,"display":"A"}]}`},
		{request: "PATCH /Users/{ada}", body: patchBody(`{"op":"Add","path":"roles[primary eq \"True\"].display","value":"B"}`), status: 200, want: `{"roles":[{"primary":true,"display":"B"}]}`},
		{request: "PATCH /Users/{ada}", body: patchBody(`{"op":"Replace","path":"roles[primary eq \"True\"].display","value":"C"}`), status: 200, want: `{"roles":[{"primary":true,"display":"C"}]}`},
	}},
	{name: "E13 creates a group with an unknown schema", steps: []step{
		{
			request: "POST /Groups", body: `{"schemas":["urn:ietf:params:scim:schemas:core:2.0:Group","http://schemas.microsoft.com/2006/11/ResourceManagement/ADSCIM/2.0/Group"],"externalId":"8aa1a0c0","displayName":"Group1","meta":{"resourceType":"Group"}}`,
			status: 201, want: `{"schemas":["urn:ietf:params:scim:schemas:core:2.0:Group"],"displayName":"Group1"}`,
		},
	}},
	{name: "E14 sends nulls and empty lists", steps: []step{
		{
			request: "POST /Users", body: `{"schemas":["urn:ietf:params:scim:schemas:core:2.0:User"],"userName":"eve@example.com","displayName":null,"name":{"formatted":null},"emails":null,"roles":[],"meta":{"resourceType":"User"}}`,
			status: 201, want: `{"displayName":"<absent>","name":"<absent>","emails":"<absent>","roles":"<absent>"}`,
		},
	}},
	{name: "E15 reads groups without members", steps: []step{
		{request: "GET /Groups/{team}?excludedAttributes=members", status: 200, want: `{"members":"<absent>","displayName":"team","schemas":["urn:ietf:params:scim:schemas:core:2.0:Group"]}`},
		{request: `GET /Groups?excludedAttributes=members&filter=displayName eq "TEAM"`, status: 200, want: `{"totalResults":1,"Resources":[{"members":"<absent>","id":"{team}"}]}`},
	}},
	{name: "E16 filters by names and values in any case, also unquoted", steps: []step{
		{request: "PATCH /Users/{ada}", body: patchBody(`{"op":"add","value":{"externalId":"jyoung","displayName":"Ada L","emails":[{"type":"work","value":"Ada@Work.example"}]}}`), status: 200},
		{request: `GET /Users?filter=USERNAME eq "ADA@EXAMPLE.COM"`, status: 200, want: `{"totalResults":1}`},
		{request: `GET /Users?filter=externalId eq "jyoung"`, status: 200, want: `{"totalResults":1,"Resources":[{"id":"{ada}"}]}`},
		{request: `GET /Users?filter=externalId eq jyoung`, status: 200, want: `{"totalResults":1}`},
		{request: `GET /Users?filter=externalId eq "JYOUNG"`, status: 200, want: `{"totalResults":0}`},
		{request: `GET /Users?filter=emails[type eq "work"].value eq "ada@work.example"`, status: 200, want: `{"totalResults":1}`},
		{request: `GET /Users?filter=emails[type eq "home"].value eq "ada@work.example"`, status: 200, want: `{"totalResults":0}`},
		{request: `GET /Users?filter=displayName eq "ada l" and userName eq "ada@example.com"`, status: 200, want: `{"totalResults":1}`},
	}},
	{name: "E17 filters by the id of a reference", steps: []step{
		{request: "PATCH /Users/{ada}", body: patchBody(`{"op":"Add","path":"` + enterprise + `:manager","value":"{bob}"}`), status: 200},
		{request: `GET /Users?filter=id eq "{ada}" and ` + enterprise + `:manager eq "{bob}"&attributes=id`, status: 200, want: `{"totalResults":1,"Resources":[{"id":"{ada}","userName":"<absent>","schemas":["urn:ietf:params:scim:schemas:core:2.0:User","` + enterprise + `"]}]}`},
		{request: `GET /Users?filter=id eq "{ada}" and manager eq "{bob}"&attributes=id`, status: 200, want: `{"totalResults":1,"Resources":[{"id":"{ada}"}]}`},
		{request: `GET /Groups?filter=id eq "{team}" and members eq "{ada}"&attributes=id`, status: 200, want: `{"totalResults":1,"Resources":[{"id":"{team}","members":"<absent>"}]}`},
		{request: `GET /Groups?filter=id eq "{team}" and members eq "{cyd}"&attributes=id`, status: 200, want: `{"totalResults":0}`},
	}},
	{name: "E18 removes, adds and replaces in one PATCH", steps: []step{
		{request: "PATCH /Users/{ada}", body: patchBody(`{"op":"remove","path":"externalId"},{"op":"add","path":"externalId","value":"X"},{"op":"replace","path":"externalId","value":"Y"}`), status: 200, want: `{"externalId":"Y"}`},
	}},
	{name: "E19 soft-deletes, reads and restores", steps: []step{
		{request: "PATCH /Users/{ada}", body: patchBody(`{"op":"Replace","path":"active","value":"False"}`), status: 200},
		{request: "GET /Users/{ada}", status: 200, want: `{"active":false}`},
		{request: `GET /Users?filter=userName eq "ada@example.com"`, status: 200, want: `{"totalResults":1,"Resources":[{"active":false}]}`},
		{request: "PATCH /Users/{ada}", body: patchBody(`{"op":"Replace","path":"active","value":"True"}`), status: 200, want: `{"active":true}`, of: "{ada}", events: []string{"leaver", "joiner"}},
	}},
	{name: "E20 deletes permanently, once", steps: []step{
		{request: "DELETE /Users/{ada}", status: 204, of: "{ada}", events: []string{"leaver"}},
		{request: "DELETE /Users/{ada}", status: 404, want: `{"status":"404"}`},
		{request: "GET /Groups/{team}", status: 200, want: `{"members":[{"value":"{bob}"}]}`},
	}},
	{name: "E21 gets a body for users", steps: []step{
		{request: "PATCH /Users/{ada}", body: patchBody(`{"op":"Replace","path":"title","value":"Countess"}`), status: 200, want: `{"title":"Countess"}`},
		{request: "PATCH /Groups/{team}", body: patchBody(`{"op":"Replace","path":"displayName","value":"T"}`), status: 200, want: `{"displayName":"T"}`},
	}},
	{name: "E21 gets 204 for groups in its profile", profile: tenant.ProfileEntra, steps: []step{
		{request: "PATCH /Users/{ada}", body: patchBody(`{"op":"Replace","path":"title","value":"Countess"}`), status: 200},
		{request: "PATCH /Groups/{team}", body: patchBody(`{"op":"Replace","path":"displayName","value":"T"}`), status: 204},
	}},
	{name: "E22 fills a minimal user by one PATCH of many adds", steps: []step{
		{
			request: "PATCH /Users/{ada}", status: 200, body: patchBody(strings.Join([]string{
				`{"op":"Add","path":"displayName","value":"v1"}`, `{"op":"Add","path":"title","value":"v2"}`, `{"op":"Add","path":"nickName","value":"v3"}`,
				`{"op":"Add","path":"preferredLanguage","value":"en"}`, `{"op":"Add","path":"userType","value":"v4"}`, `{"op":"Add","path":"locale","value":"en-US"}`,
				`{"op":"Add","path":"timezone","value":"Mars/Olympus"}`, `{"op":"Add","path":"profileUrl","value":"not a url"}`,
				`{"op":"Add","path":"name.givenName","value":"Ada"}`, `{"op":"Add","path":"name.familyName","value":"L"}`, `{"op":"Add","path":"name.formatted","value":"Ada L"}`,
				`{"op":"Add","path":"name.middleName","value":"K"}`, `{"op":"Add","path":"name.honorificPrefix","value":"Lady"}`, `{"op":"Add","path":"name.honorificSuffix","value":"II"}`,
				`{"op":"Add","path":"emails[type eq \"work\"].value","value":"w@x"}`, `{"op":"Add","path":"emails[type eq \"work\"].primary","value":"True"}`,
				`{"op":"Add","path":"emails[type eq \"home\"].value","value":"h@x"}`, `{"op":"Add","path":"emails[type eq \"other\"].value","value":"o@x"}`,
				`{"op":"Add","path":"phoneNumbers[type eq \"work\"].value","value":"1"}`, `{"op":"Add","path":"phoneNumbers[type eq \"mobile\"].value","value":"2"}`,
				`{"op":"Add","path":"phoneNumbers[type eq \"fax\"].value","value":"3"}`, `{"op":"Add","path":"phoneNumbers[type eq \"pager\"].value","value":"4"}`,
				`{"op":"Add","path":"addresses[type eq \"work\"].formatted","value":"a"}`, `{"op":"Add","path":"addresses[type eq \"work\"].streetAddress","value":"b"}`,
				`{"op":"Add","path":"addresses[type eq \"work\"].locality","value":"c"}`, `{"op":"Add","path":"addresses[type eq \"work\"].region","value":"d"}`,
				`{"op":"Add","path":"addresses[type eq \"work\"].postalCode","value":"e"}`, `{"op":"Add","path":"addresses[type eq \"work\"].country","value":"f"}`,
				`{"op":"Add","path":"roles[primary eq \"True\"].value","value":"r"}`, `{"op":"Add","path":"roles[primary eq \"True\"].display","value":"R"}`,
				`{"op":"Add","path":"` + enterprise + `:employeeNumber","value":"1"}`, `{"op":"Add","path":"` + enterprise + `:department","value":"2"}`,
				`{"op":"Add","path":"` + enterprise + `:costCenter","value":"3"}`, `{"op":"Add","path":"` + enterprise + `:organization","value":"4"}`,
				`{"op":"Add","path":"` + enterprise + `:division","value":"5"}`, `{"op":"Add","path":"externalId","value":"x1"}`,
			}, ",")),
			want: `{"emails":[{"type":"work","value":"w@x","primary":true},{"type":"home"},{"type":"other"}],
				"phoneNumbers":[{"type":"work"},{"type":"mobile"},{"type":"fax","value":"3"},{"type":"pager"}],
				"addresses":[{"type":"work","formatted":"a","streetAddress":"b","locality":"c","region":"d","postalCode":"e","country":"f"}],
				"roles":[{"primary":true,"value":"r","display":"R"}],"name":{"honorificPrefix":"Lady"},"` + enterprise + `":{"division":"5"}}`,
		},
	}},
	{name: "E23 sends odd strings", steps: []step{
		{
			request: "PATCH /Users/{ada}", body: patchBody(`{"op":"Add","path":"profileUrl","value":"::"},{"op":"Add","path":"` + enterprise + `:manager","value":"nobody-knows"},{"op":"Add","path":"timezone","value":"Nowhere"}`), status: 200,
			want: `{"profileUrl":"::","timezone":"Nowhere"}`,
		},
	}},
	{name: "E25 gets its content type (its JWTs: TestAuth_AcceptsJWTOfTrustedIssuer, its rate: TestRateLimit_IsPerTenant)", steps: []step{
		{request: "GET /Users/{ada}", status: 200},
	}},
}

var others = []row{
	{name: "JumpCloud removes a member by its value", steps: []step{
		{request: "PATCH /Groups/{team}", body: patchBody(`{"op":"Remove","path":"members","value":[{"value":"{bob}"}]}`), status: 200, want: `{"members":[{"value":"{ada}"}]}`},
	}},
	{name: "JumpCloud tests its activation with a user and a group", steps: []step{
		{request: "POST /Users", body: `{"userName":"jumpcloud-test@example.com","active":true}`, status: 201},
		{request: "POST /Groups", body: `{"displayName":"jumpcloud-test"}`, status: 201},
		{request: "PATCH /Users/{ada}", body: patchBody(`{"op":"replace","value":{"active":false}}`), status: 200, of: "{ada}", events: []string{"leaver"}},
		{request: "DELETE /Users/{bob}", status: 204, of: "{bob}", events: []string{"leaver"}},
		{request: "DELETE /Groups/{team}", status: 204},
	}},
	{name: "OneLogin patches groups, and has no User-Agent", steps: []step{
		{request: "PATCH /Groups/{team}", body: patchBody(`{"op":"add","path":"members","value":[{"value":"{cyd}"}]}`), headers: []string{"User-Agent", ""}, status: 200, want: `{"members":[{"value":"{ada}"},{"value":"{bob}"},{"value":"{cyd}"}]}`},
	}},
	{name: "PingFederate replaces users by PUT only", steps: []step{
		{request: "PUT /Users/{ada}", body: `{"schemas":["urn:ietf:params:scim:schemas:core:2.0:User"],"userName":"ada@example.com","active":true,"title":"T"}`, status: 200, want: `{"title":"T"}`},
		{request: "PUT /Users/{ada}", body: `{"schemas":["urn:ietf:params:scim:schemas:core:2.0:User"],"userName":"ada@example.com","active":false}`, status: 200, want: `{"title":"<absent>"}`, of: "{ada}", events: []string{"mover", "leaver"}},
	}},
	{name: "Rippling repeats a POST and filters by externalId", steps: []step{
		{request: "POST /Users", body: `{"userName":"eve@example.com","externalId":"rip-1"}`, status: 201},
		{request: "POST /Users", body: `{"userName":"eve@example.com","externalId":"rip-1"}`, status: 409, want: `{"scimType":"uniqueness"}`},
		{request: `GET /Users?filter=externalId eq "rip-1"`, status: 200, want: `{"totalResults":1,"Resources":[{"userName":"eve@example.com"}]}`},
	}},
	{name: "Google suspends and later deletes", steps: []step{
		{request: "PATCH /Users/{ada}", body: patchBody(`{"op":"replace","path":"active","value":false}`), status: 200, of: "{ada}", events: []string{"leaver"}},
		{request: "DELETE /Users/{ada}", status: 204, of: "{ada}", events: []string{"leaver"}},
	}},
	{name: "older authentik puts an id into a PATCH", steps: []step{
		{request: "PATCH /Groups/{team}", body: patchBody(`{"op":"replace","value":{"id":"{team}","displayName":"T","externalId":"x"}}`), status: 200, want: `{"id":"{team}","displayName":"T"}`},
	}},
	{name: "any type is accepted where the schema lists none", steps: []step{
		{request: "POST /Users", body: `{"userName":"eve@example.com","phoneNumbers":[{"type":"satellite","value":"1"}],"addresses":[{"type":"moon","country":"X"}]}`, status: 201, want: `{"phoneNumbers":[{"type":"satellite"}],"addresses":[{"type":"moon"}]}`},
	}},
	{name: "PingFederate finds groups by listing all", steps: []step{
		{request: "GET /Groups", status: 200, want: `{"totalResults":1,"Resources":[{"id":"{team}"}]}`},
	}},
	{name: "authentik reads the bulk limits", steps: []step{
		{request: "GET /ServiceProviderConfig", status: 200, want: `{"patch":{"supported":true},"bulk":{"supported":true,"maxOperations":1000,"maxPayloadSize":1048576}}`},
	}},
	{name: "python-scim puts schemas inside an extension's value", steps: []step{
		{request: "PATCH /Users/{ada}", body: patchBody(`{"op":"add","path":"` + enterprise + `","value":{"schemas":["` + enterprise + `"],"department":"X"}}`), status: 200, want: `{"` + enterprise + `":{"department":"X","schemas":"<absent>"}}`},
		{request: "PATCH /Users/{ada}", body: patchBody(`{"op":"remove","path":"` + enterprise + `"}`), status: 200, want: `{"` + enterprise + `":"<absent>","schemas":["urn:ietf:params:scim:schemas:core:2.0:User"]}`},
	}},
	{name: "members may be strings, or one object", steps: []step{
		{request: "PATCH /Groups/{team}", body: patchBody(`{"op":"add","path":"members","value":"{cyd}"}`), status: 200, want: `{"members":[{"value":"{ada}"},{"value":"{bob}"},{"value":"{cyd}"}]}`},
		{request: "PATCH /Groups/{team}", body: patchBody(`{"op":"remove","path":"members","value":["{ada}","{bob}"]}`), status: 200, want: `{"members":[{"value":"{cyd}"}]}`},
		{request: "PATCH /Groups/{team}", body: patchBody(`{"op":"remove","path":"members","value":[]}`), status: 200, want: `{"members":[{"value":"{cyd}"}]}`},
		{request: "PATCH /Groups/{team}", body: patchBody(`{"op":"remove","path":"members"}`), status: 200, want: `{"members":"<absent>"}`},
	}},
	{name: "removing active does not reactivate", steps: []step{
		{request: "PATCH /Users/{ada}", body: patchBody(`{"op":"replace","path":"active","value":false}`), status: 200},
		{request: "PATCH /Users/{ada}", body: patchBody(`{"op":"remove","path":"active"}`), status: 200, want: `{"active":"<absent>"}`, of: "{ada}", events: []string{"leaver"}},
		{request: "PATCH /Users/{ada}", body: patchBody(`{"op":"add","path":"active","value":true}`), status: 200, of: "{ada}", events: []string{"joiner"}},
	}},
	{name: "pages are clamped", steps: []step{
		{request: "GET /Users?startIndex=-3&count=-1", status: 200, want: `{"startIndex":1,"itemsPerPage":0,"totalResults":3,"Resources":[]}`},
		{request: "GET /Users?startIndex=99999999999999999999&count=99999999999999999999", status: 200, want: `{"totalResults":3,"Resources":[]}`},
	}},
	{name: "strict rejects unknown attributes and schemas", profile: tenant.ProfileStrict, steps: []step{
		{request: "POST /Users", body: `{"userName":"eve@example.com","shoeSize":44}`, status: 400, want: `{"scimType":"invalidValue"}`},
		{request: "POST /Users", body: `{"schemas":["urn:example:unknown"],"userName":"eve@example.com"}`, status: 400},
	}},
	{name: "interop rejects what the interoperability profile prohibits", profile: tenant.ProfileInterop, steps: []step{
		{request: "POST /Users", body: `{"userName":"eve@example.com","shoeSize":44}`, status: 400, want: `{"scimType":"invalidSyntax"}`},
		{request: "POST /Users", body: `{"userName":"eve@example.com","accountEnabled":false}`, status: 400, want: `{"scimType":"invalidSyntax"}`},
		{request: "POST /Users", body: `{"schemas":["urn:example:unknown"],"userName":"eve@example.com"}`, status: 400, want: `{"scimType":"invalidSyntax"}`},
		{request: "POST /Users", body: `{"userName":"eve@example.com","emails":[{"value":"e@example.com","type":"sideline"}]}`, status: 400, want: `{"scimType":"invalidValue"}`},
		{request: "PATCH /Users/{ada}", body: patchBody(`{"op":"replace","value":{"active":false}}`), status: 400, want: `{"scimType":"invalidSyntax"}`},
		{request: "PATCH /Users/{ada}", body: patchBody(`{"op":"replace","path":"shoeSize","value":44}`), status: 400, want: `{"scimType":"invalidSyntax"}`},
		{request: "PATCH /Users/{ada}", body: patchBody(`{"op":"replace","path":"name.nick","value":"x"}`), status: 400, want: `{"scimType":"invalidSyntax"}`},
		{request: "GET /Users?filter=shoeSize%20eq%201", status: 400, want: `{"scimType":"invalidFilter"}`},
		{request: "GET /ServiceProviderConfig", status: 200, want: `{"interopProfileConformant":true}`},
	}},
	{name: "interop replaces a complex attribute as a whole, and add merges", profile: tenant.ProfileInterop, steps: []step{
		{request: "PATCH /Users/{ada}", body: patchBody(`{"op":"add","path":"name","value":{"givenName":"Ada","familyName":"Lovelace"}}`), status: 200},
		{request: "PATCH /Users/{ada}", body: patchBody(`{"op":"add","path":"name","value":{"givenName":"Augusta"}}`), status: 200, want: `{"name":{"givenName":"Augusta","familyName":"Lovelace"}}`},
		{request: "PATCH /Users/{ada}", body: patchBody(`{"op":"replace","path":"name","value":{"givenName":"Ada"}}`), status: 200, want: `{"name":{"givenName":"Ada","familyName":"<absent>"}}`},
		{request: "PATCH /Users/{ada}", body: patchBody(`{"op":"replace","path":"active","value":false}`), status: 200, of: "{ada}", events: []string{"mover", "mover", "mover", "leaver"}},
	}},
	{name: "other profiles do not claim to conform to the interoperability profile", profile: tenant.ProfileStrict, steps: []step{
		{request: "GET /ServiceProviderConfig", status: 200, want: `{"interopProfileConformant":"<absent>"}`},
	}},
	{name: "other profiles ignore unknown attributes", steps: []step{
		{request: "POST /Users", body: `{"userName":"eve@example.com","shoeSize":44}`, status: 201, want: `{"shoeSize":"<absent>"}`},
	}},
	{name: "a body with another id is rejected", steps: []step{
		{request: "PUT /Users/{ada}", body: `{"id":"{bob}","userName":"ada@example.com"}`, status: 400, want: `{"scimType":"invalidValue"}`},
	}},
	{name: "a GET returns the version", steps: []step{
		{request: "GET /Users/{ada}", status: 200, want: `{"meta":{"version":"W/\"1\""}}`},
	}},
}

func TestClients_Okta(t *testing.T)   { runRows(t, okta) }
func TestClients_Entra(t *testing.T)  { runRows(t, entra) }
func TestClients_Others(t *testing.T) { runRows(t, others) }

func runRows(t *testing.T, rows []row) {
	provider := newProvider(t, tenant.ProfileDefault)
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			profile := r.profile
			if profile == "" {
				profile = tenant.ProfileDefault
			}
			p := provider.asTenant(t, profile)
			var ids []string
			for _, name := range []string{"ada", "bob", "cyd"} {
				ids = append(ids, "{"+name+"}", p.create("/Users", `{"userName":"`+name+`@example.com","active":true}`))
			}
			team := p.create("/Groups", `{"displayName":"team","members":[{"value":"`+ids[1]+`"},{"value":"`+ids[3]+`"}]}`)
			replace := strings.NewReplacer(append(ids, "{team}", team)...)
			for _, id := range append(ids, team) {
				p.starter.kinds(id) // discard the events of creating them
			}
			for _, s := range r.steps {
				runStep(t, p, s, replace)
			}
		})
	}
}

func runStep(t *testing.T, p *provider, s step, replace *strings.Replacer) {
	t.Helper()
	method, target, _ := strings.Cut(replace.Replace(s.request), " ")
	a := p.do(method, conformance.EscapeQuery(target), replace.Replace(s.body), s.headers...)
	if a.status != s.status {
		t.Fatalf("%s answered %d, want %d: %s", s.request, a.status, s.status, a.raw)
	}
	if len(a.raw) > 0 && a.header.Get("Content-Type") != "application/scim+json" {
		t.Errorf("%s: Content-Type %q", s.request, a.header.Get("Content-Type"))
	}
	if s.want != "" {
		p.wantJSON(a.body, replace.Replace(s.want))
	}
	if s.of != "" {
		if kinds := p.starter.kinds(replace.Replace(s.of)); !slices.Equal(kinds, s.events) {
			t.Errorf("%s started %v, want %v", s.request, kinds, s.events)
		}
		if n := len(s.events); n > 0 && s.events[n-1] != "team-sync" {
			if got, want := p.restricted(replace.Replace(s.of)), s.events[n-1] == "leaver"; got != want {
				t.Errorf("%s: restricted %t, want %t", s.request, got, want)
			}
		}
	}
}
