package siem

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/leaverhq/leaver/activities/connectors"
)

// httpSink posts events: as lines of JSON, or as Splunk's HTTP Event Collector takes them
// (https://docs.splunk.com/Documentation/Splunk/latest/Data/FormateventsforHTTPEventCollector).
type httpSink struct {
	url           string
	authorization connectors.Secret
	splunk        bool
	client        *http.Client
}

func newHTTP(url string, authorization connectors.Secret, splunk bool, roots *x509.CertPool) *httpSink {
	client := connectors.NewHTTPClient()
	if transport, ok := client.Transport.(*http.Transport); ok && roots != nil {
		transport.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	}
	return &httpSink{url, authorization, splunk, client}
}

// splunkEvent is an event for the HTTP Event Collector.
type splunkEvent struct {
	Time       float64 `json:"time"` // seconds since 1970
	Source     string  `json:"source"`
	SourceType string  `json:"sourcetype"`
	Event      Event   `json:"event"`
}

// Send implements Sink. Any answer but a success is an error.
func (s *httpSink) Send(ctx context.Context, events []Event) error {
	body, err := s.encode(events)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("create the request to the audit sink: %w", err)
	}
	req.Header.Set("Content-Type", "application/x-ndjson")
	if s.splunk {
		req.Header.Set("Content-Type", "application/json")
	}
	if s.authorization != "" {
		req.Header.Set("Authorization", s.authorization.Reveal())
	}
	resp, _, err := connectors.Exchange(s.client, req) //nolint:bodyclose // Exchange closes it
	if err != nil {
		return err
	}
	if resp.StatusCode/100 != 2 {
		return connectors.StatusError(resp, "")
	}
	return nil
}

func (s *httpSink) encode(events []Event) ([]byte, error) {
	if !s.splunk {
		return lines(events)
	}
	var body bytes.Buffer
	encoder := json.NewEncoder(&body)
	for _, e := range events {
		wrapped := splunkEvent{float64(e.Time) / 1000, "leaver", "ocsf", e}
		if err := encoder.Encode(wrapped); err != nil {
			return nil, fmt.Errorf("encode an event: %w", err)
		}
	}
	return body.Bytes(), nil
}

// Close implements Sink.
func (s *httpSink) Close() error {
	s.client.CloseIdleConnections()
	return nil
}
