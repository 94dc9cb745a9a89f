// Package peers_test compares the responses and the throughput of leaver with those of two
// other providers on the same PostgreSQL.
package peers_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"

	elimity "github.com/elimity-com/scim"
	elimityerrors "github.com/elimity-com/scim/errors"
	"github.com/elimity-com/scim/optional"
	"github.com/elimity-com/scim/schema"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/scim2/filter-parser/v2"
)

// The peers are the floor, a bare handler, and a service provider that uses
// github.com/elimity-com/scim. Their writes do the same work as leaver's (peerWork).

// peerTable creates the tables of both peers.
const peerTable = `
	create table peer_users (
	  id uuid primary key, user_name text not null unique, active boolean, body jsonb not null);
	create table peer_changes (like changes including all);
	create table peer_events (like lifecycle_events including all);
	create table peer_restrictions (like restrictions including all);
	grant select, insert, update, delete on peer_users, peer_changes, peer_events, peer_restrictions to public`

// peerWork is the additional work of a write in leaver, in the same statement: the audit row,
// the outbox event and, for a deactivation, the restriction. $1 is the user, $2 the event,
// $3 its kind, $4 the trigger and $5 the changed attribute; saved writes the user.
const peerWork = `,
	audited as (
	  insert into peer_changes (tenant_id, resource_id, resource_type, version, trigger, actor, changed) values ($1, $1, 'User', 2, $4, 'peer', array[$5])),
	restricted as (
	  insert into peer_restrictions (tenant_id, principal_id, cause, event_id) select $1, $1, 'deactivated', $2 where $3 = 'leaver'
	  on conflict (tenant_id, principal_id) do update set event_id = excluded.event_id),
	lifted as (
	  delete from peer_restrictions where $3 = 'joiner' and $4 = 'scim-patch' and tenant_id = $1 and principal_id = $1),
	event as (
	  insert into peer_events (tenant_id, id, kind, principal_id, principal_type, trigger, actor, changed, workflow_id, due_at)
	  values ($1, $2, $3, $1, 'User', $4, 'peer', array[$5], $3 || '/' || $1 || '/' || $2, now()))
	select body from saved`

// meaning returns the kind of event and the changed attribute of a PATCH.
func meaning(sent string) (kind, attribute string) {
	switch {
	case !strings.Contains(sent, "active"):
		return "mover", "title"
	case strings.Contains(sent, "true"):
		return "joiner", "active"
	}
	return "leaver", "active"
}

func newPeerPool(t testing.TB, ownerURL, appURL string) *pgxpool.Pool {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), ownerURL)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	if _, err := conn.Exec(t.Context(), peerTable); err != nil {
		t.Fatal(err)
	}
	pool, err := pgxpool.New(t.Context(), appURL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}

// floor returns stored rows without any SCIM processing.
type floor struct{ pool *pgxpool.Pool }

func (f floor) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var body []byte
	var err error
	id := strings.TrimPrefix(r.URL.Path, "/Users/")
	switch {
	case r.Method == http.MethodGet && r.URL.Path != "/Users":
		err = f.pool.QueryRow(r.Context(), `select body from peer_users where id = $1`, id).Scan(&body)
	case r.Method == http.MethodGet && r.URL.Query().Has("filter"):
		name := strings.Trim(strings.TrimPrefix(r.URL.Query().Get("filter"), "userName eq "), `"`)
		err = f.pool.QueryRow(r.Context(), `select body from peer_users where user_name = $1`, name).Scan(&body)
		body = fmt.Appendf(nil, `{"totalResults":1,"Resources":[%s]}`, body)
	case r.Method == http.MethodGet:
		var rows pgx.Rows
		if rows, err = f.pool.Query(r.Context(), `select body::text from peer_users order by id limit 100`); err == nil {
			var list []string
			list, err = pgx.CollectRows(rows, pgx.RowTo[string])
			body = fmt.Appendf(nil, `{"Resources":[%s]}`, strings.Join(list, ","))
		}
	case r.Method == http.MethodPatch:
		sent, _ := io.ReadAll(r.Body)
		kind, attribute := meaning(string(sent))
		value := strconv.FormatBool(kind != "leaver")
		if attribute == "title" {
			value = `"Engineer"`
		}
		err = f.pool.QueryRow(r.Context(), `
			with saved as (
			  update peer_users set active = $3 <> 'leaver', body = body || jsonb_build_object($5::text, $6::jsonb) where id = $1 returning body)`+peerWork,
			id, uuid.New(), kind, "scim-patch", attribute, value).Scan(&body)
	case r.Method == http.MethodPost:
		body, _ = io.ReadAll(r.Body)
		var sent struct {
			UserName string `json:"userName"`
		}
		if err = json.Unmarshal(body, &sent); err == nil {
			err = f.pool.QueryRow(r.Context(), `
				with saved as (
				  insert into peer_users (id, user_name, active, body) values ($1, $6, true, $7) returning body)`+peerWork,
				uuid.New(), uuid.New(), "joiner", "scim-post", "userName", sent.UserName, body).Scan(&body)
		}
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/scim+json")
	_, _ = w.Write(body)
}

