package peers_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/leaverhq/leaver/scim"
)

// TestPeers_LeaverAnswersLikeElimity sends random requests that both support to leaver and to
// a provider with elimity-com/scim, and compares the responses.
func TestPeers_LeaverAnswersLikeElimity(t *testing.T) {
	l := newLeaver(t)
	us := httptest.NewServer(l)
	t.Cleanup(us.Close)
	other := httptest.NewServer(newElimity(t, newPeerPool(t, l.database.OwnerURL, l.database.AppURL)))
	t.Cleanup(other.Close)
	run := 0
	rapid.Check(t, func(t *rapid.T) {
		run++
		ours := peer{url: us.URL + scim.BasePath, token: l.token, ids: map[string]string{}}
		theirs := peer{url: other.URL + "/v2", ids: map[string]string{}}
		for range rapid.IntRange(1, 8).Draw(t, "requests") {
			name := fmt.Sprintf("%s-%d", rapid.SampledFrom([]string{"ada", "bob"}).Draw(t, "name"), run)
			r := drawRequest(t, name)
			if diff := cmp.Diff(theirs.do(t, name, r), ours.do(t, name, r)); diff != "" {
				t.Fatalf("%+v: the responses differ (-elimity +leaver):\n%s", r, diff)
			}
		}
	})
}

// request is a request that both support. {id} is a placeholder for the id of the named user.
type request struct{ method, path, body string }

func drawRequest(t *rapid.T, name string) request {
	title := rapid.SampledFrom([]string{"Countess", "Dr", "x"}).Draw(t, "title")
	active := rapid.Bool().Draw(t, "active")
	switch rapid.SampledFrom([]string{"create", "get", "find", "replace", "patch", "patch a path", "delete", "bad JSON", "nameless"}).Draw(t, "kind") {
	case "create":
		return request{"POST", "/Users", fmt.Sprintf(`{"schemas":["urn:ietf:params:scim:schemas:core:2.0:User"],"userName":%q,"title":%q,"active":%t}`, name, title, active)}
	case "get":
		return request{"GET", "/Users/{id}", ""}
	case "find":
		return request{"GET", "/Users?filter=" + url.QueryEscape(fmt.Sprintf("userName eq %q", name)), ""}
	case "replace":
		// With active: leaver keeps a deactivation that a PUT does not mention, and elimity does not.
		return request{"PUT", "/Users/{id}", fmt.Sprintf(`{"schemas":["urn:ietf:params:scim:schemas:core:2.0:User"],"userName":%q,"title":%q,"active":%t}`, name, title, active)}
	case "patch":
		return request{"PATCH", "/Users/{id}", patchBody(fmt.Sprintf(`{"op":"replace","value":{"title":%q,"active":%t}}`, title, active))}
	case "patch a path":
		return request{"PATCH", "/Users/{id}", patchBody(fmt.Sprintf(`{"op":"replace","path":"active","value":%t}`, active))}
	case "delete":
		return request{"DELETE", "/Users/{id}", ""}
	case "bad JSON":
		return request{"POST", "/Users", `{"userName":`}
	}
	return request{"POST", "/Users", `{"schemas":["urn:ietf:params:scim:schemas:core:2.0:User"],"title":"x"}`}
}

// peer is one of the two providers, with the ids that it assigned.
type peer struct {
	url, token string
	ids        map[string]string
}

// seen is the part of a response that must be equal for both.
type seen struct {
	Status   int
	ScimType string
	Total    any
	Users    []map[string]any
}

func (p peer) do(t *rapid.T, name string, r request) seen {
	id, ok := p.ids[name]
	if !ok {
		id = "00000000-0000-4000-8000-000000000000"
	}
	req, err := http.NewRequest(r.method, p.url+strings.ReplaceAll(r.path, "{id}", id), strings.NewReader(r.body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+p.token)
	req.Header.Set("Content-Type", "application/scim+json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	var body map[string]any
	_ = json.Unmarshal(raw, &body) // a response may have no body
	s := seen{Status: resp.StatusCode, Total: body["totalResults"]}
	s.ScimType, _ = body["scimType"].(string)
	users, _ := body["Resources"].([]any)
	if body["userName"] != nil {
		users = []any{body}
	}
	for _, u := range users {
		user := u.(map[string]any)
		s.Users = append(s.Users, map[string]any{"userName": user["userName"], "title": user["title"], "active": user["active"]})
	}
	switch {
	case r.method == "POST" && resp.StatusCode == http.StatusCreated:
		p.ids[name] = body["id"].(string)
	case r.method == "DELETE" && resp.StatusCode == http.StatusNoContent:
		delete(p.ids, name)
	}
	return s
}
