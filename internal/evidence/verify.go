package evidence

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/google/uuid"
)

// Report is the result of verifying an export.
type Report struct {
	Tenant      uuid.UUID  `json:"tenant"`
	First       int64      `json:"first"` // the numbers of the first and the last entry
	Last        int64      `json:"last"`
	Entries     int        `json:"entries"`
	Checkpoints int        `json:"checkpoints"`
	Erased      int        `json:"erased"` // entries whose texts were erased, as a later record says
	Hash        Hash       `json:"hash"`   // of the last entry, for the next verification
	SignedAt    *time.Time `json:"signedAt,omitempty"`
	// Faults say what is wrong, in the order of the file; none if the export is complete and unaltered.
	Faults []string `json:"faults"`
}

// Expectation is what is known about a chain from elsewhere, such as an earlier export.
type Expectation struct {
	Sequence int64
	Hash     Hash
}

const (
	// maxLine is the maximum length of a line of an export, in bytes.
	maxLine = 8 << 20
	// maxFaults bounds how many faults are reported.
	maxFaults = 100
)

// Verify reads an export, and reports which entries were changed, removed, added or moved, and whether it is complete.
// keys are those that the verifier trusts, and known are the entries that it knows.
func Verify(export io.Reader, keys Keys, known ...Expectation) (Report, error) {
	v := verifier{keys: keys, known: known, seen: make([]bool, len(known))}
	in := bufio.NewReader(export)
	for n := 1; ; n++ {
		text, err := readLine(in)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return v.report, fmt.Errorf("read line %d: %w", n, err)
		}
		l, err := parse(text)
		if err != nil {
			v.fault("line %d was changed: it is %v", n, err)
			v.lost = true
			continue
		}
		v.read(n, l)
	}
	v.finish()
	return v.report, nil
}

// readLine returns a line with its newline. The last line may lack it.
func readLine(in *bufio.Reader) ([]byte, error) {
	var text []byte
	for {
		part, err := in.ReadSlice('\n')
		text = append(text, part...)
		switch {
		case len(text) > maxLine:
			return nil, fmt.Errorf("a line has at most %d bytes", maxLine)
		case errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, io.EOF) && len(text) > 0:
			return text, nil
		default:
			return text, err
		}
	}
}

// verifier reads the lines of an export in order.
type verifier struct {
	keys   Keys
	known  []Expectation
	seen   []bool // which of known are in the export
	report Report

	begun  bool
	lost   bool  // a line before was changed, so that the next hash cannot be checked
	signed int64 // the last entry with a valid checkpoint

	erased   []int64    // entries without their texts
	erasures [][2]int64 // what records say was erased: ranges with both ends
}

func (v *verifier) fault(format string, args ...any) {
	if len(v.report.Faults) == maxFaults {
		format, args = "more faults are not listed", nil
	}
	if len(v.report.Faults) <= maxFaults {
		v.report.Faults = append(v.report.Faults, fmt.Sprintf(format, args...))
	}
}

func (v *verifier) read(n int, l line) {
	switch {
	case n == 1 && l.Export != nil:
		v.begin(*l.Export)
	case l.Export != nil:
		v.fault("line %d is a second header", n)
	case l.Chained != nil:
		v.entry(*l.Chained)
	case l.Checkpoint != nil:
		v.checkpoint(*l.Checkpoint)
	default:
		v.fault("line %d was changed: it has no content", n)
	}
}

func (v *verifier) begin(h Header) {
	v.begun = true
	if h.Version < 1 || h.Version > exportVersion {
		v.fault("the export has the version %d, and this program verifies the versions up to %d", h.Version, exportVersion)
	}
	v.report.Tenant, v.report.Last, v.report.Hash = h.Tenant, h.After, h.Hash
	first := Expectation{h.After, h.Hash}
	switch {
	case h.After < 0 || h.After == 0 && h.Hash != (Hash{}):
		v.fault("the header is not valid: hash must be zero if after is 0")
	case h.After > 0 && !slices.Contains(v.known, first):
		v.fault("records 1 to %d are missing: the export begins after them, and --known does not have %d:%s",
			h.After, h.After, h.Hash)
	}
	v.see(first)
}

