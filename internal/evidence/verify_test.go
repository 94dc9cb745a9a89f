package evidence

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"pgregory.net/rapid"
)

// signer signs the checkpoints of test chains.
type signer struct {
	id      uuid.UUID
	private ed25519.PrivateKey
}

func newSigner(seed byte) signer {
	return signer{
		uuid.MustParse(fmt.Sprintf("019a0000-0000-7000-8000-0000000000%02x", seed)),
		ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize)),
	}
}

func (s signer) keys() Keys { return Keys{s.id: s.private.Public().(ed25519.PublicKey)} }

var acme = uuid.MustParse("019a0000-0000-7000-8000-00000000acee")

// exported returns an export of a chain of records, with a checkpoint after each fifth and the last one.
func exported(t testing.TB, s signer, records ...string) []byte {
	t.Helper()
	var chain []Chained
	var checkpoints []Checkpoint
	var hash Hash
	for i, record := range records {
		e := Entry{Sequence: int64(i + 1), Source: "evidence", Tenant: acme, Record: json.RawMessage(record)}
		var err error
		if hash, err = e.After(hash); err != nil {
			t.Fatal(err)
		}
		chain = append(chain, Chained{e, hash})
		if e.Sequence%5 == 0 || i == len(records)-1 {
			c, _, err := sign(Statement{
				Tenant: acme, Sequence: e.Sequence, Hash: hash, Key: s.id, At: time.Date(2026, 11, 29, 22, 0, 0, 0, time.UTC),
			}, s.private)
			if err != nil {
				t.Fatal(err)
			}
			checkpoints = append(checkpoints, c)
		}
	}
	var file bytes.Buffer
	e, err := NewExport(&file, Header{Tenant: acme}, checkpoints)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range chain {
		if err := e.Add(c); err != nil {
			t.Fatal(err)
		}
	}
	return file.Bytes()
}

// twelve are the records of the test chain.
func twelve() (records []string) {
	for i := range 12 {
		records = append(records, fmt.Sprintf(`{"detail":"<é> & \"%d\"","attempt":1,"step":"probe-after","outcome":"dead"}`, i))
	}
	return records
}

// linesOf returns the lines of an export, with their newlines.
func linesOf(export []byte) []string {
	lines := strings.SplitAfter(string(export), "\n")
	return lines[:len(lines)-1]
}

func faults(t testing.TB, export []byte, keys Keys, known ...Expectation) []string {
	t.Helper()
	report, err := Verify(bytes.NewReader(export), keys, known...)
	if err != nil {
		t.Fatal(err)
	}
	return report.Faults
}

func TestVerify_AcceptsWhatWasExported(t *testing.T) {
	s := newSigner(1)
	export := exported(t, s, twelve()...)
	report, err := Verify(bytes.NewReader(export), s.keys())
	want := Report{Tenant: acme, First: 1, Last: 12, Entries: 12, Checkpoints: 3, Faults: []string{}}
	ignore := cmp.FilterPath(func(p cmp.Path) bool { return p.Last().String() == ".Hash" || p.Last().String() == ".SignedAt" },
		cmp.Ignore())
	if diff := cmp.Diff(want, report, ignore); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	if known := (Expectation{12, report.Hash}); len(faults(t, export, s.keys(), known)) != 0 {
		t.Error("the export does not fit to its own last record")
	}
}

