package connectors

import "log/slog"

// Secret is a string that shows itself only to code that asks for it by
// Reveal: printing, logging and marshalling give a placeholder (I4).
type Secret string

const placeholder = "[secret]"

// Reveal returns the secret itself.
func (s Secret) Reveal() string { return string(s) }

// String implements fmt.Stringer.
func (s Secret) String() string { return placeholder }

// GoString implements fmt.GoStringer.
func (s Secret) GoString() string { return placeholder }

// LogValue implements slog.LogValuer.
func (s Secret) LogValue() slog.Value { return slog.StringValue(placeholder) }

// MarshalText implements encoding.TextMarshaler, and so keeps it out of JSON.
func (s Secret) MarshalText() ([]byte, error) { return []byte(placeholder), nil }
