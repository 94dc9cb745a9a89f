package scim

import "github.com/leaverhq/leaver/internal/directory"

// The URNs of the schemas.
const (
	UserURN       = "urn:ietf:params:scim:schemas:core:2.0:User"
	GroupURN      = "urn:ietf:params:scim:schemas:core:2.0:Group"
	AgentURN      = "urn:ietf:params:scim:schemas:core:2.0:Agent"
	EnterpriseURN = "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User"
	// LifecycleURN is of leaver's own extension: how a principal's end stands.
	LifecycleURN = ownURN + "schemas:extension:lifecycle:1.0:Principal"

	// ValidityURN is of leaver's own extension: until when an agent may act.
	ValidityURN = ownURN + "schemas:extension:validity:1.0:Agent"

	ownURN           = "urn:leaver:params:scim:"
	transactionURN   = ownURN + "api:messages:1.0:Transaction"
	listURN          = "urn:ietf:params:scim:api:messages:2.0:ListResponse"
	searchURN        = "urn:ietf:params:scim:api:messages:2.0:SearchRequest"
	bulkRequestURN   = "urn:ietf:params:scim:api:messages:2.0:BulkRequest"
	bulkResponseURN  = "urn:ietf:params:scim:api:messages:2.0:BulkResponse"
	patchURN         = "urn:ietf:params:scim:api:messages:2.0:PatchOp"
	errorURN         = "urn:ietf:params:scim:api:messages:2.0:Error"
	schemaURN        = "urn:ietf:params:scim:schemas:core:2.0:Schema"
	resourceTypeURN  = "urn:ietf:params:scim:schemas:core:2.0:ResourceType"
	serviceConfigURN = "urn:ietf:params:scim:schemas:core:2.0:ServiceProviderConfig"
)

// text is a readWrite string that compares without case: the commonest attribute.
func text(name, description string) Attribute {
	return Attribute{Name: name, Type: TypeString, Description: description, Mutability: ReadWrite, Returned: Default, Uniqueness: UniqueNone}
}

func boolean(name, description string) Attribute {
	a := text(name, description)
	a.Type = TypeBoolean
	return a
}

func exact(a Attribute) Attribute {
	a.CaseExact = true
	return a
}

func readOnly(a Attribute) Attribute {
	a.Mutability = ReadOnly
	return a
}

func reference(name, description string, types ...string) Attribute {
	a := text(name, description)
	a.Type, a.CaseExact, a.ReferenceTypes = TypeReference, true, types
	return a
}

func complexOf(name, description string, subs ...Attribute) Attribute {
	a := text(name, description)
	a.Type, a.SubAttributes = TypeComplex, subs
	return a
}

func many(a Attribute) Attribute {
	a.MultiValued = true
	return a
}

// plural is a multi-valued attribute with the default sub-attributes of RFC
// 7643 section 2.4. Types are open: IdPs send their own.
func plural(name, description string, value Attribute) Attribute {
	value.Name = "value"
	return many(complexOf(name, description, value,
		text("display", "A name to show."), text("type", "A label such as work or home."), boolean("primary", "Whether it is the preferred one.")))
}

// links is a multi-valued attribute that leads to other resources, stored as
// edges. Where one leads never changes: another is put in its place.
func links(name, description string, types ...string) Attribute {
	value := exact(text("value", "The id of the resource."))
	value.Mutability, value.Required = Immutable, true
	ref := reference("$ref", "Its URL.", types...)
	ref.Mutability = Immutable
	a := many(complexOf(name, description, value, ref,
		readOnly(text("display", "Its name.")), readOnly(text("type", "Its resource type."))))
	a.edge = true
	return a
}

// groupsOf is the read-only membership of a principal.
func groupsOf() Attribute {
	a := links("groups", "The groups it is a member of, directly or through other groups.", "Group")
	a.edge = false
	a = readOnly(a)
	for i := range a.SubAttributes {
		a.SubAttributes[i] = readOnly(a.SubAttributes[i])
		a.SubAttributes[i].Required = false
	}
	a.sub("type").CanonicalValues = []string{"direct", "indirect"}
	return a
}

func externalID() Attribute {
	return exact(text("externalId", "The client's own identifier. It keys nothing here."))
}

