package rest

import (
	"context"
	"slices"
	"strings"
	"unicode"

	yaml "go.yaml.in/yaml/v3"

	"github.com/leaverhq/leaver/activities/connectors"
)

// checkRotation returns an error if possess, renew or retire lacks an operation that it needs, or if a rotation would
// end the old secret by its value.
func (d *Definition) checkRotation(operations *yaml.Node) error {
	renew, possess := d.operations[opRenew], d.operations[opPossess]
	switch {
	case possess != nil && !possess.request.secret:
		return at(operations, "possess must send {secret}, which proves that the registrant has it")
	case renew == nil && d.operations[opRetire] != nil:
		return at(operations, "retire ends what renew has replaced, which is missing")
	case renew == nil:
		return nil
	case possess == nil || d.operations[opRevoke] == nil:
		return at(operations, "renew needs possess and revoke")
	case d.operations[d.retire()].request.secret:
		return at(operations, "with renew, %s must not send {secret}, since the leaver's registration may have another one: "+
			"name the old secret by its reference, or add retire", d.retire())
	case !slices.ContainsFunc(d.Kinds, connectors.Kind.IsAccount):
		return at(operations, "renew needs one of the kinds service_account and api_key, got %v", d.Kinds)
	}
	return nil
}

// retire returns the operation that ends the old secret of a rotation.
func (d *Definition) retire() string {
	if d.operations[opRetire] != nil {
		return opRetire
	}
	return opRevoke
}

// possession returns the operation that shows whether the registrant has the credential's secret: possess, or the
// probe. A probe with the secret proves that only if the end sends the secret, too, and so ends what was probed.
// It is empty if there is none.
func (d *Definition) possession() string {
	probe := d.operations[opProbe]
	switch {
	case d.operations[opPossess] != nil:
		return opPossess
	case probe != nil && probe.request.secret && d.needsSecret():
		return opProbe
	}
	return ""
}

// Possesses implements connectors.Possession: a request with the secret, of which the answer must be alive.
func (c *Connector) Possesses(ctx context.Context, t connectors.Target) (connectors.Vitality, string, error) {
	return c.observe(ctx, c.definition.possession(), t, true)
}

// Generate implements connectors.Generator.
func (c *Connector) Generate(ctx context.Context, t connectors.Target) (connectors.Generated, error) {
	v, err := c.valuesOf(t)
	if err != nil {
		return connectors.Generated{}, err
	}
	v[nameRotation] = t.Rotation.String()
	a, err := c.send(ctx, opRenew, []values{v}, t.CheckFence)
	if err != nil {
		return connectors.Generated{}, err
	}
	generated, err := c.generated(t, a, v)
	if err != nil && a.resp.StatusCode/100 == 2 { // another request would make another secret
		err = connectors.Permanent("the downstream may have made a secret of the rotation %s that cannot be used: look for "+
			"it there, end it, and run `leaver cascade rerun`: %w", t.Rotation, err)
	}
	return generated, err
}

// generated reads the answer to the request for a new secret.
func (c *Connector) generated(t connectors.Target, a exchanged, v values) (connectors.Generated, error) {
	r, err := c.read(opRenew, a, v, nil)
	if err != nil {
		return connectors.Generated{}, err
	}
	answer := connectors.Answer{Outcome: connectors.Outcome(r.means), Detail: r.detail}
	if answer.Outcome == connectors.Gone {
		return connectors.Generated{Answer: answer}, nil
	}
	made, err := c.issuedBy(opRenew, r, v)
	switch {
	case err != nil:
		return connectors.Generated{}, err
	case made.Reference == t.Reference:
		return connectors.Generated{}, connectors.Permanent("the definition %s: renew: the new secret has the reference of "+
			"the old one, so that the end of the old one would end both", c.definition.Name)
	case len(made.Reference) > maxReference || strings.ContainsFunc(made.Reference, unicode.IsControl):
		return connectors.Generated{}, connectors.Permanent("the definition %s: renew: a reference has at most %d bytes and "+
			"no control characters", c.definition.Name, maxReference)
	}
	return connectors.Generated{Answer: answer, Reference: made.Reference, Secret: made.Secret}, nil
}

// maxReference is the maximum length of a reference, in bytes.
const maxReference = 512

// Renew implements connectors.Rotator. Generate has made the new secret.
func (c *Connector) Renew(context.Context, connectors.Target) (connectors.Answer, error) {
	return connectors.Answer{Outcome: connectors.Done, Detail: "the downstream has generated the new secret"}, nil
}

// Retire implements connectors.Rotator.
func (c *Connector) Retire(ctx context.Context, t connectors.Target) (connectors.Answer, error) {
	return c.end(ctx, c.definition.retire(), t)
}
