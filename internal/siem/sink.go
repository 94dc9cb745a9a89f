package siem

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/leaverhq/leaver/activities/connectors"
	"github.com/leaverhq/leaver/internal/config"
)

// Sink takes events.
type Sink interface {
	// Send sends events in order. If it returns an error, all of them are sent again later.
	Send(ctx context.Context, events []Event) error
	Close() error
}

// Open opens the configured sink, or returns nil if there is none.
func Open(c config.Audit) (Sink, error) {
	if c.Sink == "" {
		if c.Address != "" {
			return nil, errors.New("audit.sink must be file, https, s3, splunk or syslog if audit.address is set")
		}
		return nil, nil //nolint:nilnil // no sink is a value here
	}
	if c.Address == "" {
		return nil, errors.New("audit.address is required")
	}
	authorization, err := connectors.SecretRef(c.Authorization).Resolve()
	if err != nil {
		return nil, fmt.Errorf("audit.authorization: %w", err)
	}
	authorities, roots, err := readRoots(c.CAFile)
	if err != nil {
		return nil, err
	}
	switch c.Sink {
	case "file":
		return &file{path: c.Address}, nil
	case "syslog":
		host, _, err := net.SplitHostPort(c.Address)
		if err != nil {
			return nil, fmt.Errorf("audit.address must be HOST:PORT, got %q", c.Address)
		}
		return newSyslog(c.Address, &tls.Config{ServerName: host, RootCAs: roots, MinVersion: tls.VersionTLS12}), nil
	case "s3":
		if c.Authorization != "" {
			return nil, errors.New("audit.authorization is not for s3, which reads the AWS_* variables or a profile")
		}
		return newBucket(c.Address, authorities)
	case "https", "splunk":
		if err := connectors.CheckAddress("audit.address", c.Address); err != nil {
			return nil, err
		}
		return newHTTP(c.Address, authorization, c.Sink == "splunk", roots), nil
	}
	return nil, fmt.Errorf("audit.sink must be file, https, s3, splunk or syslog, got %q", c.Sink)
}

// readRoots returns the certificates of a file, and as PEM, or nil for the system's.
func readRoots(path string) (raw []byte, roots *x509.CertPool, err error) {
	if path == "" {
		return nil, nil, nil
	}
	if raw, err = os.ReadFile(path); err != nil { //nolint:gosec // the operator configures it
		return nil, nil, fmt.Errorf("audit.ca_file: %w", err)
	}
	roots = x509.NewCertPool()
	if !roots.AppendCertsFromPEM(raw) {
		return nil, nil, fmt.Errorf("audit.ca_file: %s has no certificate in PEM", path)
	}
	return raw, roots, nil
}
