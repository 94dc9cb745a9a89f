package e2e

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/google/uuid"

	"github.com/leaverhq/leaver/activities/connectors/contract"
	"github.com/leaverhq/leaver/internal/auth"
)

// browser is a signed-in browser.
type browser struct {
	t   *testing.T
	i   *installation
	ctx context.Context
}

// browse starts Debian's Chromium and signs in with a token, as a person who follows a link of `leaver console`.
func (i *installation) browse(t *testing.T, token string) *browser {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("chromium is not installed")
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.NoSandbox,
		chromedp.DisableGPU, chromedp.Flag("disable-background-networking", true), chromedp.Flag("disable-quic", true),
		chromedp.WindowSize(1280, 900))
	allocator, stop := chromedp.NewExecAllocator(t.Context(), options...)
	t.Cleanup(stop)
	ctx, cancel := chromedp.NewContext(allocator)
	t.Cleanup(cancel)
	if err := chromedp.Do(ctx); err != nil { // the browser lives as long as this context
		t.Fatal(err)
	}
	ctx, expire := context.WithTimeout(ctx, 3*time.Minute)
	t.Cleanup(expire)
	b := &browser{t, i, ctx}
	link := i.must(http.MethodPost, "/v1/sign-ins", token, "")["url"].(string)
	b.do(chromedp.Navigate(link), chromedp.Click(chromedp.CSS("#go")), chromedp.WaitVisible(chromedp.CSS("header nav")))
	return b
}

// do fails the test with the page if an action does.
func (b *browser) do(actions ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	if err := chromedp.Do(b.ctx, actions...); err != nil {
		page, cancel := context.WithTimeout(context.WithoutCancel(b.ctx), 5*time.Second)
		defer cancel()
		body, _ := chromedp.Run(page, chromedp.Text(chromedp.CSS("body")))
		b.t.Fatalf("%v; the page is\n%s\nlogs:\n%s", err, body, b.i.logs)
	}
}

// open opens a page of the console.
func (b *browser) open(path string) {
	b.t.Helper()
	b.do(chromedp.Navigate(b.i.url+"/console"+path), chromedp.WaitVisible(chromedp.CSS("h1")))
}

// text returns the text of the page's content.
func (b *browser) text() string {
	b.t.Helper()
	text, err := chromedp.Run(b.ctx, chromedp.Text(chromedp.CSS("main")))
	if err != nil {
		b.t.Fatal(err)
	}
	return text
}

// sees fails unless the page's content has the texts.
func (b *browser) sees(texts ...string) {
	b.t.Helper()
	shown := b.text()
	for _, want := range texts {
		if !strings.Contains(shown, want) {
			b.t.Errorf("the page lacks %q:\n%s", want, shown)
		}
	}
}

// awaits waits until the page, which is not loaded again, shows an element with a text.
func (b *browser) awaits(text string) {
	b.t.Helper()
	b.do(chromedp.WaitVisible(fmt.Sprintf(`//main//*[contains(text(), %q)]`, text)))
}

