package main

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/leaverhq/leaver/internal/auth"
	"github.com/leaverhq/leaver/internal/tenant"
)

func (c *cli) tenantCommand() *cobra.Command {
	group := &cobra.Command{Use: "tenant", Short: "Manage tenants"}
	var profile string
	create := &cobra.Command{
		Use: "create NAME", Short: "Create a tenant", Args: cobra.ExactArgs(1),
		RunE: c.withClient(func(cmd *cobra.Command, cl *client, args []string) error {
			var t tenant.Tenant
			if err := cl.do(cmd.Context(), http.MethodPost, "/tenants", map[string]string{"name": args[0], "profile": profile},
				&t); err != nil {
				return err
			}
			return c.printTenants(t, t)
		}),
	}
	create.Flags().StringVar(&profile, "profile", "default",
		"dialect of the tenant's IdP: default, entra, okta, strict or interop")
	list := &cobra.Command{
		Use: "list", Short: "List tenants", Args: cobra.NoArgs,
		RunE: c.withClient(func(cmd *cobra.Command, cl *client, _ []string) error {
			tenants, err := all[tenant.Tenant](cmd.Context(), cl, "/tenants", url.Values{}, 0)
			if err != nil {
				return err
			}
			return c.printTenants(tenants, tenants...)
		}),
	}
	group.AddCommand(create, list, c.tenantSet())
	return group
}

// tenantSet returns the command that changes a tenant's settings; those without a flag stay
// unchanged.
func (c *cli) tenantSet() *cobra.Command {
	var profile string
	var public, ipsie, approval bool
	var perSecond, leavers int
	var share float64
	var window time.Duration
	var orphans, unknownAgents, legalHold string
	var days int
	var subjectIssuers []string
	set := &cobra.Command{
		Use: "set NAME", Short: "Change a tenant's settings", Args: cobra.ExactArgs(1),
		Example: "  leaver tenant set acme --profile entra --requests-per-second 50",
		RunE: c.withClient(func(cmd *cobra.Command, cl *client, args []string) error {
			body := make(map[string]any)
			for flag, setting := range map[string]struct {
				name  string
				value any
			}{
				"profile": {"profile", profile}, "public-discovery": {"publicDiscovery", public},
				"requests-per-second": {"requestsPerSecond", perSecond}, "threshold-leavers": {"thresholdLeavers", leavers},
				"threshold-share": {"thresholdShare", share}, "orphans": {"orphans", orphans},
				"unknown-agents": {"unknownAgents", unknownAgents}, "subject-issuers": {"subjectIssuers", subjectIssuers},
				"ipsie":            {"ipsie", ipsie},
				"waiver-approval":  {"waiverApproval", approval},
				"evidence-days":    {"evidenceDays", days},
				"legal-hold":       {"legalHold", legalHold},
				"threshold-window": {"thresholdWindowSeconds", int(window.Seconds())},
			} {
				if cmd.Flags().Changed(flag) {
					body[setting.name] = setting.value
				}
			}
			if len(body) == 0 {
				return coded(exitUsage, "nothing to set; see `leaver tenant set --help`")
			}
			var t tenant.Tenant
			if err := cl.do(cmd.Context(), http.MethodPatch, "/tenants/"+url.PathEscape(args[0]), body, &t); err != nil {
				return err
			}
			return c.printTenants(t, t)
		}),
	}
	set.Flags().StringVar(&profile, "profile", "", "dialect of the tenant's IdP: default, entra, okta, strict or interop")
	set.Flags().BoolVar(&public, "public-discovery", false,
		"allow unauthenticated reads of the discovery endpoints below /t/NAME/scim/v2; =false requires a token")
	set.Flags().IntVar(&perSecond, "requests-per-second", 0,
		"maximum SCIM requests per second, in each process; 0 uses the installation's setting")
	set.Flags().IntVar(&leavers, "threshold-leavers", 0,
		"hold irreversible steps for approval if more than this many users leave in the window; 0 disables it")
	set.Flags().Float64Var(&share, "threshold-share", 0,
		"hold irreversible steps for approval if more than this share of the users leaves, e.g. 0.1; 0 disables it")
	set.Flags().DurationVar(&window, "threshold-window", time.Hour,
		"time window of --threshold-leavers and --threshold-share, 1m to 168h")
	set.Flags().StringVar(&orphans, "orphans", "",
		"policy for agents that lose their last owner: suspend, or manager (transfer them to the owner's manager)")
	set.Flags().StringVar(&unknownAgents, "unknown-agents", "",
		"policy for access decisions whose context.agent is missing or unknown: deny, or allow (decide for the user alone)")
	set.Flags().StringSliceVar(&subjectIssuers, "subject-issuers", nil,
		"issuers whose sub claims are names of the directory, comma-separated; \"\" accepts every issuer of a platform token")
	set.Flags().BoolVar(&ipsie, "ipsie", false,
		"IPSIE AL SCIM 2.0 profile: SCIM requires OAuth, and only the IdP changes users; requires --profile interop")
	set.Flags().IntVar(&days, "evidence-days", 0,
		"erase the texts of evidence that are older, 30 or more; 0 keeps it; only an approver's token sets a shorter time")
	set.Flags().StringVar(&legalHold, "legal-hold", "",
		"reason for which no evidence is erased; \"\", which only an approver's token can set, lifts the hold")
	set.Flags().BoolVar(&approval, "waiver-approval", false,
		"a waiver needs an approver; =false, which only an approver's token can set, lets operators waive alone")
	return set
}

