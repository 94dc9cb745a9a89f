package e2e

import (
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/leaverhq/leaver/internal/auth"
	"github.com/leaverhq/leaver/internal/evidence"
)

// visitor is a client of the console that keeps its cookies and does not follow redirects.
type visitor struct {
	i    *installation
	http *http.Client
}

func (i *installation) visitor() *visitor {
	jar, err := cookiejar.New(nil)
	if err != nil {
		i.t.Fatal(err)
	}
	return &visitor{i, &http.Client{Jar: jar, CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse
	}}}
}

// send sends a request to the console as a page of the site says that the browser does.
func (v *visitor) send(method, path, site string, form url.Values) (*http.Response, string) {
	v.i.t.Helper()
	r, err := http.NewRequestWithContext(v.i.t.Context(), method, v.i.url+"/console"+path, strings.NewReader(form.Encode()))
	if err != nil {
		v.i.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Sec-Fetch-Site", site)
	resp, err := v.http.Do(r)
	if err != nil {
		v.i.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		v.i.t.Fatal(err)
	}
	return resp, string(body)
}

func (v *visitor) signIn(secret string) int {
	v.i.t.Helper()
	resp, _ := v.send(http.MethodPost, "/sign-in", "same-origin", url.Values{"secret": {secret}})
	return resp.StatusCode
}

// consoleRoutes are the routes of the console that need a session, with the ids filled in.
func (i *installation) consoleRoutes() []route {
	var routes []route
	fill := strings.NewReplacer("{tenant}", "acme", "{id}", uuid.NewString(), "{name}", "x")
	for _, r := range i.routes() {
		path, ours := strings.CutPrefix(r.pattern, "/console")
		if ours && !strings.HasPrefix(path, "/sign-in") && !strings.HasPrefix(path, "/assets") {
			routes = append(routes, route{r.method, fill.Replace(path)})
		}
	}
	if len(routes) < 25 {
		i.t.Fatalf("the console has %d routes, want 25 at least", len(routes))
	}
	return routes
}

func TestConsole_NeedsASession(t *testing.T) {
	i := installAPI(t)
	stranger := i.visitor()
	for _, r := range i.consoleRoutes() {
		resp, body := stranger.send(r.method, r.pattern, "same-origin", nil)
		switch {
		case r.method == http.MethodGet && (resp.StatusCode != http.StatusSeeOther || resp.Header.Get("Location") != "/console/sign-in"):
			t.Errorf("GET %s without a session answered %d", r.pattern, resp.StatusCode)
		case r.method != http.MethodGet && resp.StatusCode != http.StatusUnauthorized:
			t.Errorf("%s %s without a session answered %d", r.method, r.pattern, resp.StatusCode)
		}
		if strings.Contains(body, "Signed in as") || !strings.Contains(resp.Header.Get("Content-Security-Policy"), "default-src 'none'") {
			t.Errorf("%s %s shows more than the sign-in, or has no policy", r.method, r.pattern)
		}
	}
	for name, secret := range map[string]string{
		"of a platform": i.platform, "of an IdP": i.scim, "of an approver": i.approver(), "invented": "leaver_operator_x", "empty": "", "a used link": i.usedLink(),
	} {
		if status := stranger.signIn(secret); status != http.StatusForbidden {
			t.Errorf("a token %s signs in: %d", name, status)
		}
	}
}

// usedLink returns the secret of a sign-in that has been used.
func (i *installation) usedLink() string {
	i.t.Helper()
	link := i.must(http.MethodPost, "/v1/sign-ins", i.operator, "")["url"].(string)
	_, secret, _ := strings.Cut(link, "#")
	if status := i.visitor().signIn(secret); status != http.StatusSeeOther {
		i.t.Fatalf("a link answered %d", status)
	}
	return secret
}

// TestConsole_RefusesTheFormsOfOtherSites sends each form as a page of another site would, with the cookie.
func TestConsole_RefusesTheFormsOfOtherSites(t *testing.T) {
	i := installAPI(t)
	ada := i.createUser("ada@example.com")
	operator := i.visitor()
	if status := operator.signIn(i.operator); status != http.StatusSeeOther {
		t.Fatalf("the sign-in answered %d", status)
	}
	buttons := 0
	for _, r := range i.consoleRoutes() {
		if r.method != http.MethodPost {
			continue
		}
		buttons++
		for _, site := range []string{"cross-site", "same-site"} {
			if resp, _ := operator.send(r.method, r.pattern, site, url.Values{"reason": {"x"}}); resp.StatusCode != http.StatusForbidden {
				t.Errorf("%s from %s answered %d, want 403", r.pattern, site, resp.StatusCode)
			}
		}
	}
	if buttons < 12 {
		t.Errorf("%d forms were sent, want 12 at least", buttons)
	}
	end := "/tenants/acme/principals/" + ada + "/end"
	if resp, body := operator.send(http.MethodPost, end, "same-origin", url.Values{"reason": {"she left"}}); resp.StatusCode != http.StatusSeeOther {
		t.Errorf("the console's own form answered %d: %s", resp.StatusCode, body)
	}
	if resp, _ := i.visitor().send(http.MethodPost, "/sign-in", "cross-site", url.Values{"secret": {i.operator}}); resp.StatusCode != http.StatusForbidden {
		t.Errorf("another site signs a browser in: %d", resp.StatusCode)
	}
}

// TestConsole_ShowsAndDoesWhatTheRoleMay opens every page and presses every button with each role.
func TestConsole_ShowsAndDoesWhatTheRoleMay(t *testing.T) {
	i := installAPI(t)
	i.exported()
	for _, class := range auth.OperatorClasses() {
		v := i.visitor()
		if status := v.signIn(i.token(uuid.Nil, class)); status != http.StatusSeeOther {
			t.Fatalf("a token of class %s answered %d", class, status)
		}
		for _, r := range i.consoleRoutes() {
			if strings.HasSuffix(r.pattern, "/sign-out") {
				continue
			}
			resp, body := v.send(r.method, r.pattern, "same-origin", nil)
			denied := resp.StatusCode == http.StatusForbidden
			audits := strings.Contains(r.pattern, "/evidence") || strings.HasSuffix(r.pattern, "/tokens") && r.method == http.MethodGet ||
				strings.HasSuffix(r.pattern, "/report")
			want := true // whether the role may
			switch {
			case audits:
				want = class == auth.ClassOperator || class == auth.ClassAuditor
			case strings.HasSuffix(r.pattern, "/approve"), strings.HasSuffix(r.pattern, "/decline"):
				want = false // with the token of an approver alone; see TestConsole_WaiverNeedsASecondPerson
			case r.method == http.MethodPost:
				want = class == auth.ClassOperator
			}
			if denied == want || resp.StatusCode >= http.StatusInternalServerError {
				t.Errorf("%s %s as %s answered %d; may: %t\n%s", r.method, r.pattern, class, resp.StatusCode, want, body)
			}
			if class == auth.ClassViewer && strings.Contains(body, `method="post"`) &&
				strings.Count(body, `method="post"`) != strings.Count(body, `action="/console/sign-out"`) {
				t.Errorf("%s shows a viewer a button", r.pattern)
			}
		}
		if resp, _ := v.send(http.MethodPost, "/sign-out", "same-origin", nil); resp.StatusCode != http.StatusSeeOther {
			t.Errorf("the sign-out answered %d", resp.StatusCode)
		}
		if resp, _ := v.send(http.MethodGet, "/", "same-origin", nil); resp.Header.Get("Location") != "/console/sign-in" {
			t.Errorf("after the sign-out the console answered %d", resp.StatusCode)
		}
	}
}

func TestConsole_SessionEndsWithItsToken(t *testing.T) {
	i := installAPI(t)
	made := i.must(http.MethodPost, "/v1/operator-tokens", i.operator, `{"class":"operator"}`)
	v := i.visitor()
	v.signIn(made["secret"].(string))
	if resp, _ := v.send(http.MethodGet, "/", "same-origin", nil); resp.StatusCode != http.StatusOK {
		t.Fatalf("the console answered %d", resp.StatusCode)
	}
	i.must(http.MethodDelete, "/v1/operator-tokens/"+made["id"].(string), i.operator, "")
	if resp, _ := v.send(http.MethodGet, "/", "same-origin", nil); resp.StatusCode != http.StatusSeeOther {
		t.Errorf("the session of a revoked token answered %d", resp.StatusCode)
	}
}

func TestConsole_CookieIsForThisSiteAlone(t *testing.T) {
	i := installAPI(t)
	for host, want := range map[string]string{
		"":                   "leaver=",        // 127.0.0.1
		"leaver.example.com": "__Host-leaver=", // behind a proxy with TLS
	} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, i.url+"/console/sign-in",
			strings.NewReader(url.Values{"secret": {i.operator}}.Encode()))
		if err != nil {
			t.Fatal(err)
		}
		r.Host = host
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		resp, err := i.visitor().http.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		cookie := resp.Header.Get("Set-Cookie")
		for _, part := range []string{want, "HttpOnly", "SameSite=Strict", "Path=/;", "Max-Age=28800"} {
			if !strings.Contains(cookie+";", part) {
				t.Errorf("the cookie of %q lacks %s: %s", host, part, cookie)
			}
		}
		if secure := strings.Contains(cookie, "Secure"); secure != (host != "") {
			t.Errorf("the cookie of %q: Secure is %t", host, secure)
		}
	}
}

func TestConsole_ReportAndExportAreThoseOfTheCLI(t *testing.T) {
	i := install(t)
	ada := i.createUser("ada@example.com")
	i.deactivate(ada)
	i.closed(ada)
	v := i.visitor()
	v.signIn(i.operator)
	resp, body := v.send(http.MethodPost, "/tenants/acme/principals/"+ada+"/report", "same-origin", nil)
	if resp.StatusCode != http.StatusOK || !strings.Contains(body, "Deprovisioning of ada@example.com") {
		t.Errorf("the report answered %d: %s", resp.StatusCode, body)
	}
	resp, body = v.send(http.MethodPost, "/tenants/acme/evidence/export", "same-origin", nil)
	if resp.StatusCode != http.StatusOK || !strings.HasPrefix(resp.Header.Get("Content-Disposition"), "attachment") {
		t.Fatalf("the export answered %d", resp.StatusCode)
	}
	report, err := evidence.Verify(strings.NewReader(body),
		evidence.NewKeys(list[evidence.PublicKey](i, "/v1/evidence/keys", i.operator)...))
	if err != nil || len(report.Faults) > 0 || report.Entries == 0 {
		t.Errorf("the export does not verify: %+v, %v", report, err)
	}
}
