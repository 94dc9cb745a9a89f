// Package siem sends the evidence to a SIEM, in the Open Cybersecurity Schema Framework (OCSF), at least once and in
// the order of each chain.
package siem

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/leaverhq/leaver/internal/audit"
	"github.com/leaverhq/leaver/internal/evidence"
	"github.com/leaverhq/leaver/internal/lifecycle"
)

// schemaVersion is the version of OCSF, https://schema.ocsf.io/1.3.0/.
const schemaVersion = "1.3.0"

// The classes and their categories.
const (
	categoryIAM         = 3
	categoryApplication = 6
	classAccountChange  = 3001
	classAuthentication = 3002
	classAPIActivity    = 6003
)

// The activities. Those of an account change, of an authentication and of an API differ.
const (
	authLogon      = 1
	authLogoff     = 2
	accountCreate  = 1
	accountDisable = 5
	accountDelete  = 6
	apiCreate      = 1
	apiRead        = 2
	apiUpdate      = 3
	apiDelete      = 4
	activityOther  = 99
)

// The severities and states.
const (
	severityInformational = 1
	severityHigh          = 4
	statusUnknown         = 0
	statusSuccess         = 1
	statusFailure         = 2
)

// Event is an event in OCSF: an Account Change, an Authentication or an API Activity.
type Event struct {
	ClassUID    int             `json:"class_uid"`
	CategoryUID int             `json:"category_uid"`
	ActivityID  int             `json:"activity_id"`
	TypeUID     int             `json:"type_uid"`
	SeverityID  int             `json:"severity_id"`
	StatusID    int             `json:"status_id"`
	Detail      string          `json:"status_detail,omitempty"`
	Time        int64           `json:"time"` // milliseconds since 1970
	Metadata    Metadata        `json:"metadata"`
	Actor       *Actor          `json:"actor,omitempty"`
	User        *User           `json:"user,omitempty"`
	API         *API            `json:"api,omitempty"`
	Source      *Endpoint       `json:"src_endpoint,omitempty"`
	Unmapped    json.RawMessage `json:"unmapped"` // the record
}

// Metadata identifies the event: UID is the same if it is sent again.
type Metadata struct {
	Version  string  `json:"version"`
	UID      string  `json:"uid"`
	Sequence int64   `json:"sequence"`
	Tenant   string  `json:"tenant_uid"`
	LogName  string  `json:"log_name"` // the source of the record
	Product  Product `json:"product"`
}

// Product is leaver.
type Product struct {
	Name   string `json:"name"`
	Vendor string `json:"vendor_name"`
}

// Actor is who caused the event.
type Actor struct {
	User User `json:"user"`
}

// User is a principal, or the account that a credential stands for.
type User struct {
	UID string `json:"uid"`
}

// API is the call.
type API struct {
	Operation string `json:"operation"`
}

// Endpoint is where the call came from.
type Endpoint struct {
	Service string `json:"svc_name"`
}

// record has the members that records share.
type record struct {
	At        time.Time `json:"at"`
	CreatedAt time.Time `json:"created_at"`  // of rules
	Archived  time.Time `json:"archived_at"` // of histories
	Actor     string    `json:"actor"`
	Verb      string    `json:"verb"`
	Step      string    `json:"step"`
	Outcome   string    `json:"outcome"`
	State     string    `json:"state"`
	Detail    string    `json:"detail"`
	Reason    string    `json:"reason"`
	Item      uuid.UUID `json:"item_id"`
	// Before and After of the act on a token say whether it is a session of the console or the command line.
	Before  tokenRecord `json:"before"`
	After   tokenRecord `json:"after"`
	Cascade struct {
		Kind      lifecycle.Kind `json:"kind"`
		Principal uuid.UUID      `json:"principal_id"`
		Outcome   string         `json:"outcome"`
		Actor     string         `json:"actor"`
	} `json:"cascade"`
}

// tokenRecord is a token, or another object without its members.
type tokenRecord struct {
	SessionOf *uuid.UUID `json:"sessionOf"`
	Class     string     `json:"class"`
	Reason    string     `json:"reason"` // of a refused sign-in
}

// holder returns the actor of the session's token.
func (t tokenRecord) holder() string { return t.Class + "-token/" + t.SessionOf.String() }

// UnmarshalJSON implements json.Unmarshaler. Objects of acts have many forms; those that are not tokens are skipped.
func (t *tokenRecord) UnmarshalJSON(raw []byte) error {
	type plain tokenRecord
	var p plain
	if err := json.Unmarshal(raw, &p); err == nil {
		*t = tokenRecord(p)
	}
	return nil
}

