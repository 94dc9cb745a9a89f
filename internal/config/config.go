// Package config reads leaver's configuration: one YAML file, overridden by
// LEAVER_* variables. Errors name the file's line.
package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/knadh/koanf/parsers/yaml"
	"github.com/knadh/koanf/providers/env/v2"
	"github.com/knadh/koanf/providers/rawbytes"
	"github.com/knadh/koanf/v2"
)

// Config is the whole configuration.
type Config struct {
	Database Database `koanf:"database"`
	Temporal Temporal `koanf:"temporal"`
	Seal     Seal     `koanf:"seal"`
	Serve    Serve    `koanf:"serve"`
	Codec    Codec    `koanf:"codec"`
	Policy   Policy   `koanf:"policy"`
	// Assurance says when the reconciler runs, and when and where the drill does.
	Assurance Assurance `koanf:"assurance"`
	Metrics   Metrics   `koanf:"metrics"`
	Signals   Signals   `koanf:"signals"`
	// Connectors are decoded by their own types; see [Connector.Decode].
	Connectors []Connector `koanf:"-"`
}

// Database says how to reach PostgreSQL.
type Database struct {
	URL        string `koanf:"url"`         // as the application's role
	MigrateURL string `koanf:"migrate_url"` // as the schema's owner; for `leaver migrate` alone
}

// Temporal says how to reach Temporal. The TEMPORAL_* variables and profiles
// of Temporal's own CLI fill what is empty.
type Temporal struct {
	Address   string `koanf:"address"`
	Namespace string `koanf:"namespace"`
}

// Seal names the keyset that seals secrets and payloads.
type Seal struct {
	KeysetFile string `koanf:"keyset_file"`
	Keyset     string `koanf:"keyset"` // base64 of the file; meant for LEAVER_SEAL_KEYSET
}

// Serve configures the HTTP server.
type Serve struct {
	Listen    string `koanf:"listen"`
	PublicURL string `koanf:"public_url"` // what clients call it; starts every meta.location
	// RequestsPerSecond is the SCIM rate of a tenant that has none of its own, in
	// each process; 0 is without limit.
	RequestsPerSecond int `koanf:"requests_per_second"`
}

// Codec configures the codec server for the Temporal UI. It decrypts whatever
// it is sent: put it behind what authenticates the UI's users.
type Codec struct {
	Listen         string   `koanf:"listen"` // empty: none
	AllowedOrigins []string `koanf:"allowed_origins"`
}

// Policy says how long and how hard cascades try.
type Policy struct {
	Deadline        time.Duration `koanf:"deadline"`
	AttemptTimeout  time.Duration `koanf:"attempt_timeout"`
	InitialInterval time.Duration `koanf:"initial_interval"`
	MaximumInterval time.Duration `koanf:"maximum_interval"`
	// CascadesAtOnce is how many leavers of one sender are begun with at a time; 32
	// where it is 0. More wait in the outbox, where all take turns.
	CascadesAtOnce int `koanf:"cascades_at_once"`
	// Look is how soon a cascade that is not over tells what it waits for.
	Look time.Duration `koanf:"look"`
}

// Assurance configures what `leaver migrate` schedules in Temporal.
type Assurance struct {
	ReconcileEvery time.Duration `koanf:"reconcile_every"` // 0: never
	DrillCron      string        `koanf:"drill_cron"`      // in UTC; empty: never
	DrillTenant    string        `koanf:"drill_tenant"`    // connectors that name it allow drills
	DrillPatience  time.Duration `koanf:"drill_patience"`  // how long its cascade may take
}

// Metrics configures where Prometheus scrapes /metrics; empty: nowhere.
type Metrics struct {
	Listen string `koanf:"listen"`
}

// Signals configures what receivers are told.
type Signals struct {
	// PrivateReceivers lets receivers be at private addresses, and be reached without
	// TLS: for networks where every holder of a receiver's token may reach them anyway.
	PrivateReceivers bool `koanf:"private_receivers"`
}

const envPrefix = "LEAVER_"

// sections are the first parts of a variable's name after the prefix.
var sections = []string{"database", "temporal", "seal", "serve", "codec", "policy", "assurance", "metrics", "signals"}

// Load reads the file, where it exists or was asked for, and the environment.
// path empty means ./leaver.yaml, which may be absent.
func Load(path string) (*Config, error) {
	optional := path == ""
	if optional {
		path = "leaver.yaml"
	}
	raw, err := os.ReadFile(path)
	if optional && errors.Is(err, fs.ErrNotExist) {
		raw, err = nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the configuration: %w", err)
	}
	return Parse(path, raw, os.Environ())
}

// Parse reads a configuration from bytes; name is for errors.
func Parse(name string, raw []byte, environ []string) (*Config, error) {
	connectors, err := parseDocument(name, raw)
	if err != nil {
		return nil, err
	}
	k := koanf.New(".")
	if err := k.Load(rawbytes.Provider(raw), yaml.Parser()); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	fromEnv := env.Provider(".", env.Opt{
		Prefix:        envPrefix,
		EnvironFunc:   func() []string { return environ },
		TransformFunc: variable,
	})
	if err := k.Load(fromEnv, nil); err != nil {
		return nil, fmt.Errorf("environment: %w", err)
	}
	c := &Config{
		Temporal:  Temporal{Namespace: "leaver"},
		Serve:     Serve{Listen: ":8080", RequestsPerSecond: 500},
		Assurance: Assurance{ReconcileEvery: time.Hour, DrillCron: "0 3 * * *", DrillTenant: "leaver-drill", DrillPatience: time.Hour},
	}
	if err := k.Unmarshal("", c); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	c.Connectors = connectors
	if c.Database.MigrateURL == "" {
		c.Database.MigrateURL = c.Database.URL
	}
	c.Serve.PublicURL = strings.TrimSuffix(c.Serve.PublicURL, "/")
	return c, nil
}

// variable turns LEAVER_SEAL_KEYSET_FILE into seal.keyset_file.
func variable(name, value string) (string, any) {
	name = strings.ToLower(strings.TrimPrefix(name, envPrefix))
	for _, section := range sections {
		if rest, ok := strings.CutPrefix(name, section+"_"); ok {
			if section == "codec" && rest == "allowed_origins" {
				return section + "." + rest, strings.Split(value, ",")
			}
			return section + "." + rest, value
		}
	}
	return "", nil
}
