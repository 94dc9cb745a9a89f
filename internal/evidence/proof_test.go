package evidence

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
)

func TestProofs_ContradictedByALaterProbe(t *testing.T) {
	item := uuid.MustParse("019a0000-0000-7000-8000-000000000001")
	at := func(second int) time.Time { return time.Date(2026, 11, 29, 22, 0, second, 0, time.UTC) }
	ptr := func(t time.Time) *time.Time { return &t }
	lied := []Record{
		{Item: item, Attempt: 1, Step: "probe-before", Outcome: "alive", At: at(1)},
		{Item: item, Attempt: 1, Step: "revoke", Outcome: "done", At: at(2)},
		{Item: item, Attempt: 1, Step: "probe-after", Outcome: "alive", At: at(3)},
	}
	ended := slices.Concat(lied, []Record{
		{Item: item, Attempt: 2, Step: "revoke", Outcome: "done", At: at(4)},
		{Item: item, Attempt: 2, Step: "probe-after", Outcome: "dead", Detail: "answers 401", At: at(5)},
	})
	for name, c := range map[string]struct {
		records []Record
		want    Proof
	}{
		"done, and seen alive": {lied, Proof{AliveAt: ptr(at(1)), Attempts: 1, Last: "probe-after: alive"}},
		"ended by the second attempt": {ended, Proof{
			AliveAt: ptr(at(1)), EndedAt: ptr(at(4)), DeadAt: ptr(at(5)), By: "answers 401", Attempts: 2,
			Last: "probe-after: dead, answers 401",
		}},
		"a block does not end an item": {
			[]Record{{Item: item, Attempt: 1, Step: "block", Outcome: "done", At: at(1)}},
			Proof{Attempts: 1, Last: "block: done"},
		},
	} {
		if diff := cmp.Diff(c.want, Proofs(c.records)[item]); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}
