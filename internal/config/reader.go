package config

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml/ast"
)

// key is one key of a mapping: what it takes and what is done with its value.
// The tables of keys are the file's grammar; the document is tested against them.
type key struct {
	name     string
	takes    string // as in "takes a time such as 300ms or 5m"
	required bool
	read     func(*reader, value)
	under    []key // of a mapping, or of each item of a list or named mapping
	plural   string
}

// must says that a key has to be there.
func (k key) must() key {
	k.required = true
	return k
}

// value is something in the file.
type value struct {
	node  ast.Node
	field string
	at    place // where to look for it
}

type place struct{ line, column int }

// reader walks through a file and notes what is wrong with it.
type reader struct {
	name     string
	sources  Sources
	problems Errors
	warnings []Warning
	where    map[string]place // of each field that is there
	hide     bool             // what is read may be a secret, also where it has no place
	inline   bool             // there is a secret in the file itself
	files    []value          // secrets are in files: field and, as field, path
}

func (r *reader) bad(v value, format string, args ...any) {
	r.problems = append(r.problems, r.problem(v, format, args...))
}

func (r *reader) warn(v value, format string, args ...any) {
	r.warnings = append(r.warnings, r.problem(v, format, args...))
}

func (r *reader) problem(v value, format string, args ...any) Problem {
	return Problem{r.name, max(v.at.line, 1), max(v.at.column, 1), v.field, fmt.Sprintf(format, args...)}
}

// field finds a field by its path, for what is about several of them. If it is
// not there, what it would be in is where to look.
func (r *reader) field(path string) value {
	for within := path; ; {
		if at, ok := r.where[within]; ok {
			return value{field: path, at: at}
		}
		i := strings.LastIndexAny(within, ".[")
		if i < 0 {
			return value{field: path}
		}
		within = within[:i]
	}
}

// given reports whether a field is there.
func (r *reader) given(path string) bool {
	_, ok := r.where[path]
	return ok
}

// below makes the path of a field.
func below(field, name string) string {
	if field == "" {
		return name
	}
	return field + "." + name
}

// placeOf says where a node is; otherwise is where its key is.
func placeOf(n ast.Node, otherwise place) place {
	switch n.(type) {
	case ast.MapNode, *ast.SequenceNode:
		return otherwise // its token is somewhere inside
	}
	if t := n.GetToken(); t != nil && t.Position != nil {
		return place{t.Position.Line, t.Position.Column}
	}
	return otherwise
}

// startOf is placeOf for what has no key: a mapping begins with its first one.
func startOf(n ast.Node, otherwise place) place {
	if m, ok := n.(ast.MapNode); ok {
		if it := m.MapRange(); it.Next() {
			return placeOf(it.Key(), otherwise)
		}
	}
	return placeOf(n, otherwise)
}

// pairs calls f with each key of a mapping. Keys that are there twice, or are no
// words, are errors.
func (r *reader) pairs(v value, takes string, f func(name string, v value)) bool {
	m, ok := v.node.(ast.MapNode)
	if !ok {
		r.wrong(v, takes)
		return false
	}
	first := map[string]int{}
	for it := m.MapRange(); it.Next(); {
		at := placeOf(it.Key(), v.at)
		name, ok := scalar(it.Key())
		if !ok {
			r.bad(value{field: v.field, at: at}, "a key must be a word")
			continue
		}
		field := below(v.field, r.shown(name.text))
		if line, twice := first[name.text]; twice {
			r.bad(value{field: field, at: at}, "is there twice, the first time in line %d", line)
			continue
		}
		first[name.text], r.where[field] = at.line, at
		f(name.text, value{it.Value(), field, placeOf(it.Value(), at)})
	}
	return true
}

// mapping reads a mapping with these keys. It is false if it is none.
func (r *reader) mapping(v value, keys []key) (ok bool) {
	takes := "keys such as " + keys[0].name + ": …"
	ok = r.pairs(v, takes, func(name string, v value) {
		i := slices.IndexFunc(keys, func(k key) bool { return k.name == name })
		if i < 0 {
			r.bad(value{field: v.field, at: r.where[v.field]}, "unknown key%s", suggestion(name, keys))
			return
		}
		if isNull(v.node) {
			r.bad(value{field: v.field, at: r.where[v.field]}, "is empty: takes %s", keys[i].takes)
			return
		}
		keys[i].read(r, v)
	})
	for _, k := range keys {
		if field := below(v.field, k.name); ok && k.required && !r.given(field) {
			r.bad(value{field: field, at: v.at}, "is missing: takes %s", k.takes)
		}
	}
	return ok
}

// object is a key with a mapping of known keys.
func object(name string, under []key) key {
	return key{name: name, takes: "keys such as " + under[0].name + ": …", under: under,
		read: func(r *reader, v value) { r.mapping(v, under) }}
}

