// Package postgres ends service accounts that are roles of a PostgreSQL
// database: by disabling their login, or, where others rely on them, by a new
// password. Neither ends open sessions by itself, so both end them too.
package postgres

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/activities/connectors"
)

// Config are the settings of a connector of type postgres.
type Config struct {
	// URL of the downstream database, by reference, as a role that may alter
	// others: CREATEROLE with ADMIN on them, and pg_signal_backend.
	URL connectors.SecretRef `yaml:"url"`
	// Rotation is how a shared role gets a new secret: alternate (default) makes a
	// second role beside it that acts as the first, so that nobody is cut off before
	// the new secret has reached them; password replaces the password at once.
	Rotation string `yaml:"rotation"`
}

// connectTimeout bounds a login, of ours or of the role that is probed.
const connectTimeout = 10 * time.Second

// Connector implements Revoker, Rotator, Blocker, Verifier, Possession, Discoverer and Issuer.
type Connector struct {
	config    *pgx.ConnConfig
	alternate bool
	reserved  reserved
	protected []string // names of roles that are never altered, beside those that [forbidden] knows
}

// session are the settings of each of the connector's own sessions. They come with the
// login and so outrank what a database's owner or a role sets: whatever an account that
// is being ended can define, in any schema, must not run with the connector's rights.
var session = map[string]string{
	"application_name":            "leaver",
	"search_path":                 "pg_catalog",
	"standard_conforming_strings": "on",
	"row_security":                "on",
	"datestyle":                   "ISO, YMD",
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
	for name, value := range session {
		cfg.RuntimeParams[name] = value
	}
	return &Connector{config: cfg, alternate: c.Rotation != "password"}, nil
}

// Downstream returns the address of the cluster that the connector administers: roles are the
// cluster's, whatever the database.
func (c *Connector) Downstream() string {
	return net.JoinHostPort(c.config.Host, strconv.Itoa(int(c.config.Port)))
}

// Protect names roles that are never altered, such as leaver's own.
func (c *Connector) Protect(roles ...string) { c.protected = append(c.protected, roles...) }

// Accepts implements connectors.Connector. PostgreSQL cuts names at 63 bytes, so that a
// longer one would be a second spelling of another role's.
func (c *Connector) Accepts(r connectors.Registration) (string, error) {
	switch {
	case r.Kind != connectors.ServiceAccount:
		return "", errors.New("this connector ends service_account")
	case len(r.Reference) > maxRole:
		return "", fmt.Errorf("the role name must be at most %d bytes, got %d", maxRole, len(r.Reference))
	case slices.Contains(c.protected, r.Reference) || strings.HasPrefix(r.Reference, "leaver_app"):
		return "", fmt.Errorf("the role %q belongs to a leaver installation and cannot be registered", r.Reference)
	case r.Reference == c.config.User || strings.HasPrefix(r.Reference, "pg_"):
		return "", fmt.Errorf("the role %q is the connector's own or a system role and cannot be registered", r.Reference)
	case r.Shared && !r.HasSecret:
		return "", errors.New("a shared role is rotated, which needs its current password for verification: register the password as the secret")
	}
	return r.Reference, nil
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
