// Package ldap ends service accounts of an LDAP directory: it replaces their passwords, removes them from groups and,
// in Active Directory, disables them, or rotates the password of shared ones.
//
// A directory has no sessions: a connection that is bound already stays bound until it is closed.
package ldap

import (
	"cmp"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode/utf16"

	"github.com/go-ldap/ldap/v3"
	"golang.org/x/text/unicode/norm"

	"github.com/leaverhq/leaver/activities/connectors"
)

// Config are the settings of a connector of type ldap.
type Config struct {
	URL      string `yaml:"url"`       // ldaps://HOST, or ldap://HOST with start_tls
	StartTLS bool   `yaml:"start_tls"` // RFC 4511 section 4.14
	// BindDN and Password are those of an account that may read and modify the entries below Base and Groups.
	BindDN   string               `yaml:"bind_dn"`
	Password connectors.SecretRef `yaml:"password"`
	Base     string               `yaml:"base"`   // only entries below it are ended
	Groups   string               `yaml:"groups"` // where groups are searched; default base
}

// Connector implements Revoker, Rotator, Blocker, Verifier, Possession, Guard and Checker.
type Connector struct {
	config   Config
	host     string
	password connectors.Secret
	base     *ldap.DN
	own      *ldap.DN
}

const timeout = 10 * time.Second

// New validates the settings and resolves the password.
func New(c Config) (*Connector, error) {
	u, err := url.Parse(c.URL)
	switch {
	case err != nil || u.Host == "" || (u.Scheme != "ldap" && u.Scheme != "ldaps"):
		return nil, errors.New("url must be ldaps://HOST or ldap://HOST")
	case u.Scheme == "ldap" && !c.StartTLS && !connectors.IsLoopback(u.Hostname()):
		return nil, errors.New("url must use ldaps, or set start_tls: true: passwords would be sent in clear")
	}
	password, err := c.Password.Resolve()
	if err != nil {
		return nil, fmt.Errorf("password: %w", err)
	}
	if password == "" { // a bind without one is anonymous (RFC 4513 section 5.1.2)
		return nil, errors.New("password is required")
	}
	base, err := parse(c.Base)
	if err != nil {
		return nil, fmt.Errorf("base must be a DN, got %q", c.Base)
	}
	own, err := parse(c.BindDN)
	if err != nil {
		return nil, fmt.Errorf("bind_dn must be a DN, got %q", c.BindDN)
	}
	if c.Groups == "" {
		c.Groups = c.Base
	}
	return &Connector{config: c, host: u.Host, password: password, base: canonical(base), own: canonical(own)}, nil
}

// Downstream implements connectors.Located.
func (c *Connector) Downstream() string { return strings.ToLower(c.host) }

// Close implements connectors.Connector.
func (c *Connector) Close() {}

// Accepts implements connectors.Connector. The reference is the entry's DN in its canonical spelling.
func (c *Connector) Accepts(r connectors.Registration) (string, error) {
	switch {
	case r.Kind != connectors.ServiceAccount:
		return "", fmt.Errorf("kind must be %s, got %s", connectors.ServiceAccount, r.Kind)
	case r.Shared && !r.HasSecret:
		return "", errors.New("a shared account is rotated: register its password as the secret")
	}
	dn, err := c.entry(r.Reference)
	if err != nil {
		return "", err
	}
	return dn.String(), nil
}

// aliases are the short names of attributes that DNs spell in several ways (RFC 4519, RFC 4524).
var aliases = map[string]string{
	"commonname": "cn", "2.5.4.3": "cn", "surname": "sn", "2.5.4.4": "sn",
	"2.5.4.5": "serialnumber", "countryname": "c", "2.5.4.6": "c", "localityname": "l", "2.5.4.7": "l",
	"stateorprovincename": "st", "2.5.4.8": "st", "streetaddress": "street", "2.5.4.9": "street",
	"organizationname": "o", "2.5.4.10": "o", "organizationalunitname": "ou", "2.5.4.11": "ou", "2.5.4.12": "title",
	"gn": "givenname", "2.5.4.42": "givenname", "userid": "uid", "0.9.2342.19200300.100.1.1": "uid",
	"rfc822mailbox": "mail", "0.9.2342.19200300.100.1.3": "mail", "domaincomponent": "dc",
	"0.9.2342.19200300.100.1.25": "dc", "2.16.840.1.113730.3.1.3": "employeenumber",
	"emailaddress": "email", "1.2.840.113549.1.9.1": "email",
}

