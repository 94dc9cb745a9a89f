package workflows

import (
	"fmt"
	"time"

	"github.com/google/uuid"
	"go.temporal.io/sdk/workflow"

	"github.com/leaverhq/leaver/activities"
	"github.com/leaverhq/leaver/internal/cascade"
	"github.com/leaverhq/leaver/internal/credential"
)

// The names of the query and the Updates of a running cascade.
const (
	QueryProgress = "progress"
	UpdateRetry   = "retry"
	UpdateWaive   = "waive"
)

// inTemporal is the actor of requests that name none, such as those from Temporal's UI.
const inTemporal = "temporal"

// RetryRequest requests an immediate retry of one item, or of all pending and failed
// items if Item is zero.
type RetryRequest struct {
	Item   uuid.UUID `json:"item,omitzero"`
	By     string    `json:"by,omitempty"`
	Reason string    `json:"reason,omitempty"`
	At     time.Time `json:"at"` // time of the request, see maxRequestAge
}

// RetryResponse contains the number of items that are retried.
type RetryResponse struct {
	Retried int `json:"retried"`
}

// WaiveRequest requests that one survivor is tolerated until a time.
type WaiveRequest struct {
	Item   uuid.UUID `json:"item"`
	By     string    `json:"by,omitempty"`
	Reason string    `json:"reason"`
	Until  time.Time `json:"until"`
	At     time.Time `json:"at"`
}

// maxRequestAge is the maximum age of an update request. It limits the replay of a sealed
// request by another Temporal client.
const maxRequestAge = 10 * time.Minute

func checkAge(ctx workflow.Context, at time.Time) error {
	if age := workflow.Now(ctx).Sub(at); age > maxRequestAge || age < -maxRequestAge {
		return fmt.Errorf(
			"the request time %s is more than %s away from now: send a new request", at.UTC().Format(time.RFC3339),
			maxRequestAge,
		)
	}
	return nil
}

func (c *cascadeRun) handle(ctx workflow.Context) error {
	if err := workflow.SetQueryHandler(
		ctx, QueryProgress, func() (Progress, error) { return c.progress(), nil },
	); err != nil {
		return fmt.Errorf("set the query handler: %w", err)
	}
	err := workflow.SetUpdateHandlerWithOptions(
		ctx, UpdateRetry, c.retry, workflow.UpdateHandlerOptions{Validator: c.validateRetry},
	)
	if err == nil {
		err = workflow.SetUpdateHandlerWithOptions(
			ctx, UpdateWaive, c.waive, workflow.UpdateHandlerOptions{Validator: c.validateWaive},
		)
	}
	if err != nil {
		return fmt.Errorf("set the update handlers: %w", err)
	}
	return nil
}

// validateRetry rejects invalid requests before they add an event to the history.
func (c *cascadeRun) validateRetry(ctx workflow.Context, r RetryRequest) error {
	if err := checkAge(ctx, r.At); err != nil {
		return err
	}
	if c.phase != "ending" {
		return fmt.Errorf("cannot retry while the cascade is %s: re-run the cascade once it is closed", c.phase)
	}
	if r.Reason == "" {
		return fmt.Errorf("reason is required: it is recorded in the audit log")
	}
	if r.Item == uuid.Nil {
		return nil
	}
	return c.isAlive(r.Item)
}

func (c *cascadeRun) isAlive(id uuid.UUID) error {
	i := c.items[id.String()]
	switch {
	case i == nil:
		return fmt.Errorf("this run of the cascade has no item %s", id)
	case i.state != credential.Ending && i.state != credential.Failed:
		return fmt.Errorf("item %s is %s: only items in state %s or %s can be retried or waived",
			id, i.state, credential.Ending, credential.Failed)
	}
	return nil
}

func (c *cascadeRun) retry(ctx workflow.Context, r RetryRequest) (RetryResponse, error) {
	var response RetryResponse
	for _, i := range c.order {
		if r.Item != uuid.Nil && i.ID != r.Item {
			continue
		}
		switch i.state {
		case credential.Ending:
			if i.cancel == nil {
				continue // its first attempt is not started yet
			}
			i.again = true
			i.cancel()
			response.Retried++
		case credential.Failed:
			c.deadline = later(c.deadline, workflow.Now(ctx).Add(c.in.Policy.AttemptTimeout))
			c.begin(ctx, i)
			response.Retried++
		default:
		}
	}
	act := activities.Act{Cascade: c.in.ref(), Verb: UpdateRetry, Item: r.Item, By: orTemporal(r.By), Reason: r.Reason}
	return response, workflow.ExecuteLocalActivity(localActivity(ctx), a.RecordAct, act).Get(ctx, nil)
}

// validateWaive rejects a request whose item is concluded, whose reason is missing, or
// whose end is not in the next [cascade.MaxWaiver].
func (c *cascadeRun) validateWaive(ctx workflow.Context, r WaiveRequest) error {
	now := workflow.Now(ctx)
	if err := checkAge(ctx, r.At); err != nil {
		return err
	}
	switch {
	case c.phase == phaseReporting || c.phase == "completed" || c.phase == "failed":
		return fmt.Errorf("cannot waive while the cascade is %s: repeat the request once it is closed", c.phase)
	case r.Reason == "":
		return fmt.Errorf("reason is required: it is recorded in the audit log")
	case !r.Until.After(now) || r.Until.After(now.Add(cascade.MaxWaiver)):
		return fmt.Errorf("until must be within a year from now, got %s", r.Until.UTC().Format(time.RFC3339))
	}
	return c.isAlive(r.Item)
}

// waive stores a waiver of an item and cancels the item's pending activity.
func (c *cascadeRun) waive(ctx workflow.Context, r WaiveRequest) error {
	i := c.items[r.Item.String()]
	act := activities.Act{
		Cascade: c.in.ref(), Verb: UpdateWaive, Item: r.Item, By: orTemporal(r.By), Reason: r.Reason, Until: r.Until,
	}
	if err := workflow.ExecuteLocalActivity(localActivity(ctx), a.Waive, act).Get(ctx, nil); err != nil {
		return err
	}
	if i.state != credential.Ending && i.state != credential.Failed {
		return nil // it ended meanwhile
	}
	c.set(i, credential.Waived, r.Reason)
	for n, held := range c.deferred {
		if held == i {
			c.deferred = append(c.deferred[:n:n], c.deferred[n+1:]...)
			break
		}
	}
	if i.cancel != nil {
		i.cancel()
	}
	c.show(ctx)
	return nil
}

func orTemporal(by string) string {
	if by == "" {
		return inTemporal
	}
	return by
}
