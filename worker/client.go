// Package worker sets up the Temporal client with its converters, the connectors from the
// configuration, the schedules, and the workers with their workflows and activities.
package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"go.temporal.io/api/operatorservice/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/contrib/envconfig"
	"go.temporal.io/sdk/interceptor"
	"go.temporal.io/sdk/log"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/leaverhq/leaver/internal/config"
	"github.com/leaverhq/leaver/internal/seal"
)

// retention is the time for which Temporal keeps closed workflows in a namespace that
// `leaver migrate` creates. A quarter lets auditors find them in the UI.
const retention = 90 * 24 * time.Hour

// NewClient returns a client that connects on first use, so that a process can start while
// Temporal is down. It encrypts payloads and failures. Its interceptors, and its metrics unless they are nil, are also
// those of workers.
func NewClient(
	cfg config.Temporal, sealer *seal.Sealer, logger *slog.Logger, metrics client.MetricsHandler,
	interceptors ...interceptor.ClientInterceptor,
) (client.Client, error) {
	options, err := clientOptions(cfg)
	if err != nil {
		return nil, err
	}
	options.DataConverter = seal.DataConverter(sealer)
	options.FailureConverter = seal.FailureConverter(sealer)
	options.Interceptors = interceptors
	options.MetricsHandler = metrics
	options.Logger = log.NewStructuredLogger(logger)
	c, err := client.NewLazyClient(options)
	if err != nil {
		return nil, fmt.Errorf("configure the Temporal client: %w", err)
	}
	return c, nil
}

// clientOptions returns the client options. Settings that are not configured come from the
// TEMPORAL_* variables and profiles of Temporal's CLI.
func clientOptions(cfg config.Temporal) (client.Options, error) {
	options, err := envconfig.LoadDefaultClientOptions()
	if err != nil {
		return client.Options{}, fmt.Errorf("read the TEMPORAL_* variables and the profile: %w", err)
	}
	if cfg.Address != "" {
		options.HostPort = cfg.Address
	}
	if cfg.Namespace != "" {
		options.Namespace = cfg.Namespace
	}
	options.Identity = "leaver"
	return options, nil
}

// EnsureNamespace creates the namespace and the search attributes if they are missing. It
// returns [ErrMisconfigured] if the namespace keeps closed workflows for less than
// temporal.minimum_retention.
func EnsureNamespace(ctx context.Context, cfg config.Temporal) (Namespace, error) {
	options, err := clientOptions(cfg)
	if err != nil {
		return Namespace{}, err
	}
	c, err := client.DialContext(ctx, options)
	if err != nil {
		return Namespace{}, fmt.Errorf("connect to Temporal at %s: %w", options.HostPort, err)
	}
	defer c.Close()
	_, err = c.WorkflowService().RegisterNamespace(ctx, &workflowservice.RegisterNamespaceRequest{
		Namespace: options.Namespace, Description: "leaver",
		WorkflowExecutionRetentionPeriod: durationpb.New(retention),
	})
	var exists *serviceerror.NamespaceAlreadyExists
	var denied *serviceerror.PermissionDenied // another process manages namespaces; CheckNamespace decides
	if err != nil && !errors.As(err, &exists) && !errors.As(err, &denied) {
		return Namespace{}, fmt.Errorf("register namespace %s: %w", options.Namespace, err)
	}
	created := err == nil
	if err := ensureSearchAttributes(ctx, c, options.Namespace); err != nil {
		return Namespace{}, err
	}
	n, err := CheckNamespace(ctx, c, cfg)
	if n.Created = created; err != nil {
		return n, err
	}
	if short := n.Short(cfg); short != "" {
		return n, fmt.Errorf("%w: %s", ErrMisconfigured, short)
	}
	return n, nil
}

func ensureSearchAttributes(ctx context.Context, c client.Client, namespace string) error {
	// Retry not found: a new namespace may not have reached every part of the server yet.
	var err error
	for range 50 {
		if err = addSearchAttributes(ctx, c, namespace); err == nil {
			return nil
		}
		var notFound *serviceerror.NotFound
		var namespaceNotFound *serviceerror.NamespaceNotFound
		if !errors.As(err, &notFound) && !errors.As(err, &namespaceNotFound) {
			break
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
	return fmt.Errorf("add search attributes to %s: %w", namespace, err)
}

func addSearchAttributes(ctx context.Context, c client.Client, namespace string) error {
	have, err := c.OperatorService().ListSearchAttributes(
		ctx, &operatorservice.ListSearchAttributesRequest{Namespace: namespace},
	)
	if err != nil {
		return err
	}
	missing := missingAttributes(have.GetCustomAttributes())
	if len(missing) == 0 {
		return nil
	}
	_, err = c.OperatorService().AddSearchAttributes(ctx, &operatorservice.AddSearchAttributesRequest{
		Namespace: namespace, SearchAttributes: missing,
	})
	return err
}
