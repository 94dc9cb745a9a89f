package ssf

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"

	"github.com/go-chi/chi/v5"
	"github.com/google/uuid"

	"github.com/leaverhq/leaver/internal/auth"
	"github.com/leaverhq/leaver/internal/httpjson"
)

const (
	// BasePath is the mount path of [Server.SSF].
	BasePath = "/ssf/v1"
	// MetadataPath is the path of a tenant's transmitter metadata. The issuer's path is appended
	// to the well-known path (SSF 1.0 section 7.2).
	MetadataPath = "/.well-known/ssf-configuration/t/{tenant}"

	// maxText and maxRequested bound what a receiver sends: bytes of a text, and events.
	maxText      = 512
	maxRequested = 500
	maxAudience  = 20
)

// Server serves a transmitter's endpoints.
type Server struct {
	Store *Store
	Auth  *auth.Store
	// PrivateReceivers permits receivers at private addresses.
	PrivateReceivers bool
	// PublicURL is the base URL for clients. If it is empty, the request's host is used.
	PublicURL string
	Log       *slog.Logger
	// Resolve returns the principal that a subject identifier names: as leaver's own subject, or as
	// that of issuer.
	Resolve func(ctx context.Context, tenant uuid.UUID, subject json.RawMessage, own, issuer string) (uuid.UUID, error)
}

// Handler returns the transmitter endpoints of the OpenID Shared Signals Framework 1.0. Streams are
// managed and polled with tokens of class receiver; a client's access token needs the scope ssf.manage to
// change a stream (CAEP Interoperability Profile 1.0).
func (s *Server) Handler() http.Handler {
	r := chi.NewRouter()
	httpjson.RefuseUnknown(r, s.Log)
	r.Get("/jwks.json", s.jwks)
	r.Group(func(r chi.Router) {
		r.Use(s.Auth.Require(s.Log, auth.ClassReceiver))
		r.Get("/streams", s.getStreams)
		r.Get("/status", s.getStatus)
		r.Post("/poll/{id}", s.poll)
		r.Group(func(r chi.Router) {
			r.Use(auth.RequireScope(s.Log, auth.ScopeSSFManage))
			r.Post("/streams", s.createStream)
			r.Patch("/streams", s.updateStream)
			r.Put("/streams", s.replaceStream)
			r.Delete("/streams", s.deleteStream)
			r.Post("/status", s.setStatus)
			r.Post("/verify", s.verifyStream)
			r.Post("/subjects:add", s.addSubject)
			r.Post("/subjects:remove", s.removeSubject)
		})
	})
	return r
}

// Metadata serves a tenant's transmitter metadata. It does not reveal whether the tenant exists.
func (s *Server) Metadata(w http.ResponseWriter, r *http.Request) {
	base := httpjson.BaseURL(r, s.PublicURL)
	httpjson.Answer(w, http.StatusOK, map[string]any{
		"spec_version":               "1_0",
		"issuer":                     IssuerOf(base, chi.URLParam(r, "tenant")),
		"jwks_uri":                   base + BasePath + "/jwks.json",
		"delivery_methods_supported": []string{PushURN, PollURN},
		"configuration_endpoint":     base + BasePath + "/streams",
		"status_endpoint":            base + BasePath + "/status",
		"verification_endpoint":      base + BasePath + "/verify",
		"add_subject_endpoint":       base + BasePath + "/subjects:add",
		"remove_subject_endpoint":    base + BasePath + "/subjects:remove",
		"authorization_schemes":      []map[string]string{{"spec_urn": "urn:ietf:rfc:6749"}},
		"default_subjects":           "ALL",
	})
}

// IssuerOf returns the issuer of a tenant. It differs by tenant, so that receivers reject the tokens
// of other tenants.
func IssuerOf(base, tenant string) string { return base + "/t/" + tenant }

func (s *Server) jwks(w http.ResponseWriter, r *http.Request) {
	keys, err := s.Store.JWKS(r.Context())
	if err != nil {
		httpjson.Fail(w, r, s.Log, err)
		return
	}
	w.Header().Set("Content-Type", "application/jwk-set+json")
	w.Header().Set("Cache-Control", "public, max-age=300")
	_, _ = w.Write(keys) // fails only if the client has disconnected
}

// delivery is the delivery method of a stream.
type delivery struct {
	Method   string          `json:"method"`
	Endpoint string          `json:"endpoint_url,omitempty"`
	Header   httpjson.Secret `json:"authorization_header,omitzero"` // write-only
}

