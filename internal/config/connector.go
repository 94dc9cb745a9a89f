package config

import (
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	yaml "go.yaml.in/yaml/v3"

	"github.com/leaverhq/leaver/activities/connectors"
)

// Connector is one entry of the file's connectors, with the settings of its
// type still to be decoded.
type Connector struct {
	Name    string
	Type    string
	Rate    float64  // attempts per second over all workers; 0 means no limit
	Tenants []string // names, or "*"
	// References are patterns of the references that may be registered; empty means all.
	References []string
	// PublishTo names the connector that publishes the rotated secrets of shared accounts to their
	// remaining users; empty means this connector.
	PublishTo string
	// TrustLabels claims discovered credentials for the principal that the downstream's label names.
	TrustLabels bool

	file string
	node *yaml.Node
}

// connectorFields are the settings that all types have.
type connectorFields struct {
	Name    string   `yaml:"name"`
	Type    string   `yaml:"type"`
	Rate    float64  `yaml:"rate"`
	Tenants []string `yaml:"tenants"`

	References  []string `yaml:"references"`
	PublishTo   string   `yaml:"publish_to"`
	TrustLabels bool     `yaml:"trust_labels"`
}

// connectorName limits names because they are part of task queues and activity IDs.
var connectorName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,39}$`)

// readFile reads the sections and connectors of the file.
func (c *Config) readFile(file string, raw []byte) error {
	var root yaml.Node
	if err := yaml.Unmarshal(raw, &root); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	if root.Kind == 0 {
		return nil
	}
	document := root.Content[0]
	if document.Kind != yaml.MappingNode {
		return fmt.Errorf("%s:%d: the file must be a YAML mapping of sections", file, document.Line)
	}
	sections := c.sections()
	known := []string{"connectors", "connector_definitions"}
	for _, s := range sections {
		known = append(known, s.name)
	}
	seen := make(map[string]bool)
	for i := 0; i < len(document.Content); i += 2 {
		key, value := document.Content[i], document.Content[i+1]
		if seen[key.Value] {
			return fmt.Errorf("%s:%d: %s is given twice", file, key.Line, key.Value)
		}
		seen[key.Value] = true
		at := slices.IndexFunc(sections, func(s section) bool { return s.name == key.Value })
		var err error
		switch {
		case key.Value == "connectors":
			c.Connectors, err = parseConnectors(file, value)
		case key.Value == "connector_definitions" && value.Kind == yaml.ScalarNode:
			c.ConnectorDefinitions = value.Value
			if c.ConnectorDefinitions != "" && !filepath.IsAbs(c.ConnectorDefinitions) {
				c.ConnectorDefinitions = filepath.Join(filepath.Dir(file), c.ConnectorDefinitions)
			}
		case key.Value == "connector_definitions":
			return fmt.Errorf("%s:%d: connector_definitions must be the path of a folder", file, value.Line)
		case at < 0:
			return fmt.Errorf("%s:%d: unknown setting %q; known are %s", file, key.Line, key.Value, strings.Join(known, ", "))
		case value.Tag != "!!null":
			err = strict(file, value, sections[at].fields)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func parseConnectors(file string, list *yaml.Node) ([]Connector, error) {
	if list.Kind != yaml.SequenceNode && list.Tag != "!!null" {
		return nil, fmt.Errorf("%s:%d: connectors must be a list", file, list.Line)
	}
	var all []Connector
	for _, node := range list.Content {
		if node.Kind == yaml.AliasNode {
			node = node.Alias
		}
		c, err := parseConnector(file, node)
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(all, func(o Connector) bool { return o.Name == c.Name }) {
			return nil, c.Errorf("the name %s is given twice", c.Name)
		}
		all = append(all, c)
	}
	return all, nil
}

func parseConnector(file string, node *yaml.Node) (Connector, error) {
	var f connectorFields
	if err := node.Decode(&f); err != nil {
		return Connector{}, fmt.Errorf("%s:%d: %w", file, node.Line, err)
	}
	c := Connector{
		Name: f.Name, Type: f.Type, Rate: f.Rate, Tenants: f.Tenants,
		References: f.References, PublishTo: f.PublishTo, TrustLabels: f.TrustLabels, file: file, node: node,
	}
	switch {
	case !connectorName.MatchString(f.Name):
		return c, c.Errorf(
			"a connector name must be 1 to 40 characters of a-z, 0-9 and '-', starting with a letter or digit, got %q", f.Name)
	case f.Type == "":
		return c, c.Errorf("connector %s: type is required", f.Name)
	case f.Rate < 0:
		return c, c.Errorf("connector %s: rate must not be negative, got %v", f.Name, f.Rate)
	case len(f.Tenants) == 0:
		return c, c.Errorf(`connector %s names no tenants: list those whose credentials live there, or ["*"]`, f.Name)
	}
	return c, nil
}

// Errorf returns an error that names the connector's line.
func (c Connector) Errorf(format string, args ...any) error {
	return fmt.Errorf("%s:%d: %w", c.file, c.node.Line, fmt.Errorf(format, args...))
}

// Decode decodes the settings of the connector's type into a struct with yaml tags. A setting that the
// struct does not have is an error with its line.
func (c Connector) Decode(into any) error {
	return strict(c.file, c.node, into, connectors.CommonSettings()...)
}

// Settings returns the settings of a type whose names are known only when the file is read. A setting that is not
// among them, or that is not a text, a number or a boolean, is an error with its line.
func (c Connector) Settings(names []string) (map[string]string, error) {
	known := append(connectors.CommonSettings(), names...)
	settings := make(map[string]string)
	for i := 0; i < len(c.node.Content); i += 2 {
		key, value := c.node.Content[i], c.node.Content[i+1]
		_, twice := settings[key.Value]
		switch {
		case twice:
			return nil, fmt.Errorf("%s:%d: %s is given twice", c.file, key.Line, key.Value)
		case !slices.Contains(known, key.Value):
			return nil, fmt.Errorf("%s:%d: unknown setting %q; known are %s",
				c.file, key.Line, key.Value, strings.Join(known, ", "))
		case !slices.Contains(names, key.Value):
			continue
		case value.Kind != yaml.ScalarNode:
			return nil, fmt.Errorf("%s:%d: %s must be a text", c.file, key.Line, key.Value)
		}
		settings[key.Value] = value.Value
	}
	return settings, nil
}

// strict decodes a mapping. Keys that are neither in the struct nor in also are errors.
func strict(file string, node *yaml.Node, into any, also ...string) error {
	if node.Kind != yaml.MappingNode {
		return fmt.Errorf("%s:%d: must be a YAML mapping", file, node.Line)
	}
	fields, names := fieldsOf(into)
	seen := make(map[string]bool)
	for i := 0; i < len(node.Content); i += 2 {
		key, value := node.Content[i], node.Content[i+1]
		field, known := fields[key.Value]
		switch {
		case seen[key.Value]:
			return fmt.Errorf("%s:%d: %s is given twice", file, key.Line, key.Value)
		case !known && !slices.Contains(also, key.Value):
			valid := strings.Join(append(also, names...), ", ")
			return fmt.Errorf("%s:%d: unknown setting %q; known are %s", file, key.Line, key.Value, valid)
		case !known || value.Tag == "!!null":
			continue
		}
		seen[key.Value] = true
		if err := decode(value, field); err != nil {
			return fmt.Errorf("%s:%d: %s %w", file, key.Line, key.Value, err)
		}
	}
	return nil
}
