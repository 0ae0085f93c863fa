// Package bulk is the work of `headgate run`: it reads the executions that a
// file asks for, and writes what became of them.
package bulk

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"iter"
	"path/filepath"
	"strings"
)

// DefaultMaxBody is the platform's own limit for the body of a request,
// request.bytes.max.
const DefaultMaxBody = 512_000

// MaxLine is the longest line of an input, and the longest CSV row, that is
// read into memory. One that is longer is a bad row.
const MaxLine = 16 << 20

// Format says how an input is written.
type Format int

const (
	// Auto goes by the file's extension (.jsonl, .ndjson, .json, .csv),
	// else by the first byte that is no space: JSON Lines if it is { or [,
	// CSV if it is anything else.
	Auto Format = iota
	// JSONLines has one JSON object in each line.
	JSONLines
	// CSV has a header, commas between columns and quotes where needed
	// (RFC 4180).
	CSV
)

// Endpoint says which form of flow execution the rows become.
type Endpoint int

const (
	// Execute is POST /api/v2/architect/flows/{flowId}/execute, whose body
	// is the flow's payload.
	Execute Endpoint = iota
	// Launch is POST /api/v2/flows/executions, whose body holds flowId,
	// flowVersion, inputData and name.
	Launch
)

// Options say how to read an input.
type Options struct {
	// Name is what messages call the input; "" and "-" are "stdin".
	Name string
	// Format is how it is written; zero finds out.
	Format Format
	// Flow is the flow of every row. If it is empty, each row names its
	// own as flowId.
	Flow string
	// Endpoint is what the rows become; zero is Execute.
	Endpoint Endpoint
	// MaxBody is the most bytes that a row's body may have; zero and less
	// mean DefaultMaxBody.
	MaxBody int
}

// Row is one row of an input.
type Row struct {
	// N counts the rows from 1, bad ones too; blank lines and a header are
	// none. Line is where the row begins, counted from 1.
	N    int64
	Line int
	// Flow is the flow's id, fit to stand in a URL's path as it is. Body
	// is the request's body: valid JSON, and the reader's to keep.
	Flow string
	Body []byte
	// Err is what is wrong with the row, a *RowError; then Flow and Body
	// are empty, except that a body over MaxBody leaves Flow set.
	Err error
}

// RowError says what is wrong with one row or with the header, and where.
type RowError struct {
	File    string
	Line    int
	Problem string
	// Err is a *BodyTooLargeError, or nil.
	Err error
}

func (e *RowError) Error() string { return fmt.Sprintf("%s:%d: %s", e.File, e.Line, e.Problem) }

func (e *RowError) Unwrap() error { return e.Err }

// BodyTooLargeError is the reason of a row that is well-formed, but that the
// server would refuse for its size. Such a row fails alone; it is no reason
// to distrust the input.
type BodyTooLargeError struct {
	Size, Limit int
}

func (e *BodyTooLargeError) Error() string {
	return fmt.Sprintf("its body has %d bytes, more than request.bytes.max (%d) allows", e.Size, e.Limit)
}

