package registry

import (
	"fmt"
	"regexp"
	"strings"
)

// tenantPlaceholder is replaced by the tenant's name in a references pattern.
const tenantPlaceholder = "{tenant}"

// CheckReferences returns an error for an invalid references pattern. {tenant} must be
// followed by a character that tenant names cannot contain. Otherwise a tenant's pattern
// could match another tenant's names: `svc-{tenant}-*` of "a" matches those of "a-b".
func CheckReferences(patterns []string) error {
	for _, p := range patterns {
		before, after, found := strings.Cut(p, tenantPlaceholder)
		switch {
		case p == "":
			return fmt.Errorf("references: a pattern must not be empty")
		case strings.ContainsAny(strings.ReplaceAll(p, tenantPlaceholder, ""), "{}"):
			return fmt.Errorf("references: %q: the only placeholder is %s", p, tenantPlaceholder)
		case !found:
		case strings.Contains(before, "*") || strings.Contains(after, tenantPlaceholder):
			return fmt.Errorf("references: %q: %s must appear only once and before any *", p, tenantPlaceholder)
		case after != "" && nameCharacter.MatchString(after[:1]):
			return fmt.Errorf("references: %q: %s must be followed by a character that tenant names cannot contain, "+
				"such as _ or /", p, tenantPlaceholder)
		}
	}
	return nil
}

// nameCharacter matches the characters of tenant names, and `*`, which can match them.
var nameCharacter = regexp.MustCompile(`[a-z0-9*-]`)

// matches reports whether a pattern matches a reference of a tenant. An empty tenant matches
// every name.
func matches(pattern, tenant, reference string) bool {
	if tenant == "" {
		tenant = "*"
	}
	parts := strings.Split(strings.ReplaceAll(pattern, tenantPlaceholder, tenant), "*")
	rest, ok := strings.CutPrefix(reference, parts[0])
	if !ok || len(parts) == 1 {
		return ok && rest == ""
	}
	for _, part := range parts[1 : len(parts)-1] {
		_, after, found := strings.Cut(rest, part)
		if !found {
			return false
		}
		rest = after
	}
	return strings.HasSuffix(rest, parts[len(parts)-1])
}
