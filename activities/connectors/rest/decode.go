package rest

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	yaml "go.yaml.in/yaml/v3"
)

// fields are the members of a mapping, each with the function that decodes it.
type fields map[string]func(*yaml.Node) error

// decodeFields decodes a mapping. An unknown member is an error with its place.
func decodeFields(n *yaml.Node, known fields) error {
	return eachMember(n, func(key, value *yaml.Node) error {
		decode, ok := known[key.Value]
		if !ok {
			return at(key, "unknown member %q; known are %s", key.Value, strings.Join(slices.Sorted(maps.Keys(known)), ", "))
		}
		return decode(value)
	})
}

// eachMember calls decode with the members of a mapping, in order. A repeated member and an alias are errors.
func eachMember(n *yaml.Node, decode func(key, value *yaml.Node) error) error {
	if n.Kind != yaml.MappingNode {
		return at(n, "must be a mapping")
	}
	seen := make(map[string]bool)
	for i := 0; i < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		switch {
		case seen[key.Value]:
			return at(key, "%s is given twice", key.Value)
		case value.Kind == yaml.AliasNode:
			return at(value, "aliases are not supported")
		}
		seen[key.Value] = true
		if err := decode(key, value); err != nil {
			return err
		}
	}
	return nil
}

// each calls decode with the elements of a list.
func each(n *yaml.Node, decode func(*yaml.Node) error) error {
	if n.Kind != yaml.SequenceNode {
		return at(n, "must be a list")
	}
	for _, element := range n.Content {
		if err := decode(element); err != nil {
			return err
		}
	}
	return nil
}

// scalar decodes a text.
func scalar(into *string) func(*yaml.Node) error {
	return func(n *yaml.Node) error {
		if n.Kind != yaml.ScalarNode || n.Tag == "!!null" {
			return at(n, "must be a text")
		}
		*into = n.Value
		return nil
	}
}

// boolean decodes true or false.
func boolean(into *bool) func(*yaml.Node) error {
	return func(n *yaml.Node) (err error) {
		if *into, err = strconv.ParseBool(n.Value); err != nil || n.Kind != yaml.ScalarNode {
			return at(n, "must be true or false")
		}
		return nil
	}
}
