package webhook

import (
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/leaverhq/leaver/activities/connectors"
)

// readEnd classifies the response to a request that ends an item. 2xx is done, or the
// outcome in the body. A bare 404 is an error, since a proxy in front of the platform
// returns it, too.
func readEnd(resp *http.Response, body []byte) (connectors.Answer, error) {
	switch {
	case resp.StatusCode == http.StatusAccepted:
		// Accepted is not done: the next attempt, with the same id, asks for the result.
		return connectors.Answer{}, connectors.Retryable("the platform has not completed the request yet (202)")
	case resp.StatusCode < 200 || resp.StatusCode > 299:
		return connectors.Answer{}, connectors.StatusError(resp, connectors.ErrorCode(body))
	case len(body) == 0:
		return connectors.Answer{
			Outcome: connectors.Done, Detail: fmt.Sprintf("the platform returned %d", resp.StatusCode),
		}, nil
	}
	var answer struct {
		Outcome connectors.Outcome `json:"outcome"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return connectors.Answer{}, connectors.Permanent(
			"the platform returned %d with a body that is not the JSON of docs/WEBHOOK.md", resp.StatusCode,
		)
	}
	switch answer.Outcome {
	case "", connectors.Done:
		return connectors.Answer{Outcome: connectors.Done, Detail: "the platform returned outcome done"}, nil
	case connectors.Gone, connectors.Expires:
		return connectors.Answer{
			Outcome: answer.Outcome, Detail: "the platform returned outcome " + string(answer.Outcome),
		}, nil
	case connectors.Unchanged: // a platform does not say so
	}
	return connectors.Answer{}, connectors.Permanent("the platform's outcome must be one of done, gone, expires")
}

// readVerify returns the vitality in a 2xx response, whose body is {"alive": true|false}.
// 501 is unknown.
func readVerify(resp *http.Response, body []byte) (connectors.Vitality, string, error) {
	switch {
	case resp.StatusCode == http.StatusNotImplemented:
		return connectors.Unknown, "the platform offers no verification", nil
	case resp.StatusCode < 200 || resp.StatusCode > 299:
		return connectors.Unknown, "", connectors.StatusError(resp, connectors.ErrorCode(body))
	}
	var answer struct {
		Alive *bool `json:"alive"`
	}
	switch err := json.Unmarshal(body, &answer); {
	case err != nil || answer.Alive == nil:
		return connectors.Unknown, "", connectors.Permanent("the response to credential.verify has no boolean `alive`")
	case *answer.Alive:
		return connectors.Alive, "the platform returned alive: true", nil
	}
	return connectors.Dead, "the platform returned alive: false", nil
}
