package temporal

import (
	"errors"

	"go.temporal.io/api/serviceerror"

	"github.com/leaverhq/leaver/activities/connectors"
)

// isGone reports whether the schedule or run does not exist. A deleted schedule returns
// "workflow execution already completed", which is a NotFound as well.
func isGone(err error) bool {
	var notFound *serviceerror.NotFound
	return errors.As(err, &notFound)
}

// classify returns a permanent error for missing permissions, invalid arguments and unknown
// namespaces, and a retryable one for all other errors of the service.
func classify(what string, err error) error {
	var denied *serviceerror.PermissionDenied
	var invalid *serviceerror.InvalidArgument
	var namespace *serviceerror.NamespaceNotFound
	switch {
	case errors.As(err, &denied):
		return connectors.Permanent("%s: permission denied: check the connector's api_key", what)
	case errors.As(err, &invalid):
		return connectors.Permanent("%s: invalid argument", what)
	case errors.As(err, &namespace):
		return connectors.Permanent("%s: the connector's namespace does not exist", what)
	}
	return connectors.Retryable("%s: %s", what, connectors.TransportReason(err))
}
