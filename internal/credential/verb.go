package credential

import (
	"github.com/leaverhq/leaver/activities/connectors"
)

// Verb is the operation that ends an item.
type Verb string

// The verbs.
const (
	Cancel Verb = "cancel" // cancel a scheduled run
	Rotate Verb = "rotate" // replace the secret of an account that others rely on
	Revoke Verb = "revoke" // revoke a credential, or disable an account
)

// EndVerb returns the verb that ends an item of a kind. reliedOn is whether others rely on its
// account.
func EndVerb(kind connectors.Kind, reliedOn bool) Verb {
	switch kind {
	case connectors.ScheduledRun:
		return Cancel
	case connectors.ServiceAccount, connectors.APIKey:
		if reliedOn {
			return Rotate
		}
	case connectors.RefreshToken, connectors.AccessToken, connectors.Session, connectors.Grant:
		// These always have a single holder.
	}
	return Revoke
}
