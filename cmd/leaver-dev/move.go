package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/leaverhq/leaver/internal/authzen"
	"github.com/leaverhq/leaver/internal/lifecycle"
)

// rules are the mapping rules that the drill applies.
const rules = `rules:
  - {group: engineering-prod, team: Engineering, scopes: [deploy]}
`

const group = "engineering-prod"

// move adds Ada to a group and removes her, and verifies that only the key granted under the
// group's entitlement is ended.
func (d *drill) move(ctx context.Context) error {
	d.say("She joins %s in the IdP, and so the Engineering team here; her agent gets a key for that.", group)
	if err := d.call(ctx, http.MethodPut, d.operate("/mapping"), d.operator,
		map[string]string{"document": rules, "reason": "the drill"}, nil); err != nil {
		return err
	}
	var created struct {
		ID string `json:"id"`
	}
	body := map[string]any{"schemas": []string{"urn:ietf:params:scim:schemas:core:2.0:Group"}, "displayName": group}
	if err := d.call(ctx, http.MethodPost, "/scim/v2/Groups", d.scim, body, &created); err != nil {
		return err
	}
	joined := time.Now()
	if err := d.patch(ctx, "/Groups/"+created.ID,
		map[string]any{"op": "add", "path": "members", "value": []map[string]string{{"value": d.ada}}}); err != nil {
		return err
	}
	if err := d.awaitEntitled(ctx, true); err != nil {
		return err
	}
	d.rows = append(d.rows,
		[]string{"Ada joins " + group, "leaver", "-", elapsed(joined), "she is on Engineering, and may deploy"})

	granted := d.apiKey("API key granted under team:Engineering", "key-of-the-team", 0)
	other := d.apiKey("API key that the move left alone", "key-of-her-own", 0)
	for h, entitlement := range map[*holding]string{granted: "team:Engineering", other: ""} {
		if err := d.registerKey(ctx, h, entitlement); err != nil {
			return err
		}
	}
	d.held = slices.DeleteFunc(d.held, func(h *holding) bool { return h == granted })
	if err := errors.Join(granted.use(ctx), other.use(ctx)); err != nil {
		return fmt.Errorf("a new key does not work: %w", err)
	}

	d.say("She leaves the group.")
	left := time.Now()
	if err := d.patch(ctx, "/Groups/"+created.ID,
		map[string]any{"op": "remove", "path": `members[value eq "` + d.ada + `"]`}); err != nil {
		return err
	}
	if err := d.awaitEntitled(ctx, false); err != nil {
		return err
	}
	return d.proveMoved(ctx, left, granted, other)
}

// proveMoved waits for the mover's cascade, and verifies that the granted key is dead and that
// the other key still works.
func (d *drill) proveMoved(ctx context.Context, left time.Time, granted, other *holding) error {
	move, err := d.awaitCascade(ctx, d.ada, uuid.Nil)
	if err != nil {
		return err
	}
	if move.Kind != lifecycle.Mover || move.Outcome != "completed" || move.Verified != 1 {
		return fmt.Errorf("the mover's cascade ended %q with %d verified, want completed with 1", move.Outcome, move.Verified)
	}
	proof, err := granted.dead(ctx)
	if err != nil {
		return fmt.Errorf("%s: %w", granted.what, err)
	}
	if err := other.use(ctx); err != nil {
		return fmt.Errorf("the key without an entitlement does not work after the move: %w", err)
	}
	records, err := d.evidenceOf(ctx, move)
	if err != nil {
		return err
	}
	ended, verified := d.times(left, granted.id, records)
	d.rows = append(d.rows, []string{granted.what, granted.where, ended, verified, proof + "; her other key works"})
	return nil
}

func (d *drill) registerKey(ctx context.Context, h *holding, entitlement string) error {
	return d.register(ctx, "/v1/credentials", h, map[string]any{
		"principalId": d.ada, "agentId": d.agents[0], "kind": "api_key", "connector": "platform", "reference": h.reference,
		"entitlement": entitlement,
	})
}

// awaitEntitled waits until whether Ada has the entitlement team:Engineering equals want.
func (d *drill) awaitEntitled(ctx context.Context, want bool) error {
	ctx, cancel := context.WithTimeout(ctx, drillTimeout)
	defer cancel()
	for {
		var status authzen.Status
		if err := d.call(ctx, http.MethodGet, "/v1/principals/"+d.ada+"/access", d.platform, nil, &status); err != nil {
			return err
		}
		if slices.Contains(status.Entitlements, "team:Engineering") == want {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for the entitlement team:Engineering, got %v: %w", status.Entitlements, ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (d *drill) patch(ctx context.Context, path string, operations ...map[string]any) error {
	return d.call(ctx, http.MethodPatch, "/scim/v2"+path, d.scim, map[string]any{
		"schemas": []string{"urn:ietf:params:scim:api:messages:2.0:PatchOp"}, "Operations": operations,
	}, nil)
}

// decide requests the decision that a gateway requests before Ada's agent uses her key, and
// returns "allow" or the reason of the denial.
func (d *drill) decide(ctx context.Context) (reason string, err error) {
	var decision struct {
		Decision bool `json:"decision"`
		Context  struct {
			Reason string `json:"reason"`
		} `json:"context"`
	}
	err = d.call(ctx, http.MethodPost, "/access/v1/evaluation", d.platform, map[string]any{
		"subject": map[string]any{
			"type": "agent", "id": d.agents[0], "properties": map[string]string{"on_behalf_of": d.ada},
		},
		"action":   map[string]string{"name": "mail.send"},
		"resource": map[string]string{"type": "connector", "id": "platform"},
	}, &decision)
	if decision.Decision {
		return string(authzen.Allow), err
	}
	return decision.Context.Reason, err
}

// decideAfter requests the decision again, right after the response to the deactivation, and
// returns an error unless it is a denial because Ada has left.
func (d *drill) decideAfter(ctx context.Context) error {
	reason, err := d.decide(ctx)
	if err != nil {
		return err
	}
	// It depends on whether the cascade has suspended the agent before the decision.
	if reason != string(authzen.OwnerGone) && reason != string(authzen.AgentSuspended) {
		return fmt.Errorf("the decision about Ada's agent after the response to her deactivation is %s, want a denial "+
			"because of her", reason)
	}
	d.rows = append(d.rows, []string{
		"decision: may her agent act for her?", "leaver", elapsed(d.left), "-",
		"allow before the PATCH, deny (" + reason + ") right after its response",
	})
	return nil
}

func elapsed(from time.Time) string { return strings.TrimSpace(since(from, time.Now())) }
