// Package devstack runs what leaver stands on, for laptops and tests: a
// private PostgreSQL cluster and a real Temporal server with its UI.
package devstack

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// Logf tells a person what is going on.
type Logf func(format string, args ...any)

// Options of a stack. The zero value is a lasting one in the user's state folder.
type Options struct {
	// Data is the folder of everything; empty is the user's state folder, or a
	// temporary one where Ephemeral.
	Data string
	// Ephemeral keeps Temporal in memory, PostgreSQL without fsync, and nothing
	// after Stop.
	Ephemeral bool
	// NoInstall refuses to install PostgreSQL.
	NoInstall bool
	// TemporalPort and UIPort; 0 is a free one.
	TemporalPort, UIPort int
	// Headless spares Temporal's UI.
	Headless bool
	// Namespace that Temporal is to have.
	Namespace string
	// CodecEndpoint that Temporal's UI asks to decode payloads.
	CodecEndpoint string
	// Log may be nil.
	Log Logf
}

func (o Options) log(format string, args ...any) {
	if o.Log != nil {
		o.Log(format, args...)
	}
}

// Stack is what runs.
type Stack struct {
	// DatabaseURL is the owner's: it may create roles and databases.
	DatabaseURL string
	// TemporalAddress is the frontend's host:port; TemporalUI is empty where
	// Temporal is somebody else's, or headless.
	TemporalAddress string
	TemporalUI      string
	// Data is the folder of everything.
	Data string

	stop []func()
}

// Start brings the stack up. DATABASE_URL and TEMPORAL_ADDRESS, where set,
// come before anything of our own.
func Start(ctx context.Context, o Options) (*Stack, error) {
	if o.Namespace == "" {
		o.Namespace = "leaver"
	}
	s := &Stack{}
	if err := s.folder(o); err != nil {
		return nil, err
	}
	if err := s.startDatabase(ctx, o); err != nil {
		s.Stop()
		return nil, err
	}
	if err := s.startTemporal(ctx, o); err != nil {
		s.Stop()
		return nil, err
	}
	return s, nil
}

// Stop brings down what Start brought up, in reverse.
func (s *Stack) Stop() {
	for i := len(s.stop) - 1; i >= 0; i-- {
		s.stop[i]()
	}
	s.stop = nil
}

func (s *Stack) folder(o Options) error {
	switch {
	case o.Data != "":
		s.Data = o.Data
	case o.Ephemeral:
		dir, err := os.MkdirTemp("", "leaver-dev-")
		if err != nil {
			return fmt.Errorf("make a temporary folder: %w", err)
		}
		// PostgreSQL's account, where it is another, has to pass through.
		if err := os.Chmod(dir, 0o711); err != nil {
			return fmt.Errorf("open the temporary folder: %w", err)
		}
		s.Data = dir
		s.stop = append(s.stop, func() { _ = os.RemoveAll(dir) })
		return nil
	default:
		state := os.Getenv("XDG_STATE_HOME")
		if state == "" {
			home, err := os.UserHomeDir()
			if err != nil {
				return fmt.Errorf("find the state folder (set --data): %w", err)
			}
			state = filepath.Join(home, ".local", "state")
		}
		s.Data = filepath.Join(state, "leaver-dev")
	}
	if err := os.MkdirAll(s.Data, 0o711); err != nil {
		return fmt.Errorf("make the data folder: %w", err)
	}
	if o.Ephemeral {
		return nil
	}
	// Two Temporal servers on one SQLite file would ruin it.
	lock, err := flock(filepath.Join(s.Data, "lock"), syscall.LOCK_EX|syscall.LOCK_NB)
	if err != nil {
		return fmt.Errorf("another stack runs in %s (use --data for another folder, or --ephemeral): %w", s.Data, err)
	}
	s.stop = append(s.stop, func() { _ = lock.Close() })
	return nil
}

func (s *Stack) startDatabase(ctx context.Context, o Options) error {
	if url := os.Getenv("DATABASE_URL"); url != "" {
		s.DatabaseURL = url
		return nil
	}
	p, err := startPostgres(ctx, s.Data, o)
	if err != nil {
		return fmt.Errorf("PostgreSQL: %w", err)
	}
	s.stop = append(s.stop, p.stop)
	s.DatabaseURL = p.url("postgres")
	return nil
}

func (s *Stack) startTemporal(ctx context.Context, o Options) error {
	if address := os.Getenv("TEMPORAL_ADDRESS"); address != "" {
		s.TemporalAddress = address
		return nil
	}
	t, err := startTemporal(ctx, s.Data, o)
	if err != nil {
		return fmt.Errorf("Temporal: %w", err) //nolint:staticcheck // a name
	}
	s.stop = append(s.stop, t.stop)
	s.TemporalAddress = t.address
	if !o.Headless {
		s.TemporalUI = t.ui
	}
	return nil
}
