package auth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/leaverhq/leaver/internal/fault"

	"github.com/go-jose/go-jose/v4"
)

const (
	// keysTTL is how long an issuer's keys are used without looking again.
	keysTTL = 10 * time.Minute
	// keysPause is the least time between two looks: tokens with made-up key
	// ids must not turn this process against an issuer.
	keysPause   = 10 * time.Second
	keysTimeout = 5 * time.Second
	// keysMaxAge is how long keys are good that cannot be fetched any more: one that was
	// withdrawn is good for no longer.
	keysMaxAge = 24 * time.Hour
	maxKeys    = 1 << 20 // bytes
)

// ErrKeysUnavailable says that an issuer's keys could not be read; a token of
// it may be valid, but nobody can tell now.
var ErrKeysUnavailable = fault.New(fault.Unavailable, "the issuer's keys cannot be read")

// maxKeySets bounds the addresses whose keys are kept.
const maxKeySets = 1000

// keySet holds the keys of one issuer (RFC 7517).
type keySet struct {
	mu     sync.Mutex // held while looking, so that one looks for all
	keys   jose.JSONWebKeySet
	looked time.Time
	failed error     // of the last look
	got    time.Time // the keys; zero is never
}

// keysAt returns the keys of an address with the given id, or with an empty id all of them. An
// unknown id fetches them again. Error: [ErrKeysUnavailable].
func (s *Store) keysAt(ctx context.Context, address, id string) ([]jose.JSONWebKey, error) {
	set, err := s.keys.Get(ctx, address, func(context.Context) (*keySet, error) { return &keySet{}, nil })
	if err != nil {
		return nil, err
	}
	set.mu.Lock()
	defer set.mu.Unlock()
	age := time.Since(set.looked)
	good := !set.got.IsZero() && time.Since(set.got) < keysMaxAge
	if (age > keysTTL || !good || len(set.of(id)) == 0) && age > keysPause {
		// A caller who goes away must not make this look fail for all.
		keys, err := fetchKeys(context.WithoutCancel(ctx), address)
		set.looked, set.failed = time.Now(), err
		if err == nil {
			set.keys, set.got, good = keys, time.Now(), true
		}
	}
	if !good {
		return nil, fmt.Errorf("%w: %w", ErrKeysUnavailable, set.failed)
	}
	return set.of(id), nil
}

func (s *keySet) of(id string) []jose.JSONWebKey {
	if id == "" {
		return s.keys.Keys
	}
	return s.keys.Key(id)
}

func fetchKeys(ctx context.Context, address string) (jose.JSONWebKeySet, error) {
	ctx, cancel := context.WithTimeout(ctx, keysTimeout)
	defer cancel()
	var keys jose.JSONWebKeySet
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, http.NoBody)
	if err != nil {
		return keys, err
	}
	// The address is the operator's; where it would send us is not.
	client := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error {
		return errors.New("an issuer's keys are read without redirects")
	}}
	resp, err := client.Do(req)
	if err != nil {
		return keys, err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return keys, fmt.Errorf("read keys: %s", resp.Status)
	}
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxKeys)).Decode(&set); err != nil {
		return keys, fmt.Errorf("read keys: %w", err)
	}
	for _, raw := range set.Keys {
		var key jose.JSONWebKey
		if key.UnmarshalJSON(raw) == nil { // of a kind that we do not know: RFC 7517 section 5 has it ignored
			keys.Keys = append(keys.Keys, key)
		}
	}
	return keys, nil
}
