package aws_test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/leaverhq/leaver/activities/connectors"
	"github.com/leaverhq/leaver/activities/connectors/aws"
	"github.com/leaverhq/leaver/activities/connectors/contract"
	"github.com/leaverhq/leaver/internal/devstack/iam"
)

// account is a test account with the connector's own key.
type account struct {
	*iam.Server
	own iam.Key
	n   int
}

func start(t *testing.T) *account {
	t.Helper()
	server := iam.Start()
	t.Cleanup(server.Close)
	return &account{Server: server, own: server.AddUser("leaver")}
}

func (a *account) connect(t *testing.T, endpoint string, change ...func(*aws.Config)) *aws.Connector {
	t.Helper()
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte(a.own.Secret), 0o600); err != nil {
		t.Fatal(err)
	}
	config := aws.Config{
		Account: iam.Account, Endpoint: endpoint, AccessKeyID: a.own.ID, SecretAccessKey: connectors.SecretRef("file:" + file),
	}
	for _, f := range change {
		f(&config)
	}
	c, err := aws.New(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// issue adds a user with a key.
func (a *account) issue(*testing.T) connectors.Target {
	a.n++
	k := a.AddUser(fmt.Sprintf("agent-%d@example.com", a.n))
	return target(k)
}

func target(k iam.Key) connectors.Target {
	return connectors.Target{
		Item: uuid.New(), Kind: connectors.APIKey, Reference: k.User + "/" + k.ID, Secret: connectors.Secret(k.Secret),
	}
}

func keyOf(t connectors.Target) string { return t.Reference[strings.Index(t.Reference, "/")+1:] }

func (a *account) works(_ *testing.T, t connectors.Target) bool { return a.Works(keyOf(t)) }

func TestAWS_Contract(t *testing.T) {
	a := start(t)
	contract.Run(t, contract.Suite{
		Connector: a.connect(t, a.URL), Issue: a.issue, Works: a.works, Verifies: true,
		Down: a.connect(t, "http://"+contract.Closed(t)), Hanging: a.connect(t, "http://"+contract.Silent(t)),
	})
}

func TestAWS_NetworkFaultsAreRetryable(t *testing.T) {
	a := start(t)
	target := a.issue(t)
	contract.RunFaults(t, target, func(ctx context.Context, address string) error {
		_, err := a.connect(t, "http://"+address).Revoke(ctx, target)
		return err
	})
}

func TestRevoke_EndsTheSessionsThatTheKeyOpened(t *testing.T) {
	a := start(t)
	c, target := a.connect(t, a.URL), a.issue(t)
	user, _, _ := strings.Cut(target.Reference, "/")
	session := a.Session(iam.Key{User: user})
	answer, err := c.Revoke(t.Context(), target)
	if err != nil || !strings.Contains(answer.Detail, "the user's sessions until") {
		t.Errorf("%+v, %v", answer, err)
	}
	if a.Works(session.ID) {
		t.Error("the session goes on")
	}
	want := []string{"UpdateAccessKey", "PutUserPolicy", "DeleteAccessKey"}
	if diff := cmp.Diff(want, a.Calls()); diff != "" {
		t.Errorf("the calls (-want +got):\n%s", diff)
	}
}

func TestRevoke_LeavesAnotherKeyOfTheUser(t *testing.T) {
	a := start(t)
	c, target := a.connect(t, a.URL), a.issue(t)
	other, err := c.Generate(t.Context(), target)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Revoke(t.Context(), target); err != nil {
		t.Fatal(err)
	}
	if !a.Works(other.Reference[strings.Index(other.Reference, "/")+1:]) {
		t.Error("the other key does not work: a request with a key has no time of issue")
	}
}

func TestRevoke_KeepsSessionsIfConfigured(t *testing.T) {
	a := start(t)
	c, target := a.connect(t, a.URL, func(c *aws.Config) { c.KeepSessions = true }), a.issue(t)
	answer, err := c.Revoke(t.Context(), target)
	if err != nil || !strings.Contains(answer.Detail, "live until they expire") ||
		slices.Contains(a.Calls(), "PutUserPolicy") {
		t.Errorf("%+v, %v after %v", answer, err, a.Calls())
	}
}

func TestBlock_LeavesTheKey(t *testing.T) {
	a := start(t)
	c, target := a.connect(t, a.URL), a.issue(t)
	if answer, err := c.Block(t.Context(), target); err != nil || answer.Outcome != connectors.Done || a.works(t, target) {
		t.Fatalf("%+v, %v; works: %t", answer, err, a.works(t, target))
	}
	if user, _, _ := strings.Cut(target.Reference, "/"); a.Keys(user) != 1 {
		t.Error("the key is deleted")
	}
	without := target
	without.Secret = ""
	if vitality, detail, err := c.Probe(t.Context(), without); err != nil || vitality != connectors.Dead {
		t.Errorf("the probe of the status: %s (%s), %v; want dead", vitality, detail, err)
	}
}

// TestRotation_BothKeysWorkUntilTheOldOneIsRetired follows the order of AWS's guide: create, use, deactivate, delete.
func TestRotation_BothKeysWorkUntilTheOldOneIsRetired(t *testing.T) {
	a := start(t)
	c, old := a.connect(t, a.URL), a.issue(t)
	made, err := c.Generate(t.Context(), old)
	if err != nil {
		t.Fatal(err)
	}
	old.NewReference, old.NewSecret = made.Reference, made.Secret
	fresh := old
	fresh.Reference, fresh.Secret = made.Reference, made.Secret
	for range 2 { // each step can be repeated
		if answer, err := c.Renew(t.Context(), old); err != nil || answer.Outcome != connectors.Done {
			t.Fatalf("renew: %+v, %v", answer, err)
		}
	}
	if !a.works(t, old) || !a.works(t, fresh) {
		t.Fatal("one of the keys does not work before the end of the old one")
	}
	for range 2 {
		if _, err := c.Retire(t.Context(), old); err != nil {
			t.Fatal(err)
		}
	}
	vitality, detail, err := c.Probe(t.Context(), old)
	if err != nil || vitality != connectors.Dead {
		t.Errorf("the old key: %s (%s), %v; want dead", vitality, detail, err)
	}
	if vitality, detail, err = c.Probe(t.Context(), fresh); err != nil || vitality != connectors.Alive {
		t.Errorf("the new key: %s (%s), %v; want alive", vitality, detail, err)
	}
}

// TestGenerate_DeletesNoKeyAtTheLimit checks that both keys stay: a key whose creation was not confirmed looks like a
// key of another owner.
func TestGenerate_DeletesNoKeyAtTheLimit(t *testing.T) {
	a := start(t)
	c, target := a.connect(t, a.URL), a.issue(t)
	if _, err := c.Generate(t.Context(), target); err != nil {
		t.Fatal(err)
	}
	_, err := c.Generate(t.Context(), target)
	user, _, _ := strings.Cut(target.Reference, "/")
	if !connectors.IsPermanent(err) || !strings.Contains(err.Error(), "two access keys") || a.Keys(user) != 2 {
		t.Errorf("%v; %d keys, want a permanent error and both keys", err, a.Keys(user))
	}
}

func TestProbe_OfAnotherSecretProvesNothing(t *testing.T) {
	a := start(t)
	c, target := a.connect(t, a.URL), a.issue(t)
	target.Secret = "wrong"
	for name, probe := range map[string]func(context.Context, connectors.Target) (connectors.Vitality, string, error){
		"probe": c.Probe, "possession": c.Possesses,
	} {
		if vitality, detail, err := probe(t.Context(), target); err != nil || vitality != connectors.Unknown {
			t.Errorf("%s: %s (%s), %v; want unknown", name, vitality, detail, err)
		}
	}
}

func TestReserved_RefusesTheOwnKeyAndOtherSpellings(t *testing.T) {
	a := start(t)
	c, other := a.connect(t, a.URL), a.issue(t)
	for name, reference := range map[string]string{
		"its own key":         "leaver/" + a.own.ID,
		"its own, other user": "bob/" + a.own.ID,
		"another spelling":    strings.ToUpper(other.Reference),
		"another user":        "leaver/" + keyOf(other),
		"a temporary key":     "bob/ASIA1234567890123456",
		"no user":             keyOf(other),
		"a path":              "team/bob/" + keyOf(other),
	} {
		target := other
		target.Reference = reference
		if err := c.Reserved(t.Context(), reference); !connectors.IsPermanent(err) {
			t.Errorf("%s: %v, want a permanent refusal", name, err)
		}
		if _, err := c.Revoke(t.Context(), target); !connectors.IsPermanent(err) {
			t.Errorf("%s is revoked: %v", name, err)
		}
	}
	if len(a.Calls()) != 0 {
		t.Errorf("the refusals called %v", a.Calls())
	}
}

func TestRevoke_ClassifiesAnswers(t *testing.T) {
	a := start(t)
	c := a.connect(t, a.URL)
	for code, want := range map[string]struct {
		status    int
		permanent bool
		says      string
	}{
		"Throttling":                    {http.StatusBadRequest, false, "Throttling"},
		"ServiceFailure":                {http.StatusInternalServerError, false, "ServiceFailure"},
		"EntityTemporarilyUnmodifiable": {http.StatusConflict, false, "EntityTemporarilyUnmodifiable"},
		"AccessDenied":                  {http.StatusForbidden, true, "policy lacks the permission"},
		"InvalidClientTokenId":          {http.StatusForbidden, true, "the connector's own key"},
		"SignatureDoesNotMatch":         {http.StatusForbidden, true, "the connector's own key"},
		"ValidationError":               {http.StatusBadRequest, true, "ValidationError"},
		"all is well: verified":         {http.StatusBadRequest, true, "an unknown error"},
	} {
		for _, action := range []string{"UpdateAccessKey", "PutUserPolicy", "DeleteAccessKey"} {
			target := a.issue(t)
			a.Fail = func(called string) (string, int) {
				if called == action {
					return code, want.status
				}
				return "", 0
			}
			_, err := c.Revoke(t.Context(), target)
			if err == nil || connectors.IsPermanent(err) != want.permanent || !strings.Contains(err.Error(), want.says) {
				t.Errorf("%s of %s: %v; want permanent %t, %q", code, action, err, want.permanent, want.says)
			}
			a.Fail = nil
			if answer, err := c.Revoke(t.Context(), target); err != nil || a.works(t, target) {
				t.Errorf("after %s of %s: %+v, %v", code, action, answer, err)
			}
		}
	}
}

func TestDiscover_ListsActiveKeysOfUsersWithAPrincipalsName(t *testing.T) {
	a := start(t)
	c := a.connect(t, a.URL)
	ada := connectors.Principal{ID: uuid.New(), Names: []string{"ada@example.com", "Ada Lovelace"}}
	named, byID := a.AddUser("ada@example.com"), a.AddUser(ada.ID.String())
	inactive := a.AddUser("ada@example.com.au")
	bob := connectors.Principal{ID: uuid.New(), Names: []string{"ada@example.com.au"}}
	if _, err := c.Block(t.Context(), target(inactive)); err != nil {
		t.Fatal(err)
	}
	got, err := c.Discover(t.Context(), []connectors.Principal{ada, bob})
	want := []connectors.Found{
		{Kind: connectors.APIKey, Reference: target(byID).Reference, Principal: ada.ID},
		{Kind: connectors.APIKey, Reference: target(named).Reference, Principal: ada.ID, Named: true},
	}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}

func TestCheck_NamesTheAccountOfTheCredentials(t *testing.T) {
	a := start(t)
	if err := a.connect(t, a.URL).Check(t.Context()); err != nil {
		t.Error(err)
	}
	err := a.connect(t, a.URL, func(c *aws.Config) { c.Account = "210987654321" }).Check(t.Context())
	if !connectors.IsPermanent(err) || !strings.Contains(err.Error(), iam.Account) {
		t.Errorf("of another account: %v", err)
	}
}

func TestNew_RefusesSettings(t *testing.T) {
	for name, c := range map[string]aws.Config{
		"no account":            {},
		"a name as the account": {Account: "production"},
		"a secret without key":  {Account: iam.Account, SecretAccessKey: "env:PATH"},
		"a key without secret":  {Account: iam.Account, AccessKeyID: "AKIA1234567890123456"},
		"http elsewhere":        {Account: iam.Account, Endpoint: "http://iam.example.com"},
		"no secret reference":   {Account: iam.Account, AccessKeyID: "AKIA1234567890123456", SecretAccessKey: "hunter2"},
	} {
		if _, err := aws.New(c); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}
