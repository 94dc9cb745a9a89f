package connectors

// Registration holds the fields of an item that a connector checks before it is registered.
type Registration struct {
	Kind      Kind
	Reference string
	HasSecret bool
	Shared    bool // others rely on it: rotated instead of revoked
}
