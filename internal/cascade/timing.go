package cascade

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/internal/database"
)

// DefaultTarget is the time within which a leaver's last credential should be proven dead.
const DefaultTarget = 5 * time.Minute

// DefaultSince is how far back the time to zero goes by default: 13 weeks.
const DefaultSince = 13 * 7 * 24 * time.Hour

// Times are the times from the commit of leavers' deactivations to the last verified death, in seconds.
type Times struct {
	Leavers int     `json:"leavers"` // whose cascade verified a death
	Within  int     `json:"withinTarget"`
	Median  float64 `json:"p50Seconds"`
	P95     float64 `json:"p95Seconds"`
	Worst   float64 `json:"worstSeconds"`
}

// Timing is the time to zero of a tenant's leavers.
type Timing struct {
	Target int `json:"targetSeconds"`
	Times
	// Unfinished are the leavers whose cascade is open or ended with an unrevoked credential, which Times leaves out.
	Unfinished int `json:"unfinished"`
	// Connectors has the times to the last verified death at each connector, Weeks those of the leavers of each week.
	Connectors []ConnectorTimes `json:"connectors"`
	Weeks      []WeekTimes      `json:"weeks"`
}

// ConnectorTimes are the times of one connector.
type ConnectorTimes struct {
	Connector string `json:"connector"`
	Times
}

// WeekTimes are the times of the leavers of one week.
type WeekTimes struct {
	Week time.Time `json:"week"` // its Monday, UTC
	Times
}

// deathsSQL selects the last verified death of each leaver at each connector. It relies on the index evidence_event.
const deathsSQL = `
	with leavers as (
	  select e.id, e.created_at, coalesce(e.outcome, '') <> 'completed' unfinished from lifecycle_events e
	   where e.tenant_id = $1 and e.kind = 'leaver' and e.created_at >= $2),
	deaths as (
	  select l.id, l.created_at, c.connector, extract(epoch from max(v.at) - l.created_at)::float8 seconds
	    from leavers l join evidence v on v.tenant_id = $1 and v.event_id = l.id
	     and v.step = 'probe-after' and v.outcome = 'dead'
	    join credentials c on c.tenant_id = $1 and c.id = v.item_id
	   where not l.unfinished group by 1, 2, 3),
	zeros as (select id, created_at, max(seconds) seconds from deaths group by 1, 2)`

// timesSQL are the columns of [Times] over the rows of deaths or zeros.
const timesSQL = `count(*), count(*) filter (where seconds <= $3),
	coalesce(percentile_disc(0.5) within group (order by seconds), 0),
	coalesce(percentile_disc(0.95) within group (order by seconds), 0), coalesce(max(seconds), 0)`

// Timing returns the time to zero of the leavers since a time.
func (c *Store) Timing(ctx context.Context, tenant uuid.UUID, since time.Time, target time.Duration) (Timing, error) {
	type group struct { // of all leavers, of a connector, or of a week
		Connector  *string
		Week       *time.Time
		Unfinished int
		Times
	}
	t := Timing{Target: int(target.Seconds()), Connectors: []ConnectorTimes{}, Weeks: []WeekTimes{}}
	groups, err := database.Rows(ctx, c.db, tenant, pgx.RowToStructByPos[group], deathsSQL+`
		select null::text, null::timestamptz, (select count(*) from leavers where unfinished), `+timesSQL+` from zeros
		union all select connector, null, 0, `+timesSQL+` from deaths group by 1
		union all select null, date_trunc('week', created_at at time zone 'UTC') at time zone 'UTC', 0, `+timesSQL+`
		  from zeros group by 2
		order by 1, 2`, tenant, since, target.Seconds())
	if err != nil {
		return t, fmt.Errorf("read the time to zero: %w", err)
	}
	for _, g := range groups {
		switch {
		case g.Connector != nil:
			t.Connectors = append(t.Connectors, ConnectorTimes{*g.Connector, g.Times})
		case g.Week != nil:
			t.Weeks = append(t.Weeks, WeekTimes{*g.Week, g.Times})
		default:
			t.Unfinished, t.Times = g.Unfinished, g.Times
		}
	}
	return t, nil
}
