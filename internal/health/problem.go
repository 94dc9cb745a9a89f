package health

// Severity is how much a problem matters.
type Severity string

// The severities.
const (
	Critical Severity = "critical" // deactivations are delayed, or may fail
	Warning  Severity = "warning"  // a person should look at it
)

// The codes of problems that pages of the console select.
const (
	ConnectorCheck    = "connector-check" // a connector did not pass its check
	DrillProblem      = "drill"           // the drill failed, or has not passed for too long
	ReconcilerProblem = "reconciler"      // the same of the reconciler
)

// Problem is something that is wrong with an installation, and how to fix it. It names no tenant and no principal.
type Problem struct {
	Code     string   `json:"code"`
	Severity Severity `json:"severity"`
	Text     string   `json:"text"`
	// Connector is the connector that the problem is about, or empty.
	Connector string `json:"connector,omitempty"`
	Fix       string `json:"fix,omitempty"`
}

// String returns the text and the fix.
func (p Problem) String() string {
	if p.Fix == "" {
		return p.Text
	}
	return p.Text + ": " + p.Fix
}
