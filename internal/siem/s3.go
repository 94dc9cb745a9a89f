package siem

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/url"
	"path"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"

	"github.com/leaverhq/leaver/activities/connectors"
)

// requestTimeout bounds a request to a bucket.
const requestTimeout = 10 * time.Second

// bucket stores each batch of events as an object of lines of JSON. Its credentials, region and endpoint are those of
// AWS' SDK: the AWS_* variables, a profile, or the role of the machine.
type bucket struct {
	client       *s3.Client
	name, prefix string
}

// newBucket returns the sink of an address such as s3://BUCKET/PREFIX. authorities are certificates in PEM that the
// server's is verified with; none are the system's.
func newBucket(address string, authorities []byte) (*bucket, error) {
	at, err := url.Parse(address)
	if err != nil || at.Scheme != "s3" || at.Host == "" || at.RawQuery != "" || at.User != nil {
		return nil, fmt.Errorf("audit.address must be s3://BUCKET or s3://BUCKET/PREFIX, got %q", address)
	}
	options := []func(*awsconfig.LoadOptions) error{
		awsconfig.WithHTTPClient(awshttp.NewBuildableClient().WithTimeout(requestTimeout)),
		awsconfig.WithRetryer(func() aws.Retryer { return aws.NopRetryer{} }), // the follower sends again
	}
	if authorities != nil {
		options = append(options, awsconfig.WithCustomCABundle(bytes.NewReader(authorities)))
	}
	cfg, err := awsconfig.LoadDefaultConfig(context.Background(), options...)
	if err != nil {
		return nil, fmt.Errorf("read the AWS_* variables and the profile: %w", err)
	}
	if cfg.Region == "" {
		cfg.Region = "us-east-1" // as AWS' CLI for buckets
	}
	client := s3.NewFromConfig(cfg, func(o *s3.Options) {
		o.UsePathStyle = o.BaseEndpoint != nil // servers other than AWS have no host for each bucket
	})
	if endpoint := client.Options().BaseEndpoint; endpoint != nil {
		if err := connectors.CheckAddress("AWS_ENDPOINT_URL_S3", *endpoint); err != nil {
			return nil, err
		}
	}
	return &bucket{client, at.Host, strings.Trim(at.Path, "/")}, nil
}

// key names the object of a batch by its chain, the day, and the first and the last record. A batch that is sent again
// replaces the object, or overlaps with it.
func (b *bucket) key(events []Event) string {
	first, last := events[0], events[len(events)-1]
	day := time.UnixMilli(first.Time).UTC().Format("2006/01/02")
	return path.Join(b.prefix, first.Metadata.Tenant, day,
		fmt.Sprintf("%012d-%012d.jsonl", first.Metadata.Sequence, last.Metadata.Sequence))
}

// Send implements Sink. The bucket has the object, with the checksum of its content, when it returns.
func (b *bucket) Send(ctx context.Context, events []Event) error {
	body, err := lines(events)
	if err != nil {
		return err
	}
	key := b.key(events)
	put, err := b.client.PutObject(ctx, &s3.PutObjectInput{
		Bucket: &b.name, Key: &key, Body: bytes.NewReader(body), ContentType: aws.String("application/x-ndjson"),
		ChecksumAlgorithm: types.ChecksumAlgorithmSha256,
	})
	if err != nil {
		return b.failure("store", err)
	}
	has, err := b.client.HeadObject(ctx, &s3.HeadObjectInput{
		Bucket: &b.name, Key: &key, ChecksumMode: types.ChecksumModeEnabled,
	})
	switch {
	case err != nil:
		return b.failure("confirm", err)
	case aws.ToInt64(has.ContentLength) != int64(len(body)), differ(put.ChecksumSHA256, has.ChecksumSHA256):
		return fmt.Errorf("the bucket %s has another object than the one that was stored", b.name)
	}
	return nil
}

// differ reports whether two checksums are known and differ. Some servers return none.
func differ(a, b *string) bool {
	return aws.ToString(a) != "" && aws.ToString(b) != "" && *a != *b
}

// failure is the error of a request. It quotes the code of the answer, and no text.
func (b *bucket) failure(what string, err error) error {
	var api smithy.APIError
	if errors.As(err, &api) {
		return fmt.Errorf("%s an object in the bucket %s: the server answered %q", what, b.name, api.ErrorCode())
	}
	return fmt.Errorf("%s an object in the bucket %s: %s", what, b.name, connectors.TransportReason(err))
}

// Close implements Sink.
func (*bucket) Close() error { return nil }
