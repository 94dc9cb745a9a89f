package mysql

import (
	"context"
	"crypto/rand"
	"database/sql"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/google/uuid"

	"github.com/leaverhq/leaver/activities/connectors"
)

// Revoke implements connectors.Revoker. It locks the account, sets a random password, so that unlocking it does not
// restore access, and ends its sessions.
func (c *Connector) Revoke(ctx context.Context, t connectors.Target) (connectors.Answer, error) {
	return c.end(ctx, t, "account locked, password replaced", " identified by "+quote(rand.Text())+" account lock")
}

// Block implements connectors.Blocker. It locks the account and ends its sessions, and leaves its password.
func (c *Connector) Block(ctx context.Context, t connectors.Target) (connectors.Answer, error) {
	return c.end(ctx, t, "account locked", " account lock")
}

// Unblock implements connectors.Unblocker. A revoked account stays without access: its password is random, and not
// stored.
func (c *Connector) Unblock(ctx context.Context, t connectors.Target) (connectors.Answer, error) {
	return c.end(ctx, t, "account unlocked", " account unlock")
}

func (c *Connector) end(ctx context.Context, t connectors.Target, what, change string) (connectors.Answer, error) {
	a, gone, err := c.alter(ctx, t, change)
	if gone || err != nil {
		return connectors.Answer{Outcome: connectors.Gone, Detail: "no such account"}, err
	}
	return c.kill(ctx, a, what)
}

// alter changes an account. gone is set if it does not exist.
func (c *Connector) alter(ctx context.Context, t connectors.Target, change string) (a account, gone bool, err error) {
	if a, err = parse(t.Reference); err == nil {
		err = c.reserved(a)
	}
	if err != nil {
		return a, false, err
	}
	exists, err := c.exists(ctx, a)
	if err != nil || !exists {
		return a, err == nil, err
	}
	if err := t.CheckFence(ctx); err != nil {
		return a, false, err
	}
	_, err = c.db.ExecContext(ctx, "alter user "+a.quoted()+change)
	if numberOf(err) == errCannotUser {
		return a, true, nil
	}
	if err != nil {
		return a, false, classify("alter the account", err)
	}
	return a, false, nil
}

// killWait is how long kill waits for the server to end sessions, which it does at each session's next check.
const killWait = 5 * time.Second

// kill ends the sessions of the account's user, and waits until the server no longer lists them.
func (c *Connector) kill(ctx context.Context, a account, what string) (connectors.Answer, error) {
	ids, err := c.sessions(ctx, a)
	if err != nil {
		return connectors.Answer{}, err
	}
	for _, id := range ids {
		_, err := c.db.ExecContext(ctx, "kill "+strconv.FormatInt(id, 10))
		if err != nil && numberOf(err) != errNoSuchThread {
			return connectors.Answer{}, classify("end the account's sessions", err)
		}
	}
	left, err := c.awaitEnd(ctx, a, ids)
	switch {
	case err != nil:
		return connectors.Answer{}, err
	case left > 0:
		return connectors.Answer{}, connectors.Retryable("%s, but %d of the user's sessions are still open", what, left)
	}
	return connectors.Answer{
		Outcome: connectors.Done, Detail: fmt.Sprintf("%s, %d sessions ended", what, len(ids)),
	}, nil
}

// awaitEnd waits until none of the killed sessions is listed, and returns how many still are after killWait. Sessions
// opened since are not waited for: those of a shared account have the new password.
func (c *Connector) awaitEnd(ctx context.Context, a account, killed []int64) (left int, err error) {
	tick, end := time.NewTicker(20*time.Millisecond), time.After(killWait)
	defer tick.Stop()
	for {
		open, err := c.listed(ctx, a)
		if err != nil {
			return 0, err
		}
		open = slices.DeleteFunc(open, func(id int64) bool { return !slices.Contains(killed, id) })
		if len(open) == 0 {
			return 0, nil
		}
		select {
		case <-tick.C:
		case <-end:
			return len(open), nil
		}
	}
}

// Renew implements connectors.Rotator. MariaDB has one password for an account, so that the old one ends at once for
// new sessions; open sessions stay until Retire.
func (c *Connector) Renew(ctx context.Context, t connectors.Target) (connectors.Answer, error) {
	if strings.ContainsAny(t.NewSecret.Reveal(), "\\'") { // leaver makes none
		return connectors.Answer{}, connectors.Permanent("the new password contains a quote or a backslash")
	}
	_, gone, err := c.alter(ctx, t, " identified by "+quote(t.NewSecret.Reveal()))
	if gone || err != nil {
		return connectors.Answer{Outcome: connectors.Gone, Detail: "no such account"}, err
	}
	return connectors.Answer{Outcome: connectors.Done, Detail: "password replaced"}, nil
}

// Retire implements connectors.Rotator. It ends the account's sessions: holders of the new password log in again.
func (c *Connector) Retire(ctx context.Context, t connectors.Target) (connectors.Answer, error) {
	a, err := parse(t.Reference)
	if err == nil {
		err = c.reserved(a)
	}
	if err == nil {
		err = t.CheckFence(ctx)
	}
	if err != nil {
		return connectors.Answer{}, err
	}
	return c.kill(ctx, a, "the old password is replaced")
}

