package rest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/leaverhq/leaver/activities/connectors"
)

// signature is the authentication by a signature of the whole request, AWS Signature Version 4.
type signature struct {
	service, region *template
	keyID, secret   *template // of an access key; empty for the SDK's default chain
}

func (s *signature) templates() []*template {
	if s == nil {
		return nil
	}
	return []*template{s.service, s.region, s.keyID, s.secret}
}

// provider returns the credentials that requests are signed with.
func (s *signature) provider(v values) (aws.CredentialsProvider, error) {
	id, secret := s.keyID.text(v), s.secret.text(v)
	switch {
	case (id == "") != (secret == ""):
		return nil, errors.New("an access key has an id and a secret: set both, or neither to use the role of the instance")
	case id != "":
		return credentials.NewStaticCredentialsProvider(id, secret, ""), nil
	}
	config, err := awsconfig.LoadDefaultConfig(context.Background())
	if err != nil {
		return nil, fmt.Errorf("read the configuration of the AWS SDK: %w", err)
	}
	return config.Credentials, nil
}

// sign signs a request, which must not change afterwards.
func (c *Connector) sign(req *http.Request, s *signature, v values) error {
	key, err := c.signer.Retrieve(req.Context())
	if err != nil {
		return connectors.Retryable(
			"get AWS credentials for the requests (set an access key, or give the process a role): %s",
			connectors.TransportReason(err))
	}
	body, err := req.GetBody()
	if err != nil {
		return connectors.Permanent("read the request: %w", err)
	}
	hash := sha256.New()
	if _, err := io.Copy(hash, body); err != nil {
		return connectors.Permanent("read the request: %w", err)
	}
	digest := hex.EncodeToString(hash.Sum(nil))
	err = v4.NewSigner().SignHTTP(req.Context(), key, req, digest, s.service.text(v), s.region.text(v), time.Now())
	if err != nil {
		return connectors.Permanent("sign the request: %w", err)
	}
	return nil
}