// TestConsole_RerunTurnsAFailedCascadeGreen follows security from the list of what needs attention to the cascade, its
// re-run and its update, while the page stays open.
func TestConsole_RerunTurnsAFailedCascadeGreen(t *testing.T) {
	long(t)
	p := newPlatform(t)
	i := install(t, withConnectors(p.connector()))
	ada := i.createUser("ada@example.com")
	i.hold(p, ada, i.createAgent("outreach", ada), "good")
	i.hold(p, ada, "", "bad")
	p.interceptWith(func(w http.ResponseWriter, kind, reference string) bool {
		refused := kind == "credential.revoke" && reference == "bad"
		if refused {
			http.Error(w, `{"error":"access_denied"}`, http.StatusForbidden)
		}
		return refused
	})
	b := i.browse(t, i.operator)
	b.open("/tenants/acme/")
	b.sees("All is well")
	i.deactivate(ada)
	failed := i.closed(ada)
	b.awaits("Failed cascades") // by the server's event
	b.do(chromedp.Click(`//main//a[text()="ada@example.com"]`), chromedp.WaitVisible(chromedp.CSS("#rerun")))
	b.sees("bad", "access_denied", "failed")
	p.interceptWith(nil)
	b.do(chromedp.SendKeys(chromedp.CSS(`form[action$="/rerun"] input[name="reason"]`), "the platform is repaired"),
		chromedp.Click(chromedp.CSS("#rerun")), chromedp.WaitNotPresent(chromedp.CSS("#rerun")))
	b.awaits("completed")
	b.sees("2 verified", "rerun by operator-token/", "the platform is repaired")
	if again := i.closed(ada); again.ID != failed.ID || again.Outcome != "completed" {
		t.Errorf("the cascade is %+v, want the same one, completed", again)
	}
	b.open("/tenants/acme/")
	b.sees("All is well")
}

// TestConsole_WaiverNeedsASecondPerson requests a waiver as an operator, and approves it in the browser of an approver.
func TestConsole_WaiverNeedsASecondPerson(t *testing.T) {
	long(t)
	p := newPlatform(t)
	i := install(t, withConnectors(p.connector()))
	i.must(http.MethodPatch, "/v1/tenants/acme", i.operator, `{"waiverApproval":true}`)
	ada := i.createUser("ada@example.com")
	id := i.hold(p, ada, "", "stubborn")
	p.refuseRevocation("stubborn", http.StatusForbidden)
	i.deactivate(ada)
	c := i.closed(ada)
	operator := i.browse(t, i.operator)
	operator.open("/tenants/acme/cascades/" + c.ID.String())
	form := `form[action$="/waive"]`
	operator.do(chromedp.Click(`//summary[text()="Waive…"]`),
		chromedp.SendKeys(chromedp.CSS(form+` input[name="reason"]`), "the export must finish"),
		chromedp.Click(chromedp.CSS(form+" button")), chromedp.WaitVisible(`//p[@id="status"][contains(text(), "waits for an approver")]`))
	if state := i.state(id); state != "failed" {
		t.Fatalf("the item is %s before the approval, want failed", state)
	}
	operator.open("/tenants/acme/")
	operator.sees("A waiver waits for an approver", "the export must finish", "another person")
	form = `form[action$="/approve"]`
	operator.do(chromedp.SendKeys(chromedp.CSS(form+` input[name="reason"]`), "I approve it myself"),
		chromedp.SendKeys(chromedp.CSS(form+` input[name="approverToken"]`), i.operator),
		chromedp.Click(chromedp.CSS(form+" button")), chromedp.WaitVisible(`//h1[text()="Not permitted"]`))

	approver := i.browse(t, i.token(uuid.Nil, auth.ClassViewer))
	approver.open("/tenants/acme/cascades/" + c.ID.String()) // where the waiver stands, too
	approver.sees("A waiver waits for an approver", "the export must finish")
	approver.do(chromedp.SendKeys(chromedp.CSS(form+` input[name="approverToken"]`), i.approver()), chromedp.SendKeys(chromedp.CSS(form+` input[name="reason"]`), "CHG-4711"),
		chromedp.Click(chromedp.CSS(form+" button")), chromedp.WaitVisible(`//p[@id="status"][contains(text(), "Approved")]`))
	if state := i.state(id); state != "waived" {
		t.Errorf("the item is %s after the approval, want waived", state)
	}
	operator.open("/tenants/acme/cascades/" + c.ID.String())
	operator.sees("the export must finish (requested by operator-token/", "approved: CHG-4711", "waive by approver-token/")
}

