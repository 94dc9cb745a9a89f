package aws

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"

	"github.com/leaverhq/leaver/activities/connectors"
)

// Generate implements connectors.Generator. A user has at most two keys.
func (c *Connector) Generate(ctx context.Context, t connectors.Target) (connectors.Generated, error) {
	o, err := c.resolve(ctx, t.Reference)
	if err == nil {
		err = t.CheckFence(ctx)
	}
	if err != nil {
		return connectors.Generated{}, err
	}
	made, err := c.iam.CreateAccessKey(ctx, &iam.CreateAccessKeyInput{UserName: &o.user})
	switch {
	case err == nil:
		return connectors.Generated{
			Answer:    connectors.Answer{Outcome: connectors.Done, Detail: "access key created"},
			Reference: o.user + "/" + aws.ToString(made.AccessKey.AccessKeyId),
			Secret:    connectors.Secret(aws.ToString(made.AccessKey.SecretAccessKey)),
		}, nil
	case code(err) == noSuchEntity:
		return connectors.Generated{Answer: connectors.Answer{Outcome: connectors.Gone, Detail: "no such user"}}, nil
	case code(err) == limitExceeded:
		return connectors.Generated{}, connectors.Permanent(
			"the user has two access keys already, which is AWS's limit: %s: delete the unused one in IAM, and run "+
				"`leaver cascade rerun`", c.describeKeys(ctx, o.user))
	}
	return connectors.Generated{}, classify("create an access key", err)
}

// describeKeys returns the IDs of a user's keys, with the times of their creation.
func (c *Connector) describeKeys(ctx context.Context, user string) string {
	keys, err := c.keys(ctx, user)
	if err != nil {
		return "their IDs could not be listed"
	}
	var texts []string
	for _, k := range keys {
		texts = append(texts, fmt.Sprintf("%s of %s", aws.ToString(k.AccessKeyId),
			aws.ToTime(k.CreateDate).UTC().Format(time.RFC3339)))
	}
	return strings.Join(texts, ", ")
}

// Renew implements connectors.Rotator. It sets the generated key to active. CreateAccessKey creates active keys; the
// call repairs a later change.
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
			return connectors.Answer{}, connectors.Retryable("AWS does not know the new access key %s: IAM may not have "+
				"replicated it yet; if it was deleted, cancel the cascade and rotate by hand", key)
		}
		return connectors.Answer{}, classify("make the new access key active", err)
	}
	return connectors.Answer{Outcome: connectors.Done, Detail: "access key active"}, nil
}

// Retire implements connectors.Rotator. Sessions that were opened with the new key until now are denied, too, and open
// again.
func (c *Connector) Retire(ctx context.Context, t connectors.Target) (connectors.Answer, error) {
	return c.end(ctx, t, precision)
}
