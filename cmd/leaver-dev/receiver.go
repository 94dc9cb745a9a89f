package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/leaverhq/leaver/internal/devstack"
	"github.com/leaverhq/leaver/internal/ssf"
)

// receiver is a push receiver of security event tokens (RFC 8935). It accepts only tokens that
// are signed with a key that the transmitter serves.
type receiver struct {
	url string

	mu       sync.Mutex
	jwks     string // address of the transmitter's keys
	issuer   string
	events   []received
	unsigned int
}

// received is an accepted event.
type received struct {
	name, subject string
	at            time.Time
}

func startReceiver(ctx context.Context) (*receiver, func(), error) {
	r := &receiver{}
	listener, url, err := devstack.Listen(ctx, "the receiver of security events")
	if err != nil {
		return nil, nil, err
	}
	r.url = url
	return r, devstack.Serve(ctx, listener, http.HandlerFunc(r.take)), nil
}

func (r *receiver) take(w http.ResponseWriter, req *http.Request) {
	raw, err := io.ReadAll(http.MaxBytesReader(w, req.Body, maxMessage))
	r.mu.Lock()
	defer r.mu.Unlock()
	if err == nil {
		err = r.open(req.Context(), string(raw))
	}
	if err != nil {
		r.unsigned++
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusBadRequest)
		_, _ = io.WriteString(w, `{"err":"invalid_request","description":"the token is not signed by the transmitter"}`)
		return
	}
	w.WriteHeader(http.StatusAccepted)
}

// open verifies a token's signature and issuer, and stores its events.
func (r *receiver) open(ctx context.Context, raw string) error {
	keys, err := r.keys(ctx)
	if err != nil {
		return err
	}
	token, err := jwt.ParseSigned(raw, []jose.SignatureAlgorithm{jose.RS256})
	if err != nil {
		return err
	}
	var claims struct {
		Issuer  string                     `json:"iss"`
		Subject map[string]string          `json:"sub_id"`
		Events  map[string]json.RawMessage `json:"events"`
	}
	for _, key := range keys.Key(token.Headers[0].KeyID) {
		if token.Claims(key, &claims) != nil || claims.Issuer != r.issuer {
			continue
		}
		for name := range claims.Events {
			r.events = append(r.events, received{name, claims.Subject["sub"] + claims.Subject["id"], time.Now()})
		}
		return nil
	}
	return errors.New("the token's signature or issuer does not match the transmitter")
}

func (r *receiver) keys(ctx context.Context) (keys jose.JSONWebKeySet, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.jwks, http.NoBody)
	if err != nil {
		return keys, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return keys, err
	}
	defer func() { _ = resp.Body.Close() }()
	return keys, json.NewDecoder(resp.Body).Decode(&keys)
}

// of returns the number of events about a subject, the times of its first event with each name, and
// the number of rejected tokens.
func (r *receiver) of(subject string) (n int, first map[string]time.Time, unsigned int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	first = make(map[string]time.Time)
	for _, e := range r.events {
		if e.subject != subject {
			continue
		}
		n++
		if _, ok := first[e.name]; !ok {
			first[e.name] = e.at
		}
	}
	return n, first, r.unsigned
}

// subscribe creates a push stream of the tenant's security events to the receiver.
func (d *drill) subscribe(ctx context.Context) error {
	r := d.peers.receiver
	r.mu.Lock()
	r.jwks, r.issuer = d.url+"/ssf/v1/jwks.json", d.url+"/t/"+d.tenant.Name
	r.mu.Unlock()
	return d.call(ctx, http.MethodPost, "/ssf/v1/streams", d.receiver, map[string]any{
		"delivery": map[string]string{"method": ssf.PushURN, "endpoint_url": r.url},
	}, nil)
}

// hear waits until the receiver knows that Ada's sessions are revoked, and that a credential ended.
func (d *drill) hear(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, drillTimeout)
	defer cancel()
	for {
		n, first, unsigned := d.peers.receiver.of(d.ada)
		if unsigned > 0 {
			return fmt.Errorf("the receiver could not verify %d tokens", unsigned)
		}
		revoked, ended := first[ssf.SessionRevoked], first[ssf.CredentialChange]
		if !revoked.IsZero() && !ended.IsZero() {
			d.rows = append(d.rows, []string{
				"security events about Ada", "receiver", "-", strings.TrimSpace(since(d.left, revoked)),
				fmt.Sprintf("session-revoked at the commit; %d signed tokens, each checked against the served keys", n),
			})
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for session-revoked and credential-change, got %d events: %w", n, ctx.Err())
		case <-time.After(50 * time.Millisecond):
		}
	}
}
