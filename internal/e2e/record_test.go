package e2e

import (
	"encoding/base64"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.temporal.io/api/enums/v1"
	historypb "go.temporal.io/api/history/v1"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/leaverhq/leaver/internal/auth"
	"github.com/leaverhq/leaver/internal/config"
	"github.com/leaverhq/leaver/internal/devstack/stacktest"
	"github.com/leaverhq/leaver/internal/ssf"
)

// record enables the recording of the histories that workflows/replay_test.go
// replays. Record them from a deployed commit, never from a change under test:
// a change must not break workflows that are already running.
var record = flag.Bool("record", false, "record the histories that the replay test replays")

var testdata = filepath.Join("..", "..", "workflows", "testdata")

func TestRecordHistories(t *testing.T) {
	if !*record {
		t.Skip("records only with -record")
	}
	keyset, err := os.ReadFile(filepath.Join(testdata, "keyset.json"))
	if err != nil {
		t.Fatal(err)
	}
	// A subtest each, since installations share Temporal's task queue.
	t.Run("closed", func(t *testing.T) { recordClosed(t, base64.StdEncoding.EncodeToString(keyset)) })
	t.Run("open", func(t *testing.T) { recordOpen(t, base64.StdEncoding.EncodeToString(keyset)) })
}

// recordClosed records leavers, a mover, team syncs and a push that no operator intervenes in.
func recordClosed(t *testing.T, keyset string) {
	t.Helper()
	p, r := newPlatform(t), newReceiver(t)
	i := install(t, withConnectors(p.connector()), withPrivateReceivers, func(c *config.Config) {
		c.Seal.Keyset = keyset
	})
	i.recordLeavers(p)
	i.recordMoves(p)
	i.recordTransmission(r)
}

// recordOpen records what an open cascade has of its operators: a retry of a refused credential at a
// rate-limited connector, and the approval of a held one.
func recordOpen(t *testing.T, keyset string) {
	t.Helper()
	p := newPlatform(t)
	connector := strings.Replace(p.connector(), "type: webhook", "type: webhook, rate: 50", 1)
	i := install(t, withConnectors(connector), func(c *config.Config) {
		c.Seal.Keyset = keyset
		c.Policy.InitialInterval, c.Policy.MaximumInterval, c.Policy.Deadline = time.Second, time.Second, time.Hour
	})
	ada := i.createUser("ada@example.com")
	refused := i.hold(p, ada, "", "refused")
	i.hold(p, ada, "", "down")
	i.hold(p, ada, "", "fine")
	p.interceptWith(func(w http.ResponseWriter, kind, of string) bool {
		status := map[string]int{"refused": http.StatusForbidden, "down": http.StatusServiceUnavailable}[of]
		if kind != "credential.revoke" || status == 0 {
			return false
		}
		w.WriteHeader(status)
		return true
	})
	i.deactivate(ada)
	stacktest.Eventually(t, 20*time.Second, "the refusal", func() bool { return i.state(refused) == "failed" })
	p.refuseRevocation("down", http.StatusServiceUnavailable)
	retry := "/v1/tenants/acme/cascades/" + i.cascades(ada)[0].ID.String() + "/retry"
	stacktest.Eventually(t, 20*time.Second, "the retry", func() bool {
		status, answer := i.call("POST", retry, i.operator, `{"itemId":"`+refused+`","reason":"recording"}`)
		return status == http.StatusAccepted && answer["retried"] == 1.0
	})
	stacktest.Eventually(t, 20*time.Second, "its end", func() bool { return i.state(refused) == "verified" })
	p.interceptWith(nil)
	retried := i.closed(ada)
	i.record("leaver-rated-retried", retried.WorkflowID, *retried.RunID)

	i.must("PATCH", "/v1/tenants/acme", i.operator, `{"thresholdLeavers":1,"thresholdWindowSeconds":3600}`)
	bob := i.createUser("bob@example.com")
	i.hold(p, bob, "", "bobs")
	i.deactivate(bob)
	i.hasState(bob, "held")
	i.must("POST", "/v1/tenants/acme/holds/approve", i.approver(), `{"reason":"recording"}`)
	approved := i.closed(bob)
	i.record("leaver-held-approved", approved.WorkflowID, *approved.RunID)
}

