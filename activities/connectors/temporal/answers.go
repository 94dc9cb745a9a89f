package temporal

import (
	"errors"

	"go.temporal.io/api/serviceerror"

	"github.com/leaverhq/leaver/activities/connectors"
)

// isGone: there is no such schedule or run. A deleted schedule answers "workflow
// execution already completed", which is a NotFound as well.
func isGone(err error) bool {
	var notFound *serviceerror.NotFound
	return errors.As(err, &notFound)
}

// classify reads the service's errors: what depends on us or on rights is
// permanent, the rest passes.
func classify(what string, err error) error {
	var denied *serviceerror.PermissionDenied
	var invalid *serviceerror.InvalidArgument
	var namespace *serviceerror.NamespaceNotFound
	switch {
	case errors.As(err, &denied):
		return connectors.Permanent("%s: permission denied", what)
	case errors.As(err, &invalid):
		return connectors.Permanent("%s: invalid argument", what)
	case errors.As(err, &namespace):
		return connectors.Permanent("%s: no such namespace", what)
	}
	return connectors.Retryable("%s: %s", what, connectors.TransportReason(err))
}
