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

// print writes body as JSON if -o is json. Otherwise it writes rows, as a table on a terminal or
// if -o is table, else as tab-separated values without the header.
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

// cells returns a copy of the row with its texts escaped.
func cells(row []string) []string {
	out := make([]string, len(row))
	for i, text := range row {
		out[i] = escaped(text, "")
	}
	return out
}

// escaped returns text with each unprintable rune that is not in keep as \uXXXX or \UXXXXXXXX.
// Names and references come from other systems, and a terminal interprets control characters.
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

// secret writes a token to stdout, and to stderr a warning that it is not shown again.
func (c *cli) secret(value string) error {
	if c.output == "json" {
		return c.print(map[string]string{"secret": value}, nil, nil)
	}
	_, _ = fmt.Fprintln(c.stderr, "Save this token now: it is not shown again.")
	_, err := fmt.Fprintln(c.stdout, value)
	return err
}
