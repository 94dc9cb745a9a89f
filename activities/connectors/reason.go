package connectors

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"os"
	"syscall"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// TransportReason returns one of a fixed set of texts for the error of a request. It does not use the text of the
// error, since errors of package net/http quote the peer's response.
func TransportReason(err error) string {
	var dns *net.DNSError
	var certificate *tls.CertificateVerificationError
	var authority x509.UnknownAuthorityError
	var hostname x509.HostnameError
	var invalid x509.CertificateInvalidError
	var record tls.RecordHeaderError
	var alert *net.OpError
	var netErr net.Error
	switch {
	case errors.Is(err, context.Canceled):
		return "cancelled"
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded),
		errors.As(err, &netErr) && netErr.Timeout():
		return "timed out"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection refused"
	case errors.As(err, &dns):
		return "the host name cannot be resolved"
	case errors.As(err, &hostname):
		return "TLS failed: the certificate is for another host name"
	case errors.As(err, &authority):
		return "TLS failed: the certificate is of an unknown authority"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "TLS failed: the certificate has expired, or the clock is wrong"
	case errors.As(err, &alert) && alert.Op == "remote error": // what crypto/tls calls an alert of the peer
		return "TLS failed: the peer refuses the client's certificate or the protocol version"
	case errors.As(err, &certificate), errors.As(err, &record):
		return "TLS failed"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE),
		errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "connection reset"
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return "no route to the host"
	}
	if code := status.Code(err); code != codes.Unknown && code != codes.OK {
		return "gRPC status " + code.String()
	}
	return "the answer is malformed or the connection failed"
}
