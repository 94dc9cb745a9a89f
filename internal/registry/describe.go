package registry

// Description is the public description of a configured connector.
type Description struct {
	Name         string   `json:"name"`
	Type         string   `json:"type"`
	Rate         float64  `json:"rate,omitempty"` // attempts per second; 0 for no limit
	Tenants      []string `json:"tenants"`
	PublishTo    string   `json:"publishTo,omitempty"`
	Capabilities []string `json:"capabilities"`
}
