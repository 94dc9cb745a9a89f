package console

import (
	"bytes"
	"context"
	"io"
	"net/http"

	"github.com/go-chi/chi/v5"
)

// inProcess is an [http.RoundTripper] that calls a handler of this process.
type inProcess struct{ handler http.Handler }

func (t inProcess) RoundTrip(r *http.Request) (*http.Response, error) {
	// The context of the outer request has the route of the console, from which the API's router would go on.
	ctx := context.WithValue(r.Context(), chi.RouteCtxKey, (*chi.Context)(nil))
	inner := r.Clone(ctx)
	inner.RequestURI = r.URL.RequestURI()
	if inner.Body == nil {
		inner.Body = http.NoBody
	}
	w := &response{header: make(http.Header), status: http.StatusOK}
	t.handler.ServeHTTP(w, inner)
	return &http.Response{
		Status: http.StatusText(w.status), StatusCode: w.status, Header: w.header, Request: r,
		Proto: r.Proto, ProtoMajor: r.ProtoMajor, ProtoMinor: r.ProtoMinor,
		Body: io.NopCloser(&w.body), ContentLength: int64(w.body.Len()),
	}, nil
}

// response is an [http.ResponseWriter] that keeps what is written.
type response struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (w *response) Header() http.Header            { return w.header }
func (w *response) WriteHeader(status int)         { w.status = status }
func (w *response) Write(part []byte) (int, error) { return w.body.Write(part) }
