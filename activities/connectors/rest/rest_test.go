package rest_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	yaml "go.yaml.in/yaml/v3"
	"pgregory.net/rapid"

	"github.com/leaverhq/leaver/activities/connectors"
	"github.com/leaverhq/leaver/activities/connectors/contract"
	"github.com/leaverhq/leaver/activities/connectors/rest"
)

// keys is a definition with an operation of each kind.
const keys = `name: keys
title: An API of keys
kinds: [api_key]
reference: the project and the key
parts: [project, key]
settings:
  url: {required: true}
  token: {required: true, secret: true}
auth: {bearer: "{token}"}
operations:
  revoke:
    request: {method: DELETE, url: "{url}/projects/{project}/keys/{key}"}
    answers:
      - {when: status == 204, means: done}
      - {when: status == 404 && body.code == 'not_found', means: gone}
      - {when: status == 200 && body.result == 'ok', means: done}
      - {when: status == 403 && body.scope == 'missing', means: permanent, reason: the token lacks the scope keys.write}
      - {when: status == 409, means: retry, reason: the key is busy}
      - {when: status == 410, means: expires, reason: the key cannot be ended}
  probe:
    request: {url: "{url}/projects/{project}/keys/{key}"}
    answers:
      - {when: status == 200 && body.active, means: alive}
      - {when: status == 200 && !body.active, means: dead}
  discover:
    request: {url: "{url}/keys"}
    answers: [{when: status == 200, means: done}]
    found:
      kind: api_key
      items: body.keys
      when: item.enabled
      reference: "[item.project, item.id]"
      owner: item.owner
      expires: item.expires
      scopes: item.scopes
      next: body.next
      cursor: after
  check:
    request: {url: "{url}/me"}
    answers: [{when: status == 200, means: done}]
`

