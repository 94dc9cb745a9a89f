package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"go.temporal.io/api/common/v1"
	"go.temporal.io/api/history/v1"
	"go.temporal.io/api/workflowservice/v1"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/leaverhq/leaver/internal/devstack/stacktest"
	"github.com/leaverhq/leaver/internal/evidence"
)

// list reads a page of the API.
func list[T any](i *installation, path, token string) []T {
	i.t.Helper()
	status, raw := i.raw(http.MethodGet, path, token, "")
	var page struct {
		Items []T `json:"items"`
	}
	if err := json.Unmarshal(raw, &page); status != http.StatusOK || err != nil {
		i.t.Fatalf("GET %s answered %d: %s (%v)", path, status, raw, err)
	}
	return page.Items
}

// exported exports the tenant's chain by the API, and verifies it with the keys.
func (i *installation) exported() (evidence.Report, []evidence.Chained) {
	i.t.Helper()
	call := func(_ context.Context, method, path string, body, into any) error {
		sent := ""
		if body != nil {
			encoded, err := json.Marshal(body)
			if err != nil {
				return err
			}
			sent = string(encoded)
		}
		status, raw := i.raw(method, "/v1/tenants/acme"+path, i.operator, sent)
		if status > 299 {
			return fmt.Errorf("%s %s answered %d: %s", method, path, status, raw)
		}
		return json.Unmarshal(raw, into)
	}
	var file bytes.Buffer
	if _, err := evidence.Download(i.t.Context(), call, evidence.Lines(&file)); err != nil {
		i.t.Fatal(err)
	}
	keys := evidence.NewKeys(list[evidence.PublicKey](i, "/v1/evidence/keys", i.operator)...)
	report, err := evidence.Verify(&file, keys)
	if err != nil {
		i.t.Fatal(err)
	}
	return report, list[evidence.Chained](i, "/v1/tenants/acme/evidence?limit=500", i.operator)
}

// TestEvidence_IsCompleteAfterTemporalHasDeletedTheWorkflow deletes the workflow of a cascade: its history, what was
// done and how each credential died are still there, and verify.
func TestEvidence_IsCompleteAfterTemporalHasDeletedTheWorkflow(t *testing.T) {
	long(t)
	i := installAPI(t)
	d := i.newCRM()
	i.work()
	ada := i.createUser("ada@example.com")
	role, password := d.account()
	hers := i.holdAccount(ada, role, password, "")
	i.deactivate(ada)
	closed := i.closed(ada)
	var runs []evidence.Archived
	stacktest.Eventually(t, time.Minute, "the archive of the history", func() bool {
		if _, err := i.app.Archive().StoreClosed(t.Context()); err != nil {
			t.Fatal(err)
		}
		i.sql(`update lifecycle_events set archive_due_at = null where archived_at is null`) // else it waits for a minute
		runs = list[evidence.Archived](i, "/v1/tenants/acme/cascades/"+closed.ID.String()+"/histories", i.operator)
		return len(runs) > 0
	})
	_, err := i.app.Temporal.WorkflowService().DeleteWorkflowExecution(t.Context(),
		&workflowservice.DeleteWorkflowExecutionRequest{
			Namespace:         i.cfg.Temporal.Namespace,
			WorkflowExecution: &common.WorkflowExecution{WorkflowId: closed.WorkflowID, RunId: *closed.RunID},
		})
	if err != nil {
		t.Fatal(err)
	}
	stacktest.Eventually(t, time.Minute, "the deletion of the workflow", func() bool {
		_, err := i.app.Temporal.DescribeWorkflowExecution(t.Context(), closed.WorkflowID, *closed.RunID)
		return err != nil
	})
	report, entries := i.exported()
	if len(report.Faults) != 0 || report.Entries == 0 {
		t.Errorf("%d records with the faults %q", report.Entries, report.Faults)
	}
	for source, members := range map[string][]string{
		"cascade_histories": {`"event_id":"` + closed.ID.String(), `"sha256":"` + runs[0].SHA256, `"outcome":"completed"`},
		"evidence":          {`"item_id":"` + hers, `"step":"probe-after"`, `"outcome":"dead"`},
		"credential_states": {`"item_id":"` + hers, `"state":"verified"`},
		"admin_acts":        {`"verb":"token.issue"`},
	} {
		if !slices.ContainsFunc(entries, func(x evidence.Chained) bool {
			return x.Entry.Source == source && !slices.ContainsFunc(members, func(m string) bool {
				return !strings.Contains(string(x.Entry.Record), m)
			})
		}) {
			t.Errorf("no record of %s has %q", source, members)
		}
	}
	status, raw := i.raw(http.MethodGet, "/v1/tenants/acme/cascades/"+closed.ID.String()+"/histories/"+*closed.RunID, i.operator, "")
	var archived history.History
	if err := protojson.Unmarshal(raw, &archived); status != http.StatusOK || err != nil ||
		len(archived.GetEvents()) != runs[0].Events || runs[0].Events < 10 {
		t.Errorf("%d: %d events of %d, %v", status, len(archived.GetEvents()), runs[0].Events, err)
	}
	if strings.Contains(string(raw), password) || strings.Contains(string(raw), role) {
		t.Error("the archived history has the account in clear")
	}
}

