package rest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"cel.dev/cel-go/cel"
	yaml "go.yaml.in/yaml/v3"

	"github.com/leaverhq/leaver/activities/connectors"
)

// Definition describes the connectors of one type: how a downstream's API is called, and what its answers mean.
type Definition struct {
	Name          string // the connector's type
	Title         string
	Documentation string // the URL of the vendor's documentation
	Kinds         []connectors.Kind
	Reference     string   // what the reference is, for operators
	Parts         []string // of the reference, separated by slashes; one part is the whole reference
	Numbers       []string // parts that are whole numbers
	UUIDs         []string // parts that are UUIDs, which are compared in lower case
	Settings      []Setting
	Needs         string // the rights that the operations need
	Limits        string // what the connector cannot end
	Mints         bool   // whether other credentials are issued with those that it ends

	auth       *auth
	operations map[string]*operation
	texts      []string // names that expressions may use
	bases      []string // the settings that URLs begin with
}

// Setting is a setting of the connectors of a definition.
type Setting struct {
	Name        string
	Description string
	Default     string
	Required    bool
	Secret      bool
	// Scope is set if the setting divides the accounts of the downstream, such as an organisation: two connectors
	// with different values never reach the same account.
	Scope bool
}

// The operations.
const (
	opRevoke   = "revoke"
	opCancel   = "cancel"
	opBlock    = "block"
	opUnblock  = "unblock"
	opProbe    = "probe"
	opProve    = "prove"
	opPossess  = "possess"
	opRenew    = "renew"
	opRetire   = "retire"
	opLookup   = "lookup"
	opDiscover = "discover"
	opIssue    = "issue"
	opRemove   = "remove"
	opCheck    = "check"
)

// operationNames returns the names of all operations, in the order in which a cascade uses them.
func operationNames() []string {
	return []string{
		opRevoke, opCancel, opPossess, opRenew, opRetire, opBlock, opUnblock, opProbe, opProve, opLookup, opDiscover, opIssue,
		opRemove, opCheck,
	}
}

// Gone returns the conditions, in CEL, under which the answer to an end means that there was nothing left to end.
func (d *Definition) Gone() []string { return d.conditions(meansGone, opRevoke, opCancel) }

// Dead returns the conditions, in CEL, under which a probe or a proof sees that the credential is dead.
func (d *Definition) Dead() []string { return d.conditions(meansDead, opProbe, opProve) }

func (d *Definition) conditions(of meaning, operations ...string) (texts []string) {
	for _, name := range operations {
		if d.operations[name] == nil {
			continue
		}
		for _, a := range d.operations[name].answers {
			if a.means == of {
				texts = append(texts, a.when.node.Value)
			}
		}
	}
	return texts
}

// Operations returns the names of the definition's operations, in the order in which a cascade uses them.
func (d *Definition) Operations() []string {
	return slices.DeleteFunc(operationNames(), func(name string) bool { return d.operations[name] == nil })
}

// The names that every template may use, besides settings and the parts of the reference.
const (
	nameReference = "reference"
	nameSecret    = "secret"
	namePrincipal = "principal"
	nameDrill     = "drill"    // in issue and remove: the name of the drill's credential
	nameRotation  = "rotation" // in renew: the id of the rotation
)

// AllowHTTP is the setting, of every definition, that permits http to hosts other than loopback.
const AllowHTTP = "allow_http"

