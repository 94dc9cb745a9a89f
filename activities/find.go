package activities

import (
	"context"
	"errors"
	"time"

	"github.com/google/uuid"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"

	"github.com/leaverhq/leaver/activities/connectors"
	"github.com/leaverhq/leaver/internal/credential"
)

// FindInput names a cascade, and the connector that is asked what it holds for
// the leaver and the agents that end with it.
type FindInput struct {
	Cascade   CascadeRef `json:"cascade"`
	Connector string     `json:"connector"`
}

// Findings is what a downstream told, as counts.
type Findings struct {
	Known   int `json:"known"`   // registered already
	Unbound int `json:"unbound"` // listed for an operator to bind
	Bound   int `json:"bound"`   // bound by itself, since the labels are trusted
}

// Find asks one downstream what it holds for the leaver by its own labels.
func (a *Activities) Find(ctx context.Context, in FindInput) (Findings, error) {
	defer heartbeat(ctx, func() { activity.RecordHeartbeat(ctx) })()
	principals, err := a.Cascades.Principals(ctx, in.Cascade.Tenant, in.Cascade.Principal)
	if err != nil {
		return Findings{}, err
	}
	return a.find(ctx, in.Cascade.Tenant, in.Cascade, in.Connector, principals)
}

// find asks a connector, and stores what it tells and nobody had registered.
func (a *Activities) find(ctx context.Context, tenant uuid.UUID, of CascadeRef, connector string, principals []uuid.UUID) (Findings, error) {
	if err := a.heldUp(ctx, connector); err != nil {
		return Findings{}, err
	}
	entry := a.Connectors[connector]
	discoverer, ok := entry.Connector.(connectors.Discoverer)
	if !ok {
		return Findings{}, temporal.NewNonRetryableApplicationError("no connector "+connector+" that can list is configured here", ErrorPermanent, nil)
	}
	release, err := entry.Acquire(ctx)
	if err != nil {
		return Findings{}, err
	}
	defer release()
	// PostgreSQL's clock and ours may differ a little.
	listed := time.Now().Add(-time.Minute)
	found, err := discoverer.Discover(ctx, principals)
	if err != nil {
		if connectors.IsPermanent(err) {
			return Findings{}, temporal.NewNonRetryableApplicationError(err.Error(), ErrorDownstream, nil)
		}
		return Findings{}, retryable(err.Error(), ErrorDownstream, connectors.RetryAfter(err))
	}
	var findings Findings
	for _, f := range found {
		became, err := a.Credentials.Note(ctx, tenant, of.Event, of.Sequence, credential.Unregistered{
			Connector: connector, Kind: f.Kind, Reference: f.Reference, Principal: &f.Principal, Scopes: f.Scopes, ExpiresAt: f.ExpiresAt,
		}, listed, entry.TrustLabels)
		switch {
		case errors.Is(err, credential.ErrUnknownPrincipal): // a label of another installation's
		case err != nil:
			return findings, err
		case became == credential.NoteKnown:
			findings.Known++
		case became == credential.NoteBound:
			findings.Bound++
		default:
			findings.Unbound++
		}
	}
	return findings, nil
}