func parse(t testing.TB, text string) *rest.Definition {
	t.Helper()
	d, err := rest.Parse("keys.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func connect(t testing.TB, d *rest.Definition, settings map[string]string) *rest.Connector {
	t.Helper()
	c, err := rest.New(d, settings)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func keysAt(t *testing.T, url string) *rest.Connector {
	t.Helper()
	t.Setenv("REST_TEST_SECRET", "admin-secret")
	return connect(t, parse(t, keys), map[string]string{"url": url, "token": adminSecret})
}

func TestParse_ReportsEachMistakeWithItsPlace(t *testing.T) {
	replace := func(old, with string) string {
		if !strings.Contains(keys, old) {
			t.Fatalf("the definition has no %q", old)
		}
		return strings.Replace(keys, old, with, 1)
	}
	beforeRevoke, _, _ := strings.Cut(keys, "  revoke:")
	beforeProbe, fromProbe, _ := strings.Cut(keys, "  probe:")
	const (
		renew = "  renew:\n    request: {method: POST, url: \"{url}/keys\"}\n    answers: [{when: status == 201, means: done}]\n" +
			"    renewed: {reference: \"[project, body.id]\", secret: body.key}\n"
		possess = "  possess:\n    request: {url: \"{url}/self\", headers: {X-Key: \"{secret}\"}}\n" +
			"    answers: [{when: status == 200 && body.id == key, means: alive}]\n"
	)
	for name, c := range map[string]struct{ text, want string }{
		"not YAML":                     {"a: [", "keys.yaml:1:1: not valid YAML"},
		"empty":                        {"", "keys.yaml:1:1: the definition is empty"},
		"a list":                       {"- a", "keys.yaml:1:1: must be a mapping"},
		"an unknown member":            {replace("title:", "titel:"), `keys.yaml:2:1: unknown member "titel"`},
		"a member twice":               {replace("title: An API of keys", "title: a\ntitle: b"), "keys.yaml:3:1: title is given twice"},
		"an unknown kind":              {replace("[api_key]", "[key]"), "keys.yaml:3:9: kind must be one of"},
		"a bad name":                   {replace("name: keys", "name: Keys"), "name must be"},
		"an unknown operation":         {replace("  revoke:", "  delete:"), `keys.yaml:11:3: unknown operation "delete"`},
		"an unknown setting":           {replace("{token}", "{tokn}"), "keys.yaml:9:16: the template names {tokn}"},
		"a brace":                      {replace(`"{url}/me"`, `"{url}/{me"`), "a { without a }"},
		"an expression's syntax":       {replace("status == 204", "status ==="), "keys.yaml:14:"},
		"an expression's name":         {replace("status == 204", "code == 204"), "undeclared reference to 'code'"},
		"no condition":                 {replace("when: status == 204", "when: status"), "keys.yaml:14:16: the condition returns int"},
		"a meaning of others":          {replace("status == 204, means: done", "status == 204, means: alive"), "an answer of revoke means one of"},
		"no reason":                    {replace(", reason: the token lacks the scope keys.write", ""), "a permanent answer needs a reason"},
		"a status that does not exist": {replace("status == 409", "status == 40"), "keys.yaml:18:16: no answer can match status == 40 here"},
		"an answer behind another":     {replace("status == 409", "status == 204"), "no answer can match status == 204 here"},
		"a contradiction":              {replace("status == 409", "status == 204 && status == 409"), "no answer can match"},
		"a secret in the URL":          {replace("{url}/me", "{url}/{token}"), "a secret must not be in the URL"},
		"a query in the URL":           {replace("{url}/me", "{url}/me?a=b"), "write the query as query"},
		"a URL of nowhere":             {replace("{url}/me", "/me"), "the URL must begin with"},
		"a URL of http":                {replace(`"{url}/me"`, "http://example.com/me"), "the URL must begin with"},
		"a target without one":         {replace("{url}/me", "{url}/{key}"), "{key} has no value in this operation"},
		"a host of the reference's":    {replace("{url}/me", "{url}.{token}"), "a secret must not be in the URL"},
		"a setting that is a host":     {replace("{url}/keys", "{url}keys"), "a / must follow {url}"},
		"a token for each credential":  {replace(`auth: {bearer: "{token}"}`, `auth: {client_credentials: {token_url: "{url}/t", client_id: "{key}", client_secret: "{token}"}}`), "one access token for all credentials"},
		"a number that is no part":     {replace("parts: [project, key]", "parts: [project, key]\nnumbers: [id]"), "numbers and uuids are parts"},
		"two authentications":          {replace(`auth: {bearer: "{token}"}`, `auth: {bearer: "{token}", basic: {user: a, password: b}}`), "exactly one kind"},
		"half an authentication":       {replace(`auth: {bearer: "{token}"}`, `auth: {basic: {user: a}}`), "a member of the authentication is missing"},
		"a default of a secret":        {replace("{required: true, secret: true}", "{secret: true, default: x}"), "a secret has no default"},
		"a setting of all connectors":  {replace("  token: {", "  rate: {"), "keys.yaml:8:3: a setting is a name"},
		"pages in two ways":            {replace("cursor: after", "cursor: after\n      link: true"), "the next page is given by one of"},
		"no end of a kind":             {replace("kinds: [api_key]", "kinds: [api_key, scheduled_run]"), "an operation cancel is required"},
		"a second document":            {keys + "---\nname: other\n", "a second document begins here"},
		"no end":                       {beforeRevoke + "  probe:" + fromProbe, "an operation revoke or cancel is required"},
		"an alias":                     {replace("kinds: [api_key]", "kinds: &k [api_key]\nneeds: *k"), "aliases are not supported"},
		"a part that is a setting":     {replace("parts: [project, key]", "parts: [url, key]"), "url is both a setting and a part"},
		"another kind in discovery":    {replace("      kind: api_key", "      kind: session"), "kind must be one of the definition's kinds"},
		"done whatever the answer is":  {replace("status == 204, means: done", "\"true\", means: done"), "which cannot mean done"},
		"a success of the server's":    {replace("status == 204, means: done", "status >= 200, means: done"), "which cannot mean done"},
		"a page that is no parameter":  {replace("next: body.next\n      cursor: after", "page: true"), "are names of query parameters"},
		"a list of expressions":        {replace("\"[item.project, item.id]\"", "[item.project, item.id]"), "must be an expression: quote it"},
		"an unquoted comma":            {replace("status == 204, means: done", "body.exists(x, x == 1), means: done"), "quote the expression if it has a comma"},
		"a token of one request":       {replace(`request: {url: "{url}/me"}`, `request: {url: "{url}/me", auth: {client_credentials: {token_url: "{url}/t", client_id: a, client_secret: "{token}"}}}`), "cannot request an access token"},
		"a header without a name":      {replace(`auth: {bearer: "{token}"}`, `auth: {header: {value: "{token}"}}`), "name must be the name of a header"},
		"a header that is none":        {replace(`request: {url: "{url}/me"}`, `request: {url: "{url}/me", headers: {"X Y": a}}`), "is not the name of a header"},
		"a batch of one":               {replace("  revoke:\n", "  revoke:\n    batch: 1\n"), "keys.yaml:12:12: batch is a number of credentials from 2 to 1000"},
		"a batch of URLs":              {replace("  revoke:\n", "  revoke:\n    batch: 9\n"), "are allowed in json only"},
		"a batch without a list":       {replace(`DELETE, url: "{url}/projects/{project}/keys/{key}"`, `POST, url: "{url}/end", json: {key: "{key}"}}`+"\n    batch: 9\n    #"), "json has one list of one element"},
		"a batch of two lists":         {replace(`DELETE, url: "{url}/projects/{project}/keys/{key}"`, `POST, url: "{url}/end", json: {keys: ["{key}"], projects: ["{project}"]}}`+"\n    batch: 9\n    #"), "json has one list of one element"},
		"each without a batch":         {replace("  revoke:\n", "  revoke:\n    each: {items: body.keys, reference: item.id}\n"), "each is for an operation with batch"},
		"each without a reference":     {replace("  revoke:\n", "  revoke:\n    each: {items: body.keys}\n"), "items and reference are required"},
		"an issue without issued":      {replace("  check:\n", "  issue:\n"), "issued for issue"},
		"a remove without issue":       {replace("  check:\n", "  remove:\n"), "remove is for what issue has created"},
		"an issue of one credential":   {replace("  check:\n    request: {url: \"{url}/me\"}", "  issue:\n    issued: {kind: api_key, reference: body.id}\n    request: {url: \"{url}/{key}\"}"), "{key} has no value in this operation"},
		"an issue of another kind":     {replace("  check:\n", "  issue:\n    issued: {kind: session, reference: body.id}\n"), "kind must be one of the definition's kinds"},
		"a jwt without a key":          {replace(`auth: {bearer: "{token}"}`, `auth: {jwt: {issuer: a}}`), "issuer and key are required"},
		"a jwt of each credential":     {replace(`auth: {bearer: "{token}"}`, `auth: {jwt: {issuer: "{key}", key: "{token}"}}`), "one access token for all credentials"},
		"an exchange with a secret":    {replace(`auth: {bearer: "{token}"}`, `auth: {jwt: {issuer: a, key: "{token}", exchange: "{url}/{token}"}}`), "a secret must not be in the URL"},
		"an unknown format":            {replace("{url}/me", "{url:hex}/me"), `unknown format "hex": use int, path, sql or soql`},
		"each that is not looked at":   {strings.Replace(endsEach, "item.code == 'not_found'", "body.code == 'not_found'", 1), "an answer that means gone must use item"},
		"each of one credential":       {strings.Replace(endsEach, "[item.project,", "[project,", 1), "undeclared reference to 'project'"},
		"lookup without {principal} in discover": {
			keys + "  lookup:\n    request: {url: \"{url}/users\", query: {email: \"{principal}\"}}\n" +
				"    answers: [{when: status == 200, means: done}]\n    id: body.id\n",
			"lookup is for a discover whose request has {principal}",
		},
		"lookup without id":        {replace("  check:\n", "  lookup:\n"), "id for lookup"},
		"renew without possess":    {keys + renew, "renew needs possess and revoke"},
		"possess without {secret}": {keys + strings.Replace(possess, "{secret}", "{key}", 1), "possess must send {secret}"},
		"renew with {secret}":      {keys + possess + strings.Replace(renew, "/keys\"", "/keys\", headers: {X-Key: \"{secret}\"}", 1), "{secret} has no value in this operation"},
		"renewed without secret":   {keys + possess + strings.Replace(renew, ", secret: body.key", "", 1), "reference and secret are required"},
		"renew without renewed":    {keys + possess + strings.Replace(renew, "    renewed:", "    issued:", 1), `unknown member "issued"`},
		"retire without renew":     {replace("  check:\n", "  retire:\n"), "retire ends what renew has replaced"},
		"revoke by {secret} with renew": {
			replace(`request: {method: DELETE, url: "{url}/projects/{project}/keys/{key}"}`, `request: {method: POST, url: "{url}/end", form: {key: "{secret}"}}`) +
				possess + renew, "with renew, revoke must not send {secret}",
		},
		"renew without the kind of an account": {
			strings.ReplaceAll(keys, "api_key", "session") + possess + renew, "renew needs one of the kinds",
		},
		"settles without a probe":   {strings.Replace(beforeProbe, "  revoke:\n", "  revoke:\n    settles: 1m\n", 1), "settles needs a probe"},
		"a probe in batches":        {replace("  probe:\n", "  probe:\n    batch: 9\n"), `unknown member "batch"`},
		"an end that never settles": {replace("  revoke:\n", "  revoke:\n    settles: 2h\n"), "must be a duration of at most 1h0m0s"},
		"a path in a query":         {replace(`request: {url: "{url}/me"}`, `request: {url: "{url}/me", query: {a: "{url:path}"}}`), "are for JSON bodies"},
		"too long":                  {keys + strings.Repeat("# x\n", 20_000), "at most 64 KiB"},
	} {
		_, err := rest.Parse("keys.yaml", []byte(c.text))
		var mistake *rest.Error
		if !errors.As(err, &mistake) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

func TestNew_RefusesInvalidSettings(t *testing.T) {
	t.Setenv("REST_TEST_SECRET", "admin-secret")
	d := parse(t, keys)
	for name, c := range map[string]struct {
		settings map[string]string
		want     string // empty for none
	}{
		"https":              {map[string]string{"url": "https://api.example.com", "token": adminSecret}, ""},
		"http on loopback":   {map[string]string{"url": "http://127.0.0.1:1", "token": adminSecret}, ""},
		"http":               {map[string]string{"url": "http://api.example.com", "token": adminSecret}, "url must use https"},
		"http that is meant": {map[string]string{"url": "http://api.example.com", "token": adminSecret, "allow_http": "true"}, ""},
		"no address":         {map[string]string{"token": adminSecret}, "url is required"},
		"a relative address": {map[string]string{"url": "api", "token": adminSecret}, "url must be an absolute URL"},
		"a user":             {map[string]string{"url": "https://a:b@example.com", "token": adminSecret}, "url must be an absolute URL"},
		"a literal secret":   {map[string]string{"url": "https://api.example.com", "token": "s3cr3t"}, "token: a secret must be set by reference"},
		"no such variable":   {map[string]string{"url": "https://api.example.com", "token": "env:REST_NO"}, "REST_NO is not set"},
	} {
		_, err := rest.New(d, c.settings)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
		if err != nil && strings.Contains(err.Error(), "s3cr3t") {
			t.Errorf("%s: the error quotes the secret", name)
		}
	}
}

func TestNew_RefusesInvalidKeys(t *testing.T) {
	d := parse(t, strings.Replace(keys, `auth: {bearer: "{token}"}`,
		`auth: {jwt_bearer: {token_url: "https://auth.example.com/token", issuer: a, key: "{token}"}}`, 1))
	for key, want := range map[string]string{
		testKey(t): "", "no PEM": "must be in PEM",
		"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n": "must be an RSA private key",
	} {
		_, err := rest.New(d, map[string]string{"url": "https://api.example.com", "token": secretFile(t, key)})
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

// answering returns the address of a server that gives one answer.
func answering(t *testing.T, status int, header http.Header, body string) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		for name, values := range header {
			w.Header()[name] = values
		}
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body))
	}))
	t.Cleanup(server.Close)
	return server.URL
}

