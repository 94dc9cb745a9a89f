package api

import (
	"net/http"

	"github.com/go-chi/chi/v5"

	"github.com/leaverhq/leaver/internal/auth"
)

// roles are routers that require a token of certain classes. Each field names the classes that it accepts.
type roles struct {
	view      chi.Router // viewers, auditors, operators
	audit     chi.Router // auditors, operators
	operate   chi.Router // operators
	configure chi.Router // operators, approvers
	approve   chi.Router // approvers
}

// roles returns the routers below r. then are middlewares that need the caller.
func (s *Server) roles(r chi.Router, then ...func(http.Handler) http.Handler) roles {
	only := func(classes ...auth.Class) chi.Router {
		return r.With(append([]func(http.Handler) http.Handler{s.authenticate(classes...), s.logActs}, then...)...)
	}
	return roles{
		view:      only(auth.OperatorClasses()...),
		audit:     only(auth.ClassOperator, auth.ClassAuditor),
		operate:   only(auth.ClassOperator),
		configure: only(auth.ClassOperator, auth.ClassApprover),
		approve:   only(auth.ClassApprover),
	}
}

// serveInstallation adds the routes about the installation.
func (s *Server) serveInstallation(r roles) {
	r.view.Get("/tenants", s.listTenants)
	r.operate.Post("/tenants", s.createTenant)
	r.audit.Get("/operator-tokens", s.listTokens)
	r.operate.Post("/operator-tokens", s.createToken)
	r.operate.Delete("/operator-tokens/{id}", s.revokeToken)
	r.view.Post("/sign-ins", s.createSignIn)
	r.view.With(s.slowly).Get("/connectors", s.listConnectors)
	r.operate.Post("/connectors/{name}/pause", s.pauseConnector)
	r.operate.Post("/connectors/{name}/resume", s.resumeConnector)
	r.audit.Get("/acts", s.listAdminActs)
	s.serveEvidence(r)
	r.audit.Get("/evidence/keys", s.listEvidenceKeys)
}

// serveTenant adds the routes below a tenant.
func (s *Server) serveTenant(r roles) {
	s.serveAccess(r)
	s.serveDirectory(r)
	s.serveCascades(r)
	s.serveEvidence(r)
	r.audit.Get("/acts", s.listAdminActs)
}

// serveAccess adds the routes about who may call leaver for a tenant, and receive its events.
func (s *Server) serveAccess(r roles) {
	r.audit.Get("/tokens", s.listTokens)
	r.operate.Post("/tokens", s.createToken)
	r.operate.Delete("/tokens/{id}", s.revokeToken)
	r.audit.Get("/issuers", s.listIssuers)
	r.operate.Post("/issuers", s.addIssuer)
	r.operate.Delete("/issuers/{id}", s.removeIssuer)
	r.audit.Get("/clients", s.listClients)
	r.operate.Post("/clients", s.addClient)
	r.operate.Delete("/clients/{id}", s.removeClient)
	r.view.Get("/streams", s.listStreams)
	r.operate.Post("/streams/{id}/assign", s.assignStream)
}

// serveDirectory adds the routes about principals, what they hold, and the rules.
func (s *Server) serveDirectory(r roles) {
	r.view.Get("/schemas", s.listSchemas)
	r.operate.Put("/schemas/{urn}", s.putSchema)
	r.operate.Delete("/schemas/{urn}", s.deleteSchema)
	r.view.With(s.slowly).Get("/changes", s.listChanges)
	r.view.Get("/principals", s.findPrincipals)
	r.view.Get("/principals/{id}", s.showPrincipal)
	r.view.With(s.slowly).Get("/principals/{id}/plan", s.planEnd)
	r.operate.Post("/principals/{id}/end", s.endPrincipal)
	r.view.Get("/principals/{id}/restoration", s.planRestore)
	r.operate.Post("/principals/{id}/restore", s.restorePrincipal)
	r.approve.Post("/principals/{id}/erase", s.erasePrincipal)
	r.view.With(s.slowly).Get("/credentials", s.listCredentials)
	r.view.Get("/credentials/{id}", s.getItem)
	r.operate.Post("/credentials/{id}/release", s.releaseItem)
	r.operate.Post("/credentials/{id}/correct", s.correctItem)
	r.operate.Post("/import", s.importItems)
	r.view.With(s.slowly).Get("/unmanaged", s.listUnmanaged)
	r.operate.Post("/unmanaged/{id}/claim", s.claim)
	r.view.Get("/mapping", s.getMapping)
	r.operate.Put("/mapping", s.applyMapping)
	r.view.Get("/mapping/versions", s.listMappings)
	r.view.Get("/mapping/versions/{version}", s.getMappingVersion)
	r.operate.Post("/mapping/rollback", s.rollbackMapping)
	r.view.Post("/mapping/test", s.testMapping)
	r.operate.Post("/mapping/diff", s.diffMapping)
}

// serveCascades adds the routes about cascades.
func (s *Server) serveCascades(r roles) {
	r.view.Get("/holds", s.listHolds)
	r.approve.Post("/holds/approve", s.approveHold)
	r.view.Get("/waivers", s.listWaivers)
	r.approve.Post("/waivers/{id}/approve", s.approveWaiver)
	r.approve.Post("/waivers/{id}/decline", s.declineWaiver)
	r.view.With(s.slowly).Get("/cascades", s.listCascades)
	r.view.With(s.slowly).Get("/time-to-zero", s.showTiming)
	r.view.Get("/cascades/{id}", s.getCascade)
	r.view.With(s.slowly).Get("/cascades/{id}/evidence", s.listEvidence)
	r.operate.Post("/cascades/{id}/rerun", s.rerunCascade)
	r.operate.Post("/cascades/{id}/retry", s.retryCascade)
	r.operate.Post("/cascades/{id}/waive", s.waive)
	r.operate.Post("/cascades/{id}/cancel", s.cancelCascade)
	r.view.Get("/cascades/{id}/acts", s.listActs)
	r.audit.Get("/cascades/{id}/histories", s.listHistories)
	r.audit.With(s.slowly).Get("/cascades/{id}/histories/{run}", s.getHistory)
}
