// Package redis ends service accounts that are ACL users of a Redis or Valkey server: it disables them and closes
// their connections, or rotates the password of shared ones, of which a user may have two for a while.
//
// An account does not control what the connector runs: the server offers no code that other users' commands call.
package redis

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/leaverhq/leaver/activities/connectors"
)

// Config are the settings of a connector of type redis.
type Config struct {
	// URL is a reference to the URL of the server, redis:// or rediss:// (TLS), with a user that may run ACL and
	// CLIENT.
	URL connectors.SecretRef `yaml:"url"`
}

// Connector implements Revoker, Rotator, Blocker, Unblocker, Verifier, Possession, Guard, Issuer and
// Checker.
type Connector struct {
	options *redis.Options
	client  *redis.Client
}

// New validates the settings and resolves the URL.
func New(c Config) (*Connector, error) {
	url, err := c.URL.Resolve()
	if err != nil {
		return nil, fmt.Errorf("url: %w", err)
	}
	options, err := redis.ParseURL(url.Reveal())
	if err != nil {
		return nil, errors.New("url must be redis://USER:PASSWORD@HOST:PORT, or rediss:// for TLS") // the error quotes it
	}
	options.MaxRetries, options.DialerRetries = -1, 1 // Temporal retries
	options.ContextTimeoutEnabled = true
	options.Protocol, options.DisableIdentity = 2, true
	return &Connector{options: options, client: redis.NewClient(options)}, nil
}

// Downstream implements connectors.Located.
func (c *Connector) Downstream() string { return strings.ToLower(c.options.Addr) }

// Close implements connectors.Connector.
func (c *Connector) Close() { _ = c.client.Close() }

// userName are the names that ACL SETUSER accepts and that have one meaning in CLIENT LIST.
var userName = regexp.MustCompile(`^[^\s\x00-\x1f\x7f=]{1,255}$`)

// Accepts implements connectors.Connector.
func (c *Connector) Accepts(r connectors.Registration) (string, error) {
	switch {
	case r.Kind != connectors.ServiceAccount:
		return "", fmt.Errorf("kind must be %s, got %s", connectors.ServiceAccount, r.Kind)
	case r.Shared && !r.HasSecret:
		return "", errors.New("a shared user is rotated: register its password as the secret")
	}
	return r.Reference, c.Reserved(context.Background(), r.Reference)
}

// Reserved implements connectors.Guard: the user default, with which the server starts, and the connector's own.
func (c *Connector) Reserved(_ context.Context, user string) error {
	switch {
	case !userName.MatchString(user):
		return connectors.Permanent("a user's name has no spaces, control characters and =, got %q", user)
	case user == "default", user == c.options.Username:
		return connectors.Permanent("the user %s is the server's default or the connector's own", user)
	}
	return nil
}

// Check implements connectors.Checker: the connector's user must be able to read users and connections.
func (c *Connector) Check(ctx context.Context) error {
	if _, err := c.exists(ctx, "default"); err != nil {
		return err
	}
	_, err := c.sessions(ctx, "default")
	return err
}

// exists reports whether the user exists.
func (c *Connector) exists(ctx context.Context, user string) (bool, error) {
	_, err := c.describe(ctx, user)
	if errors.Is(err, errNoUser) {
		return false, nil
	}
	return err == nil, err
}

var errNoUser = errors.New("no such user")

// user is what the server says of a user.
type user struct {
	on, open  bool     // enabled; without a password
	passwords []string // digests
}

// describe returns what the server says of a user. Error: errNoUser.
func (c *Connector) describe(ctx context.Context, name string) (u user, err error) {
	answer, err := c.client.Do(ctx, "ACL", "GETUSER", name).Slice()
	if errors.Is(err, redis.Nil) {
		return u, errNoUser
	}
	if err != nil {
		return u, classify("read the user", err)
	}
	for i := 0; i+1 < len(answer); i += 2 {
		list, _ := answer[i+1].([]any)
		switch answer[i] {
		case "flags":
			u.on, u.open = slices.Contains(list, any("on")), slices.Contains(list, any("nopass"))
		case "passwords":
			for _, digest := range list {
				u.passwords = append(u.passwords, fmt.Sprint(digest))
			}
		}
	}
	return u, nil
}

// sessions returns the number of the user's open connections.
func (c *Connector) sessions(ctx context.Context, user string) (int, error) {
	list, err := c.client.ClientList(ctx).Result()
	if err != nil {
		return 0, classify("list the connections", err)
	}
	n := 0
	for line := range strings.Lines(list) {
		if slices.Contains(strings.Fields(line), "user="+user) {
			n++
		}
	}
	return n, nil
}

// classify returns the error of a command: permanent for a refusal, retryable otherwise. It quotes nothing of it.
func classify(what string, err error) error {
	var refused redis.Error
	if !errors.As(err, &refused) {
		return connectors.Retryable("%s: %s", what, connectors.TransportReason(err))
	}
	code, _, _ := strings.Cut(refused.Error(), " ")
	switch code {
	case "NOPERM":
		return connectors.Permanent("%s: NOPERM: the connector's user lacks the right to run ACL or CLIENT", what)
	case "WRONGPASS", "NOAUTH":
		return connectors.Permanent("%s: %s: the connector's own login is refused", what, code)
	case "LOADING", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "BUSY", "READONLY":
		return connectors.Retryable("%s: %s", what, code)
	}
	return connectors.Permanent("%s: the server refused the command", what)
}
