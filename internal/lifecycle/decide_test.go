package lifecycle

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/leaverhq/leaver/internal/directory"
)

// resource returns a resource of the type with the options applied.
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
		activeUser    = resource(user, active)
		inactiveUser  = resource(user, inactive)
		goneUser      = resource(user, inactive, restricted)
		activeAgent   = resource(agent, active)
		inactiveAgent = resource(agent, inactive)
		goneAgent     = resource(agent, inactive, restricted)

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
		"a new user":                                 {nil, activeUser, nil, joiner},
		"a new user without active":                  {nil, resource(user), nil, joiner},
		"a new user who is inactive":                 {nil, inactiveUser, nil, decision{restrict: true}},
		"a new agent":                                {nil, activeAgent, nil, joiner},
		"a new agent that is inactive":               {nil, inactiveAgent, nil, decision{restrict: true}},
		"a user's attribute changes":                 {activeUser, activeUser, []string{"title"}, mover},
		"a user does not change":                     {activeUser, activeUser, nil, nothing},
		"a user is deactivated":                      {activeUser, inactiveUser, []string{"active"}, leaver},
		"a user without active is deactivated":       {resource(user), inactiveUser, []string{"active"}, leaver},
		"a user is deactivated with other changes":   {activeUser, inactiveUser, []string{"active", "title"}, leaver},
		"a user is deactivated again":                {goneUser, inactiveUser, nil, nothing},
		"an inactive user who is not restricted":     {inactiveUser, inactiveUser, nil, leaver},
		"a user returns":                             {goneUser, activeUser, []string{"active"}, returns},
		"a user returns with other changes":          {goneUser, activeUser, []string{"active", "title"}, returns},
		"a leaver's active is removed":               {goneUser, resource(user), []string{"active"}, nothing},
		"a leaver's attribute changes":               {goneUser, inactiveUser, []string{"title"}, nothing},
		"active is removed, then set":                {resource(user, restricted), activeUser, []string{"active"}, returns},
		"a user is activated who was not restricted": {resource(user), activeUser, []string{"active"}, mover},
		"a user is deleted":                          {activeUser, nil, nil, leaver},
		"a leaver is deleted":                        {goneUser, nil, nil, leaver},
		"an agent's owners change":                   {activeAgent, activeAgent, []string{"owners"}, mover},
		"an agent's parent changes":                  {activeAgent, activeAgent, []string{"parent"}, mover},
		"an agent's validity changes": {
			activeAgent, activeAgent,
			[]string{"urn:leaver:params:scim:schemas:extension:validity:1.0:Agent"},
			mover,
		},
		"an agent is deactivated":           {activeAgent, inactiveAgent, []string{"active"}, leaver},
		"an agent returns":                  {goneAgent, activeAgent, []string{"active"}, returns},
		"a suspended agent's owners change": {goneAgent, inactiveAgent, []string{"owners"}, nothing},
		"an agent is deleted":               {activeAgent, nil, nil, leaver},
		"a new group without members":       {nil, resource(group), nil, nothing},
		"a new group with members":          {nil, resource(group), []string{"members"}, sync},
		"a group's members change":          {resource(group), resource(group), []string{"members"}, sync},
		"a group's name changes":            {resource(group), resource(group), []string{"displayName"}, sync},
		"a group's externalId changes":      {resource(group), resource(group), []string{"externalId"}, sync},
		"a group's other attribute changes": {resource(group), resource(group), []string{"description"}, nothing},
		"a group does not change":           {resource(group), resource(group), nil, nothing},
		"a group is deleted":                {resource(group), nil, nil, sync},
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
		"nothing": {resource("Agent", owned(owner)), resource("Agent", owned(owner)), false, []string{}},
		"owners in any order": {
			resource("Agent", owned(owner, other)), resource("Agent", owned(other, owner)),
			false,
			[]string{},
		},
		"an owner": {resource("Agent", owned(owner)), resource("Agent", owned(other)), false, []string{"owners"}},
		"attributes, sorted": {
			resource("Agent", owned(owner)),
			resource("Agent", owned(), changed("title", "active")), false,
			[]string{"active", "owners", "title"},
		},
		"members": {
			resource("Group"), resource("Group", changed("displayName")), true,
			[]string{"displayName", "members"},
		},
		"a new group": {nil, resource("Group"), true, []string{"members"}},
		"a new user":  {nil, resource("User", changed("title")), false, []string{}},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, difference(test.before, test.after, test.members)); diff != "" {
				t.Error(diff)
			}
		})
	}
}
