package fault_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/leaverhq/leaver/internal/fault"
)

func TestOf_FindsTheOutermostCodedError(t *testing.T) {
	inner := fault.New(fault.NotFound, "no such item")
	outer := fmt.Errorf("open item 7: %w", inner)
	got, ok := fault.Of(outer)
	if !ok || got.Code() != fault.NotFound || got.Error() != "no such item" || !errors.Is(outer, inner) {
		t.Errorf("got %v, %t; want %v", got, ok, inner)
	}
	joined := errors.Join(fault.New(fault.Unavailable, "PostgreSQL is not available"), outer)
	if got, _ := fault.Of(joined); got.Code() != fault.Unavailable {
		t.Errorf("got %v; want the first of a join", got)
	}
	if got, ok := fault.Of(errors.New("internal")); ok {
		t.Errorf("an error without a code has %v", got)
	}
}
