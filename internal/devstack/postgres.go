package devstack

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	// maxSocketPath is the maximum length of a unix socket's path on Linux, in bytes.
	maxSocketPath = 107
	socketName    = "/.s.PGSQL.5432"
)

// postgres is a private cluster. It listens only on a unix socket in a folder
// with mode 0700, so that other users of the machine cannot log in.
type postgres struct {
	bin     string // folder of the programs
	data    string
	sockets string
	account account
	fsync   bool
	log     Logf
	child   *process // nil if the cluster was already running
}

// elsewhere returns the data folder to use in place of dir if PostgreSQL's account cannot enter
// dir. It differs for each dir, because a database belongs to the key set in dir.
func elsewhere(dir string) (string, error) {
	whole, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("find the data folder: %w", err)
	}
	sum := sha256.Sum256([]byte(whole))
	return filepath.Join("/var/lib/leaver-dev", filepath.Base(whole)+"-"+hex.EncodeToString(sum[:4])), nil
}

// startPostgres creates the cluster in dir if it does not exist, and starts it
// if it is not running.
func startPostgres(ctx context.Context, dir string, o Options) (*postgres, error) {
	bin, err := findPostgres(ctx, o)
	if err != nil {
		return nil, err
	}
	account, err := serverAccount()
	if err != nil {
		return nil, err
	}
	if !account.canReach(filepath.Join(dir, "postgres")) {
		fallback, err := elsewhere(dir)
		if err != nil {
			return nil, err
		}
		o.log("PostgreSQL's account cannot enter %s; storing its data in %s", dir, fallback)
		dir = fallback
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, fmt.Errorf("make a folder for PostgreSQL: %w", err)
		}
	}
	p := &postgres{
		bin: bin, data: filepath.Join(dir, "postgres"), sockets: filepath.Join(dir, "sockets"), account: account,
		fsync: !o.Ephemeral, log: o.log,
	}
	if len(p.sockets)+len(socketName) > maxSocketPath {
		if p.sockets, err = os.MkdirTemp("", "leaver"); err != nil {
			return nil, fmt.Errorf("make a folder for the socket: %w", err)
		}
	}
	if err := account.mkdir(p.sockets); err != nil {
		return nil, fmt.Errorf("make a folder for the socket: %w", err)
	}
	if p.answers(ctx) {
		return p, nil
	}
	if err := p.init(ctx); err != nil {
		return nil, err
	}
	return p, p.start(ctx)
}

// url returns the superuser's URL of a database.
func (p *postgres) url(database string) string {
	return "postgres:///" + database + "?" + url.Values{"host": {p.sockets}, "user": {"postgres"}}.Encode()
}

