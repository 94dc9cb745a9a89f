package conformance

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
)

// filterCase is a filter and whether the probe's user matches it. {name}, {mark} and {user}
// are placeholders for the user's userName, its externalId and the URN of its schema.
type filterCase struct {
	filter  string
	matches bool
}

// filterGroups groups the filters by feature, so that one fault of a provider fails one check.
// Only the cases of the first group differ in case from the stored values.
var filterGroups = []struct {
	name  string
	cases []filterCase
}{
	{"names and values compare without case where the schema says so", []filterCase{
		{`userName eq "{NAME}"`, true},
		{`displayName eq "probe one"`, true},
		{`DISPLAYNAME co "OBE"`, true},
		{`displayName ew "ONE"`, true},
		{`name.familyName eq "fam"`, true},
		{`emails.value eq "W@probe.example"`, true},
	}},
	{"eq", []filterCase{
		{`displayName eq "Probe One"`, true},
		{`displayName eq "Probe"`, false},
		{`name.familyName eq "Fam"`, true},
		{`externalId eq "{mark}"`, true},
	}},
	{"ne", []filterCase{{`displayName ne "Probe One"`, false}, {`displayName ne "other"`, true}}},
	{"co", []filterCase{{`displayName co "obe"`, true}, {`displayName co "xyz"`, false}}},
	{"sw", []filterCase{{`displayName sw "Pro"`, true}, {`displayName sw "robe"`, false}}},
	{"ew", []filterCase{{`displayName ew "One"`, true}, {`displayName ew "On"`, false}}},
	{"pr", []filterCase{{`displayName pr`, true}, {`nickName pr`, false}}},
	{"names with their schema's URN", []filterCase{
		{`{user}:displayName pr`, true}, {`{user}:displayName eq "Probe"`, false},
	}},
	{"meta.resourceType", []filterCase{{`meta.resourceType eq "User"`, true}, {`meta.resourceType eq "Group"`, false}}},
	{"gt, ge, lt and le", []filterCase{
		{`userName ge "leaver"`, true},
		{`userName lt "leaver"`, false},
		{`meta.lastModified gt "2001-01-01T00:00:00Z"`, true},
		{`meta.created le "2001-01-01T00:00:00Z"`, false},
	}},
	{"booleans", []filterCase{{`active eq true`, true}, {`active eq false`, false}}},
	{"and, or, not and grouping", []filterCase{
		{`(nickName pr or displayName pr)`, true},
		{`(nickName pr and displayName pr)`, false},
		{`not (active eq true)`, false},
	}},
	{"a multi-valued attribute without its sub-attribute", []filterCase{{`emails eq "h@probe.example"`, true}}},
	{"sub-attributes of multi-valued attributes", []filterCase{
		{`emails.value eq "w@probe.example"`, true}, {`emails.type eq "other"`, false},
	}},
	{"value filters", []filterCase{
		{`emails[type eq "work" and value co "h@"]`, false}, {`emails[type eq "home" and value co "h@"]`, true},
	}},
}

// filterChecks returns one check for each group (RFC 7644 section 3.4.2.2).
func filterChecks() []check {
	var checks []check
	for _, g := range filterGroups {
		checks = append(checks, check{RFC, "filter: " + g.name, func(p *probe) error { return p.filters(g.cases) }})
	}
	return checks
}

func (p *probe) filters(cases []filterCase) error {
	if err := p.needs("filter"); err != nil {
		return err
	}
	if err := p.makeFiltered(); err != nil {
		return err
	}
	replace := strings.NewReplacer("{name}", p.filtered, "{NAME}", strings.ToUpper(p.filtered), "{mark}", p.mark,
		"{user}", userURN)
	var wrong []error
	for _, c := range cases {
		filter := replace.Replace(c.filter)
		query := filter
		if !strings.HasPrefix(filter, "userName eq") { // selects the user without a further condition
			query = fmt.Sprintf("userName eq %q and %s", p.filtered, filter)
		}
		a, err := p.want(http.StatusOK, http.MethodGet, filterPath("/Users", query), "")
		if err != nil {
			wrong = append(wrong, fmt.Errorf("%s: %w", filter, err))
		} else if (len(resourcesOf(a)) == 1) != c.matches {
			wrong = append(wrong, fmt.Errorf("%s selects %d resources", filter, len(resourcesOf(a))))
		}
	}
	return errors.Join(wrong...)
}

// makeFiltered creates the user that all filters test, once.
func (p *probe) makeFiltered() error {
	if p.filtered != "" {
		return nil
	}
	_, name, err := p.user(`"displayName":"Probe One","active":true,"externalId":"` + p.mark + `",` +
		`"name":{"familyName":"Fam"},` +
		`"emails":[{"type":"work","value":"w@probe.example"},{"type":"home","value":"h@probe.example"}]`)
	p.filtered = name
	return err
}