func (c *cli) printTenants(body any, tenants ...tenant.Tenant) error {
	var rows [][]string
	for _, t := range tenants {
		rate, discovery := "-", "private"
		if t.RequestsPerSecond != nil {
			rate = strconv.Itoa(*t.RequestsPerSecond)
		}
		if t.PublicDiscovery {
			discovery = "public"
		}
		hold := "-"
		if t.ThresholdLeavers != nil {
			hold = strconv.Itoa(*t.ThresholdLeavers)
		}
		if t.ThresholdShare != nil {
			hold += fmt.Sprintf(" or %g%%", 100**t.ThresholdShare)
		}
		if t.ThresholdLeavers != nil || t.ThresholdShare != nil {
			hold += " in " + (time.Duration(t.ThresholdWindow) * time.Second).String()
		}
		rows = append(rows,
			[]string{t.Name, string(t.Profile), t.ID.String(), stamp(&t.CreatedAt), discovery, rate, hold, string(t.Orphans)})
	}
	return c.print(body, []string{"NAME", "PROFILE", "ID", "CREATED", "DISCOVERY", "REQUESTS/S", "THRESHOLD", "ORPHANS"},
		rows)
}

func (c *cli) tokenCommand() *cobra.Command {
	group := &cobra.Command{Use: "token", Short: "Manage tokens of a tenant, or of operators, viewers and auditors"}
	var of string
	group.PersistentFlags().StringVar(&of, "tenant", "",
		"name or ID of the tenant; omit it for tokens of operators, viewers and auditors")
	path := func() string {
		if of == "" {
			return "/operator-tokens"
		}
		return "/tenants/" + url.PathEscape(of) + "/tokens"
	}
	group.AddCommand(c.tokenCreate(path), c.tokenList(path), c.tokenRevoke(path))
	return group
}

func (c *cli) tokenCreate(path func() string) *cobra.Command {
	var class, description, issuer string
	var ttl time.Duration
	cmd := &cobra.Command{
		Use: "create", Short: "Issue a token; it is shown once", Args: cobra.NoArgs,
		RunE: c.withClient(func(cmd *cobra.Command, cl *client, _ []string) error {
			var issued struct {
				auth.Token
				Secret string `json:"secret"`
			}
			body := map[string]any{
				"class": class, "description": description, "ttlSeconds": int64(ttl / time.Second), "issuer": issuer,
			}
			if err := cl.do(cmd.Context(), http.MethodPost, path(), body, &issued); err != nil {
				return err
			}
			if c.output == "json" {
				return c.print(issued, nil, nil)
			}
			return c.secret(issued.Secret)
		}),
	}
	cmd.Flags().StringVar(&class, "class", "",
		"class of the token: scim, platform or receiver; without --tenant: operator, viewer or auditor")
	cmd.Flags().StringVar(&description, "description", "", "purpose of the token")
	cmd.Flags().DurationVar(&ttl, "ttl", 0, "how long the token is valid; 0 means that it does not expire")
	cmd.Flags().StringVar(&issuer, "issuer", "",
		"for class platform: the issuer (iss) of the tokens that the platform sees; their claims are looked up as its names")
	if err := cmd.MarkFlagRequired("class"); err != nil {
		panic(err) // the flag is defined above
	}
	return cmd
}

func (c *cli) tokenList(path func() string) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List tokens, without their secrets", Args: cobra.NoArgs,
		RunE: c.withClient(func(cmd *cobra.Command, cl *client, _ []string) error {
			tokens, err := all[auth.Token](cmd.Context(), cl, path(), url.Values{}, 0)
			if err != nil {
				return err
			}
			return c.print(tokens, tokenHeader, tokenRows(tokens...))
		}),
	}
}

var tokenHeader = []string{
	"ID", "CLASS", "DESCRIPTION", "CREATED", "EXPIRES", "REVOKED", "LAST USED", "CREATED BY", "ISSUER",
}

func tokenRows(tokens ...auth.Token) [][]string {
	var rows [][]string
	for _, t := range tokens {
		rows = append(rows, []string{
			t.ID.String(), string(t.Class), t.Description, stamp(&t.CreatedAt), stamp(t.ExpiresAt), stamp(t.RevokedAt),
			stamp(t.LastUsedAt), t.CreatedBy, t.Issuer,
		})
	}
	return rows
}

func (c *cli) tokenRevoke(path func() string) *cobra.Command {
	return &cobra.Command{
		Use: "revoke ID", Short: "Revoke a token at once", Args: cobra.ExactArgs(1),
		RunE: c.withClient(func(cmd *cobra.Command, cl *client, args []string) error {
			return cl.do(cmd.Context(), http.MethodDelete, path()+"/"+url.PathEscape(args[0]), nil, nil)
		}),
	}
}

// stamp formats a time for tables: RFC 3339 in UTC, or a dash for nil.
func stamp(t *time.Time) string {
	if t == nil {
		return "-"
	}
	return t.UTC().Format(time.RFC3339)
}
