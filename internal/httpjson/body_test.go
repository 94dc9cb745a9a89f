package httpjson

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/iotest"
)

func TestDecode_MembersAreUniqueAndCaseSensitive(t *testing.T) {
	type object struct {
		A any `json:"a"`
		B any `json:"b"`
	}
	for body, want := range map[string]string{
		`{}`: "", `{"a":1,"b":{"a":1}}`: "", `{"a":[{"a":1},{"a":2}]}`: "", `{"a":"a","b":"a: \"a\""}`: "", `{"a" : {} , "b":1}`: "",
		`{"\u0061":1}`: "", `{"a":1,"a":2}`: `duplicate member "a"`, `{"a":{"a":1,"b":[{}],"a":2}}`: `duplicate member "a"`,
		`{"\u0061":1,"a":2}`: `duplicate member "a"`, `{"a":1,"A":2}`: `unknown field "A"`, `{"x":1}`: `unknown field "x"`,
		`{"a":`: "not valid JSON", `{} {}`: "not valid JSON", `[]`: "must be a JSON object", ``: "must be a JSON object", `null`: "must be a JSON object",
		`{"a":` + strings.Repeat("[", 40) + strings.Repeat("]", 40) + `}`: "nested deeper than 32 levels",
	} {
		err := DecodeStrict([]byte(body), &object{})
		if (err == nil) != (want == "") || (err != nil && !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, want %q", body, err, want)
		}
	}
}

func TestDecode_NamesTheMemberOfAWrongType(t *testing.T) {
	var into struct {
		A struct {
			B int `json:"b"`
		} `json:"a"`
	}
	if err := DecodeStrict(
		[]byte(`{"a":{"b":"x"}}`),
		&into,
	); err == nil ||
		!strings.HasPrefix(err.Error(), "a.b has the wrong type") {
		t.Errorf("got %v", err)
	}
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
