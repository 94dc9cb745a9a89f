package connectors_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"

	"github.com/leaverhq/leaver/activities/connectors"
)

// keys is a connector to a service that deletes API keys by their id.
type keys struct {
	url    string
	client *http.Client
}

// Accepts implements connectors.Connector: each id has one spelling.
func (k keys) Accepts(r connectors.Registration) (string, error) {
	if r.Kind != connectors.APIKey {
		return "", fmt.Errorf("kind must be %s, got %q", connectors.APIKey, r.Kind)
	}
	return r.Reference, nil
}

// Close implements connectors.Connector.
func (k keys) Close() { k.client.CloseIdleConnections() }

// Revoke implements connectors.Revoker. "Already gone" is a success, and an unknown answer is not.
func (k keys) Revoke(ctx context.Context, t connectors.Target) (connectors.Answer, error) {
	if err := t.CheckFence(ctx); err != nil {
		return connectors.Answer{}, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodDelete, k.url+"/keys/"+t.Reference, http.NoBody)
	if err != nil {
		return connectors.Answer{}, connectors.Permanent("invalid reference: %w", err)
	}
	resp, body, err := connectors.Exchange(k.client, req)
	if err != nil {
		return connectors.Answer{}, err
	}
	switch resp.StatusCode {
	case http.StatusNoContent:
		return connectors.Answer{Outcome: connectors.Done, Detail: "deleted"}, nil
	case http.StatusGone:
		return connectors.Answer{Outcome: connectors.Gone, Detail: "no such key"}, nil
	}
	return connectors.Answer{}, connectors.StatusError(resp, connectors.ErrorCode(body))
}

// A connector classifies each answer where it reads it: Temporal retries what is not permanent.
func ExampleRevoker() {
	answers := map[string]int{"/keys/1": 204, "/keys/2": 410, "/keys/3": 503, "/keys/4": 403}
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(answers[r.URL.Path])
	}))
	defer service.Close()
	var connector connectors.Revoker = keys{service.URL, connectors.NewHTTPClient()}
	for _, reference := range []string{"1", "2", "3", "4"} {
		answer, err := connector.Revoke(context.Background(), connectors.Target{Reference: reference})
		fmt.Println(reference, answer.Outcome, err != nil, connectors.IsPermanent(err))
	}
	// Output:
	// 1 done false false
	// 2 gone false false
	// 3  true false
	// 4  true true
}
