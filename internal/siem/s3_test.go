package siem_test

import (
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/leaverhq/leaver/internal/config"
	"github.com/leaverhq/leaver/internal/devstack/stacktest"
	"github.com/leaverhq/leaver/internal/siem"
)

// s3Server starts versitygw, a server of S3 on a folder, with the bucket audit, and returns its URL and the folder.
func s3Server(t *testing.T) (address *url.URL, folder string) {
	t.Helper()
	if testing.Short() {
		t.Skip("builds an S3 server")
	}
	path, err := exec.Command("go", "tool", "-modfile=../../.ci/s3/go.mod", "-n", "versitygw").Output()
	if err != nil {
		t.Fatalf("build the S3 server: %v", err)
	}
	folder = t.TempDir()
	if err := os.Mkdir(filepath.Join(folder, "audit"), 0o700); err != nil {
		t.Fatal(err)
	}
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = free.Close()
	server := exec.Command(strings.TrimSpace(string(path)), "--port", free.Addr().String(), "--access", "leaver",
		"--secret", "secret-of-leaver", "posix", "--sidecar", t.TempDir(), folder)
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Process.Kill(); _ = server.Wait() })
	stacktest.Eventually(t, 30*time.Second, "the S3 server", func() bool {
		conn, err := net.Dial("tcp", free.Addr().String())
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	})
	t.Setenv("AWS_ACCESS_KEY_ID", "leaver")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret-of-leaver")
	t.Setenv("AWS_REGION", "us-east-1")
	t.Setenv("AWS_ENDPOINT_URL_S3", "http://"+free.Addr().String())
	return &url.URL{Scheme: "http", Host: free.Addr().String()}, folder
}

// stored returns the uids of the events in the objects of a bucket, in the order of their names.
func stored(t *testing.T, bucket string) (names, uids []string) {
	t.Helper()
	c := &collector{}
	err := filepath.WalkDir(bucket, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".jsonl") || entry.IsDir() {
			return err
		}
		name, err := filepath.Rel(bucket, path)
		if err != nil {
			return err
		}
		names = append(names, name)
		raw, err := os.ReadFile(path)
		c.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodPost, "/", strings.NewReader(string(raw))))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names, c.uids
}

// TestS3_StoresEachRecordAlthoughAWriteIsLost sends a chain to a bucket by a proxy that answers the first write without
// storing it.
func TestS3_StoresEachRecordAlthoughAWriteIsLost(t *testing.T) {
	server, folder := s3Server(t)
	lost := 0
	forward := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.Out.URL.Scheme, r.Out.URL.Host, r.Out.Host = server.Scheme, server.Host, r.In.Host
	}}
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPut && lost == 0 {
			lost++
			return
		}
		forward.ServeHTTP(w, r)
	}))
	t.Cleanup(proxy.Close)
	t.Setenv("AWS_ENDPOINT_URL_S3", proxy.URL)
	_, follow, of, _ := chain(t, 250)
	f := follow(open(t, config.Audit{Sink: "s3", Address: "s3://audit/leaver"}))
	if _, err := f.SendDue(t.Context()); err == nil || !strings.Contains(err.Error(), "confirm an object in the bucket audit") {
		t.Errorf("the lost write: %v", err)
	}
	stacktest.Eventually(t, time.Minute, "the whole chain", func() bool {
		if _, err := f.SendDue(t.Context()); err != nil {
			t.Fatal(err)
		}
		health, err := f.Health(t.Context())
		return err == nil && health.Pending == 0
	})
	names, uids := stored(t, filepath.Join(folder, "audit"))
	var want []string
	for i := range 251 {
		want = append(want, fmt.Sprintf("%s/%d", of, i+1))
	}
	if diff := cmp.Diff(want, uids); diff != "" {
		t.Errorf("the events (-want +got):\n%s", diff)
	}
	if first := fmt.Sprintf("leaver/%s/%s/000000000001-000000000100.jsonl", of, time.Now().UTC().Format("2006/01/02")); names[0] != first {
		t.Errorf("the first object is %s, want %s", names[0], first)
	}
}

// TestS3_SaysWhyABucketRefuses sends with another secret, to a bucket that does not exist, and to no server.
func TestS3_SaysWhyABucketRefuses(t *testing.T) {
	s3Server(t)
	event, err := siem.EventOf(chained("acts", `{"verb":"waive","actor":"ada","reason":"x","at":"2026-11-29T22:00:00Z"}`))
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ bucket, variable, value, want string }{
		"no bucket":      {"missing", "AWS_REGION", "us-east-1", `"NoSuchBucket"`},
		"another secret": {"audit", "AWS_SECRET_ACCESS_KEY", "guessed", `"SignatureDoesNotMatch"`},
		"no server":      {"audit", "AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1", "connection refused"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv(c.variable, c.value)
			sink := open(t, config.Audit{Sink: "s3", Address: "s3://" + c.bucket})
			// The server may close the connection before its answer is read; the follower sends again, too.
			stacktest.Eventually(t, 10*time.Second, c.want, func() bool {
				err := sink.Send(t.Context(), []siem.Event{event})
				if err == nil || strings.Contains(err.Error(), "secret") {
					t.Fatalf("%v, want %s", err, c.want)
				}
				return strings.Contains(err.Error(), c.want)
			})
		})
	}
}
