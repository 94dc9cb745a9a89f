package conformance

import (
	"encoding/json"
	"fmt"
)

// Absent is the wanted value of a member that must be absent.
const Absent = "<absent>"

// Contains returns an error that names where got differs from want. Objects may have more
// members than wanted, lists may not have more elements, and [Absent] members must be absent.
func Contains(got, want any) error { return contains(want, got, "") }

// ContainsJSON is [Contains] with want as JSON.
func ContainsJSON(got any, want string) error {
	var wanted any
	if err := json.Unmarshal([]byte(want), &wanted); err != nil {
		return fmt.Errorf("parse the wanted JSON %s: %w", want, err)
	}
	return Contains(got, wanted)
}

func contains(want, got any, path string) error {
	switch want := want.(type) {
	case map[string]any:
		object, ok := got.(map[string]any)
		if !ok {
			return fmt.Errorf("%s: want an object, got %v", path, got)
		}
		for name, value := range want {
			have, there := object[name]
			switch {
			case value == Absent && there:
				return fmt.Errorf("%s.%s: want it absent, got %v", path, name, have)
			case value == Absent:
				continue
			case !there:
				return fmt.Errorf("%s.%s is missing", path, name)
			}
			if err := contains(value, have, path+"."+name); err != nil {
				return err
			}
		}
		return nil
	case []any:
		list, ok := got.([]any)
		if !ok || len(list) != len(want) {
			return fmt.Errorf("%s: want %v, got %v", path, want, got)
		}
		for i := range want {
			if err := contains(want[i], list[i], fmt.Sprintf("%s[%d]", path, i)); err != nil {
				return err
			}
		}
		return nil
	}
	if want != got {
		return fmt.Errorf("%s: want %v, got %v", path, want, got)
	}
	return nil
}
