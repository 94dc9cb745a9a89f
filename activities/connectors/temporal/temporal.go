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

	"github.com/leaverhq/leaver/activities/connectors"
)

// Config are the settings of a connector of type temporal.
type Config struct {
	Address   string               `yaml:"address"`
	Namespace string               `yaml:"namespace"`
	APIKey    connectors.SecretRef `yaml:"api_key"`
	// Mode is delete (default), or pause, which keeps the schedule for others to inherit.
	Mode string `yaml:"mode"`
	// Grace is how long a cancelled run may take before it is terminated; 5s.
	Grace time.Duration `yaml:"grace"`
	// SearchAttribute, a Keyword of the namespace's, is where schedules name the
	// SCIM id of whom they run for. Empty: they cannot be discovered.
	SearchAttribute string `yaml:"search_attribute"`
}

// A search attribute's name becomes part of a query.
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
		return nil, errors.New("address is missing")
	case c.Namespace == "":
		return nil, errors.New("namespace is missing")
	case c.Mode != "delete" && c.Mode != "pause":
		return nil, errors.New("mode is delete or pause")
	case c.SearchAttribute != "" && !attributeName.MatchString(c.SearchAttribute):
		return nil, errors.New("search_attribute is letters and digits")
	}
	options := client.Options{HostPort: c.Address, Namespace: c.Namespace, Identity: "leaver"}
	key, err := c.APIKey.Resolve()
	if err != nil {
		return nil, fmt.Errorf("api_key: %w", err)
	}
	if key != "" {
		options.Credentials = client.NewAPIKeyStaticCredentials(key.Reveal())
	}
	lazy, err := client.NewLazyClient(options)
	if err != nil {
		return nil, fmt.Errorf("configure the client: %w", err)
	}
	return &Connector{config: c, client: lazy}, nil
}

// ReservedPrefix begins the ids of leaver's own schedules, which no connector ends.
const ReservedPrefix = "leaver-"

// drillPrefix begins the ids of the schedules that drills are given.
const drillPrefix = ReservedPrefix + "drill-"

// Accepts implements connectors.Connector.
func (c *Connector) Accepts(r connectors.Registration) (string, error) {
	switch {
	case r.Kind != connectors.ScheduledRun:
		return "", errors.New("this connector ends scheduled_run")
	case r.Shared:
		return "", errors.New("a scheduled run cannot be shared")
	}
	return r.Reference, checkSchedule(r.Reference)
}

// checkSchedule refuses ids that would break out of a visibility query, and those of
// leaver's own schedules: a drill's are exempt.
func checkSchedule(id string) error {
	switch {
	case strings.ContainsAny(id, `'"\`):
		return connectors.Permanent("the reference must be a schedule id without quotes and backslashes")
	case strings.HasPrefix(id, ReservedPrefix) && !strings.HasPrefix(id, drillPrefix):
		return connectors.Permanent("schedule ids with the prefix %q are reserved for leaver and cannot be ended", ReservedPrefix)
	}
	return nil
}

// Downstream returns the server and namespace that the connector administers.
func (c *Connector) Downstream() string { return c.config.Address + "/" + c.config.Namespace }

// Close implements connectors.Connector.
func (c *Connector) Close() { c.client.Close() }

var _ connectors.Canceller = (*Connector)(nil)
