package rest

import (
	"context"
	"errors"
	"strconv"
	"time"

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
	texts     []string    // names that these expressions may use, which are not about one credential
}

// decodeBatch decodes the maximum number of credentials.
func (b *bulk) decodeBatch(n *yaml.Node) (err error) {
	if b.size, err = strconv.Atoi(n.Value); err != nil || n.Kind != yaml.ScalarNode || b.size < 2 || b.size > maxBulk {
		return at(n, "batch is a number of credentials from 2 to %d", maxBulk)
	}
	return nil
}

// decodeEach decodes where the answer about each credential is. texts are the names of settings.
func (b *bulk) decodeEach(texts []string) func(*yaml.Node) error {
	return func(n *yaml.Node) error {
		env, err := newEnv(texts)
		if err != nil {
			return at(n, "%v", err)
		}
		b.texts = texts
		err = decodeFields(n, fields{
			"items": expressionInto(env, &b.items), "reference": expressionInto(env, &b.reference),
		})
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
		return at(n, "with batch, placeholders of a credential are allowed in json only")
	case r.json.repeat(func(t *template) bool { return t.uses(targets) }) != 1:
		return at(n, "with batch, json has one list of one element with the credential's placeholders, "+
			"such as [\"{secret}\"], and none elsewhere: the element is repeated")
	}
	return nil
}

// checkAnswers returns an error if an answer ends each credential whatever the part about it says.
func (b *bulk) checkAnswers(answers []answer) error {
	for _, a := range answers {
		if b.items != nil && !a.when.item && a.means != meansRetry && a.means != meansPermanent {
			return at(a.when.node, "with each, the condition of an answer that means %s must use item", a.means)
		}
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
		n += 2 // outside of a list, which makes any number other than 1
	}
	return n
}

// about returns the parts of an answer that are about one credential, by its reference. A reference that two parts
// have is left out. The only part of an answer that names no credential has the empty reference.
func (b *bulk) about(d *Definition, a exchanged, v values) map[string]any {
	if b.items == nil {
		return nil
	}
	activation := answered(a.resp, a.body, v, b.texts)
	list, err := listOf(b.items, activation)
	if err != nil || len(list) > maxBulk {
		return nil // such as the answer of a refusal
	}
	about, seen := make(map[string]any, len(list)), make(map[string]bool, len(list))
	for _, item := range list {
		activation["item"] = item
		reference := b.reference.reference(activation)
		if parts, err := d.split(reference); err == nil {
			reference = join(parts)
		} else if reference != "" || len(list) > 1 {
			continue
		}
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
	o := c.definition.operations[opRevoke]
	ended := make([]connectors.Ended, len(targets))
	var all []values
	var asked []int // the indexes of the targets in the request
	for i, t := range targets {
		v, err := c.valuesOf(t)
		if err == nil { // reject a value that cannot be encoded before it joins the request
			_, err = o.request.json.expand(v, []values{v})
		}
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
	about := o.bulk.about(c.definition, a, c.settings)
	for n, i := range asked {
		ended[i] = c.endedOf(opRevoke, targets[i], all[n], a, about, len(asked))
	}
	return ended
}

// endedOf returns what an answer to a request about n credentials says about one. If the answer does not name it, the
// answer applies only if the request was about one, was not handled, or was confirmed by a definition without each.
// Everything else is ambiguous.
func (c *Connector) endedOf(
	name string, t connectors.Target, v values, a exchanged, about map[string]any, n int,
) connectors.Ended {
	item, named := about[t.Reference]
	if n == 1 && !named {
		item = about[""]
	}
	answer, err := c.endOf(name, t, v, a, item)
	confirmed := err == nil && answer.Outcome == connectors.Done && c.definition.operations[name].bulk.items == nil
	if n == 1 || named || confirmed || a.unhandled() {
		return connectors.Ended{Answer: answer, Err: err}
	}
	if err == nil {
		err = errors.New(answer.Detail)
	}
	return connectors.Ended{Ambiguous: true, Err: connectors.Retryable(
		"the answer to a request about several credentials does not say which it is about: %w", err)}
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