// TestConsole_KeepsAFormThatIsFilledIn changes a page while a person, who has left the field, has not sent its form.
func TestConsole_KeepsAFormThatIsFilledIn(t *testing.T) {
	long(t)
	p := newPlatform(t)
	i := install(t, withConnectors(p.connector()))
	i.must(http.MethodPatch, "/v1/tenants/acme", i.operator, `{"waiverApproval":true}`)
	ada, bob := i.createUser("ada@example.com"), i.createUser("bob@example.com")
	id := i.hold(p, ada, "", "stubborn")
	p.refuseRevocation("stubborn", http.StatusForbidden)
	i.deactivate(ada)
	c := i.closed(ada)
	i.must(http.MethodPost, "/v1/tenants/acme/cascades/"+c.ID.String()+"/waive", i.operator,
		`{"itemId":"`+id+`","reason":"the export must finish","until":"`+time.Now().Add(time.Hour).UTC().Format(time.RFC3339)+`"}`)
	b := i.browse(t, i.operator)
	b.open("/tenants/acme/")
	reason := chromedp.CSS(`form[action$="/approve"] input[name="reason"]`)
	b.do(chromedp.SendKeys(reason, "CHG-4711"), chromedp.Click(chromedp.CSS("h1")))
	i.hold(p, bob, "", "stubborn")
	i.deactivate(bob)
	b.do(chromedp.WaitVisible(chromedp.CSS("#changed")))
	if text, err := chromedp.Run(b.ctx, chromedp.Value(reason)); err != nil || text != "CHG-4711" {
		t.Errorf("the reason is %q, %v, want CHG-4711", text, err)
	}
	b.do(chromedp.SendKeys(reason, strings.Repeat(kb.Backspace, len("CHG-4711"))), chromedp.Click(chromedp.CSS("h1")),
		chromedp.WaitNotVisible(chromedp.CSS("#changed")))
	b.sees("bob@example.com")
}

// TestConsole_NamesOfOthersStayText shows names that are markup, a link and a template, and runs nothing of them.
func TestConsole_NamesOfOthersStayText(t *testing.T) {
	long(t)
	p := newPlatform(t)
	i := install(t, withConnectors(p.connector()))
	const hostile = `<img src=x onerror="document.title='owned'"><script>document.title='owned'</script>{{.}}`
	encoded, err := json.Marshal(hostile)
	if err != nil {
		t.Fatal(err)
	}
	ada := i.must(http.MethodPost, "/scim/v2/Users", i.scim, `{"userName":`+string(encoded)+`,"displayName":`+string(encoded)+`}`)["id"].(string)
	agent := i.must(http.MethodPost, "/scim/v2/Agents", i.scim,
		`{"agentUserName":`+string(encoded)+`,"owners":[{"value":"`+ada+`"}]}`)["id"].(string)
	i.must(http.MethodPost, "/v1/tenants/acme/tokens", i.operator, `{"class":"platform","description":`+string(encoded)+`}`)
	i.hold(p, ada, agent, "javascript:alert(1)")
	i.deactivate(ada)
	c := i.closed(ada)
	i.exported() // chains the evidence, as `leaver serve` does
	b := i.browse(t, i.operator)
	for _, path := range []string{
		"/tenants/acme/cascades", "/tenants/acme/cascades/" + c.ID.String(), "/tenants/acme/principals/" + ada,
		"/tenants/acme/principals/" + ada + "/plan", "/tenants/acme/principals?name=" + url.QueryEscape(hostile), "/tenants/acme/evidence",
		"/tenants/acme/tokens",
	} {
		b.open(path)
		b.sees(`document.title='owned'`)
		title, err := chromedp.Run(b.ctx, chromedp.Title())
		if err != nil || title == "owned" {
			t.Errorf("%s: the title is %q, %v", path, title, err)
		}
		if n, err := chromedp.Run(b.ctx, chromedp.Evaluate[int](`document.querySelectorAll("main img, main script, a[href^='javascript:']").length`)); err != nil || n != 0 {
			t.Errorf("%s: %d elements come from the name, %v", path, n, err)
		}
	}
}

