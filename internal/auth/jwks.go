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

	"github.com/go-jose/go-jose/v4"
	"golang.org/x/sync/singleflight"

	"github.com/leaverhq/leaver/internal/fault"
)

const (
	// keysTTL is how long an issuer's keys are used before they are fetched again. Until twice that age
	// they are served meanwhile; older ones, only if the fetch fails.
	keysTTL = 10 * time.Minute
	// keysPause is the minimum interval between two fetches, so that tokens with invented key ids do
	// not cause a flood of requests to an issuer.
	keysPause   = 10 * time.Second
	keysTimeout = 5 * time.Second
	// keysMaxAge is how long fetched keys are used while fetches fail. It limits the use of a key that
	// the issuer has withdrawn.
	keysMaxAge = 24 * time.Hour
	maxKeys    = 1 << 20 // bytes
)

// ErrKeysUnavailable is returned if an issuer's keys could not be fetched. Its tokens may be valid, but
// cannot be verified.
var ErrKeysUnavailable = fault.New(fault.Unavailable, "failed to fetch the issuer's keys")

// maxKeySets limits the number of cached key sets.
const maxKeySets = 1000

// keySet holds the keys of one issuer (RFC 7517).
type keySet struct {
	fetches singleflight.Group

	mu      sync.Mutex
	keys    jose.JSONWebKeySet
	fetched time.Time
	failed  error     // of the last fetch
	got     time.Time // of the last successful fetch; zero if there is none
}

// keysAt returns the keys of an address with the given id, or with an empty id all of them. An
// unknown id fetches them again. Error: [ErrKeysUnavailable].
func (s *Store) keysAt(ctx context.Context, address, id string) ([]jose.JSONWebKey, error) {
	set, err := s.keys.Get(ctx, address, func(context.Context) (*keySet, error) { return &keySet{}, nil })
	if err != nil {
		return nil, err
	}
	keys, failed, due := set.read(id)
	switch {
	case !due:
	case len(keys) > 0 && set.serves():
		set.fetch(ctx, address, id)
	default:
		select {
		case <-set.fetch(ctx, address, id):
			keys, failed, _ = set.read(id)
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: %w", ErrKeysUnavailable, ctx.Err())
		}
	}
	if failed != nil {
		return nil, fmt.Errorf("%w: %w", ErrKeysUnavailable, failed)
	}
	return keys, nil
}

// read returns the keys with an id, or why there are none to verify with, and whether to fetch them again.
func (s *keySet) read(id string) (keys []jose.JSONWebKey, failed error, due bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	age := time.Since(s.fetched)
	good := !s.got.IsZero() && time.Since(s.got) < keysMaxAge
	if good {
		keys = s.of(id)
	} else {
		failed = s.failed
	}
	return keys, failed, (age > keysTTL || !good || len(keys) == 0) && age > keysPause
}

// serves reports whether the known keys are served while they are fetched again: if their age is below
// twice [keysTTL], or the issuer does not answer.
func (s *keySet) serves() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failed != nil || time.Since(s.got) < 2*keysTTL
}

// fetch starts a fetch of the keys, if it is still due and none is in progress. The channel receives when the
// fetch has ended. Callers share it: the cancellation of one does not end it.
func (s *keySet) fetch(ctx context.Context, address, id string) <-chan singleflight.Result {
	return s.fetches.DoChan("", func() (any, error) {
		if _, _, due := s.read(id); !due {
			return nil, nil
		}
		keys, err := fetchKeys(context.WithoutCancel(ctx), address)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.fetched, s.failed = time.Now(), err
		if err == nil {
			s.keys, s.got = keys, time.Now()
		}
		return nil, nil
	})
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
	// The operator chose the URL, but not the target of a redirect.
	client := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error {
		return errors.New("redirects are not followed")
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
		if key.UnmarshalJSON(raw) == nil { // unknown types are ignored (RFC 7517 section 5)
			keys.Keys = append(keys.Keys, key)
		}
	}
	return keys, nil
}
