package main

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"sync"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/leaverhq/leaver/internal/devstack"
)

// platform is an agent platform. It issues API keys, accepts requests with a live key, revokes
// keys as docs/WEBHOOK.md specifies, and receives the new secrets of rotated accounts for their
// remaining holders. It can confirm revocations without performing them.
type platform struct {
	url    string
	secret string // with which leaver signs its requests

	mu       sync.Mutex
	verifier *standardwebhooks.Webhook
	keys     map[string]*apiKey       // by reference
	handed   map[string]handedAccount // new secrets, by the reference that they replace
}

type apiKey struct {
	value string
	alive bool
	lies  int // number of revocations to confirm without performing them
}

// handedAccount is the new login that the holders of a rotated account received.
type handedAccount struct {
	reference, secret string
}

func startPlatform(ctx context.Context) (*platform, func(), error) {
	raw := make([]byte, 24)
	_, _ = rand.Read(raw) // never fails, see crypto/rand
	p := &platform{
		secret: "whsec_" + base64.StdEncoding.EncodeToString(raw),
		keys:   make(map[string]*apiKey), handed: make(map[string]handedAccount),
	}
	var err error
	if p.verifier, err = standardwebhooks.NewWebhook(p.secret); err != nil {
		return nil, nil, fmt.Errorf("create the platform's webhook verifier: %w", err)
	}
	listener, url, err := devstack.Listen(ctx, "the agent platform")
	if err != nil {
		return nil, nil, err
	}
	p.url = url
	mux := http.NewServeMux()
	mux.HandleFunc("POST /leaver", p.serveLeaver)
	mux.HandleFunc("GET /mail", p.serveAgents)
	return p, devstack.Serve(ctx, listener, mux), nil
}

// issue creates an API key; lies is the number of revocations to confirm without performing them.
func (p *platform) issue(reference string, lies int) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.keys[reference] = &apiKey{value: rand.Text(), alive: true, lies: lies}
	return p.keys[reference].value
}

// use sends a request with an API key and returns the status: 202 if the key works, else 401.
func (p *platform) use(ctx context.Context, key string) (int, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.url+"/mail", http.NoBody)
	if err != nil {
		return 0, err
	}
	req.Header.Set("Authorization", "Bearer "+key)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	return resp.StatusCode, resp.Body.Close()
}

// newSecretOf returns the new login that the holders of an account received.
func (p *platform) newSecretOf(account string) (handedAccount, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	h, ok := p.handed[account]
	return h, ok
}

func (p *platform) serveAgents(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, key := range p.keys {
		if r.Header.Get("Authorization") == "Bearer "+key.value && key.alive {
			w.WriteHeader(http.StatusAccepted)
			return
		}
	}
	w.WriteHeader(http.StatusUnauthorized)
}

// message is the part of leaver's request that the platform reads.
type message struct {
	Type string `json:"type"`
	Data struct {
		Reference string `json:"reference"`
		Previous  string `json:"previousReference"`
		NewSecret string `json:"newSecret"`
	} `json:"data"`
}

const maxMessage = 64 << 10

func (p *platform) serveLeaver(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxMessage))
	if err != nil || p.verifier.Verify(body, r.Header) != nil {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	var m message
	if err := json.Unmarshal(body, &m); err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	key := p.keys[m.Data.Reference]
	switch {
	case m.Type == "credential.rotated":
		p.handed[m.Data.Previous] = handedAccount{m.Data.Reference, m.Data.NewSecret}
	case m.Type == "credential.verify":
		_, _ = fmt.Fprintf(w, `{"alive":%t}`, key != nil && key.alive)
	case m.Type != "credential.revoke":
		w.WriteHeader(http.StatusNotImplemented)
	case key == nil:
		_, _ = io.WriteString(w, `{"outcome":"gone"}`)
	case key.lies > 0:
		key.lies-- // 200, and the key still works
	default:
		key.alive = false
	}
}