// newElimity returns a provider of users with github.com/elimity-com/scim and pgx, written
// according to its documentation.
func newElimity(t testing.TB, pool *pgxpool.Pool) http.Handler {
	t.Helper()
	server, err := elimity.NewServer(&elimity.ServerArgs{
		ServiceProviderConfig: &elimity.ServiceProviderConfig{SupportFiltering: true, SupportPatch: true},
		ResourceTypes: []elimity.ResourceType{{
			ID: optional.NewString("User"), Name: "User", Endpoint: "/Users", Schema: schema.CoreUserSchema(),
			SchemaExtensions: []elimity.SchemaExtension{{Schema: schema.ExtensionEnterpriseUser()}}, Handler: elimityUsers{pool},
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return server
}

type elimityUsers struct{ pool *pgxpool.Pool }

func (e elimityUsers) Create(r *http.Request, attributes elimity.ResourceAttributes) (elimity.Resource, error) {
	id := uuid.New()
	body, err := json.Marshal(attributes)
	if err != nil {
		return elimity.Resource{}, err
	}
	_, err = e.pool.Exec(r.Context(), `
		with saved as (
		  insert into peer_users (id, user_name, active, body) values ($1, $6, $7, $8) returning body)`+peerWork,
		id, uuid.New(), "joiner", "scim-post", "userName", attributes["userName"], attributes["active"], body)
	if err != nil && strings.Contains(err.Error(), "23505") {
		return elimity.Resource{}, elimityerrors.ScimErrorUniqueness
	}
	return elimity.Resource{ID: id.String(), Attributes: attributes}, err
}

func (e elimityUsers) Get(r *http.Request, id string) (elimity.Resource, error) {
	return e.one(e.pool.QueryRow(r.Context(), `select body from peer_users where id = $1`, id), id)
}

func (e elimityUsers) one(row pgx.Row, id string) (elimity.Resource, error) {
	resource := elimity.Resource{ID: id}
	err := row.Scan(&resource.Attributes)
	if errors.Is(err, pgx.ErrNoRows) {
		return elimity.Resource{}, elimityerrors.ScimErrorResourceNotFound(id)
	}
	return resource, err
}

func (e elimityUsers) GetAll(r *http.Request, p elimity.ListRequestParams) (elimity.Page, error) {
	where, args := "", []any{}
	if p.FilterValidator != nil {
		compare, ok := p.FilterValidator.GetFilter().(*filter.AttributeExpression)
		if !ok || !strings.EqualFold(compare.AttributePath.AttributeName, "userName") || compare.Operator != filter.EQ {
			return elimity.Page{}, elimityerrors.ScimErrorInvalidFilter
		}
		where, args = " where user_name = $1", append(args, compare.CompareValue)
	}
	var page elimity.Page
	if err := e.pool.QueryRow(r.Context(), `select count(*) from peer_users`+where, args...).Scan(&page.TotalResults); err != nil {
		return page, err
	}
	rows, err := e.pool.Query(r.Context(), fmt.Sprintf(`select id::text, body from peer_users%s order by peer_users.id limit %d offset %d`,
		where, p.Count, p.StartIndex-1), args...)
	if err != nil {
		return page, err
	}
	page.Resources, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (elimity.Resource, error) {
		var resource elimity.Resource
		return resource, row.Scan(&resource.ID, &resource.Attributes)
	})
	return page, err
}

func (e elimityUsers) Replace(r *http.Request, id string, attributes elimity.ResourceAttributes) (elimity.Resource, error) {
	return e.store(r.Context(), e.pool, id, "mover", "title", attributes)
}

type querier interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

func (e elimityUsers) store(ctx context.Context, in querier, id, kind, changed string, attributes elimity.ResourceAttributes) (elimity.Resource, error) {
	body, err := json.Marshal(attributes)
	if err != nil {
		return elimity.Resource{}, err
	}
	return e.one(in.QueryRow(ctx, `
		with saved as (
		  update peer_users set user_name = $6, active = $7, body = $8 where id = $1 returning body)`+peerWork,
		id, uuid.New(), kind, "scim-patch", changed, attributes["userName"], attributes["active"], body), id)
}

func (e elimityUsers) Delete(r *http.Request, id string) error {
	tag, err := e.pool.Exec(r.Context(), `delete from peer_users where id = $1`, id)
	if err == nil && tag.RowsAffected() == 0 {
		return elimityerrors.ScimErrorResourceNotFound(id)
	}
	return err
}

// Patch applies operations on top-level attributes, which are all that the tests send. The
// library does not apply operations itself.
func (e elimityUsers) Patch(r *http.Request, id string, operations []elimity.PatchOperation) (resource elimity.Resource, err error) {
	err = pgx.BeginFunc(r.Context(), e.pool, func(tx pgx.Tx) error {
		resource, err = e.one(tx.QueryRow(r.Context(), `select body from peer_users where id = $1 for update`, id), id)
		if err != nil {
			return err
		}
		kind, changed := "mover", "title"
		for _, o := range operations {
			values, ok := o.Value.(map[string]any)
			if o.Path != nil {
				values, ok = map[string]any{o.Path.AttributePath.AttributeName: o.Value}, true
			}
			if !ok {
				return elimityerrors.ScimErrorInvalidValue
			}
			for name, value := range values {
				if o.Op == elimity.PatchOperationRemove {
					delete(resource.Attributes, name)
				} else {
					resource.Attributes[name] = value
				}
				if name == "active" {
					kind, changed = "leaver", "active"
					if value == true {
						kind = "joiner"
					}
				}
			}
		}
		resource, err = e.store(r.Context(), tx, id, kind, changed, resource.Attributes)
		return err
	})
	return resource, err
}
