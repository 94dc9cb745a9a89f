package authzen

import (
	"github.com/google/uuid"

	"github.com/leaverhq/leaver/internal/database"
)

// Parties returns the statement that reads the parties of a question.
func Parties(tenant uuid.UUID, q Question) database.Statement {
	var f facts
	return f.read(tenant, q)[0]
}