// configuration is a stream as receivers see it (SSF 1.0 section 8.1.1).
type configuration struct {
	ID        string   `json:"stream_id"`
	Issuer    string   `json:"iss"`
	Audience  []string `json:"aud"`
	Delivery  delivery `json:"delivery"`
	Supported []string `json:"events_supported"`
	Requested []string `json:"events_requested,omitempty"`
	Delivered []string `json:"events_delivered"`
	About     string   `json:"description,omitempty"`
	// MinVerification is in seconds.
	MinVerification int `json:"min_verification_interval"`
	// SubjectFormat and SubjectIssuer are leaver's own members: how the stream names its subjects.
	SubjectFormat string `json:"subject_format,omitempty"`
	SubjectIssuer string `json:"subject_issuer,omitempty"`
}

func (s *Server) configurationOf(r *http.Request, stream Stream) configuration {
	c := configuration{
		ID: stream.ID.String(), Issuer: stream.Issuer, Audience: stream.Audience,
		Supported: Events(), Requested: stream.Requested, Delivered: stream.Events, About: stream.Description,
		Delivery:        delivery{Method: PushURN, Endpoint: stream.Endpoint},
		MinVerification: int(minVerification.Seconds()),
		SubjectFormat:   stream.SubjectFormat, SubjectIssuer: stream.SubjectIssuer,
	}
	if !stream.Push {
		c.Delivery = delivery{Method: PollURN, Endpoint: httpjson.BaseURL(r, s.PublicURL) + BasePath + "/poll/" + c.ID}
	}
	return c
}

// wishes are the members of a stream that a receiver may set.
type wishes struct {
	ID        string    `json:"stream_id"`
	Delivery  *delivery `json:"delivery"`
	Requested *[]string `json:"events_requested"`
	About     *string   `json:"description"`
	// How the stream names its subjects.
	SubjectFormat *string `json:"subject_format"`
	SubjectIssuer *string `json:"subject_issuer"`
	// The members that the transmitter sets. A receiver may send them back unchanged.
	Issuer    *string      `json:"iss"`
	Audience  stringOrList `json:"aud"`
	Delivered *[]string    `json:"events_delivered"`
}

// apply writes the wishes into a stream. If whole is true, absent members are reset.
func (s *Server) apply(stream *Stream, w wishes, whole bool) error {
	bad := func(detail string) error { return httpjson.Problem{Status: http.StatusBadRequest, Detail: detail} }
	if whole && w.Delivery == nil {
		w.Delivery = &delivery{Method: PollURN}
	}
	if w.Delivery != nil {
		switch w.Delivery.Method {
		case PushURN:
			if err := CheckEndpoint(w.Delivery.Endpoint, s.PrivateReceivers); err != nil {
				return bad(err.Error())
			}
			stream.Push, stream.Endpoint, stream.Header = true, w.Delivery.Endpoint, w.Delivery.Header.Secret
		case PollURN:
			stream.Push, stream.Endpoint, stream.Header = false, "", ""
		default:
			return bad(fmt.Sprintf("delivery.method must be %s or %s, got %q", PushURN, PollURN, w.Delivery.Method))
		}
	}
	if w.Requested != nil || whole {
		stream.Requested = nil
	}
	if w.Requested != nil {
		stream.Requested = *w.Requested
	}
	if w.About != nil || whole {
		stream.Description = ""
	}
	if w.About != nil {
		stream.Description = *w.About
	}
	if err := w.applySubjects(stream, whole); err != nil {
		return err
	}
	texts := slices.Concat(stream.Requested, stream.Audience)
	texts = append(texts, stream.Description, stream.Endpoint, stream.Header.Reveal(), stream.SubjectIssuer)
	if httpjson.HasControl(texts...) || len(stream.Requested) > maxRequested || len(stream.Audience) > maxAudience ||
		slices.ContainsFunc(texts, func(t string) bool { return len(t) > 2048 }) {
		return bad(fmt.Sprintf("strings must be at most 2048 bytes without control characters, "+
			"events_requested at most %d entries and aud at most %d", maxRequested, maxAudience))
	}
	return nil
}

// applySubjects writes how a stream names its subjects. If whole is true, absent members are reset.
func (w wishes) applySubjects(stream *Stream, whole bool) error {
	if whole {
		stream.SubjectFormat, stream.SubjectIssuer = "", ""
	}
	if w.SubjectFormat != nil {
		stream.SubjectFormat = *w.SubjectFormat
	}
	if w.SubjectIssuer != nil {
		stream.SubjectIssuer = *w.SubjectIssuer
	}
	if !slices.Contains([]string{"", FormatIssuer, FormatEmail}, stream.SubjectFormat) ||
		(stream.SubjectFormat == FormatIssuer) != (stream.SubjectIssuer != "") {
		return httpjson.Problem{Status: http.StatusBadRequest, Detail: fmt.Sprintf(
			"subject_format must be %s with subject_issuer, %s, or absent, got %q with %q",
			FormatIssuer, FormatEmail, stream.SubjectFormat, stream.SubjectIssuer)}
	}
	return nil
}

