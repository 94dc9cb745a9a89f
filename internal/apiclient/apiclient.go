// Package apiclient calls leaver's API, for the operators' commands and the console.
package apiclient

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
)

// Client calls the API with a token.
type Client struct {
	Base  string // the URL that paths are below, such as http://127.0.0.1:8080/v1
	Token string
	HTTP  *http.Client
}

// RefusalError is a response of the API with a status of 300 or more.
type RefusalError struct {
	Status int
	Detail string
	Lines  []LineError // of an import
}

// LineError is what is wrong with a line of an import.
type LineError struct {
	Line   int    `json:"line"`
	Detail string `json:"detail"`
}

func (e *RefusalError) Error() string { return e.Detail }

// Page is a page of a list.
type Page[T any] struct {
	Items []T    `json:"items"`
	Next  string `json:"nextCursor"`
}

// All returns the items of a list, page by page, up to limit items; 0 means no limit. It sets the cursor in query.
func All[T any](ctx context.Context, c *Client, path string, query url.Values, limit int) ([]T, error) {
	items := []T{}
	for {
		var p Page[T]
		if err := c.Do(ctx, http.MethodGet, path+"?"+query.Encode(), nil, &p); err != nil {
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

// TenantPath returns the path of a tenant's routes.
func TenantPath(tenant string) string { return "/tenants/" + url.PathEscape(tenant) }

// Do sends body, unless it is nil, as JSON and decodes the response into out, unless that is nil.
// Error: [*RefusalError].
func (c *Client) Do(ctx context.Context, method, path string, body, out any) error {
	if body == nil {
		return c.Send(ctx, method, path, "", http.NoBody, out)
	}
	raw, err := json.Marshal(body)
	if err != nil {
		return fmt.Errorf("encode the request: %w", err)
	}
	return c.Send(ctx, method, path, "application/json", bytes.NewReader(raw), out)
}

// Send sends a body of a media type, which is empty for no body, and decodes the response as [Client.Do] does.
// Error: [*RefusalError].
func (c *Client) Send(ctx context.Context, method, path, contentType string, body io.Reader, out any) error {
	req, err := http.NewRequestWithContext(ctx, method, c.Base+path, body)
	if err != nil {
		return fmt.Errorf("make the request: %w", err)
	}
	req.Header.Set("Authorization", "Bearer "+c.Token)
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	resp, err := c.HTTP.Do(req)
	if err != nil {
		return fmt.Errorf("failed to reach the API: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode > 299 {
		return refusal(resp)
	}
	if out == nil {
		return nil
	}
	if err := json.NewDecoder(resp.Body).Decode(out); err != nil {
		return fmt.Errorf("decode the response: %w", err)
	}
	return nil
}

func refusal(resp *http.Response) error {
	var p struct {
		Detail string      `json:"detail"`
		Errors []LineError `json:"errors"`
	}
	if json.NewDecoder(resp.Body).Decode(&p) != nil || p.Detail == "" {
		p.Detail = resp.Status
	}
	return &RefusalError{Status: resp.StatusCode, Detail: p.Detail, Lines: p.Errors}
}
