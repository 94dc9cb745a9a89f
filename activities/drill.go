package activities

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"

	"github.com/leaverhq/leaver/activities/connectors"
	"github.com/leaverhq/leaver/internal/cascade"
	"github.com/leaverhq/leaver/internal/credential"
	"github.com/leaverhq/leaver/internal/directory"
	"github.com/leaverhq/leaver/internal/health"
	"github.com/leaverhq/leaver/internal/lifecycle"
	"github.com/leaverhq/leaver/internal/tenant"
)

// drillActor is who drills, on record.
const drillActor = "drill"

// Drilled is how far a drill is: a synthetic person, and what was issued for it.
type Drilled struct {
	Tenant     uuid.UUID     `json:"tenant"`
	Principal  uuid.UUID     `json:"principal"`
	Name       string        `json:"name"`
	Connectors []string      `json:"connectors"` // that allow it
	Issued     []DrillIssued `json:"issued,omitempty"`
	Cascade    uuid.UUID     `json:"cascade,omitzero"`
	Outcome    string        `json:"outcome,omitempty"`
	Verified   int           `json:"verified"`
	Problems   []string      `json:"problems,omitempty"`
}

// DrillIssued is one credential of a drill.
type DrillIssued struct {
	Connector string    `json:"connector"`
	Reference string    `json:"reference"`
	Item      uuid.UUID `json:"item"`
}

// DrillBegin provisions a synthetic person in the drill's own tenant, which a
// connector allows by naming it. name is the drill's, and the same when it is
// tried again.
func (a *Activities) DrillBegin(ctx context.Context, tenantName, name string) (Drilled, error) {
	t, err := a.Tenants.ByName(ctx, tenantName)
	if errors.Is(err, tenant.ErrNotFound) {
		if t, err = a.Tenants.Create(ctx, tenantName, tenant.ProfileDefault); errors.Is(err, tenant.ErrExists) {
			t, err = a.Tenants.ByName(ctx, tenantName)
		}
	}
	if err != nil {
		return Drilled{}, err
	}
	d := Drilled{Tenant: t.ID, Name: name, Connectors: a.Connectors.Issuers(t.Name)}
	user, active := name+"@drill.invalid", true
	created, err := a.Lifecycle.Create(ctx, t.ID, &directory.Resource{
		Type: directory.TypeUser, UniqueName: user, Display: "leaver drill", Active: &active,
		Document: fmt.Appendf(nil, `{"userName":%q,"displayName":"leaver drill","active":true}`, user),
	}, lifecycle.Cause{Trigger: lifecycle.TriggerDrill, Actor: drillActor})
	if errors.Is(err, directory.ErrNameTaken) { // by an attempt whose answer got lost
		found, err := a.Directory.ByName(ctx, t.ID, user)
		if err == nil && len(found) > 0 {
			d.Principal = found[0].ID
		}
		return d, err
	}
	if err != nil {
		return d, err
	}
	d.Principal = created.Resource.ID
	return d, nil
}

// DrillInput names a drill and one of its connectors.
type DrillInput struct {
	Drill     Drilled `json:"drill"`
	Connector string  `json:"connector"`
}

// DrillIssue has a connector issue a real credential, and registers it.
func (a *Activities) DrillIssue(ctx context.Context, in DrillInput) (DrillIssued, error) {
	defer heartbeat(ctx, func() { activity.RecordHeartbeat(ctx) })()
	if err := a.heldUp(ctx, in.Connector); err != nil {
		return DrillIssued{}, err
	}
	issuer, ok := a.Connectors[in.Connector].Connector.(connectors.Issuer)
	if !ok {
		return DrillIssued{}, temporal.NewNonRetryableApplicationError("no connector "+in.Connector+" that issues is configured here", ErrorPermanent, nil)
	}
	issued, err := issuer.Issue(ctx, in.Drill.Name, in.Drill.Principal)
	if err != nil {
		return DrillIssued{}, temporal.NewApplicationErrorWithOptions(err.Error(), ErrorDownstream,
			temporal.ApplicationErrorOptions{NonRetryable: connectors.IsPermanent(err), NextRetryDelay: connectors.RetryAfter(err)})
	}
	item, err := a.Credentials.Replace(ctx, in.Drill.Tenant, credential.New{
		Principal: in.Drill.Principal, Kind: issued.Kind, Connector: in.Connector, Reference: issued.Reference, Secret: issued.Secret,
		IssuedAt: time.Now().UTC(), ExpiresAt: issued.ExpiresAt,
	})
	if err != nil {
		return DrillIssued{}, err
	}
	return DrillIssued{Connector: in.Connector, Reference: issued.Reference, Item: item.ID}, nil
}

// DrillLeave deactivates the synthetic person, as an IdP would.
func (a *Activities) DrillLeave(ctx context.Context, d Drilled) (uuid.UUID, error) {
	result, err := a.Lifecycle.SetActive(ctx, d.Tenant, directory.TypeUser, d.Principal, false, lifecycle.Cause{Trigger: lifecycle.TriggerDrill, Actor: drillActor})
	if err != nil {
		return uuid.Nil, err
	}
	if result.Event != nil {
		return result.Event.ID, nil
	}
	cascades, err := a.Cascades.List(ctx, d.Tenant, cascade.Query{Principal: &d.Principal, Limit: 1})
	if err != nil || len(cascades) == 0 {
		return uuid.Nil, errors.Join(errors.New("the synthetic person is restricted, and no cascade says why"), err)
	}
	return cascades[0].ID, nil
}

// ErrorNotYet is the type of the error of a look that came too soon.
const ErrorNotYet = "NotYet"

// DrillLook tells how the cascade closed. While it runs the look is made again.
func (a *Activities) DrillLook(ctx context.Context, d Drilled) (Drilled, error) {
	cascade, err := a.Cascades.Get(ctx, d.Tenant, d.Cascade)
	if err != nil {
		return d, err
	}
	if cascade.ClosedAt == nil {
		return d, retryable("the cascade is "+cascade.Outcome, ErrorNotYet, 0)
	}
	d.Outcome, d.Verified = cascade.Outcome, cascade.Verified
	return d, nil
}

// DrillEnd clears away what the drill leaves behind, and stores how it ended:
// passed is a completed cascade that verified each credential, of one connector at least.
func (a *Activities) DrillEnd(ctx context.Context, d Drilled) (Drilled, error) {
	// By the drill's name, since an answer may have got lost.
	for _, name := range d.Connectors {
		if issuer, ok := a.Connectors[name].Connector.(connectors.Issuer); ok {
			if err := issuer.Remove(ctx, d.Name); err != nil {
				d.Problems = append(d.Problems, name+" did not clear up: "+err.Error())
			}
		}
	}
	if d.Principal != uuid.Nil {
		_, err := a.Lifecycle.Delete(ctx, d.Tenant, directory.TypeUser, d.Principal, lifecycle.Cause{Trigger: lifecycle.TriggerDrill, Actor: drillActor}, nil)
		if err != nil && !errors.Is(err, directory.ErrNotFound) {
			return d, err
		}
	}
	switch {
	case len(d.Issued) == 0 && len(d.Problems) == 0:
		d.Problems = append(d.Problems, "no connector allows a drill: name the drill's tenant in its tenants")
	case d.Outcome != "completed" || d.Verified != len(d.Issued):
		d.Problems = append(d.Problems, fmt.Sprintf("the cascade %s is %q with %d of %d verified", d.Cascade, d.Outcome, d.Verified, len(d.Issued)))
	}
	return d, a.Health.Record(ctx, health.Drill, len(d.Problems) == 0, d)
}
