package lifecycle

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/leaverhq/leaver/internal/directory"
	"github.com/leaverhq/leaver/internal/ssf"
)

// short returns the names of signals without their URN or URL.
func short(signals []ssf.Signal) string {
	var names []string
	for _, g := range signals {
		names = append(names, g.Type[strings.LastIndexAny(g.Type, "/:")+1:])
	}
	return strings.Join(names, " ")
}

// TestSignals_EveryKindAndTrigger lists what receivers are notified of. A trigger that is
// missing here fails the test.
func TestSignals_EveryKindAndTrigger(t *testing.T) {
	type row struct{ returns, mover, leaver, teamSync string }
	changed := row{"activate account-enabled", "notice", "deactivate account-disabled session-revoked", "notice"}
	silent := row{}
	want := map[Trigger]row{
		TriggerPost: changed, TriggerPut: changed, TriggerPatch: changed, TriggerOperator: changed,
		TriggerRevocation: changed, TriggerSignal: changed,
		TriggerExpired: changed, TriggerDrill: changed, TriggerOrphaned: changed, TriggerHandedOver: changed,
		TriggerDelete: {
			"delete account-purged session-revoked", "delete account-purged session-revoked",
			"delete account-purged session-revoked", "delete",
		},
		TriggerClaimed: silent, TriggerReconcile: silent, TriggerEntitlement: silent, TriggerMapping: silent,
	}
	for _, trigger := range Triggers() {
		expected, ok := want[trigger]
		if !ok {
			t.Errorf("no row for trigger %s", trigger)
			continue
		}
		for kind, names := range map[Kind]string{
			Joiner: expected.returns, Mover: expected.mover,
			Leaver: expected.leaver, TeamSync: expected.teamSync,
		} {
			e := &Event{
				ID: uuid.New(), Kind: kind, Trigger: trigger, Principal: uuid.New(),
				PrincipalType: directory.TypeUser, Changed: []string{"active"},
			}
			if kind == TeamSync {
				e.PrincipalType, e.Changed = directory.TypeGroup, []string{directory.EdgeMembers}
			}
			signals, err := signalsOf(e, nil)
			if got := short(signals); err != nil || got != names {
				t.Errorf("%s by %s: got %q (%v), want %q", kind, trigger, got, err, names)
			}
		}
	}
	if _, err := signalsOf(&Event{Kind: Leaver, Trigger: "by-mail"}, nil); err == nil {
		t.Error("signalsOf accepted an unknown trigger")
	}
}

func TestSignals_NoticeByTrigger(t *testing.T) {
	r := resource(directory.TypeUser)
	r.Document = json.RawMessage(`{"userName":"ada","active":true}`)
	for trigger, want := range map[Trigger]string{TriggerPut: ssf.PutNotice, TriggerPatch: ssf.PatchNotice} {
		signals, err := signalsOf(&Event{Kind: Mover, Trigger: trigger, Changed: []string{"title"}}, nil)
		if err != nil || len(signals) != 1 || signals[0].Type != want {
			t.Errorf("%s: %+v (%v), want %s", trigger, signals, err, want)
		}
	}
	signals, err := signalsOf(&Event{Kind: Joiner, Trigger: TriggerPost}, r)
	if err != nil || len(signals) != 1 || signals[0].Type != ssf.CreateNotice {
		t.Fatalf("creation: got %+v (%v), want %s", signals, err, ssf.CreateNotice)
	}
	if diff := cmp.Diff(map[string]any{"attributes": []string{"active", "userName"}}, signals[0].Event); diff != "" {
		t.Error(diff)
	}
}

func TestInvalidation_ByKindOfEvent(t *testing.T) {
	tenant, principal := uuid.New(), uuid.New()
	for name, test := range map[string]struct {
		event Event
		want  uuid.UUID // zero: nothing
	}{
		"a joiner":                 {Event{Kind: Joiner, Trigger: TriggerPost}, principal},
		"a mover":                  {Event{Kind: Mover, Trigger: TriggerPatch}, principal},
		"a mover by an evaluation": {Event{Kind: Mover, Trigger: TriggerEntitlement}, uuid.Nil},
		"a leaver":                 {Event{Kind: Leaver, Trigger: TriggerPatch}, uuid.Nil},
		"members of a group": {
			Event{Kind: TeamSync, Trigger: TriggerPatch, Changed: []string{"members"}},
			uuid.Nil,
		},
		"a group's name": {Event{
			Kind: TeamSync, Trigger: TriggerPatch,
			Changed: []string{"displayName"},
		}, tenant},
		"a group's name and members": {Event{
			Kind: TeamSync, Trigger: TriggerPatch,
			Changed: []string{"displayName", "members"},
		}, tenant},
		"a group that is deleted": {Event{Kind: TeamSync, Trigger: TriggerDelete}, tenant},
		"the rules of the tenant": {Event{
			Kind: TeamSync, Trigger: TriggerMapping,
			Changed: []string{"mapping"},
		}, tenant},
		"an agent that is handed over": {Event{Kind: Mover, Trigger: TriggerHandedOver}, principal},
	} {
		t.Run(name, func(t *testing.T) {
			test.event.Tenant, test.event.Principal = tenant, principal
			got, ok := invalidationBy(&test.event)
			if ok != (test.want != uuid.Nil) || (ok && got.principal != test.want) {
				t.Errorf("got invalidation %+v (%t), want principal %s", got, ok, test.want)
			}
		})
	}
}

