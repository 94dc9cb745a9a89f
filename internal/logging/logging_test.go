package logging_test

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/leaverhq/leaver/internal/logging"
)

func TestLimited_PassesTheSameRecordOncePerInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		log := slog.New(logging.Limited(slog.NewTextHandler(&out, nil), time.Minute)).With("process", "test")
		for range 100 {
			log.Warn("failed to reach PostgreSQL", "error", errors.New("refused"))
			log.Error("Activity error.", "Error", "503", "Attempt", 1)
			log.Info("listening")
		}
		log.Warn("failed to reach PostgreSQL", "error", errors.New("another reason"))
		if lines := strings.Count(out.String(), "\n"); lines != 103 {
			t.Errorf("%d lines, want 103", lines)
		}
		out.Reset()
		time.Sleep(time.Minute) // of the bubble's clock
		log.Warn("failed to reach PostgreSQL", "error", errors.New("refused"))
		if !strings.Contains(out.String(), "suppressed=99") || !strings.Contains(out.String(), "process=test") {
			t.Errorf("logged %s", out.String())
		}
	})
}
