package siem

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
)

// file appends events to a file, one JSON object a line. It opens the file for each batch, so that the file can be
// rotated.
type file struct{ path string }

// Send implements Sink. The events are on disk when it returns.
func (f *file) Send(_ context.Context, events []Event) error {
	text, err := lines(events)
	if err != nil {
		return err
	}
	to, err := os.OpenFile(f.path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("open the audit file: %w", err)
	}
	_, err = to.Write(text)
	if err == nil {
		err = to.Sync()
	}
	if err = errors.Join(err, to.Close()); err != nil {
		return fmt.Errorf("write the audit file: %w", err)
	}
	return nil
}

// Close implements Sink.
func (*file) Close() error { return nil }

// lines returns events as JSON, each ended by a newline.
func lines(events []Event) ([]byte, error) {
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	for _, e := range events {
		if err := encoder.Encode(e); err != nil {
			return nil, fmt.Errorf("encode an event: %w", err)
		}
	}
	return text.Bytes(), nil
}
