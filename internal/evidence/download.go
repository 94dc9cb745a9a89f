package evidence

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"slices"
	"strconv"
)

// Call sends a request to a path below the address of a chain, and decodes the response.
type Call func(ctx context.Context, method, path string, body, into any) error

// Writer writes the entries of an export.
type Writer interface{ Add(c Chained) error }

// Open begins an export with its header and the checkpoints of the entries that follow.
type Open func(h Header, checkpoints []Checkpoint) (Writer, error)

// Lines returns an [Open] for the export that [Verify] reads.
func Lines(to io.Writer) Open {
	return func(h Header, checkpoints []Checkpoint) (Writer, error) { return NewExport(to, h, checkpoints) }
}

const downloadPage = "500"

// Download records an export by the API, and then reads the chain up to and including this record. It returns the
// number of entries.
func Download(ctx context.Context, call Call, open Open) (n int, err error) {
	var last Checkpoint
	if err := call(ctx, http.MethodPost, "/evidence/exports", map[string]any{}, &last); err != nil {
		return 0, err
	}
	return download(ctx, call, open, last.Statement.Sequence)
}

// DownloadUnsigned reads the chain as it is stored, for a chain that was altered, which is never signed.
func DownloadUnsigned(ctx context.Context, call Call, open Open) (n int, err error) {
	return download(ctx, call, open, math.MaxInt64)
}

func download(ctx context.Context, call Call, open Open, end int64) (n int, err error) {
	var checkpoints []Checkpoint
	err = pages(ctx, call, "/evidence/checkpoints", func(c Checkpoint) (int64, error) {
		checkpoints = append(checkpoints, c)
		return c.Statement.Sequence, nil
	}, end)
	if err != nil {
		return 0, err
	}
	checkpoints = slices.DeleteFunc(checkpoints, func(c Checkpoint) bool { return c.Statement.Sequence > end })
	var to Writer
	erased := verifier{}
	err = pages(ctx, call, "/evidence", func(c Chained) (int64, error) {
		if c.Entry.Sequence > end {
			return end, nil
		}
		if to == nil {
			if to, err = open(Header{Tenant: c.Entry.Tenant}, checkpoints); err != nil {
				return end, err
			}
		}
		n++
		erased.noteErased(c.Entry)
		return c.Entry.Sequence, to.Add(c)
	}, end)
	if erased.explainErased(); err == nil && end != math.MaxInt64 && len(erased.report.Faults) > 0 {
		err = errors.New("texts were erased during the export, and the record that says so is not in it: export again")
	}
	return n, err
}

// pages reads a list of the API to the item with the number end, or to its end. each returns the number of an item.
func pages[T any](ctx context.Context, call Call, path string, each func(item T) (int64, error), end int64) error {
	for after := int64(0); after < end; {
		var page struct {
			Items []T `json:"items"`
		}
		query := "?limit=" + downloadPage + "&cursor=" + strconv.FormatInt(after, 10)
		if err := call(ctx, http.MethodGet, path+query, nil, &page); err != nil {
			return err
		}
		switch {
		case len(page.Items) == 0 && end == math.MaxInt64:
			return nil
		case len(page.Items) == 0:
			return fmt.Errorf("GET %s returned no items after record %d, want all up to %d", path, after, end)
		}
		for _, item := range page.Items {
			var err error
			if after, err = each(item); err != nil {
				return err
			}
		}
	}
	return nil
}
