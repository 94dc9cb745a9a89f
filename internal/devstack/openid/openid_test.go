package openid

import (
	"errors"
	"testing"
)

func TestRefresh_TokenWorksOnce(t *testing.T) {
	p, err := Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	grant, err := p.Authorize(t.Context(), "ada")
	if err != nil {
		t.Fatal(err)
	}
	if active, err := p.Active(t.Context(), grant.RefreshToken); err != nil || !active {
		t.Fatalf("a fresh refresh token: active %t, %v", active, err)
	}
	next, err := p.Refresh(t.Context(), grant.RefreshToken)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Refresh(t.Context(), grant.RefreshToken); !errors.Is(err, ErrInvalidGrant) {
		t.Fatalf("a used refresh token: %v, want %v", err, ErrInvalidGrant)
	}
	if active, err := p.Active(t.Context(), next.RefreshToken); err != nil || !active {
		t.Fatalf("its successor: active %t, %v", active, err)
	}
}
