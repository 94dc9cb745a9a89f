// Package tenant stores the tenants, which are customer organisations, with their settings, tokens,
// trusted issuers and schemas.
package tenant

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/internal/audit"
	"github.com/leaverhq/leaver/internal/database"
	"github.com/leaverhq/leaver/internal/fault"
)

// Profile selects the SCIM behaviour for a tenant's IdP.
type Profile string

// The profiles.
const (
	ProfileDefault Profile = "default"
	ProfileEntra   Profile = "entra"  // 204 for group PATCHes
	ProfileOkta    Profile = "okta"   // same as default; shows operators which IdP it is
	ProfileStrict  Profile = "strict" // unknown attributes and schemas are rejected
	// ProfileInterop is the SCIM Interoperability Profile (draft-zollner-scim-interop-profile): strict, and a
	// PATCH operation without a path is rejected.
	ProfileInterop Profile = "interop"
)

// Profiles lists all profiles.
func Profiles() []Profile {
	return []Profile{ProfileDefault, ProfileEntra, ProfileOkta, ProfileStrict, ProfileInterop}
}

// Tenant is one customer organisation.
type Tenant struct {
	ID        uuid.UUID `json:"id"`
	Name      string    `json:"name"`
	Profile   Profile   `json:"profile"`
	CreatedAt time.Time `json:"createdAt"`
	// PublicDiscovery lets anyone read the tenant's discovery endpoints below
	// /t/{tenant}/scim/v2 (RFC 7643 section 5).
	PublicDiscovery bool `json:"publicDiscovery"`
	// RequestsPerSecond is the tenant's SCIM rate limit; nil means the installation's default.
	RequestsPerSecond *int `json:"requestsPerSecond,omitempty"`
	// SchemaVersion counts the changes of the tenant's own schemas.
	SchemaVersion int64 `json:"-"`
	// ThresholdLeavers and ThresholdShare are the deactivation threshold: the number of users, or the share
	// of them, that may leave within ThresholdWindow seconds before cascades are held; nil means any.
	ThresholdLeavers *int     `json:"thresholdLeavers,omitempty"`
	ThresholdShare   *float64 `json:"thresholdShare,omitempty"`
	ThresholdWindow  int      `json:"thresholdWindowSeconds"`
	// Orphans is the policy for agents that lose their last active owner.
	Orphans Orphans `json:"orphans"`
	// UnknownAgents is the policy for questions whose context.agent is missing or unknown.
	UnknownAgents UnknownAgents `json:"unknownAgents"`
	// SubjectIssuers are the issuers whose `sub` claims are names of the tenant's directory; empty
	// means every issuer.
	SubjectIssuers []string `json:"subjectIssuers"`
	// IPSIE is set for the IPSIE AL SCIM 2.0 profile: SCIM requires OAuth, operators do not deactivate or
	// restore principals, and users have no password. It requires [ProfileInterop].
	IPSIE bool `json:"ipsie"`
	// WaiverApproval is set if a waiver needs an approver.
	WaiverApproval bool `json:"waiverApproval"`
	// EvidenceDays is how long the texts of evidence are kept; nil means for ever.
	EvidenceDays *int `json:"evidenceDays,omitempty"`
	// LegalHold is the reason for which nothing of the tenant's evidence is erased; empty if there is none.
	LegalHold string `json:"legalHold,omitempty"`
}

// NamesSubjectsOf reports whether the sub claims of an issuer are names of the tenant's directory.
func (t Tenant) NamesSubjectsOf(issuer string) bool {
	return len(t.SubjectIssuers) == 0 || slices.Contains(t.SubjectIssuers, issuer)
}

// UnknownAgents is a policy for questions whose context.agent is missing or unknown.
type UnknownAgents string

// The policies.
const (
	UnknownAgentsDeny  UnknownAgents = "deny"
	UnknownAgentsAllow UnknownAgents = "allow" // the decision is for the user only
)

// Orphans is a policy for agents that lose their last active owner.
type Orphans string

// The policies.
const (
	OrphansSuspend Orphans = "suspend" // with all their credentials
	OrphansManager Orphans = "manager" // the owner's manager owns them, if there is one
)

const columns = `id, name, profile, created_at, public_discovery, requests_per_second, schema_version,
	threshold_leavers, threshold_share, threshold_window, orphans, unknown_agents, subject_issuers, ipsie, waiver_approval,
	evidence_days, legal_hold`

