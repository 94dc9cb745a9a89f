// Package textkey computes the keys by which strings are compared for uniqueness, in filters,
// in sort orders and in the names of mapping rules (RFC 7644 section 7.8).
package textkey

import (
	"strings"

	"golang.org/x/text/cases"
	"golang.org/x/text/language"
	"golang.org/x/text/secure/precis"
	"golang.org/x/text/unicode/norm"
	"golang.org/x/text/width"
)

// profile maps like UsernameCaseMapped (RFC 8265 section 3.3), but uses the FreeformClass,
// because display names contain spaces and symbols. It does not map final sigmas, so that the
// key of a prefix is a prefix of the key.
var profile = precis.NewFreeform(
	precis.FoldWidth, precis.LowerCase(cases.HandleFinalSigma(false)), precis.Norm(norm.NFC),
)

// Fold returns the key of a string that is compared without regard to case: two strings are
// equal if their keys are. A string that PRECIS disallows, such as one with an unassigned code
// point, is mapped by the same rules.
func Fold(s string) string {
	if isASCII(s) {
		return strings.ToLower(s)
	}
	key, err := profile.CompareKey(s)
	if err != nil {
		return norm.NFC.String(cases.Lower(language.Und, cases.HandleFinalSigma(false)).String(width.Fold.String(s)))
	}
	return key
}

// Exact returns the key of a string that is compared with regard to case: its Normalization
// Form C.
func Exact(s string) string {
	if isASCII(s) {
		return s
	}
	return norm.NFC.String(s)
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}
