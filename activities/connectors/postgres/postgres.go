// Package postgres ends service accounts that are roles of a PostgreSQL database: it
// disables their login, or rotates the password of shared ones. As neither ends open
// sessions, it ends these, too.
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
	// URL is a reference to the URL of the downstream database, with a role that may alter
	// others: CREATEROLE with ADMIN on them, and pg_signal_backend.
	URL connectors.SecretRef `yaml:"url"`
	// Rotation is how a shared role gets a new secret. alternate (default) creates a second
	// role that acts as the first, so that holders keep access until they have the new
	// secret. password replaces the password immediately.
	Rotation string `yaml:"rotation"`
}

// connectTimeout bounds a login of the connector's role or of the probed role.
const connectTimeout = 10 * time.Second

// Connector implements Revoker, Rotator, Blocker, Verifier, Possession, Discoverer and Issuer.
type Connector struct {
	config    *pgx.ConnConfig
	alternate bool
	reserved  reserved
	protected []string // names of roles that are never altered, besides those of [forbiddenReason]
}

// session contains the settings of the connector's own sessions. As they are part of the
// login, they override the settings of the database and the role: functions and operators
// that an ended account has defined, in any schema, must not run with the connector's rights.
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
		return nil, errors.New("url is required")
	}
	cfg, err := pgx.ParseConfig(url.Reveal())
	if err != nil {
		return nil, errors.New("url must be a PostgreSQL URL") // pgx's error quotes it
	}
	if c.Rotation != "" && c.Rotation != "alternate" && c.Rotation != "password" {
		return nil, fmt.Errorf("rotation must be alternate or password, got %q", c.Rotation)
	}
	cfg.ConnectTimeout = connectTimeout
	for name, value := range session {
		cfg.RuntimeParams[name] = value
	}
	return &Connector{config: cfg, alternate: c.Rotation != "password"}, nil
}

// Downstream returns the address of the cluster that the connector administers: all
// databases of a cluster have the same roles.
func (c *Connector) Downstream() string {
	return net.JoinHostPort(c.config.Host, strconv.Itoa(int(c.config.Port)))
}

// Protect adds roles that are never altered, such as leaver's own.
func (c *Connector) Protect(roles ...string) { c.protected = append(c.protected, roles...) }

// Accepts implements connectors.Connector. PostgreSQL truncates names to 63 bytes, so that
// a longer name would be a second spelling of another role.
func (c *Connector) Accepts(r connectors.Registration) (string, error) {
	switch {
	case r.Kind != connectors.ServiceAccount:
		return "", fmt.Errorf("kind must be %s, got %s", connectors.ServiceAccount, r.Kind)
	case len(r.Reference) > maxRole:
		return "", fmt.Errorf("the role name must be at most %d bytes, got %d", maxRole, len(r.Reference))
	case slices.Contains(c.protected, r.Reference) || strings.HasPrefix(r.Reference, "leaver_app"):
		return "", fmt.Errorf("the role %q belongs to a leaver installation and cannot be registered", r.Reference)
	case r.Reference == c.config.User || strings.HasPrefix(r.Reference, "pg_"):
		return "", fmt.Errorf(
			"the role %q is the connector's own or a system role and cannot be registered", r.Reference,
		)
	case r.Shared && !r.HasSecret:
		return "", errors.New("a shared role is rotated, which needs its current password for verification: " +
			"register the password as the secret")
	}
	return r.Reference, nil
}

// Close implements connectors.Connector.
func (c *Connector) Close() {}

// connect opens a connection with the connector's own role. Each attempt opens one.
func (c *Connector) connect(ctx context.Context) (*pgx.Conn, error) {
	conn, err := pgx.ConnectConfig(ctx, c.config)
	if err != nil {
		return nil, classify("log in as the connector's role", err)
	}
	return conn, nil
}
