package registry

// Connector is what may be told of a configured connector.
type Description struct {
	Name         string   `json:"name"`
	Type         string   `json:"type"`
	Rate         float64  `json:"rate,omitempty"` // attempts a second; 0 is none
	Tenants      []string `json:"tenants"`
	PublishTo    string   `json:"publishTo,omitempty"`
	Capabilities []string `json:"capabilities"`
}
