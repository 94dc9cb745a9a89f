package config

import (
	"fmt"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"

	yaml "go.yaml.in/yaml/v3"

	"github.com/leaverhq/leaver/internal/seal"
)

// Connector is one entry of the file's connectors, with the settings of its
// type still to be decoded.
type Connector struct {
	Name    string
	Type    string
	Rate    float64  // attempts a second over all workers; 0 is none
	Tenants []string // names, or "*"
	// References are patterns of what at the downstream is the agents'; empty is all.
	References []string
	// PublishTo names the connector that hands new secrets of shared accounts to
	// those who go on; empty is the connector itself.
	PublishTo string
	// TrustLabels binds what discovery finds to whom the downstream's label names.
	TrustLabels bool

	file string
	node *yaml.Node
}

// connectorFields are what every type has.
type connectorFields struct {
	Name    string   `yaml:"name"`
	Type    string   `yaml:"type"`
	Rate    float64  `yaml:"rate"`
	Tenants []string `yaml:"tenants"`

	References  []string `yaml:"references"`
	PublishTo   string   `yaml:"publish_to"`
	TrustLabels bool     `yaml:"trust_labels"`
}

// A name becomes part of task queues and activity IDs.
var connectorName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,39}$`)

// document lists the file's sections; anything else is a mistake worth a line number.
type document struct {
	Database   map[string]any `yaml:"database"`
	Temporal   map[string]any `yaml:"temporal"`
	Seal       map[string]any `yaml:"seal"`
	Serve      map[string]any `yaml:"serve"`
	Codec      map[string]any `yaml:"codec"`
	Policy     map[string]any `yaml:"policy"`
	Assurance  map[string]any `yaml:"assurance"`
	Metrics    map[string]any `yaml:"metrics"`
	Signals    map[string]any `yaml:"signals"`
	Connectors []yaml.Node    `yaml:"connectors"`
}

func parseDocument(file string, raw []byte) ([]Connector, error) {
	var root yaml.Node
	if err := yaml.Unmarshal(raw, &root); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	if root.Kind == 0 {
		return nil, nil
	}
	var doc document
	if err := strict(file, root.Content[0], &doc); err != nil {
		return nil, err
	}
	var connectors []Connector
	for i := range doc.Connectors {
		c, err := parseConnector(file, &doc.Connectors[i])
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(connectors, func(o Connector) bool { return o.Name == c.Name }) {
			return nil, c.Errorf("the name %s is given twice", c.Name)
		}
		connectors = append(connectors, c)
	}
	return connectors, nil
}

func parseConnector(file string, node *yaml.Node) (Connector, error) {
	var f connectorFields
	if err := node.Decode(&f); err != nil {
		return Connector{}, fmt.Errorf("%s:%d: %w", file, node.Line, err)
	}
	c := Connector{Name: f.Name, Type: f.Type, Rate: f.Rate, Tenants: f.Tenants, References: f.References, PublishTo: f.PublishTo, TrustLabels: f.TrustLabels, file: file, node: node}
	switch {
	case !connectorName.MatchString(f.Name):
		return c, c.Errorf("a connector's name is 1 to 40 of a-z, 0-9 and '-', not %q", f.Name)
	case f.Type == "":
		return c, c.Errorf("connector %s has no type", f.Name)
	case f.Rate < 0:
		return c, c.Errorf("connector %s: the rate is negative", f.Name)
	case len(f.Tenants) == 0:
		return c, c.Errorf(`connector %s names no tenants: list those whose credentials live there, or ["*"]`, f.Name)
	}
	return c, nil
}

// Errorf returns an error that names the connector's line.
func (c Connector) Errorf(format string, args ...any) error {
	return fmt.Errorf("%s:%d: %w", c.file, c.node.Line, fmt.Errorf(format, args...))
}

// Decode reads the settings of the connector's type into a struct with yaml
// tags. A setting that the struct lacks is an error with its line.
func (c Connector) Decode(into any) error {
	return strict(c.file, c.node, into, "name", "type", "rate", "tenants", "references", "publish_to", "trust_labels")
}

// strict decodes a mapping and refuses keys that neither the struct nor also knows.
func strict(file string, node *yaml.Node, into any, also ...string) error {
	if node.Kind != yaml.MappingNode {
		return fmt.Errorf("%s:%d: want a mapping", file, node.Line)
	}
	known := also
	t := reflect.TypeOf(into).Elem()
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("yaml"), ",")
		known = append(known, name)
	}
	for i := 0; i < len(node.Content); i += 2 {
		if key := node.Content[i]; !slices.Contains(known, key.Value) {
			return fmt.Errorf("%s:%d: unknown setting %q; known are %s", file, key.Line, key.Value, strings.Join(known, ", "))
		}
	}
	if err := node.Decode(into); err != nil {
		return fmt.Errorf("%s:%d: %w", file, node.Line, err)
	}
	return nil
}

// SecretRef names where a secret is: env:NAME or file:PATH. The secret itself
// never stands in the configuration.
type SecretRef string

// Resolve reads the secret. The error names the reference, never the secret.
func (r SecretRef) Resolve() (seal.Secret, error) {
	switch {
	case r == "":
		return "", nil
	case strings.HasPrefix(string(r), "env:"):
		name := strings.TrimPrefix(string(r), "env:")
		value, ok := os.LookupEnv(name)
		if !ok || value == "" {
			return "", fmt.Errorf("the variable %s is not set", name)
		}
		return seal.Secret(value), nil
	case strings.HasPrefix(string(r), "file:"):
		raw, err := os.ReadFile(strings.TrimPrefix(string(r), "file:"))
		if err != nil {
			return "", fmt.Errorf("read the secret: %w", err)
		}
		return seal.Secret(strings.TrimRight(string(raw), "\r\n")), nil
	}
	return "", fmt.Errorf("a secret is given by reference, env:NAME or file:PATH")
}
