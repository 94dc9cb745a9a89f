package scim

import (
	"context"
	"net/http"
	"slices"
	"strconv"

	"github.com/google/uuid"

	"github.com/leaverhq/leaver/internal/directory"
)

const (
	// firstMembers are read for all groups of a page at once; a group that has
	// more is read on in pieces of moreMembers.
	firstMembers = 100
	moreMembers  = 2000
)

// writePage sends a ListResponse piece by piece: a page of large groups is
// never in memory as a whole.
func (h resourceHandler) writePage(w http.ResponseWriter, r *http.Request, q searchRequest, page directory.Page, projections map[string]projection, next string) error {
	members, err := h.members(r, page.Resources, projections)
	if err != nil {
		return err
	}
	b := append([]byte(`{"schemas":["`+listURN+`"],"totalResults":`), strconv.Itoa(page.Total)...)
	if !q.byCursor {
		b = strconv.AppendInt(append(b, `,"startIndex":`...), int64(q.start), 10)
	}
	b = strconv.AppendInt(append(b, `,"itemsPerPage":`...), int64(len(page.Resources)), 10)
	if next != "" {
		b = appendString(append(b, `,"nextCursor":`...), next)
	}
	b = append(b, `,"Resources":[`...)
	out := &bodyWriter{w: w, status: http.StatusOK, b: b}
	for i, resource := range page.Resources {
		if i > 0 {
			out.b = append(out.b, ',')
		}
		p := projections[resource.Type]
		body, err := p.apply(p.rt.render(sessionOf(r).base, resource))
		if i == 0 {
			out.b = slices.Grow(out.b, min(sendAt, len(page.Resources)*len(body))) // resources of a page are alike
		}
		if err == nil {
			err = members.write(r.Context(), out, p, resource, body)
		}
		if err != nil {
			return out.abort(err)
		}
	}
	out.b = append(out.b, `]}`...)
	out.close()
	return nil
}

// bodyWriter collects a body, and sends what it has when it grows large.
type bodyWriter struct {
	w      http.ResponseWriter
	status int
	b      []byte
	sent   bool
}

// sendAt is how much is collected, in bytes.
const sendAt = 256 << 10

func (o *bodyWriter) flush() {
	if len(o.b) < sendAt {
		return
	}
	o.header()
	_, _ = o.w.Write(o.b) // a client that is gone needs no answer
	o.b = o.b[:0]
}

func (o *bodyWriter) header() {
	if !o.sent {
		o.sent = true
		o.w.Header().Set("Content-Type", contentType)
		o.w.WriteHeader(o.status)
	}
}

func (o *bodyWriter) close() {
	o.header()
	_, _ = o.w.Write(o.b) // a client that is gone needs no answer
}

// abort returns the error, or where an answer is under way already cuts the
// connection: half an answer must not look like one.
func (o *bodyWriter) abort(err error) error {
	if o.sent {
		panic(http.ErrAbortHandler)
	}
	return err
}

// memberReader writes the members of groups that were begun to be read.
type memberReader struct {
	resourceHandler
	tenant uuid.UUID
	base   string
	first  map[uuid.UUID][]directory.Edge
}

// members begins to read the members of the groups among the resources, where
// anyone asks for them.
func (h resourceHandler) members(r *http.Request, resources []*directory.Resource, projections map[string]projection) (*memberReader, error) {
	m := &memberReader{resourceHandler: h, tenant: sessionOf(r).Tenant.ID, base: sessionOf(r).base}
	var groups []uuid.UUID
	for _, resource := range resources {
		if resource.Type == directory.TypeGroup && !projections[directory.TypeGroup].omits(directory.EdgeMembers) {
			groups = append(groups, resource.ID)
		}
	}
	if len(groups) == 0 {
		return m, nil
	}
	var err error
	m.first, err = h.Directory.Members(r.Context(), m.tenant, groups, uuid.Nil, firstMembers)
	return m, err
}

// write sends a resource with its members, if it has any.
func (m *memberReader) write(ctx context.Context, out *bodyWriter, p projection, r *directory.Resource, body []byte) error {
	members := m.first[r.ID]
	if len(members) == 0 {
		out.b = append(out.b, body...)
		out.flush()
		return nil
	}
	_, keep := p.keeps(p.rt.Schema, attribute(p.rt.Schema.Attributes, directory.EdgeMembers))
	out.b = append(append(out.b, body[:len(body)-1]...), `,"members":[`...)
	n := 0
	for limit := firstMembers; ; limit = moreMembers {
		for _, e := range members {
			if n++; n > 1 {
				out.b = append(out.b, ',')
			}
			out.b = appendLink(out.b, m.base, linkOf(e), keep)
		}
		out.flush()
		if len(members) < limit {
			break
		}
		more, err := m.Directory.Members(ctx, m.tenant, []uuid.UUID{r.ID}, members[len(members)-1].Target, moreMembers)
		if err != nil {
			return err
		}
		if members = more[r.ID]; len(members) == 0 {
			break
		}
	}
	out.b = append(out.b, `]}`...)
	return nil
}