// recordLeavers records a cascade that completes, one with a survivor, and its re-run.
func (i *installation) recordLeavers(p *platform) {
	ada, bob := i.createUser("ada@example.com"), i.createUser("bob@example.com")
	i.createAgent("agent", ada)
	for _, reference := range []string{"a", "b", "c"} {
		i.hold(p, ada, "", reference)
		i.hold(p, bob, "", "bob-"+reference)
	}
	i.deactivate(ada)
	completed := i.closed(ada)
	p.refuseRevocation("bob-b", http.StatusForbidden)
	i.deactivate(bob)
	failed := i.closed(bob)
	p.interceptWith(nil)
	path := "/v1/tenants/acme/cascades/" + failed.ID.String()
	rerun := i.must("POST", path+"/rerun", i.operator, `{"reason":"recording"}`)["runId"].(string)
	i.must("GET", path+"?wait=60s", i.operator, "")
	i.record("leaver-batched", completed.WorkflowID, *completed.RunID)
	i.record("leaver-batched-survivors", failed.WorkflowID, *failed.RunID)
	i.record("leaver-batched-rerun", failed.WorkflowID, rerun)
}

// recordMoves records a mover that ends a credential granted under a lost entitlement, and the team
// syncs for an added and a removed member.
func (i *installation) recordMoves(p *platform) {
	i.apply("  - {group: engineering-prod, team: Engineering}\n")
	cyd := i.createUser("cyd@example.com")
	group := i.createGroup("engineering-prod", cyd)
	i.becomes(cyd, "team:Engineering")
	i.mustGrant(p, cyd, "cyds", "team:Engineering")
	i.quit(group, cyd)
	i.record("joiner-joined", fmt.Sprintf("joiner/%s/%s/1", i.tenant.ID, cyd), "")
	move := i.closed(cyd)
	i.record("mover-cascade", move.WorkflowID, *move.RunID)
	for n, name := range []string{"team-sync-gained", "team-sync-lost"} {
		i.record(name, fmt.Sprintf("team-sync/%s/%s/%d", i.tenant.ID, group, n+1), "")
	}
}

// recordTransmission records the push of a token.
func (i *installation) recordTransmission(r *receiver) {
	i.relaysSignals()
	stream := i.stream(r, i.token(i.tenant.ID, auth.ClassReceiver), ssf.AccountDisabled)
	dan := i.createUser("dan@example.com")
	i.deactivate(dan)
	stacktest.Eventually(i.t, 20*time.Second, "the token", func() bool { return len(r.events(dan)) == 1 })
	i.record("transmit-pushed", fmt.Sprintf("transmit/%s/%s", i.tenant.ID, stream), "")
}

// record waits for the end of a run, the latest if run is empty, and writes its history. It never
// replaces an existing file, because workflows of that code may still be running.
func (i *installation) record(name, workflow, run string) {
	i.t.Helper()
	_ = i.app.Temporal.GetWorkflow(i.t.Context(), workflow, run).Get(i.t.Context(), nil) // the history has its result
	history := &historypb.History{}
	events := i.app.Temporal.GetWorkflowHistory(i.t.Context(), workflow, run, true,
		enums.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
	for events.HasNext() {
		event, err := events.Next()
		if err != nil {
			i.t.Fatal(err)
		}
		history.Events = append(history.Events, event)
	}
	encoded, err := protojson.MarshalOptions{Multiline: true, Indent: " "}.Marshal(history)
	if err == nil {
		err = writeNew(filepath.Join(testdata, name+".json"), encoded)
	}
	if err != nil && !errors.Is(err, os.ErrExist) {
		i.t.Fatal(err)
	}
}

func writeNew(path string, content []byte) error {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = file.Write(content)
	return errors.Join(err, file.Close())
}
