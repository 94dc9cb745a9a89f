package httpjson

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/iotest"
)

func TestTwoMembersOfOneNameAreAmbiguous(t *testing.T) {
	for body, want := range map[string]bool{
		`{}`: true, `{"a":1,"b":{"a":1}}`: true, `{"a":[{"a":1},{"a":2}]}`: true, `{"a":"a","b":"a: \"a\""}`: true, `{"a" : {} , "b":1}`: true,
		`{"a":1,"a":2}`: false, `{"a":1,"A":2}`: false, `{"x":{"a":1,"b":[{}],"a":2}}`: false, `{"\u0061":1}`: false, `{"a":1 , "b":[1,{"c":2}], "A" :3}`: false,
		`{"K":1,"k":2}`: false, strings.Repeat("[", 40): false,
	} {
		if got := unambiguous([]byte(body)); got != want {
			t.Errorf("%s: %t, want %t", body, got, want)
		}
	}
}

// FuzzUnambiguous holds it against a reader that forgets no member.
func FuzzUnambiguous(f *testing.F) {
	for _, seed := range []string{`{"a":1,"A":2}`, `{"a":{"b":"\""}}`, `{"a":"}","b":[]}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var object map[string]json.RawMessage
		if json.Unmarshal(body, &object) != nil || !unambiguous(body) {
			return
		}
		folded := make(map[string]bool)
		for name := range object {
			if key := strings.ToLower(name); folded[key] {
				t.Fatalf("%q has two members of the name %q", body, key)
			} else {
				folded[key] = true
			}
		}
	})
}

func TestBody_BrokenConnectionIsNotTooLarge(t *testing.T) {
	for name, c := range map[string]struct {
		broken io.Reader
		body   string
		media  string
		status int
	}{
		"a broken connection": {iotest.ErrReader(io.ErrUnexpectedEOF), "", "application/json", http.StatusBadRequest},
		"too long":            {nil, `{"a":"` + strings.Repeat("x", MaxBody) + `"}`, "application/json", http.StatusRequestEntityTooLarge},
		"another media type":  {nil, `{}`, "application/jsonx", http.StatusUnsupportedMediaType},
	} {
		for reader, read := range map[string]func(http.ResponseWriter, *http.Request, any) error{"loose": DecodeLoosely, "strict": Decode} {
			body := c.broken
			if body == nil {
				body = strings.NewReader(c.body)
			}
			r := httptest.NewRequest(http.MethodPost, "/", body)
			r.Header.Set("Content-Type", c.media)
			var into map[string]any
			if err := read(httptest.NewRecorder(), r, &into); ProblemOf(err).Status != c.status {
				t.Errorf("%s, %s: %v, want %d", name, reader, err, c.status)
			}
		}
	}
}
