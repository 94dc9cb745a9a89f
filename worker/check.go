package worker

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/operatorservice/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"

	"github.com/leaverhq/leaver/internal/config"
	"github.com/leaverhq/leaver/internal/evidence"
	"github.com/leaverhq/leaver/workflows"
)

// ErrMisconfigured marks errors of Temporal that a retry cannot fix: a namespace or a search
// attribute is missing.
var ErrMisconfigured = errors.New("the Temporal server is not set up for leaver")

// Namespace describes the Temporal namespace that leaver runs in.
type Namespace struct {
	Name      string
	Retention time.Duration // how long closed workflows are kept
	Created   bool          // created by EnsureNamespace
}

// Short returns a warning if the namespace keeps closed workflows, which are the audit log,
// for less than temporal.minimum_retention, and otherwise an empty string.
func (n Namespace) Short(cfg config.Temporal) string {
	if n.Retention >= cfg.MinimumRetention {
		return ""
	}
	minimum := days(cfg.MinimumRetention)
	return fmt.Sprintf("namespace %s keeps closed workflows, which are the audit log, for %s, and "+
		"temporal.minimum_retention is %s: run `temporal operator namespace update --retention %s %s`, or lower the setting",
		n.Name, days(n.Retention), minimum, minimum, n.Name)
}

// CheckArchive returns [ErrMisconfigured] if Temporal may delete a closed workflow before its history is archived.
func (n Namespace) CheckArchive() error {
	if n.Retention >= evidence.MaxArchiveLag {
		return nil
	}
	return fmt.Errorf("%w: the namespace %s keeps closed workflows for %s, which is less than the %s that archiving "+
		"them may take: run `temporal operator namespace update --retention 30d %[2]s`", ErrMisconfigured, n.Name,
		n.Retention, evidence.MaxArchiveLag)
}

// days formats a duration for Temporal's CLI.
func days(d time.Duration) string {
	if d%(24*time.Hour) == 0 {
		return fmt.Sprintf("%dd", d/(24*time.Hour))
	}
	return d.String()
}

// CheckNamespace returns the namespace that leaver runs in. It returns [ErrMisconfigured] if
// the namespace or a search attribute is missing, and another error if Temporal is
// unavailable.
func CheckNamespace(ctx context.Context, c client.Client, cfg config.Temporal) (Namespace, error) {
	options, err := clientOptions(cfg)
	if err != nil {
		return Namespace{}, err
	}
	n := Namespace{Name: options.Namespace}
	described, err := c.WorkflowService().DescribeNamespace(
		ctx, &workflowservice.DescribeNamespaceRequest{Namespace: n.Name},
	)
	var missing *serviceerror.NamespaceNotFound
	var notFound *serviceerror.NotFound
	if errors.As(err, &missing) || errors.As(err, &notFound) {
		return n, fmt.Errorf(
			"%w: namespace %s does not exist at %s: run `leaver migrate`", ErrMisconfigured, n.Name, options.HostPort,
		)
	}
	if err != nil {
		return n, fmt.Errorf("describe namespace %s: %w", n.Name, err)
	}
	n.Retention = described.GetConfig().GetWorkflowExecutionRetentionTtl().AsDuration()
	have, err := c.OperatorService().ListSearchAttributes(
		ctx, &operatorservice.ListSearchAttributesRequest{Namespace: n.Name},
	)
	if err != nil {
		return n, fmt.Errorf("list the search attributes of namespace %s: %w", n.Name, err)
	}
	if lacking := missingAttributes(have.GetCustomAttributes()); len(lacking) > 0 {
		return n, fmt.Errorf("%w: namespace %s lacks the search attributes %s: run `leaver migrate`",
			ErrMisconfigured, n.Name, strings.Join(slices.Sorted(maps.Keys(lacking)), ", "))
	}
	return n, nil
}

// missingAttributes returns the search attributes of leaver's workflows that have does not
// contain.
func missingAttributes(have map[string]enums.IndexedValueType) map[string]enums.IndexedValueType {
	missing := map[string]enums.IndexedValueType{
		workflows.SearchTenant.GetName():    enums.INDEXED_VALUE_TYPE_KEYWORD,
		workflows.SearchPrincipal.GetName(): enums.INDEXED_VALUE_TYPE_KEYWORD,
		workflows.SearchTrigger.GetName():   enums.INDEXED_VALUE_TYPE_KEYWORD,
		workflows.SearchState.GetName():     enums.INDEXED_VALUE_TYPE_KEYWORD,
		workflows.SearchSurvivors.GetName(): enums.INDEXED_VALUE_TYPE_INT,
	}
	maps.DeleteFunc(missing, func(name string, _ enums.IndexedValueType) bool { _, ok := have[name]; return ok })
	return missing
}
