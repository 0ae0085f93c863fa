package gateway

import (
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"maps"
	"math"
	"mime"
	"net/http"
	"net/http/httptest"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/headgate/headgate/emulator"
	"github.com/headgate/headgate/internal/config"
	"github.com/headgate/headgate/internal/keys"
)

// node is a part of an OpenAPI document.
type node map[string]any

func (n node) at(name string) node {
	m, _ := n[name].(map[string]any)
	return m
}

// openAPI is docs/openapi.yaml.
type openAPI struct{ node }

func readOpenAPI(t *testing.T) openAPI {
	t.Helper()
	text, err := os.ReadFile("../../docs/openapi.yaml")
	must(t, err)
	var doc map[string]any
	must(t, yaml.Unmarshal(text, &doc))
	// Through JSON, so that numbers are of one kind.
	text, err = json.Marshal(doc)
	must(t, err)
	must(t, json.Unmarshal(text, &doc))
	return openAPI{doc}
}

// follow follows a reference, if n is one.
func (d openAPI) follow(n node) node {
	ref, ok := n["$ref"].(string)
	if !ok {
		return n
	}
	to := d.node
	for name := range strings.SplitSeq(strings.TrimPrefix(ref, "#/"), "/") {
		to = to.at(name)
	}
	if to == nil {
		panic("the document has no " + ref)
	}
	return to
}

var methods = []string{"GET", "POST", "PUT", "PATCH", "DELETE"}

// operations are those of the document, as "METHOD /path".
func (d openAPI) operations() (list []string) {
	for path, item := range d.at("paths") {
		for method := range item.(map[string]any) {
			if method = strings.ToUpper(method); slices.Contains(methods, method) {
				list = append(list, method+" "+path)
			}
		}
	}
	slices.Sort(list)
	return list
}

func (d openAPI) operation(name string) node {
	method, path, _ := strings.Cut(name, " ")
	return d.at("paths").at(path).at(strings.ToLower(method))
}

// schemaWords are the keywords that fits knows; the others say nothing about what
// fits.
var schemaWords = []string{"type", "enum", "required", "properties", "additionalProperties", "items", "minimum", "maximum", "format", "description"}

// fits says what is wrong with v, nil if it fits the schema.
func (d openAPI) fits(schema node, v any, at string) error {
	schema = d.follow(schema)
	for word := range schema {
		if !slices.Contains(schemaWords, word) {
			return fmt.Errorf("%s: the schema's %q is not known to this test", at, word)
		}
	}
	if kinds, ok := schema["type"]; ok && !isOf(kinds, v) {
		return fmt.Errorf("%s: %v is no %v", at, v, kinds)
	}
	if enum, ok := schema["enum"].([]any); ok && !slices.Contains(enum, v) {
		return fmt.Errorf("%s: %v is none of %v", at, v, enum)
	}
	switch v := v.(type) {
	case map[string]any:
		return d.fitsObject(schema, v, at)
	case []any:
		for i, e := range v {
			if err := d.fits(schema.at("items"), e, fmt.Sprintf("%s[%d]", at, i)); err != nil {
				return err
			}
		}
	case float64:
		if least, ok := schema["minimum"].(float64); ok && v < least {
			return fmt.Errorf("%s: %v is less than %v", at, v, least)
		}
		if most, ok := schema["maximum"].(float64); ok && v > most {
			return fmt.Errorf("%s: %v is more than %v", at, v, most)
		}
	case string:
		if schema["format"] == "date-time" {
			if _, err := time.Parse(time.RFC3339, v); err != nil {
				return fmt.Errorf("%s: %w", at, err)
			}
		}
	}
	return nil
}

func (d openAPI) fitsObject(schema node, v map[string]any, at string) error {
	required, _ := schema["required"].([]any)
	for _, name := range required {
		if _, ok := v[name.(string)]; !ok {
			return fmt.Errorf("%s: lacks %v", at, name)
		}
	}
	for name, e := range v {
		under, known := schema.at("properties")[name].(map[string]any)
		switch others := schema["additionalProperties"].(type) {
		case map[string]any:
			if !known {
				under = others
			}
		case bool:
			if !known && !others {
				return fmt.Errorf("%s: %s is not in the document", at, name)
			}
		}
		if err := d.fits(under, e, at+"."+name); err != nil {
			return err
		}
	}
	return nil
}

