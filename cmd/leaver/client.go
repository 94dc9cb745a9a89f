package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/leaverhq/leaver/internal/api"
)

const clientTimeout = 90 * time.Second // longer than waitStep

// client calls the API as an operator.
type client struct {
	base  string
	token string
	http  *http.Client
	// lines are the lines of the imported file, which errors quote.
	lines [][]byte
}

func (c *cli) client() (*client, error) {
	base := c.url
	if base == "" {
		base = os.Getenv("LEAVER_URL")
	}
	if base == "" {
		base = "http://127.0.0.1:8080"
	}
	token := os.Getenv("LEAVER_TOKEN")
	if c.tokenFile != "" {
		raw, err := os.ReadFile(c.tokenFile)
		if err != nil {
			return nil, coded(exitUsage, "read the token: %w", err)
		}
		token = string(raw)
	}
	if token = strings.TrimSpace(token); token == "" {
		return nil, coded(exitAuth,
			"no token: set LEAVER_TOKEN or --token-file (`leaver bootstrap` issues the first token)")
	}
	return &client{
		base: strings.TrimSuffix(base, "/") + api.BasePath, token: token, http: &http.Client{Timeout: clientTimeout},
	}, nil
}

// page is a page of a list response.
type page[T any] struct {
	Items []T    `json:"items"`
	Next  string `json:"nextCursor"`
}

// all returns the items of a list, page by page, up to limit items; 0 means no limit.
func all[T any](ctx context.Context, cl *client, path string, query url.Values, limit int) ([]T, error) {
	items := []T{}
	for {
		var p page[T]
		if err := cl.do(ctx, http.MethodGet, path+"?"+query.Encode(), nil, &p); err != nil {
			return nil, err
		}
		items = append(items, p.Items...)
		if limit > 0 && len(items) >= limit {
			return items[:limit], nil
		}
		if p.Next == "" {
			return items, nil
		}
		query.Set("cursor", p.Next)
	}
}

// do sends body, unless it is nil, as JSON to the API and decodes the response into out, unless
// that is nil.
func (cl *client) do(ctx context.Context, method, path string, body, out any) error {
	if body == nil {
		return cl.send(ctx, method, path, "", http.NoBody, out)
	}
	raw, err := json.Marshal(body)
	if err != nil {
		return fmt.Errorf("encode the request: %w", err)
	}
	return cl.send(ctx, method, path, "application/json", bytes.NewReader(raw), out)
}

func (cl *client) send(ctx context.Context, method, path, contentType string, payload io.Reader, out any) error {
	req, err := http.NewRequestWithContext(ctx, method, cl.base+path, payload)
	if err != nil {
		return coded(exitUsage, "%w", err)
	}
	req.Header.Set("Authorization", "Bearer "+cl.token)
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	resp, err := cl.http.Do(req)
	if err != nil {
		return fmt.Errorf("failed to reach the API: %w; check --url, and that `leaver serve` is running", err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode > 299 {
		return cl.refusal(resp)
	}
	if out == nil {
		return nil
	}
	if err := json.NewDecoder(resp.Body).Decode(out); err != nil {
		return fmt.Errorf("decode the response: %w", err)
	}
	return nil
}

func (cl *client) refusal(resp *http.Response) error {
	var p struct {
		Detail string `json:"detail"`
		Errors []struct {
			Line   int    `json:"line"`
			Detail string `json:"detail"`
		} `json:"errors"` // of an import
	}
	if json.NewDecoder(resp.Body).Decode(&p) != nil || p.Detail == "" {
		p.Detail = resp.Status
	}
	for _, e := range p.Errors {
		p.Detail += fmt.Sprintf("\n  line %d: %s%s", e.Line, e.Detail, cl.quote(e.Line))
	}
	switch resp.StatusCode {
	case http.StatusNotFound:
		return coded(exitNotFound, "%s", p.Detail)
	case http.StatusBadRequest, http.StatusUnprocessableEntity:
		return coded(exitUsage, "%s", p.Detail)
	case http.StatusUnauthorized, http.StatusForbidden:
		return coded(exitAuth, "%s", p.Detail)
	}
	return coded(exitError, "%s (%d)", p.Detail, resp.StatusCode)
}

// maxQuote bounds how much of a line an error quotes, in bytes.
const maxQuote = 200

var secretMember = regexp.MustCompile(`"secret"\s*:\s*"(?:[^"\\]|\\.)*"`)

// quote returns a line of the imported file, without its secret.
func (cl *client) quote(line int) string {
	if line < 1 || line > len(cl.lines) {
		return ""
	}
	text := secretMember.ReplaceAllString(string(cl.lines[line-1]), `"secret":"…"`)
	if strings.Contains(text, `"secret"`) && !secretMember.MatchString(text) {
		return "" // malformed: the secret cannot be located
	}
	if len(text) > maxQuote {
		text = strings.ToValidUTF8(text[:maxQuote], "") + "…"
	}
	return "\n    " + text
}
