package cascade_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/internal/cascade"
	"github.com/leaverhq/leaver/internal/devstack/stacktest"
	"github.com/leaverhq/leaver/internal/tenant"
)

func TestMain(m *testing.M) { stacktest.Main(m) }

// departments is a tenant with users and the events of leavers.
type departments struct {
	t         *testing.T
	owner     *pgx.Conn
	threshold *cascade.Threshold
	tenants   *tenant.Store
	tenant    uuid.UUID
	n         int
}

func newDepartments(t *testing.T, users int, policy tenant.Settings) *departments {
	t.Helper()
	db, at := stacktest.Open(t)
	d := &departments{t: t, threshold: cascade.NewThreshold(db), tenants: tenant.NewStore(db)}
	of, err := d.tenants.Create(t.Context(), "acme", tenant.ProfileDefault)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.tenants.Configure(t.Context(), of.ID, policy); err != nil {
		t.Fatal(err)
	}
	d.tenant = of.ID
	if d.owner, err = pgx.Connect(t.Context(), at.OwnerURL); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.owner.Close(t.Context()) })
	d.exec(`insert into resources (tenant_id, id, type, unique_name, active, document, created_at, modified_at)
		select $1, gen_random_uuid(), 'User', 'u' || n, true, '{}', now(), now() from generate_series(1, $2::int) n`, d.tenant, users)
	return d
}

func (d *departments) exec(sql string, args ...any) {
	d.t.Helper()
	if _, err := d.owner.Exec(d.t.Context(), sql, args...); err != nil {
		d.t.Fatalf("%s: %v", sql, err)
	}
}

// leave stores the event of a leaver some minutes ago.
func (d *departments) leave(minutesAgo int) uuid.UUID {
	d.t.Helper()
	d.n++
	event := uuid.New()
	d.exec(`insert into lifecycle_events (tenant_id, id, kind, principal_id, principal_type, trigger, actor, changed,
			workflow_id, created_at, due_at)
		values ($1, $2, 'leaver', $3, 'User', 'patch', 'test', '{}', $4, now() - make_interval(mins => $5), now())`,
		d.tenant, event, uuid.New(), fmt.Sprintf("leaver/%d", d.n), minutesAgo)
	return event
}

// want checks the threshold for a cascade that a worker takes up.
func (d *departments) want(event uuid.UUID, held bool) {
	d.t.Helper()
	d.exec(`update lifecycle_events set begun_at = now() where tenant_id = $1 and id = $2`, d.tenant, event)
	if got, err := d.threshold.Check(d.t.Context(), d.tenant, event); err != nil || got != held {
		d.t.Errorf("the cascade is held: %t, %v; want %t", got, err, held)
	}
}

func TestThreshold_HoldsWhatExceedsItsNumber(t *testing.T) {
	two := 2
	d := newDepartments(t, 100, tenant.Settings{ThresholdLeavers: &two})
	d.want(d.leave(0), false)
	d.want(d.leave(0), false)
	third := d.leave(0)
	d.want(third, true)
	d.want(third, true)
	holds, err := d.threshold.Holds(t.Context(), d.tenant)
	if err != nil || len(holds) != 1 || holds[0].Leavers != 3 || holds[0].HeldCascades != 1 || holds[0].ApprovedAt != nil {
		t.Errorf("the holds are %+v, %v", holds, err)
	}
}

func TestThreshold_CountsItsWindowOnly(t *testing.T) {
	one, window := 1, 600
	d := newDepartments(t, 100, tenant.Settings{ThresholdLeavers: &one, ThresholdWindow: &window})
	d.leave(30)
	d.leave(20)
	d.want(d.leave(0), false)
}

func TestThreshold_ShareNeedsFiveLeavers(t *testing.T) {
	half := 0.5
	d := newDepartments(t, 3, tenant.Settings{ThresholdShare: &half})
	for range 4 {
		d.want(d.leave(0), false)
	}
	d.want(d.leave(0), true)
}

func TestThreshold_ApprovalLetsTheHeldOnesGoAndCountsAnew(t *testing.T) {
	one := 1
	d := newDepartments(t, 100, tenant.Settings{ThresholdLeavers: &one})
	d.leave(0)
	held := d.leave(0)
	d.want(held, true)
	if _, err := d.threshold.Approve(t.Context(), d.tenant, "approver", "layoffs", 0); err != nil {
		t.Fatal(err)
	}
	if still, err := d.threshold.Held(t.Context(), d.tenant, held); err != nil || still {
		t.Errorf("after the approval the cascade is held: %t, %v", still, err)
	}
	d.want(d.leave(0), false)
	if _, err := d.threshold.Approve(t.Context(), d.tenant, "approver", "again", 0); err == nil {
		t.Error("an approval without a hold was accepted")
	}
}

// TestThreshold_ApprovalShowsAllThatItReleases has leavers that no worker has taken up when the hold is
// approved.
func TestThreshold_ApprovalShowsAllThatItReleases(t *testing.T) {
	two := 2
	d := newDepartments(t, 100, tenant.Settings{ThresholdLeavers: &two})
	d.want(d.leave(0), false)
	d.want(d.leave(0), false)
	d.want(d.leave(0), true)
	holds, err := d.threshold.Holds(t.Context(), d.tenant)
	if err != nil || len(holds) != 1 || holds[0].HeldCascades != 1 {
		t.Fatalf("the holds are %+v, %v; want one of one cascade", holds, err)
	}
	for range 5 {
		d.leave(0)
	}
	if _, err := d.threshold.Approve(t.Context(), d.tenant, "approver", "three", 1); !errors.Is(err, cascade.ErrMoreHeld) {
		t.Errorf("the approval of one cascade answered %v, want ErrMoreHeld", err)
	}
	holds, err = d.threshold.Holds(t.Context(), d.tenant)
	if err != nil || holds[0].HeldCascades != 6 || holds[0].ApprovedAt != nil {
		t.Errorf("the holds are %+v, %v; want six cascades, not approved", holds, err)
	}
	if _, err := d.threshold.Approve(t.Context(), d.tenant, "approver", "eight", 6); err != nil {
		t.Errorf("the approval of six cascades answered %v", err)
	}
}
