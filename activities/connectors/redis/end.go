package redis

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"

	"github.com/leaverhq/leaver/activities/connectors"
)

// Revoke implements connectors.Revoker. It disables the user, removes its passwords, so that enabling it again does
// not restore access, and closes its connections.
func (c *Connector) Revoke(ctx context.Context, t connectors.Target) (connectors.Answer, error) {
	return c.end(ctx, t, "user disabled, passwords removed", "off", "resetpass")
}

// Block implements connectors.Blocker. It disables the user and closes its connections, and leaves its passwords.
func (c *Connector) Block(ctx context.Context, t connectors.Target) (connectors.Answer, error) {
	return c.end(ctx, t, "user disabled", "off")
}

// Unblock implements connectors.Unblocker. A revoked user has no password, so that it stays without access.
func (c *Connector) Unblock(ctx context.Context, t connectors.Target) (connectors.Answer, error) {
	return c.end(ctx, t, "user enabled", "on")
}

func (c *Connector) end(
	ctx context.Context, t connectors.Target, what string, rules ...any,
) (connectors.Answer, error) {
	kept, gone, err := c.change(ctx, t, rules...)
	if gone || err != nil {
		return connectors.Answer{Outcome: connectors.Gone, Detail: "no such user"}, err
	}
	closed, err := c.client.ClientKillByFilter(ctx, "USER", t.Reference).Result()
	if err != nil {
		return connectors.Answer{}, classify("close the user's connections", err)
	}
	return connectors.Answer{
		Outcome: connectors.Done, Detail: fmt.Sprintf("%s, %d connections closed%s", what, closed, kept),
	}, nil
}

// change applies ACL rules to a user that exists, and stores them where the server reads them at its start. kept is a
// text for the evidence if they are not stored.
func (c *Connector) change(ctx context.Context, t connectors.Target, rules ...any) (kept string, gone bool, err error) {
	if err := c.Reserved(ctx, t.Reference); err != nil {
		return "", false, err
	}
	exists, err := c.exists(ctx, t.Reference)
	if err != nil || !exists { // ACL SETUSER would create it
		return "", err == nil, err
	}
	if err := t.CheckFence(ctx); err != nil {
		return "", false, err
	}
	if err := c.client.Do(ctx, append([]any{"ACL", "SETUSER", t.Reference}, rules...)...).Err(); err != nil {
		return "", false, classify("change the user", err)
	}
	return c.store(ctx), false, nil
}

// store writes the users to the ACL file, or to redis.conf.
func (c *Connector) store(ctx context.Context) string {
	err := c.client.Do(ctx, "ACL", "SAVE").Err()
	if err != nil && strings.Contains(err.Error(), "not configured to use an ACL file") {
		err = c.client.ConfigRewrite(ctx).Err()
	}
	if err != nil {
		return "; the server did not store its users: a restart loses this change"
	}
	return ""
}

// digest returns a password as ACL rules name it, so that no command contains it.
func digest(secret connectors.Secret) string {
	sum := sha256.Sum256([]byte(secret.Reveal()))
	return hex.EncodeToString(sum[:])
}

// Renew implements connectors.Rotator. The old password works until Retire.
func (c *Connector) Renew(ctx context.Context, t connectors.Target) (connectors.Answer, error) {
	kept, gone, err := c.change(ctx, t, "#"+digest(t.NewSecret))
	if gone || err != nil {
		return connectors.Answer{Outcome: connectors.Gone, Detail: "no such user"}, err
	}
	return connectors.Answer{Outcome: connectors.Done, Detail: "password added" + kept}, nil
}

// Retire implements connectors.Rotator. It removes the old password and closes the user's connections: holders of
// the new one connect again.
func (c *Connector) Retire(ctx context.Context, t connectors.Target) (connectors.Answer, error) {
	u, err := c.describe(ctx, t.Reference)
	switch old := digest(t.Secret); {
	case errors.Is(err, errNoUser):
		return connectors.Answer{Outcome: connectors.Done, Detail: "no such user"}, nil
	case err != nil:
		return connectors.Answer{}, err
	case slices.Contains(u.passwords, old): // to remove another one is an error
		return c.end(ctx, t, "old password removed", "!"+old)
	}
	return c.end(ctx, t, "the old password is removed")
}

