package directory

import (
	"context"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/internal/database"
	"github.com/leaverhq/leaver/scim/filter"
)

// MatchMembers returns the members of a group, and the resources that are about to be added
// to it, that meet a condition. The condition's fields are those of the edge: value, type and
// display.
func MatchMembers(ctx context.Context, on database.Batcher, tenant, group uuid.UUID, added []uuid.UUID,
	where filter.Condition,
) ([]uuid.UUID, error) {
	if added == nil {
		added = []uuid.UUID{}
	}
	b := builder{args: []any{tenant, group, added}}
	test, err := b.compile(where, edgeScope)
	if err != nil {
		return nil, err
	}
	var ids []uuid.UUID
	err = database.Send(ctx, on, database.Statement{
		SQL: `
		select t.id from resources t
		 where t.tenant_id = $1 and t.deleted_at is null and (` + test + `)
		   and (t.id = any ($3::uuid[]) or t.id in (
		        select e.target_id from edges e where e.tenant_id = $1 and e.source_id = $2 and e.attribute = 'members'))`,
		Args: b.args, Collect: database.All(&ids, pgx.RowTo[uuid.UUID]),
	})
	if err != nil {
		return nil, fmt.Errorf("match members: %w", err)
	}
	return ids, nil
}
