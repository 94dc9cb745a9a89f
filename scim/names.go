package scim

import (
	"slices"

	"github.com/leaverhq/leaver/internal/directory"
	"github.com/leaverhq/leaver/internal/textkey"
	"github.com/leaverhq/leaver/scim/schema"
)

// namesIn returns the names of a User or an Agent, a primary e-mail address before others. A longer value
// than [schema.MaxName] cannot be indexed, and is not stored as a name.
func namesIn(rt *schema.ResourceType, o schema.Object) []directory.Name {
	var names []directory.Name
	add := func(kind, issuer, original string, key func(string) string) {
		if value := key(original); value != "" && len(issuer)+len(value) <= schema.MaxName {
			names = append(names, directory.Name{Kind: kind, Issuer: issuer, Value: value, Original: original})
		}
	}
	text := func(o schema.Object, name string) string {
		value, _ := o[name].(string)
		return value
	}
	if rt.Name == schema.Group {
		return nil
	}
	add(rt.Unique, "", text(o, rt.Unique), textkey.Fold)
	add(directory.NameExternalID, "", text(o, directory.NameExternalID), textkey.Exact)
	if rt.Name == schema.Agent {
		add(directory.NameSubject, "", text(o, directory.NameSubject), textkey.Exact)
		for _, element := range schema.ListOf(o[directory.NameClient]) {
			client, _ := element.(schema.Object)
			add(directory.NameClient, text(client, "issuerUri"), text(client, "clientId"), textkey.Exact)
		}
		return names
	}
	emails := slices.Clone(schema.ListOf(o[directory.NameEmail]))
	slices.SortStableFunc(emails, func(a, b any) int { return rank(a) - rank(b) })
	for _, element := range emails {
		email, _ := element.(schema.Object)
		add(directory.NameEmail, "", text(email, "value"), textkey.Fold)
	}
	return names
}

// rank returns 0 for a primary value, and 1 for others.
func rank(element any) int {
	if object, _ := element.(schema.Object); object["primary"] == true {
		return 0
	}
	return 1
}
