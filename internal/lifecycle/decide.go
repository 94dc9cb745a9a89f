package lifecycle

import (
	"maps"
	"slices"

	"github.com/leaverhq/leaver/internal/directory"
)

// decision is what a change means.
type decision struct {
	kind     Kind // empty: no workflow
	restrict bool
	lift     bool
}

// decide reads the meaning off a resource before (nil for a new one) and after
// a change. before.Restriction is the state that decision points see so far: it, and
// not the attribute, says whether a principal has left, since `remove active`
// makes the attribute absent without bringing anyone back. [activateSQL] says the same of
// active alone.
func decide(before, after *directory.Resource, changed []string) decision {
	if after.Type == directory.TypeGroup {
		return decideGroup(before, after, changed)
	}
	restricted := before != nil && before.Restricted()
	switch {
	case before == nil && !after.IsActive():
		// Nothing was ever held under this id: there is nothing to end.
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

func decideGroup(before, after *directory.Resource, changed []string) decision {
	if before == nil && after.Members.Empty() {
		return decision{}
	}
	relevant := func(name string) bool {
		return name == directory.EdgeMembers || name == "displayName" || name == "externalId"
	}
	if before == nil || slices.ContainsFunc(changed, relevant) {
		return decision{kind: TeamSync}
	}
	return decision{}
}

// difference names the attributes in which two versions differ, sorted. A group's
// members are not among them: whether a [directory.Delta] changes any, only the
// database can tell.
func difference(before, after *directory.Resource) []string {
	changed := slices.Clone(after.Changed)
	for _, attribute := range []string{directory.EdgeOwners, directory.EdgeParent} {
		if !maps.Equal(before.Targets(attribute), after.Targets(attribute)) {
			changed = append(changed, attribute)
		}
	}
	slices.Sort(changed)
	return changed
}
