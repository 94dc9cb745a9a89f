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

// drillActor is the actor of drills in the audit log.
const drillActor = "drill"

// Drilled is the state of a drill: a synthetic user, and the credentials issued to it.
type Drilled struct {
	Tenant     uuid.UUID     `json:"tenant"`
	Principal  uuid.UUID     `json:"principal"`
	Name       string        `json:"name"`
	Connectors []string      `json:"connectors"` // that take part in drills
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

// DrillBegin provisions a synthetic user in the drill tenant, which it creates if it
// does not exist. Connectors that name the tenant take part. name identifies the drill
// and does not change in a retry.
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
	if errors.Is(err, directory.ErrNameTaken) { // by an attempt whose result was lost
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

// DrillInput is a drill and one of its connectors.
type DrillInput struct {
	Drill     Drilled `json:"drill"`
	Connector string  `json:"connector"`
}

// DrillIssue checks a connector, issues a real credential at it, and registers the credential.
func (a *Activities) DrillIssue(ctx context.Context, in DrillInput) (DrillIssued, error) {
	defer heartbeat(ctx, func() { activity.RecordHeartbeat(ctx) })()
	if err := a.checkPaused(ctx, in.Connector); err != nil {
		return DrillIssued{}, err
	}
	issuer, ok := connectors.As[connectors.Issuer](a.Connectors[in.Connector].Connector)
	if !ok {
		return DrillIssued{}, temporal.NewNonRetryableApplicationError(
			"connector "+in.Connector+" is not configured in this worker, or cannot issue credentials",
			ErrorPermanent, nil)
	}
	var issued connectors.Issued
	err := a.Connectors.CheckAt(ctx, in.Connector)
	if err != nil { // the reason of what would fail next
		err = fmt.Errorf("the connector did not pass its check: %w", err)
	} else {
		issued, err = issuer.Issue(ctx, in.Drill.Name, in.Drill.Principal)
	}
	if err != nil {
		return DrillIssued{}, temporal.NewApplicationErrorWithOptions(err.Error(), ErrorDownstream,
			temporal.ApplicationErrorOptions{
				NonRetryable: connectors.IsPermanent(err), NextRetryDelay: connectors.RetryAfter(err),
			})
	}
	item, err := a.Credentials.Replace(ctx, in.Drill.Tenant, credential.New{
		Principal: in.Drill.Principal, Kind: issued.Kind, Connector: in.Connector, Reference: issued.Reference,
		Secret:   issued.Secret,
		IssuedAt: time.Now().UTC(), ExpiresAt: issued.ExpiresAt,
	})
	if err != nil {
		return DrillIssued{}, err
	}
	return DrillIssued{Connector: in.Connector, Reference: issued.Reference, Item: item.ID}, nil
}

// DrillLeave deactivates the synthetic user, as an IdP would, and returns the cascade's id.
func (a *Activities) DrillLeave(ctx context.Context, d Drilled) (uuid.UUID, error) {
	by := lifecycle.Cause{Trigger: lifecycle.TriggerDrill, Actor: drillActor}
	result, err := a.Lifecycle.SetActive(ctx, d.Tenant, directory.TypeUser, d.Principal, false, by)
	if err != nil {
		return uuid.Nil, err
	}
	if result.Event != nil {
		return result.Event.ID, nil
	}
	cascades, err := a.Cascades.List(ctx, d.Tenant, cascade.Query{Principal: &d.Principal, Limit: 1})
	if err != nil || len(cascades) == 0 {
		return uuid.Nil, errors.Join(errors.New("the synthetic user is deactivated, but has no cascade"), err)
	}
	return cascades[0].ID, nil
}

// ErrorNotYet is the type of the error that DrillLook returns while the cascade runs.
const ErrorNotYet = "NotYet"

// DrillLook returns the outcome of the drill's cascade. While the cascade runs, it
// returns a retryable error.
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

// DrillEnd deletes the drill's credentials and user, and stores the result. The drill
// passed if the cascade completed and verified each credential, of at least one connector.
func (a *Activities) DrillEnd(ctx context.Context, d Drilled) (Drilled, error) {
	// Remove by the drill's name, since the result of DrillIssue may have been lost.
	for _, name := range d.Connectors {
		if issuer, ok := connectors.As[connectors.Issuer](a.Connectors[name].Connector); ok {
			if err := issuer.Remove(ctx, d.Name); err != nil {
				d.Problems = append(
					d.Problems, "connector "+name+" failed to remove the drill's credential: "+err.Error(),
				)
			}
		}
	}
	if d.Principal != uuid.Nil {
		by := lifecycle.Cause{Trigger: lifecycle.TriggerDrill, Actor: drillActor}
		_, err := a.Lifecycle.Delete(ctx, d.Tenant, directory.TypeUser, d.Principal, by, nil)
		if err != nil && !errors.Is(err, directory.ErrNotFound) {
			return d, err
		}
	}
	switch {
	case len(d.Issued) == 0 && len(d.Problems) == 0:
		d.Problems = append(d.Problems, "no connector allows a drill: add the drill tenant to a connector's tenants")
	case d.Outcome != "completed" || d.Verified != len(d.Issued):
		d.Problems = append(d.Problems, fmt.Sprintf(
			"the cascade %s is %q and verified %d of %d credentials", d.Cascade, d.Outcome, d.Verified, len(d.Issued),
		))
	}
	return d, a.Health.Record(ctx, health.Drill, len(d.Problems) == 0, d)
}
