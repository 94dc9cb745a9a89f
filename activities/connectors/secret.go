package connectors

import "log/slog"

// Secret is a string whose value only Reveal returns. Printing, logging and marshalling it write a
// placeholder (I4).
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

// MarshalText implements encoding.TextMarshaler, which JSON encoding uses too.
func (s Secret) MarshalText() ([]byte, error) { return []byte(placeholder), nil }
