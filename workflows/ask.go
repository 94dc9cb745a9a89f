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

// What operators may ask of a running cascade.
const (
	QueryProgress = "progress"
	UpdateRetry   = "retry"
	UpdateWaive   = "waive"
)

// inTemporal is who asks where nobody is named: a person in Temporal's UI.
const inTemporal = "temporal"

// RetryRequest asks to try one item again now, or all that wait or failed.
type RetryRequest struct {
	Item   uuid.UUID `json:"item,omitzero"`
	By     string    `json:"by,omitempty"`
	Reason string    `json:"reason,omitempty"`
	At     time.Time `json:"at"` // when it was asked; an old request is a repeated one
}

// RetryResponse says how many items are tried again.
type RetryResponse struct {
	Retried int `json:"retried"`
}

// WaiveRequest asks to tolerate one survivor until a time.
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
		return fmt.Errorf("the request time %s is more than %s away from now: send a new request", at.UTC().Format(time.RFC3339), maxRequestAge)
	}
	return nil
}

func (c *cascadeRun) handle(ctx workflow.Context) error {
	if err := workflow.SetQueryHandler(ctx, QueryProgress, func() (Progress, error) { return c.progress(), nil }); err != nil {
		return fmt.Errorf("set the query handler: %w", err)
	}
	err := workflow.SetUpdateHandlerWithOptions(ctx, UpdateRetry, c.retry, workflow.UpdateHandlerOptions{Validator: c.validateRetry})
	if err == nil {
		err = workflow.SetUpdateHandlerWithOptions(ctx, UpdateWaive, c.waive, workflow.UpdateHandlerOptions{Validator: c.validateWaive})
	}
	if err != nil {
		return fmt.Errorf("set the update handlers: %w", err)
	}
	return nil
}

// validateRetry refuses what cannot be retried, so that it leaves no event.
func (c *cascadeRun) validateRetry(ctx workflow.Context, r RetryRequest) error {
	if err := checkAge(ctx, r.At); err != nil {
		return err
	}
	if c.phase != "ending" {
		return fmt.Errorf("the cascade is %s: re-run it once it is closed", c.phase)
	}
	if r.Reason == "" {
		return fmt.Errorf("a retry needs a reason: it goes on record")
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
	case i.state != credential.Ending && i.state != credential.Survivor:
		return fmt.Errorf("item %s is %s", id, i.state)
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
				continue // it waits for its turn
			}
			i.again = true
			i.cancel()
			response.Retried++
		case credential.Survivor:
			c.deadline = later(c.deadline, workflow.Now(ctx).Add(c.in.Policy.AttemptTimeout))
			c.begin(ctx, i)
			response.Retried++
		default:
		}
	}
	act := activities.Act{Cascade: c.in.ref(), Verb: UpdateRetry, Item: r.Item, By: orTemporal(r.By), Reason: r.Reason}
	return response, workflow.ExecuteLocalActivity(localActivity(ctx), a.RecordAct, act).Get(ctx, nil)
}

// validateWaive wants a survivor, a reason, and an end.
func (c *cascadeRun) validateWaive(ctx workflow.Context, r WaiveRequest) error {
	now := workflow.Now(ctx)
	if err := checkAge(ctx, r.At); err != nil {
		return err
	}
	switch {
	case c.phase == phaseReporting || c.phase == "completed" || c.phase == "failed":
		return fmt.Errorf("the cascade is %s", c.phase)
	case r.Reason == "":
		return fmt.Errorf("a waiver needs a reason")
	case !r.Until.After(now) || r.Until.After(now.Add(cascade.MaxWaiver)):
		return fmt.Errorf("a waiver ends within a year from now")
	}
	return c.isAlive(r.Item)
}

// waive stops trying to end an item, whatever is under way.
func (c *cascadeRun) waive(ctx workflow.Context, r WaiveRequest) error {
	i := c.items[r.Item.String()]
	act := activities.Act{Cascade: c.in.ref(), Verb: UpdateWaive, Item: r.Item, By: orTemporal(r.By), Reason: r.Reason, Until: r.Until}
	if err := workflow.ExecuteLocalActivity(localActivity(ctx), a.Waive, act).Get(ctx, nil); err != nil {
		return err
	}
	if i.state != credential.Ending && i.state != credential.Survivor {
		return nil // it ended meanwhile
	}
	c.set(i, credential.Waived, r.Reason)
	for n, held := range c.holding {
		if held == i {
			c.holding = append(c.holding[:n:n], c.holding[n+1:]...)
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