// EventOf returns the event of a chained record.
func EventOf(c evidence.Chained) (Event, error) {
	whole, err := c.Entry.Whole()
	if err != nil {
		return Event{}, err
	}
	var r record
	if err := json.Unmarshal(whole, &r); err != nil {
		return Event{}, fmt.Errorf("decode record %d: %w", c.Entry.Sequence, err)
	}
	e := Event{
		SeverityID: severityInformational, StatusID: statusSuccess,
		Metadata: Metadata{
			Version: schemaVersion, UID: fmt.Sprintf("%s/%d", c.Entry.Tenant, c.Entry.Sequence), Sequence: c.Entry.Sequence,
			Tenant: c.Entry.Tenant.String(), LogName: c.Entry.Source, Product: Product{"leaver", "leaver"},
		},
		Unmapped: whole,
	}
	at := r.At
	switch c.Entry.Source {
	case "credential_states":
		e.credential(r)
	case "cascade_histories":
		at = r.Archived
		if r.Cascade.Kind == lifecycle.Leaver {
			e.account(accountDisable, r.Cascade.Principal, r.Cascade.Actor)
		} else { // of a mover, who keeps the account
			e.call(activityOther, "cascade.close", r.Cascade.Actor)
			e.User = &User{r.Cascade.Principal.String()}
		}
		if r.Cascade.Outcome != "completed" {
			e.fail(r.Cascade.Outcome)
		}
	case "evidence":
		e.attempt(r)
	case "mappings":
		at = r.CreatedAt
		e.call(apiUpdate, "mapping.apply", r.Actor)
	case evidence.ErasureSource:
		e.call(apiDelete, "evidence.erase", r.Actor)
		e.Detail = r.Reason
	default: // acts and admin_acts
		e.Detail = r.Reason
		switch {
		case r.Verb == audit.TokenIssue && r.After.SessionOf != nil:
			e.authentication(authLogon, r.After.holder(), r.Actor)
		case r.Verb == audit.TokenRevoke && r.Before.SessionOf != nil:
			e.authentication(authLogoff, r.Before.holder(), r.Actor)
		case r.Verb == audit.SignInRefuse:
			e.authentication(authLogon, r.Actor, r.Actor)
			e.fail(r.After.Reason)
		default:
			e.call(activityOther, r.Verb, r.Actor)
		}
	}
	e.Time = at.UnixMilli()
	e.TypeUID = e.ClassUID*100 + e.ActivityID
	return e, nil
}

// credential describes the new state of a credential as a change of the account that it is.
func (e *Event) credential(r record) {
	e.account(activityOther, r.Item, r.Actor)
	e.Detail = r.Reason
	switch r.State {
	case "live":
		e.ActivityID = accountCreate
	case "verified", "revoked", "absent", "released":
		e.ActivityID = accountDelete
	case "failed":
		e.ActivityID = accountDelete
		e.fail(r.Reason)
	}
}

// attempt describes a step of an attempt at a downstream.
func (e *Event) attempt(r record) {
	activity := apiRead
	switch r.Step {
	case "revoke", "cancel", "retire-old", "revoke-new":
		activity = apiDelete
	case "block", "unblock", "rotate", "begin", "publish":
		activity = apiUpdate
	case "make-new":
		activity = apiCreate
	}
	e.call(activity, r.Step, "leaver")
	e.Detail = r.Outcome
	if r.Detail != "" {
		e.Detail += ": " + r.Detail
	}
	switch r.Outcome {
	case "failed", "refused":
		e.fail(e.Detail)
	case "unknown":
		e.StatusID = statusUnknown
	}
}

func (e *Event) account(activity int, user uuid.UUID, actor string) {
	e.ClassUID, e.CategoryUID, e.ActivityID = classAccountChange, categoryIAM, activity
	e.User = &User{user.String()}
	e.by(actor)
}

// authentication describes a session of an operator that begins or ends, or a sign-in that is refused.
func (e *Event) authentication(activity int, user, actor string) {
	e.ClassUID, e.CategoryUID, e.ActivityID = classAuthentication, categoryIAM, activity
	e.User, e.Source = &User{user}, &Endpoint{"leaver"}
	e.by(actor)
}

func (e *Event) call(activity int, operation, actor string) {
	e.ClassUID, e.CategoryUID, e.ActivityID = classAPIActivity, categoryApplication, activity
	e.API, e.Source = &API{operation}, &Endpoint{"leaver"}
	e.by(actor)
}

// by sets the actor; cascades are leaver's own.
func (e *Event) by(actor string) {
	if actor == "" {
		actor = "leaver"
	}
	e.Actor = &Actor{User{actor}}
}

func (e *Event) fail(detail string) {
	e.SeverityID, e.StatusID, e.Detail = severityHigh, statusFailure, detail
}