// Row is a tenant's row as PostgreSQL's to_jsonb writes it; Tenant(row) converts it.
type Row struct {
	ID                uuid.UUID `json:"id"`
	Name              string    `json:"name"`
	Profile           Profile   `json:"profile"`
	CreatedAt         time.Time `json:"created_at"`
	PublicDiscovery   bool      `json:"public_discovery"`
	RequestsPerSecond *int      `json:"requests_per_second"`
	SchemaVersion     int64     `json:"schema_version"`
	ThresholdLeavers  *int      `json:"threshold_leavers"`
	ThresholdShare    *float64  `json:"threshold_share"`
	ThresholdWindow   int       `json:"threshold_window"`
	Orphans           Orphans   `json:"orphans"`

	UnknownAgents  UnknownAgents `json:"unknown_agents"`
	SubjectIssuers []string      `json:"subject_issuers"`
	IPSIE          bool          `json:"ipsie"`
	WaiverApproval bool          `json:"waiver_approval"`
	EvidenceDays   *int          `json:"evidence_days"`
	LegalHold      string        `json:"legal_hold"`
}

// Settings are changes of a tenant's settings; nil means no change.
type Settings struct {
	Profile         *Profile
	PublicDiscovery *bool
	// RequestsPerSecond 0 restores the installation's default.
	RequestsPerSecond *int
	// ThresholdLeavers and ThresholdShare 0 remove the threshold.
	ThresholdLeavers *int
	ThresholdShare   *float64
	ThresholdWindow  *int // seconds
	Orphans          *Orphans
	UnknownAgents    *UnknownAgents
	SubjectIssuers   *[]string
	IPSIE            *bool
	WaiverApproval   *bool
	EvidenceDays     *int // 0 keeps evidence for ever
	LegalHold        *string
}

// The errors of this package.
var (
	ErrNotFound    = fault.New(fault.NotFound, "no such tenant")
	ErrExists      = fault.New(fault.Conflict, "a tenant with this name already exists")
	ErrInvalidRate = fault.New(fault.Unprocessable, "requestsPerSecond must be between 0 (use the default) and 100000")
	// ErrLoosens is returned for settings that only an approver may change: see [Settings.Loosens].
	ErrLoosens = fault.New(fault.Forbidden,
		"loosening the deactivation threshold or the approval of waivers, keeping evidence for a shorter time and lifting "+
			"a legal hold need an approver's token (`leaver bootstrap --class approver`)")
	ErrInvalidPolicy = fault.New(fault.Unprocessable, "thresholdLeavers must be between 0 (none) and 1000000, "+
		"thresholdShare between 0 (none) and 1, thresholdWindowSeconds between 60 and 604800, orphans suspend or manager, "+
		"unknownAgents deny or allow, evidenceDays 0 (for ever) or between 30 and 36500, legalHold empty or a reason of at "+
		"most 512 bytes, and "+
		"subjectIssuers at most 20 URLs of at most 1024 bytes")
	// ErrIPSIE is returned for settings that the IPSIE AL SCIM 2.0 profile does not permit (sections 4.2, 4.3).
	ErrIPSIE = fault.New(fault.Unprocessable,
		"ipsie requires the profile interop, and requestsPerSecond of at least 25 or the installation's default")
	ErrInvalidName = fault.New(fault.Invalid, "a tenant name must be 1 to 63 characters of a-z, 0-9 and '-', "+
		"starting with a letter or digit, and not a UUID")
)

var namePattern = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)

// Store reads and writes tenants.
type Store struct {
	db      *database.DB
	changed []func()
}

// NewStore returns the store on db.
func NewStore(db *database.DB) *Store { return &Store{db: db} }

// OnChange registers a function that the store calls after each change of a tenant's settings
// or schemas by this process. Call it before the store is used.
func (s *Store) OnChange(f func()) { s.changed = append(s.changed, f) }

// Create adds a tenant. Errors: [ErrInvalidName], [ErrExists].
func (s *Store) Create(ctx context.Context, name string, profile Profile) (Tenant, error) {
	if _, err := uuid.Parse(name); err == nil || !namePattern.MatchString(name) {
		return Tenant{}, ErrInvalidName
	}
	var t Tenant
	err := s.db.InNoTenant(ctx, func(tx pgx.Tx) (err error) {
		t, err = one(ctx, tx, `
			insert into tenants (id, name, profile) values ($1, $2, $3) returning `+columns, uuid.New(), name, profile)
		if err != nil {
			return err
		}
		return audit.Record(ctx, tx, t.ID, audit.TenantCreate, t.Name, nil, t)
	})
	if database.IsUniqueViolation(err, "tenants_name_key") {
		return Tenant{}, ErrExists
	}
	if err != nil {
		return Tenant{}, fmt.Errorf("create tenant %s: %w", name, err)
	}
	return t, nil
}

