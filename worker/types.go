package worker

import (
	"github.com/leaverhq/leaver/activities/connectors"
	"github.com/leaverhq/leaver/activities/connectors/rest"
)

// Type describes a type of connector.
type Type struct {
	Name          string            `json:"name"`
	Title         string            `json:"title"`
	Kinds         []connectors.Kind `json:"kinds"`
	Operations    []string          `json:"operations"`
	Documentation string            `json:"documentation,omitempty"` // the vendor's
}

// Types returns the types of connectors: those that are written in Go, and the definitions.
func Types(definitions rest.Catalog) []Type {
	types := []Type{
		{
			Name: "oauth2", Title: "an OAuth 2.0 server, by RFC 7009 and 7662, or Ory Hydra's admin API",
			Kinds:      []connectors.Kind{connectors.RefreshToken, connectors.AccessToken, connectors.Grant},
			Operations: []string{"revoke", "probe", "prove", "discover", "check"},
		},
		{
			Name: "postgres", Title: "roles of a PostgreSQL cluster", Kinds: []connectors.Kind{connectors.ServiceAccount},
			Operations: []string{"revoke", "rotate", "block", "unblock", "probe", "discover", "check", "drill"},
		},
		{
			Name: "aws", Title: "access keys of IAM users of an AWS account", Kinds: []connectors.Kind{connectors.APIKey},
			Operations: []string{"revoke", "rotate", "block", "unblock", "probe", "discover", "check"},
		},
		{
			Name: "ldap", Title: "accounts of an LDAP directory or Active Directory",
			Kinds:      []connectors.Kind{connectors.ServiceAccount},
			Operations: []string{"revoke", "rotate", "block", "unblock", "probe", "check"},
		},
		{
			Name: "mysql", Title: "accounts of a MariaDB or MySQL server", Kinds: []connectors.Kind{connectors.ServiceAccount},
			Operations: []string{"revoke", "rotate", "block", "unblock", "probe", "check", "drill"},
		},
		{
			Name: "redis", Title: "ACL users of a Redis or Valkey server", Kinds: []connectors.Kind{connectors.ServiceAccount},
			Operations: []string{"revoke", "rotate", "block", "unblock", "probe", "check", "drill"},
		},
		{
			Name: "temporal", Title: "schedules of a Temporal namespace", Kinds: []connectors.Kind{connectors.ScheduledRun},
			Operations: []string{"cancel", "block", "unblock", "probe", "discover", "check", "drill"},
		},
		{
			Name: "vault", Title: "a Vault or OpenBao KV path, for new secrets", Kinds: []connectors.Kind{},
			Operations: []string{"publish"},
		},
		{
			Name: "webhook", Title: "an agent platform with an endpoint of its own", Kinds: connectors.Kinds(),
			Operations: []string{"revoke", "rotate", "cancel", "block", "unblock", "probe", "publish", "notify"},
		},
	}
	for _, name := range definitions.Names() {
		d := definitions[name]
		types = append(types, Type{d.Name, d.Title, d.Kinds, d.Operations(), d.Documentation})
	}
	return types
}
