package bulk

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"strings"
)

// columns is a header, ready to make rows of.
type columns struct {
	flow, version, name int      // where they are, -1 for none
	keys                [][]byte // of all others, as JSON with the colon; nil for these
	data                bool     // there are others
}

func readCSV(in *input, yield func(Row) bool) error {
	p := newRecordParser(in)
	record, err := p.next()
	if err == io.EOF {
		return nil
	}
	if err != nil {
		return err
	}
	cols, err := in.header(record, p.start)
	if err != nil {
		return err
	}
	p.width = len(record)
	for {
		record, err := p.next()
		if err == io.EOF {
			return nil
		}
		var row Row
		if bad, ok := errors.AsType[*RowError](err); ok {
			row = in.bad(bad.Line, "%s", bad.Problem)
		} else if err != nil {
			return err
		} else {
			row = in.csvRow(cols, record, p.start)
		}
		if !yield(row) {
			return nil
		}
	}
}

// header makes columns of the first record.
func (in *input) header(record []string, line int) (*columns, error) {
	if len(record) == 1 && strings.ContainsAny(record[0], ";\t") {
		return nil, in.problem(line, "the header has no comma: separate columns by commas, not by %q", record[0][strings.IndexAny(record[0], ";\t")])
	}
	c := &columns{flow: -1, version: -1, name: -1}
	seen := map[string]int{}
	for i, name := range record {
		if strings.TrimSpace(name) == "" {
			return nil, in.problem(line, "column %d of the header has no name", i+1)
		}
		if invalidUTF8(name) >= 0 {
			return nil, in.problem(line, "column %d of the header is not UTF-8", i+1)
		}
		if first, ok := seen[name]; ok {
			return nil, in.problem(line, "columns %d and %d of the header are both %q", first, i+1, name)
		}
		seen[name] = i + 1
		var key []byte
		switch {
		case name == "flowId" && (in.Flow == "" || in.Endpoint == Launch):
			c.flow = i
		case name == "flowVersion" && in.Endpoint == Launch:
			c.version = i
		case name == "name" && in.Endpoint == Launch:
			c.name = i
		default:
			key = append(appendString(nil, name), ':')
			c.data = true
		}
		c.keys = append(c.keys, key)
	}
	if in.Flow == "" && c.flow < 0 {
		return nil, in.problem(line, "the header lacks a column flowId, it has %s; add one, or name one flow for all rows with --flow", quoted(record))
	}
	return c, nil
}

// csvRow makes a row of a record that is as wide as the header.
func (in *input) csvRow(c *columns, record []string, line int) Row {
	for i, v := range record {
		if at := invalidUTF8(v); at >= 0 {
			return in.bad(line, "column %d is not UTF-8, at byte %d", i+1, at+1)
		}
	}
	flow := in.Flow
	if c.flow >= 0 {
		named := record[c.flow]
		if in.Flow != "" && named != "" && named != in.Flow {
			return in.bad(line, "names the flow %q, but --flow names %q", named, in.Flow)
		}
		if in.Flow == "" {
			flow = named
		}
	}
	var body []byte
	if in.Endpoint == Execute {
		body = c.appendData(body, record)
		return in.good(line, flow, body)
	}
	body = append(body, `{"flowId":`...)
	body = appendString(body, flow)
	if c.version >= 0 && record[c.version] != "" {
		body = append(body, `,"flowVersion":`...)
		body = appendString(body, record[c.version])
	}
	if c.data {
		body = append(body, `,"inputData":`...)
		body = c.appendData(body, record)
	}
	if c.name >= 0 && record[c.name] != "" {
		body = append(body, `,"name":`...)
		body = appendString(body, record[c.name])
	}
	return in.good(line, flow, append(body, '}'))
}

// appendData appends the object of all columns that have no other role.
func (c *columns) appendData(dst []byte, record []string) []byte {
	dst = append(dst, '{')
	comma := false
	for i, key := range c.keys {
		if key == nil {
			continue
		}
		if comma {
			dst = append(dst, ',')
		}
		comma = true
		dst = append(dst, key...)
		dst = appendString(dst, record[i])
	}
	return append(dst, '}')
}

