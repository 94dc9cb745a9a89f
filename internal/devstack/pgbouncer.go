package devstack

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// ErrNoPgbouncer is returned if pgbouncer is not installed.
var ErrNoPgbouncer = errors.New("pgbouncer is not installed: apt-get install pgbouncer, or brew install pgbouncer")

// pgbouncerStopTimeout bounds how long pgbouncer may take to stop.
const pgbouncerStopTimeout = 5 * time.Second

// pgbouncerPort is the port in the name of the socket.
const pgbouncerPort = "6432"

// StartPgbouncer starts pgbouncer in transaction mode in front of the PostgreSQL with sockets in
// the folder postgresSockets, for one role, and returns the folder and the port of its socket.
// Error: [ErrNoPgbouncer].
func StartPgbouncer(ctx context.Context, postgresSockets, role string) (sockets, port string, stop func(), err error) {
	program, err := findPgbouncer()
	if err != nil {
		return "", "", nil, err
	}
	account, err := serverAccount()
	if err != nil {
		return "", "", nil, err
	}
	dir, err := os.MkdirTemp("", "leaver-pgbouncer")
	if err != nil {
		return "", "", nil, fmt.Errorf("make a folder for pgbouncer: %w", err)
	}
	// auth_type is trust because only the account can enter the socket's folder.
	files := map[string]string{
		"users": fmt.Sprintf("%q \"\"\n", role),
		"pgbouncer.ini": fmt.Sprintf(`[databases]
* = host=%s
[pgbouncer]
pool_mode = transaction
listen_addr =
listen_port = %s
unix_socket_dir = %s
auth_type = trust
auth_file = %s
default_pool_size = 20
ignore_startup_parameters = statement_timeout,idle_in_transaction_session_timeout,jit
`, postgresSockets, pgbouncerPort, dir, filepath.Join(dir, "users")),
	}
	for name, text := range files {
		err = errors.Join(err, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644))
	}
	if err = errors.Join(err, account.mkdir(dir)); err != nil {
		return "", "", nil, fmt.Errorf("configure pgbouncer: %w", err)
	}
	cmd := exec.Command(program, "-q", filepath.Join(dir, "pgbouncer.ini"))
	account.apply(cmd)
	cmd.Dir, cmd.Stderr = dir, os.Stderr
	child, err := startProcess(cmd, syscall.SIGINT)
	if err != nil {
		return "", "", nil, err
	}
	stop = func() { child.stop(syscall.SIGINT, pgbouncerStopTimeout); _ = os.RemoveAll(dir) }
	for {
		conn, err := net.Dial("unix", filepath.Join(dir, ".s.PGSQL."+pgbouncerPort))
		if err == nil {
			_ = conn.Close()
			return dir, pgbouncerPort, stop, nil
		}
		select {
		case <-child.done:
			stop()
			return "", "", nil, errors.New("pgbouncer exited before it accepted connections; its log is on stderr")
		case <-ctx.Done():
			stop()
			return "", "", nil, fmt.Errorf("wait for pgbouncer: %w", ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// findPgbouncer returns the path of pgbouncer; Debian installs it outside of PATH.
func findPgbouncer() (string, error) {
	for _, name := range []string{"pgbouncer", "/usr/sbin/pgbouncer"} {
		if program, err := exec.LookPath(name); err == nil {
			return program, nil
		}
	}
	return "", ErrNoPgbouncer
}
