package main

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/leaverhq/leaver/internal/evidence"
)

// archivePoll is the interval at which the demonstration asks whether the history is archived.
const archivePoll = 200 * time.Millisecond

// verifyExport exports the evidence of the tenant as an auditor would, verifies it with the public keys alone, and
// verifies copies with one changed byte, which must fail.
func (d *drill) verifyExport(ctx context.Context) error {
	archived, err := d.awaitArchive(ctx)
	if err != nil {
		return err
	}
	var file bytes.Buffer
	call := func(ctx context.Context, method, path string, body, into any) error {
		return d.call(ctx, method, d.operate(path), d.operator, body, into)
	}
	if _, err := evidence.Download(ctx, call, evidence.Lines(&file)); err != nil {
		return err
	}
	keys, err := d.evidenceKeys(ctx)
	if err != nil {
		return err
	}
	report, err := evidence.Verify(bytes.NewReader(file.Bytes()), keys)
	if err != nil {
		return err
	}
	if len(report.Faults) > 0 {
		return fmt.Errorf("the exported evidence does not verify: %v", report.Faults)
	}
	const copies = 10
	for i := range copies {
		altered := slices.Clone(file.Bytes())
		at := (2*i + 1) * len(altered) / (2 * copies)
		altered[at] ^= 1
		found, err := evidence.Verify(bytes.NewReader(altered), keys)
		if err != nil {
			return err
		}
		if len(found.Faults) == 0 {
			return fmt.Errorf("a changed byte at %d of the exported evidence was not found", at)
		}
	}
	d.say("\nEvidence: an export of %d records verifies with the public key alone, and %d copies of it with one changed "+
		"byte do not.\nThe history of the cascade, %d events, is archived: it outlives Temporal's.",
		report.Entries, copies, archived.Events)
	return nil
}

// awaitArchive waits until the history of Ada's cascade is archived.
func (d *drill) awaitArchive(ctx context.Context) (evidence.Archived, error) {
	ctx, cancel := context.WithTimeout(ctx, drillTimeout)
	defer cancel()
	for {
		var page struct {
			Items []evidence.Archived `json:"items"`
		}
		path := d.operate("/cascades/" + d.cascade.ID.String() + "/histories")
		if err := d.call(ctx, http.MethodGet, path, d.operator, nil, &page); err != nil {
			return evidence.Archived{}, fmt.Errorf("wait for the archived history: %w", err)
		}
		if n := len(page.Items); n > 0 {
			return page.Items[n-1], nil
		}
		select {
		case <-ctx.Done():
			return evidence.Archived{}, fmt.Errorf("the history of the cascade was not archived within %s", drillTimeout)
		case <-time.After(archivePoll):
		}
	}
}

func (d *drill) evidenceKeys(ctx context.Context) (evidence.Keys, error) {
	var page struct {
		Items []evidence.PublicKey `json:"items"`
	}
	err := d.call(ctx, http.MethodGet, "/v1/evidence/keys", d.operator, nil, &page)
	return evidence.NewKeys(page.Items...), err
}
