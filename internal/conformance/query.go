package conformance

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// queryChecks returns the checks of lists: filters, pages, order and projection.
func queryChecks() []check {
	return append(filterChecks(), []check{
		{RFC, "an empty list has totalResults 0 and empty Resources", func(p *probe) error {
			a, err := p.want(http.StatusOK, http.MethodGet,
				filterPath("/Users", fmt.Sprintf("userName eq %q", p.name("nobody"))), "")
			if err != nil {
				return err
			}
			return Contains(a.body, map[string]any{"schemas": []any{listURN}, "totalResults": 0.0, "Resources": []any{}})
		}},
		{RFC, "a malformed filter is invalidFilter", func(p *probe) error {
			if err := p.needs("filter"); err != nil {
				return err
			}
			for _, filter := range []string{"userName eq", "userName foo \"x\"", "(userName pr", "active gt true"} {
				path := filterPath("/Users", filter)
				if err := p.refused(http.StatusBadRequest, "invalidFilter", http.MethodGet, path, ""); err != nil {
					return err
				}
			}
			return nil
		}},
		{RFC, "an attribute that is never returned cannot be filtered by", func(p *probe) error {
			path, name, err := p.user(`"password":"pr0be-Secret!"`)
			if err != nil {
				return err
			}
			a, err := p.do(http.MethodGet, filterPath("/Users", fmt.Sprintf(`userName eq %q and password sw "pr0be"`, name)), "")
			if err == nil && a.status == http.StatusOK && len(resourcesOf(a)) > 0 {
				err = fmt.Errorf("a filter on password selected %s", path)
			}
			return err
		}},
		{RFC, "index pages return each resource once and are clamped (section 3.4.2.4)", (*probe).pages},
		{RFC, "cursor pages return each resource once (RFC 9865)", (*probe).cursors},
		{RFC, "sortBy and sortOrder sort a list (section 3.4.2.3)", func(p *probe) error {
			if err := p.needs("sort"); err != nil {
				return err
			}
			prefix, err := p.three()
			if err != nil {
				return err
			}
			for order, want := range map[string]string{"ascending": "abc", "descending": "cba"} {
				got, err := p.names(filterPath("/Users",
					fmt.Sprintf("userName sw %q", prefix)) + "&sortBy=userName&sortOrder=" + order)
				if err != nil {
					return err
				}
				if strings.Join(got, "") != want {
					return fmt.Errorf("sortOrder=%s returned %v", order, got)
				}
			}
			return nil
		}},
		{RFC, "attributes and excludedAttributes select; id and schemas are kept (section 3.9)", func(p *probe) error {
			path, name, err := p.user(`"displayName":"Probe","name":{"givenName":"G","familyName":"F"}`)
			if err != nil {
				return err
			}
			for query, want := range map[string]map[string]any{
				"attributes=userName": {"userName": name, "displayName": Absent, "name": Absent},
				"attributes=name.givenName": {
					"userName": Absent, "name": map[string]any{"givenName": "G", "familyName": Absent},
				},
				"attributes=" + userURN + ":displayName": {"displayName": "Probe", "userName": Absent},
				"excludedAttributes=displayName,name.givenName": {
					"userName": name, "displayName": Absent,
					"name": map[string]any{"givenName": Absent, "familyName": "F"},
				},
				"excludedAttributes=id,schemas": {"userName": name},
			} {
				a, err := p.want(http.StatusOK, http.MethodGet, path+"?"+query, "")
				if err != nil {
					return err
				}
				want["id"] = idOf(path)
				if err := Contains(a.body, want); err != nil {
					return fmt.Errorf("%s: %w", query, err)
				}
				if _, ok := a.body["schemas"].([]any); !ok {
					return fmt.Errorf("%s: schemas is missing", query)
				}
			}
			return nil
		}},
		{RFC, "POST /.search runs the same query as a GET (section 3.4.3)", func(p *probe) error {
			_, name, err := p.user("")
			if err != nil {
				return err
			}
			body := fmt.Sprintf(`{"schemas":["urn:ietf:params:scim:api:messages:2.0:SearchRequest"],`+
				`"filter":"userName eq \"%s\"","attributes":["userName"]}`, name)
			want := map[string]any{"totalResults": 1.0, "Resources": []any{map[string]any{"userName": name}}}
			for _, path := range []string{"/Users/.search", "/.search"} {
				a, err := p.want(http.StatusOK, http.MethodPost, path, body)
				if err != nil {
					return err
				}
				if err := Contains(a.body, want); err != nil {
					return fmt.Errorf("%s: %w", path, err)
				}
			}
			return nil
		}},
	}...)
}

