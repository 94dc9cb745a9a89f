package schema

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
	TransactionURN   = ownURN + "api:messages:1.0:Transaction"
	ListURN          = "urn:ietf:params:scim:api:messages:2.0:ListResponse"
	SearchURN        = "urn:ietf:params:scim:api:messages:2.0:SearchRequest"
	BulkRequestURN   = "urn:ietf:params:scim:api:messages:2.0:BulkRequest"
	BulkResponseURN  = "urn:ietf:params:scim:api:messages:2.0:BulkResponse"
	PatchURN         = "urn:ietf:params:scim:api:messages:2.0:PatchOp"
	ErrorURN         = "urn:ietf:params:scim:api:messages:2.0:Error"
	SchemaURN        = "urn:ietf:params:scim:schemas:core:2.0:Schema"
	ResourceTypeURN  = "urn:ietf:params:scim:schemas:core:2.0:ResourceType"
	ServiceConfigURN = "urn:ietf:params:scim:schemas:core:2.0:ServiceProviderConfig"
)

// Text returns a readWrite string attribute that is compared without regard to case.
func Text(name, description string) Attribute {
	return Attribute{
		Name: name, Type: TypeString, Description: description,
		Mutability: ReadWrite, Returned: Default, Uniqueness: UniqueNone,
	}
}

func boolean(name, description string) Attribute {
	a := Text(name, description)
	a.Type = TypeBoolean
	return a
}

// Exact returns the attribute with case-exact comparison.
func Exact(a Attribute) Attribute {
	a.CaseExact = true
	return a
}

// AsReadOnly returns the attribute as one that only the server writes.
func AsReadOnly(a Attribute) Attribute {
	a.Mutability = ReadOnly
	return a
}

func reference(name, description string, types ...string) Attribute {
	a := Text(name, description)
	a.Type, a.CaseExact, a.ReferenceTypes = TypeReference, true, types
	return a
}

// ComplexOf returns a complex attribute with sub-attributes.
func ComplexOf(name, description string, subs ...Attribute) Attribute {
	a := Text(name, description)
	a.Type, a.SubAttributes = TypeComplex, subs
	return a
}

// Many returns the attribute as a multi-valued one.
func Many(a Attribute) Attribute {
	a.MultiValued = true
	return a
}

// plural returns a multi-valued attribute with the default sub-attributes of RFC 7643
// section 2.4. It has no canonical types, because IdPs send their own.
func plural(name, description string, value Attribute) Attribute {
	value.Name = "value"
	return Many(ComplexOf(name, description, value,
		Text("display", "The display name."), Text("type", "A label such as work or home."),
		boolean("primary", "Whether it is the preferred one.")))
}

// links returns a multi-valued attribute of references to other resources, stored as edges.
// The target of an element is immutable; clients replace the element instead.
func links(name, description string, types ...string) Attribute {
	value := Exact(Text("value", "The id of the resource."))
	value.Mutability, value.Required = Immutable, true
	ref := reference("$ref", "Its URL.", types...)
	ref.Mutability = Immutable
	a := Many(ComplexOf(name, description, value, ref,
		AsReadOnly(Text("display", "Its name.")), AsReadOnly(Text("type", "Its resource type."))))
	a.Edge = true
	return a
}

// groupsOf returns the read-only attribute groups of a principal.
func groupsOf() Attribute {
	a := links("groups", "The groups it is a member of, directly or through other groups.", "Group")
	a.Edge = false
	a = AsReadOnly(a)
	for i := range a.SubAttributes {
		a.SubAttributes[i] = AsReadOnly(a.SubAttributes[i])
		a.SubAttributes[i].Required = false
	}
	a.Sub("type").CanonicalValues = []string{"direct", "indirect"}
	return a
}

func externalID() Attribute {
	return Exact(Text("externalId", "The client's identifier. leaver does not identify the resource by it."))
}

// UserType returns the resource type User (RFC 7643 section 4.1) with the enterprise extension
// (section 4.3).
func UserType() *ResourceType {
	userName := Text("userName", "The user's unique name in the IdP.")
	userName.Required, userName.Uniqueness = true, UniqueServer
	password := Text("password", "Accepted and discarded: users do not log in to leaver.")
	password.Mutability, password.Returned, password.CaseExact, password.Discarded = WriteOnly, Never, true, true
	user := &Schema{ID: UserURN, Name: "User", Description: "A person.", Attributes: []Attribute{
		userName, externalID(),
		ComplexOf("name", "The parts of the name.", Text("formatted", "The full name."),
			Text("familyName", "Last name."), Text("givenName", "First name."), Text("middleName", "Middle name."),
			Text("honorificPrefix", "Title."), Text("honorificSuffix", "Suffix.")),
		Text("displayName", "The display name."), Text("nickName", "Casual name."),
		reference("profileUrl", "A page about the user.", "external"),
		Text("title", "Job title."), Text("userType", "Relation to the organisation."),
		Text("preferredLanguage", "The preferred language, in the format of Accept-Language."),
		Text("locale", "The locale for formatting."), Text("timezone", "The time zone, a name of the tz database."),
		boolean("active", "False ends access. Only an explicit true lifts a restriction."), password,
		plural("emails", "E-mail addresses.", Text("", "An address.")),
		plural("phoneNumbers", "Phone numbers.", Text("", "A number.")),
		plural("ims", "Instant messaging.", Text("", "An address.")),
		plural("photos", "Pictures.", reference("", "A URL.", "external")),
		Many(ComplexOf("addresses", "Postal addresses.", Text("formatted", "The full address."),
			Text("streetAddress", "Street."), Text("locality", "City."), Text("region", "State."),
			Text("postalCode", "Postal code."), Text("country", "Country."),
			Text("type", "A label such as work or home."), boolean("primary", "Whether it is the preferred one."))),
		groupsOf(), plural("entitlements", "Entitlements that the IdP sends.", Text("", "An entitlement.")),
		plural("roles", "Roles that the IdP sends.", Text("", "A role.")),
		plural("x509Certificates", "Certificates.", Attribute{
			Type: TypeBinary, CaseExact: true, Mutability: ReadWrite, Returned: Default, Uniqueness: UniqueNone,
			Description: "The certificate in DER, base64.",
		}),
	}}
	enterprise := &Schema{ID: EnterpriseURN, Name: "EnterpriseUser", Description: "A person in an organisation."}
	enterprise.Attributes = []Attribute{
		Text("employeeNumber", "Employee number."), Text("costCenter", "Cost centre."),
		Text("organization", "Organisation."), Text("division", "Division."), Text("department", "Department."),
		ComplexOf("manager", "The user's manager.", Exact(Text("value", "The manager's id in the IdP.")),
			reference("$ref", "The manager's URL.", "User"), AsReadOnly(Text("displayName", "The manager's name."))),
	}
	return ResourceType{
		Name: User, Endpoint: "/Users", Schema: user,
		Extensions: []*Schema{enterprise, lifecycleSchema()}, Unique: "userName",
	}.prepared()
}

