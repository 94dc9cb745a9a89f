package devstack

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestNewestFirst_OrdersByVersion(t *testing.T) {
	paths := []string{"/usr/lib/postgresql/9.6/bin", "/usr/lib/postgresql/15/bin", "/usr/lib/postgresql/17/bin"}
	slices.SortFunc(paths, newestFirst)
	if paths[0] != "/usr/lib/postgresql/17/bin" {
		t.Errorf("order %v", paths)
	}
}

func TestStart_RefusesFolderOfRunningStack(t *testing.T) {
	t.Setenv("DATABASE_URL", "postgres://x@localhost/x")
	t.Setenv("TEMPORAL_ADDRESS", "localhost:1")
	data := t.TempDir()
	first, err := Start(t.Context(), Options{Data: data})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Start(t.Context(), Options{Data: data}); err == nil || !strings.Contains(err.Error(), "--ephemeral") {
		t.Errorf("got error %v, want one that names --ephemeral", err)
	}
	first.Stop()
	again, err := Start(t.Context(), Options{Data: data})
	if err != nil {
		t.Fatalf("after the first has stopped: %v", err)
	}
	again.Stop()
}

func TestStart_StartsTemporalAgainThatExits(t *testing.T) {
	t.Setenv("DATABASE_URL", "postgres://x@localhost/x")
	t.Setenv("TEMPORAL_ADDRESS", "")
	bin := t.TempDir()
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	if err := os.WriteFile(filepath.Join(bin, "temporal"), []byte("#!/bin/sh\necho the port is taken\nexit 1\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	var again []string
	_, err := Start(t.Context(), Options{Data: t.TempDir(), Log: func(format string, args ...any) {
		again = append(again, fmt.Sprintf(format, args...))
	}})
	if !errors.Is(err, errExited) || !strings.Contains(err.Error(), "the port is taken") {
		t.Errorf("got error %v, want one with the end of the log", err)
	}
	if len(again) != startAttempts-1 || !strings.HasSuffix(again[0], "starting it again") {
		t.Errorf("messages %q, want one for each further attempt", again)
	}
}

func TestElsewhere_DiffersForFoldersWithTheSameName(t *testing.T) {
	one, err := elsewhere("/root/one/data")
	if err != nil {
		t.Fatal(err)
	}
	other, err := elsewhere("/root/other/data")
	if err != nil || one == other {
		t.Errorf("both folders map to %s: %v", one, err)
	}
}

func TestLease_BlocksTryLockUntilReleased(t *testing.T) {
	path := t.TempDir() + "/lease"
	release, err := Lease(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := TryLock(path); ok {
		t.Error("TryLock succeeded while a lease was held")
	}
	release()
	unlock, ok := TryLock(path)
	if !ok {
		t.Fatal("TryLock failed after the lease was released")
	}
	unlock()
}
