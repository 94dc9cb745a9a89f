package evidence

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/google/uuid"
)

// An export is a file of lines of canonical JSON (RFC 8785), each ended by a newline: a header, and then the entries of
// one chain with their hashes, in order, with each checkpoint after the entry that it is of. It ends with a checkpoint.
//
// Version 2 has entries with their texts apart; version 1 is its subset.
const exportVersion = 2

// Header is the first line of an export.
type Header struct {
	Version int       `json:"version"`
	Tenant  uuid.UUID `json:"tenant"`
	After   int64     `json:"after"` // the number of the entry before the first one
	Hash    Hash      `json:"hash"`  // of that entry
}

// line is a line of an export, with exactly one member.
type line struct {
	Export     *Header     `json:"export,omitempty"`
	Chained    *Chained    `json:"chained,omitempty"`
	Checkpoint *Checkpoint `json:"checkpoint,omitempty"`
}

// Export writes an export.
type Export struct {
	to   io.Writer
	next []Checkpoint
}

// NewExport begins an export with its header. checkpoints are those of the entries that follow, in order.
func NewExport(to io.Writer, header Header, checkpoints []Checkpoint) (*Export, error) {
	header.Version = exportVersion
	e := &Export{to: to, next: checkpoints}
	return e, e.write(line{Export: &header})
}

// Add writes an entry, and the checkpoint of it.
func (e *Export) Add(c Chained) error {
	if err := e.write(line{Chained: &c}); err != nil {
		return err
	}
	if len(e.next) == 0 || e.next[0].Statement.Sequence != c.Entry.Sequence {
		return nil
	}
	checkpoint := e.next[0]
	e.next = e.next[1:]
	return e.write(line{Checkpoint: &checkpoint})
}

func (e *Export) write(l line) error {
	text, err := canonical(l)
	if err != nil {
		return err
	}
	if _, err := e.to.Write(append(text, '\n')); err != nil {
		return fmt.Errorf("write the export: %w", err)
	}
	return nil
}

// parse reads a line of an export. It returns an error unless the line is as [Export] writes it, byte for byte.
func parse(text []byte) (l line, err error) {
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&l); err != nil {
		return l, errors.New("not a line of an export")
	}
	again, err := canonical(l)
	if err != nil || !bytes.Equal(append(again, '\n'), text) {
		return l, errors.New("not in the form in which it was exported")
	}
	return l, nil
}
