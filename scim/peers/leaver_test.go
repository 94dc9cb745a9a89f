package peers_test

import (
	"context"
	"log/slog"
	"net/http"
	"strconv"
	"testing"

	"github.com/go-chi/chi/v5"
	"github.com/google/uuid"

	"github.com/leaverhq/leaver/internal/auth"
	"github.com/leaverhq/leaver/internal/cascade"
	"github.com/leaverhq/leaver/internal/database"
	"github.com/leaverhq/leaver/internal/devstack/stacktest"
	"github.com/leaverhq/leaver/internal/directory"
	"github.com/leaverhq/leaver/internal/lifecycle"
	"github.com/leaverhq/leaver/internal/seal"
	"github.com/leaverhq/leaver/internal/tenant"
	"github.com/leaverhq/leaver/scim"
)

func TestMain(m *testing.M) { stacktest.Main(m) }

// leaver is leaver's provider with its own database and one tenant.
type leaver struct {
	http.Handler
	database stacktest.Database
	tenant   uuid.UUID
	token    string
}

// started pretends to start a workflow, because only the requests are compared.
type started struct{}

func (started) Start(context.Context, lifecycle.Event) (string, error) { return "run", nil }

// newLeaver mounts the provider like the product, without a rate limit. The pool has half as
// many connections again as the benchmarks use, because a tenant may use two thirds of it.
func newLeaver(t testing.TB) leaver {
	t.Helper()
	d := stacktest.NewDatabase(t)
	db, err := database.Open(t.Context(), d.AppURL+"&pool_max_conns="+strconv.Itoa(benchConnections*3/2))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	log := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelError}))
	keyset, err := seal.GenerateKeyset()
	if err != nil {
		t.Fatal(err)
	}
	sealer, err := seal.New(keyset)
	if err != nil {
		t.Fatal(err)
	}
	tenants := tenant.NewStore(db)
	of, err := tenants.Create(t.Context(), "acme", tenant.ProfileDefault)
	if err != nil {
		t.Fatal(err)
	}
	tokens := auth.NewStore(db, tenants)
	_, token, err := tokens.Issue(t.Context(), of.ID, auth.NewToken{Class: auth.ClassSCIM})
	if err != nil {
		t.Fatal(err)
	}
	writer := lifecycle.NewWriter(db, started{}, log)
	t.Cleanup(writer.Close)
	r := chi.NewRouter()
	r.Mount(scim.BasePath, scim.New(scim.Config{
		Directory: directory.NewStore(db), Lifecycle: writer, Transactions: cascade.NewStore(db),
		Tenants: tenants, Auth: tokens, Sealer: sealer, Log: log,
	}).Handler())
	return leaver{r, d, of.ID, token}
}

// patchBody returns a PatchOp message with the operations.
func patchBody(operations string) string {
	return `{"schemas":["urn:ietf:params:scim:api:messages:2.0:PatchOp"],"Operations":[` + operations + `]}`
}
