package aws

import (
	"context"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"

	"github.com/leaverhq/leaver/activities/connectors"
)

// Generate implements connectors.Generator. A user has at most two keys.
func (c *Connector) Generate(ctx context.Context, t connectors.Target) (connectors.Generated, error) {
	user, _, _, err := c.open(ctx, t.Reference)
	if err == nil {
		err = t.CheckFence(ctx)
	}
	if err != nil {
		return connectors.Generated{}, err
	}
	made, err := c.iam.CreateAccessKey(ctx, &iam.CreateAccessKeyInput{UserName: &user})
	switch {
	case err == nil:
		return connectors.Generated{
			Answer:    connectors.Answer{Outcome: connectors.Done, Detail: "access key created"},
			Reference: user + "/" + aws.ToString(made.AccessKey.AccessKeyId),
			Secret:    connectors.Secret(aws.ToString(made.AccessKey.SecretAccessKey)),
		}, nil
	case code(err) == noSuchEntity:
		return connectors.Generated{Answer: connectors.Answer{Outcome: connectors.Gone, Detail: "no such user"}}, nil
	case code(err) == limitExceeded:
		return connectors.Generated{}, connectors.Permanent("the user %s has two access keys already, which is AWS's limit: "+
			"delete the one that is not in use, and re-run the cascade", user)
	}
	return connectors.Generated{}, classify("create an access key", err)
}

// Renew implements connectors.Rotator: it makes the generated key active, which it is unless another changed that.
func (c *Connector) Renew(ctx context.Context, t connectors.Target) (connectors.Answer, error) {
	user, key, err := split(t.NewReference)
	if err == nil {
		err = t.CheckFence(ctx)
	}
	if err != nil {
		return connectors.Answer{}, err
	}
	_, err = c.iam.UpdateAccessKey(ctx, &iam.UpdateAccessKeyInput{
		UserName: &user, AccessKeyId: &key, Status: types.StatusTypeActive,
	})
	if err != nil {
		if code(err) == noSuchEntity { // IAM is eventually consistent, or another has deleted it
			return connectors.Answer{}, connectors.Retryable("the new access key does not exist yet")
		}
		return connectors.Answer{}, classify("make the new access key active", err)
	}
	return connectors.Answer{Outcome: connectors.Done, Detail: "access key active"}, nil
}

// Retire implements connectors.Rotator. Sessions that were opened with the new key are denied, too, and open again.
func (c *Connector) Retire(ctx context.Context, t connectors.Target) (connectors.Answer, error) {
	return c.Revoke(ctx, t)
}
