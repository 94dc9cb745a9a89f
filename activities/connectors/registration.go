package connectors

// Registration is what a connector checks of an item before it is registered.
type Registration struct {
	Kind      Kind
	Reference string
	HasSecret bool
	Shared    bool // others rely on it: it is rotated
}
