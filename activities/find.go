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

// FindInput identifies a cascade, and the connector that is queried for the credentials
// of the leaver and of the agents that end with it.
type FindInput struct {
	Cascade   CascadeRef `json:"cascade"`
	Connector string     `json:"connector"`
}

// Findings counts the credentials that a connector has listed.
type Findings struct {
	Known     int `json:"known"`     // already registered
	Unmanaged int `json:"unmanaged"` // unmanaged: an operator has to claim them
	Claimed   int `json:"claimed"`   // claimed automatically, since the labels are trusted
}

// Find queries one downstream for credentials whose labels name the leaver or an agent
// that ends with it.
func (a *Activities) Find(ctx context.Context, in FindInput) (Findings, error) {
	defer heartbeat(ctx, func() { activity.RecordHeartbeat(ctx) })()
	principals, err := a.Cascades.Principals(ctx, in.Cascade.Tenant, in.Cascade.Principal)
	if err != nil {
		return Findings{}, err
	}
	return a.find(ctx, in.Cascade.Tenant, in.Cascade, in.Connector, principals)
}

// find queries a connector, and stores the credentials that are not registered.
func (a *Activities) find(
	ctx context.Context, tenant uuid.UUID, of CascadeRef, connector string, principals []uuid.UUID,
) (Findings, error) {
	if err := a.checkPaused(ctx, connector); err != nil {
		return Findings{}, err
	}
	entry := a.Connectors[connector]
	discoverer, ok := connectors.As[connectors.Discoverer](entry.Connector)
	if !ok {
		return Findings{}, temporal.NewNonRetryableApplicationError(
			"connector "+connector+" is not configured in this worker, or cannot list credentials", ErrorPermanent, nil)
	}
	release, err := entry.Acquire(ctx)
	if err != nil {
		return Findings{}, err
	}
	defer release()
	// Tolerate a difference between PostgreSQL's clock and the local one.
	listed := time.Now().Add(-time.Minute)
	named, err := a.Directory.Principals(ctx, tenant, principals, of.Event != uuid.Nil)
	if err != nil {
		return Findings{}, err
	}
	found, err := discoverer.Discover(ctx, named)
	if err != nil {
		if connectors.IsPermanent(err) {
			return Findings{}, temporal.NewNonRetryableApplicationError(err.Error(), ErrorDownstream, nil)
		}
		return Findings{}, retryable(err.Error(), ErrorDownstream, connectors.RetryAfter(err))
	}
	var findings Findings
	for _, f := range found {
		became, err := a.Credentials.Note(ctx, tenant, of.Event, of.Sequence, credential.Unregistered{
			Connector: connector, Kind: f.Kind, Reference: f.Reference, Principal: &f.Principal,
			Scopes: f.Scopes, ExpiresAt: f.ExpiresAt,
		}, listed, entry.TrustLabels && !f.Named, a.Connectors.Mints)
		switch {
		case errors.Is(err, credential.ErrUnknownPrincipal): // the label belongs to another installation
		case err != nil:
			return findings, err
		case became == credential.NoteKnown:
			findings.Known++
		case became == credential.NoteClaimed:
			findings.Claimed++
		default:
			findings.Unmanaged++
		}
	}
	return findings, nil
}