// drillUser is the prefix of accounts that are issued for drills.
const drillUser = "leaver-drill-"

// Issue implements connectors.Issuer. It creates an account without privileges.
func (c *Connector) Issue(ctx context.Context, name string, _ uuid.UUID) (connectors.Issued, error) {
	a, password := account{drillUser + name, "%"}, connectors.Secret(rand.Text())
	if err := c.Remove(ctx, name); err != nil {
		return connectors.Issued{}, err
	}
	_, err := c.db.ExecContext(ctx, "create user "+a.quoted()+" identified by "+quote(password.Reveal()))
	if err != nil {
		return connectors.Issued{}, classify("create an account", err)
	}
	return connectors.Issued{Kind: connectors.ServiceAccount, Reference: a.String(), Secret: password}, nil
}

// Remove implements connectors.Issuer.
func (c *Connector) Remove(ctx context.Context, name string) error {
	if _, err := c.db.ExecContext(ctx, "drop user if exists "+account{drillUser + name, "%"}.quoted()); err != nil {
		return classify("delete an account", err)
	}
	return nil
}

// Probe implements connectors.Verifier. It logs in with the registered password and counts the sessions of the
// account's user. Without a password it looks the account up, which shows only whether it exists.
func (c *Connector) Probe(ctx context.Context, t connectors.Target) (connectors.Vitality, string, error) {
	a, err := parse(t.Reference)
	if err != nil {
		return connectors.Unknown, "", err
	}
	exists, err := c.exists(ctx, a)
	switch {
	case err != nil:
		return connectors.Unknown, "", err
	case !exists:
		return connectors.Dead, "no such account", nil
	case t.Secret == "":
		return connectors.Unknown, "no password is registered to log in with", nil
	}
	sessions, err := c.sessions(ctx, a)
	if err != nil {
		return connectors.Unknown, "", err
	}
	vitality, detail, err := c.login(ctx, a, t.Secret)
	switch {
	case err != nil || vitality != connectors.Dead:
		return vitality, detail, err
	case len(sessions) > 0 && t.NewReference != t.Reference: // else the sessions may use the new password
		return connectors.Alive, fmt.Sprintf("the password is refused, but %d sessions are open", len(sessions)), nil
	}
	return connectors.Dead, fmt.Sprintf("the password is refused, %d sessions open", len(sessions)), nil
}

// Possesses implements connectors.Possession by a login with the registered password.
func (c *Connector) Possesses(ctx context.Context, t connectors.Target) (connectors.Vitality, string, error) {
	a, err := parse(t.Reference)
	if err == nil {
		err = c.reserved(a) // so that its password cannot be guessed
	}
	switch {
	case err != nil:
		return connectors.Unknown, "", err
	case t.Secret == "":
		return connectors.Unknown, "no password is registered", nil
	}
	return c.login(ctx, a, t.Secret)
}

// refused returns what a refused password proves: that it is dead, if the account is the one that the server takes for
// a login of the user from any address.
func (c *Connector) refused(ctx context.Context, a account) (connectors.Vitality, string, error) {
	var accounts int
	err := c.db.QueryRowContext(ctx, "select count(*) from mysql.user where binary User = ?", a.user).Scan(&accounts)
	switch {
	case err != nil:
		return connectors.Unknown, "", classify("count the user's accounts", err)
	case a.host == "%" && accounts <= 1:
		return connectors.Dead, "the registered password is refused", nil
	}
	return connectors.Unknown, "the login is refused, perhaps as that of another host or from leaver's address", nil
}

// login logs in with a password. It proves nothing if the server takes the login for that of the same user at another
// host, or lets the account log in from other addresses only.
func (c *Connector) login(
	ctx context.Context, a account, password connectors.Secret,
) (connectors.Vitality, string, error) {
	config := c.config.Clone()
	config.User, config.Passwd = a.user, password.Reveal()
	connector, err := mysql.NewConnector(config)
	if err != nil {
		return connectors.Unknown, "", connectors.Permanent("the password cannot be tried")
	}
	db := sql.OpenDB(connector)
	defer func() { _ = db.Close() }()
	var as string
	err = db.QueryRowContext(ctx, "select current_user()").Scan(&as)
	switch n := numberOf(err); {
	case err == nil:
		other, parsed := parse(as)
		if parsed != nil || other != a {
			return connectors.Unknown, "from leaver's address the server takes the login for that of another host", nil
		}
		return connectors.Alive, "the password logs in", nil
	case n == errLockedMariaDB, n == errLockedMySQL:
		return connectors.Dead, "the login is refused: the account is locked", nil
	case n == errAccessDenied:
		return c.refused(ctx, a)
	case n == errExpired, n == errMustChange: // after the password
		return connectors.Alive, "the password logs in, and has expired", nil
	case n == errHostDenied:
		return connectors.Unknown, "the account may not log in from leaver's address", nil
	}
	return connectors.Unknown, "", classify("try the password", err)
}
