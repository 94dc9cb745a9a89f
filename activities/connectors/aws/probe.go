package aws

import (
	"context"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"github.com/leaverhq/leaver/activities/connectors"
)

// Probe implements connectors.Verifier. With the registered secret it calls GetCallerIdentity, which needs no
// permission; without one it reads the key's status.
func (c *Connector) Probe(ctx context.Context, t connectors.Target) (connectors.Vitality, string, error) {
	user, key, err := split(t.Reference)
	switch {
	case err != nil:
		return connectors.Unknown, "", err
	case t.Secret != "":
		return c.callWithKey(ctx, user, key, t.Secret)
	}
	keys, err := c.keys(ctx, user)
	if err != nil {
		return connectors.Unknown, "", err
	}
	for _, k := range keys {
		if aws.ToString(k.AccessKeyId) != key {
			continue
		}
		if k.Status == types.StatusTypeActive {
			return connectors.Alive, "the access key is active", nil
		}
		return connectors.Dead, "the access key is inactive", nil
	}
	return connectors.Dead, "no such access key", nil
}

// callWithKey calls GetCallerIdentity with a key:
// https://docs.aws.amazon.com/STS/latest/APIReference/API_GetCallerIdentity.html.
func (c *Connector) callWithKey(
	ctx context.Context, user, key string, secret connectors.Secret,
) (connectors.Vitality, string, error) {
	as := c.config.Copy()
	as.Credentials = credentials.NewStaticCredentialsProvider(key, secret.Reveal(), "")
	identity, err := sts.NewFromConfig(as).GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
	switch {
	case code(err) == invalidKey:
		return connectors.Dead, "the access key is refused: " + invalidKey, nil
	case code(err) == wrongSecret:
		return connectors.Unknown, "the registered secret is not that of the access key: " + wrongSecret, nil
	case err != nil:
		return connectors.Unknown, "", classify("use the access key", err)
	case aws.ToString(identity.Account) != c.settings.Account, !strings.HasSuffix(aws.ToString(identity.Arn), "/"+user):
		return connectors.Unknown, "the access key is of another user or account", nil
	}
	return connectors.Alive, "the access key is accepted", nil
}

// Possesses implements connectors.Possession by a use of the key.
func (c *Connector) Possesses(ctx context.Context, t connectors.Target) (connectors.Vitality, string, error) {
	user, key, err := split(t.Reference)
	switch {
	case err != nil:
		return connectors.Unknown, "", err
	case t.Secret == "":
		return connectors.Unknown, "no secret access key is registered", nil
	}
	return c.callWithKey(ctx, user, key, t.Secret)
}

// keys returns the keys of a user, which are two at most; none for a user that does not exist.
func (c *Connector) keys(ctx context.Context, user string) ([]types.AccessKeyMetadata, error) {
	list, err := c.iam.ListAccessKeys(ctx, &iam.ListAccessKeysInput{UserName: &user})
	switch {
	case code(err) == noSuchEntity:
		return nil, nil
	case err != nil:
		return nil, classify("list the user's access keys", err)
	}
	return list.AccessKeyMetadata, nil
}

// Discover implements connectors.Discoverer: the active keys of the IAM users that have a principal's name or id.
func (c *Connector) Discover(ctx context.Context, principals []connectors.Principal) ([]connectors.Found, error) {
	var found []connectors.Found
	for _, p := range principals {
		for i, user := range append([]string{p.ID.String()}, p.Names...) {
			if !userName.MatchString(user) {
				continue
			}
			keys, err := c.keys(ctx, user)
			if err != nil {
				return nil, err
			}
			for _, k := range keys {
				if k.Status == types.StatusTypeActive {
					found = append(found, connectors.Found{
						Kind: connectors.APIKey, Reference: aws.ToString(k.UserName) + "/" + aws.ToString(k.AccessKeyId),
						Principal: p.ID, Named: i > 0,
					})
				}
			}
		}
	}
	return found, nil
}
