package e2e

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/leaverhq/leaver/internal/config"
	"github.com/leaverhq/leaver/internal/devstack/stacktest"
)

const (
	accessUsers       = 20_000
	accessConnections = 16
)

// fillAccess inserts $2 users, each with an agent that holds a credential and with an entitlement
// to a scope.
const fillAccess = `
	with u as (
	  insert into resources (tenant_id, id, type, unique_name, active, document, created_at, modified_at)
	  select $1, gen_random_uuid(), 'User', 'user' || i, true, '{}', now(), now()
	    from generate_series(1, $2) i returning id, unique_name),
	a as (
	  insert into resources (tenant_id, id, type, unique_name, active, document, created_at, modified_at)
	  select $1, gen_random_uuid(), 'Agent', 'agent-of-' || unique_name, true, '{}', now(), now()
	    from u returning id, unique_name),
	pairs as (select u.id user_id, a.id agent_id from u join a on a.unique_name = 'agent-of-' || u.unique_name),
	e as (
	  insert into edges (tenant_id, source_id, attribute, target_id)
	  select $1, agent_id, 'owners', user_id from pairs),
	n as (
	  insert into entitlements (tenant_id, principal_id, name, sources)
	  select $1, user_id, 'scope:deploy', '[]' from pairs),
	names as (
	  insert into principal_names (tenant_id, principal_id, kind, value, original)
	  select $1, id, 'userName', unique_name, unique_name from u
	  union all select $1, id, 'agentUserName', unique_name, unique_name from a)
	insert into credentials (tenant_id, id, principal_id, agent_id, kind, connector, reference, issued_at)
	select $1, gen_random_uuid(), user_id, agent_id, 'api_key', 'noop', 'key', now() from pairs`

// BenchmarkDecision requests decisions on an agent that acts for its owner, with a credential and
// with a scope, by ids and by names. The floor is a bare net/http and pgx handler that selects one row.
func BenchmarkDecision(b *testing.B) {
	i := installAPI(b, func(c *config.Config) { c.Database.URL += fmt.Sprintf("&pool_max_conns=%d", accessConnections) })
	pool, err := pgxpool.New(b.Context(),
		fmt.Sprintf("%s&pool_max_conns=%d", i.cfg.Database.MigrateURL, accessConnections))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(pool.Close)
	if _, err := pool.Exec(b.Context(), fillAccess, i.tenant.ID, accessUsers); err != nil {
		b.Fatal(err)
	}
	if _, err := pool.Exec(b.Context(), `vacuum analyze`); err != nil {
		b.Fatal(err)
	}
	var users, agents, items, names []string
	if err := pool.QueryRow(b.Context(), `
		select array_agg(c.principal_id::text order by c.id), array_agg(c.agent_id::text order by c.id),
		       array_agg(c.id::text order by c.id), array_agg(u.unique_name order by c.id)
		  from credentials c join resources u on u.id = c.principal_id`).
		Scan(&users, &agents, &items, &names); err != nil {
		b.Fatal(err)
	}
	floor := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var active bool
		if err := pool.QueryRow(r.Context(), `select active from resources where tenant_id = $1 and id = $2`,
			i.tenant.ID, r.URL.Path[1:]).Scan(&active); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		_, _ = fmt.Fprintf(w, `{"decision":%t}`, active)
	}))
	b.Cleanup(floor.Close)
	for name, resource := range map[string]func(n int) string{
		"Credential": func(n int) string { return fmt.Sprintf(`{"type":"credential","id":%q}`, items[n]) },
		"Scope":      func(int) string { return `{"type":"service","id":"api"}` },
	} {
		b.Run(name, func(b *testing.B) {
			stacktest.TakeTurns(b,
				(&stacktest.Asker{
					Name: "floor", Address: floor.Listener.Addr().String(),
					Request: func(n int) (string, string, string) {
						return http.MethodGet, "/" + agents[n%len(agents)], ""
					},
				}).Connect(b, accessConnections),
				(&stacktest.Asker{
					Name: "leaver", Address: i.url[len("http://"):],
					Header: "Authorization: Bearer " + i.platform + "\r\nContent-Type: application/json\r\n",
					Request: func(n int) (string, string, string) {
						n %= len(agents)
						return http.MethodPost, "/access/v1/evaluation", fmt.Sprintf(
							`{"subject":{"type":"agent","id":%q,"properties":{"on_behalf_of":%q}},"action":{"name":"deploy"},"resource":%s}`,
							agents[n], users[n], resource(n))
					},
				}).Connect(b, accessConnections),
				(&stacktest.Asker{
					Name: "names", Address: i.url[len("http://"):],
					Header: "Authorization: Bearer " + i.platform + "\r\nContent-Type: application/json\r\n",
					Request: func(n int) (string, string, string) {
						n %= len(agents)
						return http.MethodPost, "/access/v1/evaluation", fmt.Sprintf(
							`{"subject":{"type":"agent","id":%q,"properties":{"on_behalf_of":%q}},"action":{"name":"deploy"},"resource":%s}`,
							"agent-of-"+names[n], names[n], resource(n))
					},
				}).Connect(b, accessConnections))
		})
	}
}
