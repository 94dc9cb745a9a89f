package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"

	"github.com/leaverhq/leaver/internal/devstack/openid"
	"github.com/leaverhq/leaver/internal/scram"
)

var errWorks = errors.New("it still works")

// refreshToken takes an agent through the provider's authorization code flow,
// and one refresh, which is its proof of life.
func (d *drill) refreshToken(ctx context.Context, n int) (*holding, string, error) {
	first, err := d.peers.openid.Authorize(ctx, d.ada)
	if err != nil {
		return nil, "", fmt.Errorf("authorize agent %d: %w", n+1, err)
	}
	grant, err := d.peers.openid.Refresh(ctx, first.RefreshToken)
	if err != nil {
		return nil, "", fmt.Errorf("refresh the token of agent %d: %w", n+1, err)
	}
	h := &holding{what: fmt.Sprintf("refresh token of agent %d", n+1), where: "OpenID provider"}
	h.use = func(ctx context.Context) error {
		if active, err := d.peers.openid.Active(ctx, grant.RefreshToken); err != nil || !active {
			return fmt.Errorf("introspection says active: %t: %w", active, err)
		}
		return nil
	}
	h.dead = func(ctx context.Context) (string, error) {
		switch _, err := d.peers.openid.Refresh(ctx, grant.RefreshToken); {
		case errors.Is(err, openid.ErrInvalidGrant):
			return "the refresh grant fails: invalid_grant", nil
		case err != nil:
			return "", err
		}
		return "", errWorks
	}
	return h, grant.RefreshToken, nil
}

// serviceAccount makes a role in the downstream database and opens a session.
func (d *drill) serviceAccount(ctx context.Context) (h *holding, role, password string, err error) {
	role, password = "agent_"+d.peers.suffix, rand.Text()
	verifier, err := scram.NewVerifier(password)
	if err != nil {
		return nil, "", "", err
	}
	admin, err := pgx.Connect(ctx, d.peers.database)
	if err != nil {
		return nil, "", "", fmt.Errorf("connect to the downstream database: %w", err)
	}
	defer func() { _ = admin.Close(context.WithoutCancel(ctx)) }()
	if _, err := admin.Exec(ctx, "create role "+role+" login password '"+verifier+"'"); err != nil {
		return nil, "", "", fmt.Errorf("create the service account: %w", err)
	}
	session, err := pgx.Connect(ctx, login(d.peers.owner, role, password))
	if err != nil {
		return nil, "", "", fmt.Errorf("open the service account's session: %w", err)
	}
	d.peers.closers = append(d.peers.closers, func() { _ = session.Close(context.WithoutCancel(ctx)) })
	h = &holding{what: "service account, open session", where: "PostgreSQL database"}
	h.use = func(ctx context.Context) error {
		_, err := session.Exec(ctx, "select 1")
		return err
	}
	h.dead = func(ctx context.Context) (string, error) {
		if _, err := session.Exec(ctx, "select 1"); err == nil {
			return "", fmt.Errorf("its session: %w", errWorks)
		}
		conn, err := pgx.Connect(ctx, login(d.peers.owner, role, password))
		var refused *pgconn.PgError
		switch {
		case err == nil:
			_ = conn.Close(ctx)
			return "", fmt.Errorf("its login: %w", errWorks)
		case errors.As(err, &refused):
			return "the session is cut, the login refused: SQLSTATE " + refused.Code, nil
		}
		return "", err
	}
	return h, role, password, nil
}

// schedule makes a schedule and waits until it has fired.
func (d *drill) schedule(ctx context.Context) (*holding, string, error) {
	id := "outreach-" + d.peers.suffix
	handle, err := d.peers.temporal.ScheduleClient().Create(ctx, client.ScheduleOptions{
		ID:   id,
		Spec: client.ScheduleSpec{Intervals: []client.ScheduleIntervalSpec{{Every: time.Second}}},
		Action: &client.ScheduleWorkflowAction{
			ID: id + "-run", Workflow: WriteToCustomers, TaskQueue: agentsQueue,
		},
	})
	if err != nil {
		return nil, "", fmt.Errorf("create the schedule: %w", err)
	}
	run, err := d.fired(ctx, handle)
	if err != nil {
		return nil, "", err
	}
	status := func(ctx context.Context) (enums.WorkflowExecutionStatus, error) {
		description, err := d.peers.temporal.DescribeWorkflowExecution(ctx, run.WorkflowID, run.FirstExecutionRunID)
		return description.GetWorkflowExecutionInfo().GetStatus(), err
	}
	h := &holding{what: "scheduled run, firing", where: "Temporal schedule"}
	h.use = func(ctx context.Context) error {
		if s, err := status(ctx); err != nil || s != enums.WORKFLOW_EXECUTION_STATUS_RUNNING {
			return fmt.Errorf("its run is %s: %w", s, err)
		}
		return nil
	}
	h.dead = func(ctx context.Context) (string, error) {
		var gone *serviceerror.NotFound
		if _, err := handle.Describe(ctx); !errors.As(err, &gone) {
			return "", errors.Join(errors.New("the schedule is there"), err, errWorks)
		}
		s, err := status(ctx)
		if err != nil || s == enums.WORKFLOW_EXECUTION_STATUS_RUNNING {
			return "", errors.Join(fmt.Errorf("its run is %s", s), err, errWorks)
		}
		return fmt.Sprintf("the schedule is gone, its run %s", s), nil
	}
	return h, id, nil
}

func (d *drill) fired(ctx context.Context, handle client.ScheduleHandle) (client.ScheduleWorkflowExecution, error) {
	ctx, cancel := context.WithTimeout(ctx, drillPatience)
	defer cancel()
	for {
		description, err := handle.Describe(ctx)
		if err != nil {
			return client.ScheduleWorkflowExecution{}, fmt.Errorf("look at the schedule: %w", err)
		}
		if running := description.Info.RunningWorkflows; len(running) > 0 {
			return running[0], nil
		}
		select {
		case <-ctx.Done():
			return client.ScheduleWorkflowExecution{}, fmt.Errorf("the schedule does not fire: %w", ctx.Err())
		case <-time.After(50 * time.Millisecond):
		}
	}
}
