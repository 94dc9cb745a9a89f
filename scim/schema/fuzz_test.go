package schema

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// FuzzJSON compares the parser with encoding/json, which accepts duplicate names and any
// depth.
func FuzzJSON(f *testing.F) {
	for _, seed := range []string{
		`{"a":[1,-0.5e+3,true,false,null,"x\u00e9\n",{}],"b":{"c":""}}`, `{"a":01}`, `{"a":1.}`, `{"a":.5}`, `{"a":1e}`, `{"a":-}`, `{"a" 1}`, `{"a":1,}`, `{,}`, `[1,]`,
		`{"a":"\ud800"}`, "{\"a\":\"\xff\"}", "{\"a\":\"\t\"}", `{"a":"\x"}`, `{"a":nul}`, `{"a":1} `, `{"a":1}{`, `{"a":1,"a":2}`, `{"a":"`, `{"a":"\`, "{\"a\"\x00:1}",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, body string) {
		read, err := ParseObject([]byte(body))
		var refused *Error
		if errors.As(err, &refused) {
			tooMuch := strings.Contains(refused.Detail, "duplicate key") || strings.Contains(refused.Detail, "deeper") ||
				strings.Contains(refused.Detail, "must be a JSON object")
			if !tooMuch && json.Valid([]byte(body)) {
				t.Errorf("valid JSON was refused: %v", err)
			}
			return
		}
		d := json.NewDecoder(strings.NewReader(body))
		d.UseNumber()
		var want map[string]any
		if err := d.Decode(&want); err != nil {
			t.Fatalf("encoding/json rejects it: %v", err)
		}
		if diff := cmp.Diff(want, read); diff != "" {
			t.Errorf("the parser differs from encoding/json (-encoding/json +parser):\n%s", diff)
		}
		again, err := ParseObject(AppendValue(nil, read))
		if diff := cmp.Diff(read, again); err != nil || diff != "" {
			t.Errorf("encoded and parsed again: %v (-before +after):\n%s", err, diff)
		}
	})
}

func FuzzExtension(f *testing.F) {
	f.Add(`{"id":"urn:example:acme:2.0:Claims","name":"Claims","attributes":[{"name":"clearedForProdData","type":"boolean"}]}`)
	f.Add(`{"id":"urn:example:acme","attributes":[{"name":"a","type":"complex","subAttributes":[{"name":"b"}]}]}`)
	f.Fuzz(func(t *testing.T, definition string) {
		e, err := ParseExtension("User", []byte(definition))
		if err != nil {
			return
		}
		rt := ResourceTypes([]*Extension{e})[0]
		if err := CheckExtension(e, []*Extension{e}); err != nil {
			t.Errorf("a schema cannot replace itself: %v", err)
		}
		if _, a := rt.Find(e.Schema.ID + ":" + e.Schema.Attributes[0].Name); a == nil {
			t.Error("an attribute is not found by its URN")
		}
	})
}
