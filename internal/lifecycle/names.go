package lifecycle

import (
	_ "embed"
	"slices"

	"github.com/leaverhq/leaver/internal/directory"
)

//go:embed names.sql
var namesSQL string

// setNames queues the names of a principal, if the change may alter them. A deletion ends them.
func (tx *Tx) setNames(c *change, created bool) {
	switch {
	case c.after.Type == directory.TypeGroup:
	case c.removes:
		tx.add(namesSQL, tx.tenant, c.after.ID, []string{}, []string{}, []string{}, []string{})
	case created || slices.ContainsFunc(c.changed, directory.IsNameAttribute):
		kinds, issuers, values, originals := directory.NameColumns(c.after.AllNames())
		tx.add(namesSQL, tx.tenant, c.after.ID, kinds, issuers, values, originals)
	}
}
