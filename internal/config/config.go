// Package config reads leaver's configuration: one YAML file, overridden by LEAVER_*
// variables. Errors name the file's line, or the variable.
package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"
)

// Config is the whole configuration.
type Config struct {
	Database Database
	Temporal Temporal
	Seal     Seal
	Serve    Serve
	Codec    Codec
	Policy   Policy
	// SelfTest schedules the reconciler and the self-test (drill).
	SelfTest SelfTest
	Metrics  Metrics
	Signals  Signals
	Audit    Audit
	Login    Login
	Log      Log
	// Connectors are decoded by their own types; see [Connector.Decode].
	Connectors []Connector
	// ConnectorDefinitions is a directory with definitions of connectors; empty is none.
	ConnectorDefinitions string
	// Warnings describe probable mistakes, such as an unknown variable.
	Warnings []string
}

// Database configures the connections to PostgreSQL.
type Database struct {
	URL        string `yaml:"url"`         // as the application's role
	MigrateURL string `yaml:"migrate_url"` // as the schema's owner; for `leaver migrate` alone
}

// Temporal configures the connection to Temporal. The TEMPORAL_* variables and the profiles of Temporal's
// CLI apply to empty settings.
type Temporal struct {
	Address   string `yaml:"address"`
	Namespace string `yaml:"namespace"`
	// MinimumRetention is how long the namespace must keep closed workflows, which are the
	// audit log: `leaver migrate` refuses a namespace that keeps them for less.
	MinimumRetention time.Duration `yaml:"minimum_retention"`
	UIURL            string        `yaml:"ui_url"` // base URL of Temporal's UI, for the console's links
}

// Seal names the keyset that seals secrets and payloads.
type Seal struct {
	KeysetFile string `yaml:"keyset_file"`
	Keyset     string `yaml:"keyset"` // base64 of the file; meant for LEAVER_SEAL_KEYSET
}

// Serve configures the HTTP server.
type Serve struct {
	Listen      string `yaml:"listen"`
	PublicURL   string `yaml:"public_url"`    // base URL for clients and in meta.location
	TLSCertFile string `yaml:"tls_cert_file"` // PEM; empty: a proxy ends TLS
	TLSKeyFile  string `yaml:"tls_key_file"`
	// ClientCAFile has the authorities whose certificates clients must present, in PEM; empty: clients need none.
	ClientCAFile string `yaml:"client_ca_file"`
	// RequestsPerSecond is the default SCIM rate limit of a tenant, per process; 0 means no limit.
	RequestsPerSecond int `yaml:"requests_per_second"`
}

// Codec configures the codec server for the Temporal UI. It decrypts every payload that it receives: put
// it behind a proxy that authenticates the UI's users.
type Codec struct {
	Listen         string   `yaml:"listen"` // empty: none
	AllowedOrigins []string `yaml:"allowed_origins"`
}

// Policy configures the attempts and the concurrency of cascades.
type Policy struct {
	Deadline        time.Duration `yaml:"deadline"`
	AttemptTimeout  time.Duration `yaml:"attempt_timeout"`
	InitialInterval time.Duration `yaml:"initial_interval"`
	MaximumInterval time.Duration `yaml:"maximum_interval"`
	// MaxConcurrentCascades limits the cascades of one actor that are started concurrently; 0 means 32.
	// Others wait in the outbox, which is queued fairly over actors.
	MaxConcurrentCascades int `yaml:"max_concurrent_cascades"`
	// ProgressInterval is when an open cascade reports its pending items.
	ProgressInterval time.Duration `yaml:"progress_interval"`
}

// SelfTest configures the schedules that `leaver migrate` creates in Temporal.
type SelfTest struct {
	ReconcileEvery time.Duration `yaml:"reconcile_every"` // 0: never
	DrillCron      string        `yaml:"drill_cron"`      // in UTC; empty: never
	DrillTenant    string        `yaml:"drill_tenant"`    // connectors that name it allow drills
	DrillTimeout   time.Duration `yaml:"drill_timeout"`   // how long its cascade may take
}

// Metrics configures where Prometheus scrapes /metrics; empty: nowhere.
type Metrics struct {
	Listen string `yaml:"listen"`
	// WorkerListen is the address for `leaver worker` if it shares a host and a file with
	// `leaver serve`; empty means Listen.
	WorkerListen string `yaml:"worker_listen"`
}

// Signals configures the delivery of security events to receivers.
type Signals struct {
	// PrivateReceivers permits receivers at private addresses and without TLS, for networks where
	// every holder of a receiver's token may reach them anyway.
	PrivateReceivers bool `yaml:"private_receivers"`
}

// Audit configures where the evidence is sent as it is chained, such as a SIEM; see package siem.
type Audit struct {
	Sink          string `yaml:"sink"`          // file, https, s3, splunk or syslog; empty: none
	Address       string `yaml:"address"`       // a path, a URL, s3://BUCKET/PREFIX, or HOST:PORT of syslog over TLS
	Authorization string `yaml:"authorization"` // the header's value, as env:NAME or file:PATH
	CAFile        string `yaml:"ca_file"`       // certificates that the sink's is verified with; default: the system's
}

// Login configures the OpenID provider that signs people in to the console and the CLI, and which of its groups have
// which role.
type Login struct {
	Issuer       string   `yaml:"issuer"` // empty: none
	ClientID     string   `yaml:"client_id"`
	ClientSecret string   `yaml:"client_secret"` // as env:NAME or file:PATH; empty for a public client
	Scopes       []string `yaml:"scopes"`        // besides openid, profile and email
	GroupsClaim  string   `yaml:"groups_claim"`  // of the ID token or the UserInfo response; default: groups
	Operators    []string `yaml:"operators"`     // groups
	Auditors     []string `yaml:"auditors"`
	Viewers      []string `yaml:"viewers"`
}

// Log configures logging.
type Log struct {
	Level string `yaml:"level"` // debug, info, warn or error
}

// section is one part of the file. Its struct has yaml tags.
type section struct {
	name   string
	fields any // a pointer to its struct
}

func (c *Config) sections() []section {
	return []section{
		{"database", &c.Database},
		{"temporal", &c.Temporal},
		{"seal", &c.Seal},
		{"serve", &c.Serve},
		{"codec", &c.Codec},
		{"policy", &c.Policy},
		{"self_test", &c.SelfTest},
		{"metrics", &c.Metrics},
		{"signals", &c.Signals},
		{"audit", &c.Audit},
		{"login", &c.Login},
		{"log", &c.Log},
	}
}

// Load reads the configuration from a file and the environment. An empty path means ./leaver.yaml, which
// may be absent.
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
	c := &Config{
		Temporal: Temporal{Namespace: "leaver", MinimumRetention: 30 * 24 * time.Hour},
		Serve:    Serve{Listen: "127.0.0.1:8080", RequestsPerSecond: 500},
		SelfTest: SelfTest{
			ReconcileEvery: time.Hour, DrillCron: "0 3 * * *", DrillTenant: "leaver-drill", DrillTimeout: time.Hour,
		},
		Log: Log{Level: "info"},
	}
	if err := c.readFile(name, raw); err != nil {
		return nil, err
	}
	if err := c.readEnvironment(string(raw), environ); err != nil {
		return nil, err
	}
	if c.Database.MigrateURL == "" {
		c.Database.MigrateURL = c.Database.URL
	}
	c.Serve.PublicURL = strings.TrimSuffix(c.Serve.PublicURL, "/")
	if c.Metrics.WorkerListen == "" {
		c.Metrics.WorkerListen = c.Metrics.Listen
	}
	return c, nil
}
