package main

import (
	"cmp"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/leaverhq/leaver/internal/api"
	"github.com/leaverhq/leaver/internal/entitlement"
	"github.com/leaverhq/leaver/internal/mapping"
)

func (c *cli) mappingCommand() *cobra.Command {
	group := &cobra.Command{
		Use: "mapping", Short: "Manage the rules that map groups and claims to teams, roles and scopes",
	}
	path := ofTenant(group)
	group.AddCommand(c.mappingShow(path), c.mappingTest(path), c.mappingDiff(path), c.mappingApply(path),
		c.mappingHistory(path), c.mappingRollback(path))
	return group
}

func readDocument(file string) (string, error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return "", coded(exitUsage, "read the rules: %w", err)
	}
	return string(raw), nil
}

func (c *cli) mappingShow(path func(string) string) *cobra.Command {
	var version int
	show := &cobra.Command{
		Use: "show", Short: "Print the rules in force, or an earlier version", Args: cobra.NoArgs,
		RunE: c.withClient(func(cmd *cobra.Command, cl *client, _ []string) error {
			at := "/mapping"
			if version > 0 {
				at = "/mapping/versions/" + itoa(version)
			}
			var v entitlement.Version
			if err := cl.do(cmd.Context(), http.MethodGet, path(at), nil, &v); err != nil {
				return err
			}
			if c.output == "json" {
				return c.print(v, nil, nil)
			}
			_, _ = fmt.Fprintf(c.stderr, "version %d, applied %s by %s: %s\n",
				v.Version, v.CreatedAt.Format(time.RFC3339), v.Actor, v.Reason)
			_, err := fmt.Fprint(c.stdout, v.Document)
			return err
		}),
	}
	show.Flags().IntVar(&version, "version", 0, "print this version instead of the one in force")
	return show
}

func (c *cli) mappingTest(path func(string) string) *cobra.Command {
	var user, file string
	test := &cobra.Command{
		Use: "test --user NAME|ID", Short: "Evaluate rules for one principal", Args: cobra.NoArgs,
		Example: "  leaver mapping test --tenant acme --user ada@example.com -f rules.yaml",
		RunE: c.withClient(func(cmd *cobra.Command, cl *client, _ []string) error {
			id, err := principalID(cmd, cl, path, user)
			if err != nil {
				return err
			}
			body := map[string]string{"principalId": id}
			if file != "" {
				if body["document"], err = readDocument(file); err != nil {
					return err
				}
			}
			var result mapping.Result
			if err := cl.do(cmd.Context(), http.MethodPost, path("/mapping/test"), body, &result); err != nil {
				return err
			}
			rows := sourceRows("has", result.Entitlements)
			rows = append(rows, sourceRows("DENIED", result.Denied)...)
			for _, f := range result.Failed {
				rows = append(rows, []string{"FAILED", "-", f.Rule, f.Reason})
			}
			return c.print(result, []string{"", "ENTITLEMENT", "RULE", "BECAUSE OF"}, rows)
		}),
	}
	test.Flags().StringVar(&user, "user", "", "userName, agentUserName or SCIM id")
	test.Flags().StringVarP(&file, "file", "f", "", "file with the rules to test (default: the rules in force)")
	_ = test.MarkFlagRequired("user")
	return test
}

func sourceRows(word string, of map[string][]mapping.Source) [][]string {
	var rows [][]string
	for _, name := range slices.Sorted(maps.Keys(of)) {
		for _, s := range of[name] {
			rows = append(rows, []string{word, name, s.Rule, because(s)})
		}
	}
	return rows
}

// because returns the condition that made a rule match.
func because(s mapping.Source) string {
	var parts []string
	if s.Group != nil {
		parts = append(parts, "group "+s.GroupName)
	}
	if s.When != "" {
		parts = append(parts, s.When)
	}
	if len(parts) == 0 {
		return "the rule could not be evaluated"
	}
	return strings.Join(parts, " and ")
}

func (c *cli) difference(
	cmd *cobra.Command, cl *client, path func(string) string, document string,
) (entitlement.Difference, error) {
	var d entitlement.Difference
	err := cl.do(cmd.Context(), http.MethodPost, path("/mapping/diff"), map[string]string{"document": document}, &d)
	return d, err
}

