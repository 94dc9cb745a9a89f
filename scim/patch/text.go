package patch

import (
	"encoding/base64"
	"strings"
	"unicode"

	"github.com/leaverhq/leaver/scim/schema"
)

// isName reports whether an attribute is shown as a name in lists, terminals and reports.
func isName(a *schema.Attribute) bool {
	switch a.Name {
	case "userName", "agentUserName", "displayName", "nickName", "externalId",
		"familyName", "givenName", "middleName", "honorificPrefix", "honorificSuffix",
		"subject", "clientId", "issuerUri":
		return true
	}
	return false
}

// misleads reports whether a character moves the cursor or changes the direction of the
// text: C0 and C1 controls, line and paragraph separators, and the embeddings, overrides
// and isolates of Unicode's annex 9. Directional marks, which right-to-left names need, are
// not included.
func misleads(r rune) bool {
	return unicode.IsControl(r) || r == 0x2028 || r == 0x2029 ||
		(r >= 0x202a && r <= 0x202e) || (r >= 0x2066 && r <= 0x2069)
}

// isBase64 reports whether s is base64 or base64url (RFC 7643 section 2.3.6), with or without padding.
func isBase64(s string) bool {
	s = strings.TrimRight(s, "=")
	for _, encoding := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
		if _, err := encoding.DecodeString(s); err == nil {
			return true
		}
	}
	return false
}
