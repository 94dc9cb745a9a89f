package conformance

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

// row is a sequence of requests to a user and to a group of two users. {user}, {other},
// {third} and {group} are placeholders for ids, {name} for the user's name and {new} for an
// unused name.
type row struct {
	name  string
	steps []step
}

// step is one request. The response must have one of the statuses, and afterwards the
// resource at `then` must contain `want`.
type step struct {
	request  string // method and path; the query after "?" is escaped
	body     string
	statuses []int
	answer   string // JSON that the response must contain
	then     string
	want     string
	// strict is set if a provider may answer 400 because it rejects unknown attributes or
	// missing targets (RFC 7644 section 3.5.2.3).
	strict bool
}

func patchOf(operations string) string { return patchPrefix + operations + "]}" }

var (
	okOrEmpty = []int{http.StatusOK, http.StatusNoContent}
	ok        = []int{http.StatusOK}
)

var oktaRows = []row{
	{"filters for a user that does not exist", []step{{
		request: `GET /Users?filter=userName eq "{new}"&startIndex=1&count=100`, statuses: ok,
		answer: `{"totalResults":0,"Resources":[]}`,
	}}},
	{"creates a user with a password and groups", []step{{
		request: "POST /Users", statuses: []int{201}, answer: `{"userName":"{new}","active":true,"password":"<absent>"}`,
		body: `{"schemas":["` + userURN + `"],"userName":"{new}","name":{"givenName":"T","familyName":"U"},` +
			`"emails":[{"primary":true,"value":"t@okta.example","type":"work"}],"displayName":"T U","locale":"en-US",` +
			`"externalId":"00u1","groups":[],"password":"1mz050nq","active":true}`,
	}}},
	{"sends a user back unchanged by PUT", []step{{
		request: "PUT /Users/{user}", statuses: ok, answer: `{"id":"{user}","userName":"{name}"}`,
		body: `{"schemas":["` + userURN + `"],"id":"{user}","userName":"{name}","active":true,` +
			`"groups":[{"value":"{group}"}],"meta":{"resourceType":"User"}}`,
	}}},
	{"deactivates by PATCH without a path and reactivates", []step{
		{
			request: "PATCH /Users/{user}", body: patchOf(`{"op":"replace","value":{"active":false}}`), statuses: okOrEmpty,
			then: "/Users/{user}", want: `{"active":false}`,
		},
		{
			request: "PATCH /Users/{user}", body: patchOf(`{"op":"replace","value":{"active":true}}`), statuses: okOrEmpty,
			then: "/Users/{user}", want: `{"active":true}`,
		},
	}},
	{"deactivates by PUT", []step{{
		request: "PUT /Users/{user}", body: `{"schemas":["` + userURN + `"],"userName":"{name}","active":false}`,
		statuses: ok, answer: `{"active":false}`,
	}}},
	{"creates an empty group", []step{{
		request: "POST /Groups", body: `{"schemas":["` + groupURN + `"],"displayName":"{new}","members":[]}`,
		statuses: []int{201}, answer: `{"displayName":"{new}"}`,
	}}},
	{"renames a group with its id in the value", []step{{
		request: "PATCH /Groups/{group}", body: patchOf(`{"op":"replace","value":{"id":"{group}","displayName":"{new}"}}`),
		statuses: okOrEmpty, then: "/Groups/{group}", want: `{"id":"{group}","displayName":"{new}"}`,
	}}},
	{"swaps members in one PATCH", []step{{
		request: "PATCH /Groups/{group}",
		body: patchOf(`{"op":"remove","path":"members[value eq \"{user}\"]"},{"op":"add","path":"members",` +
			`"value":[{"value":"{third}","display":"x"}]}`),
		statuses: okOrEmpty, then: "/Groups/{group}", want: `members {other} {third}`,
	}}},
	{"replaces members without a path", []step{{
		request: "PATCH /Groups/{group}", body: patchOf(`{"op":"replace","value":{"members":[{"value":"{third}"}]}}`),
		statuses: okOrEmpty, then: "/Groups/{group}", want: `members {third}`,
	}}},
	{"empties a group", []step{{
		request: "PATCH /Groups/{group}", body: patchOf(`{"op":"replace","path":"members","value":[]}`), statuses: okOrEmpty,
		then: "/Groups/{group}", want: `members`,
	}}},
	{"deletes a group and keeps its users", []step{{
		request: "DELETE /Groups/{group}", statuses: []int{204}, then: "/Users/{user}", want: `{"id":"{user}"}`,
	}}},
}

