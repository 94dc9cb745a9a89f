package peers_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strconv"
	"sync/atomic"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/internal/devstack/stacktest"
	"github.com/leaverhq/leaver/scim"
)

// The benchmarks measure requests over loopback with 16 connections and PostgreSQL on the
// same machine. The floor and elimity are measured in the same run. docs/PERFORMANCE.md
// documents how to run the benchmarks and their results.

const benchConnections = 16

// benchUsers returns the number of users: LEAVER_BENCH_USERS, or 100,000 by default.
func benchUsers() int {
	if n, err := strconv.Atoi(os.Getenv("LEAVER_BENCH_USERS")); err == nil {
		return n
	}
	return 100_000
}

// benchStack is the three providers with the same users.
type benchStack struct {
	providers []benchProvider
	ids       []string // of users, in all three
}

type benchProvider struct {
	name, address, base, token string
}

func newBenchStack(b *testing.B) *benchStack {
	b.Helper()
	l := newLeaver(b)
	pool := newPeerPool(b, l.database.OwnerURL, l.database.AppURL+"&pool_max_conns="+strconv.Itoa(benchConnections))
	s := &benchStack{ids: fill(b, l.database.OwnerURL, l.tenant)}
	for _, of := range []struct {
		name, base string
		handler    http.Handler
	}{{"floor", "", floor{pool}}, {"leaver", scim.BasePath, l}, {"elimity", "/v2", newElimity(b, pool)}} {
		server := httptest.NewServer(of.handler)
		b.Cleanup(server.Close)
		s.providers = append(s.providers, benchProvider{of.name, server.Listener.Addr().String(), of.base, l.token})
	}
	return s
}

// fill creates the same users for all providers.
func fill(b *testing.B, ownerURL string, of uuid.UUID) []string {
	b.Helper()
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, ownerURL)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = conn.Close(ctx) }()
	for _, sql := range []string{
		`insert into resources (tenant_id, id, type, unique_name, display_name, external_id, active, document, extensions, created_at, modified_at)
		 select '` + of.String() + `', gen_random_uuid(), 'User', 'user' || i || '@example.com', 'User ' || i, 'ext-' || i, true, jsonb_build_object(
		   'userName', 'user' || i || '@example.com', 'displayName', 'User ' || i, 'externalId', 'ext-' || i, 'active', true, 'title', 'Engineer',
		   'name', jsonb_build_object('givenName', 'User', 'familyName', 'Number ' || i, 'formatted', 'User Number ' || i),
		   'emails', jsonb_build_array(jsonb_build_object('type', 'work', 'value', 'user' || i || '@example.com', 'primary', true)),
		   'urn:ietf:params:scim:schemas:extension:enterprise:2.0:User', jsonb_build_object('department', 'D' || i % 50, 'employeeNumber', i::text)),
		   '{urn:ietf:params:scim:schemas:extension:enterprise:2.0:User}', now(), now() from generate_series(1, ` + strconv.Itoa(benchUsers()) + `) i`,
		`insert into peer_users (id, user_name, active, body) select id, unique_name, true, document from resources`,
		`vacuum analyze resources`, `vacuum analyze peer_users`,
	} {
		if _, err := conn.Exec(ctx, sql); err != nil {
			b.Fatal(err)
		}
	}
	rows, err := conn.Query(ctx, `select id::text from resources order by random() limit 20000`)
	if err != nil {
		b.Fatal(err)
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		b.Fatal(err)
	}
	return ids
}

// BenchmarkProviders measures each operation on each provider. The providers alternate every
// quarter of a second, so that other load on the machine affects all of them equally. Compare
// the ratios, not the rates.
func BenchmarkProviders(b *testing.B) {
	s := newBenchStack(b)
	var posted atomic.Int64
	for _, operation := range []struct {
		name    string
		request func(p benchProvider, n int) (method, path, body string)
	}{
		{"GetByID", func(_ benchProvider, n int) (string, string, string) {
			return http.MethodGet, "/Users/" + s.ids[n%len(s.ids)], ""
		}},
		{"FilterUserName", func(_ benchProvider, n int) (string, string, string) {
			return http.MethodGet, "/Users?filter=" + url.QueryEscape(fmt.Sprintf(`userName eq "user%d@example.com"`, 1+n*7919%benchUsers())), ""
		}},
		{"List100", func(benchProvider, int) (string, string, string) {
			return http.MethodGet, "/Users?startIndex=1&count=100", ""
		}},
		{"PatchTitle", func(_ benchProvider, n int) (string, string, string) {
			return http.MethodPatch, "/Users/" + s.ids[n%len(s.ids)], patchBody(fmt.Sprintf(`{"op":"replace","path":"title","value":"Engineer %d"}`, n))
		}},
		{"PatchActive", func(_ benchProvider, n int) (string, string, string) {
			// Every request changes active, so users are deactivated and reactivated.
			return http.MethodPatch, "/Users/" + s.ids[n%len(s.ids)], patchBody(fmt.Sprintf(`{"op":"replace","path":"active","value":%t}`, n/len(s.ids)%2 == 1))
		}},
		{"Post", func(_ benchProvider, _ int) (string, string, string) {
			i := posted.Add(1)
			return http.MethodPost, "/Users", fmt.Sprintf(`{"schemas":["urn:ietf:params:scim:schemas:core:2.0:User"],"userName":"new%d@example.com","active":true,"displayName":"New",`+
				`"name":{"givenName":"New","familyName":"User"},"emails":[{"type":"work","value":"new%d@example.com","primary":true}]}`, i, i)
		}},
	} {
		b.Run(operation.name, func(b *testing.B) {
			askers := make([]*stacktest.Asker, len(s.providers))
			for i, p := range s.providers {
				askers[i] = (&stacktest.Asker{
					Name: p.name, Address: p.address, Header: "Authorization: Bearer " + p.token + "\r\nContent-Type: application/scim+json\r\n",
					Request: func(n int) (string, string, string) {
						method, path, body := operation.request(p, n)
						return method, p.base + path, body
					},
				}).Connect(b, benchConnections)
			}
			stacktest.TakeTurns(b, askers...)
		})
	}
}