var (
	validType = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,39}$`)
	validName = regexp.MustCompile(`^[a-z][a-z0-9_]{0,39}$`)
)

// maxDefinition bounds a definition, in bytes.
const maxDefinition = 64 << 10

// Parse reads a definition. Its errors are of type [Error].
func Parse(file string, raw []byte) (*Definition, error) {
	d, err := parse(raw)
	var mistake *Error
	if errors.As(err, &mistake) {
		mistake.File = file
	}
	return d, err
}

func parse(raw []byte) (*Definition, error) {
	if len(raw) > maxDefinition {
		return nil, &Error{Line: 1, Column: 1, Reason: "a definition has at most 64 KiB"}
	}
	var root yaml.Node
	decoder := yaml.NewDecoder(bytes.NewReader(raw))
	if err := decoder.Decode(&root); err != nil && !errors.Is(err, io.EOF) {
		return nil, &Error{Line: lineOf(err), Column: 1, Reason: "not valid YAML: " + err.Error()}
	}
	var second yaml.Node
	if err := decoder.Decode(&second); !errors.Is(err, io.EOF) && (err != nil || second.Content[0].Tag != "!!null") {
		return nil, &Error{
			Line: max(1, second.Line), Column: 1, Reason: "a file has one definition: a second document begins here",
		}
	}
	if root.Kind != yaml.DocumentNode {
		return nil, &Error{Line: 1, Column: 1, Reason: "the definition is empty"}
	}
	document := root.Content[0]
	d := &Definition{Parts: []string{nameReference}, operations: make(map[string]*operation)}
	var authNode, operations *yaml.Node
	keep := func(into **yaml.Node) func(*yaml.Node) error {
		return func(n *yaml.Node) error { *into = n; return nil }
	}
	err := decodeFields(document, fields{
		"name": scalar(&d.Name), "title": scalar(&d.Title), "documentation": scalar(&d.Documentation),
		"kinds": d.decodeKinds, "reference": scalar(&d.Reference), "parts": d.decodeParts,
		"numbers": d.decodeSomeParts(&d.Numbers), "uuids": d.decodeSomeParts(&d.UUIDs),
		"settings": d.decodeSettings,
		"needs":    scalar(&d.Needs), "limits": scalar(&d.Limits), "mints": boolean(&d.Mints), "auth": keep(&authNode),
		"operations": keep(&operations),
	})
	switch {
	case err != nil:
		return nil, err
	case !validType.MatchString(d.Name):
		return nil, at(document, "name must be 1 to 40 characters of a-z, 0-9 and '-', got %q", d.Name)
	case d.Title == "" || d.Reference == "" || len(d.Kinds) == 0:
		return nil, at(document, "title, reference and kinds are required")
	case operations == nil:
		return nil, at(document, "operations are required")
	}
	return d, d.compile(authNode, operations)
}

// compile reads what refers to the settings and to the parts of the reference.
func (d *Definition) compile(authNode, operations *yaml.Node) error {
	in := scope{
		names:   map[string]bool{nameReference: true, nameSecret: true, namePrincipal: true},
		secrets: map[string]bool{nameSecret: true},
		targets: map[string]bool{nameReference: true, nameSecret: true, namePrincipal: true},
	}
	d.texts = append(d.settingTexts(), nameReference, namePrincipal)
	for _, s := range d.Settings {
		in.names[s.Name], in.secrets[s.Name] = true, s.Secret
	}
	for _, part := range d.Parts {
		if slices.ContainsFunc(d.Settings, func(s Setting) bool { return s.Name == part }) {
			return at(operations, "%s is both a setting and a part of the reference: rename one", part)
		}
		in.names[part], in.targets[part] = true, true
		if part != nameReference {
			d.texts = append(d.texts, part)
		}
	}
	env, err := newEnv(d.texts)
	if err != nil {
		return at(operations, "%v", err)
	}
	if authNode != nil {
		if d.auth, err = parseAuth(authNode, in); err != nil {
			return err
		}
	}
	if err := eachMember(operations, func(key, value *yaml.Node) error {
		o, err := d.parseOperation(key, value, in, env)
		d.operations[key.Value] = o
		return err
	}); err != nil {
		return err
	}
	return d.checkOperations(operations)
}

// checkOperations returns an error if operations lack others that they need.
func (d *Definition) checkOperations(operations *yaml.Node) error {
	if d.operations[opRevoke] == nil && d.operations[opCancel] == nil {
		return at(operations, "an operation revoke or cancel is required")
	}
	for _, kind := range d.Kinds {
		end := opRevoke
		if kind == connectors.ScheduledRun {
			end = opCancel
		}
		if d.operations[end] == nil {
			return at(operations, "an operation %s is required, which ends what is of the kind %s", end, kind)
		}
	}
	if revoke := d.operations[opRevoke]; revoke != nil && revoke.settles > 0 && d.operations[opProbe] == nil {
		return at(operations, "settles needs a probe, which shows when the end has taken effect")
	}
	if d.operations[opRemove] != nil && d.operations[opIssue] == nil {
		return at(operations, "remove is for what issue has created, which is missing")
	}
	if discover := d.operations[opDiscover]; d.operations[opLookup] != nil &&
		(discover == nil || !discover.request.names(namePrincipal)) {
		return at(operations, "lookup is for a discover whose request has {principal}")
	}
	return d.checkRotation(operations)
}

// settingTexts returns the names of the settings that are not secret.
func (d *Definition) settingTexts() (texts []string) {
	for _, s := range d.Settings {
		if !s.Secret {
			texts = append(texts, s.Name)
		}
	}
	return texts
}

func (d *Definition) decodeKinds(n *yaml.Node) error {
	return each(n, func(n *yaml.Node) error {
		kind := connectors.Kind(n.Value)
		if !slices.Contains(connectors.Kinds(), kind) {
			return at(n, "kind must be one of %v, got %q", connectors.Kinds(), n.Value)
		}
		d.Kinds = append(d.Kinds, kind)
		return nil
	})
}

func (d *Definition) decodeParts(n *yaml.Node) error {
	d.Parts = nil
	err := each(n, func(n *yaml.Node) error {
		if !validName.MatchString(n.Value) || reserved(n.Value) || slices.Contains(d.Parts, n.Value) {
			return at(n, "a part is a name of a-z, 0-9 and _ (no other characters) that is not used otherwise, got %q", n.Value)
		}
		d.Parts = append(d.Parts, n.Value)
		return nil
	})
	if err == nil && len(d.Parts) == 0 {
		err = at(n, "must not be empty")
	}
	return err
}

// decodeSomeParts returns the decoder of a list of parts.
func (d *Definition) decodeSomeParts(into *[]string) func(n *yaml.Node) error {
	return func(n *yaml.Node) error {
		return each(n, func(n *yaml.Node) error {
			if !slices.Contains(d.Parts, n.Value) {
				return at(n, "numbers and uuids are parts of the reference, after parts, or reference, got %q", n.Value)
			}
			*into = append(*into, n.Value)
			return nil
		})
	}
}

// reserved reports whether a name has a meaning of its own in templates or expressions.
func reserved(name string) bool {
	return slices.Contains([]string{
		nameReference, nameSecret, namePrincipal, nameDrill, nameRotation, AllowHTTP, "status", "headers", "body", "item",
		"true", "false", "null", "in",
	}, name)
}

func (d *Definition) decodeSettings(n *yaml.Node) error {
	return eachMember(n, func(key, value *yaml.Node) error {
		s := Setting{Name: key.Value}
		taken := slices.ContainsFunc(d.Settings, func(o Setting) bool { return o.Name == s.Name })
		taken = taken || slices.Contains(connectors.CommonSettings(), s.Name)
		if !validName.MatchString(s.Name) || reserved(s.Name) || taken {
			return at(key, "a setting is a name of a-z, 0-9 and _ (no other characters) that is not used otherwise, got %q",
				s.Name)
		}
		err := decodeFields(value, fields{
			"description": scalar(&s.Description), "default": scalar(&s.Default), "required": boolean(&s.Required),
			"secret": boolean(&s.Secret), "scope": boolean(&s.Scope),
		})
		switch {
		case err != nil:
			return err
		case s.Secret && s.Default != "":
			return at(value, "a secret has no default")
		case s.Secret && s.Scope:
			return at(value, "a secret cannot be a scope")
		case s.Required && s.Default != "":
			return at(value, "a required setting has no default")
		}
		d.Settings = append(d.Settings, s)
		return nil
	})
}

// operation is one operation of a definition.
type operation struct {
	request  request
	answers  []answer
	discover *discovery
	id       *expression   // of lookup: the downstream's ids of the principals that have the name
	bulk     bulk          // of revoke
	settles  time.Duration // of revoke: how long a confirmed end may take to take effect
	issued   *issued       // of issue and renew
}

// answer is a condition on a downstream's answer, and what it means.
type answer struct {
	when   *expression
	means  meaning
	reason string
}

// meaning is what an answer means.
type meaning string

// The meanings.
const (
	meansDone      meaning = "done"
	meansGone      meaning = "gone"
	meansExpires   meaning = "expires"
	meansAlive     meaning = "alive"
	meansDead      meaning = "dead"
	meansUnknown   meaning = "unknown"
	meansRetry     meaning = "retry"
	meansPermanent meaning = "permanent"
)

// concludes reports whether the meaning is a result. An answer that the downstream did not handle has none, for any
// body.
func (m meaning) concludes() bool {
	return !slices.Contains([]meaning{meansRetry, meansPermanent, meansUnknown}, m)
}

// meaningsOf returns the meanings that the answers of an operation may have.
func meaningsOf(operation string) []meaning {
	switch operation {
	case opProbe, opProve, opPossess:
		return []meaning{meansAlive, meansDead, meansUnknown, meansRetry, meansPermanent}
	case opDiscover, opIssue, opCheck:
		return []meaning{meansDone, meansRetry, meansPermanent}
	case opBlock, opUnblock, opRemove, opRenew, opRetire, opLookup:
		return []meaning{meansDone, meansGone, meansRetry, meansPermanent}
	}
	return []meaning{meansDone, meansGone, meansExpires, meansRetry, meansPermanent}
}

// resultMember returns the member of an operation that says where its result is in the answer; empty for none.
func resultMember(operation string) string {
	return map[string]string{opDiscover: "found", opLookup: "id", opIssue: "issued", opRenew: "renewed"}[operation]
}

// of returns the scope of an operation. Those that are about no credential have no parts of a reference.
func (in scope) of(operation string, parts []string) scope {
	target := append(slices.Clone(parts), nameReference, nameSecret)
	switch operation {
	case opDiscover, opLookup:
		return in.without(target...)
	case opIssue:
		return in.without(target...).with(nameDrill)
	case opRemove:
		return in.without(append(target, namePrincipal)...).with(nameDrill)
	case opCheck:
		return in.without(append(target, namePrincipal)...)
	case opRenew:
		return in.without(nameSecret).with(nameRotation)
	}
	return in
}

func (d *Definition) parseOperation(key, value *yaml.Node, in scope, env *cel.Env) (*operation, error) {
	if !slices.Contains(operationNames(), key.Value) {
		return nil, at(key, "unknown operation %q; known are %s", key.Value, strings.Join(operationNames(), ", "))
	}
	o := &operation{}
	var requestNode, answers, resultNode *yaml.Node
	keep := func(into **yaml.Node) func(*yaml.Node) error {
		return func(n *yaml.Node) error { *into = n; return nil }
	}
	members := fields{"request": keep(&requestNode), "answers": keep(&answers)}
	member := resultMember(key.Value)
	if member != "" {
		members[member] = keep(&resultNode)
	}
	if key.Value == opRevoke {
		members["batch"], members["each"] = o.bulk.decodeBatch, o.bulk.decodeEach(d.settingTexts())
		members["settles"] = duration(&o.settles)
	}
	err := decodeFields(value, members)
	switch {
	case err != nil:
		return nil, err
	case requestNode == nil || answers == nil:
		return nil, at(key, "request and answers are required")
	case member != "" && resultNode == nil:
		return nil, at(key, "%s for %s is required", member, key.Value)
	}
	in = in.of(key.Value, d.Parts)
	if o.request, err = d.parseRequest(requestNode, in); err != nil {
		return nil, err
	}
	if err := o.bulk.check(requestNode, &o.request, in.targets); err != nil {
		return nil, err
	}
	if o.answers, err = parseAnswers(answers, key.Value, env); err != nil {
		return nil, err
	}
	if err := o.bulk.checkAnswers(o.answers); err != nil {
		return nil, err
	}
	return o, d.parseResult(o, key.Value, resultNode, env)
}

// parseResult reads where the result of an operation is in its answer.
func (d *Definition) parseResult(o *operation, operation string, n *yaml.Node, env *cel.Env) (err error) {
	switch operation {
	case opDiscover:
		if o.discover, err = parseDiscovery(n, env); err == nil {
			err = d.checkKind(n, o.discover.kind)
		}
	case opLookup:
		o.id, err = compile(env, n)
	case opIssue:
		if o.issued, err = parseIssued(n, operation, env); err == nil {
			err = d.checkKind(n, o.issued.kind)
		}
	case opRenew:
		o.issued, err = parseIssued(n, operation, env)
	}
	return err
}

// checkKind returns an error unless a kind is one of the definition's.
func (d *Definition) checkKind(n *yaml.Node, kind connectors.Kind) error {
	if slices.Contains(d.Kinds, kind) {
		return nil
	}
	return at(n, "kind must be one of the definition's kinds, %v, got %q", d.Kinds, kind)
}

// with returns the scope with one more name.
func (in scope) with(name string) scope {
	in.names = maps.Clone(in.names)
	in.names[name] = true
	return in
}

// without returns the scope without some names.
func (in scope) without(names ...string) scope {
	out := scope{maps.Clone(in.names), in.secrets, in.targets, names}
	for _, name := range names {
		delete(out.names, name)
	}
	return out
}

// parseAnswers reads the answers of an operation. One that can never apply is an error.
func parseAnswers(n *yaml.Node, operation string, env *cel.Env) ([]answer, error) {
	var answers []answer
	covered := make(map[int]int) // the lines of earlier answers that take a status whatever else the response has
	err := each(n, func(n *yaml.Node) error {
		var a answer
		var text string
		if err := decodeFields(n, fields{
			"when":  func(n *yaml.Node) (err error) { a.when, err = compileCondition(env, n); return err },
			"means": scalar(&text), "reason": scalar(&a.reason),
		}); err != nil {
			return err
		}
		a.means = meaning(text)
		switch {
		case a.when == nil || a.means == "":
			return at(n, "when and means are required")
		case !slices.Contains(meaningsOf(operation), a.means):
			return at(n, "an answer of %s means one of %v, got %q", operation, meaningsOf(operation), a.means)
		case a.means == meansPermanent && a.reason == "":
			return at(n, "a permanent answer needs a reason, which tells the operator what to do")
		}
		answers = append(answers, a)
		return a.checkStatuses(covered)
	})
	if err == nil && len(answers) == 0 {
		err = at(n, "must not be empty")
	}
	return answers, err
}

// checkStatuses checks a condition that is about the status only: some answer must reach it, and a status that says
// that the downstream has not done anything must not be a success. It adds the statuses to those that are covered.
func (a answer) checkStatuses(covered map[int]int) error {
	if a.when.statuses == nil {
		return nil
	}
	earlier, reached := 0, false
	for status := range a.when.statuses {
		if line, taken := covered[status]; taken {
			earlier = line
			continue
		}
		reached, covered[status] = true, a.when.node.Line
		if a.means.concludes() && (status/100 == 3 || status == http.StatusTooManyRequests ||
			status >= http.StatusInternalServerError) {
			return at(a.when.node, "%s is true for the status %d, which cannot mean %s", a.when.node.Value, status, a.means)
		}
	}
	switch {
	case reached:
		return nil
	case earlier > 0:
		return at(a.when.node, "no answer can match %s here: the answer on line %d takes it before",
			a.when.node.Value, earlier)
	}
	return at(a.when.node, "no answer can match %s here: it is true for no status", a.when.node.Value)
}

// lineOf returns the line that a YAML error names, or 1.
func lineOf(err error) int {
	line := 1
	if _, text, ok := strings.Cut(err.Error(), "line "); ok {
		_, _ = fmt.Sscanf(text, "%d", &line) // 1 for another text
	}
	return line
}