func TestSignals_AreUniquePerSuspendedAgent(t *testing.T) {
	event := uuid.New()
	seen := make(map[string]bool)
	for _, agent := range []uuid.UUID{uuid.New(), uuid.New()} {
		for _, g := range suspendedSignals(agent, event, "leaver/x") {
			key := g.Once + "/" + g.Type
			if g.Principal != agent || g.PrincipalType != directory.TypeAgent || seen[key] {
				t.Errorf("signal %+v is a duplicate, or its principal is not %s", g, agent)
			}
			seen[key] = true
		}
	}
	own, err := signalsOf(&Event{ID: event, Kind: Leaver, Trigger: TriggerPatch}, nil)
	if err != nil || len(seen) != 6 || seen[own[0].Once+"/"+own[0].Type] {
		t.Errorf("got %d signals (%v), want 6 that differ from the leaver's own", len(seen), err)
	}
}

func TestTrigger_RequestReturnsMethodAndStatus(t *testing.T) {
	for trigger, want := range map[Trigger][2]string{
		TriggerPost: {"POST", "201"}, TriggerPut: {"PUT", "200"}, TriggerPatch: {"PATCH", "200"},
		TriggerDelete: {"DELETE", "204"},
	} {
		if method, status := trigger.Request(); [2]string{method, status} != want {
			t.Errorf("%s: got %s %s, want %v", trigger, method, status, want)
		}
	}
}

func TestWorkflowID_ContainsOnlyIDs(t *testing.T) {
	tenant, principal := uuid.New(), uuid.New()
	for _, test := range []struct {
		sequence int64
		want     string
	}{{0, "/7"}, {12, "/7.12"}} {
		if got, want := workflowID(Leaver, tenant, principal, 7, test.sequence),
			"leaver/"+tenant.String()+"/"+principal.String()+test.want; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

func TestChoose_FairQueueing(t *testing.T) {
	one, two := uuid.New(), uuid.New()
	// queued returns n events of an actor, in the order of their sequences.
	sequence := int64(0)
	queued := func(n int, tenant uuid.UUID, actor string, leaver bool, period int64) (events []due) {
		for range n {
			sequence++
			events = append(events, due{
				Tenant: tenant, ID: uuid.New(), Sequence: sequence, Leaver: leaver,
				Actor: actor, Period: period,
			})
		}
		return events
	}
	for name, test := range map[string]struct {
		waiting []due
		running map[actor]int
		batch   int
		want    []int // indexes into waiting
	}{
		"nothing is due": {batch: 10},
		"leavers come before movers": {waiting: slices.Concat(queued(2, one, "idp", false, 1),
			queued(1, one, "idp", true, 1)), batch: 10, want: []int{2, 0, 1}},
		"round robin over actors": {waiting: slices.Concat(queued(3, one, "idp", true, 1),
			queued(1, one, "operator", true, 1)), batch: 2, want: []int{0, 3}},
		"round robin over tenants": {waiting: slices.Concat(queued(3, one, "idp", true, 1),
			queued(1, two, "idp", true, 1)), batch: 2, want: []int{0, 3}},
		"a later period does not wait": {waiting: slices.Concat(queued(3, one, "idp", true, 1),
			queued(1, one, "idp", true, 9)), batch: 2, want: []int{0, 3}},
		"an actor's leavers are bounded": {
			waiting: queued(6, one, "idp", true, 1), batch: 10,
			want: []int{0, 1, 2, 3},
		},
		"running leavers count": {
			waiting: queued(6, one, "idp", true, 1),
			running: map[actor]int{{one, "idp"}: 3}, batch: 10, want: []int{0},
		},
		"another actor's running leavers do not": {
			waiting: queued(2, one, "idp", true, 1),
			running: map[actor]int{{two, "idp"}: 9}, batch: 10, want: []int{0, 1},
		},
		"movers are not bounded": {
			waiting: queued(6, one, "idp", false, 1),
			running: map[actor]int{{one, "idp"}: 9}, batch: 10, want: []int{0, 1, 2, 3, 4, 5},
		},
		"the batch size is a limit": {waiting: queued(6, one, "idp", false, 1), batch: 2, want: []int{0, 1}},
		"events are sorted by sequence": {
			waiting: reversed(queued(3, one, "idp", true, 1)), batch: 10,
			want: []int{2, 1, 0},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var want []uuid.UUID
			for _, i := range test.want {
				want = append(want, test.waiting[i].ID)
			}
			var got []uuid.UUID
			for _, d := range choose(slices.Clone(test.waiting), test.running, 4, test.batch) {
				got = append(got, d.ID)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func reversed(events []due) []due {
	slices.Reverse(events)
	return events
}
