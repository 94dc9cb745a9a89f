package worker

import (
	"github.com/leaverhq/leaver/activities/connectors"
	"github.com/leaverhq/leaver/activities/connectors/oauth2"
	"github.com/leaverhq/leaver/activities/connectors/postgres"
	"github.com/leaverhq/leaver/activities/connectors/temporal"
	"github.com/leaverhq/leaver/activities/connectors/webhook"
	"github.com/leaverhq/leaver/internal/config"
)

// Connectors builds what the configuration names. Its errors name the line.
func Connectors(configured []config.Connector) (connectors.Registry, error) {
	registry := make(connectors.Registry, len(configured))
	for _, c := range configured {
		connector, err := build(c)
		if err != nil {
			registry.Close()
			return nil, err
		}
		registry[c.Name] = connectors.Entry{Connector: connector, Rate: c.Rate, Tenants: c.Tenants}
	}
	return registry, nil
}

func build(c config.Connector) (connectors.Connector, error) {
	switch c.Type {
	case "oauth2":
		return construct(c, oauth2.New)
	case "postgres":
		return construct(c, postgres.New)
	case "temporal":
		return construct(c, temporal.New)
	case "webhook":
		return construct(c, webhook.New)
	}
	return nil, c.Errorf("connector %s: unknown type %q; known are oauth2, postgres, temporal, webhook", c.Name, c.Type)
}

// construct decodes the settings of one type, strictly, and builds its connector.
func construct[S any, C connectors.Connector](c config.Connector, newConnector func(S) (C, error)) (connectors.Connector, error) {
	var settings S
	if err := c.Decode(&settings); err != nil {
		return nil, err
	}
	connector, err := newConnector(settings)
	if err != nil {
		return nil, c.Errorf("connector %s: %w", c.Name, err)
	}
	return connector, nil
}
