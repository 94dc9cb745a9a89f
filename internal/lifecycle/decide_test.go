package lifecycle

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/leaverhq/leaver/internal/directory"
)

// resource returns one of a type as its options make it.
func resource(of string, options ...func(*directory.Resource)) *directory.Resource {
	r := &directory.Resource{Type: of, Version: 1}
	for _, option := range options {
		option(r)
	}
	return r
}

func active(r *directory.Resource)   { yes := true; r.Active = &yes }
func inactive(r *directory.Resource) { no := false; r.Active = &no }
func restricted(r *directory.Resource) {
	r.Restriction = &directory.Restriction{Cause: "deactivated"}
}

func TestDecide_EveryKindOfChange(t *testing.T) {
	const user, agent, group = directory.TypeUser, directory.TypeAgent, directory.TypeGroup
	var (
		nothing = decision{}
		leaver  = decision{kind: Leaver, restrict: true}
		joiner  = decision{kind: Joiner}
		returns = decision{kind: Joiner, lift: true}
		mover   = decision{kind: Mover}
		sync    = decision{kind: TeamSync}
	)
	for name, test := range map[string]struct {
		before, after *directory.Resource
		changed       []string
		want          decision
	}{
		"a new user":                                 {nil, resource(user, active), nil, joiner},
		"a new user without active":                  {nil, resource(user), nil, joiner},
		"a new user who is inactive":                 {nil, resource(user, inactive), nil, decision{restrict: true}},
		"a new agent":                                {nil, resource(agent, active), nil, joiner},
		"a new agent that is inactive":               {nil, resource(agent, inactive), nil, decision{restrict: true}},
		"a user's attribute changes":                 {resource(user, active), resource(user, active), []string{"title"}, mover},
		"a user changes in nothing":                  {resource(user, active), resource(user, active), nil, nothing},
		"a user is deactivated":                      {resource(user, active), resource(user, inactive), []string{"active"}, leaver},
		"a user without active is deactivated":       {resource(user), resource(user, inactive), []string{"active"}, leaver},
		"a user is deactivated with other changes":   {resource(user, active), resource(user, inactive), []string{"active", "title"}, leaver},
		"a user is deactivated again":                {resource(user, inactive, restricted), resource(user, inactive), nil, nothing},
		"an inactive user who is not restricted":     {resource(user, inactive), resource(user, inactive), nil, leaver},
		"a user returns":                             {resource(user, inactive, restricted), resource(user, active), []string{"active"}, returns},
		"a user returns with other changes":          {resource(user, inactive, restricted), resource(user, active), []string{"active", "title"}, returns},
		"a leaver's active is removed":               {resource(user, inactive, restricted), resource(user), []string{"active"}, nothing},
		"a leaver's attribute changes":               {resource(user, inactive, restricted), resource(user, inactive), []string{"title"}, nothing},
		"active is removed, then set":                {resource(user, restricted), resource(user, active), []string{"active"}, returns},
		"a user is activated who was not restricted": {resource(user), resource(user, active), []string{"active"}, mover},
		"a user is deleted":                          {resource(user, active), nil, nil, leaver},
		"a leaver is deleted":                        {resource(user, inactive, restricted), nil, nil, leaver},
		"an agent's owners change":                   {resource(agent, active), resource(agent, active), []string{"owners"}, mover},
		"an agent's parent changes":                  {resource(agent, active), resource(agent, active), []string{"parent"}, mover},
		"an agent's validity changes":                {resource(agent, active), resource(agent, active), []string{"urn:leaver:params:scim:schemas:extension:validity:1.0:Agent"}, mover},
		"an agent is deactivated":                    {resource(agent, active), resource(agent, inactive), []string{"active"}, leaver},
		"an agent returns":                           {resource(agent, inactive, restricted), resource(agent, active), []string{"active"}, returns},
		"a suspended agent's owners change":          {resource(agent, inactive, restricted), resource(agent, inactive), []string{"owners"}, nothing},
		"an agent is deleted":                        {resource(agent, active), nil, nil, leaver},
		"a new group without members":                {nil, resource(group), nil, nothing},
		"a new group with members":                   {nil, resource(group), []string{"members"}, sync},
		"a group's members change":                   {resource(group), resource(group), []string{"members"}, sync},
		"a group's name changes":                     {resource(group), resource(group), []string{"displayName"}, sync},
		"a group's externalId changes":               {resource(group), resource(group), []string{"externalId"}, sync},
		"a group's other attribute changes":          {resource(group), resource(group), []string{"description"}, nothing},
		"a group changes in nothing":                 {resource(group), resource(group), nil, nothing},
		"a group is deleted":                         {resource(group), nil, nil, sync},
	} {
		t.Run(name, func(t *testing.T) {
			if got := decide(test.before, test.after, test.changed); got != test.want {
				t.Errorf("decide returned %+v, want %+v", got, test.want)
			}
		})
	}
}

func TestDifference_NamesAttributesAndEdges(t *testing.T) {
	owner, other := uuid.New(), uuid.New()
	owned := func(by ...uuid.UUID) func(*directory.Resource) {
		return func(r *directory.Resource) {
			for _, id := range by {
				r.Edges = append(r.Edges, directory.Edge{Attribute: directory.EdgeOwners, Target: id})
			}
		}
	}
	changed := func(names ...string) func(*directory.Resource) {
		return func(r *directory.Resource) { r.Changed = names }
	}
	for name, test := range map[string]struct {
		before, after *directory.Resource
		members       bool
		want          []string
	}{
		"nothing":             {resource("Agent", owned(owner)), resource("Agent", owned(owner)), false, []string{}},
		"owners in any order": {resource("Agent", owned(owner, other)), resource("Agent", owned(other, owner)), false, []string{}},
		"an owner":            {resource("Agent", owned(owner)), resource("Agent", owned(other)), false, []string{"owners"}},
		"attributes, sorted":  {resource("Agent", owned(owner)), resource("Agent", owned(), changed("title", "active")), false, []string{"active", "owners", "title"}},
		"members":             {resource("Group"), resource("Group", changed("displayName")), true, []string{"displayName", "members"}},
		"a new group":         {nil, resource("Group"), true, []string{"members"}},
		"a new user":          {nil, resource("User", changed("title")), false, []string{}},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, difference(test.before, test.after, test.members)); diff != "" {
				t.Error(diff)
			}
		})
	}
}
