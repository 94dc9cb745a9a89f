package evidence

import (
	"slices"
	"time"

	"github.com/google/uuid"
)

// Proof is what the evidence of a cascade says about one item.
type Proof struct {
	EndedAt  *time.Time // when the downstream confirmed the end
	AliveAt  *time.Time // when a probe saw it alive before the end: the positive control
	DeadAt   *time.Time // when a probe saw it dead after the end
	By       string     // the detail of that probe
	Attempts int
	Last     string // step, outcome and detail of the last record
}

// Proofs returns the proof of each item in the records of a cascade, which are in order.
func Proofs(records []Record) map[uuid.UUID]Proof {
	proofs := make(map[uuid.UUID]Proof)
	for _, r := range records {
		p := proofs[r.Item]
		p.Attempts = max(p.Attempts, r.Attempt)
		p.Last = r.Step + ": " + r.Outcome
		if r.Detail != "" {
			p.Last += ", " + r.Detail
		}
		at := r.At
		switch {
		case r.Step == "probe-before" && r.Outcome == "alive":
			p.AliveAt = &at
		case r.Step == "probe-after" && r.Outcome == "dead":
			p.DeadAt, p.By = &at, r.Detail
		case r.Step == "probe-after" && r.Outcome == "alive": // contradicts what was seen before
			p.DeadAt, p.EndedAt, p.By = nil, nil, ""
		case (r.Outcome == "done" || r.Outcome == "gone") && slices.Contains(ends(), r.Step):
			p.EndedAt = &at
		}
		proofs[r.Item] = p
	}
	return proofs
}

// ends returns the steps that end an item.
func ends() []string { return []string{"revoke", "settle", "rotate", "cancel", "retire-old"} }