// TestVerify_NamesTheFault edits the lines of an export, as an attacker would to hide a record.
func TestVerify_NamesTheFault(t *testing.T) {
	s, other := newSigner(1), newSigner(2)
	intact := linesOf(exported(t, s, twelve()...)) // header, 1 to 5, checkpoint, 6 to 10, checkpoint, 11, 12, checkpoint
	rewritten := twelve()
	rewritten[6] = `{"outcome":"alive"}`
	forged := linesOf(exported(t, other, rewritten...))
	for name, c := range map[string]struct {
		edit func(l []string) []string
		want string
	}{
		"a changed record": {func(l []string) []string {
			l[3] = strings.Replace(l[3], `"outcome":"dead"`, `"outcome":"done"`, 1)
			return l
		}, "record 3 or its hash was changed"},
		"a changed hash": {func(l []string) []string {
			l[3] = l[3][:len(l[3])-80] + "00" + l[3][len(l[3])-78:]
			return l
		}, "line 4 was changed"},
		"a missing record":         {func(l []string) []string { return slices.Delete(l, 4, 5) }, "records 4 to 4 are missing"},
		"two missing records":      {func(l []string) []string { return slices.Delete(l, 3, 5) }, "records 3 to 4 are missing"},
		"two records that swapped": {func(l []string) []string { l[2], l[3] = l[3], l[2]; return l }, "out of order"},
		"a repeated record":        {func(l []string) []string { return slices.Insert(l, 3, l[2]) }, "record 2 is repeated"},
		"a truncated end":          {func(l []string) []string { return l[:len(l)-2] }, "does not end with a valid checkpoint"},
		"truncated in a line": {func(l []string) []string {
			l[len(l)-1] = l[len(l)-1][:40]
			return l
		}, "was changed"},
		"truncated to a checkpoint": {func(l []string) []string { return l[:13] }, "record 12, which is in --known, is missing"},
		"without its beginning": {func(l []string) []string {
			var third line
			if err := json.Unmarshal([]byte(l[3]), &third); err != nil {
				return l
			}
			header, err := canonical(line{Export: &Header{
				Version: exportVersion, Tenant: acme, After: third.Chained.Entry.Sequence, Hash: third.Chained.Hash,
			}})
			if err != nil {
				return l
			}
			return append([]string{string(header) + "\n"}, l[4:]...)
		}, "records 1 to 3 are missing"},
		"no header":  {func(l []string) []string { return l[1:] }, "no header"},
		"no content": {func(l []string) []string { return l[:1] }, "no records"},
		"a member that is not known": {func(l []string) []string {
			l[2] = strings.Replace(l[2], `{"chained"`, `{"approved":true,"chained"`, 1)
			return l
		}, "line 3 was changed"},
		"white space":   {func(l []string) []string { l[2] = " " + l[2]; return l }, "line 3 was changed"},
		"an empty line": {func(l []string) []string { return slices.Insert(l, 3, "\n") }, "line 4 was changed"},
		"a rewritten chain": {func(l []string) []string {
			return slices.Concat(l[:7], forged[7:])
		}, "which is not in --keys"},
		"a rewritten chain with the old checkpoints": {func(l []string) []string {
			return slices.Concat(l[:7], forged[7:12], l[12:13], forged[13:15], l[15:])
		}, "signs another hash"},
		"another tenant": {func(l []string) []string {
			l[0] = strings.Replace(l[0], "acee", "beef", 1)
			return l
		}, "of another tenant"},
	} {
		t.Run(name, func(t *testing.T) {
			edited := strings.Join(c.edit(slices.Clone(intact)), "")
			report, err := Verify(bytes.NewReader(exported(t, s, twelve()...)), s.keys())
			if err != nil {
				t.Fatal(err)
			}
			got := faults(t, []byte(edited), s.keys(), Expectation{12, report.Hash})
			if !slices.ContainsFunc(got, func(f string) bool { return strings.Contains(f, c.want) }) {
				t.Errorf("the faults are %q, want %q", got, c.want)
			}
		})
	}
}

// TestVerify_FindsEveryChangedByte changes any one byte of an export to any other.
func TestVerify_FindsEveryChangedByte(t *testing.T) {
	s := newSigner(1)
	export := exported(t, s, twelve()...)
	rapid.Check(t, func(rt *rapid.T) {
		edited := slices.Clone(export)
		at := rapid.IntRange(0, len(edited)-1).Draw(rt, "at")
		edited[at] ^= byte(rapid.IntRange(1, 255).Draw(rt, "with"))
		if len(faults(t, edited, s.keys())) == 0 {
			rt.Errorf("byte %d changed from %q to %q is not found", at, export[at], edited[at])
		}
	})
}

// TestVerify_FindsEveryRemovedLine removes, swaps and repeats lines, the header and checkpoints included.
func TestVerify_FindsEveryRemovedLine(t *testing.T) {
	s := newSigner(1)
	export := exported(t, s, twelve()...)
	lines := linesOf(export)
	for i, l := range lines {
		intermediate := strings.HasPrefix(l, `{"checkpoint"`) && i < len(lines)-1 // what it signs, the next one signs too
		without := strings.Join(slices.Delete(slices.Clone(lines), i, i+1), "")
		if len(faults(t, []byte(without), s.keys())) == 0 && !intermediate {
			t.Errorf("without line %d: no fault", i+1)
		}
		if i+1 < len(lines) {
			swapped := slices.Clone(lines)
			swapped[i], swapped[i+1] = swapped[i+1], swapped[i]
			if len(faults(t, []byte(strings.Join(swapped, "")), s.keys())) == 0 {
				t.Errorf("lines %d and %d swapped: no fault", i+1, i+2)
			}
		}
	}
}

