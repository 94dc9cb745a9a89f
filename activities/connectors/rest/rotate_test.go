package rest_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/leaverhq/leaver/activities/connectors"
	"github.com/leaverhq/leaver/activities/connectors/contract"
)

// rotation are the operations by which the definition keys rotates.
const rotation = `  possess:
    request: {url: "{url}/self", headers: {X-Key: "{secret}"}}
    answers:
      - {when: status == 200 && body.id == key, means: alive}
      - {when: status == 200, means: unknown, reason: the secret is that of another key}
      - {when: status == 401, means: dead}
      - {when: status == 409, means: retry}
  renew:
    request: {method: POST, url: "{url}/keys", json: {name: "{rotation}", tier: "{tier}"}}
    answers:
      - {when: status == 201, means: done}
      - {when: status == 404 && body.code == 'no_project', means: gone}
    renewed: {reference: "[project, body.id]", secret: body.key}
  retire:
    request: {method: POST, url: "{url}/keys/{key}/retire"}
    answers: [{when: status == 204, means: done}]
`

// rotating returns a connector that rotates, at a server with one answer, and the last request that the server got.
func rotating(t *testing.T, status int, body string) (connectors.Connector, *http.Request) {
	t.Helper()
	t.Setenv("REST_TEST_SECRET", "admin-secret")
	last := &http.Request{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		*last = *r
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}))
	t.Cleanup(server.Close)
	d := parse(t, strings.Replace(keys, "settings:\n", "settings:\n  tier: {}\n", 1)+rotation)
	return connect(t, d, map[string]string{"url": server.URL, "token": adminSecret, "tier": "small"}), last
}

func TestGenerate_ReadsTheNewSecret(t *testing.T) {
	id := uuid.New()
	for name, c := range map[string]struct {
		status    int
		body      string
		outcome   connectors.Outcome // empty for an error
		permanent bool
	}{
		"created":              {201, `{"id":"k2","key":"new"}`, connectors.Done, false},
		"no such account":      {404, `{"code":"no_project"}`, connectors.Gone, false},
		"no secret":            {201, `{"id":"k2"}`, "", true},
		"no reference":         {201, `{"key":"` + contract.Canary + `"}`, "", true},
		"the old reference":    {201, `{"id":"k1","key":"new"}`, "", true},
		"a long reference":     {201, `{"id":"` + strings.Repeat("k", 600) + `","key":"new"}`, "", true},
		"an unexpected answer": {200, `{}`, "", true},
		"HTML":                 {200, `<html>`, "", true},
		"an outage":            {503, ``, "", false},
		"a lack of rights":     {403, `{}`, "", true},
	} {
		connector, _ := rotating(t, c.status, c.body)
		generator, _ := connectors.As[connectors.Generator](connector)
		made, err := generator.Generate(t.Context(), connectors.Target{Reference: "p/k1", Secret: "old", Rotation: id})
		switch {
		case c.outcome != "" && (err != nil || made.Outcome != c.outcome):
			t.Errorf("%s: %+v, %v; want %s", name, made, err, c.outcome)
		case c.outcome == connectors.Done && (made.Reference != "p/k2" || made.Secret.Reveal() != "new"):
			t.Errorf("%s: the new secret is %s at %q", name, made.Secret.Reveal(), made.Reference)
		case c.outcome == "" && (err == nil || connectors.IsPermanent(err) != c.permanent):
			t.Errorf("%s: %+v, %v; want an error, permanent %t", name, made, err, c.permanent)
		case c.outcome == "" && c.status/100 == 2 && !strings.Contains(err.Error(), id.String()):
			t.Errorf("%s: %v does not name the rotation", name, err)
		}
		if err != nil && strings.Contains(err.Error(), contract.Canary) {
			t.Errorf("%s: the error quotes the secret", name)
		}
	}
}

func TestRetire_EndsTheOldSecretByItsOwnOperation(t *testing.T) {
	connector, last := rotating(t, http.StatusNoContent, "")
	rotator, _ := connectors.As[connectors.Rotator](connector)
	answer, err := rotator.Retire(t.Context(), connectors.Target{Reference: "p/k1", NewReference: "p/k2"})
	if err != nil || answer.Outcome != connectors.Done || last.Method+" "+last.URL.Path != "POST /keys/k1/retire" {
		t.Errorf("%+v, %v after %s %s", answer, err, last.Method, last.URL)
	}
}

// TestPossesses_TakesNoStrangeAnswerForAnError answers a check of possession as servers do for odd secrets.
func TestPossesses_TakesNoStrangeAnswerForAnError(t *testing.T) {
	for name, c := range map[string]struct {
		status int
		body   string
		want   connectors.Vitality // empty for an error
	}{
		"the key":                {200, `{"id":"k1"}`, connectors.Alive},
		"another key":            {200, `{"id":"k2"}`, connectors.Unknown},
		"a wrong secret":         {401, `{}`, connectors.Dead},
		"a header too large":     {400, `<html>Request Header Or Cookie Too Large`, connectors.Unknown},
		"an answer of a gateway": {431, ``, connectors.Unknown},
		"an outage":              {503, ``, ""},
		"a rate limit":           {429, ``, ""},
		"a conflict":             {409, `{}`, ""},
		"an unexpected success":  {204, ``, ""},
	} {
		connector, _ := rotating(t, c.status, c.body)
		possession, _ := connectors.As[connectors.Possession](connector)
		got, detail, err := possession.Possesses(t.Context(), connectors.Target{Reference: "p/k1", Secret: "s"})
		if (err != nil) != (c.want == "") || err == nil && got != c.want || connectors.IsPermanent(err) {
			t.Errorf("%s: %s (%s), %v; want %q", name, got, detail, err, c.want)
		}
	}
}

func TestRotation_NeedsTheSettingsThatRenewNames(t *testing.T) {
	t.Setenv("REST_TEST_SECRET", "admin-secret")
	d := parse(t, strings.Replace(keys, "settings:\n", "settings:\n  tier: {}\n", 1)+rotation)
	shared := connectors.Registration{Kind: connectors.APIKey, Reference: "p/k1", HasSecret: true, Shared: true}
	for tier, want := range map[string]string{"": "without its setting tier", "small": ""} {
		c := connect(t, d, map[string]string{"url": "https://api.example.com", "token": adminSecret, "tier": tier})
		_, err := c.Accepts(shared)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("tier %q: %v, want %q", tier, err, want)
		}
		if _, rotates := connectors.As[connectors.Rotator](c); rotates != (want == "") {
			t.Errorf("tier %q: the connector rotates: %t", tier, rotates)
		}
	}
}
