package main

import (
	"bufio"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/leaverhq/leaver/internal/evidence"
)

func (c *cli) evidenceCommand() *cobra.Command {
	group := &cobra.Command{
		Use: "evidence", Short: "List, export and verify the evidence, which is a signed hash chain of each tenant",
	}
	group.AddCommand(c.evidenceList(), c.evidenceShow(), c.evidenceExport(), c.evidenceVerify(), c.evidenceKeys(),
		c.evidenceHistory(), c.evidenceReport())
	return group
}

// scopePath returns the path of a tenant, or of the installation for an empty name.
func scopePath(of string) string {
	if of == "" {
		return ""
	}
	return tenantPath(of)
}

func chainFlag(cmd *cobra.Command, of *string) {
	cmd.Flags().StringVar(of, "tenant", "", "name or ID of the tenant; by default, the chain of the installation")
}

func (c *cli) evidenceList() *cobra.Command {
	var of string
	var after int64
	var limit int
	cmd := &cobra.Command{
		Use: "list", Short: "List the records of a chain, oldest first", Args: cobra.NoArgs,
		RunE: c.withClient(func(cmd *cobra.Command, cl *client, _ []string) error {
			entries, err := all[evidence.Chained](cmd.Context(), cl, scopePath(of)+"/evidence",
				url.Values{"cursor": {strconv.FormatInt(after, 10)}, "limit": {"500"}}, limit)
			if err != nil {
				return err
			}
			var rows [][]string
			for _, x := range entries {
				whole, err := x.Entry.Whole()
				if err != nil {
					return err
				}
				record := string(whole)
				if x.Entry.Erased() {
					record += " (texts erased)"
				}
				rows = append(rows, []string{
					strconv.FormatInt(x.Entry.Sequence, 10), x.Entry.Source, x.Hash.String()[:16], record,
				})
			}
			return c.print(entries, []string{"SEQUENCE", "SOURCE", "HASH", "RECORD"}, rows)
		}),
	}
	chainFlag(cmd, &of)
	cmd.Flags().Int64Var(&after, "after", 0, "list only records after this number")
	cmd.Flags().IntVar(&limit, "limit", 100, "maximum number of records to list; 0 lists all")
	return cmd
}

func (c *cli) evidenceShow() *cobra.Command {
	var of string
	cmd := &cobra.Command{
		Use: "show SEQUENCE", Short: "Show a record of a chain", Args: cobra.ExactArgs(1),
		RunE: c.withClient(func(cmd *cobra.Command, cl *client, args []string) error {
			sequence, err := strconv.ParseInt(args[0], 10, 64)
			if err != nil || sequence < 1 {
				return coded(exitUsage, "SEQUENCE must be the number of a record, got %q", args[0])
			}
			entries, err := all[evidence.Chained](cmd.Context(), cl, scopePath(of)+"/evidence",
				url.Values{"cursor": {strconv.FormatInt(sequence-1, 10)}, "limit": {"1"}}, 1)
			if err != nil {
				return err
			}
			if len(entries) == 0 {
				return coded(exitNotFound, "no record %d in the chain; `leaver evidence list` shows the records", sequence)
			}
			encoded, err := json.MarshalIndent(entries[0], "", "  ")
			if err != nil {
				return fmt.Errorf("encode the record: %w", err)
			}
			_, err = fmt.Fprintln(c.stdout, escaped(string(encoded), "\n"))
			return err
		}),
	}
	chainFlag(cmd, &of)
	return cmd
}

func (c *cli) evidenceKeys() *cobra.Command {
	return &cobra.Command{
		Use: "keys", Args: cobra.NoArgs,
		Short: "Print the public keys of checkpoints, one a line, for `leaver evidence verify --keys`",
		RunE: c.withClient(func(cmd *cobra.Command, cl *client, _ []string) error {
			keys, err := all[evidence.PublicKey](cmd.Context(), cl, "/evidence/keys", url.Values{}, 0)
			if err != nil {
				return err
			}
			for _, k := range keys {
				if _, err := fmt.Fprintf(c.stdout, "%s %s\n", k.ID, base64.StdEncoding.EncodeToString(k.Key)); err != nil {
					return err
				}
			}
			return nil
		}),
	}
}

func (c *cli) evidenceExport() *cobra.Command {
	var of, format, out string
	var unsigned bool
	cmd := &cobra.Command{
		Use: "export", Args: cobra.NoArgs,
		Short: "Export a chain with its signed checkpoints; the export is recorded in the chain",
		Example: "  leaver evidence export --tenant acme --out acme.jsonl\n" +
			"  leaver evidence verify acme.jsonl --keys keys.txt",
		RunE: c.withClient(func(cmd *cobra.Command, cl *client, _ []string) error {
			if format != "jsonl" && format != "csv" {
				return coded(exitUsage, "--format must be jsonl or csv, got %q", format)
			}
			n := 0
			err := c.toFile(out, func(to io.Writer) (err error) {
				call := func(ctx context.Context, method, path string, body, into any) error {
					return cl.do(ctx, method, scopePath(of)+path, body, into)
				}
				open := evidence.Lines(to)
				if format == "csv" {
					open = func(evidence.Header, []evidence.Checkpoint) (evidence.Writer, error) { return newCSV(to), nil }
				}
				download := evidence.Download
				if unsigned {
					download = evidence.DownloadUnsigned
				}
				n, err = download(cmd.Context(), call, open)
				return err
			})
			if err != nil {
				return err
			}
			_, _ = fmt.Fprintf(c.stderr, "exported %d records\n", n)
			return nil
		}),
	}
	chainFlag(cmd, &of)
	cmd.Flags().StringVar(&format, "format", "jsonl", "jsonl, which can be verified, or csv, which cannot")
	cmd.Flags().StringVar(&out, "out", "", "file to create (default: stdout)")
	cmd.Flags().BoolVar(&unsigned, "unsigned", false,
		"export the chain as it is stored, without a new checkpoint: for evidence that was altered, which is never signed")
	return cmd
}

