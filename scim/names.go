package scim

import (
	"github.com/leaverhq/leaver/internal/directory"
	"github.com/leaverhq/leaver/internal/textkey"
	"github.com/leaverhq/leaver/scim/schema"
)

// namesIn returns the names of a User or an Agent in addition to its unique name and externalId.
// A longer value than [schema.MaxName] cannot be indexed, and names nobody.
func namesIn(rt *schema.ResourceType, o schema.Object) []directory.Name {
	var names []directory.Name
	add := func(kind, issuer, key string) {
		if key != "" && len(issuer)+len(key) <= schema.MaxName {
			names = append(names, directory.Name{Kind: kind, Issuer: issuer, Value: key})
		}
	}
	switch rt.Name {
	case schema.User:
		for _, element := range schema.ListOf(o[directory.NameEmail]) {
			email, _ := element.(schema.Object)
			value, _ := email["value"].(string)
			add(directory.NameEmail, "", textkey.Fold(value))
		}
	case schema.Agent:
		subject, _ := o[directory.NameSubject].(string)
		add(directory.NameSubject, "", textkey.Exact(subject))
		for _, element := range schema.ListOf(o[directory.NameClient]) {
			client, _ := element.(schema.Object)
			issuer, _ := client["issuerUri"].(string)
			id, _ := client["clientId"].(string)
			add(directory.NameClient, issuer, textkey.Exact(id))
		}
	}
	return names
}