// isOf reports whether v is of one of the kinds.
func isOf(kinds, v any) bool {
	if list, ok := kinds.([]any); ok {
		return slices.ContainsFunc(list, func(kind any) bool { return isOf(kind, v) })
	}
	switch v := v.(type) {
	case nil:
		return kinds == "null"
	case bool:
		return kinds == "boolean"
	case string:
		return kinds == "string"
	case float64:
		return kinds == "number" || kinds == "integer" && v == math.Trunc(v)
	case []any:
		return kinds == "array"
	default:
		return kinds == "object"
	}
}

// check compares an answer with what the document says of the operation, and
// returns under which of its statuses it is.
func (d openAPI) check(operation string, a answerTo) (status string, err error) {
	responses := d.operation(operation).at("responses")
	status = strconv.Itoa(a.status)
	if _, ok := responses[status]; !ok {
		if status = "default"; a.status < 400 {
			return status, fmt.Errorf("%d is not in the document", a.status)
		}
	}
	response := d.follow(responses.at(status))
	for name, header := range response.at("headers") {
		h := d.follow(header.(map[string]any))
		value, there := a.header[http.CanonicalHeaderKey(name)]
		if !there && h["required"] == true {
			return status, fmt.Errorf("lacks the field %s", name)
		}
		if there {
			if err := d.fits(h.at("schema"), value[0], name); err != nil {
				return status, err
			}
		}
	}
	content := response.at("content")
	if content == nil {
		return status, nil
	}
	kind, _, _ := mime.ParseMediaType(a.header.Get("Content-Type"))
	if content[kind] == nil {
		return status, fmt.Errorf("answered with %q, which is not in the document: %s", kind, a.body)
	}
	var v any = a.body
	if strings.HasSuffix(kind, "json") {
		v = nil
		if err := json.Unmarshal([]byte(a.body), &v); err != nil {
			return status, err
		}
	}
	return status, d.fits(content.at(kind).at("schema"), v, "body")
}