// attribute returns the name of an attribute that the spellings in aliases share.
func attribute(spelling string) string {
	name := strings.ToLower(spelling)
	return cmp.Or(aliases[name], name)
}

// parse returns a DN with at least one part.
func parse(text string) (*ldap.DN, error) {
	dn, err := ldap.ParseDN(text)
	if err == nil && len(dn.RDNs) == 0 {
		err = errors.New("the DN is empty")
	}
	return dn, err
}

// canonical returns the one spelling of a DN that servers take for the same entry: the attributes by their short names,
// the values prepared as for a comparison that ignores case and insignificant spaces (RFC 4518), and the parts of an
// RDN in order.
func canonical(dn *ldap.DN) *ldap.DN {
	same := &ldap.DN{}
	for _, rdn := range dn.RDNs {
		part := &ldap.RelativeDN{}
		for _, a := range rdn.Attributes {
			value := strings.Join(strings.Fields(strings.ToLower(norm.NFC.String(a.Value))), " ")
			part.Attributes = append(part.Attributes, &ldap.AttributeTypeAndValue{Type: attribute(a.Type), Value: value})
		}
		slices.SortFunc(part.Attributes, func(a, b *ldap.AttributeTypeAndValue) int {
			return cmp.Or(cmp.Compare(a.Type, b.Type), cmp.Compare(a.Value, b.Value))
		})
		same.RDNs = append(same.RDNs, part)
	}
	return same
}

// Reserved implements connectors.Guard.
func (c *Connector) Reserved(_ context.Context, reference string) error {
	_, err := c.entry(reference)
	return err
}

// entry returns the DN of an entry that the connector may end: one below base that is not the connector's own.
func (c *Connector) entry(reference string) (*ldap.DN, error) {
	given, err := parse(reference)
	if err != nil {
		return nil, connectors.Permanent("the reference must be a DN, got %q", reference)
	}
	dn := canonical(given)
	if !c.base.AncestorOfFold(dn) {
		return nil, connectors.Permanent("the entry must be below %s", c.config.Base)
	}
	if err := checkSpelling(given.RDNs[:len(given.RDNs)-len(c.base.RDNs)]); err != nil {
		return nil, err
	}
	if c.own.EqualFold(dn) {
		return nil, connectors.Permanent("the entry is the connector's own")
	}
	return dn, nil
}

// checkSpelling returns an error if servers differ in what other spellings of the parts of a DN they take for the same.
func checkSpelling(rdns []*ldap.RelativeDN) error {
	for _, rdn := range rdns {
		for _, a := range rdn.Attributes {
			name := attribute(a.Type)
			if name == "" || strings.HasPrefix(name, "oid.") || name[0] >= '0' && name[0] <= '9' {
				return connectors.Permanent("write the attribute %s of the reference by its name", name)
			}
			if !norm.NFKC.IsNormalString(norm.NFC.String(a.Value)) {
				return connectors.Permanent("the reference has compatibility characters, such as ligatures or no-break " +
					"spaces, which some servers compare as others: give the entry another name")
			}
		}
	}
	return nil
}

// dial opens a connection, which ends with ctx.
func (c *Connector) dial(ctx context.Context) (conn *ldap.Conn, closed func(), err error) {
	dialer := &net.Dialer{Timeout: timeout}
	if deadline, ok := ctx.Deadline(); ok {
		dialer.Deadline = deadline
	}
	conn, err = ldap.DialURL(c.config.URL, ldap.DialWithDialer(dialer))
	if err != nil {
		return nil, nil, classify("connect", err)
	}
	conn.SetTimeout(timeout)
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	closed = func() { stop(); _ = conn.Close() }
	if c.config.StartTLS {
		host, _, _ := strings.Cut(c.host, ":")
		if err := conn.StartTLS(&tls.Config{ServerName: host, MinVersion: tls.VersionTLS12}); err != nil {
			closed()
			return nil, nil, classify("start TLS", err)
		}
	}
	return conn, closed, nil
}

// connect opens a connection as the connector's account.
func (c *Connector) connect(ctx context.Context) (*ldap.Conn, func(), error) {
	conn, closed, err := c.dial(ctx)
	if err != nil {
		return nil, nil, err
	}
	if err := conn.Bind(c.config.BindDN, c.password.Reveal()); err != nil {
		closed()
		return nil, nil, classify("log in as the connector's account", err)
	}
	return conn, closed, nil
}

