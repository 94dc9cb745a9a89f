// Package aws ends access keys of IAM users of an AWS account: it deletes them, or rotates those of shared users, of
// which AWS permits two.
//
// A session that was opened with a key lives on after the key. The connector denies everything to the user's own
// sessions (GetSessionToken, GetFederationToken) by their time of issue. Sessions of roles that the user assumed are
// the roles', and live until they expire.
package aws

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"github.com/leaverhq/leaver/activities/connectors"
)

// Config are the settings of a connector of type aws.
type Config struct {
	Account string `yaml:"account"` // the account's id, 12 digits
	Region  string `yaml:"region"`  // of STS; default us-east-1. IAM has one region in each partition
	// AccessKeyID and SecretAccessKey are the connector's own. Without them the SDK's default chain is used: the
	// role of the instance, pod or task, or the environment.
	AccessKeyID     string               `yaml:"access_key_id"`
	SecretAccessKey connectors.SecretRef `yaml:"secret_access_key"`
	Endpoint        string               `yaml:"endpoint"` // of both APIs, in place of AWS's
	// KeepSessions leaves the sessions that were opened with a key alive until they expire.
	KeepSessions bool `yaml:"keep_sessions"`
}

// Connector implements Revoker, Rotator, Generator, Blocker, Unblocker, Verifier, Possession, Guard,
// Discoverer and Checker.
type Connector struct {
	config   aws.Config
	settings Config
	iam      *iam.Client
	sts      *sts.Client
}

var account = regexp.MustCompile(`^[0-9]{12}$`)

// New validates the settings and resolves the secret.
func New(c Config) (*Connector, error) {
	if !account.MatchString(c.Account) {
		return nil, fmt.Errorf("account must be the account's id of 12 digits, got %q", c.Account)
	}
	if c.Region == "" {
		c.Region = "us-east-1"
	}
	secret, err := c.SecretAccessKey.Resolve()
	switch {
	case err != nil:
		return nil, fmt.Errorf("secret_access_key: %w", err)
	case (c.AccessKeyID == "") != (secret == ""):
		return nil, errors.New("set both access_key_id and secret_access_key, or neither to use the role of the instance")
	}
	options := []func(*awsconfig.LoadOptions) error{
		awsconfig.WithRegion(c.Region),
		awsconfig.WithRetryer(func() aws.Retryer { return aws.NopRetryer{} }), // Temporal retries
	}
	if c.Endpoint != "" {
		if err := connectors.CheckAddress("endpoint", c.Endpoint); err != nil {
			return nil, err
		}
		options = append(options, awsconfig.WithBaseEndpoint(c.Endpoint))
	}
	if secret != "" {
		options = append(options, awsconfig.WithCredentialsProvider(
			credentials.NewStaticCredentialsProvider(c.AccessKeyID, secret.Reveal(), "")))
	}
	config, err := awsconfig.LoadDefaultConfig(context.Background(), options...)
	if err != nil {
		return nil, fmt.Errorf("read the configuration of the AWS SDK: %w", err)
	}
	config.HTTPClient = connectors.NewHTTPClient()
	return &Connector{config: config, settings: c, iam: iam.NewFromConfig(config), sts: sts.NewFromConfig(config)}, nil
}

// Downstream implements connectors.Located.
func (c *Connector) Downstream() string { return c.settings.Account }

// Close implements connectors.Connector.
func (c *Connector) Close() {}

// The names of users and keys, https://docs.aws.amazon.com/IAM/latest/APIReference/API_UpdateAccessKey.html.
var (
	userName = regexp.MustCompile(`^[\w+=,.@-]{1,64}$`)
	keyID    = regexp.MustCompile(`^AKIA[A-Z0-9]{12,124}$`)
)

// Accepts implements connectors.Connector. The reference is USER/KEY.
func (c *Connector) Accepts(r connectors.Registration) (string, error) {
	switch {
	case r.Kind != connectors.APIKey:
		return "", fmt.Errorf("kind must be %s, got %s", connectors.APIKey, r.Kind)
	case r.Shared && !r.HasSecret:
		return "", errors.New("a shared key is rotated: register its secret access key as the secret")
	}
	_, _, err := split(r.Reference)
	return r.Reference, err
}

// split returns the user and the key's id of a reference.
func split(reference string) (user, key string, err error) {
	user, key, ok := strings.Cut(reference, "/")
	if !ok || !userName.MatchString(user) || !keyID.MatchString(key) {
		return "", "", connectors.Permanent("the reference must be USER/ACCESS_KEY_ID of an IAM user, got %q", reference)
	}
	return user, key, nil
}

// Reserved implements connectors.Guard: the connector's own key. It also refuses a key under the name of another user:
// each key has one reference, although AWS does not distinguish the names of users by case.
func (c *Connector) Reserved(ctx context.Context, reference string) error {
	_, err := c.resolve(ctx, reference)
	if connectors.IsPermanent(err) {
		return err
	}
	return nil // the key is resolved again before it is ended
}

// owned is a key, and what AWS says of it.
type owned struct {
	user, key string
	exists    bool   // AWS confirmed that the key is the user's
	used      string // a text for the evidence: when and for what the key was last used
}

// resolve returns the key of a reference that the connector may end.
func (c *Connector) resolve(ctx context.Context, reference string) (owned, error) {
	user, key, err := split(reference)
	if err != nil {
		return owned{}, err
	}
	if own, err := c.config.Credentials.Retrieve(ctx); err == nil && own.AccessKeyID == key {
		return owned{}, connectors.Permanent("the access key is the connector's own")
	}
	last, err := c.iam.GetAccessKeyLastUsed(ctx, &iam.GetAccessKeyLastUsedInput{AccessKeyId: &key})
	switch {
	case code(err) == noSuchEntity:
		return owned{user: user, key: key}, nil
	case code(err) == accessDenied:
		return owned{}, connectors.Permanent("AWS does not say whose access key it is: the connector's policy lacks " +
			"iam:GetAccessKeyLastUsed, or the key is not of the account " + c.settings.Account)
	case err != nil:
		return owned{}, classify("look up the user of the access key", err)
	case aws.ToString(last.UserName) != user:
		return owned{}, connectors.Permanent("the access key is not of the user %s: the reference must be %s/%s",
			user, aws.ToString(last.UserName), key)
	case last.AccessKeyLastUsed == nil || last.AccessKeyLastUsed.LastUsedDate == nil:
		return owned{user, key, true, "; it was never used"}, nil
	}
	return owned{user, key, true, fmt.Sprintf("; last used at %s for %s",
		last.AccessKeyLastUsed.LastUsedDate.UTC().Format(time.RFC3339),
		quoteCode(aws.ToString(last.AccessKeyLastUsed.ServiceName)))}, nil
}

// Check implements connectors.Checker: the connector's credentials must be of the account, and read keys.
func (c *Connector) Check(ctx context.Context) error {
	identity, err := c.sts.GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
	if err != nil {
		return classify("ask for the connector's identity", err)
	}
	if got := aws.ToString(identity.Account); got != c.settings.Account {
		return connectors.Permanent("the connector's credentials are of the account %s, want %s", got, c.settings.Account)
	}
	_, err = c.iam.ListAccessKeys(ctx, &iam.ListAccessKeysInput{UserName: aws.String("leaver-check")})
	if err != nil && code(err) != noSuchEntity {
		return classify("list the access keys of a user", err)
	}
	return nil
}