// Read yields the rows of r in their order, in memory that does not grow
// with their number. A bad row is yielded with its Err, and reading goes on
// behind it. An error beside the Row ends the reading: r failed, a CSV header
// can't be used (a *RowError), or o can't.
//
// A row of JSON Lines is an object. Its values are sent as they are written,
// to the byte. What it means depends on o:
//
//	Execute, Flow set    the object is the payload
//	Execute              member flowId names the flow, the rest is the payload
//	Launch, Flow set     the object is the inputData
//	Launch               the object is the body: flowId, flowVersion, inputData, name
//
// A row of CSV is an object of its columns, all strings. Execute takes it as
// above; for Launch the columns flowId, flowVersion and name keep their
// meaning, empty ones are left out, and all other columns make up the
// inputData.
func Read(r io.Reader, o Options) iter.Seq2[Row, error] {
	if o.Name == "" || o.Name == "-" {
		o.Name = "stdin"
	}
	if o.MaxBody <= 0 {
		o.MaxBody = DefaultMaxBody
	}
	return func(yield func(Row, error) bool) {
		if o.Flow != "" {
			if problem := checkFlow(o.Flow); problem != "" {
				yield(Row{}, fmt.Errorf("flow %s", problem))
				return
			}
		}
		br := bufio.NewReaderSize(r, 64<<10)
		if err := skipMark(br, o.Name); err != nil {
			yield(Row{}, err)
			return
		}
		read := readJSONLines
		if format(br, o) == CSV {
			read = readCSV
		}
		in := &input{Options: o, lines: lines{r: br}}
		if err := read(in, func(row Row) bool { return yield(row, nil) }); err != nil {
			if _, ok := errors.AsType[*RowError](err); !ok {
				err = fmt.Errorf("reading %s: %w", o.Name, err)
			}
			yield(Row{}, err)
		}
	}
}

// input is one reading. Its readers return what ended it, nil at the end.
type input struct {
	Options
	lines
	rows int64
}

// bad returns the next row, with what is wrong with it.
func (in *input) bad(line int, format string, args ...any) Row {
	in.rows++
	return Row{N: in.rows, Line: line, Err: in.problem(line, format, args...)}
}

// good returns the next row, unless its flow or its size is not right. It
// keeps body.
func (in *input) good(line int, flow string, body []byte) Row {
	if problem := checkFlow(flow); problem != "" {
		return in.bad(line, "flowId %s", problem)
	}
	if len(body) > in.MaxBody {
		err := &BodyTooLargeError{Size: len(body), Limit: in.MaxBody}
		row := in.bad(line, "%v", err)
		row.Flow = flow
		row.Err.(*RowError).Err = err
		return row
	}
	in.rows++
	return Row{N: in.rows, Line: line, Flow: flow, Body: body}
}

func (in *input) problem(line int, format string, args ...any) *RowError {
	return &RowError{File: in.Name, Line: line, Problem: fmt.Sprintf(format, args...)}
}

// skipMark reads over a byte order mark.
func skipMark(br *bufio.Reader, name string) error {
	start, _ := br.Peek(3) // an error comes back with the first line
	switch {
	case bytes.Equal(start, []byte("\xef\xbb\xbf")):
		_, err := br.Discard(3)
		return err
	case bytes.HasPrefix(start, []byte("\xff\xfe")), bytes.HasPrefix(start, []byte("\xfe\xff")):
		return &RowError{File: name, Line: 1, Problem: "the input is UTF-16; save it as UTF-8"}
	}
	return nil
}

func format(br *bufio.Reader, o Options) Format {
	if o.Format != Auto {
		return o.Format
	}
	switch strings.ToLower(filepath.Ext(o.Name)) {
	case ".jsonl", ".ndjson", ".json":
		return JSONLines
	case ".csv":
		return CSV
	}
	for n := br.Buffered(); ; n = min(cmp.Or(2*n, 1), br.Size()) {
		start, err := br.Peek(n)
		if text := bytes.TrimLeft(start, " \t\r\n"); len(text) > 0 {
			if text[0] == '{' || text[0] == '[' {
				return JSONLines
			}
			return CSV
		}
		if err != nil || n == br.Size() {
			return JSONLines // nothing but blanks
		}
	}
}

// checkFlow returns what is wrong with a flow's id, or "". Ids of the
// platform are UUIDs; others pass if they can't change the URL they go into.
func checkFlow(id string) string {
	if id == "" {
		return "is empty"
	}
	if len(id) > 200 {
		return fmt.Sprintf("has %d bytes, more than 200", len(id))
	}
	if id == "." || id == ".." {
		return fmt.Sprintf("%q would change the path of the request", id)
	}
	for _, r := range id {
		switch {
		case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9', strings.ContainsRune("-._~:@", r):
		default:
			return fmt.Sprintf("%q must not contain %q", id, r)
		}
	}
	return ""
}