// TestConsole_IsUsedByKeyboardAlone ends access without a mouse: each link and button is reached by Tab, in order.
func TestConsole_IsUsedByKeyboardAlone(t *testing.T) {
	long(t)
	p := newPlatform(t)
	i := install(t, withConnectors(p.connector()))
	ada := i.createUser("ada@example.com")
	i.hold(p, ada, "", "a")
	b := i.browse(t, i.operator)
	b.open("/tenants/acme/principals/" + ada)
	seen := make(map[string]bool)
	for range 40 {
		b.do(chromedp.KeyEvent("\t"))
		text, err := chromedp.Run(b.ctx, chromedp.Evaluate[string](
			`(document.activeElement.textContent || document.activeElement.getAttribute("name") || "").trim()`))
		if err != nil {
			t.Fatal(err)
		}
		seen[text] = true
		if text == "End access" {
			break
		}
	}
	for _, want := range []string{"Skip to the content", "Attention", "Cascades", "Time to zero", "Sign out", "What would end", "Report for auditors", "End access"} {
		if !seen[want] {
			t.Errorf("%q is not reached by Tab; reached %v", want, slices.Sorted(maps.Keys(seen)))
		}
	}
	b.do(chromedp.KeyEvent("\r"), chromedp.KeyEvent("\t"), chromedp.KeyEvent("she left"), chromedp.KeyEvent("\r"))
	b.awaits("restricted")
	if c := i.closed(ada); c.Outcome != "completed" {
		t.Errorf("the cascade is %+v, want completed", c)
	}
	b.awaits("verified")
}

// shoots writes the screenshots of the documents.
var shoots = flag.Bool("screenshots", false, "write docs/images/console-*.png")

// shoot writes a screenshot of the page.
func (b *browser) shoot(name string, width int64, dark bool) {
	b.t.Helper()
	b.do(chromedp.EmulateViewport(width, 800), chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		scheme := "light"
		if dark {
			scheme = "dark"
		}
		_, err := cdp.Call(ctx, t, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
		})
		return err
	}))
	image, err := chromedp.Run(b.ctx, chromedp.CaptureScreenshot())
	if err != nil {
		b.t.Fatal(err)
	}
	if len(image) < 5000 {
		b.t.Errorf("the screenshot %s has %d bytes", name, len(image))
	}
	if *shoots {
		if err := os.WriteFile("../../docs/images/console-"+name+".png", image, 0o644); err != nil {
			b.t.Fatal(err)
		}
	}
}

