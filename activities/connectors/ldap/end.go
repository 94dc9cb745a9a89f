package ldap

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/go-ldap/ldap/v3"

	"github.com/leaverhq/leaver/activities/connectors"
)

// Revoke implements connectors.Revoker. It replaces the password by a random one, removes the entry from its groups
// and, in Active Directory, disables the account.
func (c *Connector) Revoke(ctx context.Context, t connectors.Target) (connectors.Answer, error) {
	return c.change(ctx, t, func(conn *ldap.Conn, entry *ldap.Entry, ad bool) (string, error) {
		if err := setPassword(conn, entry.DN, rand.Text()+"aA1!", ad); err != nil {
			return "", err
		}
		what := "password replaced"
		if ad {
			if err := setDisabled(conn, entry, true); err != nil {
				return "", err
			}
			what = "account disabled, password replaced"
		}
		groups, err := c.leaveGroups(conn, entry, func() error { return t.CheckFence(ctx) })
		if err != nil {
			return "", err
		}
		what += fmt.Sprintf(", removed from %d groups", groups.removed)
		if groups.left > 0 {
			what += fmt.Sprintf("; it stays the only member of %d groups, which must have one", groups.left)
		}
		if groups.uid {
			what += "; groups that name it by its uid are left, since the directory does not show that no other entry " +
				"has that uid"
		}
		return what, nil
	})
}

// Block implements connectors.Blocker in Active Directory. Other servers lock accounts only under some password
// policies, and do not say whether a lock has an effect.
func (c *Connector) Block(ctx context.Context, t connectors.Target) (connectors.Answer, error) {
	return c.change(ctx, t, func(conn *ldap.Conn, entry *ldap.Entry, ad bool) (string, error) {
		if !ad {
			return "", connectors.Permanent("the server is not Active Directory: its accounts cannot be locked reversibly")
		}
		return "account disabled", setDisabled(conn, entry, true)
	})
}

// Unblock implements connectors.Unblocker in Active Directory. A revoked account stays without access: its password is
// random, and not stored.
func (c *Connector) Unblock(ctx context.Context, t connectors.Target) (connectors.Answer, error) {
	return c.change(ctx, t, func(conn *ldap.Conn, entry *ldap.Entry, ad bool) (string, error) {
		if !ad {
			return "", connectors.Permanent("the server is not Active Directory: its accounts cannot be locked reversibly")
		}
		return "account enabled", setDisabled(conn, entry, false)
	})
}

// change reads an entry and changes it.
func (c *Connector) change(
	ctx context.Context, t connectors.Target, change func(conn *ldap.Conn, entry *ldap.Entry, ad bool) (string, error),
) (connectors.Answer, error) {
	dn, err := c.entry(t.Reference)
	if err != nil {
		return connectors.Answer{}, err
	}
	conn, closed, err := c.connect(ctx)
	if err != nil {
		return connectors.Answer{}, err
	}
	defer closed()
	entry, err := read(conn, dn.String())
	if errors.Is(err, errNoEntry) {
		return connectors.Answer{Outcome: connectors.Gone, Detail: "no such entry"}, nil
	}
	var ad bool
	if err == nil {
		ad, err = isAD(conn)
	}
	if err == nil {
		err = t.CheckFence(ctx)
	}
	if err != nil {
		return connectors.Answer{}, err
	}
	what, err := change(conn, entry, ad)
	return connectors.Answer{Outcome: connectors.Done, Detail: what}, err
}

// setPassword replaces an entry's password: by unicodePwd in Active Directory, by the Password Modify operation
// (RFC 3062) elsewhere, so that the server hashes it.
func setPassword(conn *ldap.Conn, dn, password string, ad bool) error { //nolint:revive // a fact about the server
	var err error
	if ad {
		request := ldap.NewModifyRequest(dn, nil)
		request.Replace("unicodePwd", []string{unicodePassword(password)})
		err = conn.Modify(request)
	} else {
		_, err = conn.PasswordModify(ldap.NewPasswordModifyRequest(dn, "", password))
	}
	if err != nil {
		return classify("replace the password", err)
	}
	return nil
}

// setDisabled sets the flag of a disabled account in Active Directory.
func setDisabled(conn *ldap.Conn, entry *ldap.Entry, want bool) error {
	control, err := strconv.ParseInt(entry.GetAttributeValue(attrControl), 10, 64)
	if err != nil {
		return connectors.Permanent("the entry has no userAccountControl: it is not an account")
	}
	request := ldap.NewModifyRequest(entry.DN, nil)
	if control &^= disabled; want {
		control |= disabled
	}
	request.Replace(attrControl, []string{strconv.FormatInt(control, 10)})
	if err := conn.Modify(request); err != nil {
		return classify("disable or enable the account", err)
	}
	return nil
}

// maxGroups bounds the groups that an entry is removed from.
const maxGroups = 1000

// groupsLeft is what became of the groups of an entry.
type groupsLeft struct {
	removed int
	left    int  // that must have a member, and have no other
	uid     bool // whether groups that name the entry by its uid were left alone
}