// recordParser reads one CSV record after the other. encoding/csv parses
// each, but does not read from the input itself: it would take all that
// follows an unclosed quote into memory.
type recordParser struct {
	in    *input
	width int // columns of the header; 0 before it is known
	start int // the line in which the last record began

	text []byte // of one record
	src  bytes.Reader
	br   *bufio.Reader
}

func newRecordParser(in *input) *recordParser {
	p := &recordParser{in: in}
	p.br = bufio.NewReader(&p.src)
	return p
}

// next returns the next record. A *RowError is about this record alone.
func (p *recordParser) next() ([]string, error) {
	p.text = p.text[:0]
	var q quoting
	for {
		line, long, err := p.in.next()
		if err == io.EOF && len(p.text) > 0 {
			return nil, p.in.problem(p.start, "a quote is opened here and never closed; this row is the rest of the input")
		}
		if err != nil {
			return nil, err
		}
		if len(p.text) == 0 {
			p.start = p.in.line
			if !long && p.blank(line) {
				continue
			}
		}
		if long || len(p.text)+len(line) > MaxLine {
			return nil, p.in.problem(p.start, "is longer than %d MiB; is a quote not closed?", MaxLine>>20)
		}
		p.text = append(append(p.text, line...), '\n')
		if !q.open(line) {
			return p.parse()
		}
	}
}

// blank reports whether line is no row. Spaces are a row if there is only
// one column for them to be in.
func (p *recordParser) blank(line []byte) bool {
	line = bytes.TrimSuffix(line, []byte("\r"))
	return len(line) == 0 || p.width != 1 && len(bytes.TrimSpace(line)) == 0
}

// parse parses p.text.
func (p *recordParser) parse() ([]string, error) {
	p.src.Reset(p.text)
	p.br.Reset(&p.src)
	r := csv.NewReader(p.br)
	r.FieldsPerRecord = -1
	record, err := r.Read()
	if syntax, ok := errors.AsType[*csv.ParseError](err); ok {
		where := ""
		if syntax.Line != syntax.StartLine {
			where = fmt.Sprintf(" of line %d", p.start+syntax.Line-1)
		}
		return nil, p.in.problem(p.start, "is not CSV: %v, at byte %d%s", syntax.Err, syntax.Column, where)
	}
	if err != nil {
		return nil, p.in.problem(p.start, "is not CSV: %v", err)
	}
	if _, err := r.Read(); err != io.EOF {
		return nil, p.in.problem(p.start, "is not CSV: a quote stands where none belongs")
	}
	if p.width > 0 && len(record) != p.width {
		return nil, p.in.problem(p.start, "has %s, the header has %d", count(len(record), "column"), p.width)
	}
	return record, nil
}

// quoting follows the quotes of a record from line to line.
type quoting struct{ inside bool }

// open reports whether the record goes on behind line. A quote where none
// may be ends the record with its line, so that one bad row is not many.
func (q *quoting) open(line []byte) bool {
	fieldStart := !q.inside
	for i := 0; i < len(line); i++ {
		c := line[i]
		switch {
		case q.inside && c == '"' && i+1 < len(line) && line[i+1] == '"':
			i++
		case q.inside && c == '"':
			q.inside = false
			if rest := line[i+1:]; len(rest) > 0 && rest[0] != ',' && string(rest) != "\r" {
				return false
			}
		case q.inside:
		case c == ',':
			fieldStart = true
			continue
		case c == '"' && !fieldStart:
			return false
		case c == '"':
			q.inside = true
		}
		fieldStart = false
	}
	return q.inside
}

func quoted(names []string) string {
	var b strings.Builder
	for i, n := range names {
		if i == 10 {
			b.WriteString(", …")
			break
		}
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%q", n)
	}
	return b.String()
}

func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
