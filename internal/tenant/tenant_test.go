package tenant_test

import (
	"encoding/json"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/leaverhq/leaver/internal/devstack/stacktest"
	"github.com/leaverhq/leaver/internal/tenant"
)

func TestMain(m *testing.M) { stacktest.Main(m) }

func ptr[T any](v T) *T { return &v }

func TestCreate_RefusesInvalidAndTakenNames(t *testing.T) {
	db, _ := stacktest.Open(t)
	s := tenant.NewStore(db)
	created, err := s.Create(t.Context(), "acme", tenant.ProfileOkta)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]error{
		"acme": tenant.ErrExists, "Acme": tenant.ErrInvalidName, "-acme": tenant.ErrInvalidName, "": tenant.ErrInvalidName,
		"a_b": tenant.ErrInvalidName, uuid.NewString(): tenant.ErrInvalidName,
	} {
		if _, err := s.Create(t.Context(), name, tenant.ProfileDefault); !errors.Is(err, want) {
			t.Errorf("create %q: %v, want %v", name, err, want)
		}
	}
	byName, err := s.ByName(t.Context(), "acme")
	if diff := cmp.Diff(created, byName); err != nil || diff != "" {
		t.Errorf("by name: %v %s", err, diff)
	}
	if _, err := s.ByID(t.Context(), uuid.New()); !errors.Is(err, tenant.ErrNotFound) {
		t.Errorf("an unknown id: %v, want ErrNotFound", err)
	}
}

func TestConfigure_ChangesOnlyWhatIsGiven(t *testing.T) {
	db, _ := stacktest.Open(t)
	s := tenant.NewStore(db)
	changes := 0
	s.OnChange(func() { changes++ })
	of, err := s.Create(t.Context(), "acme", tenant.ProfileDefault)
	if err != nil {
		t.Fatal(err)
	}
	for _, to := range []tenant.Settings{
		{ThresholdLeavers: ptr(10), RequestsPerSecond: ptr(5)},
		{Profile: ptr(tenant.ProfileEntra), UnknownAgents: ptr(tenant.UnknownAgentsAllow)},
		{SubjectIssuers: &[]string{"https://idp.example.com"}, RequestsPerSecond: ptr(0)},
	} {
		if of, err = s.Configure(t.Context(), of.ID, to); err != nil {
			t.Fatal(err)
		}
	}
	want := of
	want.Profile, want.ThresholdLeavers, want.RequestsPerSecond = tenant.ProfileEntra, ptr(10), nil
	want.UnknownAgents, want.SubjectIssuers = tenant.UnknownAgentsAllow, []string{"https://idp.example.com"}
	if diff := cmp.Diff(want, of); diff != "" || changes != 3 {
		t.Errorf("after three changes, %d reported: %s", changes, diff)
	}
	if of.NamesSubjectsOf("https://other.example.com") || !of.NamesSubjectsOf("https://idp.example.com") {
		t.Error("the subject issuers are not those that were configured")
	}
}

func TestConfigure_RefusesInvalidSettings(t *testing.T) {
	db, _ := stacktest.Open(t)
	s := tenant.NewStore(db)
	of, err := s.Create(t.Context(), "acme", tenant.ProfileDefault)
	if err != nil {
		t.Fatal(err)
	}
	for name, row := range map[string]struct {
		to   tenant.Settings
		want error
	}{
		"a negative rate":          {tenant.Settings{RequestsPerSecond: ptr(-1)}, tenant.ErrInvalidRate},
		"a share above 1":          {tenant.Settings{ThresholdShare: ptr(1.5)}, tenant.ErrInvalidPolicy},
		"a window of a second":     {tenant.Settings{ThresholdWindow: ptr(1)}, tenant.ErrInvalidPolicy},
		"an unknown orphan policy": {tenant.Settings{Orphans: ptr(tenant.Orphans("adopt"))}, tenant.ErrInvalidPolicy},
		"an unknown agent policy":  {tenant.Settings{UnknownAgents: ptr(tenant.UnknownAgents("ask"))}, tenant.ErrInvalidPolicy},
		"an issuer that is no URL": {tenant.Settings{SubjectIssuers: &[]string{"idp"}}, tenant.ErrInvalidPolicy},
	} {
		if _, err := s.Configure(t.Context(), of.ID, row.to); !errors.Is(err, row.want) {
			t.Errorf("%s: %v, want %v", name, err, row.want)
		}
	}
	if _, err := s.Configure(t.Context(), uuid.New(), tenant.Settings{}); !errors.Is(err, tenant.ErrNotFound) {
		t.Errorf("an unknown tenant: %v, want ErrNotFound", err)
	}
}

func TestConfigure_NeedsAnApproverToLoosen(t *testing.T) {
	db, _ := stacktest.Open(t)
	s := tenant.NewStore(db)
	of, err := s.Create(t.Context(), "acme", tenant.ProfileDefault)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Configure(t.Context(), of.ID, tenant.Settings{ThresholdLeavers: ptr(5)}); err != nil {
		t.Fatal(err)
	}
	for name, to := range map[string]tenant.Settings{
		"a higher number": {ThresholdLeavers: ptr(6)}, "none": {ThresholdLeavers: ptr(0)}, "a shorter window": {ThresholdWindow: ptr(60)},
	} {
		if _, err := s.Configure(t.Context(), of.ID, to); !errors.Is(err, tenant.ErrLoosens) {
			t.Errorf("%s: %v, want ErrLoosens", name, err)
		}
	}
	if _, err := s.ConfigureApproved(t.Context(), of.ID, tenant.Settings{ThresholdLeavers: ptr(6)}); err != nil {
		t.Errorf("an approved change: %v", err)
	}
}

func TestSchemas_AreCheckedUnderTheirLock(t *testing.T) {
	db, _ := stacktest.Open(t)
	s := tenant.NewStore(db)
	of, err := s.Create(t.Context(), "acme", tenant.ProfileDefault)
	if err != nil {
		t.Fatal(err)
	}
	declared := tenant.Schema{URN: "urn:x", ResourceType: "User", Definition: json.RawMessage(`{"id":"urn:x"}`)}
	accept := func(n tenant.Schema, _ []tenant.Schema) (tenant.Schema, error) { return n, nil }
	if _, err := s.PutSchema(t.Context(), of.ID, declared, accept); err != nil {
		t.Fatal(err)
	}
	refused := errors.New("refused")
	seen := 0
	_, err = s.PutSchema(t.Context(), of.ID, declared, func(n tenant.Schema, existing []tenant.Schema) (tenant.Schema, error) {
		seen = len(existing)
		return n, refused
	})
	if !errors.Is(err, refused) || seen != 1 {
		t.Errorf("a refused schema: %v with %d existing, want the refusal and one", err, seen)
	}
	keep := func([]tenant.Schema) error { return nil }
	if err := s.DeleteSchema(t.Context(), of.ID, "urn:y", keep); !errors.Is(err, tenant.ErrSchemaNotFound) {
		t.Errorf("an unknown schema: %v, want ErrSchemaNotFound", err)
	}
	if err := s.DeleteSchema(t.Context(), of.ID, "urn:x", keep); err != nil {
		t.Fatal(err)
	}
	if left, err := s.Schemas(t.Context(), of.ID); err != nil || len(left) != 0 {
		t.Errorf("left are %v, %v; want none", left, err)
	}
	changed, err := s.ByID(t.Context(), of.ID)
	if err != nil || changed.SchemaVersion != 2 {
		t.Errorf("the schema version is %d, %v; want 2", changed.SchemaVersion, err)
	}
}
