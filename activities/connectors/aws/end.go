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

// Revoke implements connectors.Revoker. It makes the key inactive, denies the sessions of the user, and deletes the
// key.
func (c *Connector) Revoke(ctx context.Context, t connectors.Target) (connectors.Answer, error) {
	user, key, used, err := c.open(ctx, t.Reference)
	if err != nil {
		return connectors.Answer{}, err
	}
	gone, err := c.deactivate(ctx, t, user, key)
	if err != nil {
		return connectors.Answer{}, err
	}
	sessions, err := c.endSessions(ctx, t, user)
	if err != nil {
		return connectors.Answer{}, err
	}
	if gone {
		return connectors.Answer{Outcome: connectors.Gone, Detail: "no such access key" + sessions}, nil
	}
	if err := t.CheckFence(ctx); err != nil {
		return connectors.Answer{}, err
	}
	_, err = c.iam.DeleteAccessKey(ctx, &iam.DeleteAccessKeyInput{UserName: &user, AccessKeyId: &key})
	if err != nil && code(err) != noSuchEntity {
		return connectors.Answer{}, classify("delete the access key", err)
	}
	return connectors.Answer{Outcome: connectors.Done, Detail: "access key deleted" + sessions + used}, nil
}

// Block implements connectors.Blocker. It makes the key inactive, which can be undone.
func (c *Connector) Block(ctx context.Context, t connectors.Target) (connectors.Answer, error) {
	user, key, _, err := c.open(ctx, t.Reference)
	if err != nil {
		return connectors.Answer{}, err
	}
	if gone, err := c.deactivate(ctx, t, user, key); gone || err != nil {
		return connectors.Answer{Outcome: connectors.Gone, Detail: "no such access key"}, err
	}
	return connectors.Answer{Outcome: connectors.Done, Detail: "access key inactive"}, nil
}

// deactivate makes a key inactive.
func (c *Connector) deactivate(ctx context.Context, t connectors.Target, user, key string) (gone bool, err error) {
	if err := t.CheckFence(ctx); err != nil {
		return false, err
	}
	_, err = c.iam.UpdateAccessKey(ctx, &iam.UpdateAccessKeyInput{
		UserName: &user, AccessKeyId: &key, Status: types.StatusTypeInactive,
	})
	switch {
	case err == nil:
		return false, nil
	case code(err) == noSuchEntity:
		return true, nil
	}
	return false, classify("make the access key inactive", err)
}

// sessionPolicy is the name of the inline policy that denies a user's old sessions.
const sessionPolicy = "LeaverRevokeOlderSessions"

// endSessions denies everything to the sessions of a user that were issued until now, as the console's "revoke active
// sessions" does for a role: https://docs.aws.amazon.com/IAM/latest/UserGuide/id_roles_use_revoke-sessions.html.
// A request that is signed with a key has no aws:TokenIssueTime, so that other keys of the user go on.
func (c *Connector) endSessions(ctx context.Context, t connectors.Target, user string) (string, error) {
	if c.own.KeepSessions {
		return "; its sessions live until they expire", nil
	}
	now := time.Now().UTC().Add(time.Second).Format(time.RFC3339) // a policy's times are in seconds
	policy, err := json.Marshal(map[string]any{
		"Version": "2012-10-17",
		"Statement": map[string]any{
			"Effect": "Deny", "Action": "*", "Resource": "*",
			"Condition": map[string]any{"DateLessThan": map[string]string{"aws:TokenIssueTime": now}},
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
		return "; the user's sessions until " + now + " are denied", nil
	case code(err) == noSuchEntity:
		return "; no such user", nil
	}
	return "", classify("deny the user's sessions", err)
}
