package rest

import (
	"context"
	"errors"
	"strconv"
	"time"

	"cel.dev/cel-go/cel"
	yaml "go.yaml.in/yaml/v3"

	"github.com/leaverhq/leaver/activities/connectors"
)

// maxBulk bounds the credentials of one request.
const maxBulk = 1000

// bulk says how one request is about several credentials.
type bulk struct {
	size int // the maximum number of credentials
	// items are the parts of the answer about one credential each; nil if the answer is about all of them.
	items     *expression
	reference *expression // of an item: a text, or a list of the parts
}

// decodeBatch decodes the maximum number of credentials.
func (b *bulk) decodeBatch(n *yaml.Node) (err error) {
	if b.size, err = strconv.Atoi(n.Value); err != nil || n.Kind != yaml.ScalarNode || b.size < 2 || b.size > maxBulk {
		return at(n, "batch is a number of credentials from 2 to %d", maxBulk)
	}
	return nil
}

// decodeEach decodes where the answer about each credential is.
func (b *bulk) decodeEach(env *cel.Env) func(*yaml.Node) error {
	return func(n *yaml.Node) error {
		value := func(into **expression) func(*yaml.Node) error {
			return func(n *yaml.Node) (err error) { *into, err = compile(env, n); return err }
		}
		err := decodeFields(n, fields{"items": value(&b.items), "reference": value(&b.reference)})
		if err == nil && (b.items == nil || b.reference == nil) {
			err = at(n, "items and reference are required")
		}
		return err
	}
}

// check returns an error unless the request names credentials in one list only, of which it repeats the element.
func (b *bulk) check(n *yaml.Node, r *request, targets map[string]bool) error {
	switch {
	case b.size == 0 && b.items != nil:
		return at(n, "each is for an operation with batch")
	case b.size == 0:
		return nil
	case r.auth.anyTemplate(func(t *template) bool { return t.uses(targets) }),
		r.plain(func(t *template) bool { return t.uses(targets) }):
		return at(n, "with batch, only the json of the request may name a credential: the rest is for all of them")
	case r.json.repeat(func(t *template) bool { return t.uses(targets) }) != 1:
		return at(n, "with batch, json has one list of one element with the credential's placeholders, "+
			"such as [\"{secret}\"], and none elsewhere: the element is repeated")
	}
	return nil
}

// repeat marks the outermost lists of one element in which a template matches. It returns their number, and counts
// each match elsewhere.
func (b *body) repeat(matches func(*template) bool) int {
	if b == nil {
		return 0
	}
	if len(b.elements) == 1 && b.elements[0].any(matches) {
		b.repeated = true
		return 1
	}
	n := 0
	for _, member := range b.members {
		n += member.repeat(matches)
	}
	for _, element := range b.elements {
		n += element.repeat(matches)
	}
	if b.leaf != nil && matches(b.leaf) {
		n += 2 // which is never correct
	}
	return n
}

// about returns the parts of an answer that are about one credential, by its reference. A reference that two parts
// have is left out.
func (b *bulk) about(d *Definition, activation map[string]any) map[string]any {
	if b.items == nil {
		return nil
	}
	list, err := listOf(b.items, activation)
	if err != nil {
		return nil // such as the answer of a refusal
	}
	about, seen := make(map[string]any, len(list)), make(map[string]bool, len(list))
	for _, item := range list {
		activation["item"] = item
		parts, err := d.split(b.reference.reference(activation))
		if err != nil {
			continue
		}
		reference := join(parts)
		if about[reference] = item; seen[reference] {
			delete(about, reference)
		}
		seen[reference] = true
	}
	return about
}

// Bulk implements connectors.BulkRevoker.
func (c *Connector) Bulk() int { return c.definition.operations[opRevoke].bulk.size }

// Settles implements connectors.Settler.
func (c *Connector) Settles() time.Duration {
	if revoke := c.definition.operations[opRevoke]; revoke != nil {
		return revoke.settles
	}
	return 0
}

// RevokeBulk implements connectors.BulkRevoker.
func (c *Connector) RevokeBulk(ctx context.Context, targets []connectors.Target) []connectors.Ended {
	ended := make([]connectors.Ended, len(targets))
	all := make([]values, 0, len(targets))
	var asked []int // the indexes of the targets in the request
	for i, t := range targets {
		v, err := c.valuesOf(t)
		if ended[i].Err = err; err == nil {
			all, asked = append(all, v), append(asked, i)
		}
	}
	if len(asked) == 0 {
		return ended
	}
	a, err := c.send(ctx, opRevoke, all, func(ctx context.Context) error {
		for _, i := range asked {
			if err := targets[i].CheckFence(ctx); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		for _, i := range asked {
			ended[i].Err = err
		}
		return ended
	}
	o := c.definition.operations[opRevoke]
	about := o.bulk.about(c.definition, answered(a.resp, a.body, all[0], c.definition.texts))
	for n, i := range asked {
		item, named := about[targets[i].Reference]
		answer, err := c.endOf(opRevoke, targets[i], all[n], a, item)
		if len(asked) > 1 && !named {
			answer, err = o.bulk.ofAll(answer, err)
		}
		ended[i] = connectors.Ended{Answer: answer, Err: err}
	}
	return ended
}

// ofAll returns what an answer to a request about several credentials says about one that it does not name. Only a
// confirmation is about all of them, where the definition names no parts; a refusal may be due to another one.
func (b *bulk) ofAll(answer connectors.Answer, err error) (connectors.Answer, error) {
	switch {
	case err == nil && b.items == nil && answer.Outcome == connectors.Done:
		return answer, nil
	case err == nil:
		err = errors.New(answer.Detail)
	case !connectors.IsPermanent(err):
		return connectors.Answer{}, err
	}
	return connectors.Answer{}, connectors.Retryable("the answer to a request about several credentials does not say "+
		"which it is about, and each is requested alone: %w", err)
}

// maxSettles bounds how long an end may take to take effect.
const maxSettles = time.Hour

// duration decodes how long an end takes to take effect.
func duration(into *time.Duration) func(*yaml.Node) error {
	return func(n *yaml.Node) (err error) {
		if *into, err = time.ParseDuration(n.Value); err != nil || *into <= 0 || *into > maxSettles {
			return at(n, "must be a duration of at most %s, such as 30s or 5m", maxSettles)
		}
		return nil
	}
}
