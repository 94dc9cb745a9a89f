package main

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/leaverhq/leaver/internal/evidence"
)

// csvColumns are the members of records with a column of their own. A record lacks some of them.
func csvColumns() []string {
	return []string{
		"at", "event_id", "item_id", "step", "state", "outcome", "detail", "reason", "actor", "verb", "object", "version",
	}
}

// csvWriter writes entries as rows, for spreadsheets.
type csvWriter struct {
	w      *csv.Writer
	header bool
}

func newCSV(to io.Writer) *csvWriter { return &csvWriter{w: csv.NewWriter(to)} }

// Add implements evidence.Writer.
func (c *csvWriter) Add(x evidence.Chained) error {
	if !c.header {
		c.header = true
		if err := c.row(append([]string{"sequence", "source", "hash"}, append(csvColumns(), "record")...)); err != nil {
			return err
		}
	}
	var record map[string]any
	whole, err := x.Entry.Whole()
	if err != nil {
		return err
	}
	if err := json.Unmarshal(whole, &record); err != nil {
		return fmt.Errorf("decode record %d: %w", x.Entry.Sequence, err)
	}
	row := []string{strconv.FormatInt(x.Entry.Sequence, 10), x.Entry.Source, x.Hash.String()}
	for _, name := range csvColumns() {
		text := ""
		if value := record[name]; value != nil {
			text = fmt.Sprint(value)
		}
		row = append(row, text)
	}
	return c.row(append(row, string(whole)))
}

func (c *csvWriter) row(cells []string) error {
	for i, cell := range cells {
		if cell != "" && strings.ContainsRune("=+-@\t\r", rune(cell[0])) {
			cells[i] = "'" + cell // a spreadsheet would evaluate it
		}
	}
	if err := c.w.Write(cells); err != nil {
		return fmt.Errorf("write the export: %w", err)
	}
	c.w.Flush()
	return c.w.Error()
}
