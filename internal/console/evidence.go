package console

import (
	"net/url"
	"strconv"

	"github.com/leaverhq/leaver/internal/apiclient"
	"github.com/leaverhq/leaver/internal/evidence"
)

// evidenceView is a page of a tenant's chain.
type evidenceView struct {
	Keys        []evidence.PublicKey
	Checkpoints int
	Last        *evidence.Checkpoint
	Entries     []evidence.Chained
	Next        string // the query of the next page
}

func evidencePage(q request) (any, error) {
	var v evidenceView
	var err error
	if v.Keys, err = list[evidence.PublicKey](q, "/evidence/keys"); err != nil {
		return nil, err
	}
	checkpoints, err := apiclient.All[evidence.Checkpoint](q.Context(), q.Client, q.of("/evidence/checkpoints"),
		url.Values{"limit": {"500"}}, 0)
	if err != nil {
		return nil, err
	}
	if v.Checkpoints = len(checkpoints); v.Checkpoints > 0 {
		v.Last = &checkpoints[v.Checkpoints-1]
	}
	query := url.Values{"limit": {"100"}}
	if after := q.URL.Query().Get("cursor"); after != "" {
		query.Set("cursor", after)
	} else if v.Last != nil { // the newest records first of all
		query.Set("cursor", strconv.FormatInt(max(0, v.Last.Statement.Sequence-100), 10))
	}
	page, err := get[apiclient.Page[evidence.Chained]](q, q.of("/evidence?"+query.Encode()))
	v.Entries = page.Items
	if page.Next != "" {
		v.Next = url.Values{"cursor": {page.Next}}.Encode()
	}
	return v, err
}
