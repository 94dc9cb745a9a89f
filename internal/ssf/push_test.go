package ssf

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/uuid"
)

func TestPusher_RefusesAddressesOutsideOfThePublicInternet(t *testing.T) {
	refuse := refusePrivate()
	for _, address := range []string{
		"127.0.0.1:443", "10.1.2.3:443", "172.16.0.1:443", "192.168.1.1:443", "169.254.169.254:80", "100.64.0.1:443", "0.0.0.0:443", "192.0.0.8:443",
		"198.18.0.1:443", "240.0.0.1:443", "168.63.129.16:80", "224.0.0.1:443", "255.255.255.255:443",
		"[::1]:443", "[::]:443", "[fc00::1]:443", "[fe80::1]:443", "[fec0::1]:443", "[ff02::1]:443", "[::ffff:127.0.0.1]:443", "[::127.0.0.1]:443",
		"[64:ff9b::7f00:1]:443", "[64:ff9b:1::1]:443", "[2002:7f00:1::]:443", "[2001::1]:443", "[::ffff:0:127.0.0.1]:443", "not an address",
	} {
		network := "tcp4"
		if strings.HasPrefix(address, "[") {
			network = "tcp6"
		}
		if refuse(network, address, nil) == nil {
			t.Errorf("%s can be reached", address)
		}
	}
	for _, address := range []string{"93.184.215.14:443", "1.1.1.1:8443"} {
		if err := refuse("tcp4", address, nil); err != nil {
			t.Errorf("%s cannot be reached: %v", address, err)
		}
	}
	if err := refuse("tcp6", "[2606:4700:4700::1111]:443", nil); err != nil {
		t.Errorf("a public IPv6 address cannot be reached: %v", err)
	}
}

func TestPusher_NamesAPrivateAddress(t *testing.T) {
	receiver := httptest.NewServer(
		http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusAccepted) }),
	)
	defer receiver.Close()
	_, err := NewPusher(false).Push(t.Context(), receiver.URL, "", "set")
	var unreachable *UnreachableError
	if !errors.As(err, &unreachable) || !strings.Contains(unreachable.Reason, "the address is private") {
		t.Errorf("got %v, want an unreachable private address", err)
	}
	if _, err := NewPusher(true).Push(t.Context(), receiver.URL, "", "set"); err != nil {
		t.Errorf("a pusher that may reach private addresses: %v", err)
	}
}

func TestPusher_LeavesPlacesForOtherTenants(t *testing.T) {
	p := NewPusher(true)
	busy, other := uuid.New(), uuid.New()
	var ends []func()
	for range maxPushing {
		end, ok := p.Begin(busy)
		if !ok {
			t.Fatal("a push within the limit was refused")
		}
		ends = append(ends, end)
	}
	if _, ok := p.Begin(busy); ok {
		t.Error("a push above the limit was permitted")
	}
	if _, ok := p.Begin(other); !ok {
		t.Error("a push of another tenant was refused")
	}
	ends[0]()
	if _, ok := p.Begin(busy); !ok {
		t.Error("a push was refused after another had ended")
	}
}
