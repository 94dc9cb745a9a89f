package database_test

import (
	"flag"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/internal/devstack/stacktest"
)

// update rewrites the dump: go test ./internal/database -run TestSchema -update
var update = flag.Bool("update", false, "rewrite schema_dump.txt")

// dumpSQL lists the objects of the migrations and of functions.sql, one per line, as PostgreSQL
// describes them. The bodies of functions are in functions.sql.
const dumpSQL = `
	with tables as (
	  select c.oid, c.relname, c.relrowsecurity from pg_class c
	   where c.relnamespace = 'public'::regnamespace and c.relkind = 'r' and c.relname <> 'goose_db_version')
	select line from (
	  select t.relname || ' 1' place, 'table ' || t.relname
	    || case when t.relrowsecurity then ', row-level security' else '' end line from tables t
	  union all
	  select t.relname || ' 2' || to_char(a.attnum, '000'), '  ' || a.attname || ' '
	    || format_type(a.atttypid, a.atttypmod)
	         || case when a.attcollation <> 0 and a.attcollation <> (select oid from pg_collation
	           where collname = 'default') then ' collate "' || (select collname from pg_collation
	           where oid = a.attcollation) || '"' else '' end
	         || case when a.attnotnull then ' not null' else '' end
	         || case when a.attidentity <> '' then ' identity' else coalesce(' default '
	           || pg_get_expr(d.adbin, d.adrelid), '') end
	    from tables t join pg_attribute a on a.attrelid = t.oid and a.attnum > 0 and not a.attisdropped
	    left join pg_attrdef d on d.adrelid = t.oid and d.adnum = a.attnum
	  union all
	  select t.relname || ' 3' || c.conname, '  ' || c.conname || ': ' || pg_get_constraintdef(c.oid)
	    from tables t join pg_constraint c on c.conrelid = t.oid and c.contype <> 'n'
	  union all
	  select t.relname || ' 4' || i.relname, '  ' || replace(pg_get_indexdef(i.oid), 'public.', '')
	    from tables t join pg_index x on x.indrelid = t.oid join pg_class i on i.oid = x.indexrelid
	   where not exists (select 1 from pg_constraint c where c.conindid = i.oid)
	  union all
	  select t.relname || ' 5' || p.polname, '  policy ' || p.polname || ' for ' || p.polcmd::text
	    || coalesce(' using ' || pg_get_expr(p.polqual, p.polrelid), '')
	         || coalesce(' with check ' || pg_get_expr(p.polwithcheck, p.polrelid), '')
	    from tables t join pg_policy p on p.polrelid = t.oid
	  union all
	  select t.relname || ' 6' || g.tgname, '  ' || replace(pg_get_triggerdef(g.oid), 'public.', '')
	    from tables t join pg_trigger g on g.tgrelid = t.oid and not g.tgisinternal
	  union all
	  select '~' || p.proname || pg_get_function_identity_arguments(p.oid), 'function ' || p.proname || '('
	    || pg_get_function_identity_arguments(p.oid) || ') returns '
	         || pg_get_function_result(p.oid) || case when p.prosecdef then ', security definer' else '' end
	    from pg_proc p where p.pronamespace = 'public'::regnamespace) lines
	 order by place collate "C"`

func TestSchema_DumpIsCurrent(t *testing.T) {
	conn := connect(t, stacktest.NewDatabase(t).OwnerURL)
	rows, err := conn.Query(t.Context(), dumpSQL)
	if err != nil {
		t.Fatal(err)
	}
	lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	dump := "-- The schema as PostgreSQL describes it; " +
		"written by `go test ./internal/database -run TestSchema -update`.\n\n" + strings.Join(lines, "\n") + "\n"
	if *update {
		if err := os.WriteFile("schema_dump.txt", []byte(dump), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	stored, err := os.ReadFile("schema_dump.txt")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(stored), dump); diff != "" {
		t.Errorf("schema_dump.txt is not current (-stored +database):\n%s", diff)
	}
}
