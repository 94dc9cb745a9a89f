package stacktest

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Asker sends requests to one HTTP server over a fixed number of connections. It is cheap, so
// that a benchmark measures the server.
type Asker struct {
	Name    string
	Address string
	// Header holds header lines, each with CRLF, that are added to each request.
	Header  string
	Request func(n int) (method, path, body string)

	conns   []net.Conn
	readers []*bufio.Reader
	next    atomic.Int64
	spent   time.Duration
}

// askerTurn is how long one server gets requests before the next one.
const askerTurn = 250 * time.Millisecond

// Connect opens the connections, which are closed when the benchmark ends.
func (a *Asker) Connect(b *testing.B, connections int) *Asker {
	b.Helper()
	for range connections {
		conn, err := net.Dial("tcp", a.Address)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = conn.Close() })
		a.conns, a.readers = append(a.conns, conn), append(a.readers, bufio.NewReader(conn))
	}
	return a
}

// Rate returns the number of requests answered per second.
func (a *Asker) Rate() float64 { return float64(a.next.Load()) / a.spent.Seconds() }

// TakeTurns sends requests to the servers in turns of askerTurn, so that other load on the machine
// affects all of them equally. It reports each server's rate, and its ratio to the first.
func TakeTurns(b *testing.B, askers ...*Asker) {
	b.Helper()
	for b.Loop() {
		for _, a := range askers {
			a.turn(b)
		}
	}
	for _, a := range askers {
		b.ReportMetric(a.Rate(), a.Name+"-req/s")
		b.ReportMetric(a.Rate()/askers[0].Rate(), a.Name+"/"+askers[0].Name)
	}
}

// turn sends requests on all connections for askerTurn.
func (a *Asker) turn(b *testing.B) {
	b.Helper()
	start := time.Now()
	var all sync.WaitGroup
	for i := range a.conns {
		all.Go(func() {
			for time.Since(start) < askerTurn && !b.Failed() {
				if err := a.ask(a.conns[i], a.readers[i]); err != nil {
					b.Error(err)
				}
			}
		})
	}
	all.Wait()
	a.spent += time.Since(start)
}

func (a *Asker) ask(conn net.Conn, in *bufio.Reader) error {
	method, path, body := a.Request(int(a.next.Add(1) - 1))
	_, err := fmt.Fprintf(conn, "%s %s HTTP/1.1\r\nHost: x\r\n%sContent-Length: %d\r\n\r\n%s", method, path, a.Header,
		len(body), body)
	if err != nil {
		return err
	}
	resp, err := http.ReadResponse(in, nil)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err := io.ReadAll(resp.Body)
	if start := string(answer[:min(200, len(answer))]); resp.StatusCode > 299 || start == "" ||
		strings.Contains(start, `"totalResults":0`) || strings.Contains(start, `"decision":false`) {
		return fmt.Errorf("%s %s answered %d: %s", method, path, resp.StatusCode, answer)
	}
	return err
}
