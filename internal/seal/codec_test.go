package seal_test

import (
	"errors"
	"testing"

	commonpb "go.temporal.io/api/common/v1"
	"go.temporal.io/sdk/converter"

	"github.com/leaverhq/leaver/internal/seal"
)

func newSealer(t *testing.T, keyset []byte) *seal.Sealer {
	t.Helper()
	s, err := seal.New(keyset)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func newKeyset(t *testing.T) []byte {
	t.Helper()
	keyset, err := seal.GenerateKeyset()
	if err != nil {
		t.Fatal(err)
	}
	return keyset
}

func in(s *seal.Sealer, namespace, workflow string) converter.DataConverter {
	return converter.WithDataConverterSerializationContext(seal.DataConverter(s),
		converter.WorkflowSerializationContext{Namespace: namespace, WorkflowID: workflow})
}

// TestCodec_OpensOnlyWhatLeaverSealedForTheWorkflow checks that another client of Temporal cannot start,
// signal or update a workflow.
func TestCodec_OpensOnlyWhatLeaverSealedForTheWorkflow(t *testing.T) {
	s := newSealer(t, newKeyset(t))
	sealed, err := in(s, "leaver", "leaver/t/p/1").ToPayload("secret")
	if err != nil {
		t.Fatal(err)
	}
	plain, err := converter.GetDefaultDataConverter().ToPayload("secret")
	if err != nil {
		t.Fatal(err)
	}
	forged := &commonpb.Payload{Data: sealed.GetData(), Metadata: map[string][]byte{
		"encoding": sealed.GetMetadata()["encoding"], "leaver-scope": []byte("@leaver/leaver/t/p/2"),
	}}
	for name, c := range map[string]struct {
		namespace, workflow string
		payload             *commonpb.Payload
		want                error
	}{
		"its own":                   {"leaver", "leaver/t/p/1", sealed, nil},
		"a plain payload":           {"leaver", "leaver/t/p/1", plain, seal.ErrNotSealed},
		"another workflow's":        {"leaver", "leaver/t/p/2", sealed, seal.ErrOtherScope},
		"another namespace's":       {"other", "leaver/t/p/1", sealed, seal.ErrOtherScope},
		"a scope that was replaced": {"leaver", "leaver/t/p/2", forged, errors.New("any")},
	} {
		t.Run(name, func(t *testing.T) {
			var got string
			err := in(s, c.namespace, c.workflow).FromPayload(c.payload, &got)
			switch {
			case c.want == nil && (err != nil || got != "secret"):
				t.Errorf("%q, %v; want it opened", got, err)
			case c.want != nil && err == nil:
				t.Errorf("opened %q", got)
			case c.want != nil && c.want.Error() != "any" && !errors.Is(err, c.want):
				t.Errorf("%v, want %v", err, c.want)
			}
		})
	}
	t.Run("another activity's", func(t *testing.T) {
		of := func(activity string) converter.DataConverter {
			return converter.WithDataConverterSerializationContext(seal.DataConverter(s),
				converter.ActivitySerializationContext{Namespace: "leaver", WorkflowID: "leaver/t/p/1", ActivityType: activity})
		}
		input, err := of("Block").ToPayload("batch")
		if err != nil {
			t.Fatal(err)
		}
		var got string
		if err := of("EndBatch").FromPayload(input, &got); !errors.Is(err, seal.ErrOtherScope) {
			t.Errorf("%q, %v; want %v", got, err, seal.ErrOtherScope)
		}
	})
	t.Run("the run of a schedule", func(t *testing.T) {
		input, err := in(s, "leaver", "leaver-drill").ToPayload("input")
		if err != nil {
			t.Fatal(err)
		}
		var got string
		err = in(s, "leaver", "leaver-drill-2026-11-28T03:00:00Z").FromPayload(input, &got)
		if err != nil || got != "input" {
			t.Errorf("%q, %v", got, err)
		}
	})
	t.Run("the codec server opens any", func(t *testing.T) {
		opened, err := seal.NewCodec(s).Decode([]*commonpb.Payload{sealed})
		if err != nil || string(opened[0].GetData()) != `"secret"` {
			t.Errorf("%v, %v", opened, err)
		}
	})
}

// TestKeyset_RotatesWithoutAnInterruption checks that in each step of a rotation every process opens
// what every other process seals.
func TestKeyset_RotatesWithoutAnInterruption(t *testing.T) {
	first := newKeyset(t)
	added, err := seal.AddKey(first)
	if err != nil {
		t.Fatal(err)
	}
	promoted, err := seal.PromoteKey(added)
	if err != nil {
		t.Fatal(err)
	}
	opens := func(by, of []byte) error {
		sealed, err := newSealer(t, of).SealText("test", []byte("x"))
		if err != nil {
			t.Fatal(err)
		}
		_, err = newSealer(t, by).OpenText("test", sealed)
		return err
	}
	for name, pair := range map[string][2][]byte{
		"old beside added": {first, added}, "added beside old": {added, first},
		"added beside promoted": {added, promoted}, "promoted beside added": {promoted, added},
		"promoted opens the old": {promoted, first},
	} {
		if err := opens(pair[0], pair[1]); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := opens(first, promoted); !errors.Is(err, seal.ErrUnknownKey) {
		t.Errorf("promoted before the key was distributed: %v, want ErrUnknownKey", err)
	}
	primary := newSealer(t, first).Primary()
	if newSealer(t, added).Primary() != primary || newSealer(t, promoted).Primary() == primary {
		t.Error("AddKey must keep the primary key, and PromoteKey must change it")
	}
	if _, err := seal.PromoteKey(promoted); err == nil {
		t.Error("promoting twice succeeded, want an error")
	}
}
