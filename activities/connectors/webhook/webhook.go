// Package webhook ends credentials of a platform by signed requests to it (Standard
// Webhooks). A request has the same id in every attempt. The contract is docs/WEBHOOK.md.
package webhook

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/leaverhq/leaver/activities/connectors"
)

// Config are the settings of a connector of type webhook.
type Config struct {
	URL string `yaml:"url"`
	// Secret signs requests: whsec_ and base64, the format of Standard Webhooks.
	Secret connectors.SecretRef `yaml:"secret"`
	// Notify enables notifications of lifecycle changes.
	Notify bool `yaml:"notify"`
}

// Connector implements Revoker, Rotator, Publisher, Canceller, Blocker,
// Unblocker, Verifier and Notifier.
type Connector struct {
	config Config
	signer *standardwebhooks.Webhook
	client *http.Client
}

// New validates the settings and resolves the signing secret.
func New(c Config) (*Connector, error) {
	if u, err := url.Parse(c.URL); err != nil || u.Host == "" || (u.Scheme != "https" && u.Scheme != "http") {
		return nil, errors.New("url must be an absolute http or https URL")
	}
	secret, err := c.Secret.Resolve()
	if err != nil {
		return nil, fmt.Errorf("secret: %w", err)
	}
	if secret == "" {
		return nil, errors.New("secret is required")
	}
	signer, err := standardwebhooks.NewWebhook(secret.Reveal())
	if err != nil {
		return nil, errors.New("secret must be base64 with the prefix whsec_") // the library's error quotes it
	}
	return &Connector{config: c, signer: signer, client: connectors.NewHTTPClient()}, nil
}

// Downstream implements connectors.Located. One host may serve several platforms, at several paths.
func (c *Connector) Downstream() string {
	u, err := url.Parse(c.config.URL)
	if err != nil { // New has parsed it
		return ""
	}
	return strings.ToLower(u.Host) + strings.TrimSuffix(u.Path, "/")
}

// Accepts implements connectors.Connector. A platform may own every kind of item, and its
// references are compared byte by byte.
func (c *Connector) Accepts(r connectors.Registration) (string, error) { return r.Reference, nil }

// Can implements connectors.Optional: the platform is notified if notifications are enabled.
func (c *Connector) Can(capability any) bool {
	if _, notifies := capability.(*connectors.Notifier); notifies {
		return c.config.Notify
	}
	return true
}

// Close implements connectors.Connector.
func (c *Connector) Close() { c.client.CloseIdleConnections() }

// message is the body of every request.
type message struct {
	// Type is credential.revoke, .rotate, .retire, .rotated, .cancel, .block or .verify, or
	// the type of a notification.
	Type      string    `json:"type"`
	Timestamp time.Time `json:"timestamp"`
	Data      any       `json:"data"`
}

// item is the data of a message about a credential or scheduled run.
type item struct {
	Tenant    uuid.UUID       `json:"tenantId"`
	Item      uuid.UUID       `json:"itemId"`
	Kind      connectors.Kind `json:"kind"`
	Reference string          `json:"reference"`
	// NewSecret is the secret that a rotation adds beside the old one.
	NewSecret string `json:"newSecret,omitempty"`
	// Secret is the secret that a verification probes: "old", or "new" for the one that a
	// rotation has added.
	Secret string `json:"secret,omitempty"`
}

// Revoke implements connectors.Revoker.
func (c *Connector) Revoke(ctx context.Context, t connectors.Target) (connectors.Answer, error) {
	return c.end(ctx, "credential.revoke", t, "")
}

// Renew implements connectors.Rotator.
func (c *Connector) Renew(ctx context.Context, t connectors.Target) (connectors.Answer, error) {
	t.Key = t.Rotation.String()
	return c.end(ctx, "credential.rotate", t, t.NewSecret.Reveal())
}

// Retire implements connectors.Rotator.
func (c *Connector) Retire(ctx context.Context, t connectors.Target) (connectors.Answer, error) {
	t.Key = t.Rotation.String()
	return c.end(ctx, "credential.retire", t, "")
}

// Block implements connectors.Blocker. A platform that cannot block returns 501.
func (c *Connector) Block(ctx context.Context, t connectors.Target) (connectors.Answer, error) {
	return c.block(ctx, "credential.block", t)
}

// Unblock implements connectors.Unblocker. A platform that cannot block returns 501.
func (c *Connector) Unblock(ctx context.Context, t connectors.Target) (connectors.Answer, error) {
	return c.block(ctx, "credential.unblock", t)
}

func (c *Connector) block(ctx context.Context, messageType string, t connectors.Target) (connectors.Answer, error) {
	if err := t.CheckFence(ctx); err != nil {
		return connectors.Answer{}, err
	}
	resp, body, err := c.send(ctx, messageType, t.Key+"/"+messageType, item{
		Tenant: t.Tenant, Item: t.Item, Kind: t.Kind, Reference: t.Reference,
	})
	if err != nil {
		return connectors.Answer{}, err
	}
	if resp.StatusCode == http.StatusNotImplemented {
		return connectors.Answer{}, connectors.Permanent("the platform does not support reversible blocks (501)")
	}
	return readEnd(resp, body)
}

