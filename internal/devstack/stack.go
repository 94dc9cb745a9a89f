// Package devstack runs leaver's dependencies for development and tests: a
// private PostgreSQL cluster and a Temporal server with its UI.
package devstack

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// Logf logs a progress message.
type Logf func(format string, args ...any)

// Options configure a stack. The zero value is a persistent stack in the user's state folder.
type Options struct {
	// Data is the data folder. If it is empty, the stack uses the user's state
	// folder, or a temporary folder if Ephemeral is set.
	Data string
	// Ephemeral runs Temporal in memory and PostgreSQL without fsync, and deletes
	// a temporary data folder on Stop.
	Ephemeral bool
	// NoInstall disables the installation of a missing PostgreSQL.
	NoInstall bool
	// TemporalPort and UIPort are the ports to listen on; 0 selects a free port.
	TemporalPort, UIPort int
	// Headless disables Temporal's UI.
	Headless bool
	// Namespace is the Temporal namespace to create; empty means leaver.
	Namespace string
	// CodecEndpoint is the URL of the codec server with which Temporal's UI decodes payloads.
	CodecEndpoint string
	// Log may be nil.
	Log Logf
}

func (o Options) log(format string, args ...any) {
	if o.Log != nil {
		o.Log(format, args...)
	}
}

// Stack is a running stack.
type Stack struct {
	// DatabaseURL is the URL of a role that may create roles and databases.
	DatabaseURL string
	// TemporalAddress is the frontend's host:port. TemporalUI is the URL of the UI;
	// it is empty if TEMPORAL_ADDRESS is set or the stack is headless.
	TemporalAddress string
	TemporalUI      string
	// Data is the data folder.
	Data string

	stop     []func()
	temporal *temporal // nil if TEMPORAL_ADDRESS is set
}

// Start starts the stack. If DATABASE_URL or TEMPORAL_ADDRESS is set, it uses that
// server instead of starting one.
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

// Err returns why the stack no longer works: an error with the end of the log if the Temporal server ended by
// itself, else nil.
func (s *Stack) Err() error {
	if s.temporal == nil {
		return nil
	}
	select {
	case <-s.temporal.child.done:
		return fmt.Errorf("the Temporal server exited; %s", s.temporal.logEnd())
	default:
		return nil
	}
}

// Stop stops the parts that Start started, in reverse order.
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
		// PostgreSQL's account, if it is another one, must be able to traverse it.
		if err := os.Chmod(dir, 0o711); err != nil {
			return fmt.Errorf("change the mode of the temporary folder: %w", err)
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
	// Two Temporal servers on one SQLite file would corrupt it.
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
		return fmt.Errorf("Temporal: %w", err) //nolint:staticcheck // Temporal is a proper name
	}
	s.stop = append(s.stop, t.stop)
	s.temporal = t
	s.TemporalAddress = t.address
	if !o.Headless {
		s.TemporalUI = t.ui
	}
	return nil
}
