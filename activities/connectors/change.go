package connectors

import (
	"github.com/google/uuid"
)

// EntitlementChange lists the entitlements that a principal gained and lost.
type EntitlementChange struct {
	Principal uuid.UUID `json:"principal"`
	Gained    []string  `json:"gained,omitempty"`
	Lost      []string  `json:"lost,omitempty"`
}
