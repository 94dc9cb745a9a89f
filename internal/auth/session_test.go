package auth_test

import (
	"errors"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/internal/auth"
)

func TestSession_HasTheActorOfItsTokenAndEndsWithIt(t *testing.T) {
	store, _, _, _ := newStore(t)
	token, secret, err := store.Issue(t.Context(), uuid.Nil, auth.NewToken{Class: auth.ClassViewer, Description: "Vera"})
	if err != nil {
		t.Fatal(err)
	}
	session, err := store.OpenSession(t.Context(), secret)
	if err != nil {
		t.Fatal(err)
	}
	caller, err := store.Authenticate(t.Context(), session, auth.ClassViewer)
	if err != nil || caller.Actor() != "viewer-token/"+token.ID.String() {
		t.Fatalf("the session acts as %q, %v", caller.Actor(), err)
	}
	if _, err := store.Authenticate(t.Context(), session, auth.ClassOperator); !errors.Is(err, auth.ErrUnauthorized) {
		t.Errorf("the session of a viewer acts as an operator: %v", err)
	}
	if _, err := store.OpenSession(t.Context(), session); !errors.Is(err, auth.ErrUnauthorized) {
		t.Errorf("a session renews itself: %v", err)
	}
	if err := store.Revoke(t.Context(), uuid.Nil, token.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Authenticate(t.Context(), session, auth.ClassViewer); !errors.Is(err, auth.ErrUnauthorized) {
		t.Errorf("the session outlives its token: %v", err)
	}
}

func TestSession_OneTokenOpensAFew(t *testing.T) {
	store, _, _, _ := newStore(t)
	_, secret, err := store.Issue(t.Context(), uuid.Nil, auth.NewToken{Class: auth.ClassViewer})
	if err != nil {
		t.Fatal(err)
	}
	for n := range 60 {
		session, err := store.OpenSession(t.Context(), secret)
		if errors.Is(err, auth.ErrSessions) && n == 50 {
			return
		}
		if err != nil {
			t.Fatalf("session %d: %v", n, err)
		}
		if err := store.CloseSession(t.Context(), session); err != nil {
			t.Fatal(err)
		}
	}
	t.Error("a token opens sessions without a limit")
}

func TestSession_ClosesAlone(t *testing.T) {
	store, _, _, _ := newStore(t)
	_, secret, err := store.Issue(t.Context(), uuid.Nil, auth.NewToken{Class: auth.ClassOperator})
	if err != nil {
		t.Fatal(err)
	}
	session, err := store.OpenSession(t.Context(), secret)
	if err != nil {
		t.Fatal(err)
	}
	if tokens, err := store.Tokens(t.Context(), uuid.Nil); err != nil || len(tokens) != 2 {
		t.Errorf("%d tokens are listed, want the token and its session: %v", len(tokens), err)
	}
	if err := errors.Join(store.CloseSession(t.Context(), session), store.CloseSession(t.Context(), secret)); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Authenticate(t.Context(), session, auth.ClassOperator); !errors.Is(err, auth.ErrUnauthorized) {
		t.Errorf("a closed session answered %v", err)
	}
	if _, err := store.Authenticate(t.Context(), secret, auth.ClassOperator); err != nil {
		t.Errorf("the token ended with its session: %v", err)
	}
	if tokens, err := store.Tokens(t.Context(), uuid.Nil); err != nil || len(tokens) != 1 {
		t.Errorf("%d tokens are listed, want the token alone: %v", len(tokens), err)
	}
}

func TestSignIn_OpensOneSession(t *testing.T) {
	store, _, of, at := newStore(t)
	token, secret, err := store.Issue(t.Context(), uuid.Nil, auth.NewToken{Class: auth.ClassOperator})
	if err != nil {
		t.Fatal(err)
	}
	link := func() string {
		t.Helper()
		secret, err := store.NewSignIn(t.Context(), token.ID)
		if err != nil {
			t.Fatal(err)
		}
		return secret
	}
	used := link()
	if _, err := store.Authenticate(t.Context(), used, auth.OperatorClasses()...); !errors.Is(err, auth.ErrUnauthorized) {
		t.Errorf("a sign-in is accepted as a token: %v", err)
	}
	session, err := store.OpenSession(t.Context(), used)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := store.Authenticate(t.Context(), session, auth.ClassOperator); err != nil {
		t.Error(err)
	}
	expired, ofRevoked := link(), link()
	conn, err := pgx.Connect(t.Context(), at.OwnerURL)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(t.Context()) }()
	for name, refused := range map[string]struct {
		secret string
		before func() error
	}{
		"used":                       {used, func() error { return nil }},
		"invented":                   {"leaver_sign-in_x", func() error { return nil }},
		"of a token that is revoked": {ofRevoked, func() error { return store.Revoke(t.Context(), uuid.Nil, token.ID) }},
		"expired": {expired, func() error {
			_, err := conn.Exec(t.Context(), `update sign_ins set expires_at = now() - interval '1 second'`)
			return err
		}},
	} {
		if err := refused.before(); err != nil {
			t.Fatal(err)
		}
		if _, err := store.OpenSession(t.Context(), refused.secret); !errors.Is(err, auth.ErrSignIn) {
			t.Errorf("a sign-in that is %s answered %v", name, err)
		}
	}
	_, scim, err := store.Issue(t.Context(), of.ID, auth.NewToken{Class: auth.ClassSCIM})
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{secret, scim, ""} {
		if _, err := store.OpenSession(t.Context(), secret); !errors.Is(err, auth.ErrUnauthorized) {
			t.Errorf("a token that is revoked, of a tenant or empty opens a session: %v", err)
		}
	}
}
