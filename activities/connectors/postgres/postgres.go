// Package postgres ends service accounts that are roles of a PostgreSQL
// database: by disabling their login, or, where others rely on them, by a new
// password. Neither ends open sessions by itself, so both end them too.
package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/internal/config"
	"github.com/leaverhq/leaver/internal/inventory"
)

// Config are the settings of a connector of type postgres.
type Config struct {
	// URL of the downstream database, by reference, as a role that may alter
	// others: CREATEROLE with ADMIN on them, and pg_signal_backend.
	URL config.SecretRef `yaml:"url"`
	// Rotation is how a shared role gets a new secret: alternate (default) makes a
	// second role beside it that acts as the first, so that nobody is cut off before
	// the new secret has reached them; password replaces the password at once.
	Rotation string `yaml:"rotation"`
}

// connectTimeout bounds a login, of ours or of the role that is probed.
const connectTimeout = 10 * time.Second

// Connector implements Revoker, Rotator, Blocker, Verifier, Discoverer and Issuer.
type Connector struct {
	config    *pgx.ConnConfig
	alternate bool
}

// New validates the settings and resolves the URL.
func New(c Config) (*Connector, error) {
	url, err := c.URL.Resolve()
	if err != nil {
		return nil, fmt.Errorf("url: %w", err)
	}
	if url == "" {
		return nil, errors.New("url is missing")
	}
	cfg, err := pgx.ParseConfig(url.Reveal())
	if err != nil {
		return nil, errors.New("url is not a PostgreSQL URL") // pgx's error quotes it
	}
	if c.Rotation != "" && c.Rotation != "alternate" && c.Rotation != "password" {
		return nil, errors.New("rotation is alternate or password")
	}
	cfg.ConnectTimeout = connectTimeout
	cfg.RuntimeParams["application_name"] = "leaver"
	return &Connector{config: cfg, alternate: c.Rotation != "password"}, nil
}

// Accepts implements connectors.Connector.
func (c *Connector) Accepts(kind inventory.Kind, hasSecret, shared bool) error {
	switch {
	case kind != inventory.ServiceAccount:
		return errors.New("this connector ends service_account")
	case shared && !hasSecret:
		return errors.New("a shared role is rotated, and only its password can show that the old one is dead: register it as the secret")
	}
	return nil
}

// Close implements connectors.Connector.
func (c *Connector) Close() {}

// connect logs in as the connector's own role; each attempt has its connection.
func (c *Connector) connect(ctx context.Context) (*pgx.Conn, error) {
	conn, err := pgx.ConnectConfig(ctx, c.config)
	if err != nil {
		return nil, classify("log in to administer", err)
	}
	return conn, nil
}
