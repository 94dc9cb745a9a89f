package app

import (
	"testing"
)

func TestDeactivationOfAUserWhoHoldsNothingCompletes(t *testing.T) {
	i := install(t)
	ada := i.createUser("ada@example.com")
	i.deactivate(ada)
	if c := i.closed(ada); c.Outcome != "completed" {
		t.Fatalf("outcome %s, want completed; logs:\n%s", c.Outcome, i.logs)
	}
}
