package connectors

// Kind is what an item is.
type Kind string

// The kinds.
const (
	RefreshToken   Kind = "refresh_token"
	AccessToken    Kind = "access_token"
	ServiceAccount Kind = "service_account"
	APIKey         Kind = "api_key"
	Session        Kind = "session"
	// Grant is what an authorization server lets a client do for a subject; all
	// of its tokens end with it.
	Grant        Kind = "grant"
	ScheduledRun Kind = "scheduled_run"
)

// CredentialKinds lists the kinds that are credentials.
func CredentialKinds() []Kind {
	return []Kind{RefreshToken, AccessToken, ServiceAccount, APIKey, Session, Grant}
}

// Kinds lists all kinds.
func Kinds() []Kind { return append(CredentialKinds(), ScheduledRun) }

// IsAccount tells whether several may hold one: it is rotated then.
func (k Kind) IsAccount() bool { return k == ServiceAccount || k == APIKey }

// Renewable tells whether ending it can be made good by a login: a token, a grant
// or a session, but no account, no key and no schedule.
func (k Kind) Renewable() bool {
	switch k {
	case RefreshToken, AccessToken, Session, Grant:
		return true
	default:
		return false
	}
}