// Each operation of docs/openapi.yaml answers as it says there, in good times and
// in bad ones, and nothing else is answered.
func TestOpenAPI(t *testing.T) {
	doc := readOpenAPI(t)
	b := newBench(t, plan{emulator: emulator.Config{Script: []emulator.Fault{{Kind: emulator.CutAfter, Match: "/api/v2/architect/flows/lost/execute"}}}})
	left := map[string]bool{} // of operation and status, those that were not seen
	for _, op := range doc.operations() {
		for status := range doc.operation(op).at("responses") {
			left[op+" "+status] = true
		}
	}
	seen := func(operation string, a answerTo) answerTo {
		t.Helper()
		status, err := doc.check(operation, a)
		if err != nil {
			t.Errorf("%s: answered %d: %v", operation, a.status, err)
		}
		delete(left, operation+" "+status)
		return a
	}
	do := func(operation, path, body string, fields ...string) answerTo {
		t.Helper()
		method, _, _ := strings.Cut(operation, " ")
		return seen(operation, b.do(method, path, body, fields...))
	}

	const form = "Content-Type: application/x-www-form-urlencoded"
	do("POST /oauth/token", "/oauth/token", "grant_type=client_credentials&client_id=a&client_secret=b", form)
	do("POST /oauth/token", "/acme/login/oauth/token", "grant_type=client_credentials&client_id=a&client_secret=b", form)
	do("POST /oauth/token", "/oauth/token", "grant_type=password", form)
	do("POST /oauth/token", "/oauth/token", "grant_type=client_credentials", form)
	do("POST /oauth/token", "/oauth/token", "", "Upgrade: websocket", "Connection: upgrade")

	for _, method := range methods {
		// The emulator knows the path with POST alone: its 404 and 405 are the
		// platform's own, and have no type of ours.
		op := method + " /api/{path}"
		a := b.do(method, executePath, body(1))
		if a.header.Get("Headgate-Attempts") != "1" || a.header.Get("Content-Type") == "application/problem+json" {
			t.Errorf("%s: answered %d %v", op, a.status, a.header)
		}
		a.status = http.StatusOK // what the document says of the platform's answers
		seen(op, a)
		do(op, executePath, body(2), "Prefer: respond-async")
		do(op, executePath, body(2), "Priority: u=1", "Headgate-Delivery: perhaps")
	}

	const executions = "/headgate/v1/executions"
	x := do("POST /api/{path}", executePath, body(3), "Prefer: respond-async", "Idempotency-Key: k", "Headgate-Deadline: 600", "Headgate-Delivery: at-most-once").execution(t)
	do("GET /headgate/v1/executions/{id}", x.Self, "", "Prefer: wait=30")
	do("GET /headgate/v1/executions/{id}", x.Self, "", "Accept: text/event-stream")
	do("GET /headgate/v1/executions/{id}", executions+"/acme.999", "")
	do("GET /headgate/v1/executions/{id}/answer", x.Self+"/answer", "")
	do("GET /headgate/v1/executions/{id}/answer", executions+"/acme.x/answer", "")
	do("DELETE /headgate/v1/executions/{id}", x.Self, "")
	do("GET /headgate/v1/executions", executions, "")
	do("GET /headgate/v1/executions", executions+"?org=acme&state=done,failed&caller=anonymous&limit=1&order=oldest&after=acme.1", "")
	do("GET /headgate/v1/executions", executions+"?colour=red", "")

	const resolve = "POST /headgate/v1/executions/{id}/resolve"
	lost := do("POST /api/{path}", "/api/v2/architect/flows/lost/execute", body(4), "Prefer: respond-async", "Headgate-Delivery: at-most-once").execution(t)
	if v := do("GET /headgate/v1/executions/{id}", lost.Self, "", "Prefer: wait=30").execution(t); v.State != "unknown" {
		t.Errorf("it is %s", v.State)
	}
	do("GET /headgate/v1/executions/{id}/answer", lost.Self+"/answer", "")
	do(resolve, lost.Self+"/resolve", `{"action":"shrug"}`, "Content-Type: application/json")
	do(resolve, lost.Self+"/resolve", `{"action":"give-up"}`, "Content-Type: application/json")

	do("POST /headgate/v1/orgs/{org}/pause", "/headgate/v1/orgs/acme/pause", "")
	do("POST /headgate/v1/orgs/{org}/pause", "/headgate/v1/orgs/nobody/pause", "")
	queued := do("POST /api/{path}", executePath, body(5), "Prefer: respond-async").execution(t)
	do("GET /headgate/v1/executions/{id}", queued.Self, "")
	do("GET /headgate/v1/orgs", "/headgate/v1/orgs", "")
	do("GET /headgate/v1/orgs/{org}", "/headgate/v1/orgs/acme", "")
	do("GET /headgate/v1/orgs/{org}", "/headgate/v1/orgs/nobody", "")
	do("DELETE /headgate/v1/executions/{id}", queued.Self, "")
	do("POST /headgate/v1/orgs/{org}/resume", "/headgate/v1/orgs/acme/resume", "")
	do("POST /headgate/v1/orgs/{org}/resume", "/headgate/v1/orgs/nobody/resume", "")

	do("GET /headgate/v1/problems/{name}", "/headgate/v1/problems/limit", "")
	do("GET /headgate/v1/problems/{name}", "/headgate/v1/problems/toothache", "")
	do("GET /headgate/", "/headgate/", "")
	do("GET /headgate/login", "/headgate/login", "")
	do("POST /headgate/session", "/headgate/session", "key=none", form)
	do("DELETE /headgate/session", "/headgate/session", "")
	for _, op := range []string{"GET /headgate/", "GET /headgate/login", "POST /headgate/session", "DELETE /headgate/session", "GET /", "GET /healthz", "GET /readyz", "GET /metrics"} {
		_, path, _ := strings.Cut(op, " ")
		do(op, path, "")
		do(op, path, "", "Upgrade: websocket", "Connection: upgrade")
	}
	do("GET /metrics", "/metrics", "", "Accept: application/openmetrics-text;version=1.0.0")

	// With keys: who has none hears so.
	key, hash := keys.New()
	keyed := newBench(t, plan{change: func(f *config.File) { f.Operators = []config.Operator{{Name: "ada", Key: hash}} }})
	for _, op := range []string{"GET /headgate/v1/orgs", "GET /headgate/v1/executions", "GET /readyz"} {
		_, path, _ := strings.Cut(op, " ")
		seen(op, keyed.do("GET", path, ""))
		seen(op, keyed.do("GET", path, "", "Authorization: Bearer "+key))
	}

	// When it stops.
	b.end()
	r := httptest.NewRecorder()
	b.g.ServeHTTP(r, httptest.NewRequest("GET", "/readyz", nil))
	text, _ := io.ReadAll(r.Body)
	seen("GET /readyz", answerTo{r.Code, r.Header(), string(text)})

	for _, op := range slices.Sorted(maps.Keys(left)) {
		t.Errorf("was never answered: %s", op)
	}
}

