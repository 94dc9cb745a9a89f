package evidence

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/internal/database"
	"github.com/leaverhq/leaver/internal/fault"
)

const (
	archivePoll  = 5 * time.Second
	archiveBatch = 50
	// MaxArchiveLag is the minimum retention of the Temporal namespace, so that histories are archived before Temporal
	// deletes them.
	MaxArchiveLag = time.Hour
)

// Run is a run of a cascade's workflow.
type Run struct {
	ID string
	// History is the workflow history as JSON (the JSON mapping of temporal.api.history.v1.History); nil if Temporal
	// has deleted it.
	History []byte
	Events  int
}

// ErrRunning is returned for a workflow that has not closed yet.
var ErrRunning = errors.New("the workflow is still running")

// Histories reads workflow histories from Temporal.
type Histories interface {
	// Runs calls each with the runs of a workflow that leaver started for the event, oldest first, and with the run with
	// the ID. Error: [ErrRunning].
	Runs(ctx context.Context, event uuid.UUID, workflowID, runID string, each func(r Run) error) error
}

// Archive stores the histories of closed cascades before Temporal deletes them.
type Archive struct {
	db   *database.DB
	from Histories
}

// NewArchive returns the archive on db of histories from Temporal.
func NewArchive(db *database.DB, from Histories) *Archive { return &Archive{db, from} }

// Run archives the histories of closed cascades until ctx is done. Several processes may run it.
func (a *Archive) Run(ctx context.Context, log *slog.Logger) {
	for ctx.Err() == nil {
		n, err := a.StoreClosed(ctx)
		if err != nil && ctx.Err() == nil {
			log.Warn("failed to archive workflow histories; retrying", "error", err)
		}
		if n == archiveBatch {
			continue
		}
		select {
		case <-ctx.Done():
		case <-time.After(archivePoll):
		}
	}
}

// closed is a closed cascade whose history is not archived.
type closed struct {
	tenant, event     uuid.UUID
	workflowID, runID string
}

// StoreClosed archives a batch of closed cascades, and returns the number of those that it tried. One that fails is
// tried again after a minute.
func (a *Archive) StoreClosed(ctx context.Context) (int, error) {
	due, err := database.Rows(ctx, a.db, uuid.Nil, func(row pgx.CollectableRow) (c closed, err error) {
		return c, row.Scan(&c.tenant, &c.event, &c.workflowID, &c.runID)
	}, `select tenant_id, event_id, workflow_id, run_id from unarchived_cascades($1)`, archiveBatch)
	if err != nil {
		return 0, fmt.Errorf("list cascades to archive: %w", err)
	}
	var failed error
	for _, c := range due {
		err := a.from.Runs(ctx, c.event, c.workflowID, c.runID, func(r Run) error { return a.store(ctx, c, r) })
		if errors.Is(err, ErrRunning) {
			continue // the workflow has stored its end, and completes now
		}
		if err == nil {
			err = a.finish(ctx, c)
		}
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("archive %s: %w", c.workflowID, err))
		}
	}
	return len(due), failed
}

// store stores a run of a cascade unless it is stored already.
func (a *Archive) store(ctx context.Context, c closed, r Run) error {
	var compressed []byte
	digest := ""
	if r.History != nil {
		digest = digestOf(r.History)
		var err error
		if compressed, err = compress(r.History); err != nil {
			return err
		}
	}
	err := database.Exec(ctx, a.db, c.tenant, `
		insert into cascade_histories (tenant_id, event_id, cascade, workflow_id, run_id, events, sha256, history)
		select $1, $2, to_jsonb(e) - array['tenant_id', 'archived_at', 'archive_due_at', 'due_at', 'attempts', 'last_error'],
		       $3, $4, $5, $6, $7
		  from lifecycle_events e where e.tenant_id = $1 and e.id = $2
		on conflict (tenant_id, event_id, run_id) do nothing`,
		c.tenant, c.event, c.workflowID, r.ID, r.Events, digest, compressed)
	if err != nil {
		return fmt.Errorf("store run %s: %w", r.ID, err)
	}
	return nil
}

// finish stores that the runs of a cascade are archived, unless it runs again.
func (a *Archive) finish(ctx context.Context, c closed) error {
	return database.Exec(ctx, a.db, c.tenant, `
		update lifecycle_events set archived_at = now(), archive_due_at = null
		 where tenant_id = $1 and id = $2 and closed_at is not null and run_id is not distinct from nullif($3, '')`,
		c.tenant, c.event, c.runID)
}

func digestOf(history []byte) string {
	sum := sha256.Sum256(history)
	return hex.EncodeToString(sum[:])
}

func compress(text []byte) ([]byte, error) {
	var to bytes.Buffer
	w := gzip.NewWriter(&to)
	_, err := w.Write(text)
	if err = errors.Join(err, w.Close()); err != nil {
		return nil, fmt.Errorf("compress the history: %w", err)
	}
	return to.Bytes(), nil
}

// Archived is an archived run.
type Archived struct {
	RunID      string    `json:"runId"`
	Events     int       `json:"events"`
	SHA256     string    `json:"sha256"` // of the history; empty if Temporal had deleted it
	ArchivedAt time.Time `json:"archivedAt"`
}

// Of returns the archived runs of a cascade, oldest first.
func (a *Archive) Of(ctx context.Context, tenant, event uuid.UUID) ([]Archived, error) {
	runs, err := database.Rows(ctx, a.db, tenant, pgx.RowToStructByPos[Archived], `
		select run_id, events, sha256, archived_at from cascade_histories
		 where tenant_id = $1 and event_id = $2 order by id`, tenant, event)
	if err != nil {
		return nil, fmt.Errorf("list the archived runs of %s: %w", event, err)
	}
	return runs, nil
}

// maxHistory is the maximum size of a history, in bytes: Temporal ends a workflow whose history exceeds 50 MiB, and
// JSON is larger.
const maxHistory = 256 << 20

// ErrHistoryAltered is returned for an archived history that does not have the SHA-256 that is stored with it.
var ErrHistoryAltered = fault.New(fault.Conflict,
	"the archived history was altered: compare it with the sha256 of its record in the exported evidence")

// History returns the archived history of a run as JSON, or nil if there is none. Error: [ErrHistoryAltered].
func (a *Archive) History(ctx context.Context, tenant, event uuid.UUID, runID string) ([]byte, error) {
	var stored []byte
	var digest string
	err := database.Together(ctx, a.db, tenant, database.Statement{
		SQL: `
		select history, sha256 from cascade_histories where tenant_id = $1 and event_id = $2 and run_id = $3`,
		Args: []any{tenant, event, runID}, Collect: database.Fields(&stored, &digest),
	})
	if errors.Is(err, pgx.ErrNoRows) || err == nil && stored == nil {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the archived history of run %s: %w", runID, err)
	}
	text, err := decompress(stored)
	if err == nil && digestOf(text) != digest {
		err = ErrHistoryAltered
	}
	if err != nil {
		return nil, fmt.Errorf("history of run %s: %w", runID, err)
	}
	return text, nil
}

func decompress(stored []byte) ([]byte, error) {
	r, err := gzip.NewReader(bytes.NewReader(stored))
	if err != nil {
		return nil, fmt.Errorf("decompress: %w", err)
	}
	text, err := io.ReadAll(io.LimitReader(r, maxHistory+1))
	if err != nil {
		return nil, fmt.Errorf("decompress: %w", err)
	}
	if len(text) > maxHistory {
		return nil, fmt.Errorf("more than %d bytes", maxHistory)
	}
	return text, nil
}
