package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/google/uuid"

	"github.com/leaverhq/leaver/internal/devstack"
	"github.com/leaverhq/leaver/internal/devstack/openid"
	"github.com/leaverhq/leaver/internal/evidence"
)

// broker is a token broker with Nango's API for connections. Deleting a connection deletes the broker's own copy of
// the token, and the token lives on at the vendor.
type broker struct {
	url    string
	secret string

	mu          sync.Mutex
	connections map[string]bool
}

func startBroker(ctx context.Context) (*broker, func(), error) {
	listener, url, err := devstack.Listen(ctx, "the broker")
	if err != nil {
		return nil, nil, err
	}
	b := &broker{
		url: url, secret: rand.Text(), connections: map[string]bool{brokerConnection: true},
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/connections/{id}", b.serveConnection)
	mux.HandleFunc("GET /connections", b.listConnections)
	return b, devstack.Serve(ctx, listener, mux), nil
}

// The only connection, and the user who made it.
const (
	brokerConnection = "cyd-workspace"
	brokerUser       = "cyd@example.com"
)

// listConnections serves the list of a user's connections.
func (b *broker) listConnections(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case r.Header.Get("Authorization") != "Bearer "+b.secret:
		w.WriteHeader(http.StatusUnauthorized)
	case r.URL.Query().Get("endUserId") != brokerUser || !b.connections[brokerConnection]:
		_, _ = io.WriteString(w, `{"connections":[]}`)
	default:
		_, _ = fmt.Fprintf(w, `{"connections":[{"connection_id":%q,"provider_config_key":%q,"end_user":{"id":%q}}]}`,
			brokerConnection, openid.ClientID, brokerUser)
	}
}

// serveConnection serves GET and DELETE of a connection.
func (b *broker) serveConnection(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	if r.Header.Get("Authorization") != "Bearer "+b.secret {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	id := r.PathValue("id")
	switch {
	case !b.connections[id]:
		w.WriteHeader(http.StatusBadRequest)
		_, _ = io.WriteString(w, `{"error":{"code":"unknown_connection"}}`)
	case r.Method == http.MethodDelete:
		delete(b.connections, id)
		_, _ = io.WriteString(w, `{"success":true}`)
	default:
		_, _ = io.WriteString(w, `{"connection_id":"`+brokerConnection+`"}`)
	}
}

// leaveAtBroker lets Cyd leave, whose token is held by a broker that only forgets it: leaver must not call that an end.
func (d *drill) leaveAtBroker(ctx context.Context) error {
	var cyd struct {
		ID string `json:"id"`
	}
	user := map[string]any{
		"schemas": []string{"urn:ietf:params:scim:schemas:core:2.0:User"}, "userName": brokerUser, "active": true,
	}
	if err := d.call(ctx, http.MethodPost, "/scim/v2/Users", d.scim, user, &cyd); err != nil {
		return err
	}
	grant, err := d.peers.openid.Authorize(ctx, cyd.ID)
	if err != nil {
		return err
	}
	if err := d.call(ctx, http.MethodPost, "/v1/credentials", d.platform, map[string]any{
		"principalId": cyd.ID, "kind": "grant", "connector": "broker", "reference": openid.ClientID + "/" + brokerConnection,
	}, nil); err != nil {
		return err
	}
	deactivation := map[string]any{"op": "replace", "path": "active", "value": false}
	if err := d.patch(ctx, "/Users/"+cyd.ID, deactivation); err != nil {
		return err
	}
	c, err := d.awaitCascade(ctx, cyd.ID, uuid.Nil)
	if err != nil {
		return err
	}
	records, err := d.evidenceOf(ctx, c)
	if err != nil {
		return err
	}
	if c.Outcome != "failed" || !slices.ContainsFunc(records, func(r evidence.Record) bool {
		return strings.Contains(r.Detail, "vendor's own connector")
	}) {
		return fmt.Errorf("the cascade at the broker closed %s with %+v, want failed and the vendor's connector",
			c.Outcome, records)
	}
	alive, err := d.peers.openid.Active(ctx, grant.RefreshToken)
	if err != nil {
		return err
	}
	if !alive {
		return errors.New("the vendor's token is dead, so the broker did more than to forget it")
	}
	d.rows = append(d.rows, []string{
		"Cyd's connection at a broker", "token broker", "-", "-",
		"failed, as it must: the broker forgot it, and the vendor still says active: true",
	})
	return nil
}
