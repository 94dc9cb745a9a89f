// Package rest adapts downstreams with a REST API by definitions: YAML documents that say how each operation is
// requested, and what the downstream's answers mean.
//
// An answer that a definition does not know is retried, and is never a success.
package rest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/google/uuid"

	"github.com/leaverhq/leaver/activities/connectors"
)

// Connector is a connector of a definition. It implements connectors.Optional: it has the capabilities for which the
// definition has operations.
type Connector struct {
	definition *Definition
	settings   values
	client     *http.Client
	tokens     tokens
	signer     aws.CredentialsProvider // of the authentication sigv4
}

// New validates the settings of a connector and resolves its secrets.
func New(d *Definition, settings map[string]string) (*Connector, error) {
	c := &Connector{definition: d, settings: make(values), client: connectors.NewHTTPClient(), tokens: newTokens()}
	check := checkAddress
	switch settings[AllowHTTP] {
	case "", "false":
	case "true":
		check = checkAnyAddress
	default:
		return nil, fmt.Errorf("%s must be true or false, got %q", AllowHTTP, settings[AllowHTTP])
	}
	for _, s := range d.Settings {
		value := cmp.Or(settings[s.Name], s.Default)
		if value == "" && s.Required {
			return nil, fmt.Errorf("%s is required", s.Name)
		}
		if s.Secret {
			secret, err := connectors.SecretRef(value).Resolve()
			if err != nil {
				return nil, fmt.Errorf("%s: %w", s.Name, err)
			}
			value = secret.Reveal()
		}
		c.settings[s.Name] = value
	}
	if err := d.auth.check(c.settings, check); err != nil {
		return nil, err
	}
	if d.auth != nil && d.auth.signature != nil {
		signer, err := d.auth.signature.provider(c.settings)
		if err != nil {
			return nil, err
		}
		c.signer = signer
	}
	for _, base := range d.bases {
		c.settings[base] = strings.TrimSuffix(c.settings[base], "/")
		if err := check(base, c.settings[base]); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// checkAddress is connectors.CheckAddress, with the setting that permits http.
func checkAddress(name, address string) error {
	if err := connectors.CheckAddress(name, address); err != nil {
		return fmt.Errorf("%w; set %s: true to send credentials without TLS", err, AllowHTTP)
	}
	return nil
}

// checkAnyAddress is connectors.CheckAddress for addresses that may use http with any host.
func checkAnyAddress(name, address string) error {
	if rest, plain := strings.CutPrefix(address, "http://"); plain {
		address = "https://" + rest
	}
	return connectors.CheckAddress(name, address)
}

// SettingNames returns the names of the settings of a definition's connectors.
func (d *Definition) SettingNames() []string {
	names := []string{AllowHTTP}
	for _, s := range d.Settings {
		names = append(names, s.Name)
	}
	return names
}

// Can implements connectors.Optional.
func (c *Connector) Can(capability any) bool {
	has := func(operation string) bool { return c.definition.operations[operation] != nil }
	switch capability.(type) {
	case *connectors.Revoker:
		return has(opRevoke)
	case *connectors.BulkRevoker:
		return has(opRevoke) && c.Bulk() > 0
	case *connectors.Canceller:
		return has(opCancel)
	case *connectors.Blocker:
		return has(opBlock)
	case *connectors.Unblocker:
		return has(opUnblock)
	case *connectors.Verifier:
		return has(opProbe)
	case *connectors.Prover:
		return has(opProbe) && has(opProve)
	case *connectors.Discoverer:
		return has(opDiscover)
	case *connectors.Issuer:
		return c.isConfigured(opIssue)
	case *connectors.Checker:
		return has(opCheck)
	case *connectors.Rotator, *connectors.Generator:
		return c.isConfigured(opRenew)
	case *connectors.Possession:
		return has(c.definition.possession())
	}
	return true
}

// CanVerify implements connectors.OptionalVerifier: a probe with the secret needs one.
func (c *Connector) CanVerify(_ connectors.Kind, hasSecret bool) bool {
	probe := c.definition.operations[opProbe]
	return probe != nil && (hasSecret || !probe.request.secret)
}

// Downstream implements connectors.Located: the API's address, and the settings that divide its accounts, such as an
// organisation.
func (c *Connector) Downstream() string {
	var parts []string
	if address := c.definition.address(); address != "" {
		if u, err := url.Parse(c.settings[address]); err == nil { // New has parsed it
			parts = append(parts, strings.TrimSuffix(strings.TrimSuffix(u.Host, ":443"), ":80")+u.Path)
		}
	}
	for _, s := range c.definition.Settings {
		if s.Scope {
			parts = append(parts, c.settings[s.Name])
		}
	}
	return strings.ToLower(strings.Join(parts, " "))
}

// address returns the setting that the URL of the end begins with, or "" if that is not a setting.
func (d *Definition) address() string {
	end := cmp.Or(d.operations[opRevoke], d.operations[opCancel])
	if t := end.request.url; t.texts[0] == "" {
		return t.names[0]
	}
	return ""
}

// Accepts implements connectors.Connector. A reference has the definition's parts, each path-escaped.
func (c *Connector) Accepts(r connectors.Registration) (string, error) {
	d := c.definition
	switch {
	case !slices.Contains(d.Kinds, r.Kind):
		return "", fmt.Errorf("kind must be one of %v, got %s", d.Kinds, r.Kind)
	case r.Shared && d.operations[opRenew] == nil:
		return "", errors.New("a connector of this type cannot rotate: register the credential as not shared")
	case r.Shared && !c.isConfigured(opRenew):
		return "", fmt.Errorf("the connector cannot rotate without its setting %s: set it in leaver.yaml, or register the "+
			"credential as not shared", c.missingSetting(opRenew))
	case r.Kind == connectors.ScheduledRun && d.operations[opCancel] == nil,
		r.Kind != connectors.ScheduledRun && d.operations[opRevoke] == nil:
		return "", fmt.Errorf("the definition %s has no operation that ends a %s", d.Name, r.Kind)
	case !r.HasSecret && d.needsSecret():
		return "", errors.New("the downstream ends the credential by its value: register it as the secret")
	}
	parts, err := d.split(r.Reference)
	if err != nil {
		return "", err
	}
	return join(parts), nil
}

// needsSecret reports whether the end of a credential sends the credential's value.
func (d *Definition) needsSecret() bool {
	revoke := d.operations[opRevoke]
	return revoke != nil && revoke.request.secret
}

// split returns the parts of a reference.
func (d *Definition) split(reference string) ([]string, error) {
	parts := []string{reference}
	if len(d.Parts) > 1 {
		parts = strings.Split(reference, "/")
		if len(parts) != len(d.Parts) {
			return nil, fmt.Errorf("the reference must be %s, each path-escaped, got %q", strings.Join(d.Parts, "/"), reference)
		}
		for i, part := range parts {
			plain, err := url.PathUnescape(part)
			if err != nil {
				return nil, fmt.Errorf("the part %s of the reference is not path-escaped, got %q", d.Parts[i], reference)
			}
			parts[i] = plain
		}
	}
	for i, part := range parts {
		switch {
		case !isSegment(part):
			return nil, fmt.Errorf(`the part %s of the reference must not be empty or contain "." or ".." as a step of a path`,
				d.Parts[i])
		case slices.Contains(d.Numbers, d.Parts[i]) && !isNumber(part):
			return nil, fmt.Errorf(
				"the part %s of the reference must be a whole number of 64 bits without leading zeros, got %q", d.Parts[i], part,
			)
		case slices.Contains(d.UUIDs, d.Parts[i]):
			id, err := uuid.Parse(part)
			if err != nil {
				return nil, fmt.Errorf("the part %s of the reference must be a UUID, got %q", d.Parts[i], part)
			}
			parts[i] = id.String()
		}
	}
	return parts, nil
}

// isNumber reports whether a text is the canonical spelling of a positive whole number of 64 bits.
func isNumber(text string) bool {
	n, err := strconv.ParseInt(text, 10, 64)
	return err == nil && n > 0 && strconv.FormatInt(n, 10) == text
}

// isSegment reports whether a value is safe as one segment of a path: also for a proxy that decodes it, no server
// may take a part of it as a step.
func isSegment(value string) bool {
	steps := strings.FieldsFunc(value, func(r rune) bool { return r == '/' || r == '\\' })
	return value != "" && !slices.ContainsFunc(steps, func(s string) bool { return s == "." || s == ".." })
}

// join returns the reference with the parts: one part as it is, and several path-escaped.
func join(parts []string) string {
	if len(parts) == 1 {
		return parts[0]
	}
	escaped := make([]string, len(parts))
	for i, part := range parts {
		escaped[i] = url.PathEscape(part)
	}
	return strings.Join(escaped, "/")
}

// Mints implements connectors.Minter.
func (c *Connector) Mints() bool { return c.definition.Mints }

// Close implements connectors.Connector.
func (c *Connector) Close() { c.client.CloseIdleConnections() }

// valuesOf returns the values for the templates about a target.
func (c *Connector) valuesOf(t connectors.Target) (values, error) {
	parts, err := c.definition.split(t.Reference)
	if err != nil {
		return nil, connectors.Permanent("%w", err)
	}
	v := values{nameReference: t.Reference, nameSecret: t.Secret.Reveal(), namePrincipal: t.Principal.String()}
	maps.Copy(v, c.settings)
	for i, name := range c.definition.Parts {
		v[name] = parts[i]
	}
	return v, nil
}

// Revoke implements connectors.Revoker.
func (c *Connector) Revoke(ctx context.Context, t connectors.Target) (connectors.Answer, error) {
	return c.end(ctx, opRevoke, t)
}

// Cancel implements connectors.Canceller.
func (c *Connector) Cancel(ctx context.Context, t connectors.Target) (connectors.Answer, error) {
	return c.end(ctx, opCancel, t)
}

// Block implements connectors.Blocker.
func (c *Connector) Block(ctx context.Context, t connectors.Target) (connectors.Answer, error) {
	return c.end(ctx, opBlock, t)
}

// Unblock implements connectors.Unblocker.
func (c *Connector) Unblock(ctx context.Context, t connectors.Target) (connectors.Answer, error) {
	return c.end(ctx, opUnblock, t)
}

func (c *Connector) end(ctx context.Context, name string, t connectors.Target) (connectors.Answer, error) {
	v, err := c.valuesOf(t)
	if err != nil {
		return connectors.Answer{}, err
	}
	a, err := c.send(ctx, name, []values{v}, t.CheckFence)
	if err != nil {
		return connectors.Answer{}, err
	}
	ended := c.endedOf(name, t, v, a, c.definition.operations[name].bulk.about(c.definition, a, c.settings), 1)
	return ended.Answer, ended.Err
}

// endOf returns what an answer says about a credential. item is the part of it that is about the credential.
func (c *Connector) endOf(
	name string, t connectors.Target, v values, a exchanged, item any,
) (connectors.Answer, error) {
	r, err := c.read(name, a, v, item)
	if err != nil {
		return connectors.Answer{}, err
	}
	if r.means == meansExpires && t.ExpiresAt == nil {
		return connectors.Answer{}, connectors.Permanent("%s, and its expiry is not known", r.detail)
	}
	if r.means == meansExpires {
		r.detail += "; it expires at " + t.ExpiresAt.UTC().Format(time.RFC3339)
	}
	return connectors.Answer{Outcome: connectors.Outcome(r.means), Detail: r.detail}, nil
}

// Probe implements connectors.Verifier.
func (c *Connector) Probe(ctx context.Context, t connectors.Target) (connectors.Vitality, string, error) {
	return c.observe(ctx, opProbe, t, false)
}

// Prove implements connectors.Prover.
func (c *Connector) Prove(ctx context.Context, t connectors.Target) (connectors.Vitality, string, error) {
	return c.observe(ctx, opProve, t, false)
}

// observe runs a probe or a proof. For a check of possession, a refusal that the definition does not know proves
// nothing, and is no error: a strange secret must not delay a rotation.
func (c *Connector) observe(
	ctx context.Context, name string, t connectors.Target, possession bool,
) (connectors.Vitality, string, error) {
	operation := c.definition.operations[name]
	if operation.request.secret && t.Secret == "" {
		return connectors.Unknown, "the request needs the credential's value, which is not registered", nil
	}
	v, err := c.valuesOf(t)
	if err != nil {
		return connectors.Unknown, "", err
	}
	a, err := c.send(ctx, name, []values{v}, nil)
	if err != nil {
		return connectors.Unknown, "", err
	}
	r, known, err := c.match(name, a, v, nil)
	switch {
	case err != nil:
		return connectors.Unknown, "", err
	case !known && possession && a.refused():
		return connectors.Unknown, c.unknown(name, a).Error(), nil
	case !known:
		return connectors.Unknown, "", c.unknown(name, a)
	}
	return connectors.Vitality(r.means), r.detail, nil
}

// Check implements connectors.Checker.
func (c *Connector) Check(ctx context.Context) error {
	_, err := c.ask(ctx, opCheck, c.settings)
	return err
}

// maxBody is the maximum size of an answer, in bytes: some vendors answer with the whole object.
const maxBody = 4 << 20

// result is the meaning of an answer that is not an error.
type result struct {
	exchanged
	means  meaning
	detail string
}

// exchanged is a downstream's answer.
type exchanged struct {
	resp *http.Response
	raw  []byte
	body any // the decoded JSON
	ok   bool
}

// unhandled reports whether an answer says that the request was not handled, whatever it was about.
func (a exchanged) unhandled() bool {
	status := a.resp.StatusCode
	return !a.ok || throttled(a.resp, time.Now()) > 0 || status/100 == 3 || status == http.StatusTooManyRequests ||
		status >= http.StatusInternalServerError
}

// refused reports whether an answer refuses this request, and is not about the rate or the time.
func (a exchanged) refused() bool {
	status := a.resp.StatusCode
	return status/100 == 4 && status != http.StatusRequestTimeout && status != http.StatusTooManyRequests
}

// ask sends the request of an operation about nothing or one credential, and returns what the answer means.
func (c *Connector) ask(ctx context.Context, name string, v values) (result, error) {
	a, err := c.send(ctx, name, []values{v}, nil)
	if err != nil {
		return result{}, err
	}
	return c.read(name, a, v, nil)
}

// send sends the request of an operation about one or several credentials. fence is called immediately before it.
func (c *Connector) send(
	ctx context.Context, name string, all []values, fence func(context.Context) error,
) (exchanged, error) {
	u, err := c.definition.operations[name].request.address(all[0])
	if err != nil {
		return exchanged{}, err
	}
	return c.sendTo(ctx, name, all, u, fence)
}

// sendTo is send to an address of its own, such as that of a later page.
func (c *Connector) sendTo(
	ctx context.Context, name string, all []values, u *url.URL, fence func(context.Context) error,
) (exchanged, error) {
	o := c.definition.operations[name]
	req, err := o.request.build(ctx, all[0], all, u)
	if err != nil {
		return exchanged{}, err
	}
	token, err := c.authenticate(req, o.request.auth, all[0])
	if err == nil && fence != nil {
		err = fence(ctx)
	}
	if err != nil {
		return exchanged{}, err
	}
	a := exchanged{}
	if a.resp, a.raw, err = connectors.ExchangeUpTo(maxBody, c.client, req); err != nil {
		return exchanged{}, err
	}
	if token != "" && a.resp.StatusCode == http.StatusUnauthorized {
		return exchanged{}, c.tokens.refused(token, o.request.auth.settles())
	}
	a.body, a.ok = decodeBody(a.resp, a.raw)
	if a.resp.StatusCode == http.StatusNotFound && a.body == nil {
		a.ok = false // of a proxy or a router: the APIs say in JSON what does not exist
	}
	return a, nil
}

// read returns the meaning of an answer. item is the part of it that is about the credential, for bulk operations. An
// answer that the definition does not know is an error.
func (c *Connector) read(name string, a exchanged, v values, item any) (result, error) {
	r, known, err := c.match(name, a, v, item)
	if err == nil && !known {
		err = c.unknown(name, a)
	}
	return r, err
}

// match returns the meaning of an answer by the definition's answers, and whether they know it. Throttling is handled
// here for all definitions.
func (c *Connector) match(name string, a exchanged, v values, item any) (r result, known bool, err error) {
	if wait := throttled(a.resp, time.Now()); wait > 0 {
		return result{}, false, connectors.RetryableAfter(wait, "%s returned %d: its rate limit is used up",
			a.resp.Request.URL.Host, a.resp.StatusCode)
	}
	if !a.ok {
		return result{}, false, nil
	}
	activation := answered(a.resp, a.body, v, c.definition.texts)
	activation["item"] = item
	unhandled := a.unhandled()
	for _, one := range c.definition.operations[name].answers {
		if unhandled && one.means.concludes() {
			continue
		}
		holds, err := one.when.holds(activation)
		if err != nil {
			return result{}, false, err
		}
		if holds {
			r, err := one.result(a, fmt.Sprintf("%s returned %d", a.resp.Request.Method, a.resp.StatusCode))
			return r, true, err
		}
	}
	return result{}, false, nil
}

// unknown returns the error of an answer that the definition does not know.
func (c *Connector) unknown(name string, a exchanged) error {
	status := connectors.StatusError(a.resp, connectors.ErrorCode(a.raw))
	switch {
	case !a.ok:
		return connectors.Retryable("%w: the body is not that of an API", status)
	case !connectors.IsPermanent(status), a.resp.StatusCode/100 == 3:
		return status
	case a.resp.StatusCode == http.StatusUnauthorized, a.resp.StatusCode == http.StatusForbidden:
		return connectors.Permanent("%w: check the connector's credentials and their rights", status)
	}
	return connectors.Retryable("%w, which the definition %s does not know as an answer to %s",
		status, c.definition.Name, name)
}

// result returns the meaning of the answer that matched.
func (a answer) result(got exchanged, what string) (result, error) {
	if a.reason != "" {
		what += ": " + a.reason
	}
	switch a.means {
	case meansRetry:
		return result{}, connectors.RetryableAfter(connectors.RetryDelay(got.resp.Header), "%s", what)
	case meansPermanent:
		return result{}, connectors.Permanent("%s", what)
	default:
		return result{exchanged: got, means: a.means, detail: what}, nil
	}
}

// maxThrottled bounds the delay that a rate limit's reset may ask for.
const maxThrottled = time.Hour

// throttled returns the delay until a rate limit's reset, for a 403 or 429 that says that nothing is left of it, as
// GitHub and Okta do, or for a 403 that says when to ask again; zero for other answers.
func throttled(resp *http.Response, now time.Time) time.Duration {
	if resp.StatusCode != http.StatusForbidden && resp.StatusCode != http.StatusTooManyRequests {
		return 0
	}
	if resp.Header.Get("Retry-After") != "" && resp.StatusCode == http.StatusForbidden {
		return max(time.Second, connectors.RetryDelay(resp.Header)) // as GitHub's secondary limit
	}
	for _, prefix := range []string{"X-Ratelimit-", "X-Rate-Limit-"} {
		seconds, err := strconv.ParseInt(resp.Header.Get(prefix+"Reset"), 10, 64)
		if err == nil && resp.Header.Get(prefix+"Remaining") == "0" {
			return max(time.Second, min(time.Unix(seconds, 0).Sub(now), maxThrottled))
		}
	}
	return 0
}
