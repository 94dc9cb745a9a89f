package conformance

import (
	"encoding/json"
	"fmt"
)

// Absent stands, as a wanted value, for a member that must not be there.
const Absent = "<absent>"

// Contains tells where got differs from the wanted JSON: objects may hold more,
// lists may not, and what is [Absent] must not be there.
func Contains(got, want any) error { return contains(want, got, "") }

// ContainsJSON is [Contains] for what is written as JSON.
func ContainsJSON(got any, want string) error {
	var wanted any
	if err := json.Unmarshal([]byte(want), &wanted); err != nil {
		return fmt.Errorf("the wanted JSON %s: %w", want, err)
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