// Check implements connectors.Checker: the connector's account must be able to read base.
func (c *Connector) Check(ctx context.Context) error {
	conn, closed, err := c.connect(ctx)
	if err != nil {
		return err
	}
	defer closed()
	_, err = read(conn, c.config.Base)
	if errors.Is(err, errNoEntry) {
		return connectors.Permanent("the connector's account cannot see base, or it does not exist")
	}
	return err
}

var errNoEntry = errors.New("no such entry")

// The attributes that decide what is done with an entry.
const (
	attrControl = "userAccountControl" // of Active Directory
	attrUID     = "uid"
	// Of the root DSE.
	attrCapabilities = "supportedCapabilities"
	attrContexts     = "namingContexts"
)

// disabled is the flag of userAccountControl for a disabled account (ADS_UF_ACCOUNTDISABLE).
const disabled = 2

// read returns an entry. Error: errNoEntry.
func read(conn *ldap.Conn, dn string) (*ldap.Entry, error) {
	found, err := conn.Search(ldap.NewSearchRequest(dn, ldap.ScopeBaseObject, ldap.NeverDerefAliases, 1,
		int(timeout/time.Second), false, "(objectClass=*)", []string{attrControl, attrUID}, nil))
	switch {
	case ldap.IsErrorWithCode(err, ldap.LDAPResultNoSuchObject), err == nil && len(found.Entries) == 0:
		return nil, errNoEntry
	case err != nil:
		return nil, classify("read the entry", err)
	}
	return found.Entries[0], nil
}

// capabilityAD is the capability by which Active Directory names itself in its root DSE.
const capabilityAD = "1.2.840.113556.1.4.800"

// isAD reports whether the server says that it is Active Directory.
func isAD(conn *ldap.Conn) (bool, error) {
	root, err := rootDSE(conn, attrCapabilities)
	return err == nil && slices.Contains(root.GetAttributeValues(attrCapabilities), capabilityAD), err
}

// rootDSE returns an attribute of the server's own entry (RFC 4512 section 5.1), which is empty if the server has none.
func rootDSE(conn *ldap.Conn, attribute string) (*ldap.Entry, error) {
	found, err := conn.Search(ldap.NewSearchRequest("", ldap.ScopeBaseObject, ldap.NeverDerefAliases, 1,
		int(timeout/time.Second), false, "(objectClass=*)", []string{attribute}, nil))
	if err != nil {
		return nil, classify("read the root DSE", err)
	}
	if len(found.Entries) == 0 {
		return &ldap.Entry{}, nil
	}
	return found.Entries[0], nil
}

// unicodePassword returns a password as Active Directory's unicodePwd expects it: quoted, in UTF-16LE.
func unicodePassword(password string) string {
	units := utf16.Encode([]rune(`"` + password + `"`))
	raw := make([]byte, 0, 2*len(units))
	for _, unit := range units {
		raw = binary.LittleEndian.AppendUint16(raw, unit)
	}
	return string(raw)
}

// refusal returns the directory's own result of an operation, or nil for an error of the connection.
func refusal(err error) *ldap.Error {
	var refused *ldap.Error
	if errors.As(err, &refused) && refused.ResultCode < ldap.ErrorNetwork {
		return refused
	}
	return nil
}

// classify returns the error of an operation: permanent for a refusal, retryable otherwise. It quotes nothing of it.
func classify(what string, err error) error {
	refused := refusal(err)
	if refused == nil {
		return connectors.Retryable("%s: %s", what, connectors.TransportReason(err))
	}
	name := ldap.LDAPResultCodeMap[refused.ResultCode]
	switch refused.ResultCode {
	case ldap.LDAPResultBusy, ldap.LDAPResultUnavailable, ldap.LDAPResultTimeLimitExceeded,
		ldap.LDAPResultAdminLimitExceeded, ldap.LDAPResultOther, ldap.LDAPResultOperationsError:
		return connectors.Retryable("%s: %s", what, name)
	case ldap.LDAPResultInsufficientAccessRights:
		return connectors.Permanent("%s: %s: grant the connector's account the right to modify the entries below base and "+
			"groups", what, name)
	}
	return connectors.Permanent("%s: %s", what, name)
}
