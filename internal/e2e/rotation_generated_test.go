package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/leaverhq/leaver/activities/connectors"
	"github.com/leaverhq/leaver/activities/connectors/aws"
	"github.com/leaverhq/leaver/internal/devstack/iam"
	"github.com/leaverhq/leaver/internal/registry"
)

// cloud is a connector of type aws that publishes new keys to the test.
type cloud struct {
	*aws.Connector

	mu        sync.Mutex
	published []connectors.Publication
}

func (d *cloud) Publish(_ context.Context, p connectors.Publication) (connectors.Answer, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.published = append(d.published, p)
	return connectors.Answer{Outcome: connectors.Done}, nil
}

// TestRotation_HandsOverAKeyThatTheDownstreamGenerated rotates an access key whose successor is refused at first, and
// which works once more after its deletion, as IAM is eventually consistent. The successor is made once, and published
// only when it works.
func TestRotation_HandsOverAKeyThatTheDownstreamGenerated(t *testing.T) {
	long(t)
	i := installAPI(t)
	server := iam.Start()
	t.Cleanup(server.Close)
	own, shared := server.AddUser("leaver"), server.AddUser("crm-agent")
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte(own.Secret), 0o600); err != nil {
		t.Fatal(err)
	}
	connector, err := aws.New(aws.Config{
		Account: iam.Account, Endpoint: server.URL, AccessKeyID: own.ID, SecretAccessKey: connectors.SecretRef("file:" + secret),
	})
	if err != nil {
		t.Fatal(err)
	}
	d := &cloud{Connector: connector}
	i.app.Connectors["cloud"] = registry.Entry{Connector: d, Type: "aws", Tenants: []string{"acme"}}
	i.work()
	ada, bob := i.createUser("ada@example.com"), i.createUser("bob@example.com")
	hold := func(principal string) string {
		return i.must("POST", "/v1/credentials", i.platform, fmt.Sprintf(
			`{"principalId":%q,"kind":"api_key","connector":"cloud","reference":"%s/%s","secret":%q}`,
			principal, shared.User, shared.ID, shared.Secret))["id"].(string)
	}
	hers, his := hold(ada), hold(bob)
	server.Lag(2)
	server.LagDeletions(1)
	i.deactivate(ada)
	if c := i.closed(ada); c.Outcome != "completed" || i.state(hers) != "verified" || i.state(his) != "live" {
		t.Fatalf("cascade %+v, hers %s, his %s; want completed, verified, live", c, i.state(hers), i.state(his))
	}
	item := i.opened(his)
	_, key, _ := strings.Cut(item.Reference, "/")
	if server.Works(shared.ID) || !server.Works(key) || server.Keys(shared.User) != 1 {
		t.Errorf("the old key works: %t, the new key: %t, of %d keys; want the new one only",
			server.Works(shared.ID), server.Works(key), server.Keys(shared.User))
	}
	last := d.published[len(d.published)-1]
	if last.Secret != item.Secret || last.Reference != item.Reference || len(last.Holders) != 1 {
		t.Errorf("published %s for %v; want the new key for the other holder", last.Reference, last.Holders)
	}
}
