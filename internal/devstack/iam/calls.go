package iam

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

// administer answers a call of an administrator.
func (s *Server) administer(w http.ResponseWriter, action string, form url.Values) {
	name, id := form.Get("UserName"), form.Get("AccessKeyId")
	u, k := s.users[name], s.keys[id]
	switch {
	case action == "GetAccessKeyLastUsed":
	case u == nil, id != "" && (k == nil || k.User != name):
		fault(w, "NoSuchEntity", http.StatusNotFound)
		return
	}
	switch action {
	case "GetAccessKeyLastUsed":
		if k == nil {
			fault(w, "NoSuchEntity", http.StatusNotFound)
			return
		}
		used := "<ServiceName>N/A</ServiceName><Region>N/A</Region>"
		if k.used != nil {
			used = "<ServiceName>sts</ServiceName><Region>us-east-1</Region><LastUsedDate>" +
				k.used.UTC().Format(time.RFC3339) + "</LastUsedDate>"
		}
		reply(w, action, "<UserName>"+text(k.User)+"</UserName><AccessKeyLastUsed>"+used+"</AccessKeyLastUsed>")
	case "ListAccessKeys":
		var members strings.Builder
		for _, k := range s.keys {
			if k.User == name && k.Issued.IsZero() {
				members.WriteString("<member>" + described(k) + "</member>")
			}
		}
		reply(w, action, "<AccessKeyMetadata>"+members.String()+"</AccessKeyMetadata><IsTruncated>false</IsTruncated>")
	case "CreateAccessKey":
		if s.count(name) == 2 {
			fault(w, "LimitExceeded", http.StatusConflict)
			return
		}
		k := s.add(name)
		reply(w, action, "<AccessKey>"+described(k)+"<SecretAccessKey>"+k.Secret+"</SecretAccessKey></AccessKey>")
	case "UpdateAccessKey":
		k.active = form.Get("Status") == "Active"
		reply(w, action, "")
	case "DeleteAccessKey":
		delete(s.keys, id)
		k.active, k.lag = true, s.late
		s.ended[id] = k
		reply(w, action, "")
	case "PutUserPolicy":
		u.policies[form.Get("PolicyName")] = form.Get("PolicyDocument")
		reply(w, action, "")
	default:
		fault(w, "InvalidAction", http.StatusBadRequest)
	}
}

func described(k *Key) string {
	status := "Inactive"
	if k.active {
		status = "Active"
	}
	return "<UserName>" + text(k.User) + "</UserName><AccessKeyId>" + k.ID + "</AccessKeyId>" +
		"<Status>" + status + "</Status><CreateDate>" + k.created.UTC().Format(time.RFC3339) + "</CreateDate>"
}

var authorization = regexp.MustCompile(
	`^AWS4-HMAC-SHA256 Credential=(\w+)/\d{8}/([\w-]+)/(\w+)/aws4_request, ` +
		`SignedHeaders=([\w;-]+), Signature=([0-9a-f]{64})$`)

// authenticate returns the key that signed a request, or the code of the refusal.
func (s *Server) authenticate(r *http.Request, body []byte) (*Key, string) {
	parts := authorization.FindStringSubmatch(r.Header.Get("Authorization"))
	if parts == nil {
		return nil, "MissingAuthenticationToken"
	}
	k := s.keys[parts[1]]
	if old := s.ended[parts[1]]; old != nil && old.lag > 0 {
		old.lag--
		k = &Key{ID: old.ID, Secret: old.Secret, User: old.User, active: true}
	}
	if k == nil || !k.active {
		return nil, "InvalidClientTokenId"
	}
	if k.lag > 0 {
		k.lag--
		return nil, "InvalidClientTokenId"
	}
	at, err := time.Parse("20060102T150405Z", r.Header.Get("X-Amz-Date"))
	if err != nil || time.Since(at).Abs() > 15*time.Minute {
		return nil, "SignatureDoesNotMatch"
	}
	again, err := http.NewRequestWithContext(context.Background(), r.Method, "http://"+r.Host+r.URL.RequestURI(),
		http.NoBody)
	if err != nil {
		return nil, "IncompleteSignature"
	}
	for _, name := range strings.Split(parts[4], ";") {
		if value := r.Header.Get(name); value != "" {
			again.Header.Set(name, value)
		}
	}
	again.ContentLength = r.ContentLength
	sum := sha256.Sum256(body)
	err = v4.NewSigner().SignHTTP(r.Context(), aws.Credentials{AccessKeyID: k.ID, SecretAccessKey: k.Secret}, again,
		hex.EncodeToString(sum[:]), parts[3], parts[2], at)
	signed := authorization.FindStringSubmatch(again.Header.Get("Authorization"))
	if err != nil || signed == nil || subtle.ConstantTimeCompare([]byte(signed[5]), []byte(parts[5])) != 1 {
		return nil, "SignatureDoesNotMatch"
	}
	now := time.Now()
	k.used = &now
	return k, ""
}
