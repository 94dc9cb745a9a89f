package worker

import "testing"

func TestTypeGuard_BindsTypesToIDs(t *testing.T) {
	for name, row := range map[string]struct {
		workflowType, id string
		want             bool
	}{
		"a leaver":                        {"Leaver", "leaver/t/p/2", true},
		"a push":                          {"Transmit", "transmit/t/s", true},
		"a scheduled drill":               {"Drill", "leaver-drill-2026-01-02T03:04:05Z", true},
		"a reconciliation by hand":        {"Reconcile", "now", true},
		"a drill under a leaver's ID":     {"Drill", "leaver/t/p/2", false},
		"a mover under a leaver's ID":     {"Mover", "leaver/t/p/2", false},
		"a leaver under a schedule's ID":  {"Leaver", "leaver-drill", false},
		"a push under an ID of its own":   {"Transmit", "x", false},
		"a self-test under a push's ID":   {"Reconcile", "transmit/t/s", false},
		"a synchronisation under no kind": {"TeamSync", "/t/p/2", false},
	} {
		if got := belongs(row.workflowType, row.id); got != row.want {
			t.Errorf("%s: %t, want %t", name, got, row.want)
		}
	}
}