var entraRows = []row{
	{"tests the connection", []step{{
		request: `GET /Users?filter=userName eq "5bd1b0d2-0000-4c39-8b70-84a5a6b5a7f1"`, statuses: ok,
		answer: `{"totalResults":0,"Resources":[]}`,
	}}},
	{"sends False as a string, op in any case", []step{{
		request: "PATCH /Users/{user}", body: patchOf(`{"op":"Replace","path":"active","value":"False"}`),
		statuses: okOrEmpty, then: "/Users/{user}", want: `{"active":false}`,
	}}},
	{"sends false as a boolean", []step{{
		request: "PATCH /Users/{user}", body: patchOf(`{"op":"replace","path":"active","value":false}`), statuses: okOrEmpty,
		then: "/Users/{user}", want: `{"active":false}`,
	}}},
	{"sends dotted and URN keys", []step{{
		request: "PATCH /Users/{user}",
		body: patchOf(`{"op":"replace","value":{"displayName":"B","name.givenName":"K",` +
			`"` + entURN + `:employeeNumber":"A"}}`),
		statuses: okOrEmpty,
		then:     "/Users/{user}",
		want: `{"displayName":"B","name":{"givenName":"K"},"name.givenName":"<absent>",` +
			`"` + entURN + `":{"employeeNumber":"A"}}`,
	}}},
	{"adds a work e-mail where there is none", []step{{
		request: "PATCH /Users/{user}",
		body:    patchOf(`{"op":"Add","path":"emails[type eq \"work\"].value","value":"a@b.example"}`), statuses: okOrEmpty,
		then: "/Users/{user}", want: `{"emails":[{"type":"work","value":"a@b.example"}]}`,
	}}},
	{"replaces a work e-mail where there is none", []step{{
		request:  "PATCH /Users/{user}",
		body:     patchOf(`{"op":"Replace","path":"emails[type eq \"work\"].value","value":"a@b.example"}`),
		statuses: okOrEmpty, then: "/Users/{user}", want: `{"emails":[{"type":"work","value":"a@b.example"}]}`,
		strict: true,
	}}},
	{"replaces an enterprise attribute", []step{{
		request: "PATCH /Users/{user}", body: patchOf(`{"op":"Replace","path":"` + entURN + `:department","value":"X"}`),
		statuses: okOrEmpty, then: "/Users/{user}", want: `{"` + entURN + `":{"department":"X"}}`,
	}}},
	{"sets the manager by a bare string", []step{{
		request: "PATCH /Users/{user}", body: patchOf(`{"op":"Add","path":"` + entURN + `:manager","value":"{other}"}`),
		statuses: okOrEmpty, then: "/Users/{user}", want: `{"` + entURN + `":{"manager":{"value":"{other}"}}}`,
	}}},
	{"adds a member with a null reference", []step{{
		request: "PATCH /Groups/{group}",
		body:    patchOf(`{"op":"Add","path":"members","value":[{"$ref":null,"value":"{third}"}]}`), statuses: okOrEmpty,
		then: "/Groups/{group}", want: `members {user} {other} {third}`,
	}}},
	{"removes only the member that the value names", []step{{
		request: "PATCH /Groups/{group}",
		body:    patchOf(`{"op":"Remove","path":"members","value":[{"$ref":null,"value":"{user}"}]}`), statuses: okOrEmpty,
		then: "/Groups/{group}", want: `members {other}`,
	}}},
	{"removes a member by a filter", []step{{
		request: "PATCH /Groups/{group}", body: patchOf(`{"op":"remove","path":"members[value eq \"{user}\"]"}`),
		statuses: okOrEmpty, then: "/Groups/{group}", want: `members {other}`,
	}}},
	{"sends primary as a string", []step{{
		request:  "POST /Users",
		body:     `{"schemas":["` + userURN + `"],"userName":"{new}","roles":[{"primary":"True","value":"r","display":"R"}]}`,
		statuses: []int{201}, answer: `{"roles":[{"primary":true,"value":"r"}]}`,
	}}},
	{"creates a group with an unknown schema", []step{{
		request: "POST /Groups",
		body: `{"schemas":["` + groupURN + `","http://schemas.microsoft.com/2006/11/ResourceManagement/ADSCIM/2.0/Group"],` +
			`"externalId":"8aa1","displayName":"{new}","meta":{"resourceType":"Group"}}`,
		statuses: []int{201}, answer: `{"displayName":"{new}"}`, strict: true,
	}}},
	{"sends nulls and empty lists", []step{{
		request: "POST /Users",
		body: `{"schemas":["` + userURN + `"],"userName":"{new}","displayName":null,"emails":null,"roles":[],` +
			`"meta":{"resourceType":"User"}}`,
		statuses: []int{201}, answer: `{"displayName":"<absent>","emails":"<absent>"}`,
	}}},
	{"reads a group without members", []step{{
		request: "GET /Groups/{group}?excludedAttributes=members", statuses: ok,
		answer: `{"id":"{group}","members":"<absent>"}`,
	}}},
	{"asks whether a user is a member", []step{
		{
			request: `GET /Groups?filter=id eq "{group}" and members eq "{user}"&attributes=id`, statuses: ok,
			answer: `{"totalResults":1}`,
		},
		{
			request: `GET /Groups?filter=id eq "{group}" and members eq "{third}"&attributes=id`, statuses: ok,
			answer: `{"totalResults":0}`,
		},
	}},
	{"filters by an unquoted value and after a value filter", []step{
		{
			request: "PATCH /Users/{user}",
			body: patchOf(`{"op":"add","value":{"externalId":"{new}",` +
				`"emails":[{"type":"work","value":"{new}@b.example"}]}}`),
			statuses: okOrEmpty,
		},
		{request: `GET /Users?filter=externalId eq {new}`, statuses: ok, answer: `{"totalResults":1}`},
		{
			request: `GET /Users?filter=emails[type eq "work"].value eq "{new}@B.example"`, statuses: ok,
			answer: `{"totalResults":1}`,
		},
	}},
	{"removes, adds and replaces in order", []step{{
		request: "PATCH /Users/{user}",
		body: patchOf(`{"op":"remove","path":"externalId"},{"op":"add","path":"externalId","value":"X"},{"op":"replace",` +
			`"path":"externalId","value":"Y"}`),
		statuses: okOrEmpty, then: "/Users/{user}", want: `{"externalId":"Y"}`,
	}}},
	{"finds a soft-deleted user", []step{
		{
			request: "PATCH /Users/{user}", body: patchOf(`{"op":"Replace","path":"active","value":false}`), statuses: okOrEmpty,
		},
		{
			request: `GET /Users?filter=userName eq "{name}"`, statuses: ok,
			answer: `{"totalResults":1,"Resources":[{"active":false}]}`,
		},
	}},
}