// UserType is RFC 7643 section 4.1 with the enterprise extension of section 4.3.
func UserType() *ResourceType {
	userName := text("userName", "The name that the IdP knows the user by.")
	userName.Required, userName.Uniqueness = true, UniqueServer
	password := text("password", "Accepted and dropped: nobody logs in here.")
	password.Mutability, password.Returned, password.CaseExact, password.discarded = WriteOnly, Never, true, true
	user := &Schema{ID: UserURN, Name: "User", Description: "A person.", Attributes: []Attribute{
		userName, externalID(),
		complexOf("name", "The parts of the name.", text("formatted", "All of it."), text("familyName", "Last name."), text("givenName", "First name."),
			text("middleName", "Middle name."), text("honorificPrefix", "Title."), text("honorificSuffix", "Suffix.")),
		text("displayName", "The name to show."), text("nickName", "Casual name."), reference("profileUrl", "A page about the user.", "external"),
		text("title", "Job title."), text("userType", "Relation to the organisation."), text("preferredLanguage", "As in Accept-Language."),
		text("locale", "For formatting."), text("timezone", "As in the tz database."),
		boolean("active", "False: access has ended. Only an explicit true lifts a restriction."), password,
		plural("emails", "E-mail addresses.", text("", "An address.")), plural("phoneNumbers", "Phone numbers.", text("", "A number.")),
		plural("ims", "Instant messaging.", text("", "An address.")), plural("photos", "Pictures.", reference("", "A URL.", "external")),
		many(complexOf("addresses", "Postal addresses.", text("formatted", "All of it."), text("streetAddress", "Street."), text("locality", "City."),
			text("region", "State."), text("postalCode", "Postal code."), text("country", "Country."), text("type", "Such as work or home."),
			boolean("primary", "Whether it is the preferred one."))),
		groupsOf(), plural("entitlements", "Entitlements that the IdP sends.", text("", "An entitlement.")),
		plural("roles", "Roles that the IdP sends.", text("", "A role.")),
		plural("x509Certificates", "Certificates.", Attribute{Type: TypeBinary, CaseExact: true, Mutability: ReadWrite, Returned: Default, Uniqueness: UniqueNone, Description: "DER, base64."}),
	}}
	enterprise := &Schema{ID: EnterpriseURN, Name: "EnterpriseUser", Description: "A person in an organisation.", Attributes: []Attribute{
		text("employeeNumber", "Number."), text("costCenter", "Cost centre."), text("organization", "Organisation."), text("division", "Division."),
		text("department", "Department."),
		complexOf("manager", "Who the user reports to.", exact(text("value", "The manager's id, as the IdP has it.")),
			reference("$ref", "The manager's URL.", "User"), readOnly(text("displayName", "The manager's name."))),
	}}
	return ResourceType{Name: directory.TypeUser, Endpoint: "/Users", Schema: user, Extensions: []*Schema{enterprise, lifecycleSchema()}, unique: "userName"}.prepared()
}

// GroupType is RFC 7643 section 4.2.
func GroupType() *ResourceType {
	displayName := text("displayName", "The group's name.")
	displayName.Required = true
	members := links(directory.EdgeMembers, "The members.", "User", "Agent", "Group")
	members.unbounded = true
	return ResourceType{Name: directory.TypeGroup, Endpoint: "/Groups", Schema: &Schema{
		ID: GroupURN, Name: "Group", Description: "A group of users, agents and groups.",
		Attributes: []Attribute{displayName, externalID(), members},
	}}.prepared()
}

// AgentType is draft-wzdk-scim-agent-resource-00, which merges
// draft-abbey-scim-agent-extension-00 and draft-wahl-scim-agent-schema-01.
func AgentType() *ResourceType {
	name := text("agentUserName", "The agent's unique name.")
	name.Required, name.Uniqueness, name.alias = true, UniqueServer, "name"
	owners := links(directory.EdgeOwners, "Who answers for the agent: without an active owner it may not act.", "User", "Group")
	parent := links(directory.EdgeParent, "The agent that this one works for.", "Agent")
	parent.MultiValued = false
	return ResourceType{Name: directory.TypeAgent, Endpoint: "/Agents", unique: "agentUserName", Extensions: []*Schema{validitySchema(), lifecycleSchema()}, Schema: &Schema{
		ID: AgentURN, Name: "Agent", Description: "A software agent that acts for people.", Attributes: []Attribute{
			name, externalID(), text("displayName", "The name to show."), text("description", "What it does."), text("agentType", "What it is."),
			boolean("active", "False: the agent may not act."), owners, parent, exact(text("subject", "The sub claim of its tokens.")), groupsOf(),
			readOnly(many(complexOf("applications", "Applications it belongs to.", readOnly(exact(text("value", "An id."))),
				readOnly(reference("$ref", "A URL.", "external")), readOnly(text("display", "A name."))))),
			many(complexOf("protocols", "How it can be reached.", text("type", "Such as A2A, OpenAPI or MCP-Server."),
				reference("specificationUrl", "Where it is described.", "external"))),
			many(complexOf("oAuthClientIdentifiers", "Its OAuth clients.", exact(text("clientId", "The client_id.")), text("description", "What for."),
				reference("issuerUri", "The issuer.", "external"))),
			plural("entitlements", "Entitlements that the IdP sends.", text("", "An entitlement.")),
			plural("roles", "Roles that the IdP sends.", text("", "A role.")),
			plural("x509Certificates", "Certificates.", Attribute{Type: TypeBinary, CaseExact: true, Mutability: ReadWrite, Returned: Default, Uniqueness: UniqueNone, Description: "DER, base64."}),
		},
	}}.prepared()
}

// validitySchema lets an agent's time be limited: past it the agent may not act, and
// is deactivated.
func validitySchema() *Schema {
	until := text("validUntil", "From then on the agent may not act; it is deactivated as its IdP would.")
	until.Type = TypeDateTime
	return &Schema{ID: ValidityURN, Name: "Validity", Description: "How long an agent may act.", Attributes: []Attribute{until}}
}

// lifecycleSchema shows the state that decision points consult, which no client
// writes, and the cascade that came of it.
func lifecycleSchema() *Schema {
	since := readOnly(text(directory.RestrictedSince, "Since when every decision about the principal is deny."))
	since.Type = TypeDateTime
	survivors := readOnly(text(directory.Survivors, "How many credentials and scheduled runs outlived the cascade."))
	survivors.Type = TypeInteger
	return &Schema{ID: LifecycleURN, Name: "Lifecycle", Description: "How a principal's end stands. Absent while nothing restricts it.", Attributes: []Attribute{
		since, readOnly(exact(text(directory.RestrictedCause, "Why: deactivated, deleted or orphaned."))),
		readOnly(exact(text(directory.WorkflowID, "The cascade's workflow in Temporal."))), survivors,
	}}
}