// List returns all tenants by name.
func (s *Store) List(ctx context.Context) ([]Tenant, error) {
	tenants, err := database.Rows(ctx, s.db, uuid.Nil, pgx.RowToStructByPos[Tenant],
		`select `+columns+` from tenants order by name`)
	if err != nil {
		return nil, fmt.Errorf("list tenants: %w", err)
	}
	return tenants, nil
}

// ByName returns the tenant with a name. Error: [ErrNotFound].
func (s *Store) ByName(ctx context.Context, name string) (Tenant, error) {
	if !namePattern.MatchString(name) {
		return Tenant{}, ErrNotFound
	}
	return s.find(ctx, `select `+columns+` from tenants where name = $1`, name)
}

// ByID returns the tenant with an id. Error: [ErrNotFound].
func (s *Store) ByID(ctx context.Context, id uuid.UUID) (Tenant, error) {
	return s.find(ctx, `select `+columns+` from tenants where id = $1`, id)
}

func one(ctx context.Context, tx pgx.Tx, sql string, args ...any) (Tenant, error) {
	rows, err := tx.Query(ctx, sql, args...)
	if err != nil {
		return Tenant{}, err
	}
	return pgx.CollectExactlyOneRow(rows, pgx.RowToStructByPos[Tenant])
}

func (s *Store) find(ctx context.Context, sql string, args ...any) (Tenant, error) {
	t, err := database.Row(ctx, s.db, uuid.Nil, pgx.RowToStructByPos[Tenant], sql, args...)
	if errors.Is(err, pgx.ErrNoRows) {
		return Tenant{}, ErrNotFound
	}
	if err != nil {
		return Tenant{}, fmt.Errorf("find tenant: %w", err)
	}
	return t, nil
}

// Configure changes a tenant's settings. Errors: [ErrNotFound], [ErrInvalidRate],
// [ErrInvalidPolicy], [ErrLoosens], [ErrIPSIE].
func (s *Store) Configure(ctx context.Context, id uuid.UUID, to Settings) (Tenant, error) {
	return s.configure(ctx, id, to, func(before Tenant) error {
		if to.Loosens(before) {
			return ErrLoosens
		}
		return nil
	})
}

// ConfigureApproved is [Store.Configure] for settings that may loosen the threshold on mass deactivation or the
// approval of waivers.
func (s *Store) ConfigureApproved(ctx context.Context, id uuid.UUID, to Settings) (Tenant, error) {
	return s.configure(ctx, id, to, func(Tenant) error { return nil })
}

func (s *Store) configure(
	ctx context.Context, id uuid.UUID, to Settings, allow func(before Tenant) error,
) (Tenant, error) {
	if to.RequestsPerSecond != nil && (*to.RequestsPerSecond < 0 || *to.RequestsPerSecond > 100_000) {
		return Tenant{}, ErrInvalidRate
	}
	if !to.validPolicy() {
		return Tenant{}, ErrInvalidPolicy
	}
	var t Tenant
	err := s.db.InNoTenant(ctx, func(tx pgx.Tx) error {
		before, err := one(ctx, tx, `select `+columns+` from tenants where id = $1 for update`, id)
		if err != nil {
			return err
		}
		if err := allow(before); err != nil {
			return err
		}
		t, err = one(ctx, tx, `
			update tenants set profile = coalesce($2, profile), public_discovery = coalesce($3, public_discovery),
			       requests_per_second = case when $4::int is null then requests_per_second else nullif($4, 0) end,
			       threshold_leavers = case when $5::int is null then threshold_leavers else nullif($5, 0) end,
			       threshold_share = case when $6::float8 is null then threshold_share else nullif($6, 0) end,
			       threshold_window = coalesce($7, threshold_window), orphans = coalesce($8, orphans),
			       unknown_agents = coalesce($9, unknown_agents), subject_issuers = coalesce($10, subject_issuers),
			       ipsie = coalesce($11, ipsie), waiver_approval = coalesce($12, waiver_approval),
			       evidence_days = case when $13::int is null then evidence_days else nullif($13, 0) end,
			       legal_hold = coalesce($14, legal_hold)
			 where id = $1 returning `+columns, id, to.Profile, to.PublicDiscovery, to.RequestsPerSecond,
			to.ThresholdLeavers, to.ThresholdShare, to.ThresholdWindow, to.Orphans, to.UnknownAgents, to.SubjectIssuers,
			to.IPSIE, to.WaiverApproval, to.EvidenceDays, to.LegalHold)
		if err != nil {
			return err
		}
		if t.IPSIE && (t.Profile != ProfileInterop || t.RequestsPerSecond != nil && *t.RequestsPerSecond < minIPSIERate) {
			return ErrIPSIE
		}
		return audit.Record(ctx, tx, id, audit.TenantConfigure, t.Name, before, t)
	})
	s.notifyChanged()
	if errors.Is(err, pgx.ErrNoRows) {
		return Tenant{}, ErrNotFound
	}
	if errors.Is(err, ErrLoosens) || errors.Is(err, ErrIPSIE) {
		return Tenant{}, err
	}
	if err != nil {
		return Tenant{}, fmt.Errorf("configure tenant: %w", err)
	}
	return t, nil
}

