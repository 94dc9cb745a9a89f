// Package contract is the test suite of the behaviour that every connector must have. Each
// connector runs it against its real peer.
package contract

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/leaverhq/leaver/activities/connectors"
)

// Suite contains the connector under test and its helpers.
type Suite struct {
	Connector connectors.Connector
	// Issue creates a live credential downstream, and returns its target.
	Issue func(t *testing.T) connectors.Target
	// Works reports whether the target can still be used. It uses the target, not the connector.
	Works func(t *testing.T, target connectors.Target) bool
	// Blocked reports whether the target is blocked; nil if a blocked one does not work. It uses the target, not the
	// connector.
	Blocked func(t *testing.T, target connectors.Target) bool
	// Verifies is false if the downstream offers no probe.
	Verifies bool
	// Silent is set if the downstream does not say whether the credential existed: each end answers gone.
	Silent bool
	// Down is the same connector with a downstream that cannot be reached.
	Down connectors.Connector
	// Hanging is the same connector with a downstream that accepts connections and never
	// answers; nil if the transport cannot do that.
	Hanging connectors.Connector
}

// end calls the capability that ends the suite's kind of target.
func end(ctx context.Context, c connectors.Connector, target connectors.Target) (connectors.Answer, error) {
	if revoker, ok := connectors.As[connectors.Revoker](c); ok {
		return revoker.Revoke(ctx, target)
	}
	if canceller, ok := connectors.As[connectors.Canceller](c); ok {
		return canceller.Cancel(ctx, target)
	}
	return connectors.Answer{}, errors.New("the connector implements neither Revoker nor Canceller")
}

