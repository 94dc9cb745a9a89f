package connectors

import "net"

// CommonSettings returns the names of the settings that connectors of every type have.
func CommonSettings() []string {
	return []string{"name", "type", "rate", "tenants", "references", "publish_to", "trust_labels"}
}

// IsLoopback reports whether a host, without a port, is this machine, so that credentials may be sent to it without
// TLS.
func IsLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