// Methods that are not in the document are refused, with a list of those that are.
func TestOpenAPIMethods(t *testing.T) {
	doc := readOpenAPI(t)
	b := newBench(t, plan{})
	x := b.do("POST", executePath, body(1), "Prefer: respond-async").execution(t)
	fill := strings.NewReplacer("{id}", x.ID, "{org}", "acme", "{name}", "limit")
	for path, item := range doc.at("paths") {
		if path == "/" || path == "/headgate/" || strings.HasPrefix(path, "/api/") {
			continue // a redirect, the page, the platform's own affair
		}
		var want []string
		for _, method := range methods {
			if item.(map[string]any)[strings.ToLower(method)] != nil {
				want = append(want, method)
			}
		}
		for _, method := range methods {
			if slices.Contains(want, method) {
				continue
			}
			a := b.do(method, fill.Replace(path), "")
			got := slices.DeleteFunc(strings.Split(a.header.Get("Allow"), ", "), func(m string) bool { return m == "HEAD" })
			slices.Sort(got)
			slices.Sort(want)
			if a.status != http.StatusMethodNotAllowed || !slices.Equal(got, want) {
				t.Errorf("%s %s: answered %d, Allow %v; the document has %v", method, path, a.status, got, want)
			}
		}
	}
}

// sourceFiles reads the package's own files.
func sourceFiles(t *testing.T) map[string]*ast.File {
	t.Helper()
	entries, err := os.ReadDir(".")
	must(t, err)
	files := map[string]*ast.File{}
	for _, e := range entries {
		if name := e.Name(); strings.HasSuffix(name, ".go") && !strings.HasSuffix(name, "_test.go") {
			files[name], err = parser.ParseFile(token.NewFileSet(), name, nil, 0)
			must(t, err)
		}
	}
	return files
}

// literal returns the string that e is, "" if it is none.
func literal(e ast.Expr) string {
	if l, ok := e.(*ast.BasicLit); ok && l.Kind == token.STRING {
		s, _ := strconv.Unquote(l.Value)
		return s
	}
	return ""
}

// cases lists the strings that a function's switches know.
func cases(t *testing.T, files map[string]*ast.File, function string) (list []string) {
	t.Helper()
	for _, f := range files {
		for _, d := range f.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || fn.Name.Name != function {
				continue
			}
			ast.Inspect(fn, func(n ast.Node) bool {
				if c, ok := n.(*ast.CaseClause); ok {
					for _, e := range c.List {
						if s := literal(e); s != "" {
							list = append(list, s)
						}
					}
				}
				return true
			})
		}
	}
	if len(list) == 0 {
		t.Fatalf("%s knows nothing: was it renamed?", function)
	}
	return list
}

// Each route of the handlers is in the document: the paths that they name, and the
// words by which they tell them apart.
func TestOpenAPIHasEveryRoute(t *testing.T) {
	doc := readOpenAPI(t)
	var paths []string
	for path := range doc.at("paths") {
		paths = append(paths, path)
	}
	files := sourceFiles(t)
	found := 0
	for name, f := range files {
		ast.Inspect(f, func(n ast.Node) bool {
			e, ok := n.(ast.Expr)
			if !ok {
				return true
			}
			// A path has a slash at its beginning and a word behind it.
			s := literal(e)
			if len(s) < 3 || s[0] != '/' || strings.Trim(s, "/abcdefghijklmnopqrstuvwxyz0123456789") != "" || s == "/login" {
				return true
			}
			found++
			if !slices.ContainsFunc(paths, func(p string) bool { return strings.HasPrefix(p, s) }) {
				t.Errorf("%s has %s, the document has not", name, s)
			}
			return true
		})
	}
	if found < 8 {
		t.Errorf("only %d paths in the handlers", found)
	}
	for _, handler := range []string{"serveAPI", "serveExecutions", "serveOrgs"} {
		for _, word := range cases(t, files, handler) {
			if !slices.ContainsFunc(paths, func(p string) bool { return strings.HasSuffix(p, "/"+word) }) {
				t.Errorf("%s knows %q, the document does not", handler, word)
			}
		}
	}
}

// The schemas have the fields of what is sent, and no others.
func TestOpenAPIHasEveryField(t *testing.T) {
	doc := readOpenAPI(t)
	for name, v := range map[string]any{
		"Execution": executionView{}, "Problem": problem{}, "Org": orgView{}, "Queue": queueView{}, "Limit": limitView{},
	} {
		var want, got []string
		for f := range reflect.TypeOf(v).Fields() {
			if tag, _, _ := strings.Cut(f.Tag.Get("json"), ","); tag != "" {
				want = append(want, tag)
			}
		}
		for field := range doc.at("components").at("schemas").at(name).at("properties") {
			got = append(got, field)
		}
		slices.Sort(want)
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("%s: the document has %v, what is sent has %v", name, got, want)
		}
	}
}