// GroupType returns the resource type Group (RFC 7643 section 4.2).
func GroupType() *ResourceType {
	displayName := Text("displayName", "The group's name.")
	displayName.Required = true
	members := links(Members, "The members.", "User", "Agent", "Group")
	members.Unbounded = true
	return ResourceType{Name: Group, Endpoint: "/Groups", Schema: &Schema{
		ID: GroupURN, Name: "Group", Description: "A group of users, agents and groups.",
		Attributes: []Attribute{displayName, externalID(), members},
	}}.prepared()
}

// AgentType returns the resource type Agent of draft-wzdk-scim-agent-resource-00, which merges
// draft-abbey-scim-agent-extension-00 and draft-wahl-scim-agent-schema-01.
func AgentType() *ResourceType {
	name := Text("agentUserName", "The agent's unique name.")
	name.Required, name.Uniqueness, name.Alias = true, UniqueServer, "name"
	owners := links(Owners,
		"The owners of the agent. Without an active owner it may not act.", "User", "Group")
	parent := links(Parent, "The agent that this agent works for.", "Agent")
	parent.MultiValued = false
	extensions := []*Schema{validitySchema(), lifecycleSchema()}
	rt := ResourceType{Name: Agent, Endpoint: "/Agents", Unique: "agentUserName", Extensions: extensions}
	rt.Schema = &Schema{
		ID: AgentURN, Name: "Agent", Description: "A software agent that acts for people.", Attributes: []Attribute{
			name, externalID(), Text("displayName", "The display name."),
			Text("description", "What the agent does."), Text("agentType", "The kind of agent."),
			boolean("active", "False if the agent may not act."), owners, parent,
			Exact(Text("subject", "The sub claim of the agent's tokens.")), groupsOf(),
			AsReadOnly(Many(ComplexOf("applications", "Applications that the agent belongs to.",
				AsReadOnly(Exact(Text("value", "The application's id."))),
				AsReadOnly(reference("$ref", "The application's URL.", "external")),
				AsReadOnly(Text("display", "The application's name."))))),
			Many(ComplexOf("protocols", "Protocols by which the agent can be reached.",
				Text("type", "The protocol, such as A2A, OpenAPI or MCP-Server."),
				reference("specificationUrl", "The URL of the specification.", "external"))),
			Many(ComplexOf("oAuthClientIdentifiers", "The agent's OAuth clients.",
				Exact(Text("clientId", "The client_id.")), Text("description", "The purpose of the client."),
				reference("issuerUri", "The issuer.", "external"))),
			plural("entitlements", "Entitlements that the IdP sends.", Text("", "An entitlement.")),
			plural("roles", "Roles that the IdP sends.", Text("", "A role.")),
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
	until := Text("validUntil", "The time from which the agent may not act. It is then deactivated as if by its IdP.")
	until.Type = TypeDateTime
	return &Schema{
		ID: ValidityURN, Name: "Validity", Description: "How long an agent may act.", Attributes: []Attribute{until},
	}
}

// lifecycleSchema returns the read-only extension that shows the restriction that decision
// points consult, and the cascade that it started.
func lifecycleSchema() *Schema {
	since := AsReadOnly(Text(RestrictedSince, "The time since which every decision is deny."))
	since.Type = TypeDateTime
	survivors := AsReadOnly(Text(Survivors,
		"The number of credentials and scheduled runs that survived the cascade."))
	survivors.Type = TypeInteger
	return &Schema{
		ID: LifecycleURN, Name: "Lifecycle",
		Description: "The restriction of a principal and its cascade. Absent while the principal is not restricted.",
		Attributes: []Attribute{
			since, AsReadOnly(Exact(Text(RestrictedCause, "The cause: deactivated, deleted or orphaned."))),
			AsReadOnly(Exact(Text(WorkflowID, "The id of the cascade's workflow in Temporal."))), survivors,
		},
	}
}
