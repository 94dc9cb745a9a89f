package registry

import (
	"context"
	"time"

	"github.com/leaverhq/leaver/activities/connectors"
	"github.com/leaverhq/leaver/internal/credential"
)

// discoverTimeout bounds the time that a dry run waits for the downstreams.
const discoverTimeout = 10 * time.Second

// Discover queries all connectors of a tenant concurrently for the credentials of
// principals. failed contains the errors by the connector's name.
func (r Registry) Discover(ctx context.Context, tenant string, principals []connectors.Principal) (
	found []credential.Unregistered, failed map[string]error,
) {
	ctx, cancel := context.WithTimeout(ctx, discoverTimeout)
	defer cancel()
	type result struct {
		held []credential.Unregistered
		err  error
	}
	results := concurrently(r.Discoverers(tenant), func(name string) result {
		held, err := r.discoverAt(ctx, name, principals)
		return result{held, err}
	})
	failed = make(map[string]error)
	for name, result := range results {
		if result.err != nil {
			failed[name] = result.err
		}
		found = append(found, result.held...)
	}
	return found, failed
}

func (r Registry) discoverAt(
	ctx context.Context, name string, principals []connectors.Principal,
) ([]credential.Unregistered, error) {
	entry := r[name]
	release, err := entry.Acquire(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	discoverer, _ := connectors.As[connectors.Discoverer](entry.Connector) // which Discoverers has checked
	held, err := discoverer.Discover(ctx, principals)
	var found []credential.Unregistered
	for _, f := range held {
		found = append(found, credential.Unregistered{
			Connector: name, Kind: f.Kind, Reference: f.Reference, Principal: &f.Principal,
			Scopes: f.Scopes, ExpiresAt: f.ExpiresAt,
		})
	}
	return found, err
}