func TestRevoke_ReadsAnswersByTheDefinition(t *testing.T) {
	target := connectors.Target{Kind: connectors.APIKey, Reference: "p1/k1", Secret: contract.Canary}
	limit := http.Header{"X-Ratelimit-Remaining": {"0"}, "X-Ratelimit-Reset": {fmt.Sprint(time.Now().Add(time.Minute).Unix())}}
	for name, c := range map[string]struct {
		status    int
		header    http.Header
		body      string
		want      connectors.Outcome
		permanent bool
		waits     bool
	}{
		"done":                              {status: 204, want: connectors.Done},
		"gone":                              {status: 404, body: `{"code":"not_found"}`, want: connectors.Gone},
		"a 404 of a proxy":                  {status: 404, body: `{"message":"no route"}`},
		"a 404 without a body":              {status: 404},
		"a 404 in plain text":               {status: 404, header: http.Header{"Content-Type": {"text/plain"}}, body: "404 page not found"},
		"done in the body":                  {status: 200, body: `{"result":"ok"}`, want: connectors.Done},
		"an error in a 200":                 {status: 200, body: `{"result":"error"}`},
		"a 200 without a body":              {status: 200},
		"HTML":                              {status: 204, header: http.Header{"Content-Type": {"text/html"}}, body: ""},
		"HTML of a wrong type":              {status: 200, body: "<html>result: ok</html>"},
		"truncated JSON":                    {status: 200, body: `{"result":"ok"`},
		"a list":                            {status: 200, body: `[{"result":"ok"}]`},
		"a scope":                           {status: 403, body: `{"scope":"missing"}`, permanent: true},
		"a 403 that is not known":           {status: 403, body: `{}`, permanent: true},
		"a 401":                             {status: 401, permanent: true},
		"busy":                              {status: 409, header: http.Header{"Retry-After": {"7"}}, waits: true},
		"cannot be ended, expiry not known": {status: 410, permanent: true},
		"throttled":                         {status: 429, header: http.Header{"Retry-After": {"7"}}, waits: true},
		"throttled by a reset":              {status: 403, header: limit, body: `{"scope":"missing"}`, waits: true},
		"500":                               {status: 500, body: contract.Canary},
		"400 that echoes the secret":        {status: 400, body: `{"error":"` + contract.Canary + `"}`},
		"a redirect":                        {status: 302, header: http.Header{"Location": {"http://169.254.169.254/"}}, permanent: true},
		"10 MB":                             {status: 200, body: strings.Repeat("x", 10<<20)},
	} {
		t.Run(name, func(t *testing.T) {
			a := contract.Answer{Status: c.status, Header: c.header, Body: c.body, Outcome: c.want, Permanent: c.permanent, RetryAfter: c.waits}
			c := keysAt(t, answering(t, a.Status, a.Header, a.Body))
			answer, err := c.Revoke(t.Context(), target)
			switch {
			case a.Outcome != "" && (err != nil || answer.Outcome != a.Outcome):
				t.Errorf("%+v, %v; want %s", answer, err, a.Outcome)
			case a.Outcome == "" && (err == nil || connectors.IsPermanent(err) != a.Permanent || (connectors.RetryAfter(err) > 0) != a.RetryAfter):
				t.Errorf("%+v, %v; permanent %t, want %t; waits %v, want %t", answer, err,
					connectors.IsPermanent(err), a.Permanent, connectors.RetryAfter(err), a.RetryAfter)
			}
			if err != nil {
				contract.NoSecret(t, err, target)
			}
		})
	}
}