func rowChecks(set Set, rows []row) []check {
	checks := make([]check, 0, len(rows))
	for _, r := range rows {
		checks = append(checks, check{set, r.name, func(p *probe) error { return p.row(r) }})
	}
	return checks
}

func (p *probe) row(r row) error {
	user, name, err := p.user(`"active":true`)
	if err != nil {
		return err
	}
	other, _, err := p.user("")
	if err != nil {
		return err
	}
	third, _, err := p.user("")
	if err != nil {
		return err
	}
	group, _, err := p.create("/Groups",
		fmt.Sprintf(`{"schemas":[%q],"displayName":%q,"members":[{"value":%q},{"value":%q}]}`,
			groupURN, p.name("group"), idOf(user), idOf(other)))
	if err != nil {
		return err
	}
	fill := strings.NewReplacer("{user}", idOf(user), "{other}", idOf(other), "{third}", idOf(third), "{group}",
		idOf(group), "{name}", name, "{new}", p.name("new"))
	for _, s := range r.steps {
		if err := p.step(s, fill); err != nil {
			return err
		}
	}
	return nil
}

// EscapeQuery escapes the query of a target that is written unescaped
// (/Users?filter=userName eq "ada") and leaves its path unchanged.
func EscapeQuery(target string) string {
	path, query, _ := strings.Cut(target, "?")
	if query == "" {
		return path
	}
	values := url.Values{}
	for part := range strings.SplitSeq(query, "&") {
		name, value, _ := strings.Cut(part, "=")
		values.Set(name, value)
	}
	return path + "?" + values.Encode()
}

func (p *probe) step(s step, fill *strings.Replacer) error {
	if strings.Contains(s.body+s.request, entURN) && p.schemas[entURN] == nil {
		return &skip{"the provider has no enterprise extension (/Schemas)"}
	}
	method, target, _ := strings.Cut(fill.Replace(s.request), " ")
	a, err := p.do(method, EscapeQuery(target), fill.Replace(s.body))
	if err != nil {
		return err
	}
	if s.strict && a.status == http.StatusBadRequest && a.body["scimType"] != nil {
		return nil
	}
	allowed := false
	for _, status := range s.statuses {
		allowed = allowed || a.status == status
	}
	if !allowed {
		return fmt.Errorf("want %v: %v", s.statuses, a)
	}
	if s.answer != "" {
		if err := ContainsJSON(a.body, fill.Replace(s.answer)); err != nil {
			return fmt.Errorf("%w: %v", err, a)
		}
	}
	if s.then == "" {
		return nil
	}
	after, err := p.want(http.StatusOK, http.MethodGet, fill.Replace(s.then), "")
	if err != nil {
		return err
	}
	if wanted, isMembers := strings.CutPrefix(s.want, "members"); isMembers {
		return sameMembers(after, strings.Fields(fill.Replace(wanted)))
	}
	if err := ContainsJSON(after.body, fill.Replace(s.want)); err != nil {
		return fmt.Errorf("afterwards: %w", err)
	}
	return nil
}

// sameMembers returns an error unless the members are the wanted ones, in any order.
func sameMembers(a answer, want []string) error {
	left := make(map[string]bool)
	for _, id := range want {
		left[id] = true
	}
	members, _ := a.body["members"].([]any)
	for _, m := range members {
		object, _ := m.(map[string]any)
		id, _ := object["value"].(string)
		if !left[id] {
			return fmt.Errorf("afterwards %s is an unexpected member", id)
		}
		delete(left, id)
	}
	if len(left) > 0 {
		return fmt.Errorf("afterwards %d of %d wanted members are missing", len(left), len(want))
	}
	return nil
}
