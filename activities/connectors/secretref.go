package connectors

import (
	"fmt"
	"os"
	"strings"
)

// SecretRef refers to a secret: env:NAME or file:PATH. The configuration never contains the secret.
type SecretRef string

// Resolve reads the secret. The error names the reference, never the secret.
func (r SecretRef) Resolve() (Secret, error) {
	switch {
	case r == "":
		return "", nil
	case strings.HasPrefix(string(r), "env:"):
		name := strings.TrimPrefix(string(r), "env:")
		value, ok := os.LookupEnv(name)
		if !ok || value == "" {
			return "", fmt.Errorf("the variable %s is not set", name)
		}
		return Secret(value), nil
	case strings.HasPrefix(string(r), "file:"):
		raw, err := os.ReadFile(strings.TrimPrefix(string(r), "file:"))
		if err != nil {
			return "", fmt.Errorf("read the secret: %w", err)
		}
		return Secret(strings.TrimRight(string(raw), "\r\n")), nil
	}
	return "", fmt.Errorf("a secret must be set by reference, env:NAME or file:PATH")
}
