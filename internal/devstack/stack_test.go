package devstack

import (
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