func (c *cli) mappingDiff(path func(string) string) *cobra.Command {
	var file string
	diff := &cobra.Command{
		Use: "diff -f FILE", Args: cobra.NoArgs,
		Short: "Show the entitlements that principals would gain and lose with other rules; change nothing",
		RunE: c.withClient(func(cmd *cobra.Command, cl *client, _ []string) error {
			document, err := readDocument(file)
			if err != nil {
				return err
			}
			d, err := c.difference(cmd, cl, path, document)
			if err != nil {
				return err
			}
			return c.printDifference(d)
		}),
	}
	fileFlag(diff, &file)
	return diff
}

func fileFlag(cmd *cobra.Command, file *string) {
	cmd.Flags().StringVarP(file, "file", "f", "", "file with the rules, in YAML")
	_ = cmd.MarkFlagRequired("file")
}

func (c *cli) printDifference(d entitlement.Difference) error {
	if c.output == "json" {
		return c.print(d, nil, nil)
	}
	_, _ = fmt.Fprintf(c.stderr, "compared with version %d: %d principals would change; "+
		"%d credentials and scheduled runs would be ended\n", d.Base, d.Principals, d.Ends)
	var rows [][]string
	for _, name := range slices.Sorted(maps.Keys(d.Gained)) {
		rows = append(rows, []string{"+", name, itoa(d.Gained[name]) + " gain it"})
	}
	for _, name := range slices.Sorted(maps.Keys(d.Lost)) {
		rows = append(rows, []string{"-", name, itoa(d.Lost[name]) + " lose it"})
	}
	for _, rule := range slices.Sorted(maps.Keys(d.Failed)) {
		rows = append(rows, []string{"!", rule, "cannot be evaluated for " + itoa(d.Failed[rule])})
	}
	for _, change := range d.Changes {
		rows = append(rows, []string{"", change.Principal.String(), signed("+", change.Gained) + signed("-", change.Lost)})
	}
	if len(d.Changes) < d.Principals {
		_, _ = fmt.Fprintf(c.stderr, "listed the first %d principals\n", len(d.Changes))
	}
	return c.print(d, []string{"", "ENTITLEMENT OR PRINCIPAL", "CHANGE"}, rows)
}

func signed(sign string, names []string) string {
	var b strings.Builder
	for _, name := range names {
		b.WriteString(sign + name + " ")
	}
	return b.String()
}

func (c *cli) mappingApply(path func(string) string) *cobra.Command {
	var file, reason string
	var base int
	apply := &cobra.Command{
		Use: "apply -f FILE --reason WHY", Short: "Apply rules, and re-evaluate all entitlements", Args: cobra.NoArgs,
		RunE: c.withClient(func(cmd *cobra.Command, cl *client, _ []string) error {
			document, err := readDocument(file)
			if err != nil {
				return err
			}
			body := map[string]any{"document": document, "reason": reason}
			if base >= 0 {
				body["baseVersion"] = base
			}
			var v entitlement.Version
			if err := cl.do(cmd.Context(), http.MethodPut, path("/mapping"), body, &v); err != nil {
				return err
			}
			_, _ = fmt.Fprintln(c.stderr,
				"applied; entitlements are being re-evaluated (access decisions already use the new rules)")
			return c.printVersions(v, v)
		}),
	}
	fileFlag(apply, &file)
	reasonFlag(apply, &reason)
	apply.Flags().IntVar(&base, "base", -1,
		"fail unless this version is in force, such as the version that `mapping diff` compared with")
	return apply
}

func reasonFlag(cmd *cobra.Command, reason *string) {
	cmd.Flags().StringVar(reason, "reason", "", "the reason; it is recorded in the audit log with your token's id")
	_ = cmd.MarkFlagRequired("reason")
}

func (c *cli) printVersions(body any, versions ...entitlement.Version) error {
	var rows [][]string
	for _, v := range versions {
		rows = append(rows, []string{itoa(v.Version), v.CreatedAt.Format(time.RFC3339), v.Actor, v.Reason})
	}
	return c.print(body, []string{"VERSION", "APPLIED", "BY", "REASON"}, rows)
}

func (c *cli) mappingHistory(path func(string) string) *cobra.Command {
	return &cobra.Command{
		Use: "history", Short: "List the versions of the rules, newest first", Args: cobra.NoArgs,
		RunE: c.withClient(func(cmd *cobra.Command, cl *client, _ []string) error {
			versions, err := all[entitlement.Version](cmd.Context(), cl, path("/mapping/versions"), url.Values{}, 0)
			if err != nil {
				return err
			}
			return c.printVersions(versions, versions...)
		}),
	}
}

