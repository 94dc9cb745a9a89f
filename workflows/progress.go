package workflows

import (
	"fmt"
	"strings"

	"github.com/google/uuid"
	"go.temporal.io/sdk/workflow"

	"github.com/leaverhq/leaver/activities/connectors"
	"github.com/leaverhq/leaver/internal/credential"
)

// phaseReporting is the phase in which items can no longer be retried.
const phaseReporting = "reporting"

// maxProgressItems bounds the items of a [Progress]; its counts include all items.
const maxProgressItems = 200

// Progress is the result of [QueryProgress].
type Progress struct {
	Phase     string         `json:"phase"`
	Suspended int            `json:"suspendedAgents"`
	Counts    map[string]int `json:"counts"` // items by state, those of earlier runs included
	Items     []ItemProgress `json:"items"`
}

// ItemProgress is the state of one item in this run.
type ItemProgress struct {
	ID        uuid.UUID        `json:"id"`
	Kind      connectors.Kind  `json:"kind"`
	Connector string           `json:"connector"`
	State     credential.State `json:"state"`
	Reason    string           `json:"reason,omitempty"`
}

func (c *cascadeRun) progress() Progress {
	p := Progress{Phase: c.phase, Suspended: c.suspended, Counts: make(map[string]int)}
	for state, n := range c.counts {
		p.Counts[string(state)] = n
	}
	for _, i := range c.order[:min(len(c.order), maxProgressItems)] {
		state := i.state
		if state == "" {
			state = credential.Live // discovered and not started yet
		}
		p.Items = append(p.Items, ItemProgress{
			ID: i.ID, Kind: i.Kind, Connector: i.Connector, State: state, Reason: i.reason,
		})
	}
	return p
}

// show sets the workflow's current details, which the Temporal UI renders.
func (c *cascadeRun) show(ctx workflow.Context) {
	var b strings.Builder
	fmt.Fprintf(
		&b, "**%s** · %d found, %d in flight\n\n| state | items |\n|---|---|\n", c.phase, len(c.order), c.inFlight,
	)
	for _, state := range []credential.State{
		credential.Ending, credential.Verified, credential.Revoked, credential.Absent, credential.Expiring,
		credential.Failed, credential.Waived,
	} {
		if n := c.counts[state]; n > 0 {
			fmt.Fprintf(&b, "| %s | %d |\n", state, n)
		}
	}
	if c.suspended > 0 {
		fmt.Fprintf(&b, "\n%d orphaned agents suspended\n", c.suspended)
	}
	if c.held {
		fmt.Fprintf(&b, "\n%d are %s\n", len(c.deferred), heldReason)
	}
	if len(c.waiting) > 0 {
		b.WriteString("\n| waits for | kind | attempts | last answer |\n|---|---|---|---|\n")
		for _, w := range c.waiting {
			fmt.Fprintf(&b, "| %s | %s | %d | %s |\n", w.Connector, w.Kind, w.Attempts, cell(w.Answer))
		}
	}
	if c.finding > 0 {
		fmt.Fprintf(&b, "\n%d connectors are being queried for credentials\n", c.finding)
	}
	if len(c.notAsked) > 0 {
		b.WriteString("\n| failed to query | reason |\n|---|---|\n")
		for _, n := range c.notAsked {
			fmt.Fprintf(&b, "| %s | %s |\n", n.Connector, cell(n.Reason))
		}
	}
	workflow.SetCurrentDetails(ctx, b.String())
}

// cell replaces the characters of a text that would end its cell of a Markdown table.
func cell(text string) string { return strings.NewReplacer("|", "/", "\n", " ").Replace(text) }
