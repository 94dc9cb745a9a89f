package config

import (
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	yaml "go.yaml.in/yaml/v3"
)

// decode sets a field to a value of the file.
func decode(value *yaml.Node, into reflect.Value) error {
	if value.Kind == yaml.AliasNode {
		value = value.Alias
	}
	switch into.Interface().(type) {
	case time.Duration, int, bool, []string:
		if value.Kind == yaml.ScalarNode {
			return set(value.Value, into)
		}
	}
	if err := value.Decode(into.Addr().Interface()); err != nil {
		return fmt.Errorf("must be %s, got %q", kind(into), value.Value)
	}
	return nil
}

// set sets a field from the text of a variable, or of a duration in a file.
func set(text string, into reflect.Value) error {
	if _, isText := into.Interface().(string); text == "" && !isText {
		return nil // an empty variable sets nothing
	}
	switch field := into.Addr().Interface().(type) {
	case *string:
		*field = text
	case *[]string:
		*field = strings.Split(text, ",")
	case *int:
		n, err := strconv.Atoi(text)
		if err != nil {
			return fmt.Errorf("must be %s, got %q", kind(into), text)
		}
		*field = n
	case *bool:
		b, err := strconv.ParseBool(text)
		if err != nil {
			return fmt.Errorf("must be %s, got %q", kind(into), text)
		}
		*field = b
	case *time.Duration:
		d, err := parseDuration(text)
		if err != nil || d < 0 {
			return fmt.Errorf("must be a duration with a unit, such as 90s, 15m or 24h, got %q", text)
		}
		*field = d
	default:
		return fmt.Errorf("cannot be set by a variable: set it in the file")
	}
	return nil
}

// parseDuration reads a duration as Go writes it, or a number of days such as 30d.
func parseDuration(text string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(text, "d"); ok {
		n, err := strconv.Atoi(days)
		return time.Duration(n) * 24 * time.Hour, err
	}
	return time.ParseDuration(text)
}

// kind describes a field's type for an error.
func kind(field reflect.Value) string {
	switch field.Kind() {
	case reflect.Int:
		return "a whole number"
	case reflect.Int64:
		return "a duration with a unit, such as 90s, 15m or 24h"
	case reflect.Float64:
		return "a number"
	case reflect.Bool:
		return "true or false"
	case reflect.Slice:
		return "a list"
	default:
		return "a string"
	}
}

// fieldsOf returns the fields of a struct by the names of their yaml tags, and the names in
// order.
func fieldsOf(pointer any) (fields map[string]reflect.Value, names []string) {
	v := reflect.ValueOf(pointer).Elem()
	fields = make(map[string]reflect.Value, v.NumField())
	for i := range v.NumField() {
		if name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("yaml"), ","); name != "" {
			fields[name], names = v.Field(i), append(names, name)
		}
	}
	return fields, names
}

const envPrefix = "LEAVER_"

// Variables that are not settings and that other parts of leaver read.
var (
	otherVariables = []string{
		"LEAVER_TOKEN", "LEAVER_URL", "LEAVER_SCIM_TOKEN", "LEAVER_CROWD",
		"LEAVER_CA_FILE", "LEAVER_CERT_FILE", "LEAVER_KEY_FILE",
	}
	otherPrefixes = []string{"LEAVER_DEV_", "LEAVER_STACKTEST_", "LEAVER_BENCH_"}
)

// readEnvironment sets settings from variables such as LEAVER_SEAL_KEYSET_FILE. It adds a warning for
// each unknown variable to which the file does not refer.
func (c *Config) readEnvironment(file string, environ []string) error {
	settings := make(map[string]reflect.Value)
	for _, s := range c.sections() {
		fields, names := fieldsOf(s.fields)
		for _, name := range names {
			settings[envPrefix+strings.ToUpper(s.name+"_"+name)] = fields[name]
		}
	}
	for _, variable := range environ {
		name, value, _ := strings.Cut(variable, "=")
		if !strings.HasPrefix(name, envPrefix) || slices.Contains(otherVariables, name) ||
			strings.Contains(file, "env:"+name) ||
			slices.ContainsFunc(otherPrefixes, func(p string) bool { return strings.HasPrefix(name, p) }) {
			continue
		}
		field, known := settings[name]
		if !known {
			c.Warnings = append(c.Warnings, fmt.Sprintf("unknown variable %s%s", name, nearest(name, settings)))
			continue
		}
		if err := set(value, field); err != nil {
			return fmt.Errorf("the variable %s %w", name, err)
		}
	}
	return nil
}

// nearest returns a suggestion: the variable of the same section with the longest common prefix.
func nearest(name string, settings map[string]reflect.Value) string {
	best, shared := "", 0
	for candidate := range settings {
		n := 0
		for n < len(name) && n < len(candidate) && name[n] == candidate[n] {
			n++
		}
		if n > shared || (n == shared && candidate < best) {
			best, shared = candidate, n
		}
	}
	if shared <= len(envPrefix)+3 {
		return ""
	}
	return "; did you mean " + best + "?"
}