// leaveGroups removes an entry from its groups. Each change is made only while the attempt holds its lease.
func (c *Connector) leaveGroups(conn *ldap.Conn, entry *ldap.Entry, fence func() error) (g groupsLeft, err error) {
	uid, err := ownUID(conn, entry)
	if err != nil {
		return g, err
	}
	g.uid = uid == "" && entry.GetAttributeValue(attrUID) != ""
	values := map[string]string{"member": entry.DN, "uniqueMember": entry.DN, "memberUid": uid}
	for attribute, value := range values {
		if value == "" {
			continue
		}
		found, err := conn.Search(ldap.NewSearchRequest(c.config.Groups, ldap.ScopeWholeSubtree, ldap.NeverDerefAliases,
			maxGroups, 0, false, "("+attribute+"="+ldap.EscapeFilter(value)+")", []string{"1.1"}, nil))
		if err != nil {
			return g, classify("list the entry's groups", err)
		}
		for _, group := range found.Entries {
			if err := fence(); err != nil {
				return g, err
			}
			request := ldap.NewModifyRequest(group.DN, nil)
			request.Delete(attribute, []string{value})
			switch err := conn.Modify(request); {
			case err == nil:
				g.removed++
			case ldap.IsErrorWithCode(err, ldap.LDAPResultObjectClassViolation):
				g.left++
			case ldap.IsErrorAnyOf(err, ldap.LDAPResultNoSuchAttribute, ldap.LDAPResultNoSuchObject): // gone meanwhile
			default:
				return g, classify("remove the entry from a group", err)
			}
		}
	}
	return g, nil
}

// ownUID returns the uid of an entry, or empty if the directory does not show that no other entry has it: an entry may
// be allowed to write its own uid, so its uid must not remove another entry from groups. A naming context that the
// connector's account may not search, or not within the limit, shows nothing.
func ownUID(conn *ldap.Conn, entry *ldap.Entry) (string, error) {
	uid := entry.GetAttributeValue(attrUID)
	if uid == "" {
		return "", nil
	}
	root, err := rootDSE(conn, attrContexts)
	if err != nil {
		return "", err
	}
	own := 0
	for _, base := range root.GetAttributeValues(attrContexts) {
		found, err := conn.Search(ldap.NewSearchRequest(base, ldap.ScopeWholeSubtree, ldap.NeverDerefAliases,
			0, int(timeout/time.Second)/2, false, "(uid="+ldap.EscapeFilter(uid)+")", []string{"1.1"}, nil))
		switch {
		case refusal(err) != nil:
			return "", nil //nolint:nilerr // what cannot be searched shows nothing
		case err != nil:
			return "", classify("search for other entries with the same uid", err)
		}
		for _, e := range found.Entries {
			if e.DN != entry.DN {
				return "", nil
			}
			own++
		}
	}
	if own == 0 { // the connector's account does not see all of the directory
		return "", nil
	}
	return uid, nil
}

// Renew implements connectors.Rotator. The old password ends at once: a directory has one.
func (c *Connector) Renew(ctx context.Context, t connectors.Target) (connectors.Answer, error) {
	return c.change(ctx, t, func(conn *ldap.Conn, entry *ldap.Entry, ad bool) (string, error) {
		return "password replaced", setPassword(conn, entry.DN, t.NewSecret.Reveal(), ad)
	})
}

// Retire implements connectors.Rotator. Nothing is left to do.
func (c *Connector) Retire(context.Context, connectors.Target) (connectors.Answer, error) {
	return connectors.Answer{Outcome: connectors.Done, Detail: "the old password ended when it was replaced"}, nil
}

// Probe implements connectors.Verifier by a login with the registered password. Without a password it reads whether
// the entry exists and, in Active Directory, whether it is enabled.
func (c *Connector) Probe(ctx context.Context, t connectors.Target) (connectors.Vitality, string, error) {
	dn, err := c.entry(t.Reference)
	if err != nil {
		return connectors.Unknown, "", err
	}
	if t.Secret != "" {
		return c.login(ctx, dn, t.Secret)
	}
	conn, closed, err := c.connect(ctx)
	if err != nil {
		return connectors.Unknown, "", err
	}
	defer closed()
	entry, err := read(conn, dn.String())
	switch {
	case errors.Is(err, errNoEntry):
		return connectors.Dead, "no such entry", nil
	case err != nil:
		return connectors.Unknown, "", err
	}
	control, err := strconv.ParseInt(entry.GetAttributeValue(attrControl), 10, 64)
	switch {
	case err != nil:
		return connectors.Unknown, "no password is registered to log in with", nil
	case control&disabled != 0:
		return connectors.Dead, "the account is disabled", nil
	}
	return connectors.Alive, "the account is enabled", nil
}

// Possesses implements connectors.Possession by a login with the registered password.
func (c *Connector) Possesses(ctx context.Context, t connectors.Target) (connectors.Vitality, string, error) {
	dn, err := c.entry(t.Reference) // before the login, so that the connector's password cannot be guessed
	switch {
	case err != nil:
		return connectors.Unknown, "", err
	case t.Secret == "":
		return connectors.Unknown, "no password is registered", nil
	}
	return c.login(ctx, dn, t.Secret)
}

// login logs in with a password, which must not be empty: such a bind is anonymous.
func (c *Connector) login(ctx context.Context, dn *ldap.DN, password connectors.Secret) (
	connectors.Vitality, string, error,
) {
	conn, closed, err := c.dial(ctx)
	if err != nil {
		return connectors.Unknown, "", err
	}
	defer closed()
	err = conn.Bind(dn.String(), password.Reveal())
	switch {
	case err == nil:
		return connectors.Alive, "the password logs in", nil
	case ldap.IsErrorWithCode(err, ldap.LDAPResultInvalidCredentials):
		return connectors.Dead, "the password is refused: invalidCredentials", nil
	}
	return connectors.Unknown, "", classify("try the password", err)
}