// subjectOf returns the stream and the principal of a request that adds or removes a subject (SSF 1.0
// section 8.1.3).
func (s *Server) subjectOf(w http.ResponseWriter, r *http.Request) (Stream, uuid.UUID, error) {
	var body struct {
		ID      string          `json:"stream_id"`
		Subject json.RawMessage `json:"subject"`
	}
	if err := httpjson.DecodeLoosely(w, r, &body); err != nil {
		return Stream{}, uuid.Nil, err
	}
	stream, err := s.stream(r, body.ID)
	if err != nil {
		return Stream{}, uuid.Nil, err
	}
	principal, err := s.Resolve(r.Context(), auth.CallerOf(r).Tenant.ID, body.Subject, stream.Issuer, stream.SubjectIssuer)
	return stream, principal, err
}

func (s *Server) addSubject(w http.ResponseWriter, r *http.Request) {
	stream, principal, err := s.subjectOf(w, r)
	if err == nil {
		err = s.Store.Restore(r.Context(), auth.CallerOf(r).Tenant.ID, stream.ID, principal)
	}
	if err != nil {
		httpjson.Fail(w, r, s.Log, err)
		return
	}
	w.WriteHeader(http.StatusOK)
}

func (s *Server) removeSubject(w http.ResponseWriter, r *http.Request) {
	stream, principal, err := s.subjectOf(w, r)
	if err == nil {
		err = s.Store.Remove(r.Context(), auth.CallerOf(r).Tenant.ID, stream.ID, principal)
	}
	if err != nil {
		httpjson.Fail(w, r, s.Log, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func (s *Server) createStream(w http.ResponseWriter, r *http.Request) {
	of := auth.CallerOf(r).Tenant
	var body wishes
	err := httpjson.DecodeLoosely(w, r, &body)
	stream := Stream{ // the transmitter sets iss and aud, whatever the request says (SSF 1.0 section 8.1.1)
		Issuer:   IssuerOf(httpjson.BaseURL(r, s.PublicURL), of.Name),
		Audience: []string{auth.CallerOf(r).Actor()}, CreatedBy: auth.CallerOf(r).Actor(),
	}
	if err == nil {
		err = s.apply(&stream, body, true)
	}
	if err == nil {
		stream, err = s.Store.Create(r.Context(), of.ID, stream)
	}
	if err != nil {
		httpjson.Fail(w, r, s.Log, err)
		return
	}
	httpjson.Answer(w, http.StatusCreated, s.configurationOf(r, stream))
}

// getStreams serves one stream, or all streams of the receiver.
func (s *Server) getStreams(w http.ResponseWriter, r *http.Request) {
	if text := r.URL.Query().Get("stream_id"); text != "" {
		stream, err := s.stream(r, text)
		if err != nil {
			httpjson.Fail(w, r, s.Log, err)
			return
		}
		httpjson.Answer(w, http.StatusOK, s.configurationOf(r, stream))
		return
	}
	streams, err := s.Store.Streams(r.Context(), auth.CallerOf(r).Tenant.ID)
	if err != nil {
		httpjson.Fail(w, r, s.Log, err)
		return
	}
	all := make([]configuration, 0, len(streams))
	for _, stream := range streams {
		if stream.CreatedBy != auth.CallerOf(r).Actor() {
			continue
		}
		all = append(all, s.configurationOf(r, stream))
	}
	httpjson.Answer(w, http.StatusOK, all)
}

func (s *Server) stream(r *http.Request, text string) (Stream, error) {
	if text == "" {
		return Stream{}, httpjson.Problem{Status: http.StatusBadRequest, Detail: "stream_id is missing"}
	}
	id, err := uuid.Parse(text)
	if err != nil {
		return Stream{}, ErrStreamNotFound
	}
	stream, err := s.Store.Get(r.Context(), auth.CallerOf(r).Tenant.ID, id)
	if err == nil && stream.CreatedBy != auth.CallerOf(r).Actor() {
		return Stream{}, ErrStreamNotFound // another receiver's
	}
	return stream, err
}

func (s *Server) updateStream(w http.ResponseWriter, r *http.Request) { s.changeStream(w, r, false) }

func (s *Server) replaceStream(w http.ResponseWriter, r *http.Request) { s.changeStream(w, r, true) }

func (s *Server) changeStream(w http.ResponseWriter, r *http.Request, whole bool) {
	var body wishes
	err := httpjson.DecodeLoosely(w, r, &body)
	if err == nil && body.ID == "" {
		err = httpjson.Problem{Status: http.StatusBadRequest, Detail: "stream_id is missing"}
	}
	var stream Stream
	if err == nil {
		stream, err = s.stream(r, body.ID)
	}
	if err == nil {
		err = body.contradicts(stream)
	}
	if err == nil {
		err = s.apply(&stream, body, whole)
	}
	if err == nil {
		stream, err = s.Store.Update(r.Context(), auth.CallerOf(r).Tenant.ID, stream)
	}
	if err != nil {
		httpjson.Fail(w, r, s.Log, err)
		return
	}
	httpjson.Answer(w, http.StatusOK, s.configurationOf(r, stream))
}

// contradicts returns an error if a receiver changes a member that the transmitter sets.
func (w wishes) contradicts(stream Stream) error {
	if (w.Issuer != nil && *w.Issuer != stream.Issuer) ||
		(w.Audience != nil && !slices.Equal(w.Audience, stream.Audience)) ||
		(w.Delivered != nil && !slices.Equal(*w.Delivered, stream.Events)) {
		return httpjson.Problem{
			Status: http.StatusBadRequest, Detail: "receivers cannot change iss, aud and events_delivered",
		}
	}
	return nil
}

func (s *Server) deleteStream(w http.ResponseWriter, r *http.Request) {
	stream, err := s.stream(r, r.URL.Query().Get("stream_id"))
	if err == nil {
		err = s.Store.Delete(r.Context(), auth.CallerOf(r).Tenant.ID, stream.ID)
	}
	if err != nil {
		httpjson.Fail(w, r, s.Log, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

type streamStatus struct {
	ID     string `json:"stream_id"`
	Status Status `json:"status"`
	Reason string `json:"reason,omitempty"`
}

func (s *Server) getStatus(w http.ResponseWriter, r *http.Request) {
	stream, err := s.stream(r, r.URL.Query().Get("stream_id"))
	if err != nil {
		httpjson.Fail(w, r, s.Log, err)
		return
	}
	httpjson.Answer(w, http.StatusOK, streamStatus{stream.ID.String(), stream.Status, stream.Reason})
}

func (s *Server) setStatus(w http.ResponseWriter, r *http.Request) {
	var body streamStatus
	err := httpjson.DecodeLoosely(w, r, &body)
	if err == nil && !slices.Contains(Statuses(), body.Status) {
		err = httpjson.Problem{Status: http.StatusBadRequest, Detail: fmt.Sprintf(
			"status must be one of %v, got %q", Statuses(), body.Status)}
	}
	if err == nil && (len(body.Reason) > maxText || httpjson.HasControl(body.Reason)) {
		err = httpjson.Problem{
			Status: http.StatusBadRequest, Detail: "reason must be at most 512 bytes without control characters",
		}
	}
	var stream Stream
	if err == nil {
		stream, err = s.stream(r, body.ID)
	}
	if err == nil {
		stream, err = s.Store.SetStatus(r.Context(), auth.CallerOf(r).Tenant.ID, stream.ID, body.Status, body.Reason)
	}
	if err != nil {
		httpjson.Fail(w, r, s.Log, err)
		return
	}
	httpjson.Answer(w, http.StatusOK, streamStatus{stream.ID.String(), stream.Status, stream.Reason})
}

func (s *Server) verifyStream(w http.ResponseWriter, r *http.Request) {
	var body struct {
		ID    string `json:"stream_id"`
		State string `json:"state"`
	}
	err := httpjson.DecodeLoosely(w, r, &body)
	if err == nil && (len(body.State) > maxText || httpjson.HasControl(body.State)) {
		err = httpjson.Problem{
			Status: http.StatusBadRequest, Detail: "state must be at most 512 bytes without control characters",
		}
	}
	var stream Stream
	if err == nil {
		stream, err = s.stream(r, body.ID)
	}
	if err == nil {
		err = s.Store.Verify(r.Context(), auth.CallerOf(r).Tenant.ID, stream.ID, body.State)
	}
	if err != nil {
		httpjson.Fail(w, r, s.Log, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// stringOrList decodes a JSON string or a list of strings, as the aud claim of a JWT.
type stringOrList []string

// UnmarshalJSON implements json.Unmarshaler.
func (l *stringOrList) UnmarshalJSON(raw []byte) error {
	if strings.HasPrefix(string(raw), `"`) {
		var one string
		if err := json.Unmarshal(raw, &one); err != nil {
			return err
		}
		*l = stringOrList{one}
		return nil
	}
	return json.Unmarshal(raw, (*[]string)(l))
}