// named is a key with a mapping of names that the file chooses. each is called
// for every name, and returns the keys of its mapping and what to do when they
// are read, for better or worse; with a nil reader the keys are all that is wanted.
func named(name, takes string, each func(r *reader, name string, v value) (under []key, done func())) key {
	under, _ := each(nil, "", value{})
	return key{name: name, takes: takes, under: under, plural: ".NAME",
		read: func(r *reader, v value) {
			n, before := 0, len(r.problems)
			r.pairs(v, takes, func(name string, v value) {
				if isNull(v.node) {
					r.bad(v, "is empty: takes keys such as %s: …", under[0].name)
					return
				}
				n++
				keys, done := each(r, name, v)
				if r.mapping(v, keys) {
					done()
				}
			})
			if n == 0 && len(r.problems) == before {
				r.bad(v, "is empty: takes %s", takes)
			}
		}}
}

// items is a key with a list of mappings. each is as for named, but that what is
// to be done is done for those without a problem.
func items(name, takes string, each func(r *reader, v value) (under []key, done func())) key {
	under, _ := each(nil, value{})
	return key{name: name, takes: takes, under: under, plural: "[]",
		read: func(r *reader, v value) {
			list, ok := v.node.(*ast.SequenceNode)
			if !ok || len(list.Values) == 0 {
				r.wrong(v, takes)
				return
			}
			r.each(v, list, func(v value) {
				keys, done := each(r, v)
				before := len(r.problems)
				r.mapping(v, keys)
				if len(r.problems) == before {
					done()
				}
			})
		}}
}

// each calls f with the values of a list.
func (r *reader) each(v value, list *ast.SequenceNode, f func(value)) {
	for i, n := range list.Values {
		at := v.at
		if i < len(list.Entries) && list.Entries[i].Start != nil && list.Entries[i].Start.Position != nil {
			p := list.Entries[i].Start.Position
			at = place{p.Line, p.Column}
		}
		item := value{n, v.field + "[" + strconv.Itoa(i) + "]", startOf(n, at)}
		r.where[item.field] = item.at
		f(item)
	}
}

// word is a single value.
type word struct {
	text   string
	quoted bool
}

// scalar returns the text of a single value.
func scalar(n ast.Node) (word, bool) {
	switch n := n.(type) {
	case *ast.StringNode:
		return word{n.Value, n.GetToken() != nil && isQuoted(n.GetToken().Origin)}, true
	case *ast.LiteralNode:
		if n.Value == nil {
			return word{}, false
		}
		return word{n.Value.Value, true}, true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		return word{n.GetToken().Value, false}, true
	}
	return word{}, false
}

func isQuoted(origin string) bool {
	origin = strings.TrimSpace(origin)
	return origin != "" && (origin[0] == '"' || origin[0] == '\'')
}

func isNull(n ast.Node) bool {
	_, ok := n.(*ast.NullNode)
	return ok || n == nil
}

// wrong says that something of another kind was expected.
func (r *reader) wrong(v value, takes string) {
	what := "a single value"
	switch v.node.(type) {
	case ast.MapNode:
		what = "a mapping"
	case *ast.SequenceNode:
		what = "a list"
	case *ast.AnchorNode, *ast.AliasNode, *ast.MergeKeyNode:
		what = "an anchor or an alias, which is not read here"
	case *ast.TagNode:
		what = "a tag, which is not read here"
	case *ast.NullNode, nil:
		what = "nothing"
	}
	r.bad(v, "is %s: takes %s", what, takes)
}

// shown is a word of the file as messages show it: not too long, and not if it may
// be a secret or is a key of ours that went to the wrong place.
func (r *reader) shown(text string) string {
	switch {
	case r.hide && text != "env" && text != "file", strings.Contains(text, "hg_") && len(text) > 40:
		return "…"
	case len(text) > 64:
		return strings.ToValidUTF8(text[:60], "") + "…"
	}
	return strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7f {
			return '�'
		}
		return c
	}, text)
}

// suggestion says which key was meant, or which there are.
func suggestion(name string, keys []key) string {
	nearest, best := "", 3
	names := make([]string, len(keys))
	name = strings.ReplaceAll(strings.ToLower(name), "-", "_")
	for i, k := range keys {
		names[i] = k.name
		if d := edits(name, k.name); d < best && d < len(k.name) {
			nearest, best = k.name, d
		}
	}
	if nearest != "" {
		return ": did you mean " + nearest + "?"
	}
	return ": there are " + strings.Join(names, ", ")
}

// edits counts the characters to insert, drop, replace or swap with their
// neighbour between a and b, looking at 64 of each.
func edits(a, b string) int {
	a, b = a[:min(len(a), 64)], b[:min(len(b), 64)]
	rows := [3][]int{make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)}
	for j := range rows[1] {
		rows[1][j] = j
	}
	for i := range len(a) {
		before, last, row := rows[0], rows[1], rows[2]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			row[j+1] = min(last[j]+cost, last[j+1]+1, row[j]+1)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
		rows = [3][]int{last, row, before}
	}
	return rows[1][len(b)]
}