// publication is the data of a message that publishes a new secret.
type publication struct {
	Tenant     uuid.UUID       `json:"tenantId"`
	Rotation   uuid.UUID       `json:"rotationId"`
	Connector  string          `json:"connector"`
	Kind       connectors.Kind `json:"kind"`
	Previous   string          `json:"previousReference"`
	Reference  string          `json:"reference"`
	NewSecret  string          `json:"newSecret"`
	Items      []uuid.UUID     `json:"itemIds"`
	ReliedOnBy []string        `json:"reliedOnBy,omitempty"`
	// Sequence grows with each rotation of the account: a lower one is outdated.
	Sequence int64 `json:"sequence"`
}

// Publish implements connectors.Publisher. The message id contains the rotation's id, so
// that a platform can recognise a repeated publication.
func (c *Connector) Publish(ctx context.Context, p connectors.Publication) (connectors.Answer, error) {
	resp, body, err := c.send(ctx, "credential.rotated", p.Rotation.String()+"/credential.rotated", publication{
		Tenant: p.Tenant, Rotation: p.Rotation, Connector: p.Connector, Kind: p.Kind, Previous: p.Previous,
		Reference: p.Reference,
		NewSecret: p.Secret.Reveal(), Items: p.Holders, ReliedOnBy: p.ReliedOnBy, Sequence: p.Sequence,
	})
	if err != nil {
		return connectors.Answer{}, err
	}
	answer, err := readEnd(resp, body)
	if err == nil && answer.Outcome != connectors.Done {
		return answer, connectors.Permanent("the platform did not accept the new secret: %s", answer.Detail)
	}
	return answer, err
}

// Cancel implements connectors.Canceller.
func (c *Connector) Cancel(ctx context.Context, t connectors.Target) (connectors.Answer, error) {
	return c.end(ctx, "credential.cancel", t, "")
}

func (c *Connector) end(
	ctx context.Context, kind string, t connectors.Target, newSecret string,
) (connectors.Answer, error) {
	if err := t.CheckFence(ctx); err != nil {
		return connectors.Answer{}, err
	}
	resp, body, err := c.send(ctx, kind, t.Key+"/"+kind, item{
		Tenant: t.Tenant, Item: t.Item, Kind: t.Kind, Reference: t.Reference, NewSecret: newSecret,
	})
	if err != nil {
		return connectors.Answer{}, err
	}
	return readEnd(resp, body)
}

// Probe implements connectors.Verifier. Each probe has a new message id, so that a platform
// does not answer it with the stored response to an earlier one.
func (c *Connector) Probe(ctx context.Context, t connectors.Target) (connectors.Vitality, string, error) {
	which := "old"
	if t.NewSecret != "" && t.Secret == t.NewSecret {
		which = "new"
	}
	resp, body, err := c.send(ctx, "credential.verify", t.Key+"/verify/"+uuid.NewString(), item{
		Tenant: t.Tenant, Item: t.Item, Kind: t.Kind, Reference: t.Reference, Secret: which,
	})
	if err != nil {
		return connectors.Unknown, "", err
	}
	return readVerify(resp, body)
}

// Possesses implements connectors.Possession. The platform knows its tenants, and returns
// alive only for a reference of the tenant in the request.
func (c *Connector) Possesses(ctx context.Context, t connectors.Target) (connectors.Vitality, string, error) {
	t.NewSecret = ""
	vitality, detail, err := c.Probe(ctx, t)
	if vitality != connectors.Alive && detail == "" {
		detail = "the platform did not confirm that the credential is alive"
	}
	return vitality, detail, err
}

// Notify implements connectors.Notifier.
func (c *Connector) Notify(ctx context.Context, n connectors.Notification) error {
	resp, _, err := c.send(ctx, n.Type, n.Key+"/"+n.Type, n)
	if err != nil {
		return err
	}
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return connectors.StatusError(resp, "")
	}
	return nil
}

func (c *Connector) send(ctx context.Context, kind, id string, data any) (*http.Response, []byte, error) {
	now := time.Now().UTC()
	payload, err := json.Marshal(message{Type: kind, Timestamp: now, Data: data})
	if err != nil {
		return nil, nil, connectors.Permanent("encode the request: %w", err)
	}
	signature, err := c.signer.Sign(id, now, payload)
	if err != nil {
		return nil, nil, connectors.Permanent("sign the request: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.config.URL, bytes.NewReader(payload))
	if err != nil {
		return nil, nil, connectors.Permanent("build the request: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Webhook-Id", id)
	req.Header.Set("Webhook-Timestamp", strconv.FormatInt(now.Unix(), 10))
	req.Header.Set("Webhook-Signature", signature)
	return connectors.Exchange(c.client, req)
}