func TestRevoke_NetworkFaultsAreRetryable(t *testing.T) {
	target := connectors.Target{Kind: connectors.APIKey, Reference: "p1/k1"}
	contract.RunFaults(t, target, func(ctx context.Context, address string) error {
		_, err := keysAt(t, "http://"+address).Revoke(ctx, target)
		return err
	})
}

func TestRevoke_ExpiresIfTheExpiryIsKnown(t *testing.T) {
	at := time.Now().Add(time.Hour)
	answer, err := keysAt(t, answering(t, 410, nil, `{}`)).Revoke(t.Context(),
		connectors.Target{Kind: connectors.APIKey, Reference: "p1/k1", ExpiresAt: &at})
	if err != nil || answer.Outcome != connectors.Expires || !strings.Contains(answer.Detail, at.UTC().Format(time.RFC3339)) {
		t.Errorf("%+v, %v", answer, err)
	}
}

// TestRequest_EncodesEachPartOfAReference is a property: whatever a reference is, the request goes to the host and
// the route of the definition, with the parts as they were registered.
func TestRequest_EncodesEachPartOfAReference(t *testing.T) {
	t.Setenv("REST_TEST_SECRET", "admin-secret")
	paths := make(chan string, 1)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		paths <- r.RequestURI
		w.WriteHeader(http.StatusNoContent)
	}))
	defer server.Close()
	c := connect(t, parse(t, keys), map[string]string{"url": server.URL + "/base/", "token": adminSecret})
	steps := regexp.MustCompile(`(^|[/\\])\.{1,2}($|[/\\])`)
	hostile := rapid.OneOf(rapid.String(), rapid.SampledFrom([]string{
		"/", "..", ".", "%2F", "..%2f..", "a/b", "?x=y", "#f", "\n", "\"", "'", "@evil.example.com", "\\..\\", ";", "//evil.example.com",
		"1/../../projects/42", "a/./b", "..a", "a..b",
	}))
	rapid.Check(t, func(t *rapid.T) {
		project, key := hostile.Draw(t, "project"), hostile.Draw(t, "key")
		reference := url.PathEscape(project) + "/" + url.PathEscape(key)
		refused := project == "" || key == "" || steps.MatchString(project) || steps.MatchString(key)
		accepted, err := c.Accepts(connectors.Registration{Kind: connectors.APIKey, Reference: reference})
		if (err != nil) != refused {
			t.Fatalf("Accepts(%q) returned %q, %v", reference, accepted, err)
		}
		answer, err := c.Revoke(t.Context(), connectors.Target{Kind: connectors.APIKey, Reference: reference})
		if refused {
			if !connectors.IsPermanent(err) {
				t.Fatalf("%q: %+v, %v", reference, answer, err)
			}
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		segments := strings.Split(<-paths, "/")
		if len(segments) != 6 || segments[1] != "base" || segments[2] != "projects" || segments[4] != "keys" {
			t.Fatalf("%q was requested as %q", reference, segments)
		}
		for i, want := range map[int]string{3: project, 5: key} {
			if got, err := url.PathUnescape(segments[i]); err != nil || got != want {
				t.Fatalf("the part %q was requested as %q", want, segments[i])
			}
		}
	})
}

