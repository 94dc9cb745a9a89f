package aws

import (
	"errors"
	"slices"

	"github.com/aws/smithy-go"

	"github.com/leaverhq/leaver/activities/connectors"
)

// Error codes that the connector handles, from the "Errors" sections of the IAM and STS API references and from
// https://docs.aws.amazon.com/IAM/latest/APIReference/CommonErrors.html.
const (
	noSuchEntity  = "NoSuchEntity"
	limitExceeded = "LimitExceeded"
	accessDenied  = "AccessDenied"
	invalidKey    = "InvalidClientTokenId" // the key does not exist or is inactive
	wrongSecret   = "SignatureDoesNotMatch"
)

// temporary returns the error codes of calls that may be retried.
func temporary() []string {
	return []string{
		"Throttling", "ThrottlingException", "RequestLimitExceeded", "TooManyRequestsException", "ServiceFailure",
		"ServiceUnavailable", "InternalFailure", "InternalError", "RequestTimeout", "RequestTimeoutException",
		"EntityTemporarilyUnmodifiable", "ConcurrentModification", "RequestExpired",
	}
}

// code returns the error code of an API's answer, or an empty string.
func code(err error) string {
	var api smithy.APIError
	if errors.As(err, &api) {
		return api.ErrorCode()
	}
	return ""
}

// classify returns the error of a call. It quotes the answer's code, which is one of AWS's, and no text.
func classify(what string, err error) error {
	var api smithy.APIError
	switch {
	case !errors.As(err, &api):
		return connectors.Retryable("%s: %s", what, connectors.TransportReason(err))
	case slices.Contains(temporary(), api.ErrorCode()), api.ErrorFault() == smithy.FaultServer:
		return connectors.Retryable("%s: AWS answered %s", what, quoteCode(api.ErrorCode()))
	case api.ErrorCode() == accessDenied:
		return connectors.Permanent("%s: AWS answered AccessDenied: the connector's policy lacks the permission", what)
	case api.ErrorCode() == invalidKey, api.ErrorCode() == wrongSecret:
		return connectors.Permanent("%s: AWS answered %s: check the connector's own key", what, api.ErrorCode())
	}
	return connectors.Permanent("%s: AWS answered %s", what, quoteCode(api.ErrorCode()))
}

// quoteCode returns a code or a service's name if it has the form of one: a word of at most 64 letters and digits.
func quoteCode(code string) string {
	word := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-'
	}
	if code == "" || len(code) > 64 || slices.ContainsFunc([]rune(code), func(r rune) bool { return !word(r) }) {
		return "an unknown error or service"
	}
	return code
}
