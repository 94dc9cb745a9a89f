package connectors

// Kind is the kind of an item.
type Kind string

// The kinds.
const (
	RefreshToken   Kind = "refresh_token"
	AccessToken    Kind = "access_token"
	ServiceAccount Kind = "service_account"
	APIKey         Kind = "api_key"
	Session        Kind = "session"
	// Grant is the authorization of a client by a subject at an authorization server. All of
	// its tokens end with it.
	Grant        Kind = "grant"
	ScheduledRun Kind = "scheduled_run"
)

// CredentialKinds lists the kinds that are credentials.
func CredentialKinds() []Kind {
	return []Kind{RefreshToken, AccessToken, ServiceAccount, APIKey, Session, Grant}
}

// Kinds lists all kinds.
func Kinds() []Kind { return append(CredentialKinds(), ScheduledRun) }

// IsAccount reports whether several principals may hold one account. A shared account is
// rotated instead of revoked.
func (k Kind) IsAccount() bool { return k == ServiceAccount || k == APIKey }

// Renewable reports whether a login restores an ended item: a token, a grant or a session,
// but not an account, a key or a schedule.
func (k Kind) Renewable() bool {
	switch k {
	case RefreshToken, AccessToken, Session, Grant:
		return true
	default:
		return false
	}
}
