// Package temporal ends scheduled runs that are Temporal Schedules: the
// schedule itself, and the workflows that it started.
package temporal

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/contrib/envconfig"

	"github.com/leaverhq/leaver/activities/connectors"
)

// Config are the settings of a connector of type temporal.
type Config struct {
	Address   string               `yaml:"address"`
	Namespace string               `yaml:"namespace"`
	APIKey    connectors.SecretRef `yaml:"api_key"`
	// CAFile has the authorities of the server's certificate, in PEM; CertFile and KeyFile the certificate that the
	// server asks for. The connection has TLS if one of these or APIKey is set.
	CAFile   string `yaml:"ca_file"`
	CertFile string `yaml:"cert_file"`
	KeyFile  string `yaml:"key_file"`
	// Mode is delete (default), or pause, which keeps the schedule for another owner.
	Mode string `yaml:"mode"`
	// Grace is the time after which a cancelled run is terminated; 5s by default.
	Grace time.Duration `yaml:"grace"`
	// SearchAttribute is the Keyword search attribute in which schedules contain the SCIM
	// id of their principal. If empty, schedules cannot be discovered.
	SearchAttribute string `yaml:"search_attribute"`
}

// attributeName matches the names of search attributes that are safe in a query.
var attributeName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9]*$`)

// Connector implements Canceller, Blocker, Verifier, Discoverer and Issuer.
type Connector struct {
	config Config
	client client.Client
}

// New validates the settings. It does not connect: Temporal may be down.
func New(c Config) (*Connector, error) {
	if c.Mode == "" {
		c.Mode = "delete"
	}
	if c.Grace == 0 {
		c.Grace = 5 * time.Second
	}
	switch {
	case c.Address == "":
		return nil, errors.New("address is required")
	case c.Namespace == "":
		return nil, errors.New("namespace is required")
	case c.Mode != "delete" && c.Mode != "pause":
		return nil, fmt.Errorf("mode must be delete or pause, got %q", c.Mode)
	case c.SearchAttribute != "" && !attributeName.MatchString(c.SearchAttribute):
		return nil, fmt.Errorf(
			"search_attribute must be a letter followed by letters and digits, got %q", c.SearchAttribute,
		)
	}
	options, err := c.clientOptions()
	if err != nil {
		return nil, err
	}
	lazy, err := client.NewLazyClient(options)
	if err != nil {
		return nil, fmt.Errorf("configure the client: %w", err)
	}
	return &Connector{config: c, client: lazy}, nil
}

func (c Config) clientOptions() (client.Options, error) {
	key, err := c.APIKey.Resolve()
	if err != nil {
		return client.Options{}, fmt.Errorf("api_key: %w", err)
	}
	profile := envconfig.ClientConfigProfile{Address: c.Address, Namespace: c.Namespace, APIKey: key.Reveal()}
	if c.CAFile != "" || c.CertFile != "" || c.KeyFile != "" {
		profile.TLS = &envconfig.ClientConfigTLS{
			ServerCACertPath: c.CAFile, ClientCertPath: c.CertFile, ClientKeyPath: c.KeyFile,
		}
	}
	options, err := profile.ToClientOptions(envconfig.ToClientOptionsRequest{})
	if err != nil {
		return client.Options{}, fmt.Errorf("ca_file, cert_file and key_file: %w", err)
	}
	options.Identity = "leaver"
	return options, nil
}

// ReservedPrefix is the prefix of the ids of leaver's own schedules, which no connector ends.
const ReservedPrefix = "leaver-"

// drillPrefix is the prefix of the ids of the schedules issued for drills.
const drillPrefix = ReservedPrefix + "drill-"

// Accepts implements connectors.Connector.
func (c *Connector) Accepts(r connectors.Registration) (string, error) {
	switch {
	case r.Kind != connectors.ScheduledRun:
		return "", fmt.Errorf("kind must be %s, got %s", connectors.ScheduledRun, r.Kind)
	case r.Shared:
		return "", errors.New("a scheduled run cannot be shared")
	}
	return r.Reference, checkSchedule(r.Reference)
}

// checkSchedule returns a permanent error for ids that could break out of a visibility
// query, and for those of leaver's own schedules, except drills'.
func checkSchedule(id string) error {
	switch {
	case strings.ContainsAny(id, `'"\`):
		return connectors.Permanent("the reference must be a schedule id without quotes and backslashes, got %q", id)
	case strings.HasPrefix(id, ReservedPrefix) && !strings.HasPrefix(id, drillPrefix):
		return connectors.Permanent(
			"schedule ids with the prefix %q are reserved for leaver and cannot be ended", ReservedPrefix,
		)
	}
	return nil
}

// Downstream returns the server and namespace that the connector administers.
func (c *Connector) Downstream() string { return c.config.Address + "/" + c.config.Namespace }

// Close implements connectors.Connector.
func (c *Connector) Close() { c.client.Close() }

var _ connectors.Canceller = (*Connector)(nil)
