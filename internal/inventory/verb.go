package inventory

// Verb is how a cascade ends an item.
type Verb string

// The verbs.
const (
	Cancel Verb = "cancel" // a scheduled run
	Rotate Verb = "rotate" // an account that others rely on: it gets a new secret
	Revoke Verb = "revoke" // anything else; an account is disabled
)

// EndVerb returns how an item of a kind is ended. reliedOn: others rely on its account.
func EndVerb(kind Kind, reliedOn bool) Verb {
	switch kind {
	case ScheduledRun:
		return Cancel
	case ServiceAccount, APIKey:
		if reliedOn {
			return Rotate
		}
	case RefreshToken, AccessToken, Session, Grant: // of one holder alone
	}
	return Revoke
}
