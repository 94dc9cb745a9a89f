package httpjson

import (
	"github.com/leaverhq/leaver/activities/connectors"
)

// Secret decodes a secret from JSON; it encodes like any connectors.Secret, as a
// placeholder.
type Secret struct{ connectors.Secret }

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *Secret) UnmarshalText(text []byte) error {
	s.Secret = connectors.Secret(text)
	return nil
}
