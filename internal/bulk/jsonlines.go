package bulk

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"iter"
	"slices"
	"unicode/utf8"
)

func readJSONLines(in *input, yield func(Row) bool) error {
	for {
		line, long, err := in.next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		var row Row
		switch line = bytes.Trim(line, " \t\r"); {
		case long:
			row = in.bad(in.line, "is longer than %d MiB", MaxLine>>20)
		case len(line) == 0:
			continue
		default:
			row = in.jsonRow(line)
		}
		if !yield(row) {
			return nil
		}
	}
}

// jsonRow makes a row of a line.
func (in *input) jsonRow(line []byte) Row {
	if row, ok := in.checkObject(line); !ok {
		return row
	}
	switch {
	case in.Flow == "" && in.Endpoint == Execute:
		return in.executeRow(line)
	case in.Flow == "":
		return in.launchRow(line)
	case in.Endpoint == Execute:
		return in.good(in.line, in.Flow, bytes.Clone(line))
	}
	body := make([]byte, 0, len(line)+len(in.Flow)+32)
	body = append(body, `{"flowId":`...)
	body = appendString(body, in.Flow)
	body = append(body, `,"inputData":`...)
	body = append(body, line...)
	return in.good(in.line, in.Flow, append(body, '}'))
}

// checkObject returns ok if line is a JSON object and nothing else.
func (in *input) checkObject(line []byte) (bad Row, ok bool) {
	if i := invalidUTF8(line); i >= 0 {
		return in.bad(in.line, "is not UTF-8, at byte %d", i+1), false
	}
	if !json.Valid(line) {
		var v json.RawMessage
		err := json.Unmarshal(line, &v)
		if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
			return in.bad(in.line, "is not JSON, at byte %d: %v", syntax.Offset, err), false
		}
		return in.bad(in.line, "is not JSON: %v", err), false
	}
	switch line[0] {
	case '{':
		return Row{}, true
	case '[':
		return in.bad(in.line, "is a JSON array; write one object in each line instead"), false
	}
	return in.bad(in.line, "is not a JSON object"), false
}

// executeRow takes the member flowId out of line; the rest is the body.
func (in *input) executeRow(line []byte) Row {
	flow, seen := "", false
	body := append(make([]byte, 0, len(line)), '{')
	for m := range members(line) {
		if m.is("flowId") {
			if seen {
				return in.bad(in.line, "has flowId twice")
			}
			seen = true
			if m.value[0] != '"' {
				return in.bad(in.line, "flowId must be a string, not %s", excerpt(m.value))
			}
			flow = unquote(m.value)
			continue
		}
		if len(body) > 1 {
			body = append(body, ',')
		}
		body = append(body, m.key...)
		body = append(body, ':')
		body = append(body, m.value...)
	}
	if !seen {
		return in.bad(in.line, "lacks flowId; name it in every row, or once for all with --flow")
	}
	return in.good(in.line, flow, append(body, '}'))
}

// launchMembers are those of the published body.
var launchMembers = []string{"flowId", "flowVersion", "inputData", "name"}

// launchRow checks that line is the published body of a launch.
func (in *input) launchRow(line []byte) Row {
	flow := ""
	var seen []string
	for m := range members(line) {
		key := unquote(m.key)
		if !slices.Contains(launchMembers, key) {
			return in.bad(in.line, "has the unknown member %s; a launch has flowId, flowVersion, inputData and name", excerpt(m.key))
		}
		if slices.Contains(seen, key) {
			return in.bad(in.line, "has %s twice", key)
		}
		seen = append(seen, key)
		switch {
		case key == "flowId" && m.value[0] != '"':
			return in.bad(in.line, "flowId must be a string, not %s", excerpt(m.value))
		case key == "flowId":
			flow = unquote(m.value)
		case key == "inputData" && m.value[0] != '{':
			return in.bad(in.line, "inputData must be an object, not %s", excerpt(m.value))
		}
	}
	if !slices.Contains(seen, "flowId") {
		return in.bad(in.line, "lacks flowId; name it in every row, or once for all with --flow")
	}
	return in.good(in.line, flow, bytes.Clone(line))
}

// member is one member of an object as it is written; key has its quotes.
type member struct{ key, value []byte }

func (m member) is(name string) bool {
	if bytes.IndexByte(m.key, '\\') < 0 {
		return string(m.key[1:len(m.key)-1]) == name
	}
	return unquote(m.key) == name
}

// members yields the members of an object that is known to be valid JSON
// without space around it. It exists because encoding/json can't tell
// duplicates, and matches names in capitals or not.
func members(object []byte) iter.Seq[member] {
	return func(yield func(member) bool) {
		i := skipSpace(object, 1)
		for object[i] != '}' {
			var m member
			end := skipValue(object, i)
			m.key = object[i:end]
			i = skipSpace(object, end) // at the colon
			i = skipSpace(object, i+1) // at the value
			end = skipValue(object, i) // behind it
			m.value = object[i:end]
			i = skipSpace(object, end) // at the comma or the end
			if !yield(m) {
				return
			}
			if object[i] == ',' {
				i = skipSpace(object, i+1)
			}
		}
	}
}

func skipSpace(b []byte, i int) int {
	for b[i] == ' ' || b[i] == '\t' || b[i] == '\r' || b[i] == '\n' {
		i++
	}
	return i
}

// skipValue returns where the value that begins at b[i] ends. It always ends
// before b does: b is an object and the value is inside.
func skipValue(b []byte, i int) int {
	for depth := 0; ; i++ {
		switch b[i] {
		case '"':
			for i++; b[i] != '"'; i++ {
				if b[i] == '\\' {
					i++
				}
			}
			if depth == 0 {
				return i + 1
			}
		case '{', '[':
			depth++
		case '}', ']':
			if depth--; depth == 0 {
				return i + 1
			}
			if depth < 0 { // behind a number or a word
				return i
			}
		case ',', ' ', '\t', '\r', '\n':
			if depth == 0 {
				return i
			}
		}
	}
}

// unquote returns the string that is written as a valid JSON string.
func unquote(quoted []byte) string {
	var s string
	_ = json.Unmarshal(quoted, &s) // known to be valid
	return s
}

// appendString appends s, valid UTF-8, as a JSON string. Only what must be
// escaped is.
func appendString(dst []byte, s string) []byte {
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
		case c == '\n':
			dst = append(dst, '\\', 'n')
		case c < ' ':
			dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		default:
			dst = append(dst, c)
		}
	}
	return append(dst, '"')
}

// invalidUTF8 returns where b stops being UTF-8, or -1.
func invalidUTF8[T string | []byte](b T) int {
	if s := string(b); !utf8.ValidString(s) {
		for i, r := range s {
			if r == utf8.RuneError {
				if _, n := utf8.DecodeRuneInString(s[i:]); n <= 1 {
					return i
				}
			}
		}
	}
	return -1
}

// excerpt returns the beginning of JSON text for a message.
func excerpt(b []byte) string {
	if r := []rune(string(b[:min(len(b), 200)])); len(r) > 40 {
		return string(r[:40]) + "…"
	}
	return string(b)
}
