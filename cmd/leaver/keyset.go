package main

import (
	"fmt"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"github.com/leaverhq/leaver/internal/seal"
)

// keysetMode is the file mode of a key set: only its owner may read it.
const keysetMode fs.FileMode = 0o600

func (c *cli) keysetCommand() *cobra.Command {
	var out string
	cmd := &cobra.Command{
		Use: "keyset", Short: "Create a key set that seals secrets and Temporal payloads; protect it like a root password",
		Args:    cobra.NoArgs,
		Example: "  leaver keyset --out keyset.json",
		RunE: func(*cobra.Command, []string) error {
			keyset, err := seal.GenerateKeyset()
			if err != nil {
				return err
			}
			return c.writeKeyset(out, keyset)
		},
	}
	cmd.Flags().StringVar(&out, "out", "", "write the key set to this file with mode 0600 instead of stdout")
	cmd.AddCommand(c.keysetRotate())
	return cmd
}

// keysetRotate returns the command that rotates a key set in two steps. Every process must load
// the file between the steps, because each process must open what any other seals.
func (c *cli) keysetRotate() *cobra.Command {
	var add, promote bool
	cmd := &cobra.Command{
		Use:   "rotate FILE",
		Short: "Rotate a key set: --add a key, restart all processes with it, then --promote it and restart them again",
		Args:  cobra.ExactArgs(1),
		Example: `  leaver keyset rotate keyset.json --add       # then restart every process
  leaver keyset rotate keyset.json --promote   # then restart every process`,
		RunE: func(_ *cobra.Command, args []string) error {
			if add == promote {
				return coded(exitUsage, "specify exactly one of --add and --promote")
			}
			keyset, err := os.ReadFile(args[0])
			if err != nil {
				return coded(exitUsage, "read the key set: %w", err)
			}
			change := seal.AddKey
			if promote {
				change = seal.PromoteKey
			}
			if keyset, err = change(keyset); err != nil {
				return err
			}
			return c.writeKeyset(args[0], keyset)
		},
	}
	cmd.Flags().BoolVar(&add, "add", false, "add a key that is used only to open existing data")
	cmd.Flags().BoolVar(&promote, "promote", false,
		"make the newest key the primary key, which seals new data; older keys still open existing data")
	return cmd
}

// writeKeyset atomically replaces the file with one that only its owner may read. It writes to
// stdout if path is empty.
func (c *cli) writeKeyset(path string, keyset []byte) error {
	if path == "" {
		_, err := fmt.Fprintf(c.stdout, "%s\n", keyset)
		return err
	}
	beside := path + ".new"
	if err := os.WriteFile(beside, append(keyset, '\n'), keysetMode); err != nil {
		return fmt.Errorf("write the key set: %w", err)
	}
	if err := os.Rename(beside, path); err != nil {
		return fmt.Errorf("write the key set: %w", err)
	}
	return nil
}
