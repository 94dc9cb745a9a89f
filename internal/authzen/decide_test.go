package authzen

import (
	"testing"

	"github.com/google/uuid"

	"github.com/leaverhq/leaver/internal/directory"
)

var (
	ada = Party{ID: uuid.MustParse("00000000-0000-4000-8000-00000000000a"), Type: directory.TypeUser, Name: "ada"}
	bot = Party{
		ID: uuid.MustParse("00000000-0000-4000-8000-00000000000b"), Type: directory.TypeAgent, Name: "bot", Owned: true,
	}
)

// having returns a copy of a party with a change.
func having(p Party, change func(*Party)) Party {
	change(&p)
	return p
}

// TestDecide_EveryReason has a row for each reason, and for the precedence between reasons.
func TestDecide_EveryReason(t *testing.T) {
	mail := Question{Action: "mail.send", ResourceType: "mail"}
	key := Question{Action: "read", ResourceType: "credential"}
	crm := Question{Action: "read", ResourceType: "connector"}
	mailOf := func(owner string) Question { return Question{Action: "mail.send", ResourceType: "mail", Owner: owner} }
	team := Question{Action: "mail.send", ResourceType: "team", Resource: "sales"}
	acting := facts{subject: bot, principal: ada, delegated: true, entitled: &entitled{held: []string{"scope:mail.send"}}}
	holds := func(change func(*credential)) facts {
		c := &credential{principal: ada.ID, agent: &bot.ID, live: true}
		if change != nil {
			change(c)
		}
		return facts{subject: bot, principal: ada, credential: c}
	}
	with := func(change func(*facts)) facts {
		f := acting
		known := *acting.entitled
		f.entitled = &known
		change(&f)
		return f
	}
	for name, test := range map[string]struct {
		known facts
		asked Question
		want  Reason
	}{
		"no such subject":       {facts{principal: ada}, mail, UnknownSubject},
		"no such context.agent": {facts{principal: ada}, Question{Through: true}, UnknownAgent},
		"no such context.agent, which is optional, and no such user": {facts{}, Question{
			SubjectType: "Agent", OnBehalfOf: "x", Through: true, AgentOptional: true,
		}, UnknownSubject},
		"a suspended agent": {with(func(f *facts) { f.subject.Restricted = true }), mail, AgentSuspended},
		"a suspended agent that is expired": {with(func(f *facts) {
			f.subject.Restricted, f.subject.Expired = true, true
		}), mail, AgentSuspended},
		"an expired agent":          {with(func(f *facts) { f.subject.Expired = true }), mail, AgentExpired},
		"an agent without an owner": {with(func(f *facts) { f.subject.Owned = false }), mail, OwnerGone},
		"no such user to act for":   {with(func(f *facts) { f.principal = Party{} }), mail, UnknownPrincipal},
		"no such user with context.agent": {with(func(f *facts) {
			f.principal = Party{}
		}), Question{Through: true}, UnknownSubject},
		"a user who has left": {facts{
			subject: having(ada, func(p *Party) { p.Restricted = true }), principal: ada,
		}, mail, PrincipalRestricted},
		"an agent for a user who has left": {with(func(f *facts) {
			f.principal.Restricted = true
		}), mail, PrincipalRestricted},
		"a name of two users": {with(func(f *facts) { f.principals = 2 }), mail, AmbiguousSubject},
		"a name of two agents that act for the user": {with(func(f *facts) {
			f.subjects, f.acting = 2, true
		}), mail, AmbiguousSubject},
		"a name of two agents, of which none acts for the user": {with(func(f *facts) { f.subjects, f.principals = 2, 1 }), mail, NotDelegated},
		"an agent for another agent":                            {with(func(f *facts) { f.principal = having(bot, func(p *Party) { p.ID = ada.ID }) }), mail, NotDelegated},
		"a token's user without an agent": {
			facts{subject: ada, principal: ada, delegated: true, entitled: &entitled{held: []string{"scope:mail.send"}}},
			Question{Action: "mail.send", ResourceType: "mail", Identity: true},
			AgentMissing,
		},
		"the wrong user's agent":            {with(func(f *facts) { f.delegated = false }), mail, NotDelegated},
		"the wrong user's agent, connector": {with(func(f *facts) { f.delegated = false }), crm, NotDelegated},

		"no such credential": {facts{subject: bot, principal: ada}, key, UnknownCredential},
		"another user's credential": {holds(func(c *credential) {
			c.principal = bot.ID
		}), key, UnknownCredential},
		"another agent's credential": {holds(func(c *credential) {
			c.agent = &ada.ID
		}), key, UnknownCredential},
		"a credential of no agent": {holds(func(c *credential) { c.agent = nil }), key, UnknownCredential},
		"an ended credential":      {holds(func(c *credential) { c.live = false }), key, CredentialEnded},
		"an expired credential": {holds(func(c *credential) {
			c.expired = true
		}), key, CredentialExpired},
		"a credential without the scope": {holds(func(c *credential) {
			c.scopes = []string{"write"}
		}), key, ScopeMissing},
		"a credential with the scope": {holds(func(c *credential) {
			c.scopes = []string{"read"}
		}), key, Allow},
		"a credential with no scopes":                 {holds(nil), key, Allow},
		"a credential under a platform's entitlement": {holds(func(c *credential) { c.entitlement = "gold" }), key, Allow},

		"grants that are unread":         {acting, crm, unread},
		"no credential at the connector": {with(func(f *facts) { f.grants = []string{} }), crm, NoCredential},
		"a credential at the connector":  {with(func(f *facts) { f.grants = []string{""} }), crm, Allow},
		"one under a lost entitlement": {with(func(f *facts) {
			f.grants, f.entitled.derives = []string{"team:x"}, true
		}), crm, EntitlementLost},
		"one under an entitlement that is unread": {with(func(f *facts) {
			f.grants, f.entitled = []string{"team:x"}, nil
		}), crm, unread},
		"one under an entitlement without rules": {with(func(f *facts) { f.grants = []string{"team:x"} }), crm, Allow},
		"one under a held entitlement": {with(func(f *facts) {
			f.grants, f.entitled.derives, f.entitled.held = []string{"team:x"}, true, []string{"team:x"}
		}), crm, Allow},
		"one under a stale entitlement": {with(func(f *facts) {
			f.grants, f.entitled.derives, f.entitled.stale = []string{"team:x"}, true, true
		}), crm, stale},

		"a scope":                     {acting, mail, Allow},
		"a scope that was never held": {with(func(f *facts) { f.entitled.held = nil }), mail, NotEntitled},
		"a scope that was lost": {with(func(f *facts) {
			f.entitled.held, f.entitled.lost = nil, []string{"scope:mail.send"}
		}), mail, EntitlementLost},
		"a scope that is stale":   {with(func(f *facts) { f.entitled.stale = true }), mail, stale},
		"a team that is not held": {acting, team, NotEntitled},
		"a team that was lost": {with(func(f *facts) {
			f.entitled.lost = []string{"team:sales"}
		}), team, EntitlementLost},
		"a team that is held": {with(func(f *facts) {
			f.entitled.held = []string{"scope:mail.send", "team:sales"}
		}), team, Allow},
		"a scope for what is owned": {with(func(f *facts) {
			f.entitled.held = []string{"scope:mail.send:own"}
		}), mailOf("ADA"), Allow},
		"by the owner's id": {with(func(f *facts) {
			f.entitled.held = []string{"scope:mail.send:own"}
		}), mailOf(ada.ID.String()), Allow},
		"of what another owns": {with(func(f *facts) {
			f.entitled.held = []string{"scope:mail.send:own"}
		}), mailOf("bob"), NotEntitled},
		"of what is owned by no one": {with(func(f *facts) {
			f.entitled.held = []string{"scope:mail.send:own"}
		}), mail, NotEntitled},
		"an agent with the owner's name": {facts{
			subject: bot, principal: bot, delegated: true, entitled: &entitled{held: []string{"scope:mail.send:own"}},
		}, Question{Action: "mail.send", Owner: "bot"}, NotEntitled},
	} {
		t.Run(name, func(t *testing.T) {
			if got := decide(test.known, test.asked); got != test.want {
				t.Errorf("decide returned %s, want %s", got, test.want)
			}
		})
	}
}

func TestDecide_CredentialUnderAnEntitlement(t *testing.T) {
	f := facts{
		subject: ada, principal: ada,
		credential: &credential{principal: ada.ID, live: true, entitlement: "role:dev"},
	}
	asked := Question{ResourceType: "credential"}
	for name, test := range map[string]struct {
		derives, stale bool
		held           []string
		want           Reason
	}{
		"without rules": {want: Allow},
		"not held":      {derives: true, want: EntitlementLost},
		"held":          {derives: true, held: []string{"role:dev"}, want: Allow},
		"stale":         {derives: true, stale: true, held: []string{"role:dev"}, want: stale},
	} {
		f.entitled = &entitled{derives: test.derives, stale: test.stale, held: test.held}
		if got := decide(f, asked); got != test.want {
			t.Errorf("%s: %s, want %s", name, got, test.want)
		}
	}
}