func FuzzVerify_NeverPanics(f *testing.F) {
	s := newSigner(1)
	f.Add(exported(f, s, twelve()...))
	f.Add([]byte("{}\n"))
	f.Fuzz(func(t *testing.T, export []byte) {
		report, err := Verify(bytes.NewReader(export), s.keys())
		if err == nil && len(report.Faults) == 0 && report.Entries == 0 {
			t.Error("an export without records has no faults")
		}
	})
}

// TestVerify_ErasedRecordsNeedARecordThatSaysSo exports a chain of which records were erased.
func TestVerify_ErasedRecordsNeedARecordThatSaysSo(t *testing.T) {
	s := newSigner(1)
	const says = `{"records":[[2,3],[5,5]]}`
	for name, c := range map[string]struct {
		edit   func(e []Entry)
		erased int
		want   []string
	}{
		"erased as the last record says": {func(e []Entry) { erase(&e[1]); erase(&e[2]); erase(&e[4]) }, 3, []string{}},
		"partly erased":                  {func(e []Entry) { erase(&e[1]) }, 1, []string{}},
		"a removed record":               {func(e []Entry) { erase(&e[1]); erase(&e[3]) }, 1, []string{"record 4 lacks its texts, and no record says that they were erased"}},
		"a changed erasure": {func(e []Entry) { erase(&e[3]); e[6].Record = json.RawMessage(`{"records":[[1,6]]}`) }, 1, []string{
			"record 7 or its hash was changed, or the record before it was replaced",
		}},
		"an erasure of what follows it": {func(e []Entry) { e[6].Record = json.RawMessage(`{"records":[[1,9]]}`) }, 0, []string{
			"record 7 or its hash was changed, or the record before it was replaced",
			"record 7 says that record 9, which follows it, was erased",
		}},
		"a removed salt": {func(e []Entry) { e[1].Salt = nil }, 0, []string{
			"record 2 or its hash was changed, or the record before it was replaced",
		}},
		"other texts": {func(e []Entry) { e[1].Texts = json.RawMessage(`{"detail":"role bob"}`) }, 0, []string{
			"record 2 or its hash was changed, or the record before it was replaced",
		}},
		"texts without a digest": {func(e []Entry) { e[6].Texts = json.RawMessage(`{"detail":"role bob"}`) }, 0, []string{
			"record 7 or its hash was changed, or the record before it was replaced",
		}},
		"another record": {func(e []Entry) { e[1].Record = json.RawMessage(`{"outcome":"alive"}`) }, 0, []string{
			"record 2 or its hash was changed, or the record before it was replaced",
		}},
		"another digest": {func(e []Entry) { e[1].Digest[0]++ }, 0, []string{
			"record 2 or its hash was changed, or the record before it was replaced",
		}},
	} {
		var entries []Entry
		var hashes []Hash
		var hash Hash
		for i := range 7 {
			source, record := "evidence", `{"outcome":"dead","detail":"role ada"}`
			if i == 6 {
				source, record = ErasureSource, says
			}
			e, err := newEntry(source, []byte(record))
			if err != nil {
				t.Fatal(err)
			}
			e.Sequence, e.Tenant = int64(i+1), acme
			if hash, err = e.After(hash); err != nil {
				t.Fatal(err)
			}
			entries, hashes = append(entries, e), append(hashes, hash)
		}
		checkpoint, _, err := sign(Statement{Tenant: acme, Sequence: 7, Hash: hash, Key: s.id, At: time.Now().UTC()}, s.private)
		if err != nil {
			t.Fatal(err)
		}
		c.edit(entries)
		var file bytes.Buffer
		export, err := NewExport(&file, Header{Tenant: acme}, []Checkpoint{checkpoint})
		for i, e := range entries {
			if err == nil {
				err = export.Add(Chained{e, hashes[i]})
			}
		}
		if err != nil {
			t.Fatal(err)
		}
		report, err := Verify(&file, s.keys())
		if diff := cmp.Diff(c.want, report.Faults); err != nil || diff != "" || report.Erased != c.erased {
			t.Errorf("%s: %d erased, %v, faults (-want +got):\n%s", name, report.Erased, err, diff)
		}
	}
}

// erase erases the texts of an entry as erase_records does.
func erase(e *Entry) { e.Texts, e.Salt = nil, nil }
