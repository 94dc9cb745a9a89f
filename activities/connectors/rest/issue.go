package rest

import (
	"context"
	"crypto/rand"
	"maps"

	"cel.dev/cel-go/cel"
	"github.com/google/uuid"
	yaml "go.yaml.in/yaml/v3"

	"github.com/leaverhq/leaver/activities/connectors"
)

// issued says where a credential that was issued for a drill is in an answer.
type issued struct {
	kind      connectors.Kind
	reference *expression // a text, or a list of the parts
	secret    *expression // nil if none is registered
	expires   *expression // nil if it does not expire
}

func parseIssued(n *yaml.Node, env *cel.Env) (*issued, error) {
	i := &issued{}
	var kind string
	err := decodeFields(n, fields{
		"kind": scalar(&kind), "reference": expressionInto(env, &i.reference),
		"secret": expressionInto(env, &i.secret), "expires": expressionInto(env, &i.expires),
	})
	i.kind = connectors.Kind(kind)
	if err == nil && (kind == "" || i.reference == nil) {
		err = at(n, "kind and reference are required")
	}
	return i, err
}

// issues reports whether the connector can issue a credential for a drill: the settings for that are given.
func (c *Connector) issues() bool {
	issue := c.definition.operations[opIssue]
	if issue == nil {
		return false
	}
	for _, s := range c.definition.Settings {
		if c.settings[s.Name] == "" && issue.request.names(s.Name) {
			return false
		}
	}
	return true
}

// Issue implements connectors.Issuer. It first removes what an earlier call may have created. Where the definition
// cannot remove it, each call uses a name of its own.
func (c *Connector) Issue(ctx context.Context, name string, principal uuid.UUID) (connectors.Issued, error) {
	if c.definition.operations[opRemove] == nil {
		name += "-" + rand.Text()[:6]
	}
	if err := c.Remove(ctx, name); err != nil {
		return connectors.Issued{}, err
	}
	v := maps.Clone(c.settings)
	v[nameDrill], v[namePrincipal] = name, principal.String()
	r, err := c.ask(ctx, opIssue, v)
	if err != nil {
		return connectors.Issued{}, err
	}
	o, activation := c.definition.operations[opIssue].issued, answered(r.resp, r.body, v, c.definition.texts)
	parts, err := c.definition.split(o.reference.reference(activation))
	if err != nil {
		return connectors.Issued{}, connectors.Permanent("the definition %s: issue: %w", c.definition.Name, err)
	}
	i := connectors.Issued{Kind: o.kind, Reference: join(parts)}
	if o.secret != nil {
		i.Secret = connectors.Secret(o.secret.text(activation))
	}
	if o.expires != nil {
		i.ExpiresAt = o.expires.time(activation)
	}
	return i, nil
}

// Remove implements connectors.Issuer.
func (c *Connector) Remove(ctx context.Context, name string) error {
	if c.definition.operations[opRemove] == nil {
		return nil
	}
	v := maps.Clone(c.settings)
	v[nameDrill] = name
	_, err := c.ask(ctx, opRemove, v)
	return err
}
