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

// probeTimeout bounds one request of `scim test`.
const probeTimeout = 30 * time.Second

func (c *cli) scimCommand() *cobra.Command {
	group := &cobra.Command{Use: "scim", Short: "Test SCIM service providers"}
	var token string
	var sets []string
	test := &cobra.Command{
		Use: "test URL", Short: "Test any SCIM 2.0 provider with requests as of Okta, Entra and the RFCs",
		Args: cobra.ExactArgs(1),
		Long: "Test a SCIM 2.0 service provider at its base URL. The test creates users and groups, and deletes them.\n" +
			"The provider treats it as any other client: leaver starts workflows for its changes, so use a separate tenant.\n" +
			"Exit code 0: every check passed or does not apply; 1: a check failed, or the provider does not respond;\n" +
			"4: the token is refused.",
		RunE: func(cmd *cobra.Command, args []string) error {
			wanted, err := parseSets(sets)
			if err != nil {
				return err
			}
			target := conformance.Target{
				URL: args[0], Token: cmp.Or(token, os.Getenv("LEAVER_SCIM_TOKEN")), Client: &http.Client{Timeout: probeTimeout},
			}
			if target.Token == "" {
				return coded(exitUsage, "no SCIM token: set LEAVER_SCIM_TOKEN or --token")
			}
			return c.probe(cmd, target, wanted)
		},
	}
	test.Flags().StringVar(&token, "token", "",
		"the provider's bearer token (prefer LEAVER_SCIM_TOKEN, which process lists do not show)")
	test.Flags().StringSliceVar(&sets, "set", []string{"rfc", "okta", "entra"},
		"sets of checks to run: one or more of rfc, okta and entra")
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
			return nil, coded(exitUsage, "--set must be one or more of rfc, okta and entra, got %q", name)
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
		return coded(exitError, "%d of %d checks failed (%d passed, %d do not apply)",
			n, len(results), counts[conformance.Passed], counts[conformance.Skipped])
	}
	_, _ = fmt.Fprintf(c.stderr, "%d checks passed, %d do not apply\n",
		counts[conformance.Passed], counts[conformance.Skipped])
	return nil
}
