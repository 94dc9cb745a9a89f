package siem

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
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
	syslogClose   = 2 * time.Second // how long a server may take to close a connection that it has read
)

// syslog sends events by RFC 5424 over TLS with octet counting (RFC 5425). The protocol has no acknowledgements. Each
// batch has a connection of its own, which the server closes once it has read the batch: a write to a connection that
// the server has closed meanwhile would succeed, and the batch be lost.
type syslog struct {
	address string
	config  *tls.Config
	host    string
}

func newSyslog(address string, config *tls.Config) *syslog {
	host, err := os.Hostname()
	if err != nil || host == "" {
		host = "-"
	}
	return &syslog{address: address, config: config, host: host}
}

// Send implements Sink. It takes at most syslogTimeout and syslogClose, and is not called concurrently.
func (s *syslog) Send(ctx context.Context, events []Event) error {
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
	ctx, cancel := context.WithTimeout(ctx, syslogTimeout)
	defer cancel()
	dialer := tls.Dialer{Config: s.config}
	conn, err := dialer.DialContext(ctx, "tcp", s.address)
	if err != nil {
		return fmt.Errorf("connect to the audit sink %s: %s", s.address, connectors.TransportReason(err))
	}
	defer func() { _ = conn.Close() }()
	if err := deliver(ctx, conn.(*tls.Conn), batch.Bytes()); err != nil {
		return fmt.Errorf("write to the audit sink %s: %s", s.address, connectors.TransportReason(err))
	}
	return nil
}

// deliver writes a batch until ctx ends, closes the write side, and waits until the server has read it and closes the
// connection. A timeout is not an error: some servers leave connections open.
func deliver(ctx context.Context, conn *tls.Conn, batch []byte) error {
	until, _ := ctx.Deadline()
	_ = conn.SetWriteDeadline(until)
	if _, err := conn.Write(batch); err != nil {
		return err
	}
	if err := conn.CloseWrite(); err != nil {
		return err
	}
	if raw, ok := conn.NetConn().(*net.TCPConn); ok {
		if err := raw.CloseWrite(); err != nil {
			return err
		}
	}
	_ = conn.SetReadDeadline(time.Now().Add(syslogClose))
	_, err := io.Copy(io.Discard, conn)
	if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil // left open, or closed without a notice
	}
	return err
}

// Close implements Sink.
func (*syslog) Close() error { return nil }