// TestConsole_PagesOfAnInstallation opens each page, wide, narrow and dark, with what installations have.
func TestConsole_PagesOfAnInstallation(t *testing.T) {
	long(t)
	p := newPlatform(t)
	t.Setenv("DIRECTORY_TOKEN", "x")
	i := install(t, withConnectors(p.connector()+fmt.Sprintf(
		"  - {name: directory, type: scim, tenants: [acme], url: %q, token: env:DIRECTORY_TOKEN}\n", "http://"+contract.Closed(t))))
	ada, bob := i.createUser("ada.lovelace@example.com"), i.createUser("bob@example.com")
	outreach, reports := i.createAgent("outreach-writer", ada), i.createAgent("report-builder", ada)
	sub := i.must(http.MethodPost, "/scim/v2/Agents", i.scim, `{"agentUserName":"outreach-follow-up","owners":[{"value":"`+ada+`"}],"parent":{"value":"`+outreach+`"}}`)["id"].(string)
	for n, agent := range []string{outreach, reports, sub, ""} {
		for k := range 3 {
			i.hold(p, ada, agent, fmt.Sprintf("key-%d-%d", n, k))
		}
	}
	i.hold(p, bob, "", "bobs-key")
	b := i.browse(t, i.operator)
	b.open("/tenants/acme/principals/" + ada)
	b.sees("outreach-follow-up", "Agents that end with ada.lovelace@example.com", "key-2-0")
	b.shoot("person", 1280, false)
	p.interceptWith(func(w http.ResponseWriter, kind, reference string) bool {
		refused := kind == "credential.revoke" && reference == "key-1-1"
		if refused {
			http.Error(w, `{"error":"access_denied"}`, http.StatusForbidden)
		}
		return refused
	})
	i.deactivate(ada)
	i.deactivate(bob)
	i.closed(bob)
	c := i.closed(ada)
	i.exported()
	i.must(http.MethodPost, "/v1/connectors/platform/pause", i.operator, `{"reason":"the vendor has an incident"}`)
	for _, page := range []struct {
		name, path string
		width      int64
		dark       bool
		sees       []string
	}{
		{"installation", "/", 1280, false, []string{"acme"}},
		{"attention", "/tenants/acme/", 1280, false, []string{"Failed cascades", "ada.lovelace@example.com"}},
		{"cascade", "/tenants/acme/cascades/" + c.ID.String(), 1280, false, []string{"key-1-1", "access_denied", "11 verified"}},
		{"cascade-dark", "/tenants/acme/cascades/" + c.ID.String(), 1280, true, []string{"Timeline"}},
		{"phone", "/tenants/acme/cascades/" + c.ID.String(), 390, false, []string{"Re-run"}},
		{"time-to-zero", "/tenants/acme/time-to-zero", 1280, false, []string{"Leavers that are not at zero: 1", "By connector"}},
		{"connectors", "/connectors", 1280, false, []string{"paused", "the vendor has an incident", "access_denied", "the connector directory failed its check"}},
		{"evidence", "/tenants/acme/evidence", 1280, false, []string{"Records 1 and after"}},
		{"tokens", "/tenants/acme/tokens", 1280, false, []string{"platform", "Issue a token", "Deactivation threshold", "for ever"}},
	} {
		b.open(page.path)
		b.sees(page.sees...)
		b.shoot(page.name, page.width, page.dark)
		wide, err := chromedp.Run(b.ctx, chromedp.Evaluate[int64](`document.documentElement.scrollWidth - innerWidth`))
		if err != nil || wide > 0 {
			t.Errorf("%s is %d pixels wider than the window of %d: %v", page.name, wide, page.width, err)
		}
	}
	b.open("/tenants/acme/time-to-zero?target=7m")
	b.sees("against a target of 420 s")
	chosen, err := chromedp.Run(b.ctx, chromedp.Evaluate[string](`document.querySelector('select[name="target"]').value`))
	if err != nil || chosen != "7m" {
		t.Errorf("the chosen target is %q, %v; want 7m", chosen, err)
	}
}

// TestConsole_ShowsACascadeOfAThousand opens the page of a cascade of 1,000 credentials.
func TestConsole_ShowsACascadeOfAThousand(t *testing.T) {
	long(t)
	p := newPlatform(t)
	i := install(t, withConnectors(p.connector()))
	ada := i.createUser("ada@example.com")
	var lines []string
	const n = 1000
	for k := range n {
		reference := fmt.Sprintf("key-%04d", k)
		p.issue(reference)
		lines = append(lines,
			fmt.Sprintf(`{"principalId":%q,"kind":"api_key","connector":"platform","reference":%q}`, ada, reference))
	}
	if status, bad, body := i.importNDJSON(i.platform, "/v1/import", lines...); status != http.StatusCreated {
		t.Fatalf("the import answered %d: %v %v", status, bad, body)
	}
	i.deactivate(ada)
	c := i.closed(ada)
	b := i.browse(t, i.operator)
	b.open("/tenants/acme/cascades/" + c.ID.String())
	rows, err := chromedp.Run(b.ctx, chromedp.Evaluate[int](`document.querySelectorAll("main tbody tr").length`))
	if err != nil || rows != n {
		t.Errorf("the page has %d rows, want %d: %v", rows, n, err)
	}
	b.sees("1000 verified", "940 more are in the table only")
}