// Run runs the suite.
func Run(t *testing.T, s Suite) {
	t.Run("ends the target", func(t *testing.T) {
		target := s.Issue(t)
		if !s.Works(t, target) {
			t.Fatal("the target does not work before the end, so the test proves nothing")
		}
		answer, err := end(t.Context(), s.Connector, target)
		want := connectors.Done
		if s.Silent {
			want = connectors.Gone
		}
		if err != nil || answer.Outcome != want {
			t.Fatalf("end: %+v, %v; want %s", answer, err, want)
		}
		if s.Works(t, target) {
			t.Error("the target still works")
		}
	})
	t.Run("ends only the target", func(t *testing.T) {
		target, other := s.Issue(t), s.Issue(t)
		if _, err := end(t.Context(), s.Connector, target); err != nil {
			t.Fatal(err)
		}
		if !s.Works(t, other) {
			t.Error("the other target does not work any more")
		}
	})
	t.Run("already gone is success", func(t *testing.T) {
		target := s.Issue(t)
		for range 2 {
			if answer, err := end(t.Context(), s.Connector, target); err != nil ||
				answer.Outcome == connectors.Expires {
				t.Fatalf("end: %+v, %v; want done or gone", answer, err)
			}
		}
	})
	t.Run("ends several with one request", func(t *testing.T) {
		bulk, ok := connectors.As[connectors.BulkRevoker](s.Connector)
		if !ok {
			t.Skip("this downstream ends one at a time")
		}
		targets, other := []connectors.Target{s.Issue(t), s.Issue(t), s.Issue(t)}, s.Issue(t)
		for range 2 {
			for i, ended := range bulk.RevokeBulk(t.Context(), targets) {
				if ended.Err != nil || ended.Outcome == connectors.Expires || s.Works(t, targets[i]) {
					t.Errorf("%d: %+v, works %t; want done or gone", i, ended, s.Works(t, targets[i]))
				}
			}
		}
		if !s.Works(t, other) {
			t.Error("the other target does not work any more")
		}
	})
	t.Run("probes alive before and dead after", func(t *testing.T) {
		verifier, ok := connectors.As[connectors.Verifier](s.Connector)
		if !ok || !s.Verifies {
			t.Skip("this downstream offers no probe")
		}
		target := s.Issue(t)
		if vitality, detail, err := verifier.Probe(t.Context(), target); err != nil || vitality != connectors.Alive {
			t.Errorf("before: %s (%s), %v; want alive", vitality, detail, err)
		}
		if !s.Works(t, target) {
			t.Error("the probe consumed the target")
		}
		if _, err := end(t.Context(), s.Connector, target); err != nil {
			t.Fatal(err)
		}
		if vitality, detail, err := verifier.Probe(t.Context(), target); err != nil || vitality != connectors.Dead {
			t.Errorf("after: %s (%s), %v; want dead", vitality, detail, err)
		}
		prover, ok := connectors.As[connectors.Prover](s.Connector)
		if !ok {
			return
		}
		if vitality, detail, err := prover.Prove(t.Context(), target); err != nil || vitality != connectors.Dead {
			t.Errorf("proof: %s (%s), %v; want dead", vitality, detail, err)
		}
	})
	t.Run("a block can be undone", func(t *testing.T) {
		blocker, blocks := connectors.As[connectors.Blocker](s.Connector)
		unblocker, unblocks := connectors.As[connectors.Unblocker](s.Connector)
		if !blocks || !unblocks {
			t.Skip("this connector cannot block")
		}
		target := s.Issue(t)
		if answer, err := blocker.Block(t.Context(), target); connectors.IsPermanent(err) {
			t.Skipf("this downstream cannot block: %v", err)
		} else if err != nil || answer.Outcome != connectors.Done {
			t.Fatalf("block: %+v, %v; want done", answer, err)
		}
		isBlocked := s.Blocked
		if isBlocked == nil {
			isBlocked = func(t *testing.T, target connectors.Target) bool { return !s.Works(t, target) }
		}
		if !isBlocked(t, target) {
			t.Error("the target is not blocked")
		}
		for range 2 {
			if answer, err := unblocker.Unblock(t.Context(), target); err != nil || answer.Outcome != connectors.Done {
				t.Fatalf("unblock: %+v, %v; want done", answer, err)
			}
		}
		if isBlocked(t, target) || !s.Works(t, target) {
			t.Error("the target does not work after the block was undone")
		}
	})
	t.Run("an attempt that has lost its lease changes nothing", func(t *testing.T) {
		target := s.Issue(t)
		lost := connectors.Retryable("another attempt has taken over")
		target.Fence = func(context.Context) error { return lost }
		if _, err := end(t.Context(), s.Connector, target); !errors.Is(err, lost) {
			t.Errorf("end: %v; want the error of CheckFence", err)
		}
		if !s.Works(t, target) {
			t.Error("the target was ended without the lease")
		}
	})
	t.Run("an unreachable downstream is retryable", func(t *testing.T) {
		target := s.Issue(t)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		_, err := end(ctx, s.Down, target)
		wantRetryable(t, err, target)
	})
	t.Run("a hanging downstream is retryable after the deadline", func(t *testing.T) {
		if s.Hanging == nil {
			t.Skip("this transport cannot be made to hang")
		}
		target := s.Issue(t)
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		done := make(chan error, 1)
		go func() {
			_, err := end(ctx, s.Hanging, target)
			done <- err
		}()
		select {
		case err := <-done:
			wantRetryable(t, err, target)
		case <-time.After(5 * time.Second):
			t.Error("the call ignores the deadline")
		}
	})
}

func wantRetryable(t *testing.T, err error, target connectors.Target) {
	t.Helper()
	if err == nil {
		t.Error("the call succeeded, though the downstream did not answer")
		return
	}
	if connectors.IsPermanent(err) {
		t.Errorf("%v is permanent, want retryable", err)
	}
	NoSecret(t, err, target)
}

// NoSecret fails the test if an error quotes the target's secrets.
func NoSecret(t *testing.T, err error, target connectors.Target) {
	t.Helper()
	for _, secret := range []string{target.Secret.Reveal(), target.NewSecret.Reveal()} {
		if secret != "" && strings.Contains(err.Error(), secret) {
			t.Error("the error quotes the secret")
		}
	}
}
