package scim

// The URNs of the schemas.
const (
	UserURN       = "urn:ietf:params:scim:schemas:core:2.0:User"
	GroupURN      = "urn:ietf:params:scim:schemas:core:2.0:Group"
	AgentURN      = "urn:ietf:params:scim:schemas:core:2.0:Agent"
	EnterpriseURN = "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User"
	// LifecycleURN is leaver's extension that shows the restriction of a principal.
	LifecycleURN = ownURN + "schemas:extension:lifecycle:1.0:Principal"

	// ValidityURN is leaver's extension that limits until when an agent may act.
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

// text returns a readWrite string attribute that is compared without regard to case.
func text(name, description string) Attribute {
	return Attribute{
		Name: name, Type: TypeString, Description: description,
		Mutability: ReadWrite, Returned: Default, Uniqueness: UniqueNone,
	}
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

// plural returns a multi-valued attribute with the default sub-attributes of RFC 7643
// section 2.4. It has no canonical types, because IdPs send their own.
func plural(name, description string, value Attribute) Attribute {
	value.Name = "value"
	return many(complexOf(name, description, value,
		text("display", "The display name."), text("type", "A label such as work or home."),
		boolean("primary", "Whether it is the preferred one.")))
}

// links returns a multi-valued attribute of references to other resources, stored as edges.
// The target of an element is immutable; clients replace the element instead.
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

// groupsOf returns the read-only attribute groups of a principal.
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
	return exact(text("externalId", "The client's identifier. leaver does not identify the resource by it."))
}

// UserType returns the resource type User (RFC 7643 section 4.1) with the enterprise extension
// (section 4.3).
func UserType() *ResourceType {
	userName := text("userName", "The user's unique name in the IdP.")
	userName.Required, userName.Uniqueness = true, UniqueServer
	password := text("password", "Accepted and discarded: users do not log in to leaver.")
	password.Mutability, password.Returned, password.CaseExact, password.discarded = WriteOnly, Never, true, true
	user := &Schema{ID: UserURN, Name: "User", Description: "A person.", Attributes: []Attribute{
		userName, externalID(),
		complexOf("name", "The parts of the name.", text("formatted", "The full name."),
			text("familyName", "Last name."), text("givenName", "First name."), text("middleName", "Middle name."),
			text("honorificPrefix", "Title."), text("honorificSuffix", "Suffix.")),
		text("displayName", "The display name."), text("nickName", "Casual name."),
		reference("profileUrl", "A page about the user.", "external"),
		text("title", "Job title."), text("userType", "Relation to the organisation."),
		text("preferredLanguage", "The preferred language, in the format of Accept-Language."),
		text("locale", "The locale for formatting."), text("timezone", "The time zone, a name of the tz database."),
		boolean("active", "False ends access. Only an explicit true lifts a restriction."), password,
		plural("emails", "E-mail addresses.", text("", "An address.")),
		plural("phoneNumbers", "Phone numbers.", text("", "A number.")),
		plural("ims", "Instant messaging.", text("", "An address.")),
		plural("photos", "Pictures.", reference("", "A URL.", "external")),
		many(complexOf("addresses", "Postal addresses.", text("formatted", "The full address."),
			text("streetAddress", "Street."), text("locality", "City."), text("region", "State."),
			text("postalCode", "Postal code."), text("country", "Country."),
			text("type", "A label such as work or home."), boolean("primary", "Whether it is the preferred one."))),
		groupsOf(), plural("entitlements", "Entitlements that the IdP sends.", text("", "An entitlement.")),
		plural("roles", "Roles that the IdP sends.", text("", "A role.")),
		plural("x509Certificates", "Certificates.", Attribute{
			Type: TypeBinary, CaseExact: true, Mutability: ReadWrite, Returned: Default, Uniqueness: UniqueNone,
			Description: "The certificate in DER, base64.",
		}),
	}}
	enterprise := &Schema{ID: EnterpriseURN, Name: "EnterpriseUser", Description: "A person in an organisation."}
	enterprise.Attributes = []Attribute{
		text("employeeNumber", "Employee number."), text("costCenter", "Cost centre."),
		text("organization", "Organisation."), text("division", "Division."), text("department", "Department."),
		complexOf("manager", "The user's manager.", exact(text("value", "The manager's id in the IdP.")),
			reference("$ref", "The manager's URL.", "User"), readOnly(text("displayName", "The manager's name."))),
	}
	return ResourceType{
		Name: User, Endpoint: "/Users", Schema: user,
		Extensions: []*Schema{enterprise, lifecycleSchema()}, unique: "userName",
	}.prepared()
}

// GroupType returns the resource type Group (RFC 7643 section 4.2).
func GroupType() *ResourceType {
	displayName := text("displayName", "The group's name.")
	displayName.Required = true
	members := links(Members, "The members.", "User", "Agent", "Group")
	members.unbounded = true
	return ResourceType{Name: Group, Endpoint: "/Groups", Schema: &Schema{
		ID: GroupURN, Name: "Group", Description: "A group of users, agents and groups.",
		Attributes: []Attribute{displayName, externalID(), members},
	}}.prepared()
}

// AgentType returns the resource type Agent of draft-wzdk-scim-agent-resource-00, which merges
// draft-abbey-scim-agent-extension-00 and draft-wahl-scim-agent-schema-01.
func AgentType() *ResourceType {
	name := text("agentUserName", "The agent's unique name.")
	name.Required, name.Uniqueness, name.alias = true, UniqueServer, "name"
	owners := links(Owners,
		"The owners of the agent. Without an active owner it may not act.", "User", "Group")
	parent := links(Parent, "The agent that this agent works for.", "Agent")
	parent.MultiValued = false
	extensions := []*Schema{validitySchema(), lifecycleSchema()}
	rt := ResourceType{Name: Agent, Endpoint: "/Agents", unique: "agentUserName", Extensions: extensions}
	rt.Schema = &Schema{
		ID: AgentURN, Name: "Agent", Description: "A software agent that acts for people.", Attributes: []Attribute{
			name, externalID(), text("displayName", "The display name."),
			text("description", "What the agent does."), text("agentType", "The kind of agent."),
			boolean("active", "False if the agent may not act."), owners, parent,
			exact(text("subject", "The sub claim of the agent's tokens.")), groupsOf(),
			readOnly(many(complexOf("applications", "Applications that the agent belongs to.",
				readOnly(exact(text("value", "The application's id."))),
				readOnly(reference("$ref", "The application's URL.", "external")),
				readOnly(text("display", "The application's name."))))),
			many(complexOf("protocols", "Protocols by which the agent can be reached.",
				text("type", "The protocol, such as A2A, OpenAPI or MCP-Server."),
				reference("specificationUrl", "The URL of the specification.", "external"))),
			many(complexOf("oAuthClientIdentifiers", "The agent's OAuth clients.",
				exact(text("clientId", "The client_id.")), text("description", "The purpose of the client."),
				reference("issuerUri", "The issuer.", "external"))),
			plural("entitlements", "Entitlements that the IdP sends.", text("", "An entitlement.")),
			plural("roles", "Roles that the IdP sends.", text("", "A role.")),
			plural("x509Certificates", "Certificates.", Attribute{
				Type: TypeBinary, CaseExact: true, Mutability: ReadWrite, Returned: Default, Uniqueness: UniqueNone,
				Description: "The certificate in DER, base64.",
			}),
		},
	}
	return rt.prepared()
}

// validitySchema returns the extension that limits until when an agent may act. After that
// time the agent is deactivated.
func validitySchema() *Schema {
	until := text("validUntil", "The time from which the agent may not act. It is then deactivated as if by its IdP.")
	until.Type = TypeDateTime
	return &Schema{
		ID: ValidityURN, Name: "Validity", Description: "How long an agent may act.", Attributes: []Attribute{until},
	}
}

// lifecycleSchema returns the read-only extension that shows the restriction that decision
// points consult, and the cascade that it started.
func lifecycleSchema() *Schema {
	since := readOnly(text(RestrictedSince, "The time since which every decision is deny."))
	since.Type = TypeDateTime
	survivors := readOnly(text(Survivors,
		"The number of credentials and scheduled runs that survived the cascade."))
	survivors.Type = TypeInteger
	return &Schema{
		ID: LifecycleURN, Name: "Lifecycle",
		Description: "The restriction of a principal and its cascade. Absent while the principal is not restricted.",
		Attributes: []Attribute{
			since, readOnly(exact(text(RestrictedCause, "The cause: deactivated, deleted or orphaned."))),
			readOnly(exact(text(WorkflowID, "The id of the cascade's workflow in Temporal."))), survivors,
		},
	}
}
