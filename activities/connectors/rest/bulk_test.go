package rest_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/leaverhq/leaver/activities/connectors"
	"github.com/leaverhq/leaver/activities/connectors/contract"
)

// endsKeys is a definition whose request ends up to three keys.
const endsKeys = `name: keys
title: An API of keys
kinds: [api_key]
reference: the project and the key
parts: [project, key]
settings:
  url: {required: true}
operations:
  probe:
    request: {url: "{url}/projects/{project}/keys/{key}"}
    answers: [{when: status == 200 && body.active, means: alive}]
  revoke:
    batch: 3
    request: {method: POST, url: "{url}/end", json: {reason: left, keys: [{path: "/projects/{project:path}/keys/{key:path}", secret: "{secret}"}]}}
`

// endsAll is endsKeys with an answer about all keys of a request, endsEach with parts about each.
const (
	endsAll = endsKeys + `
    settles: 1m
    answers:
      - {when: status == 202, means: done}
      - {when: status == 404 && body.code == 'not_found', means: gone}
      - {when: status == 422, means: permanent, reason: not a key}
`
	endsEach = endsKeys + `
    each: {items: body.ended, reference: "[item.project, item.key]"}
    answers:
      - {when: status == 200 && item.ok, means: done}
      - {when: status == 200 && item.code == 'not_found', means: gone}
      - {when: status == 200 && item.code == 'forbidden', means: permanent, reason: a key of another tenant}
`
)

func targets(references ...string) (all []connectors.Target) {
	for _, reference := range references {
		all = append(all, connectors.Target{Kind: connectors.APIKey, Reference: reference, Secret: contract.Canary})
	}
	return all
}

// said describes what an answer says about each credential.
func said(ended []connectors.Ended) (all []string) {
	for _, e := range ended {
		switch {
		case e.Ambiguous:
			all = append(all, "ambiguous")
		case e.Err == nil:
			all = append(all, string(e.Outcome))
		case connectors.IsPermanent(e.Err):
			all = append(all, "permanent")
		case connectors.RetryAfter(e.Err) > 0:
			all = append(all, "later")
		default:
			all = append(all, "retry")
		}
	}
	return all
}

func TestRevokeBulk_ReportsOutcomePerCredential(t *testing.T) {
	three := targets("p/a", "p/b", "p%2Fx/c")
	for name, c := range map[string]struct {
		definition string
		targets    []connectors.Target
		status     int
		header     http.Header
		body       string
		want       []string
	}{
		"a confirmation is about all":         {endsAll, three, 202, nil, `{}`, []string{"done", "done", "done"}},
		"a refusal may be due to another one": {endsAll, three, 422, nil, `{}`, []string{"ambiguous", "ambiguous", "ambiguous"}},
		"a refusal of one":                    {endsAll, three[:1], 422, nil, `{}`, []string{"permanent"}},
		"gone may be about another one":       {endsAll, three, 404, nil, `{"code":"not_found"}`, []string{"ambiguous", "ambiguous", "ambiguous"}},
		"gone of one":                         {endsAll, three[:1], 404, nil, `{"code":"not_found"}`, []string{"gone"}},
		"an answer that is not known":         {endsAll, three, 200, nil, `{}`, []string{"ambiguous", "ambiguous", "ambiguous"}},
		"throttled":                           {endsAll, three, 429, http.Header{"Retry-After": {"7"}}, ``, []string{"later", "later", "later"}},
		"the server's error":                  {endsAll, three, 500, nil, contract.Canary, []string{"retry", "retry", "retry"}},
		"a part about each": {
			endsEach, three, 200, nil,
			`{"ended":[{"project":"p/x","key":"c","code":"forbidden"},{"project":"p","key":"a","ok":true},{"project":"p","key":"b","code":"not_found"}]}`,
			[]string{"done", "gone", "permanent"},
		},
		"no part about one": {
			endsEach, three, 200, nil, `{"ended":[{"project":"p","key":"a","ok":true},{"project":"q","key":"b","ok":true},{}]}`,
			[]string{"done", "ambiguous", "ambiguous"},
		},
		"two parts about one": {
			endsEach, three, 200, nil,
			`{"ended":[{"project":"p","key":"a","ok":true},{"project":"p","key":"a","code":"not_found"},{"project":"p","key":"b","ok":true}]}`,
			[]string{"ambiguous", "done", "ambiguous"},
		},
		"no parts":                             {endsEach, three, 202, nil, `{}`, []string{"ambiguous", "ambiguous", "ambiguous"}},
		"the only part without a name, of one": {endsEach, three[:1], 200, nil, `{"ended":[{"ok":true}]}`, []string{"done"}},
		"a part about another one, of one":     {endsEach, three[:1], 200, nil, `{"ended":[{"project":"q","key":"a","ok":true}]}`, []string{"retry"}},
		"a number that is too large": {
			strings.ReplaceAll(endsAll, `secret: "{secret}"`, `id: "{key:int}"`), targets("p/1", "p/9999999999999999999", "p/3"), 202, nil, `{}`,
			[]string{"done", "permanent", "done"},
		},
		"a reference that is none": {
			endsAll, targets("p/a", "p"), 202, nil, `{}`, []string{"done", "permanent"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			keys := connect(t, parse(t, c.definition), map[string]string{"url": answering(t, c.status, c.header, c.body)})
			bulk, ok := connectors.As[connectors.BulkRevoker](keys)
			if !ok || bulk.Bulk() != 3 {
				t.Fatal("the connector cannot end three with one request")
			}
			ended := bulk.RevokeBulk(t.Context(), c.targets)
			if diff := cmp.Diff(c.want, said(ended)); diff != "" {
				t.Errorf("%s\n%+v", diff, ended)
			}
			for i, e := range ended {
				if e.Err != nil {
					contract.NoSecret(t, e.Err, c.targets[i])
				}
			}
		})
	}
}

func TestRevokeBulk_SendsOneRequestWithAnElementForEach(t *testing.T) {
	var sent []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var body struct {
			Keys []struct{ Path, Secret string }
		}
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			t.Error(err)
		}
		sent = append(sent, fmt.Sprint(body.Keys))
		w.WriteHeader(http.StatusAccepted)
	}))
	t.Cleanup(server.Close)
	c := connect(t, parse(t, endsAll), map[string]string{"url": server.URL})
	two := targets("p%2Fx/a", "p%3F/b")
	two[1].Secret = "second"
	c.RevokeBulk(t.Context(), two)
	if _, err := c.Revoke(t.Context(), two[1]); err != nil {
		t.Error(err)
	}
	want := []string{
		"[{/projects/p%2Fx/keys/a " + contract.Canary + "} {/projects/p%3F/keys/b second}]", "[{/projects/p%3F/keys/b second}]",
	}
	if diff := cmp.Diff(want, sent); diff != "" {
		t.Error(diff)
	}
}

func TestRevokeBulk_SendsNothingWithoutEveryLease(t *testing.T) {
	requests := 0
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { requests++ }))
	t.Cleanup(server.Close)
	all := targets("p/a", "p/b")
	all[1].Fence = func(context.Context) error { return connectors.Retryable("another attempt has taken over") }
	ended := connect(t, parse(t, endsAll), map[string]string{"url": server.URL}).RevokeBulk(t.Context(), all)
	if diff := cmp.Diff([]string{"retry", "retry"}, said(ended)); diff != "" || requests > 0 {
		t.Errorf("%d requests, %s", requests, diff)
	}
}
