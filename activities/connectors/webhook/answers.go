package webhook

import (
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/leaverhq/leaver/activities/connectors"
)

// readEnd: 2xx is done, or what the body's outcome says. A bare 404 is an error:
// any proxy in front of a platform says that.
func readEnd(resp *http.Response, body []byte) (connectors.Answer, error) {
	switch {
	case resp.StatusCode == http.StatusAccepted:
		// Queued is not done: the next attempt, with the same id, asks how it went.
		return connectors.Answer{}, connectors.Retryable("the platform accepted the request and has not done it yet (202)")
	case resp.StatusCode < 200 || resp.StatusCode > 299:
		return connectors.Answer{}, connectors.StatusError(resp, connectors.ErrorCode(body))
	case len(body) == 0:
		return connectors.Answer{Outcome: connectors.Done, Detail: fmt.Sprintf("the platform answered %d", resp.StatusCode)}, nil
	}
	var answer struct {
		Outcome connectors.Outcome `json:"outcome"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return connectors.Answer{}, connectors.Permanent("the platform answered 2xx with a body that is not the contract's JSON")
	}
	switch answer.Outcome {
	case "", connectors.Done:
		return connectors.Answer{Outcome: connectors.Done, Detail: "the platform said done"}, nil
	case connectors.Gone, connectors.Expires:
		return connectors.Answer{Outcome: answer.Outcome, Detail: "the platform said " + string(answer.Outcome)}, nil
	}
	return connectors.Answer{}, connectors.Permanent("the platform answered with an outcome that the contract does not have")
}

// readVerify: 2xx with {"alive": true|false}; 501 is unknown.
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
		return connectors.Unknown, "", connectors.Permanent("the platform verified without a boolean `alive`")
	case *answer.Alive:
		return connectors.Alive, "the platform said alive", nil
	}
	return connectors.Dead, "the platform said dead", nil
}
