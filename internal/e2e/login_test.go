package e2e

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/leaverhq/leaver/internal/audit"
	"github.com/leaverhq/leaver/internal/auth"
	"github.com/leaverhq/leaver/internal/config"
	"github.com/leaverhq/leaver/internal/devstack/openid"
)

// installLogin starts an installation that signs people in by a real OpenID provider.
func installLogin(t *testing.T) (*installation, *openid.Provider) {
	t.Helper()
	provider, err := openid.Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(provider.Close)
	t.Setenv("TEST_LOGIN_SECRET", provider.ClientSecret)
	i := installAPI(t, func(c *config.Config) {
		c.Login = config.Login{
			Issuer: provider.Issuer, ClientID: "console", ClientSecret: "env:TEST_LOGIN_SECRET",
			Operators: []string{"leaver-ops"}, Auditors: []string{"audit"}, Viewers: []string{"staff"},
		}
	})
	provider.AddClient("console", i.url+"/console/login/callback")
	provider.SetGroups("ada", "staff", "leaver-ops")
	provider.SetGroups("vera", "staff")
	provider.SetGroups("mallory", "sales")
	return i, provider
}

// atProvider starts a sign-in and signs the subject in at the provider; it returns the path of the redirect back.
func (v *visitor) atProvider(provider *openid.Provider, start, subject string) string {
	v.i.t.Helper()
	resp, body := v.send(http.MethodGet, start, "same-origin", nil)
	if resp.StatusCode != http.StatusSeeOther {
		v.i.t.Fatalf("the sign-in answered %d: %s", resp.StatusCode, body)
	}
	request := resp.Header.Get("Location")
	for _, part := range []string{"code_challenge_method=S256", "code_challenge=", "nonce=", "state="} {
		if !strings.Contains(request, part) {
			v.i.t.Errorf("the authorization request lacks %s: %s", part, request)
		}
	}
	callback, err := provider.SignIn(v.i.t.Context(), request, subject)
	if err != nil {
		v.i.t.Fatal(err)
	}
	return "/login/callback?" + callback.RawQuery
}

func TestLogin_GroupsDecideTheRole(t *testing.T) {
	i, provider := installLogin(t)
	for subject, class := range map[string]auth.Class{"ada": auth.ClassOperator, "vera": auth.ClassViewer} {
		v := i.visitor()
		resp, body := v.send(http.MethodGet, v.atProvider(provider, "/login", subject), "cross-site", nil)
		if resp.StatusCode != http.StatusOK || !strings.Contains(body, "with the role "+string(class)) {
			t.Fatalf("%s: the redirect back answered %d: %s", subject, resp.StatusCode, body)
		}
		if resp, body := v.send(http.MethodGet, "/", "same-origin", nil); resp.StatusCode != http.StatusOK ||
			!strings.Contains(body, "Signed in as "+string(class)) {
			t.Errorf("%s: the console answered %d", subject, resp.StatusCode)
		}
		v.send(http.MethodPost, "/sign-out", "same-origin", nil)
		if resp, _ := v.send(http.MethodGet, "/", "same-origin", nil); resp.StatusCode != http.StatusSeeOther {
			t.Errorf("%s: after the sign-out the console answered %d", subject, resp.StatusCode)
		}
	}
	var logins []string
	for _, act := range list[audit.Act](i, "/v1/acts", i.operator) {
		if strings.HasPrefix(act.Actor, "login/") {
			logins = append(logins, act.Verb+" by "+act.Actor)
		}
	}
	if len(logins) != 2 || !strings.Contains(strings.Join(logins, "\n"), "token.issue by login/ada of "+provider.Issuer) {
		t.Errorf("the recorded sign-ins are %v, want both", logins)
	}
}

