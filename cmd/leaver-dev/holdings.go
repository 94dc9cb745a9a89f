package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"

	"github.com/leaverhq/leaver/activities/connectors/postgres"
	"github.com/leaverhq/leaver/activities/connectors/postgres/scram"
	"github.com/leaverhq/leaver/internal/devstack/openid"
)

var errWorks = errors.New("it still works")

// refreshToken gets a refresh token for an agent by the authorization code flow, and refreshes it
// once to prove that it works.
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

// role creates a login role with a comment in the downstream database.
func (d *drill) role(ctx context.Context, name, comment string) (role, password string, err error) {
	role, password = name+"_"+d.peers.suffix, rand.Text()
	verifier, err := scram.NewVerifier(password)
	if err != nil {
		return "", "", err
	}
	admin, err := pgx.Connect(ctx, d.peers.database)
	if err != nil {
		return "", "", fmt.Errorf("connect to the downstream database: %w", err)
	}
	defer func() { _ = admin.Close(context.WithoutCancel(ctx)) }()
	for _, sql := range []string{
		"create role " + role + " login password '" + verifier + "'",
		"comment on role " + role + " is '" + comment + "'",
	} {
		if _, err := admin.Exec(ctx, sql); err != nil {
			return "", "", fmt.Errorf("create the role %s: %w", role, err)
		}
	}
	return role, password, nil
}

// logsIn logs in with a role's password, and returns the error of a refused login.
func (d *drill) logsIn(ctx context.Context, role, password string) error {
	conn, err := pgx.Connect(ctx, login(d.peers.owner, role, password))
	if err != nil {
		return err
	}
	return conn.Close(ctx)
}

// refused returns the SQLSTATE with which a role's login is refused, or an error if it succeeds.
func (d *drill) refused(ctx context.Context, role, password string) (string, error) {
	err := d.logsIn(ctx, role, password)
	var refused *pgconn.PgError
	switch {
	case err == nil:
		return "", fmt.Errorf("its login: %w", errWorks)
	case errors.As(err, &refused):
		return "SQLSTATE " + refused.Code, nil
	}
	return "", err
}

// sharedAccount creates a role that is registered for Ada and for Bob.
func (d *drill) sharedAccount(ctx context.Context) (h *holding, role, password string, err error) {
	if role, password, err = d.role(ctx, "shared", "the reports"); err != nil {
		return nil, "", "", err
	}
	h = &holding{what: "service account, shared with Bob", where: "PostgreSQL database"}
	h.use = func(ctx context.Context) error { return d.logsIn(ctx, role, password) }
	h.dead = func(ctx context.Context) (string, error) {
		state, err := d.refused(ctx, role, password)
		if err != nil {
			return "", err
		}
		handed, ok := d.peers.platform.newSecretOf(role)
		if !ok {
			return "", errors.New("the other holder received no new secret")
		}
		if err := d.logsIn(ctx, handed.reference, handed.secret); err != nil {
			return "", fmt.Errorf("the other holder's new secret does not work: %w", err)
		}
		return "rotated: the old login is refused (" + state + "), Bob's new one works", nil
	}
	return h, role, password, nil
}

// forgotten creates a role that is not registered. Its comment labels it as Ada's.
func (d *drill) forgotten(ctx context.Context) (*holding, error) {
	role, password, err := d.role(ctx, "forgotten", postgres.Label+d.ada)
	if err != nil {
		return nil, err
	}
	h := &holding{what: "unregistered service account", where: "PostgreSQL database", reference: role}
	h.use = func(ctx context.Context) error { return d.logsIn(ctx, role, password) }
	h.dead = func(ctx context.Context) (string, error) {
		state, err := d.refused(ctx, role, password)
		return "found by its label, claimed, and refused: " + state, err
	}
	return h, nil
}

// apiKey creates a key at the agent platform; lies is the number of revocations that the platform
// confirms without performing them.
func (d *drill) apiKey(what, reference string, lies int) *holding {
	key := d.peers.platform.issue(reference, lies)
	h := &holding{what: what, where: "agent platform", reference: reference}
	h.use = func(ctx context.Context) error {
		if status, err := d.peers.platform.use(ctx, key); err != nil || status != http.StatusAccepted {
			return fmt.Errorf("the platform answered %d: %w", status, err)
		}
		return nil
	}
	h.dead = func(ctx context.Context) (string, error) {
		status, err := d.peers.platform.use(ctx, key)
		switch {
		case err != nil:
			return "", err
		case status != http.StatusUnauthorized:
			return "", errWorks
		case lies > 0:
			return fmt.Sprintf("the platform said done and lied; revoked again, it answers %d", status), nil
		}
		return fmt.Sprintf("the platform answers %d", status), nil
	}
	return h
}

// serviceAccount creates a role in the downstream database and opens a session with it.
func (d *drill) serviceAccount(ctx context.Context) (h *holding, role, password string, err error) {
	if role, password, err = d.role(ctx, "agent", "of an agent"); err != nil {
		return nil, "", "", err
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
		state, err := d.refused(ctx, role, password)
		return "the session is cut, the login refused: " + state, err
	}
	return h, role, password, nil
}

// schedule creates a Temporal schedule and waits until it has started a run.
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
			return "", errors.Join(errors.New("the schedule still exists"), err, errWorks)
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
	ctx, cancel := context.WithTimeout(ctx, drillTimeout)
	defer cancel()
	for {
		description, err := handle.Describe(ctx)
		if err != nil {
			return client.ScheduleWorkflowExecution{}, fmt.Errorf("describe the schedule: %w", err)
		}
		if running := description.Info.RunningWorkflows; len(running) > 0 {
			return running[0], nil
		}
		select {
		case <-ctx.Done():
			return client.ScheduleWorkflowExecution{}, fmt.Errorf("wait for the schedule's first run: %w", ctx.Err())
		case <-time.After(50 * time.Millisecond):
		}
	}
}
