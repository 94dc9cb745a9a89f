// Package vault publishes new secrets of shared accounts to their remaining holders
// through a secret store: OpenBao's or HashiCorp Vault's KV engine, version 2.
package vault

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/leaverhq/leaver/activities/connectors"
)

// Config are the settings of a connector of type vault.
type Config struct {
	Address string               `yaml:"address"`
	Token   connectors.SecretRef `yaml:"token"` // with create and update at mount/data/prefix/*
	Mount   string               `yaml:"mount"`
	// Prefix of the paths. A secret is at prefix/tenant/connector/account, where tenant is
	// an id, and account the reference before the first rotation.
	Prefix    string `yaml:"prefix"`
	Namespace string `yaml:"namespace"`
}

// Connector implements Publisher.
type Connector struct {
	config Config
	token  connectors.Secret
	client *http.Client
}

// New validates the settings and resolves the token.
func New(c Config) (*Connector, error) {
	if u, err := url.Parse(c.Address); err != nil || u.Host == "" || (u.Scheme != "https" && u.Scheme != "http") {
		return nil, errors.New("address must be an absolute http or https URL")
	}
	if c.Mount == "" {
		c.Mount = "secret"
	}
	token, err := c.Token.Resolve()
	if err != nil {
		return nil, fmt.Errorf("token: %w", err)
	}
	if token == "" {
		return nil, errors.New("token is required")
	}
	return &Connector{config: c, token: token, client: connectors.NewHTTPClient()}, nil
}

// Accepts implements connectors.Connector. It rejects every registration, since a secret
// store does not issue the secrets that it stores.
func (c *Connector) Accepts(connectors.Registration) (string, error) {
	return "", errors.New("this connector only publishes secrets and cannot end credentials: " +
		"name it in publish_to of another connector")
}

// Close implements connectors.Connector.
func (c *Connector) Close() { c.client.CloseIdleConnections() }

// Publish implements connectors.Publisher by `POST /v1/{mount}/data/{path}`. A repeated
// publication writes a second version with the same content.
func (c *Connector) Publish(ctx context.Context, p connectors.Publication) (connectors.Answer, error) {
	data := map[string]any{
		"reference": p.Reference, "secret": p.Secret.Reveal(), "previous_reference": p.Previous,
		"rotation_id": p.Rotation,
	}
	if p.Sequence > 0 {
		data["sequence"] = p.Sequence
	}
	body, err := json.Marshal(map[string]any{"data": data})
	if err != nil {
		return connectors.Answer{}, connectors.Permanent("encode the secret: %w", err)
	}
	path := c.path(p)
	resp, answer, err := c.write(ctx, path, body)
	if err != nil {
		return connectors.Answer{}, err
	}
	return readWrite(resp, answer, path)
}

func (c *Connector) write(ctx context.Context, path string, body []byte) (*http.Response, []byte, error) {
	address := strings.TrimSuffix(c.config.Address, "/") + "/v1/" + path
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, address, bytes.NewReader(body))
	if err != nil {
		return nil, nil, connectors.Permanent("build the request: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("X-Vault-Token", c.token.Reveal())
	if c.config.Namespace != "" {
		req.Header.Set("X-Vault-Namespace", c.config.Namespace)
	}
	return connectors.Exchange(c.client, req)
}

// path returns the escaped path of a publication, so that an account's name cannot lead
// to another path.
func (c *Connector) path(p connectors.Publication) string {
	segments := []string{c.config.Mount, "data"}
	if c.config.Prefix != "" {
		segments = append(segments, strings.Split(strings.Trim(c.config.Prefix, "/"), "/")...)
	}
	segments = append(segments, p.Tenant.String(), p.Connector, p.Account)
	for i, s := range segments {
		if s = url.PathEscape(s); s == "." || s == ".." {
			s = strings.ReplaceAll(s, ".", "%2E")
		}
		segments[i] = s
	}
	return strings.Join(segments, "/")
}

// readWrite classifies the response to a write. 200 contains the version that was written.
// 472 and 473 are standby nodes and 503 is a sealed store: these are retryable.
func readWrite(resp *http.Response, body []byte, path string) (connectors.Answer, error) {
	var answer struct {
		Data struct {
			Version int `json:"version"`
		} `json:"data"`
	}
	switch {
	case resp.StatusCode == 472 || resp.StatusCode == 473:
		return connectors.Answer{}, connectors.Retryable(
			"the secret store returned %d: the node is in standby", resp.StatusCode,
		)
	case resp.StatusCode != http.StatusOK:
		return connectors.Answer{}, connectors.StatusError(resp, "")
	case json.Unmarshal(body, &answer) != nil || answer.Data.Version == 0:
		return connectors.Answer{}, connectors.Permanent("the secret store returned 200 without a version: " +
			"check that the mount is a KV engine of version 2")
	}
	return connectors.Answer{
		Outcome: connectors.Done, Detail: fmt.Sprintf("version %d of %s", answer.Data.Version, path),
	}, nil
}
