package connectors

// TaskQueue returns the name of the Temporal task queue of a connector's activities. Each
// connector has a separate queue: its rate limit holds across workers, and a slow connector
// delays no other (I10).
func TaskQueue(connector string) string { return "leaver-connector-" + connector }
