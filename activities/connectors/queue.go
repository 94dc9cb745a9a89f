package connectors

// TaskQueue is the Temporal task queue of a connector's activities: one each,
// so that its rate holds across workers and its slowness delays no other (I10).
func TaskQueue(connector string) string { return "leaver-connector-" + connector }