func TestLogin_RefusesWhatItCannotVerify(t *testing.T) {
	i, provider := installLogin(t)
	v := i.visitor()
	resp, body := v.send(http.MethodGet, v.atProvider(provider, "/login", "mallory"), "cross-site", nil)
	if resp.StatusCode != http.StatusForbidden || !strings.Contains(body, "none of your groups") {
		t.Errorf("a group without a role answered %d: %s", resp.StatusCode, body)
	}
	again := i.visitor()
	again.send(http.MethodGet, again.atProvider(provider, "/login", "mallory"), "cross-site", nil)
	var refusals []string
	for _, act := range list[audit.Act](i, "/v1/acts", i.operator) {
		if act.Verb == audit.SignInRefuse {
			refusals = append(refusals, act.Actor+": "+string(act.After))
		}
	}
	if len(refusals) != 1 || !strings.Contains(refusals[0], "login/mallory of "+provider.Issuer) ||
		!strings.Contains(refusals[0], "none of your groups") {
		t.Errorf("two refused sign-ins within a minute are recorded as %v, want one", refusals)
	}
	for name, change := range map[string]func(url.Values){
		"another state":   func(q url.Values) { q.Set("state", "x") },
		"no state":        func(q url.Values) { q.Del("state") },
		"an unknown code": func(q url.Values) { q.Set("code", "x") },
		"no code":         func(q url.Values) { q.Del("code") },
	} {
		v := i.visitor()
		path, query, _ := strings.Cut(v.atProvider(provider, "/login", "ada"), "?")
		values, err := url.ParseQuery(query)
		if err != nil {
			t.Fatal(err)
		}
		change(values)
		resp, _ := v.send(http.MethodGet, path+"?"+values.Encode(), "cross-site", nil)
		if resp.StatusCode != http.StatusForbidden || strings.Contains(resp.Header.Get("Set-Cookie"), "leaver=leaver_") {
			t.Errorf("%s answered %d", name, resp.StatusCode)
		}
	}
	ada, stolen := i.visitor(), i.visitor()
	callback := ada.atProvider(provider, "/login", "ada")
	if resp, _ := stolen.send(http.MethodGet, callback, "cross-site", nil); resp.StatusCode != http.StatusForbidden {
		t.Errorf("another browser's redirect answered %d", resp.StatusCode)
	}
	if resp, _ := ada.send(http.MethodGet, callback, "cross-site", nil); resp.StatusCode != http.StatusOK {
		t.Errorf("the browser that began answered %d", resp.StatusCode)
	}
	if resp, _ := ada.send(http.MethodGet, callback, "cross-site", nil); resp.StatusCode != http.StatusForbidden {
		t.Errorf("the redirect is accepted twice: %d", resp.StatusCode)
	}
	provider.Close()
	if resp, _ := i.visitor().send(http.MethodGet, "/sign-in", "same-origin", nil); resp.StatusCode != http.StatusOK {
		t.Errorf("without the provider, the page to sign in answered %d", resp.StatusCode)
	}
}

// TestLogin_SignsACommandLineIn follows the link of `leaver login` to the loopback port, and opens its session.
func TestLogin_SignsACommandLineIn(t *testing.T) {
	i, provider := installLogin(t)
	v := i.visitor()
	_, body := v.send(http.MethodGet, v.atProvider(provider, "/login?port=4711&state=echo", "vera"), "cross-site", nil)
	_, link, found := strings.Cut(body, `href="http://127.0.0.1:4711/?`)
	query, err := url.ParseQuery(strings.ReplaceAll(strings.Split(link, `"`)[0], "&amp;", "&"))
	if !found || err != nil || query.Get("state") != "echo" {
		t.Fatalf("the page does not lead to the port: %s", body)
	}
	if resp, _ := v.send(http.MethodGet, "/", "same-origin", nil); resp.StatusCode != http.StatusSeeOther {
		t.Errorf("the browser is signed in, too: %d", resp.StatusCode)
	}
	request, err := json.Marshal(map[string]string{"signIn": query.Get("signIn")})
	if err != nil {
		t.Fatal(err)
	}
	session := i.must(http.MethodPost, "/v1/sessions", "", string(request))["token"].(string)
	i.must(http.MethodGet, "/v1/tenants/acme/cascades", session, "")
	if status, _ := i.call(http.MethodGet, "/v1/tenants/acme/tokens", session, ""); status != http.StatusUnauthorized {
		t.Errorf("the session of a viewer reads tokens: %d", status)
	}
	for name, body := range map[string]string{
		"used": string(request), "a token": `{"signIn":"` + i.operator + `"}`, "empty": `{}`,
	} {
		if status, _ := i.call(http.MethodPost, "/v1/sessions", "", body); status != http.StatusForbidden {
			t.Errorf("a sign-in that is %s answered %d", name, status)
		}
	}
	for _, bad := range []string{"port=0&state=x", "port=70000&state=x", "port=x&state=x", "port=80", "port=80&state=" + strings.Repeat("x", 200)} {
		if resp, _ := v.send(http.MethodGet, "/login?"+bad, "same-origin", nil); resp.StatusCode != http.StatusBadRequest {
			t.Errorf("%s answered %d", bad, resp.StatusCode)
		}
	}
}