func (p *postgres) init(ctx context.Context) error {
	if _, err := os.Stat(filepath.Join(p.data, "PG_VERSION")); err == nil {
		return nil
	}
	if err := p.account.mkdir(p.data); err != nil {
		return fmt.Errorf("make PostgreSQL's data folder: %w", err)
	}
	args := []string{"-D", p.data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--data-checksums"}
	if !p.fsync {
		args = append(args, "--no-sync")
	}
	cmd := exec.CommandContext(ctx, filepath.Join(p.bin, "initdb"), args...)
	p.account.apply(cmd)
	cmd.Dir = p.data
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w: %s", err, bytes.TrimSpace(out))
	}
	if !p.fsync {
		// Set in the file, because benchmarks could not override the command line.
		f, err := os.OpenFile(filepath.Join(p.data, "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			return fmt.Errorf("configure PostgreSQL: %w", err)
		}
		_, err = f.WriteString("\nfsync = off\nsynchronous_commit = off\nfull_page_writes = off\n")
		if err = errors.Join(err, f.Close()); err != nil {
			return fmt.Errorf("configure PostgreSQL: %w", err)
		}
	}
	// The superuser and leaver's roles need no password, because the socket's folder protects them.
	// All other roles, such as the drill's service accounts, need one.
	hba := "local all postgres,leaver_dev,leaver_test trust\nlocal all all scram-sha-256\n"
	return os.WriteFile(filepath.Join(p.data, "pg_hba.conf"), []byte(hba), 0o600)
}

func (p *postgres) start(ctx context.Context) error {
	args := []string{"-D", p.data, "-k", p.sockets, "-c", "listen_addresses=", "-c", "max_connections=200"}
	logFile, err := os.OpenFile(p.data+".log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("open PostgreSQL's log: %w", err)
	}
	defer func() { _ = logFile.Close() }()
	cmd := exec.Command(filepath.Join(p.bin, "postgres"), args...)
	p.account.apply(cmd)
	cmd.Dir, cmd.Stdout, cmd.Stderr = p.data, logFile, logFile
	// SIGINT is PostgreSQL's fast shutdown.
	if p.child, err = startProcess(cmd, syscall.SIGINT); err != nil {
		return err
	}
	for {
		if p.answers(ctx) {
			return nil
		}
		select {
		case <-p.child.done:
			return fmt.Errorf("PostgreSQL exited before it accepted connections; see %s.log", p.data)
		case <-ctx.Done():
			p.stop()
			return fmt.Errorf("wait for PostgreSQL: %w", ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (p *postgres) answers(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, p.url("postgres"))
	if err != nil {
		return false
	}
	_ = conn.Close(ctx)
	return true
}

func (p *postgres) stop() {
	if p.child != nil {
		p.child.stop(syscall.SIGINT, 20*time.Second)
	}
}

// findPostgres returns the folder of initdb and postgres: $PG_BIN, $PATH, or the
// newest version in the folders of distributions. As root it installs PostgreSQL
// with apt-get if it is missing, unless o.NoInstall is set.
func findPostgres(ctx context.Context, o Options) (string, error) {
	if bin := installedPostgres(); bin != "" {
		return bin, nil
	}
	_, err := exec.LookPath("apt-get")
	if err != nil || os.Geteuid() != 0 || o.NoInstall {
		return "", errors.New(`PostgreSQL's server programs (initdb, postgres) are not installed. Install them with

    sudo apt-get install postgresql      (Debian, Ubuntu)
    brew install postgresql@17           (macOS)

or set PG_BIN to the folder that holds them, or DATABASE_URL to a server that is running`)
	}
	o.log("PostgreSQL is not installed: running apt-get install postgresql (--no-install prevents this)")
	for _, args := range [][]string{{"update"}, {"install", "-y", "--no-install-recommends", "postgresql"}} {
		cmd := exec.CommandContext(ctx, "apt-get", args...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		if out, err := cmd.CombinedOutput(); err != nil {
			return "", fmt.Errorf("apt-get %s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(out))
		}
	}
	if bin := installedPostgres(); bin != "" {
		return bin, nil
	}
	return "", errors.New("apt-get installed postgresql, but initdb and postgres were not found: " +
		"set PG_BIN to their folder")
}

func installedPostgres() string {
	candidates := []string{os.Getenv("PG_BIN")}
	if path, err := exec.LookPath("postgres"); err == nil {
		// Debian links some programs into the PATH; the others are next to the link's target.
		if real, err := filepath.EvalSymlinks(path); err == nil {
			path = real
		}
		candidates = append(candidates, filepath.Dir(path))
	}
	for _, pattern := range []string{
		"/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/opt/homebrew/opt/postgresql@*/bin",
		"/usr/local/opt/postgresql@*/bin",
		"/Applications/Postgres.app/Contents/Versions/*/bin",
	} {
		found, _ := filepath.Glob(pattern) // the patterns are valid
		slices.SortFunc(found, newestFirst)
		candidates = append(candidates, found...)
	}
	for _, dir := range candidates {
		if dir != "" && isProgram(filepath.Join(dir, "initdb")) && isProgram(filepath.Join(dir, "postgres")) {
			return dir
		}
	}
	return ""
}

var versionInPath = regexp.MustCompile(`(\d+)(?:\.(\d+))?`)

// newestFirst compares paths by the version that they contain, in descending order; 9.6 is older
// than 15.
func newestFirst(a, b string) int {
	version := func(path string) int {
		found := versionInPath.FindStringSubmatch(path)
		if found == nil {
			return 0
		}
		major, _ := strconv.Atoi(found[1])
		minor, _ := strconv.Atoi(found[2]) // 0 if there is none
		return major*100 + minor
	}
	return version(b) - version(a)
}

func isProgram(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}