// Loosens reports whether settings would raise a tenant's threshold on mass deactivation: by
// a higher number or share, by removing one, or by a shorter window, or would let operators waive alone, or would erase
// evidence sooner, by a shorter time or by lifting a legal hold.
func (to Settings) Loosens(t Tenant) bool {
	higher := to.ThresholdLeavers != nil && t.ThresholdLeavers != nil &&
		(*to.ThresholdLeavers == 0 || *to.ThresholdLeavers > *t.ThresholdLeavers)
	larger := to.ThresholdShare != nil && t.ThresholdShare != nil &&
		(*to.ThresholdShare == 0 || *to.ThresholdShare > *t.ThresholdShare)
	shorter := to.ThresholdWindow != nil && *to.ThresholdWindow < t.ThresholdWindow &&
		(t.ThresholdLeavers != nil || t.ThresholdShare != nil)
	alone := to.WaiverApproval != nil && !*to.WaiverApproval && t.WaiverApproval
	sooner := to.EvidenceDays != nil && *to.EvidenceDays > 0 &&
		(t.EvidenceDays == nil || *to.EvidenceDays < *t.EvidenceDays)
	lifted := to.LegalHold != nil && *to.LegalHold == "" && t.LegalHold != ""
	return higher || larger || shorter || alone || sooner || lifted
}

// OnlyThreshold reports whether settings change nothing but what an approver may loosen: see [Settings.Loosens].
func (to Settings) OnlyThreshold() bool {
	return to.Profile == nil && to.PublicDiscovery == nil && to.RequestsPerSecond == nil && to.Orphans == nil &&
		to.UnknownAgents == nil && to.SubjectIssuers == nil && to.IPSIE == nil
}

func (to Settings) validPolicy() bool {
	return (to.ThresholdLeavers == nil || *to.ThresholdLeavers >= 0 && *to.ThresholdLeavers <= 1_000_000) &&
		(to.ThresholdShare == nil || *to.ThresholdShare >= 0 && *to.ThresholdShare <= 1) &&
		(to.ThresholdWindow == nil || *to.ThresholdWindow >= 60 && *to.ThresholdWindow <= 604_800) &&
		(to.Orphans == nil || *to.Orphans == OrphansSuspend || *to.Orphans == OrphansManager) &&
		(to.UnknownAgents == nil || *to.UnknownAgents == UnknownAgentsDeny || *to.UnknownAgents == UnknownAgentsAllow) &&
		(to.EvidenceDays == nil || *to.EvidenceDays == 0 ||
			*to.EvidenceDays >= minEvidenceDays && *to.EvidenceDays <= maxEvidenceDays) &&
		(to.LegalHold == nil || *to.LegalHold == "" || validReason(*to.LegalHold)) &&
		(to.SubjectIssuers == nil || validIssuers(*to.SubjectIssuers))
}

func validReason(reason string) bool {
	return strings.TrimSpace(reason) != "" && len(reason) <= maxReason && utf8.ValidString(reason) &&
		!strings.ContainsFunc(reason, unicode.IsControl)
}

func validIssuers(issuers []string) bool {
	invalid := func(issuer string) bool { return !ValidIssuer(issuer) }
	return len(issuers) <= maxSubjectIssuers && !slices.ContainsFunc(issuers, invalid)
}

const (
	// minEvidenceDays is the shortest time for which evidence is kept: cascades last days, and auditors ask later.
	minEvidenceDays = 30
	maxEvidenceDays = 36_500
	maxReason       = 512 // bytes
	// minIPSIERate is the minimum rate limit of section 4.3, in requests a second.
	minIPSIERate      = 25
	maxSubjectIssuers = 20
	maxIssuer         = 1024 // bytes
)

// ValidIssuer reports whether a text can be the issuer of tokens: an absolute URL.
func ValidIssuer(issuer string) bool {
	u, err := url.Parse(issuer)
	return err == nil && u.Scheme != "" && u.Host != "" && len(issuer) <= maxIssuer
}

func (s *Store) notifyChanged() {
	for _, f := range s.changed {
		f()
	}
}
