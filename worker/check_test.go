package worker_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/leaverhq/leaver/worker"
)

func TestNamespace_MustKeepWorkflowsUntilTheyAreArchived(t *testing.T) {
	for retention, refused := range map[time.Duration]bool{
		0: true, 59 * time.Minute: true, time.Hour: false, 720 * time.Hour: false,
	} {
		err := worker.Namespace{Name: "leaver", Retention: retention}.CheckArchive()
		if got := errors.Is(err, worker.ErrMisconfigured); got != refused {
			t.Errorf("a retention of %s: %v", retention, err)
		}
		if refused && !strings.Contains(err.Error(), "--retention 30d leaver`") {
			t.Errorf("%v does not say what to run", err)
		}
	}
}
