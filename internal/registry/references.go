package registry

import (
	"fmt"
	"regexp"
	"strings"
)

// tenantPlaceholder stands for the tenant's name in a pattern of references.
const tenantPlaceholder = "{tenant}"

// CheckReferences says what is wrong with patterns of references. What follows {tenant}
// must be a character that no tenant's name has, lest one tenant's names match another's
// pattern: `svc-{tenant}-*` of "a" would match those of "a-b".
func CheckReferences(patterns []string) error {
	for _, p := range patterns {
		before, after, found := strings.Cut(p, tenantPlaceholder)
		switch {
		case p == "":
			return fmt.Errorf("references: a pattern is empty")
		case strings.ContainsAny(strings.ReplaceAll(p, tenantPlaceholder, ""), "{}"):
			return fmt.Errorf("references: %q: the only placeholder is %s", p, tenantPlaceholder)
		case !found:
		case strings.Contains(before, "*") || strings.Contains(after, tenantPlaceholder):
			return fmt.Errorf("references: %q: %s must appear only once and before any *", p, tenantPlaceholder)
		case after != "" && nameCharacter.MatchString(after[:1]):
			return fmt.Errorf("references: %q: %s must be followed by a character that tenant names cannot contain, such as _ or /", p, tenantPlaceholder)
		}
	}
	return nil
}

// nameCharacter is what a tenant's name may hold, and `*`, which may stand for it.
var nameCharacter = regexp.MustCompile(`[a-z0-9*-]`)

// matches reports whether a pattern allows a reference of a tenant; an empty tenant
// stands for every name.
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
