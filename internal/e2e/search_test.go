package e2e

import (
	"fmt"
	"net/http"
	"testing"
)

// results requests a search, and returns the ids and the token of the next page.
func (i *installation) results(path, body string) (ids []string, next string) {
	i.t.Helper()
	answer := i.must("POST", "/access/v1/search/"+path, i.platform, body)
	for _, r := range answer["results"].([]any) {
		ids = append(ids, r.(map[string]any)["id"].(string))
	}
	next, _ = answer["page"].(map[string]any)["next_token"].(string)
	return ids, next
}

// TestResourceSearch_FiltersTools filters a tools/list, by the candidates of the request and by those that
// the rules name.
func TestResourceSearch_FiltersTools(t *testing.T) {
	i := install(t)
	i.apply("  - {group: sales, team: Sales, scopes: ['tools/call:crm_search', 'tools/call:crm_export']}\n" +
		"  - {group: ops, scopes: ['tools/call:deploy']}\n")
	ada := i.createUser("ada@example.com")
	i.createGroup("sales", ada)
	i.becomes(ada, "scope:tools/call:crm_export", "scope:tools/call:crm_search", "team:Sales")
	agent := i.createAgent("writer", ada)
	ask := func(resource string) string {
		return fmt.Sprintf(`{"subject":{"type":"identity","id":%q},"context":{"agent":%q},"action":{"name":"tools/call"},"resource":%s}`,
			ada, agent, resource)
	}
	for resource, want := range map[string]string{
		`{"type":"tool"}`: "[crm_export crm_search]",
		`{"type":"tool","properties":{"ids":["deploy","crm_search","unknown"]}}`: "[crm_search]",
		`{"type":"tool","properties":{"ids":[]}}`:                                "[]",
	} {
		if ids, next := i.results("resource", ask(resource)); fmt.Sprint(ids) != want || next != "" {
			t.Errorf("%s: %v with the next page %q, want %s", resource, ids, next, want)
		}
	}
	if status, _ := i.call("POST", "/access/v1/search/resource", i.platform, ask(`{"type":"record"}`)); status != http.StatusBadRequest {
		t.Errorf("resources that no rule names answered %d, want 400", status)
	}
	for _, question := range []string{
		`{"subject":{"type":"user","id":"ada@example.com"},"action":{"name":"tools\u0000"},"resource":{"type":"tool"}}`,
		`{"subject":{"type":"user","id":"ada@example.com"},"action":{"name":"tools/call"},"resource":{"type":"tool"},"page":{"token":"\u0000"}}`,
	} {
		if status, _ := i.call("POST", "/access/v1/search/resource", i.platform, question); status != http.StatusBadRequest {
			t.Errorf("%s answered %d, want 400", question, status)
		}
	}
	i.deactivate(ada)
	if ids, _ := i.results("resource", ask(`{"type":"tool"}`)); len(ids) != 0 {
		t.Errorf("after the deactivation: %v, want none", ids)
	}
}

// TestSubjectSearch_AnswersWhoMayStill pages through more users than a page has.
func TestSubjectSearch_AnswersWhoMayStill(t *testing.T) {
	p := newPlatform(t)
	i := installAPI(t, withConnectors(p.connector()))
	want := make(map[string]bool)
	for n := range 105 {
		id := i.createUser(fmt.Sprintf("u%d@example.com", n))
		if want[id] = n%2 == 0; n%2 == 1 {
			i.deactivate(id)
		}
	}
	const question = `"subject":{"type":"user"},"action":{"name":"tools/list"},"resource":{"type":"mcp_server","id":"x"}`
	got, pages, next := make(map[string]bool), 0, ""
	for {
		var ids []string
		ids, next = i.results("subject", fmt.Sprintf(`{%s,"page":{"token":%q}}`, question, next))
		for _, id := range ids {
			if !want[id] || got[id] {
				t.Errorf("%s is listed, and may not act, or is listed twice", id)
			}
			got[id] = true
		}
		if pages++; next == "" {
			break
		}
	}
	if len(got) != 53 || pages != 2 {
		t.Errorf("%d users on %d pages, want 53 on 2", len(got), pages)
	}
	ada := i.createUser("ada@example.com")
	key := i.hold(p, ada, "", "key")
	owners := 0
	for next = ""; ; {
		var ids []string
		ids, next = i.results("subject", fmt.Sprintf(
			`{"subject":{"type":"user"},"action":{"name":"read"},"resource":{"type":"credential","id":%q},"page":{"token":%q}}`, key, next))
		for _, id := range ids {
			if owners++; id != ada {
				t.Errorf("%s may use a credential of another", id)
			}
		}
		if next == "" {
			break
		}
	}
	if owners != 1 {
		t.Errorf("%d users may use the credential, want its owner", owners)
	}
	for _, body := range []string{`{"subject":{"type":"identity"}}`, `{}`, `{` + question + `,"page":{"token":"x"}}`} {
		if status, _ := i.call("POST", "/access/v1/search/subject", i.platform, body); status != http.StatusBadRequest {
			t.Errorf("%s answered %d, want 400", body, status)
		}
	}
}
