package aws

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"

	"github.com/leaverhq/leaver/activities/connectors"
)

const (
	// propagation is how long IAM may accept a key after its end, during which the agent could open sessions.
	propagation = 5 * time.Minute
	// precision is that of the times in policies.
	precision = time.Second
)

// Revoke implements connectors.Revoker. It makes the key inactive, denies the sessions of the user, and deletes the
// key.
func (c *Connector) Revoke(ctx context.Context, t connectors.Target) (connectors.Answer, error) {
	return c.end(ctx, t, propagation)
}

// end ends a key, and the sessions of its user until now and for a margin.
func (c *Connector) end(ctx context.Context, t connectors.Target, margin time.Duration) (connectors.Answer, error) {
	o, err := c.resolve(ctx, t.Reference)
	if err != nil {
		return connectors.Answer{}, err
	}
	gone, err := c.setStatus(ctx, t, o, types.StatusTypeInactive)
	if err != nil {
		return connectors.Answer{}, err
	}
	if gone && !o.exists {
		return connectors.Answer{Outcome: connectors.Gone, Detail: "no such access key; this attempt denied no sessions"}, nil
	}
	sessions, failed := c.endSessions(ctx, t, o.user, margin)
	if failed != nil && !connectors.IsPermanent(failed) {
		return connectors.Answer{}, failed
	}
	if err := t.CheckFence(ctx); err != nil {
		return connectors.Answer{}, err
	}
	// The key is deleted even if the policy is refused for good, such as for its size.
	_, err = c.iam.DeleteAccessKey(ctx, &iam.DeleteAccessKeyInput{UserName: &o.user, AccessKeyId: &o.key})
	if err != nil && code(err) != noSuchEntity {
		return connectors.Answer{}, classify("delete the access key", err)
	}
	if failed != nil {
		return connectors.Answer{}, connectors.Permanent(
			"the access key is deleted, but the user's sessions live: %w", failed)
	}
	return connectors.Answer{
		Outcome: connectors.Done, Detail: "access key deleted" + sessions + c.others(ctx, o) + o.used,
	}, nil
}

// others returns a text for the evidence: the number of active keys that the user has besides.
func (c *Connector) others(ctx context.Context, o owned) string {
	keys, err := c.keys(ctx, o.user)
	n := 0
	for _, k := range keys {
		if k.Status == types.StatusTypeActive && aws.ToString(k.AccessKeyId) != o.key {
			n++
		}
	}
	if err != nil || n == 0 {
		return ""
	}
	return fmt.Sprintf("; the user has %d other active access keys", n)
}

// Block implements connectors.Blocker. It makes the key inactive, which can be undone.
func (c *Connector) Block(ctx context.Context, t connectors.Target) (connectors.Answer, error) {
	o, err := c.resolve(ctx, t.Reference)
	if err != nil {
		return connectors.Answer{}, err
	}
	if gone, err := c.setStatus(ctx, t, o, types.StatusTypeInactive); gone || err != nil {
		return connectors.Answer{Outcome: connectors.Gone, Detail: "no such access key"}, err
	}
	return connectors.Answer{Outcome: connectors.Done, Detail: "access key inactive"}, nil
}

// Unblock implements connectors.Unblocker. A revoked key is deleted.
func (c *Connector) Unblock(ctx context.Context, t connectors.Target) (connectors.Answer, error) {
	o, err := c.resolve(ctx, t.Reference)
	if err != nil {
		return connectors.Answer{}, err
	}
	if gone, err := c.setStatus(ctx, t, o, types.StatusTypeActive); gone || err != nil {
		return connectors.Answer{Outcome: connectors.Gone, Detail: "no such access key"}, err
	}
	return connectors.Answer{Outcome: connectors.Done, Detail: "access key active"}, nil
}

// setStatus makes a key active or inactive.
func (c *Connector) setStatus(
	ctx context.Context, t connectors.Target, o owned, status types.StatusType,
) (gone bool, err error) {
	if err := t.CheckFence(ctx); err != nil {
		return false, err
	}
	_, err = c.iam.UpdateAccessKey(ctx, &iam.UpdateAccessKeyInput{
		UserName: &o.user, AccessKeyId: &o.key, Status: status,
	})
	switch {
	case err == nil:
		return false, nil
	case code(err) == noSuchEntity:
		return true, nil
	}
	return false, classify("set the access key's status", err)
}

// sessionPolicy is the name of the inline policy that denies a user's old sessions.
const sessionPolicy = "LeaverRevokeOlderSessions"

// endSessions denies everything to the sessions of a user that were issued until now, or are issued within margin, as
// the console's "revoke active sessions" does for a role:
// https://docs.aws.amazon.com/IAM/latest/UserGuide/id_roles_use_revoke-sessions.html.
// A request that is signed with a key has no aws:TokenIssueTime, so that other keys of the user go on.
func (c *Connector) endSessions(
	ctx context.Context, t connectors.Target, user string, margin time.Duration,
) (string, error) {
	if c.settings.KeepSessions {
		return "; its sessions live until they expire", nil
	}
	until := time.Now().UTC().Add(margin).Format(time.RFC3339)
	policy, err := json.Marshal(map[string]any{
		"Version": "2012-10-17",
		"Statement": map[string]any{
			"Effect": "Deny", "Action": "*", "Resource": "*",
			"Condition": map[string]any{"DateLessThan": map[string]string{"aws:TokenIssueTime": until}},
		},
	})
	if err != nil {
		return "", fmt.Errorf("encode the policy: %w", err)
	}
	if err := t.CheckFence(ctx); err != nil {
		return "", err
	}
	_, err = c.iam.PutUserPolicy(ctx, &iam.PutUserPolicyInput{
		UserName: &user, PolicyName: aws.String(sessionPolicy), PolicyDocument: aws.String(string(policy)),
	})
	switch {
	case err == nil:
		return "; the user's sessions until " + until + " are denied", nil
	case code(err) == noSuchEntity:
		return "; no such user", nil
	}
	return "", classify("deny the user's sessions", err)
}
