package directory_test

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/leaverhq/leaver/activities/connectors"
	"github.com/leaverhq/leaver/internal/database"
	"github.com/leaverhq/leaver/internal/devstack/stacktest"
	"github.com/leaverhq/leaver/internal/directory"
)

func TestMain(m *testing.M) { stacktest.Main(m) }

// person stores a live resource with names, as the writer does.
func person(t *testing.T, db *database.DB, tenant uuid.UUID, kind string, names ...directory.Name) uuid.UUID {
	t.Helper()
	id := uuid.New()
	kinds, issuers, values, originals := directory.NameColumns(names)
	if err := database.Together(t.Context(), db, tenant, database.Statement{
		SQL:  `insert into resources (tenant_id, id, type, document, created_at, modified_at) values ($1, $2, $3, '{}', now(), now())`,
		Args: []any{tenant, id, kind},
	}, database.Statement{
		SQL: `insert into principal_names (tenant_id, principal_id, kind, issuer, value, original)
			select $1, $2, n.* from unnest($3::text[], $4::text[], $5::text[], $6::text[]) n (kind, issuer, value, original)`,
		Args: []any{tenant, id, kinds, issuers, values, originals},
	}); err != nil {
		t.Fatal(err)
	}
	return id
}

func TestResolve_ByRankOfNames(t *testing.T) {
	db, _ := stacktest.Open(t)
	tenant, s := uuid.New(), directory.NewStore(db)
	ada := person(t, db, tenant, directory.TypeUser, directory.Name{Kind: "userName", Value: "ada@example.com"})
	person(t, db, tenant, directory.TypeUser, directory.Name{Kind: "emails", Value: "ada@example.com"})
	bob := person(t, db, tenant, directory.TypeUser, directory.Name{Kind: "emails", Value: "bob@example.com"})
	person(t, db, tenant, directory.TypeUser, directory.Name{Kind: "userName", Value: "eve"})
	person(t, db, tenant, directory.TypeUser, directory.Name{Kind: "externalId", Value: "eve"})
	agent := person(t, db, tenant, directory.TypeAgent, directory.Name{Kind: "agentUserName", Value: "eve"})
	person(t, db, uuid.New(), directory.TypeUser, directory.Name{Kind: "userName", Value: "elsewhere"})
	for name, row := range map[string]struct {
		ref  directory.Reference
		want uuid.UUID
		err  error
	}{
		"a userName before an address": {directory.Reference{Value: "ADA@example.com"}, ada, nil},
		"a claim has no ranks":         {directory.Reference{Value: "ada@example.com", Claim: true}, uuid.Nil, directory.ErrAmbiguousSubject},
		"an address alone":             {directory.Reference{Value: "bob@example.com"}, bob, nil},
		"two strong names":             {directory.Reference{Type: directory.TypeUser, Value: "eve"}, uuid.Nil, directory.ErrAmbiguousSubject},
		"the type of the reference":    {directory.Reference{Type: directory.TypeAgent, Value: "eve"}, agent, nil},
		"an id":                        {directory.Reference{Value: bob.String()}, bob, nil},
		"another tenant's name":        {directory.Reference{Value: "elsewhere"}, uuid.Nil, directory.ErrNotFound},
	} {
		row.ref.Issuers = []string{""}
		found, err := s.Resolve(t.Context(), tenant, row.ref)
		if found.ID != row.want || !errors.Is(err, row.err) {
			t.Errorf("%s: %s, %v; want %s, %v", name, found.ID, err, row.want, row.err)
		}
	}
}

