package scim

import (
	"context"
	"net/http"
	"slices"
	"strconv"

	"github.com/google/uuid"

	"github.com/leaverhq/leaver/internal/directory"
	"github.com/leaverhq/leaver/scim/schema"
)

const (
	// firstMembers is how many members of each group of a page are read in one query. The
	// other members of a group are read in batches of moreMembers.
	firstMembers = 100
	moreMembers  = 2000
)

// writePage streams a ListResponse, because a page of large groups does not fit in memory.
func (h resourceHandler) writePage(
	w http.ResponseWriter, r *http.Request, q searchRequest, page directory.Page,
	projections map[string]projection, next string,
) error {
	members, err := h.members(r, page.Resources, projections)
	if err != nil {
		return err
	}
	b := append([]byte(`{"schemas":["`+schema.ListURN+`"],"totalResults":`), strconv.Itoa(page.Total)...)
	if !q.byCursor {
		b = strconv.AppendInt(append(b, `,"startIndex":`...), int64(q.start), 10)
	}
	b = strconv.AppendInt(append(b, `,"itemsPerPage":`...), int64(len(page.Resources)), 10)
	if next != "" {
		b = schema.AppendString(append(b, `,"nextCursor":`...), next)
	}
	b = append(b, `,"Resources":[`...)
	out := &bodyWriter{w: w, status: http.StatusOK, b: b}
	for i, resource := range page.Resources {
		if i > 0 {
			out.b = append(out.b, ',')
		}
		p := projections[resource.Type]
		body, err := p.apply(render(p.rt, sessionOf(r).base, resource))
		if i == 0 {
			// Resources of a page have similar sizes.
			out.b = slices.Grow(out.b, min(sendAt, len(page.Resources)*len(body)))
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

// bodyWriter buffers a body and sends the buffer when it reaches sendAt.
type bodyWriter struct {
	w      http.ResponseWriter
	status int
	b      []byte
	sent   bool
}

// sendAt is the size of the buffer, in bytes.
const sendAt = 256 << 10

func (o *bodyWriter) flush() {
	if len(o.b) < sendAt {
		return
	}
	o.header()
	_, _ = o.w.Write(o.b) // the client may have disconnected
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
	_, _ = o.w.Write(o.b) // the client may have disconnected
}

// abort returns err. If a part of the response has been sent, it aborts the connection
// instead, so that the client does not take the part for the whole.
func (o *bodyWriter) abort(err error) error {
	if o.sent {
		panic(http.ErrAbortHandler)
	}
	return err
}

// memberReader writes the members of groups. first holds the first batch of each group.
type memberReader struct {
	resourceHandler
	tenant uuid.UUID
	base   string
	first  map[uuid.UUID][]directory.Edge
}

// members reads the first members of the groups among the resources, unless the projection
// omits members.
func (h resourceHandler) members(
	r *http.Request, resources []*directory.Resource, projections map[string]projection,
) (*memberReader, error) {
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

// write writes a resource with its members, if it has any.
func (m *memberReader) write(
	ctx context.Context, out *bodyWriter, p projection, r *directory.Resource, body []byte,
) error {
	members := m.first[r.ID]
	if len(members) == 0 {
		out.b = append(out.b, body...)
		out.flush()
		return nil
	}
	_, keep := p.keeps(p.rt.Schema, schema.FindAttribute(p.rt.Schema.Attributes, directory.EdgeMembers))
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
