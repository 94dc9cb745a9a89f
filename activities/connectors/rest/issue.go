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

// issued locates the new credential in the answer to issue or renew.
type issued struct {
	kind      connectors.Kind // of issue
	reference *expression     // a text, or a list of the parts
	secret    *expression     // nil if none is registered
	expires   *expression     // of issue; nil if it does not expire
}

func parseIssued(n *yaml.Node, operation string, env *cel.Env) (*issued, error) {
	i := &issued{}
	var kind string
	members := fields{"reference": expressionInto(env, &i.reference), "secret": expressionInto(env, &i.secret)}
	if operation == opIssue {
		members["kind"], members["expires"] = scalar(&kind), expressionInto(env, &i.expires)
	}
	err := decodeFields(n, members)
	i.kind = connectors.Kind(kind)
	switch {
	case err != nil:
	case operation == opIssue && (kind == "" || i.reference == nil):
		err = at(n, "kind and reference are required")
	case operation == opRenew && (i.reference == nil || i.secret == nil):
		err = at(n, "reference and secret are required")
	}
	return i, err
}

// issuedBy returns the new credential that an answer to an operation contains. It returns a permanent error if the
// answer has no valid reference, or not the secret that the definition expects.
func (c *Connector) issuedBy(operation string, r result, v values) (connectors.Issued, error) {
	o, activation := c.definition.operations[operation].issued, answered(r.resp, r.body, v, c.definition.texts)
	parts, err := c.definition.split(o.reference.reference(activation))
	if err != nil {
		return connectors.Issued{}, connectors.Permanent("the definition %s: %s: %w", c.definition.Name, operation, err)
	}
	i := connectors.Issued{Kind: o.kind, Reference: join(parts)}
	if o.secret != nil {
		i.Secret = connectors.Secret(o.secret.text(activation))
	}
	if o.secret != nil && i.Secret == "" {
		return i, connectors.Permanent("the definition %s: %s: the answer has no secret where it is expected: end the new "+
			"credential %q at the downstream", c.definition.Name, operation, i.Reference)
	}
	if o.expires != nil {
		i.ExpiresAt = o.expires.time(activation)
	}
	return i, nil
}

// isConfigured reports whether the definition has an operation, and the settings that it names are given.
func (c *Connector) isConfigured(operation string) bool {
	return c.definition.operations[operation] != nil && c.missingSetting(operation) == ""
}

// missingSetting returns the name of a setting that an operation names and that is not given, or "".
func (c *Connector) missingSetting(operation string) string {
	for _, s := range c.definition.Settings {
		if c.settings[s.Name] == "" && c.definition.operations[operation].request.names(s.Name) {
			return s.Name
		}
	}
	return ""
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
	return c.issuedBy(opIssue, r, v)
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
