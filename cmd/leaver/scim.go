package main

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/leaverhq/leaver/internal/conformance"
)

// probeTimeout bounds one request of the probe.
const probeTimeout = 30 * time.Second

func (c *cli) scimCommand() *cobra.Command {
	group := &cobra.Command{Use: "scim", Short: "Look at SCIM from outside"}
	var token string
	var sets []string
	test := &cobra.Command{
		Use: "test URL", Short: "Probe any SCIM 2.0 provider with the shapes of Okta, Entra and the RFCs", Args: cobra.ExactArgs(1),
		Long: "Probe a SCIM 2.0 service provider at its base URL. The probe makes users and groups of its own, and deletes them.\n" +
			"It is like any client to the provider: in leaver itself its changes start workflows, so give it a tenant of its own.\n" +
			"Exit code 0: every check passed or does not apply; 1: one failed, or nobody answers; 4: the token is refused.",
		RunE: func(cmd *cobra.Command, args []string) error {
			wanted, err := parseSets(sets)
			if err != nil {
				return err
			}
			target := conformance.Target{URL: args[0], Token: cmp.Or(token, os.Getenv("LEAVER_SCIM_TOKEN")), Client: &http.Client{Timeout: probeTimeout}}
			if target.Token == "" {
				return coded(exitUsage, "no SCIM token: set LEAVER_SCIM_TOKEN or --token")
			}
			return c.probe(cmd, target, wanted)
		},
	}
	test.Flags().StringVar(&token, "token", "", "the provider's bearer token (better: LEAVER_SCIM_TOKEN, which no process list shows)")
	test.Flags().StringSliceVar(&sets, "set", []string{"rfc", "okta", "entra"}, "which checks: some of rfc, okta and entra")
	group.AddCommand(test)
	return group
}

func parseSets(names []string) ([]conformance.Set, error) {
	var sets []conformance.Set
	for _, name := range names {
		found := false
		for _, s := range conformance.Sets() {
			if string(s) == name {
				sets, found = append(sets, s), true
			}
		}
		if !found {
			return nil, coded(exitUsage, "--set is some of rfc, okta and entra; not %q", name)
		}
	}
	return sets, nil
}

func (c *cli) probe(cmd *cobra.Command, target conformance.Target, sets []conformance.Set) error {
	results, err := conformance.Run(cmd.Context(), target, sets, func(r conformance.Result) {
		if c.isTerminal() && c.output != "json" {
			_, _ = fmt.Fprintf(c.stderr, "%s  %s: %s\n", r.Outcome, r.Set, r.Name)
		}
	})
	if errors.Is(err, conformance.ErrRefused) {
		return coded(exitAuth, "%w", err)
	}
	if err != nil {
		return err
	}
	counts := make(map[conformance.Outcome]int)
	var rows [][]string
	for _, r := range results {
		counts[r.Outcome]++
		rows = append(rows, []string{string(r.Set), string(r.Outcome), r.Name, strings.ReplaceAll(r.Detail, "\n", "; ")})
	}
	if err := c.print(results, []string{"SET", "OUTCOME", "CHECK", "DETAIL"}, rows); err != nil {
		return err
	}
	if n := counts[conformance.Failed]; n > 0 {
		return coded(exitError, "%d of %d checks failed (%d passed, %d do not apply)", n, len(results), counts[conformance.Passed], counts[conformance.Skipped])
	}
	_, _ = fmt.Fprintf(c.stderr, "%d checks passed, %d do not apply\n", counts[conformance.Passed], counts[conformance.Skipped])
	return nil
}