func (c *cli) mappingRollback(path func(string) string) *cobra.Command {
	var to int
	var reason string
	rollback := &cobra.Command{
		Use: "rollback --to VERSION --reason WHY", Short: "Apply an earlier version of the rules again, as a new version",
		Args: cobra.NoArgs,
		RunE: c.withClient(func(cmd *cobra.Command, cl *client, _ []string) error {
			var v entitlement.Version
			if err := cl.do(cmd.Context(), http.MethodPost, path("/mapping/rollback"),
				map[string]any{"version": to, "reason": reason}, &v); err != nil {
				return err
			}
			return c.printVersions(v, v)
		}),
	}
	rollback.Flags().IntVar(&to, "to", 0, "the version to apply again")
	_ = rollback.MarkFlagRequired("to")
	reasonFlag(rollback, &reason)
	return rollback
}

// principalShow returns the command that shows a principal, and which rules grant its entitlements.
func (c *cli) principalShow(path func(string) string) *cobra.Command {
	return &cobra.Command{
		Use: "show NAME|ID", Short: "Show a principal: entitlements and groups, agents, credentials, cascades",
		Args: cobra.ExactArgs(1),
		RunE: c.withClient(func(cmd *cobra.Command, cl *client, args []string) error {
			id, err := principalID(cmd, cl, path, args[0])
			if err != nil {
				return err
			}
			var shown api.Shown
			if err := cl.do(cmd.Context(), http.MethodGet, path("/principals/"+id), nil, &shown); err != nil {
				return err
			}
			if c.output == "json" {
				return c.print(shown, nil, nil)
			}
			status := "active"
			if shown.Restricted {
				status = "RESTRICTED"
			}
			if x := shown.Restriction; x != nil {
				status = fmt.Sprintf("RESTRICTED since %s (%s); %d survivors; workflow %s",
					x.Since.Format(time.RFC3339), x.Cause, x.Survivors, cmp.Or(x.WorkflowID, "-"))
			}
			if shown.Stale {
				status += "; entitlements are being re-evaluated after a change"
			}
			_, _ = fmt.Fprintf(c.stderr, "%s %s (%s): %s\n", shown.Type, escaped(shown.Name, ""), shown.ID, status)
			for _, n := range shown.Names {
				_, _ = fmt.Fprintf(c.stderr, "  %s %s%s\n", n.Kind, escaped(n.Value, ""),
					escaped(strings.TrimSuffix(" of "+n.Issuer, " of "), ""))
			}
			var rows [][]string
			for _, e := range shown.Entitlements {
				for _, s := range e.Sources {
					rows = append(rows, []string{e.Name, s.Rule, because(s), e.Since.Format(time.RFC3339)})
				}
			}
			for _, g := range shown.Groups {
				rows = append(rows, []string{"group:" + g.Display, "-", g.Type, "-"})
			}
			if err := c.print(nil, []string{"ENTITLEMENT", "RULE", "BECAUSE OF", "SINCE"}, rows); err != nil {
				return err
			}
			return c.printHeld(shown)
		}),
	}
}

// printHeld prints the agents, credentials and cascades of a principal.
func (c *cli) printHeld(shown api.Shown) error {
	var agents, unmanaged [][]string
	for _, a := range shown.Agents {
		status := "active"
		if a.Restricted {
			status = "RESTRICTED"
		}
		agents = append(agents, []string{a.Name, a.ID.String(), status})
	}
	for _, u := range shown.Unmanaged {
		unmanaged = append(unmanaged, []string{u.ID.String(), string(u.Kind), u.Connector, u.Reference, stamp(&u.SeenAt)})
	}
	cascades := make([]api.ShownCascade, len(shown.Cascades))
	for i, x := range shown.Cascades {
		cascades[i] = api.ShownCascade{Cascade: x, PrincipalName: shown.Name}
	}
	for _, table := range []struct {
		header []string
		rows   [][]string
	}{
		{[]string{"DEPENDENT AGENT", "ID", "STATE"}, agents},
		{itemHeader, itemRows(shown.Credentials)},
		{[]string{"UNMANAGED CREDENTIAL", "KIND", "CONNECTOR", "REFERENCE", "SEEN"}, unmanaged},
		{cascadeHeader, cascadeRows(cascades...)},
	} {
		if len(table.rows) == 0 {
			continue
		}
		if err := c.print(nil, table.header, table.rows); err != nil {
			return err
		}
	}
	return nil
}
