package temporal

import (
	"context"

	"go.temporal.io/sdk/client"
)

// Check implements connectors.Checker by listing schedules.
func (c *Connector) Check(ctx context.Context) error {
	list, err := c.client.ScheduleClient().List(ctx, client.ScheduleListOptions{PageSize: 1})
	if err == nil && list.HasNext() {
		_, err = list.Next()
	}
	if err != nil {
		return classify("list schedules", err)
	}
	return nil
}