// drillUser is the prefix of users that are issued for drills.
const drillUser = "leaver-drill-"

// Issue implements connectors.Issuer. It creates a user without rights.
func (c *Connector) Issue(ctx context.Context, name string, _ uuid.UUID) (connectors.Issued, error) {
	user, password := drillUser+name, connectors.Secret(rand.Text())
	err := c.client.Do(ctx, "ACL", "SETUSER", user, "reset", "on", "#"+digest(password)).Err()
	if err != nil {
		return connectors.Issued{}, classify("create a user", err)
	}
	return connectors.Issued{Kind: connectors.ServiceAccount, Reference: user, Secret: password}, nil
}

// Remove implements connectors.Issuer.
func (c *Connector) Remove(ctx context.Context, name string) error {
	if err := c.client.Do(ctx, "ACL", "DELUSER", drillUser+name).Err(); err != nil {
		return classify("delete a user", err)
	}
	return nil
}

// Probe implements connectors.Verifier. It logs in with the registered password and counts the user's connections.
// Without a password it reads whether the user is enabled.
func (c *Connector) Probe(ctx context.Context, t connectors.Target) (connectors.Vitality, string, error) {
	u, err := c.describe(ctx, t.Reference)
	switch {
	case errors.Is(err, errNoUser):
		return connectors.Dead, "no such user", nil
	case err != nil:
		return connectors.Unknown, "", err
	}
	sessions, err := c.sessions(ctx, t.Reference)
	if err != nil {
		return connectors.Unknown, "", err
	}
	if t.Secret == "" || u.open {
		if u.on || sessions > 0 {
			return connectors.Alive, fmt.Sprintf("enabled: %t, %d connections open", u.on, sessions), nil
		}
		return connectors.Dead, "the user is disabled, no connection open", nil
	}
	refused, err := c.loginRefused(ctx, t)
	switch {
	case err != nil:
		return connectors.Unknown, "", err
	case !refused:
		return connectors.Alive, "the password logs in", nil
	case sessions > 0 && t.NewReference != t.Reference: // else the connections may use the new password
		return connectors.Alive, fmt.Sprintf("the password is refused, but %d connections are open", sessions), nil
	}
	return connectors.Dead, fmt.Sprintf("the password is refused (WRONGPASS), %d connections open", sessions), nil
}

// Possesses implements connectors.Possession by a login with the registered password.
func (c *Connector) Possesses(ctx context.Context, t connectors.Target) (connectors.Vitality, string, error) {
	if t.Secret == "" {
		return connectors.Unknown, "no password is registered", nil
	}
	if err := c.Reserved(ctx, t.Reference); err != nil { // so that its password cannot be guessed
		return connectors.Unknown, "", err
	}
	u, err := c.describe(ctx, t.Reference)
	switch {
	case errors.Is(err, errNoUser):
		return connectors.Dead, "no such user", nil
	case err != nil:
		return connectors.Unknown, "", err
	case u.open:
		return connectors.Unknown, "the user accepts any password", nil
	}
	refused, err := c.loginRefused(ctx, t)
	switch {
	case err != nil:
		return connectors.Unknown, "", err
	case refused:
		return connectors.Dead, "the registered password is refused", nil
	}
	return connectors.Alive, "the password logs in", nil
}

// loginRefused reports whether a login with the registered password is refused.
func (c *Connector) loginRefused(ctx context.Context, t connectors.Target) (bool, error) {
	options := *c.options
	options.Username, options.Password, options.PoolSize = t.Reference, t.Secret.Reveal(), 1
	client := redis.NewClient(&options)
	defer func() { _ = client.Close() }()
	err := client.Do(ctx, "PING").Err()
	var refused redis.Error
	switch {
	case err == nil:
		return false, nil
	case errors.As(err, &refused) && strings.HasPrefix(refused.Error(), "WRONGPASS"):
		return true, nil
	case errors.As(err, &refused) && strings.HasPrefix(refused.Error(), "NOPERM"): // after the login
		return false, nil
	}
	return false, classify("try the password", err)
}