func (v *verifier) entry(c Chained) {
	expected := v.report.Last + 1
	switch {
	case c.Entry.Sequence < expected:
		v.fault("record %d is repeated or out of order: it follows record %d", c.Entry.Sequence, v.report.Last)
		return
	case c.Entry.Sequence > expected && !v.lost:
		v.fault("records %d to %d are missing", expected, c.Entry.Sequence-1)
		v.lost = true
	}
	if c.Entry.Tenant != v.report.Tenant && v.begun {
		v.fault("record %d is of another tenant, %s", c.Entry.Sequence, c.Entry.Tenant)
	}
	hash, err := c.Entry.After(v.report.Hash)
	if !v.lost && (err != nil || hash != c.Hash || !c.Entry.intact()) {
		v.fault("record %d or its hash was changed, or the record before it was replaced", c.Entry.Sequence)
	}
	v.lost = false
	if v.report.First == 0 {
		v.report.First = c.Entry.Sequence
	}
	v.report.Entries++
	v.report.Last, v.report.Hash = c.Entry.Sequence, c.Hash
	v.see(Expectation{c.Entry.Sequence, c.Hash})
	v.noteErased(c.Entry)
}

// noteErased notes an entry without its texts, and what an entry says was erased.
func (v *verifier) noteErased(e Entry) {
	switch {
	case e.Erased():
		v.erased = append(v.erased, e.Sequence)
	case e.Source == ErasureSource:
		var erasure Erasure
		if err := json.Unmarshal(e.Record, &erasure); err != nil {
			v.fault("record %d does not say what was erased", e.Sequence)
		}
		for _, r := range erasure.Records {
			if r[1] >= e.Sequence {
				v.fault("record %d says that record %d, which follows it, was erased", e.Sequence, r[1])
				continue
			}
			v.erasures = append(v.erasures, r)
		}
	}
}

// explainErased checks that records say of each record without its texts that these were erased.
func (v *verifier) explainErased() {
	slices.SortFunc(v.erasures, func(a, b [2]int64) int { return cmp.Compare(a[0], b[0]) })
	slices.Sort(v.erased)
	next, end := 0, int64(0) // the erasures before next begin at or before a sequence, and reach up to end
	for _, sequence := range v.erased {
		for ; next < len(v.erasures) && v.erasures[next][0] <= sequence; next++ {
			end = max(end, v.erasures[next][1])
		}
		if sequence <= end {
			v.report.Erased++
			continue
		}
		v.fault("record %d lacks its texts, and no record says that they were erased", sequence)
	}
}

// see compares an entry with those that the verifier knows.
func (v *verifier) see(e Expectation) {
	for i, k := range v.known {
		if k.Sequence != e.Sequence {
			continue
		}
		v.seen[i] = true
		if k.Hash != e.Hash {
			v.fault("record %d is not the one in --known: its hash is %s, want %s", e.Sequence, e.Hash, k.Hash)
		}
	}
}

func (v *verifier) checkpoint(c Checkpoint) {
	v.report.Checkpoints++
	switch err := v.keys.verify(c); {
	case err != nil:
		v.fault("the checkpoint of record %d is not valid: %v", c.Statement.Sequence, err)
	case c.Statement.Tenant != v.report.Tenant:
		v.fault("the checkpoint of record %d is of another tenant, %s", c.Statement.Sequence, c.Statement.Tenant)
	case c.Statement.Sequence != v.report.Last:
		v.fault("the checkpoint of record %d is out of order, or the record is missing", c.Statement.Sequence)
	case c.Statement.Hash != v.report.Hash:
		v.fault("the checkpoint of record %d signs another hash: a record up to %d was replaced, and the hashes after it",
			c.Statement.Sequence, c.Statement.Sequence)
	default:
		v.signed, v.report.SignedAt = c.Statement.Sequence, &c.Statement.At
	}
}

func (v *verifier) finish() {
	switch {
	case !v.begun:
		v.fault("the export has no header: its beginning is missing")
	case v.report.Entries == 0:
		v.fault("the export has no records")
	case v.signed != v.report.Last:
		v.fault("the export does not end with a valid checkpoint: records after %d may be missing", v.report.Last)
	}
	v.explainErased()
	for i, k := range v.known {
		if !v.seen[i] {
			v.fault("record %d, which is in --known, is missing", k.Sequence)
		}
	}
	if v.report.Faults == nil {
		v.report.Faults = []string{}
	}
}
