// Package leaver is an example of a gateway's middleware: it asks leaver before each call, remembers
// permits for a short time, and forgets them when leaver sends a security event. It fails closed.
package leaver

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"time"
)

// Guard asks leaver. Identify returns the sub and client_id of the verified token of a request, and the
// action and resource that it asks for.
type Guard struct {
	URL, Token string // of leaver, and a token of class platform that names the issuer
	Events     string // the poll URL of a stream, and a token of class receiver: optional
	EventToken string
	Remember   time.Duration // how long a permit is used without asking; 0 asks each time
	Identify   func(r *http.Request) (sub, client, action, kind, id string)

	mu      sync.Mutex
	permits map[string]time.Time
	events  int  // how often permits were forgotten
	live    bool // events arrive: only then are permits remembered
}

// Middleware lets a request through if leaver permits it: otherwise it answers 403, or 503 if leaver does
// not answer.
func (g *Guard) Middleware(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sub, client, action, kind, id := g.Identify(r)
		body, _ := json.Marshal(map[string]any{ // strings always encode
			"subject": map[string]string{"type": "identity", "id": sub}, "action": map[string]string{"name": action},
			"resource": map[string]string{"type": kind, "id": id}, "context": map[string]string{"agent": client},
		})
		known, asked := g.remembers(string(body))
		if known {
			next.ServeHTTP(w, r)
			return
		}
		var answer struct{ Decision bool }
		if err := g.post(r.Context(), g.URL+"/access/v1/evaluation", g.Token, body, &answer, 2*time.Second); err != nil {
			http.Error(w, "the access decision is not available", http.StatusServiceUnavailable)
			return
		}
		if !answer.Decision {
			http.Error(w, "access denied", http.StatusForbidden)
			return
		}
		g.remember(string(body), asked)
		next.ServeHTTP(w, r)
	})
}

// Listen forgets all permits whenever leaver sends an event, until ctx is done.
func (g *Guard) Listen(ctx context.Context) {
	var ack []string
	for ctx.Err() == nil {
		body, _ := json.Marshal(map[string]any{"ack": ack})
		var got struct{ Sets map[string]string }
		err := g.post(ctx, g.Events, g.EventToken, body, &got, 40*time.Second)
		g.mu.Lock()
		if g.live = err == nil; err != nil || len(got.Sets) > 0 {
			g.permits = nil
			g.events++
		}
		g.mu.Unlock()
		if err != nil {
			select { // it goes on without remembering permits
			case <-ctx.Done():
			case <-time.After(time.Second):
			}
			continue
		}
		ack = nil
		for jti := range got.Sets {
			ack = append(ack, jti)
		}
	}
}

func (g *Guard) remembers(question string) (known bool, asked int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.live && time.Now().Before(g.permits[question]), g.events
}

// remember stores a permit, unless an event arrived since it was asked for.
func (g *Guard) remember(question string, asked int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if asked != g.events {
		return
	}
	if g.permits == nil || len(g.permits) > 10_000 {
		g.permits = make(map[string]time.Time)
	}
	g.permits[question] = time.Now().Add(g.Remember)
}

func (*Guard) post(ctx context.Context, url, token string, body []byte, answer any, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("leaver answered %s", resp.Status)
	}
	return json.NewDecoder(resp.Body).Decode(answer)
}
