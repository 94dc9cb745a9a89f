package workflows_test

import (
	"os"
	"path/filepath"
	"testing"

	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/worker"

	"github.com/leaverhq/leaver/internal/seal"
	"github.com/leaverhq/leaver/workflows"
)

// unscoped returns a converter that decrypts payloads of any workflow, since the
// replayer's namespace is not the one of the recording.
func unscoped(s *seal.Sealer) converter.DataConverter {
	return struct{ converter.DataConverter }{converter.NewCodecDataConverter(
		converter.GetDefaultDataConverter(), anyScope{seal.NewCodec(s)},
	)}
}

// anyScope hides the codec's support for serialization contexts.
type anyScope struct{ converter.PayloadCodec }

// TestWorkflows_ReplayRecordedHistories fails if a change would break running cascades.
// Version the change (workflow.GetVersion) instead of recording the histories again.
// To record new histories from a deployed commit, run
//
//	go test ./internal/e2e -run TestRecordHistories -record
func TestWorkflows_ReplayRecordedHistories(t *testing.T) {
	keyset, err := os.ReadFile(filepath.Join("testdata", "keyset.json"))
	if err != nil {
		t.Fatal(err)
	}
	sealer, err := seal.New(keyset)
	if err != nil {
		t.Fatal(err)
	}
	histories, err := filepath.Glob(filepath.Join("testdata", "*-*.json"))
	if err != nil || len(histories) == 0 {
		t.Fatalf("no recorded histories: %v", err)
	}
	for _, file := range histories {
		t.Run(filepath.Base(file), func(t *testing.T) {
			replayer, err := worker.NewWorkflowReplayerWithOptions(worker.WorkflowReplayerOptions{
				DataConverter: unscoped(sealer), FailureConverter: seal.FailureConverter(sealer),
			})
			if err != nil {
				t.Fatal(err)
			}
			for _, workflow := range []any{
				workflows.Leaver, workflows.Joiner, workflows.Mover, workflows.TeamSync, workflows.Transmit,
			} {
				replayer.RegisterWorkflow(workflow)
			}
			if err := replayer.ReplayWorkflowHistoryFromJSONFile(nil, file); err != nil {
				t.Error(err)
			}
		})
	}
}