// toFile writes to a new file, which is removed if that fails, or to stdout for an empty path.
func (c *cli) toFile(path string, write func(to io.Writer) error) error {
	if path == "" {
		buffered := bufio.NewWriter(c.stdout)
		return errors.Join(write(buffered), buffered.Flush())
	}
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return coded(exitUsage, "create the file: %w; choose another --out, or remove the file", err)
	}
	buffered := bufio.NewWriter(file)
	if err := errors.Join(write(buffered), buffered.Flush(), file.Close()); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return nil
}

func (c *cli) evidenceVerify() *cobra.Command {
	var keysFile string
	var known []string
	cmd := &cobra.Command{
		Use: "verify FILE", Args: cobra.ExactArgs(1),
		Short: "Verify an export without access to the installation, and name what was changed, removed or moved",
		RunE: func(_ *cobra.Command, args []string) error {
			keys, err := readKeys(keysFile)
			if err != nil {
				return err
			}
			expectations, err := parseKnown(known)
			if err != nil {
				return err
			}
			file, err := os.Open(args[0])
			if err != nil {
				return coded(exitUsage, "open the export: %w", err)
			}
			defer func() { _ = file.Close() }()
			report, err := evidence.Verify(file, keys, expectations...)
			if err != nil {
				return err
			}
			return c.printReport(report)
		},
	}
	cmd.Flags().StringVar(&keysFile, "keys", "",
		"file with the public keys that you trust, from `leaver evidence keys` (required)")
	cmd.Flags().StringArrayVar(&known, "known", nil,
		"SEQUENCE:HASH of a record that you know, such as the last one of an earlier verification; may be repeated")
	if err := cmd.MarkFlagRequired("keys"); err != nil {
		panic(err) // the flag is defined above
	}
	return cmd
}

func (c *cli) printReport(r evidence.Report) error {
	rows := [][]string{
		{"tenant", r.Tenant.String()},
		{"records", fmt.Sprintf("%d, from %d to %d", r.Entries, r.First, r.Last)},
		{"checkpoints", strconv.Itoa(r.Checkpoints)},
		{"erased", strconv.Itoa(r.Erased)},
		{"signed", stamp(r.SignedAt)},
		{"last record", fmt.Sprintf("%d:%s", r.Last, r.Hash)},
	}
	for _, fault := range r.Faults {
		rows = append(rows, []string{"FAULT", fault})
	}
	if err := c.print(r, []string{"WHAT", "VALUE"}, rows); err != nil {
		return err
	}
	if len(r.Faults) > 0 {
		return coded(exitError, "the export was altered or is incomplete: %d faults, listed as FAULT", len(r.Faults))
	}
	return nil
}

// readKeys reads a file of lines with a key's ID and the key in base64.
func readKeys(file string) (evidence.Keys, error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return nil, coded(exitUsage, "read the keys: %w", err)
	}
	keys := make(evidence.Keys)
	for n, text := range strings.Split(strings.TrimSpace(string(raw)), "\n") {
		id, encoded, _ := strings.Cut(strings.TrimSpace(text), " ")
		parsed, err := uuid.Parse(id)
		key, decodeErr := base64.StdEncoding.DecodeString(strings.TrimSpace(encoded))
		if err != nil || decodeErr != nil || len(key) != ed25519.PublicKeySize {
			return nil, coded(exitUsage,
				"%s:%d: want the ID of a key and the key in base64, as `leaver evidence keys` prints them", file, n+1)
		}
		keys[parsed] = key
	}
	return keys, nil
}

// parseKnown parses the values of --known.
func parseKnown(texts []string) (known []evidence.Expectation, err error) {
	for _, text := range texts {
		var e evidence.Expectation
		sequence, hash, _ := strings.Cut(text, ":")
		if e.Sequence, err = strconv.ParseInt(sequence, 10, 64); err == nil {
			err = e.Hash.UnmarshalText([]byte(hash))
		}
		if err != nil {
			return nil, coded(exitUsage, "--known must be SEQUENCE:HASH, got %q", text)
		}
		known = append(known, e)
	}
	return known, nil
}

func (c *cli) evidenceHistory() *cobra.Command {
	var of, run string
	cmd := &cobra.Command{
		Use: "history CASCADE", Args: cobra.ExactArgs(1),
		Short: "List the archived workflow runs of a cascade, or print the history of one as JSON; its payloads are sealed",
		RunE: c.withClient(func(cmd *cobra.Command, cl *client, args []string) error {
			path := tenantPath(of) + "/cascades/" + url.PathEscape(args[0]) + "/histories"
			if run != "" {
				var history json.RawMessage
				if err := cl.do(cmd.Context(), http.MethodGet, path+"/"+url.PathEscape(run), nil, &history); err != nil {
					return err
				}
				_, err := c.stdout.Write(history) // without a newline, so that its SHA-256 is that of the list
				return err
			}
			runs, err := all[evidence.Archived](cmd.Context(), cl, path, url.Values{}, 0)
			if err != nil {
				return err
			}
			var rows [][]string
			for _, r := range runs {
				rows = append(rows, []string{r.RunID, strconv.Itoa(r.Events), r.SHA256, stamp(&r.ArchivedAt)})
			}
			return c.print(runs, []string{"RUN", "EVENTS", "SHA256", "ARCHIVED"}, rows)
		}),
	}
	tenantFlag(cmd, &of)
	cmd.Flags().StringVar(&run, "run", "", "print the history of this run")
	return cmd
}
