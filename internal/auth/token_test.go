package auth_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/internal/auth"
	"github.com/leaverhq/leaver/internal/devstack/stacktest"
	"github.com/leaverhq/leaver/internal/tenant"
)

func TestMain(m *testing.M) { stacktest.Main(m) }

func newStore(t *testing.T) (*auth.Store, *tenant.Store, tenant.Tenant, stacktest.Database) {
	t.Helper()
	db, at := stacktest.Open(t)
	tenants := tenant.NewStore(db)
	of, err := tenants.Create(t.Context(), "acme", tenant.ProfileDefault)
	if err != nil {
		t.Fatal(err)
	}
	return auth.NewStore(db, tenants), tenants, of, at
}

func TestToken_AuthenticatesItsClassUntilItIsRevoked(t *testing.T) {
	store, _, of, _ := newStore(t)
	token, secret, err := store.Issue(t.Context(), of.ID, auth.NewToken{Class: auth.ClassPlatform})
	if err != nil {
		t.Fatal(err)
	}
	caller, err := store.Authenticate(t.Context(), secret, auth.ClassPlatform)
	if err != nil || caller.TokenID != token.ID || caller.Tenant.ID != of.ID {
		t.Fatalf("the caller is %+v, %v", caller, err)
	}
	if _, err := store.Authenticate(t.Context(), secret, auth.ClassSCIM, auth.ClassOperator); !errors.Is(err, auth.ErrUnauthorized) {
		t.Errorf("another class answered %v", err)
	}
	if err := store.Revoke(t.Context(), of.ID, token.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Authenticate(t.Context(), secret, auth.ClassPlatform); !errors.Is(err, auth.ErrUnauthorized) {
		t.Errorf("a revoked token answered %v, in spite of the cache", err)
	}
}

func TestToken_ExpiredAndInventedOnesAreRefused(t *testing.T) {
	store, _, of, _ := newStore(t)
	_, expired, err := store.Issue(t.Context(), of.ID, auth.NewToken{Class: auth.ClassSCIM, TTL: time.Nanosecond})
	if err != nil {
		t.Fatal(err)
	}
	for name, secret := range map[string]string{
		"expired": expired, "empty": "", "of another product": "ghp_x", "invented": "leaver_scim_" + strings.Repeat("A", 43),
	} {
		if _, err := store.Authenticate(t.Context(), secret, auth.ClassSCIM); !errors.Is(err, auth.ErrUnauthorized) {
			t.Errorf("%s answered %v", name, err)
		}
	}
}

// TestToken_SecretIsNotStored reads the table as its owner.
func TestToken_SecretIsNotStored(t *testing.T) {
	store, _, of, at := newStore(t)
	_, secret, err := store.Issue(t.Context(), of.ID, auth.NewToken{Class: auth.ClassSCIM, Description: "Okta"})
	if err != nil {
		t.Fatal(err)
	}
	owner, err := pgx.Connect(t.Context(), at.OwnerURL)
	if err != nil {
		t.Fatal(err)
	}
	defer owner.Close(t.Context())
	var row string
	if err := owner.QueryRow(t.Context(), `select to_jsonb(t)::text from tokens t`).Scan(&row); err != nil {
		t.Fatal(err)
	}
	if random := secret[strings.LastIndexByte(secret, '_')+1:]; strings.Contains(row, random) {
		t.Errorf("the row %s contains the secret", row)
	}
}

// TestToken_SettingsOfItsTenantAreCurrent checks that a change of the tenant reaches cached callers.
func TestToken_SettingsOfItsTenantAreCurrent(t *testing.T) {
	store, tenants, of, _ := newStore(t)
	_, secret, err := store.Issue(t.Context(), of.ID, auth.NewToken{Class: auth.ClassSCIM})
	if err != nil {
		t.Fatal(err)
	}
	profile := tenant.ProfileStrict
	for _, want := range []tenant.Profile{tenant.ProfileDefault, profile} {
		caller, err := store.Authenticate(t.Context(), secret, auth.ClassSCIM)
		if err != nil || caller.Tenant.Profile != want {
			t.Errorf("the caller's profile is %q, %v; want %q", caller.Tenant.Profile, err, want)
		}
		if _, err := tenants.Configure(t.Context(), of.ID, tenant.Settings{Profile: &profile}); err != nil {
			t.Fatal(err)
		}
	}
}

func TestToken_OperatorsBelongToNoTenant(t *testing.T) {
	store, _, of, _ := newStore(t)
	if _, _, err := store.Issue(t.Context(), of.ID, auth.NewToken{Class: auth.ClassOperator}); err == nil {
		t.Error("an operator's token was issued for a tenant")
	}
	if _, _, err := store.Issue(t.Context(), uuid.Nil, auth.NewToken{Class: auth.ClassSCIM}); err == nil {
		t.Error("a SCIM token was issued for no tenant")
	}
}

func TestBearer_RefusesRepeatedHeaders(t *testing.T) {
	for name, row := range map[string]struct {
		values []string
		want   string
	}{
		"one": {[]string{"Bearer x"}, "x"}, "another case": {[]string{"bearer x"}, "x"}, "none": {nil, ""},
		"two": {[]string{"Bearer x", "Bearer y"}, ""}, "basic": {[]string{"Basic x"}, ""},
	} {
		if got := auth.Bearer(http.Header{"Authorization": row.values}); got != row.want {
			t.Errorf("%s: %q, want %q", name, got, row.want)
		}
	}
}
