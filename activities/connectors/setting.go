package connectors

import (
	"fmt"
	"net"
	"net/url"
)

// CommonSettings returns the names of the settings that connectors of every type have.
func CommonSettings() []string {
	return []string{"name", "type", "rate", "tenants", "references", "publish_to", "trust_labels"}
}

// CheckAddress returns an error unless the address in a setting is an absolute URL with https, or with http on
// loopback.
func CheckAddress(setting, address string) error {
	u, err := url.Parse(address)
	switch {
	case err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return fmt.Errorf("%s must be an absolute URL without user, query and fragment", setting)
	case u.Scheme == "https", u.Scheme == "http" && IsLoopback(u.Hostname()):
		return nil
	}
	return fmt.Errorf("%s must use https", setting)
}

// IsLoopback reports whether a host, without a port, is this machine, so that credentials may be sent to it without
// TLS.
func IsLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
