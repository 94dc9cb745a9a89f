package main

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/leaverhq/leaver/activities/connectors/rest"
	"github.com/leaverhq/leaver/internal/registry"
	"github.com/leaverhq/leaver/worker"
)

// definitions returns the definitions of connectors, with those of the configuration's directory.
func (c *cli) definitions() (rest.Catalog, error) {
	cfg, err := c.load()
	if err != nil {
		return nil, err
	}
	all, err := rest.Load(cfg.ConnectorDefinitions)
	if err != nil {
		return nil, coded(exitUsage, "%w", err)
	}
	return all, nil
}

func (c *cli) connectorTypes() *cobra.Command {
	return &cobra.Command{
		Use: "types", Short: "List the types of connectors with their kinds and operations", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			all, err := c.definitions()
			if err != nil {
				return err
			}
			types := worker.Types(all)
			var rows [][]string
			for _, t := range types {
				kinds := make([]string, len(t.Kinds))
				for i, kind := range t.Kinds {
					kinds[i] = string(kind)
				}
				rows = append(rows, []string{t.Name, t.Title, strings.Join(kinds, ","), strings.Join(t.Operations, ",")})
			}
			return c.print(types, []string{"TYPE", "TITLE", "KINDS", "CAN"}, rows)
		},
	}
}

func (c *cli) connectorExample() *cobra.Command {
	return &cobra.Command{
		Use: "example TYPE", Short: "Print the settings of a type of connector, or of a vendor's types, for leaver.yaml",
		Args:    cobra.ExactArgs(1),
		Example: "  leaver connector example github-app",
		RunE: func(_ *cobra.Command, args []string) error {
			all, err := c.definitions()
			if err != nil {
				return err
			}
			names := []string{args[0]}
			if all[args[0]] == nil { // a vendor may have several, such as github-app and github-actions
				names = slices.DeleteFunc(all.Names(), func(name string) bool { return !strings.HasPrefix(name, args[0]+"-") })
			}
			if len(names) == 0 {
				return coded(exitUsage,
					"no definition is named %q; known are %s. deploy/leaver.example.yaml has the settings of %s", args[0],
					strings.Join(all.Names(), ", "), strings.Join(worker.Adapters(), ", "))
			}
			for _, name := range names {
				if _, err := fmt.Fprint(c.stdout, all[name].Example()); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

func (c *cli) connectorValidate() *cobra.Command {
	return &cobra.Command{
		Use: "validate FILE", Short: "Validate a definition of connectors", Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			raw, err := os.ReadFile(args[0])
			if err != nil {
				return coded(exitUsage, "read the definition: %w", err)
			}
			d, err := rest.Parse(args[0], raw)
			if err != nil {
				return coded(exitUsage, "%w", err)
			}
			shipped, err := rest.Load("")
			if err != nil {
				return err
			}
			if shipped[d.Name] != nil || slices.Contains(worker.Adapters(), d.Name) {
				return coded(exitUsage, "%s: the name %s is that of a type that is part of leaver: choose another", args[0], d.Name)
			}
			_, err = fmt.Fprintf(c.stdout, "%s is valid: it can %s\n", d.Name, strings.Join(d.Operations(), ", "))
			return err
		},
	}
}

// checked is the result of a connector's check.
type checked struct {
	Connector string `json:"connector"`
	Result    string `json:"result"` // ok, failed or not checked
	Detail    string `json:"detail"`
}

func (c *cli) connectorCheck() *cobra.Command {
	return &cobra.Command{
		Use: "check [NAME]", Short: "Make a harmless authenticated call at each connector, or at one",
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := c.load()
			if err != nil {
				return err
			}
			configured, err := worker.Connectors(cfg)
			if err != nil {
				return coded(exitUsage, "%w", err)
			}
			defer configured.Close()
			asked := maps.Clone(configured)
			if len(args) == 1 {
				if _, ok := asked[args[0]]; !ok {
					return coded(exitUsage, "no connector is named %q; known are %s", args[0],
						strings.Join(slices.Sorted(maps.Keys(asked)), ", "))
				}
				maps.DeleteFunc(asked, func(name string, _ registry.Entry) bool { return name != args[0] })
			}
			return c.printChecks(slices.Sorted(maps.Keys(asked)), asked.Check(cmd.Context()))
		},
	}
}

func (c *cli) printChecks(names []string, results map[string]error) error {
	all := []checked{}
	var rows [][]string
	failed := 0
	for _, name := range names {
		r := checked{name, "ok", "the downstream accepts the connector"}
		err, offered := results[name]
		switch {
		case !offered:
			r.Result, r.Detail = "not checked", "its type offers no check: `leaver credential import --check` probes credentials"
		case err != nil:
			failed++
			r.Result, r.Detail = "failed", err.Error()
		}
		all = append(all, r)
		rows = append(rows, []string{r.Connector, r.Result, r.Detail})
	}
	if err := c.print(all, []string{"CONNECTOR", "RESULT", "DETAIL"}, rows); err != nil {
		return err
	}
	if failed > 0 {
		return coded(exitError, "%d of %d connectors failed their check", failed, len(results))
	}
	return nil
}