// TestEvidence_SaysThatAHistoryWasDeletedBeforeItWasArchived archives a run that Temporal does not have.
func TestEvidence_SaysThatAHistoryWasDeletedBeforeItWasArchived(t *testing.T) {
	long(t)
	i := install(t)
	ada := i.createUser("ada@example.com")
	i.deactivate(ada)
	closed := i.closed(ada)
	i.sql(`update lifecycle_events set run_id = gen_random_uuid()::text, workflow_id = workflow_id || '-gone'
		where principal_id = '` + ada + `' and kind = 'leaver'`)
	if _, err := i.app.Archive().StoreClosed(t.Context()); err != nil {
		t.Fatal(err)
	}
	runs := list[evidence.Archived](i, "/v1/tenants/acme/cascades/"+closed.ID.String()+"/histories", i.operator)
	if len(runs) != 1 || runs[0].Events != 0 || runs[0].SHA256 != "" {
		t.Errorf("the archive has %+v, want a run without a history", runs)
	}
}

func TestEvidence_HasWhatOperatorsDo(t *testing.T) {
	long(t)
	t.Setenv("TEST_CACHE", "redis://leaver:x@127.0.0.1:1")
	i := installAPI(t, withConnectors("connectors:\n  - {name: crm, type: redis, tenants: [acme], url: env:TEST_CACHE}\n"))
	i.must(http.MethodPost, "/v1/connectors/crm/pause", i.operator, `{"reason":"maintenance"}`)
	i.must(http.MethodPost, "/v1/connectors/crm/resume", i.operator, `{"reason":"done"}`)
	i.must(http.MethodPost, "/v1/evidence/exports", i.operator, `{}`)
	var verbs []string
	for _, x := range list[evidence.Chained](i, "/v1/evidence?limit=500", i.operator) {
		var act struct{ Verb, Actor string }
		if err := json.Unmarshal(x.Entry.Record, &act); err != nil || act.Actor == "" {
			t.Errorf("%s has no actor (%v)", x.Entry.Record, err)
		}
		verbs = append(verbs, act.Verb)
	}
	want := []string{"connector.pause", "connector.resume", "evidence.export"}
	if len(verbs) < 3 || !slices.Equal(verbs[len(verbs)-3:], want) {
		t.Errorf("the installation's chain ends with %v, want %v", verbs, want)
	}
	for _, token := range []string{i.platform, i.scim, ""} {
		if status, _ := i.raw(http.MethodGet, "/v1/tenants/acme/evidence", token, ""); status != http.StatusUnauthorized {
			t.Errorf("a token that is not an operator's is answered %d", status)
		}
	}
}
