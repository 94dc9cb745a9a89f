package lifecycle

import (
	"maps"
	"slices"

	"github.com/leaverhq/leaver/internal/directory"
)

// decision is the outcome of a change: its event and its restriction.
type decision struct {
	kind     Kind // empty: no workflow
	restrict bool
	lift     bool
}

// decide returns the event and the restriction of a change. before is nil for a creation,
// after for a deletion. before.Restriction, not the attribute active, decides whether the
// principal has left: removing active does not lift a restriction. An inactive principal
// without a restriction becomes a leaver.
func decide(before, after *directory.Resource, changed []string) decision {
	switch {
	case after == nil && before.Type == directory.TypeGroup:
		return decision{kind: TeamSync}
	case after == nil:
		// Also if it was inactive: credentials registered since must end.
		return decision{kind: Leaver, restrict: true}
	case after.Type == directory.TypeGroup:
		return decideGroup(before, changed)
	}
	restricted := before != nil && before.Restricted()
	switch {
	case before == nil && !after.IsActive():
		// A new principal holds no credentials: there is nothing to end.
		return decision{restrict: true}
	case before == nil:
		return decision{kind: Joiner}
	case !after.IsActive() && !restricted:
		return decision{kind: Leaver, restrict: true}
	case after.Active != nil && *after.Active && restricted:
		return decision{kind: Joiner, lift: true}
	case len(changed) > 0 && !restricted:
		return decision{kind: Mover}
	}
	return decision{}
}

func decideGroup(before *directory.Resource, changed []string) decision {
	relevant := func(name string) bool {
		return name == directory.EdgeMembers || (before != nil && (name == "displayName" || name == "externalId"))
	}
	if slices.ContainsFunc(changed, relevant) {
		return decision{kind: TeamSync}
	}
	return decision{}
}

// difference returns the sorted names of the attributes in which two versions differ.
// before is nil for a new resource, for which only the members are reported.
func difference(before, after *directory.Resource, members bool) []string {
	changed := []string{}
	if before != nil {
		changed = append(changed, after.Changed...)
		for _, attribute := range []string{directory.EdgeOwners, directory.EdgeParent} {
			if !maps.Equal(before.Targets(attribute), after.Targets(attribute)) {
				changed = append(changed, attribute)
			}
		}
		slices.Sort(changed)
	}
	if members {
		changed = append(changed, directory.EdgeMembers)
	}
	return changed
}