// TestRequest_QuotesATextInAQuery is a property: whatever a reference is, it stays one literal of the query.
func TestRequest_QuotesATextInAQuery(t *testing.T) {
	all, err := rest.Load("")
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("REST_TEST_SECRET", "admin-secret")
	queries := make(chan string, 1)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/services/oauth2/token" {
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, `{"access_token":"t1","token_type":"Bearer"}`)
			return
		}
		queries <- r.URL.Query().Get("q")
		_, _ = io.WriteString(w, `{"totalSize":0}`)
	}))
	defer server.Close()
	c := connect(t, all["salesforce-tokens"], map[string]string{
		"url": server.URL, "client_id": "c", "client_secret": adminSecret,
	})
	literal := regexp.MustCompile(`^SELECT DeleteToken FROM OauthToken WHERE DeleteToken = '((?:[^'\\]|\\['\\])*)'$`)
	rapid.Check(t, func(t *rapid.T) {
		reference := rapid.OneOf(rapid.String(), rapid.StringMatching(`[\\'a]{1,6}`)).Draw(t, "reference")
		if _, err := c.Accepts(connectors.Registration{Kind: connectors.RefreshToken, Reference: reference}); err != nil {
			return
		}
		if _, _, err := c.Probe(t.Context(), connectors.Target{Kind: connectors.RefreshToken, Reference: reference}); err != nil {
			t.Fatal(err)
		}
		query := <-queries
		match := literal.FindStringSubmatch(query)
		if match == nil || strings.NewReplacer(`\\`, `\`, `\'`, `'`).Replace(match[1]) != reference {
			t.Fatalf("%q was asked as %q", reference, query)
		}
	})
}

// TestCapabilities_AreThoseOfTheOperations checks what the activities see.
func TestCapabilities_AreThoseOfTheOperations(t *testing.T) {
	c := keysAt(t, "http://127.0.0.1:1")
	_, revokes := connectors.As[connectors.Revoker](c)
	_, cancels := connectors.As[connectors.Canceller](c)
	_, verifies := connectors.As[connectors.Verifier](c)
	_, proves := connectors.As[connectors.Prover](c)
	_, blocks := connectors.As[connectors.Blocker](c)
	_, lists := connectors.As[connectors.Discoverer](c)
	_, checks := connectors.As[connectors.Checker](c)
	got, want := []bool{revokes, cancels, verifies, proves, blocks, lists, checks}, []bool{true, false, true, false, false, true, true}
	if !cmp.Equal(got, want) {
		t.Errorf("revokes, cancels, verifies, proves, blocks, lists, checks: %v, want %v", got, want)
	}
}

func TestAccepts_RefusesWhatTheDefinitionCannotEnd(t *testing.T) {
	c := keysAt(t, "http://127.0.0.1:1")
	for name, r := range map[string]connectors.Registration{
		"another kind": {Kind: connectors.RefreshToken, Reference: "p/k"}, "one part": {Kind: connectors.APIKey, Reference: "p"},
		"three parts": {Kind: connectors.APIKey, Reference: "p/k/x"}, "a shared key": {Kind: connectors.APIKey, Reference: "p/k", Shared: true},
		"a bad escape": {Kind: connectors.APIKey, Reference: "p/%zz"},
	} {
		if got, err := c.Accepts(r); err == nil {
			t.Errorf("%s: accepted as %q", name, got)
		}
	}
}

// pages is a list of keys of two pages.
func pages(t *testing.T, next func(r *http.Request) string) (address string, requests func() int) {
	t.Helper()
	n := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n++
		w.Header().Set("Content-Type", "application/json")
		_, _ = fmt.Fprintf(w, `{"next":%q,"keys":[
			{"project":"p 1","id":"k%d","owner":"Ada@Example.com","enabled":true,"expires":"2030-01-02T03:04:05Z","scopes":["a","b"]},
			{"project":"p","id":"off","owner":"ada@example.com","enabled":false},
			{"project":"p","id":"bobs","owner":"bob@example.com","enabled":true},
			{"id":"broken","owner":"ada@example.com","enabled":true}]}`, next(r), n)
	}))
	t.Cleanup(server.Close)
	return server.URL, func() int { return n }
}

func TestDiscover_ReadsAllPagesOfTheOwners(t *testing.T) {
	address, _ := pages(t, func(r *http.Request) string {
		return map[string]string{"": "2", "2": ""}[r.URL.Query().Get("after")]
	})
	ada := connectors.Principal{ID: uuid.New(), Names: []string{"ada@example.com"}}
	found, err := keysAt(t, address).Discover(t.Context(), []connectors.Principal{ada})
	if err != nil {
		t.Fatal(err)
	}
	expires := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	want := []connectors.Found{
		{
			Kind: connectors.APIKey, Reference: "p%201/k1", Principal: ada.ID, Named: true,
			Scopes: []string{"a", "b"}, ExpiresAt: &expires,
		},
		{
			Kind: connectors.APIKey, Reference: "p%201/k2", Principal: ada.ID, Named: true,
			Scopes: []string{"a", "b"}, ExpiresAt: &expires,
		},
	}
	if diff := cmp.Diff(want, found); diff != "" {
		t.Error(diff)
	}
}

func TestDiscover_ReportsAReferenceWithOtherParts(t *testing.T) {
	t.Setenv("REST_TEST_SECRET", "admin-secret")
	address, _ := pages(t, func(*http.Request) string { return "" })
	text := strings.Replace(keys, `"[item.project, item.id]"`, "item.id", 1)
	c := connect(t, parse(t, text), map[string]string{"url": address, "token": adminSecret})
	_, err := c.Discover(t.Context(), []connectors.Principal{{ID: uuid.New(), Names: []string{"bob@example.com"}}})
	if !connectors.IsPermanent(err) || !strings.Contains(err.Error(), "project/key") {
		t.Errorf("%v, want a permanent error with the parts", err)
	}
}

func TestDiscover_ReportsAReferenceOfOtherTypes(t *testing.T) {
	t.Setenv("REST_TEST_SECRET", "admin-secret")
	address, _ := pages(t, func(*http.Request) string { return "" })
	text := strings.Replace(keys, `"[item.project, item.id]"`, `"[item.project, item.id + 1]"`, 1)
	c := connect(t, parse(t, text), map[string]string{"url": address, "token": adminSecret})
	_, err := c.Discover(t.Context(), []connectors.Principal{{ID: uuid.New(), Names: []string{"bob@example.com"}}})
	if !connectors.IsPermanent(err) || !strings.Contains(err.Error(), "line 32") {
		t.Errorf("%v, want a permanent error with the line", err)
	}
}

func TestDiscover_EndsIfAPageRepeats(t *testing.T) {
	address, requests := pages(t, func(*http.Request) string { return "again" })
	_, err := keysAt(t, address).Discover(t.Context(), []connectors.Principal{{ID: uuid.New()}})
	if !connectors.IsPermanent(err) || requests() > 3 {
		t.Errorf("after %d requests: %v", requests(), err)
	}
}

func TestDiscover_FollowsNoLinkToAnotherHost(t *testing.T) {
	text := strings.Replace(keys, "next: body.next\n      cursor: after", "next_url: body.next", 1)
	t.Setenv("REST_TEST_SECRET", "admin-secret")
	address, _ := pages(t, func(*http.Request) string { return "http://127.0.0.2:1/keys" })
	c := connect(t, parse(t, text), map[string]string{"url": address, "token": adminSecret})
	_, err := c.Discover(t.Context(), []connectors.Principal{{ID: uuid.New()}})
	if !connectors.IsPermanent(err) || !strings.Contains(err.Error(), "another host") {
		t.Errorf("%v, want a permanent error", err)
	}
}

// TestToken_OfTheConnectorIsRequestedAgain lets the connector's own access token be revoked between two attempts.
func TestToken_OfTheConnectorIsRequestedAgain(t *testing.T) {
	issued, valid, refuses := 0, "", false
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		switch {
		case r.URL.Path == "/token" && refuses:
			w.WriteHeader(http.StatusBadRequest)
			_, _ = fmt.Fprint(w, `{"error":"invalid_scope","error_description":"admin-secret"}`)
		case r.URL.Path == "/token":
			issued++
			valid = fmt.Sprintf("t%d", issued)
			_, _ = fmt.Fprintf(w, `{"access_token":%q,"token_type":"Bearer","expires_in":3600}`, valid)
		case r.Header.Get("Authorization") != "Bearer "+valid:
			w.WriteHeader(http.StatusUnauthorized)
		default:
			w.WriteHeader(http.StatusNoContent)
		}
	}))
	defer server.Close()
	t.Setenv("REST_TEST_SECRET", "admin-secret")
	text := strings.Replace(keys, `auth: {bearer: "{token}"}`,
		`auth: {client_credentials: {token_url: "{url}/token", client_id: c, client_secret: "{token}", scopes: keys.write}}`, 1)
	c := connect(t, parse(t, text), map[string]string{"url": server.URL, "token": adminSecret})
	target := connectors.Target{Kind: connectors.APIKey, Reference: "p/k"}
	for range 2 {
		if _, err := c.Revoke(t.Context(), target); err != nil || issued != 1 {
			t.Fatalf("%v after %d tokens", err, issued)
		}
	}
	valid = "revoked"
	_, err := c.Revoke(t.Context(), target)
	if err == nil || !strings.Contains(err.Error(), "check its client and its rights") {
		t.Errorf("a fresh token that is refused: %v", err)
	}
	if _, err := c.Revoke(t.Context(), target); err != nil || issued != 2 {
		t.Errorf("the next attempt: %v after %d tokens", err, issued)
	}
	valid, refuses = "revoked", true
	_, _ = c.Revoke(t.Context(), target)
	_, err = c.Revoke(t.Context(), target)
	if !connectors.IsPermanent(err) || !strings.Contains(err.Error(), "invalid_scope") || strings.Contains(err.Error(), "admin-secret") {
		t.Errorf("a refused token request: %v", err)
	}
}

// TestProbe_OfAnAnswerIsNeverGuessed is a property: whatever a downstream answers, a probe is alive or dead only
// by an answer of the definition.
func TestProbe_OfAnAnswerIsNeverGuessed(t *testing.T) {
	var status int
	var body string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body))
	}))
	defer server.Close()
	c := keysAt(t, server.URL)
	target := connectors.Target{Kind: connectors.APIKey, Reference: "p/k"}
	rapid.Check(t, func(t *rapid.T) {
		status = rapid.SampledFrom([]int{200, 201, 202, 400, 401, 403, 404, 409, 410, 422, 429, 500, 503}).Draw(t, "status")
		body = rapid.SampledFrom([]string{
			``, `null`, `{}`, `[]`, `{"active":true}`, `{"active":false}`, `{"active":"true"}`, `{"active":null}`, `true`, `<html>`, `{"active":true`,
		}).Draw(t, "body")
		vitality, _, err := c.Probe(t.Context(), target)
		want := connectors.Unknown
		switch {
		case status == 200 && body == `{"active":true}`:
			want = connectors.Alive
		case status == 200 && body == `{"active":false}`:
			want = connectors.Dead
		}
		if vitality != want || (err == nil) != (want != connectors.Unknown) {
			t.Fatalf("%d %s: %s, %v; want %s", status, body, vitality, err, want)
		}
	})
}

// TestProbe_UnhandledAnswerIsNotAnEnd is about conditions that do not ask for the status: what a proxy or an
// overloaded server answers has the body that means an end.
func TestProbe_UnhandledAnswerIsNotAnEnd(t *testing.T) {
	text := strings.NewReplacer("status == 200 && !body.active, means: dead", `"!body.active", means: dead`,
		"status == 404 && body.code == 'not_found'", "body.code == 'not_found'").Replace(keys)
	t.Setenv("REST_TEST_SECRET", "admin-secret")
	for _, status := range []int{302, 429, 500, 503} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(status)
			_, _ = io.WriteString(w, `{"active":false,"code":"not_found"}`)
		}))
		c := connect(t, parse(t, text), map[string]string{"url": server.URL, "token": adminSecret})
		target := connectors.Target{Kind: connectors.APIKey, Reference: "p/k"}
		if vitality, _, err := c.Probe(t.Context(), target); vitality != connectors.Unknown || err == nil {
			t.Errorf("%d: the probe saw %s, %v", status, vitality, err)
		}
		if answer, err := c.Revoke(t.Context(), target); err == nil {
			t.Errorf("%d: the end is %+v", status, answer)
		}
		server.Close()
	}
}

// TestProbe_CostLimitIsPermanent lists the key after so many others that the condition which looks for it is not evaluated
// to its end.
func TestProbe_CostLimitIsPermanent(t *testing.T) {
	text := strings.NewReplacer("status == 200 && body.active, means: alive", `"status == 200 && body.exists(k, k.id == key)", means: alive`,
		"status == 200 && !body.active", "status == 200").Replace(keys)
	t.Setenv("REST_TEST_SECRET", "admin-secret")
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, "["+strings.Repeat(`{"id":"x"},`, 150_000)+`{"id":"k"}]`)
	}))
	defer server.Close()
	c := connect(t, parse(t, text), map[string]string{"url": server.URL, "token": adminSecret})
	vitality, _, err := c.Probe(t.Context(), connectors.Target{Kind: connectors.APIKey, Reference: "p/k"})
	if vitality != connectors.Unknown || !connectors.IsPermanent(err) {
		t.Errorf("the probe saw %s, %v", vitality, err)
	}
}

// TestRevoke_SecondaryRateLimitIsRetried answers as GitHub does to too many requests in a short time.
func TestRevoke_SecondaryRateLimitIsRetried(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Retry-After", "60")
		w.WriteHeader(http.StatusForbidden)
		_, _ = io.WriteString(w, `{"scope":"missing","message":"You have exceeded a secondary rate limit."}`)
	}))
	defer server.Close()
	_, err := keysAt(t, server.URL).Revoke(t.Context(), connectors.Target{Kind: connectors.APIKey, Reference: "p/k"})
	if err == nil || connectors.IsPermanent(err) || connectors.RetryAfter(err) != time.Minute {
		t.Errorf("%v after %s, want an error to retry after a minute", err, connectors.RetryAfter(err))
	}
}

// TestDiscover_CountsPagesFromTheRequests lists an API whose first page is 0, and whose ids no float64 has.
func TestDiscover_CountsPagesFromTheRequests(t *testing.T) {
	text := strings.NewReplacer("next: body.next\n      cursor: after", "page: number",
		`request: {url: "{url}/keys"}`, `request: {url: "{url}/keys", query: {number: "0"}}`).Replace(keys)
	t.Setenv("REST_TEST_SECRET", "admin-secret")
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		n, _ := strconv.Atoi(r.URL.Query().Get("number"))
		if n > 2 {
			_, _ = io.WriteString(w, `{"keys":[]}`)
			return
		}
		_, _ = fmt.Fprintf(w, `{"keys":[{"project":"p","id":%d,"owner":"ada@example.com","enabled":true}]}`, 9007199254740993+n)
	}))
	defer server.Close()
	c := connect(t, parse(t, text), map[string]string{"url": server.URL, "token": adminSecret})
	found, err := c.Discover(t.Context(), []connectors.Principal{ada})
	var references []string
	for _, f := range found {
		references = append(references, f.Reference)
	}
	if want := []string{"p/9007199254740993", "p/9007199254740994", "p/9007199254740995"}; err != nil || !slices.Equal(references, want) {
		t.Errorf("found %v, %v, want %v", references, err, want)
	}
}

func TestExample_IsAccepted(t *testing.T) {
	all, err := rest.Load("")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range all.Names() {
		var example struct{ Connectors []map[string]any }
		if err := yaml.Unmarshal([]byte(all[name].Example()), &example); err != nil || len(example.Connectors) != 1 {
			t.Fatalf("the example of %s: %v\n%s", name, err, all[name].Example())
		}
		settings := make(map[string]string)
		for setting, value := range example.Connectors[0] {
			text, _ := value.(string)
			if secret, ok := strings.CutPrefix(text, "env:"); ok {
				t.Setenv(secret, testKey(t)) // a key is a secret for every kind of authentication
			}
			settings[setting] = text
		}
		if settings["type"] != name {
			t.Errorf("the example of %s has the type %s", name, settings["type"])
		}
		if _, err := rest.New(all[name], settings); err != nil {
			t.Errorf("the example of %s: %v", name, err)
		}
	}
}

// TestExample_OfTheDocumentsIsValid reads the first YAML block of docs/DEFINITIONS.md.
func TestExample_OfTheDocumentsIsValid(t *testing.T) {
	if d := parse(t, documented(t)[0]); !cmp.Equal(d.Operations(), []string{"revoke", "probe"}) {
		t.Errorf("the example can %v", d.Operations())
	}
}

// TestExample_OfTheDocumentsTakesTheOperationsThatFollow adds the later YAML blocks that have operations.
func TestExample_OfTheDocumentsTakesTheOperationsThatFollow(t *testing.T) {
	blocks := documented(t)
	head, probe, _ := strings.Cut(blocks[0], "  probe:\n")
	head, _, _ = strings.Cut(head, "  revoke:\n")
	text := strings.Replace(head, "settings:\n", "settings:\n  drill_project: {}\n", 1) + "  probe:\n" + probe
	for _, block := range blocks[1:] {
		if strings.HasPrefix(block, "  ") {
			text += block
		}
	}
	want := []string{"revoke", "possess", "renew", "block", "unblock", "probe", "lookup", "discover", "issue", "remove"}
	if d := parse(t, text); !cmp.Equal(d.Operations(), want) {
		t.Errorf("the examples can %v, want %v", d.Operations(), want)
	}
}

// documented returns the YAML blocks of docs/DEFINITIONS.md.
func documented(t *testing.T) []string {
	t.Helper()
	raw, err := os.ReadFile("../../../docs/DEFINITIONS.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := strings.Split(string(raw), "```yaml\n")[1:]
	for i := range blocks {
		block, _, ok := strings.Cut(blocks[i], "```")
		if !ok {
			t.Fatalf("YAML block %d has no end", i+1)
		}
		blocks[i] = block
	}
	if len(blocks) == 0 {
		t.Fatal("the document has no YAML block")
	}
	return blocks
}

// TestPossession_NeedsTheSecretInTheEnd checks that a secret that is only probed proves nothing about the credential
// that the reference names.
func TestPossession_NeedsTheSecretInTheEnd(t *testing.T) {
	t.Setenv("REST_TEST_SECRET", "admin-secret")
	probe := `request: {url: "{url}/projects/{project}/keys/{key}"}
    answers:
      - {when: status == 200 && body.active, means: alive}`
	both := strings.Replace(keys, `request: {method: DELETE, url: "{url}/projects/{project}/keys/{key}"}`,
		`request: {method: POST, url: "{url}/revoke", form: {token: "{secret}"}}`, 1)
	for name, c := range map[string]struct {
		text string
		want bool
	}{
		"no secret": {keys, false}, "the probe's only": {keys, false}, "the end's, too": {both, true},
	} {
		if name != "no secret" {
			c.text = strings.Replace(c.text, probe, strings.Replace(probe, `{url: `, `{headers: {X-Key: "{secret}"}, url: `, 1), 1)
		}
		connector := connect(t, parse(t, c.text), map[string]string{"url": "https://api.example.com", "token": adminSecret})
		if _, got := connectors.As[connectors.Possession](connector); got != c.want {
			t.Errorf("%s: possession is %t", name, got)
		}
	}
}

// TestDownstream_IsOneForEachAddressAndScope compares connectors of one API with different settings.
func TestDownstream_IsOneForEachAddressAndScope(t *testing.T) {
	t.Setenv("REST_TEST_SECRET", "admin-secret")
	text := strings.Replace(keys, "  url: {required: true}\n", "  url: {required: true}\n  admin: {default: root}\n  org: {default: acme, scope: true}\n  login: {default: \"https://login.example.com\"}\n", 1)
	text = strings.Replace(text, "operations:\n", "operations:\n  possess:\n    request: {url: \"{login}/self\", auth: {bearer: \"{secret}\"}}\n    answers: [{when: status == 200, means: alive}]\n", 1)
	at := func(settings map[string]string) string {
		settings["token"] = adminSecret
		return connect(t, parse(t, text), settings).Downstream()
	}
	first := at(map[string]string{"url": "https://API.example.com/v1/"})
	for name, c := range map[string]struct {
		settings map[string]string
		same     bool
	}{
		"the port":             {map[string]string{"url": "https://api.example.com:443/v1"}, true},
		"another login":        {map[string]string{"url": "https://api.example.com/v1", "admin": "other"}, true},
		"the scope's case":     {map[string]string{"url": "https://api.example.com/v1", "org": "ACME"}, true},
		"another organisation": {map[string]string{"url": "https://api.example.com/v1", "org": "globex"}, false},
		"another host":         {map[string]string{"url": "https://eu.example.com/v1"}, false},
		"another login server": {map[string]string{"url": "https://api.example.com/v1", "login": "https://login.example.net/"}, true},
	} {
		if got := at(c.settings); (got == first) != c.same {
			t.Errorf("%s: %q and %q", name, first, got)
		}
	}
}

// TestDiscover_UsesTheIDThatALookupReturns lists by the id that the downstream has for a principal's name.
func TestDiscover_UsesTheIDThatALookupReturns(t *testing.T) {
	t.Setenv("REST_TEST_SECRET", "admin-secret")
	users := map[string]string{"ada@example.com": `{"id":"U7"}`}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		query := r.URL.Query()
		switch {
		case r.URL.Path == "/users" && users[query.Get("email")] != "":
			_, _ = io.WriteString(w, users[query.Get("email")])
		case r.URL.Path == "/users":
			w.WriteHeader(http.StatusNotFound)
			_, _ = io.WriteString(w, `{"code":"no_user"}`)
		case query.Get("owner") == "U7":
			_, _ = io.WriteString(w, `{"keys":[{"project":"p","id":"k","owner":"u7","enabled":true},{"project":"p","id":"o","owner":"u8","enabled":true}]}`)
		default:
			w.WriteHeader(http.StatusForbidden)
		}
	}))
	defer server.Close()
	text := strings.Replace(keys, `request: {url: "{url}/keys"}`, `request: {url: "{url}/keys", query: {owner: "{principal}"}}`, 1) + `
  lookup:
    request: {url: "{url}/users", query: {email: "{principal}"}}
    answers:
      - {when: status == 200, means: done}
      - {when: status == 404 && body.code == 'no_user', means: gone}
    id: body.id
`
	c := connect(t, parse(t, text), map[string]string{"url": server.URL, "token": adminSecret})
	ada := connectors.Principal{ID: uuid.New(), Names: []string{"ada", "ada@example.com"}}
	found, err := c.Discover(t.Context(), []connectors.Principal{ada})
	want := []connectors.Found{{Kind: connectors.APIKey, Reference: "p/k", Principal: ada.ID, Named: true}}
	if diff := cmp.Diff(want, found); err != nil || diff != "" {
		t.Errorf("%v, %s", err, diff)
	}
	ada.Names = []string{"nobody"}
	if found, err := c.Discover(t.Context(), []connectors.Principal{ada}); err != nil || len(found) != 0 {
		t.Errorf("a principal whom the downstream does not know: %+v, %v", found, err)
	}
	ada.Names = []string{"ada@example.com"}
	users["ada@example.com"] = `{"id":"U0"}` // whose list is refused
	if _, err := c.Discover(t.Context(), []connectors.Principal{ada}); !connectors.IsPermanent(err) {
		t.Errorf("a list that is refused, for the only name that is known: %v; want a permanent error", err)
	}
	users["ada@example.com"] = `{"id":["U7","U8"]}`
	if _, err := c.Discover(t.Context(), []connectors.Principal{ada}); !connectors.IsPermanent(err) {
		t.Errorf("two users of one name: %v; want a permanent error", err)
	}
	users["ada@example.com"] = `{"id":[]}`
	if found, err := c.Discover(t.Context(), []connectors.Principal{ada}); err != nil || len(found) != 0 {
		t.Errorf("a list of no user: %+v, %v", found, err)
	}
	ada.Names = []string{"nobody"}
	users[ada.ID.String()], users["nobody"] = `{}`, `{}`
	if _, err := c.Discover(t.Context(), []connectors.Principal{ada}); !connectors.IsPermanent(err) {
		t.Errorf("an answer without the id: %v; want a permanent error", err)
	}
}

