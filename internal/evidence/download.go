package evidence

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
)

// Call calls leaver's API with a path below a chain's address, and decodes the answer.
type Call func(ctx context.Context, method, path string, body, into any) error

// Writer writes the entries of an export.
type Writer interface{ Add(c Chained) error }

const downloadPage = "500"

// Download records the export of a chain, and reads the chain by the API to this record. open begins the export. It
// returns the number of entries.
func Download(
	ctx context.Context, call Call, open func(h Header, checkpoints []Checkpoint) (Writer, error),
) (n int, err error) {
	var last Checkpoint
	if err := call(ctx, http.MethodPost, "/evidence/exports", map[string]any{}, &last); err != nil {
		return 0, err
	}
	end := last.Statement.Sequence
	var checkpoints []Checkpoint
	err = pages(ctx, call, "/evidence/checkpoints", func(c Checkpoint) (int64, error) {
		checkpoints = append(checkpoints, c)
		return c.Statement.Sequence, nil
	}, end)
	if err != nil {
		return 0, err
	}
	checkpoints = slices.DeleteFunc(checkpoints, func(c Checkpoint) bool { return c.Statement.Sequence > end })
	to, err := open(Header{Tenant: last.Statement.Tenant}, checkpoints)
	if err != nil {
		return 0, err
	}
	err = pages(ctx, call, "/evidence", func(c Chained) (int64, error) {
		if c.Entry.Sequence > end {
			return end, nil
		}
		n++
		return c.Entry.Sequence, to.Add(c)
	}, end)
	return n, err
}

// pages reads a list of the API to the entry with the number end. each returns the number of an item.
func pages[T any](ctx context.Context, call Call, path string, each func(item T) (int64, error), end int64) error {
	for after := int64(0); after < end; {
		var page struct {
			Items []T `json:"items"`
		}
		query := "?limit=" + downloadPage + "&cursor=" + strconv.FormatInt(after, 10)
		if err := call(ctx, http.MethodGet, path+query, nil, &page); err != nil {
			return err
		}
		if len(page.Items) == 0 {
			return fmt.Errorf("the API returned nothing of %s after %d, want all up to %d", path, after, end)
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
