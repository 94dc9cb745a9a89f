package registry

import (
	"context"
	"errors"
	"testing"

	"github.com/google/uuid"

	"github.com/leaverhq/leaver/activities/connectors"
	"github.com/leaverhq/leaver/internal/credential"
)

// holder is a downstream that answers every question about possession alike.
type holder struct {
	connectors.Connector
	vitality connectors.Vitality
	err      error
}

func (h holder) Possesses(context.Context, connectors.Target) (connectors.Vitality, string, error) {
	return h.vitality, "the answer", h.err
}

func TestProve_TellsARefusalFromAnOutage(t *testing.T) {
	for name, row := range map[string]struct {
		downstream connectors.Connector
		want       error
	}{
		"possession":        {holder{vitality: connectors.Alive}, nil},
		"no possession":     {holder{vitality: connectors.Dead}, credential.ErrNotProven},
		"an unknown answer": {holder{vitality: connectors.Unknown}, credential.ErrNotProven},
		"a final error":     {holder{err: connectors.Permanent("400")}, credential.ErrNotProven},
		"an outage":         {holder{err: connectors.Retryable("502")}, credential.ErrNotAsked},
		"an unread error":   {holder{err: errors.New("reset")}, credential.ErrNotAsked},
	} {
		r := Registry{"shared": {Connector: row.downstream, Tenants: []string{"acme", "globex"}}}
		err := r.Prove(t.Context(), uuid.New(), "acme", credential.New{Connector: "shared"})
		if !errors.Is(err, row.want) {
			t.Errorf("%s: got %v, want %v", name, err, row.want)
		}
	}
}
