package rest_test

import (
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"github.com/leaverhq/leaver/activities/connectors"
	"github.com/leaverhq/leaver/activities/connectors/rest"
)

// sigV4 returns the definition keys with the authentication sigv4.
func sigV4(t *testing.T) *rest.Definition {
	t.Helper()
	text := strings.Replace(keys, `auth: {bearer: "{token}"}`, `auth: {sigv4: {service: keys, region: eu-central-1, access_key_id: "{id}",
	  secret_access_key: "{token}"}}`, 1)
	text = strings.Replace(text, "  url: ", "  id: {}\n  url: ", 1)
	return parse(t, strings.Replace(text, "token: {required: true, ", "token: {", 1))
}

// resigned returns the Authorization header that the key gives a request.
func resigned(t *testing.T, r *http.Request, key aws.Credentials) string {
	t.Helper()
	raw, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	at, err := time.Parse("20060102T150405Z", r.Header.Get("X-Amz-Date"))
	if err != nil {
		t.Fatal(err)
	}
	digest := sha256.Sum256(raw)
	again := r.Clone(t.Context())
	again.URL.Scheme, again.URL.Host = "http", r.Host
	for name := range again.Header { // those that the client's transport adds are not signed
		if name == "Accept-Encoding" || name == "Authorization" {
			again.Header.Del(name)
		}
	}
	err = v4.NewSigner().SignHTTP(t.Context(), key, again, hex.EncodeToString(digest[:]), "keys", "eu-central-1", at)
	if err != nil {
		t.Fatal(err)
	}
	return again.Header.Get("Authorization")
}

// TestSigV4_SignsTheWholeRequest checks the signature with the SDK's signer, of a key of the settings, and of one in the
// SDK's default chain.
func TestSigV4_SignsTheWholeRequest(t *testing.T) {
	key := aws.Credentials{AccessKeyID: "AKIAEXAMPLE", SecretAccessKey: "admin-secret"}
	var signed []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got := r.Header.Get("Authorization")
		if want := resigned(t, r, key); got != want {
			t.Errorf("%s %s is signed %q, want %q", r.Method, r.RequestURI, got, want)
		}
		signed = append(signed, got)
		w.WriteHeader(http.StatusNoContent)
	}))
	defer server.Close()
	t.Setenv("REST_TEST_SECRET", "admin-secret")
	own := connect(t, sigV4(t), map[string]string{"url": server.URL, "id": "AKIAEXAMPLE", "token": adminSecret})
	t.Setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "admin-secret")
	chained := connect(t, sigV4(t), map[string]string{"url": server.URL})
	for _, c := range []*rest.Connector{own, chained} {
		if _, err := c.Revoke(t.Context(), connectors.Target{Kind: connectors.APIKey, Reference: "a b/ü"}); err != nil {
			t.Error(err)
		}
	}
	if len(signed) != 2 || !strings.Contains(signed[0], "/eu-central-1/keys/aws4_request") {
		t.Errorf("signed %q", signed)
	}
}

func TestSigV4_NeedsAWholeKey(t *testing.T) {
	_, err := rest.New(sigV4(t), map[string]string{"url": "https://keys.example.com", "id": "AKIAEXAMPLE"})
	if err == nil || !strings.Contains(err.Error(), "set both") {
		t.Errorf("got %v, want an error that names what is missing", err)
	}
}
