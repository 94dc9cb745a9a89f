package health

// Severity is how much a problem matters.
type Severity string

// The severities.
const (
	Critical Severity = "critical" // deactivations are delayed, or may fail
	Warning  Severity = "warning"  // a person should look at it
)

// ConnectorCheck is the code of the problem that a connector did not pass its check.
const ConnectorCheck = "connector-check"

// Problem is something that is wrong with an installation, and how to fix it. It names no tenant and no principal.
type Problem struct {
	Code     string   `json:"code"`
	Severity Severity `json:"severity"`
	Text     string   `json:"text"`
	Fix      string   `json:"fix,omitempty"`
}

// String returns the text and the fix.
func (p Problem) String() string {
	if p.Fix == "" {
		return p.Text
	}
	return p.Text + ": " + p.Fix
}