// TestResolve_AtTheTimeOfTheToken has a name that one person had until an hour ago, and another has now.
func TestResolve_AtTheTimeOfTheToken(t *testing.T) {
	db, _ := stacktest.Open(t)
	tenant, s := uuid.New(), directory.NewStore(db)
	name := directory.Name{Kind: "externalId", Value: "00u1"}
	move := func(id uuid.UUID, columns string) {
		t.Helper()
		if err := database.Exec(t.Context(), db, tenant,
			`update principal_names set `+columns+` where principal_id = $1`, id); err != nil {
			t.Fatal(err)
		}
	}
	former := person(t, db, tenant, directory.TypeUser, name)
	move(former, `since = now() - interval '3 hours', until = now() - interval '1 hour'`)
	ref := directory.Reference{Issuers: []string{""}, Value: "00u1"}
	if _, err := s.Resolve(t.Context(), tenant, ref); !errors.Is(err, directory.ErrNotFound) {
		t.Errorf("a name that nobody has: %v, want ErrNotFound", err)
	}
	heir := person(t, db, tenant, directory.TypeUser, name)
	move(heir, `since = now() - interval '50 minutes'`)
	for issued, row := range map[time.Duration]struct {
		want uuid.UUID
		err  error
	}{
		4 * time.Hour:    {uuid.Nil, directory.ErrAmbiguousSubject}, // before leaver knew anybody by the name
		2 * time.Hour:    {former, nil},
		55 * time.Minute: {heir, nil}, // nobody had it: who has it now
		30 * time.Minute: {heir, nil},
	} {
		ref.IssuedAt = time.Now().Add(-issued)
		if found, err := s.Resolve(t.Context(), tenant, ref); !errors.Is(err, row.err) || found.ID != row.want {
			t.Errorf("a token of %s ago: %s, %v; want %s, %v", issued, found.ID, err, row.want, row.err)
		}
	}
	ref.IssuedAt = time.Time{}
	if _, err := s.Resolve(t.Context(), tenant, ref); !errors.Is(err, directory.ErrAmbiguousSubject) {
		t.Errorf("a token of an unknown time: %v, want ErrAmbiguousSubject", err)
	}
}

func TestNames_ListsTheCurrentOnes(t *testing.T) {
	db, _ := stacktest.Open(t)
	tenant := uuid.New()
	want := []directory.Name{
		{Kind: "agentUserName", Value: "writer"}, {Kind: "oAuthClientIdentifiers", Issuer: "https://idp.example.com", Value: "c-1"},
	}
	agent := person(t, db, tenant, directory.TypeAgent, append(want, directory.Name{Kind: "subject", Value: "wl-1"})...)
	if err := database.Exec(t.Context(), db, tenant,
		`update principal_names set until = now() where principal_id = $1 and kind = 'subject'`, agent); err != nil {
		t.Fatal(err)
	}
	got, err := directory.NewStore(db).Names(t.Context(), tenant, agent)
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("the names are wrong (-want +got, %v): %s", err, diff)
	}
}

// TestPrincipals_OmitsSharedNames checks the names by which downstreams are asked: a name that two
// principals have, or one of them lately had, would attribute the credentials of one to the other.
func TestPrincipals_OmitsSharedNames(t *testing.T) {
	db, _ := stacktest.Open(t)
	tenant, s := uuid.New(), directory.NewStore(db)
	ada := person(t, db, tenant, directory.TypeUser,
		directory.Name{Kind: "userName", Value: "ada@example.com", Original: "Ada@Example.com"},
		directory.Name{Kind: "emails", Value: "ada@example.com", Original: "Ada@Example.com"},
		directory.Name{Kind: "emails", Value: "team@example.com"},
		directory.Name{Kind: "externalId", Value: "00u1"},
		directory.Name{Kind: "oAuthClientIdentifiers", Value: "client-1"})
	agent := person(t, db, tenant, directory.TypeAgent, directory.Name{Kind: "agentUserName", Value: "ada@example.com"})
	bob := person(t, db, tenant, directory.TypeUser,
		directory.Name{Kind: "emails", Value: "team@example.com"}, directory.Name{Kind: "userName", Value: "bob"},
		directory.Name{Kind: "emails", Value: ada.String()})
	person(t, db, tenant, directory.TypeUser, directory.Name{Kind: "emails", Value: "team@example.com"})
	person(t, db, uuid.New(), directory.TypeUser, directory.Name{Kind: "userName", Value: "bob"}) // of another tenant
	if err := database.Exec(t.Context(), db, tenant,
		`update principal_names set until = now() where principal_id = $1`, bob); err != nil { // as a deletion does
		t.Fatal(err)
	}
	got, err := s.Principals(t.Context(), tenant, []uuid.UUID{bob, ada, agent, uuid.Nil}, true)
	if err != nil {
		t.Fatal(err)
	}
	want := []connectors.Principal{
		{ID: bob, Names: []string{"bob"}},
		{ID: ada, Names: []string{"Ada@Example.com"}},
		{ID: agent, Names: []string{"ada@example.com"}},
		{ID: uuid.Nil, Names: []string{}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	got, err = s.Principals(t.Context(), tenant, []uuid.UUID{ada, agent}, false)
	want = []connectors.Principal{{ID: ada, Names: []string{}}, {ID: agent, Names: []string{}}}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("of two cascades: %s, %v", diff, err)
	}
}