// three creates three users whose names end with b, c and a, in that order, and returns the
// prefix of the names.
func (p *probe) three() (prefix string, err error) {
	prefix = p.name("of-three")
	for _, letter := range []string{"b", "c", "a"} {
		body := fmt.Sprintf(`{"schemas":[%q],"userName":"%s%s"}`, userURN, prefix, letter)
		if _, _, err := p.create("/Users", body); err != nil {
			return "", err
		}
	}
	return prefix, nil
}

// names returns the last letters of the userNames in a list.
func (p *probe) names(path string) ([]string, error) {
	a, err := p.want(http.StatusOK, http.MethodGet, path, "")
	if err != nil {
		return nil, err
	}
	var names []string
	for _, r := range resourcesOf(a) {
		name, _ := r["userName"].(string)
		names = append(names, name[max(0, len(name)-1):])
	}
	return names, nil
}

func (p *probe) pages() error {
	prefix, err := p.three()
	if err != nil {
		return err
	}
	base := filterPath("/Users", fmt.Sprintf("userName sw %q", prefix))
	var met []string
	for _, start := range []string{"1", "2", "3"} {
		a, err := p.want(http.StatusOK, http.MethodGet, base+"&count=1&startIndex="+start, "")
		if err != nil {
			return err
		}
		if err := Contains(a.body, map[string]any{"totalResults": 3.0, "itemsPerPage": 1.0}); err != nil {
			return err
		}
		for _, r := range resourcesOf(a) {
			met = append(met, fmt.Sprint(r["userName"]))
		}
	}
	if slices.Sort(met); len(slices.Compact(met)) != 3 {
		return fmt.Errorf("three pages of one resource returned %v, want three different ones", met)
	}
	for query, want := range map[string]map[string]any{
		"&count=0": {"totalResults": 3.0}, "&count=-5": {"totalResults": 3.0},
		"&startIndex=0":   {"totalResults": 3.0, "itemsPerPage": 3.0},
		"&startIndex=-7":  {"totalResults": 3.0, "itemsPerPage": 3.0},
		"&startIndex=100": {"totalResults": 3.0, "Resources": []any{}},
	} {
		a, err := p.want(http.StatusOK, http.MethodGet, base+query, "")
		if err != nil {
			return err
		}
		if err := Contains(a.body, want); err != nil {
			return fmt.Errorf("%s: %w", query, err)
		}
	}
	return nil
}

func (p *probe) cursors() error {
	claims, _ := p.config["pagination"].(map[string]any)
	if claims["cursor"] != true {
		return &skip{"ServiceProviderConfig has no pagination.cursor"}
	}
	prefix, err := p.three()
	if err != nil {
		return err
	}
	base := filterPath("/Users", fmt.Sprintf("userName sw %q", prefix)) + "&count=2&cursor="
	met := map[string]bool{}
	cursor := ""
	for range 3 {
		a, err := p.want(http.StatusOK, http.MethodGet, base+url.QueryEscape(cursor), "")
		if err != nil {
			return err
		}
		for _, r := range resourcesOf(a) {
			met[fmt.Sprint(r["userName"])] = true
		}
		if cursor, _ = a.body["nextCursor"].(string); cursor == "" {
			break
		}
	}
	if len(met) != 3 || cursor != "" {
		return fmt.Errorf("pages of two returned %d of 3 resources; ended: %t", len(met), cursor == "")
	}
	return p.refused(http.StatusBadRequest, "invalidCursor", http.MethodGet, base+"nonsense", "")
}
