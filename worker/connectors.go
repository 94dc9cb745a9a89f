package worker

import (
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/activities/connectors"
	"github.com/leaverhq/leaver/activities/connectors/aws"
	"github.com/leaverhq/leaver/activities/connectors/ldap"
	"github.com/leaverhq/leaver/activities/connectors/mysql"
	"github.com/leaverhq/leaver/activities/connectors/oauth2"
	"github.com/leaverhq/leaver/activities/connectors/postgres"
	"github.com/leaverhq/leaver/activities/connectors/redis"
	"github.com/leaverhq/leaver/activities/connectors/rest"
	"github.com/leaverhq/leaver/activities/connectors/temporal"
	"github.com/leaverhq/leaver/activities/connectors/vault"
	"github.com/leaverhq/leaver/activities/connectors/webhook"
	"github.com/leaverhq/leaver/internal/config"
	"github.com/leaverhq/leaver/internal/registry"
)

// maxAttempts is the maximum number of attempts at one connector that a process has in flight.
const maxAttempts = 100

// Connectors returns the configured connectors. Its errors contain the line number. It
// rejects or restricts connectors that could end what leaver itself runs on: its database
// roles and its Temporal namespace.
func Connectors(cfg *config.Config) (registry.Registry, error) {
	configured := cfg.Connectors
	built := make(registry.Registry, len(configured))
	definitions, err := rest.Load(cfg.ConnectorDefinitions)
	if err != nil {
		return nil, err
	}
	for _, c := range configured {
		connector, err := build(c, definitions)
		if err == nil {
			err = protectOwn(cfg, c, connector)
		}
		if err != nil {
			built.Close()
			return nil, err
		}
		built[c.Name] = registry.Entry{
			Connector: connector, Type: c.Type, Rate: c.Rate, Tenants: c.Tenants, References: c.References,
			PublishTo: c.PublishTo, TrustLabels: c.TrustLabels, Drill: cfg.SelfTest.DrillTenant,
			Slots: make(chan struct{}, maxAttempts),
		}
	}
	for _, c := range configured {
		if c.PublishTo == "" {
			continue
		}
		to := built[c.PublishTo]
		_, publishes := connectors.As[connectors.Publisher](to.Connector)
		if publishes && to.ServesAll(c.Tenants) {
			continue
		}
		built.Close()
		return nil, c.Errorf("connector %s: publish_to must name a connector that can publish secrets to all of its "+
			"tenants, got %q", c.Name, c.PublishTo)
	}
	return built, nil
}

// protectOwn keeps a connector from leaver's own database roles, and rejects one that
// administers leaver's own Temporal namespace.
func protectOwn(cfg *config.Config, c config.Connector, connector connectors.Connector) error {
	if err := registry.CheckReferences(c.References); err != nil {
		return c.Errorf("connector %s: %w", c.Name, err)
	}
	switch connector := connector.(type) {
	case *postgres.Connector:
		for _, address := range []string{cfg.Database.URL, cfg.Database.MigrateURL} {
			if own, err := pgx.ParseConfig(address); err == nil && address != "" {
				connector.Protect(own.User)
			}
		}
	case *temporal.Connector:
		own, err := clientOptions(cfg.Temporal)
		if err != nil {
			return err
		}
		if connector.Downstream() == own.HostPort+"/"+own.Namespace {
			return c.Errorf("connector %s: namespace %s at %s is the one that leaver itself runs in: "+
				"configure the namespace of the agents' workflows", c.Name, own.Namespace, own.HostPort)
		}
	}
	return nil
}

func build(c config.Connector, definitions rest.Catalog) (connectors.Connector, error) {
	switch c.Type {
	case "aws":
		return construct(c, aws.New)
	case "ldap":
		return construct(c, ldap.New)
	case "mysql":
		return construct(c, mysql.New)
	case "oauth2":
		return construct(c, oauth2.New)
	case "postgres":
		return construct(c, postgres.New)
	case "redis":
		return construct(c, redis.New)
	case "temporal":
		return construct(c, temporal.New)
	case "vault":
		return construct(c, vault.New)
	case "webhook":
		return construct(c, webhook.New)
	}
	definition := definitions[c.Type]
	if definition == nil {
		return nil, c.Errorf("connector %s: type must be one of %s, got %q", c.Name,
			strings.Join(append(Adapters(), definitions.Names()...), ", "), c.Type)
	}
	settings, err := c.Settings(definition.SettingNames())
	if err != nil {
		return nil, err
	}
	connector, err := rest.New(definition, settings)
	if err != nil {
		return nil, c.Errorf("connector %s: %w", c.Name, err)
	}
	return connector, nil
}

// Adapters returns the types of connectors that are written in Go.
func Adapters() []string {
	types := Types(nil)
	names := make([]string, len(types))
	for i, t := range types {
		names[i] = t.Name
	}
	return names
}

// construct decodes the settings of a connector, rejecting unknown ones, and creates the
// connector.
func construct[S any, C connectors.Connector](
	c config.Connector, newConnector func(S) (C, error),
) (connectors.Connector, error) {
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

// CheckPublishers returns an error if a publish_to names no connector of a type that can
// publish secrets. It resolves no secrets, so that `leaver migrate` can call it.
func CheckPublishers(cfg *config.Config) error {
	for _, c := range cfg.Connectors {
		if c.PublishTo == "" {
			continue
		}
		publishes := slices.ContainsFunc(cfg.Connectors, func(to config.Connector) bool {
			return to.Name == c.PublishTo && (to.Type == "vault" || to.Type == "webhook")
		})
		if !publishes {
			return c.Errorf(
				"connector %s: publish_to must name a connector of type vault or webhook, got %q", c.Name, c.PublishTo,
			)
		}
	}
	return nil
}
