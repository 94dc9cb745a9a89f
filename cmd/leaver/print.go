package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"text/tabwriter"
	"unicode"

	"golang.org/x/term"
)

// print writes an answer: JSON where asked, a table on a terminal, TSV in a pipe.
func (c *cli) print(body any, header []string, rows [][]string) error {
	if c.output == "json" {
		var encoded bytes.Buffer
		e := json.NewEncoder(&encoded)
		e.SetIndent("", "  ")
		if err := e.Encode(body); err != nil {
			return err
		}
		_, err := fmt.Fprint(c.stdout, escaped(encoded.String(), "\n"))
		return err
	}
	if c.output != "table" && !c.isTerminal() {
		for _, row := range rows {
			if _, err := fmt.Fprintln(c.stdout, strings.Join(cells(row), "\t")); err != nil {
				return err
			}
		}
		return nil
	}
	w := tabwriter.NewWriter(c.stdout, 0, 4, 2, ' ', 0)
	for _, row := range append([][]string{header}, rows...) {
		if _, err := fmt.Fprintln(w, strings.Join(cells(row), "\t")); err != nil {
			return err
		}
	}
	return w.Flush()
}

// cells escapes the texts of a row.
func cells(row []string) []string {
	out := make([]string, len(row))
	for i, text := range row {
		out[i] = escaped(text, "")
	}
	return out
}

// escaped writes what is not printable as JSON does, but for the runes to keep: names and
// references are other people's, and a terminal obeys control characters.
func escaped(text, keep string) string {
	if !strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) && !strings.ContainsRune(keep, r) }) {
		return text
	}
	var b strings.Builder
	for _, r := range text {
		switch {
		case unicode.IsPrint(r) || strings.ContainsRune(keep, r):
			b.WriteRune(r)
		case r > 0xffff:
			fmt.Fprintf(&b, `\U%08x`, r)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.String()
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