// TestDiscover_LeavesOutANameThatTheDownstreamRefuses asks for two names, of which the downstream refuses one.
func TestDiscover_LeavesOutANameThatTheDownstreamRefuses(t *testing.T) {
	t.Setenv("REST_TEST_SECRET", "admin-secret")
	status := http.StatusForbidden
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if owner := r.URL.Query().Get("owner"); owner != "ada@example.com" {
			w.WriteHeader(status)
			return
		}
		_, _ = fmt.Fprint(w, `{"keys":[{"project":"p","id":"k","owner":"ada@example.com","enabled":true}]}`)
	}))
	defer server.Close()
	text := strings.Replace(keys, `request: {url: "{url}/keys"}`, `request: {url: "{url}/keys", query: {owner: "{principal}"}}`, 1)
	c := connect(t, parse(t, text), map[string]string{"url": server.URL, "token": adminSecret})
	ada := connectors.Principal{ID: uuid.New(), Names: []string{"ada@private.example", "ada@example.com"}}
	if found, err := c.Discover(t.Context(), []connectors.Principal{ada}); err != nil || len(found) != 1 {
		t.Errorf("%+v, %v", found, err)
	}
	ada.Names = nil
	if _, err := c.Discover(t.Context(), []connectors.Principal{ada}); !connectors.IsPermanent(err) {
		t.Errorf("all names refused: %v", err)
	}
	status, ada.Names = http.StatusServiceUnavailable, []string{"ada@example.com"}
	if _, err := c.Discover(t.Context(), []connectors.Principal{ada}); err == nil || connectors.IsPermanent(err) {
		t.Errorf("a name that could not be asked for: %v", err)
	}
}
