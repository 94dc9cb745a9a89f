package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"text/tabwriter"

	"golang.org/x/term"
)

// print writes an answer: JSON where asked, a table on a terminal, TSV in a pipe.
func (c *cli) print(body any, header []string, rows [][]string) error {
	if c.output == "json" {
		e := json.NewEncoder(c.stdout)
		e.SetIndent("", "  ")
		return e.Encode(body)
	}
	if c.output != "table" && !c.isTerminal() {
		for _, row := range rows {
			if _, err := fmt.Fprintln(c.stdout, strings.Join(row, "\t")); err != nil {
				return err
			}
		}
		return nil
	}
	w := tabwriter.NewWriter(c.stdout, 0, 4, 2, ' ', 0)
	for _, row := range append([][]string{header}, rows...) {
		if _, err := fmt.Fprintln(w, strings.Join(row, "\t")); err != nil {
			return err
		}
	}
	return w.Flush()
}

func (c *cli) isTerminal() bool {
	file, ok := c.stdout.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}

// secret writes what is shown once: alone on stdout, with the warning beside it.
func (c *cli) secret(value string) error {
	if c.output == "json" {
		return c.print(map[string]string{"secret": value}, nil, nil)
	}
	_, _ = fmt.Fprintln(c.stderr, "This token is shown once. Keep it now; it cannot be read again.")
	_, err := fmt.Fprintln(c.stdout, value)
	return err
}
