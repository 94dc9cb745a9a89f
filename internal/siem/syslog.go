package siem

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"strconv"
	"time"

	"github.com/leaverhq/leaver/activities/connectors"
)

const (
	// priority is the facility log audit (13) and the severity informational (6), RFC 5424 section 6.2.1.
	priority      = 13*8 + 6
	syslogTimeout = 15 * time.Second
)

// syslog sends events by RFC 5424 over TLS with octet counting (RFC 5425). The protocol has no acknowledgements: what
// a connection had in transit when it broke is lost, except for the batch that failed.
type syslog struct {
	address string
	config  *tls.Config
	host    string
	conn    net.Conn
}

func newSyslog(address string, config *tls.Config) *syslog {
	host, err := os.Hostname()
	if err != nil || host == "" {
		host = "-"
	}
	return &syslog{address: address, config: config, host: host}
}

// Send implements Sink. It is not called concurrently.
func (s *syslog) Send(ctx context.Context, events []Event) error {
	if s.conn == nil {
		dialer := tls.Dialer{NetDialer: &net.Dialer{Timeout: syslogTimeout}, Config: s.config}
		conn, err := dialer.DialContext(ctx, "tcp", s.address)
		if err != nil {
			return fmt.Errorf("connect to the audit sink %s: %s", s.address, connectors.TransportReason(err))
		}
		s.conn = conn
	}
	var batch bytes.Buffer
	for _, e := range events {
		encoded, err := json.Marshal(e)
		if err != nil {
			return fmt.Errorf("encode an event: %w", err)
		}
		message := fmt.Sprintf("<%d>1 %s %s leaver - %d - %s", priority,
			time.UnixMilli(e.Time).UTC().Format("2006-01-02T15:04:05.000Z"), s.host, e.ClassUID, encoded)
		batch.WriteString(strconv.Itoa(len(message)))
		batch.WriteByte(' ')
		batch.WriteString(message)
	}
	_ = s.conn.SetWriteDeadline(time.Now().Add(syslogTimeout))
	if _, err := s.conn.Write(batch.Bytes()); err != nil {
		_ = s.Close()
		return fmt.Errorf("write to the audit sink %s: %s", s.address, connectors.TransportReason(err))
	}
	return nil
}

// Close implements Sink.
func (s *syslog) Close() error {
	if s.conn == nil {
		return nil
	}
	err := s.conn.Close()
	s.conn = nil
	return err
}
