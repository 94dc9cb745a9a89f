package api

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/leaverhq/leaver/activities/connectors"
	"github.com/leaverhq/leaver/internal/credential"
	"github.com/leaverhq/leaver/internal/httpjson"
)

// correction is the request body of correctItem.
type correction struct {
	Reason    string          `json:"reason"`
	Reference string          `json:"reference"`
	Secret    httpjson.Secret `json:"secret"`
}

// releaseItem releases a registration whose reference does not exist at the downstream.
func (s *Server) releaseItem(w http.ResponseWriter, r *http.Request) {
	id, body, err := s.readAct(w, r)
	var item *credential.Item
	if err == nil {
		item, err = s.Credentials.ReleaseByOperator(r.Context(), tenantOf(r).ID, id, body.Reason)
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	httpjson.Answer(w, http.StatusOK, item)
}

// correctItem replaces a registration whose reference was wrong.
func (s *Server) correctItem(w http.ResponseWriter, r *http.Request) {
	var body correction
	id, err := pathID(r)
	if err == nil {
		err = httpjson.Decode(w, r, &body)
	}
	if err == nil {
		err = checkReason(&body.Reason)
	}
	var old, item *credential.Item
	if err == nil {
		old, err = s.Credentials.Get(r.Context(), tenantOf(r).ID, id, connectors.Kinds())
	}
	if err == nil {
		// The checks of a new registration apply: by the connector, and against other registrations.
		asked := registration{
			Principal: old.Principal, Agent: old.Agent, Kind: old.Kind, Connector: old.Connector,
			Reference: body.Reference, Secret: body.Secret,
			Shared: old.Shared, ReliedOnBy: old.ReliedOnBy, Entitlement: old.Entitlement, Scopes: old.Scopes,
		}
		err = s.check(r.Context(), tenantOf(r), connectors.Kinds(), &asked)
		body.Reference = asked.Reference
	}
	if err == nil {
		corrected := credential.Correction{Reference: body.Reference, Secret: body.Secret.Secret}
		item, err = s.Credentials.Correct(r.Context(), tenantOf(r).ID, id, corrected, body.Reason)
	}
	if errors.Is(err, credential.ErrDuplicate) {
		err = httpjson.Problem{
			Status: http.StatusConflict,
			Detail: fmt.Sprintf("reference %q is already registered: release this registration instead", body.Reference),
		}
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	httpjson.Answer(w, http.StatusOK, item)
}
