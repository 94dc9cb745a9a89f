package e2e

import (
	"encoding/json"
	"math"
	"net/http"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/leaverhq/leaver/internal/cascade"
	"github.com/leaverhq/leaver/internal/evidence"
	"github.com/leaverhq/leaver/internal/health"
)

// TestTiming_IsFromTheCommitToTheLastVerifiedDeath compares the figures with the evidence of one leaver, beside one whose
// cascade failed.
func TestTiming_IsFromTheCommitToTheLastVerifiedDeath(t *testing.T) {
	p := newPlatform(t)
	i := install(t, withConnectors(p.connector()))
	ada, bob := i.createUser("ada@example.com"), i.createUser("bob@example.com")
	i.hold(p, ada, "", "a")
	i.hold(p, ada, "", "b")
	i.deactivate(ada)
	closed := i.closed(ada)
	last := time.Time{}
	for _, r := range list[evidence.Record](i, "/v1/tenants/acme/cascades/"+closed.ID.String()+"/evidence", i.operator) {
		if r.Step == "probe-after" && r.Outcome == "dead" && r.At.After(last) {
			last = r.At
		}
	}
	want := last.Sub(closed.CreatedAt).Seconds()
	p.interceptWith(func(w http.ResponseWriter, kind, _ string) bool {
		if kind == "credential.revoke" {
			http.Error(w, `{"error":"access_denied"}`, http.StatusForbidden)
		}
		return kind == "credential.revoke"
	})
	i.hold(p, bob, "", "c")
	i.deactivate(bob)
	i.closed(bob)

	var got cascade.Timing
	status, raw := i.raw(http.MethodGet, "/v1/tenants/acme/time-to-zero?target=1h", i.operator, "")
	if err := json.Unmarshal(raw, &got); err != nil || status != http.StatusOK {
		t.Fatalf("%d, %s, %v", status, raw, err)
	}
	if got.Leavers != 1 || got.Within != 1 || got.Unfinished != 1 || math.Abs(got.Worst-want) > 0.001 ||
		got.Median != got.Worst || got.P95 != got.Worst {
		t.Errorf("the times are %+v, want one leaver of %.3f s and one unfinished", got, want)
	}
	if len(got.Connectors) != 1 || got.Connectors[0].Connector != "platform" || got.Connectors[0].Worst != got.Worst {
		t.Errorf("by connector %+v, want platform alone", got.Connectors)
	}
	if len(got.Weeks) != 1 || got.Weeks[0].Week.UTC().Weekday() != time.Monday || got.Weeks[0].Leavers != 1 {
		t.Errorf("by week %+v, want one, of a Monday", got.Weeks)
	}
	if h, err := health.NewStore(i.app.DB).Read(t.Context()); err != nil || h.ZeroWorst == nil || math.Abs(*h.ZeroWorst-want) > 0.001 || *h.ZeroMedian != *h.ZeroWorst {
		t.Errorf("the metrics have %v, %v and %v, want %.3f s: %v", h.ZeroMedian, h.ZeroP95, h.ZeroWorst, want, err)
	} else if len(h.ZeroConnectors) != 1 || h.ZeroConnectors[0].Connector != "platform" ||
		math.Abs(h.ZeroConnectors[0].Worst-want) > 0.001 {
		t.Errorf("the metrics by connector are %+v, want platform with %.3f s", h.ZeroConnectors, want)
	}
	if none, err := i.app.Cascades().Timing(t.Context(), uuid.New(), time.Now().Add(-time.Hour), time.Minute); err != nil || none.Leavers != 0 {
		t.Errorf("another tenant sees %+v, %v", none, err)
	}
	for _, query := range []string{"since=yesterday", "target=0s", "target=x"} {
		if status, _ := i.raw(http.MethodGet, "/v1/tenants/acme/time-to-zero?"+query, i.operator, ""); status != http.StatusBadRequest {
			t.Errorf("%s answered %d, want 400", query, status)
		}
	}
}
