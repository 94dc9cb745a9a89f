package conformance

import (
	"errors"
	"fmt"
	"net/http"
	"sync"
)

// writeChecks returns the checks of creating, replacing, patching and deleting resources.
func writeChecks() []check {
	return []check{
		{RFC, "a POST returns 201 with Location, meta and the whole resource (section 3.3)", func(p *probe) error {
			name := p.name("user")
			path, a, err := p.create("/Users", fmt.Sprintf(`{"schemas":[%q],"userName":%q,"password":"pr0be-Secret!",`+
				`"id":"mine","meta":{"version":"x"}}`, userURN, name))
			if err != nil {
				return err
			}
			location := a.header.Get("Location")
			switch {
			case location == "":
				return fmt.Errorf("the response has no Location header: %v", a)
			case idOf(path) == "mine":
				return fmt.Errorf("the provider used the client's id: %v", a)
			}
			if err := Contains(a.body, map[string]any{
				"userName": name, "id": idOf(path), "password": Absent,
				"meta": map[string]any{"resourceType": "User", "location": location},
			}); err != nil {
				return err
			}
			read, err := p.want(http.StatusOK, http.MethodGet, path, "")
			if err != nil {
				return err
			}
			return Contains(read.body, map[string]any{"userName": name, "password": Absent})
		}},
		{RFC, "a userName that is taken, in any case, is 409 uniqueness", func(p *probe) error {
			_, name, err := p.user("")
			if err != nil {
				return err
			}
			for _, again := range []string{name, "LEAVER" + name[len("leaver"):]} {
				body := fmt.Sprintf(`{"schemas":[%q],"userName":%q}`, userURN, again)
				if err := p.refused(http.StatusConflict, "uniqueness", http.MethodPost, "/Users", body); err != nil {
					return err
				}
			}
			return nil
		}},
		{RFC, "ten parallel POSTs of one name create one user", func(p *probe) error {
			body := fmt.Sprintf(`{"schemas":[%q],"userName":%q}`, userURN, p.name("user"))
			statuses := make([]int, 10)
			paths := make([]string, len(statuses))
			var all sync.WaitGroup
			for i := range statuses {
				all.Go(func() {
					one := *p // each goroutine records the resources that it creates
					one.made = nil
					a, _ := one.do(http.MethodPost, "/Users", body)
					statuses[i] = a.status
					if len(one.made) > 0 {
						paths[i] = one.made[0]
					}
				})
			}
			all.Wait()
			created := 0
			for i, status := range statuses {
				if paths[i] != "" {
					p.made = append(p.made, paths[i])
				}
				if status == http.StatusCreated {
					created++
				} else if status != http.StatusConflict && status != http.StatusTooManyRequests {
					return fmt.Errorf("a POST returned %d, want 201, 409 or 429", status)
				}
			}
			if created != 1 {
				return fmt.Errorf("%d users were created, want 1", created)
			}
			return nil
		}},
		{RFC, "a missing required attribute and a wrong type are invalidValue", func(p *probe) error {
			return errors.Join(p.refused(http.StatusBadRequest, "invalidValue", http.MethodPost, "/Users",
				fmt.Sprintf(`{"schemas":[%q],"displayName":"x"}`, userURN)),
				p.refused(http.StatusBadRequest, "invalidValue", http.MethodPost, "/Users", fmt.Sprintf(`{"schemas":[%q],"userName":{"x":1}}`, userURN)))
		}},
		{RFC, "a PUT replaces and ignores read-only attributes (section 3.5.1)", func(p *probe) error {
			path, name, err := p.user(`"displayName":"Before","title":"T"`)
			if err != nil {
				return err
			}
			a, err := p.want(http.StatusOK, http.MethodPut, path,
				fmt.Sprintf(`{"schemas":[%q],"id":%q,"userName":%q,"displayName":"After","groups":[],`+
					`"meta":{"resourceType":"User"}}`, userURN, idOf(path), name))
			if err != nil {
				return err
			}
			return Contains(a.body, map[string]any{"displayName": "After", "title": Absent, "id": idOf(path)})
		}},
		{RFC, "a failed PATCH changes nothing (section 3.5.2)", func(p *probe) error {
			path, _, err := p.user(`"displayName":"Before"`)
			if err != nil {
				return err
			}
			body := patchOf(`{"op":"replace","path":"displayName","value":"After"},{"op":"remove","path":"userName"}`)
			if err := p.refused(http.StatusBadRequest, "", http.MethodPatch, path, body); err != nil {
				return err
			}
			a, err := p.want(http.StatusOK, http.MethodGet, path, "")
			if err != nil {
				return err
			}
			return Contains(a.body, map[string]any{"displayName": "Before"})
		}},
		{RFC, "a malformed PATCH returns the right scimType", func(p *probe) error {
			path, _, err := p.user("")
			if err != nil {
				return err
			}
			for operation, scimType := range map[string]string{
				`{"op":"remove"}`: "noTarget", `{"op":"destroy","path":"title"}`: "invalidSyntax",
				`{"op":"add","path":"emails[","value":1}`:            "invalidPath",
				`{"op":"replace","path":"active","value":"perhaps"}`: "invalidValue",
			} {
				if err := p.refused(http.StatusBadRequest, scimType, http.MethodPatch, path, patchOf(operation)); err != nil {
					return fmt.Errorf("%s: %w", operation, err)
				}
			}
			return nil
		}},
		{RFC, "at most one element is primary (RFC 7643 section 2.4)", func(p *probe) error {
			path, _, err := p.user(`"emails":[{"type":"work","value":"w@x.example","primary":true},` +
				`{"type":"home","value":"h@x.example"}]`)
			if err != nil {
				return err
			}
			other := `{"op":"add","path":"emails","value":[{"type":"other","value":"o@x.example","primary":true}]}`
			if _, err := p.patched(path, other); err != nil {
				return err
			}
			a, err := p.want(http.StatusOK, http.MethodGet, path, "")
			if err != nil {
				return err
			}
			primary := 0
			emails, _ := a.body["emails"].([]any)
			for _, e := range emails {
				if object, ok := e.(map[string]any); ok && object["primary"] == true {
					primary++
				}
			}
			if primary != 1 || len(emails) != 3 {
				return fmt.Errorf("%d of %d e-mail addresses are primary, want 1 of 3", primary, len(emails))
			}
			return nil
		}},
		{RFC, "ETags guard reads and writes (section 3.14)", func(p *probe) error {
			if err := p.needs("etag"); err != nil {
				return err
			}
			path, _, err := p.user("")
			if err != nil {
				return err
			}
			a, err := p.want(http.StatusOK, http.MethodGet, path, "")
			if err != nil {
				return err
			}
			version := a.header.Get("ETag")
			if err := Contains(a.body, map[string]any{"meta": map[string]any{"version": version}}); err != nil {
				return err
			}
			if _, err := p.want(http.StatusNotModified, http.MethodGet, path, "", "If-None-Match", version); err != nil {
				return err
			}
			title := patchPrefix + `{"op":"add","path":"title","value":"x"}]}`
			_, err = p.want(http.StatusPreconditionFailed, http.MethodPatch, path, title, "If-Match", `W/"of-no-version"`)
			if err != nil {
				return err
			}
			changed, err := p.do(http.MethodPatch, path, title, "If-Match", version)
			if err == nil && changed.status != http.StatusOK && changed.status != http.StatusNoContent {
				err = fmt.Errorf("%v", changed)
			}
			return err
		}},
		{RFC, "bulk resolves references in any order (section 3.7)", func(p *probe) error {
			if err := p.needs("bulk"); err != nil {
				return err
			}
			name := p.name("user")
			a, err := p.want(http.StatusOK, http.MethodPost, "/Bulk",
				fmt.Sprintf(`{"schemas":["urn:ietf:params:scim:api:messages:2.0:BulkRequest"],"Operations":[
				{"method":"POST","path":"/Groups","bulkId":"g","data":{"schemas":[%q],"displayName":%q,"members":[{"value":"bulkId:u"}]}},
				{"method":"POST","path":"/Users","bulkId":"u","data":{"schemas":[%q],"userName":%q}}]}`, groupURN, p.name("group"), userURN, name))
			if err != nil {
				return err
			}
			operations, _ := a.body["Operations"].([]any)
			for _, o := range operations {
				object, _ := o.(map[string]any)
				location, _ := object["location"].(string)
				if object["status"] != "201" || location == "" {
					return fmt.Errorf("%v", a)
				}
				endpoint := map[any]string{"g": "/Groups/", "u": "/Users/"}[object["bulkId"]]
				p.made = append(p.made, endpoint+idOf(location))
			}
			if len(operations) != 2 {
				return fmt.Errorf("%v", a)
			}
			return nil
		}},
		{RFC, "a deleted resource is 404 and its name is free (section 3.6)", func(p *probe) error {
			path, name, err := p.user("")
			if err != nil {
				return err
			}
			if _, err := p.want(http.StatusNoContent, http.MethodDelete, path, ""); err != nil {
				return err
			}
			if err := errors.Join(p.refused(http.StatusNotFound, "", http.MethodGet, path, ""),
				p.refused(http.StatusNotFound, "", http.MethodDelete, path, "")); err != nil {
				return err
			}
			a, err := p.want(http.StatusOK, http.MethodGet, filterPath("/Users", fmt.Sprintf("userName eq %q", name)), "")
			if err != nil {
				return err
			}
			if err := Contains(a.body, map[string]any{"totalResults": 0.0}); err != nil {
				return err
			}
			// The name is free again.
			_, _, err = p.create("/Users", fmt.Sprintf(`{"schemas":[%q],"userName":%q}`, userURN, name))
			return err
		}},
	}
}

// patched sends a PATCH and accepts a response with or without the resource.
func (p *probe) patched(path, operations string) (answer, error) {
	a, err := p.do(http.MethodPatch, path, patchPrefix+operations+"]}")
	if err == nil && a.status != http.StatusOK && a.status != http.StatusNoContent {
		err = fmt.Errorf("%s: %v", operations, a)
	}
	return a, err
}
