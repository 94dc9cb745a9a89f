package registry

import "testing"

func TestReferences_Match(t *testing.T) {
	for _, row := range []struct {
		pattern, tenant, reference string
		want                       bool
	}{
		{"svc_*", "acme", "svc_1", true},
		{"svc_*", "acme", "xsvc_1", false},
		{"svc_1", "acme", "svc_1", true},
		{"svc_1", "acme", "svc_12", false},
		{"svc_*_ro", "acme", "svc_a_b_ro", true},
		{"svc_*_ro", "acme", "svc_ro", false},
		{"*", "acme", "anything", true},
		{"svc_{tenant}_*", "acme", "svc_acme_1", true},
		{"svc_{tenant}_*", "a", "svc_acme_1", false},
		{"svc_{tenant}_*", "", "svc_acme_1", true}, // of any tenant
		{"a*b*c", "acme", "a-c-b", false},
		{"a*b*c", "acme", "axbxc", true},
	} {
		if got := matches(row.pattern, row.tenant, row.reference); got != row.want {
			t.Errorf("%q of %q: %q matches: %t, want %t", row.pattern, row.tenant, row.reference, got, row.want)
		}
	}
}

// TestReferences_OfOneTenantNeverMatchAnothers uses hyphens, which tenant names can contain.
func TestReferences_OfOneTenantNeverMatchAnothers(t *testing.T) {
	for pattern, valid := range map[string]bool{
		"svc_{tenant}_*": true, "{tenant}/*": true, "svc_{tenant}": true, "svc_*": true,
		"svc-{tenant}-*": false, "{tenant}*": false, "{tenant}x*": false, "*{tenant}_": false,
		"{tenant}_{tenant}_*": false, "{user}_*": false, "": false,
	} {
		if err := CheckReferences([]string{pattern}); (err == nil) != valid {
			t.Errorf("%q: %v, want valid %t", pattern, err, valid)
		}
	}
}
