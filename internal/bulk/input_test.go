package bulk

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"
)

// show reads input and writes each row as a line: N, line, flow and body, or
// the message.
func show(input string, o Options) (rows []string, err error) {
	for row, err := range Read(strings.NewReader(input), o) {
		switch {
		case err != nil:
			return rows, err
		case row.Err != nil:
			rows = append(rows, fmt.Sprintf("%d! %v", row.N, row.Err))
		default:
			rows = append(rows, fmt.Sprintf("%d@%d %s %s", row.N, row.Line, row.Flow, row.Body))
		}
	}
	return rows, nil
}

const idA = "0f9e3e5c-5d7f-4a3c-9a57-7f4bb5c3d111"

func TestRead(t *testing.T) {
	jsonl, csv := Options{Name: "x.jsonl"}, Options{Name: "x.csv"}
	with := func(o Options, flow string, e Endpoint) Options {
		o.Flow, o.Endpoint = flow, e
		return o
	}
	tests := []struct {
		name  string
		o     Options
		input string
		want  []string
	}{
		{"empty", jsonl, "", nil},
		{"blank", jsonl, " \n\t\r\n\n", nil},
		{"execute", jsonl, `{"flowId":"` + idA + `","Flow.a":1.0}` + "\n\n" + `{"b":"\u00e9é\/","flowId":"flow-1"}`,
			[]string{`1@1 ` + idA + ` {"Flow.a":1.0}`, `2@3 flow-1 {"b":"\u00e9é\/"}`}},
		{"execute, to the byte", jsonl, `{ "n" : 12345678901234567890.10e+5 , "flow\u0049d" : "f" ,"o": [1, {"x" : "}]\""}] , "e":{}}`,
			[]string{`1@1 f {"n":12345678901234567890.10e+5,"o":[1, {"x" : "}]\""}],"e":{}}`}},
		{"execute, nothing but flowId", jsonl, `{"flowId":"f"}`, []string{`1@1 f {}`}},
		{"execute, a flowId within", jsonl, `{"flowId":"f","x":{"flowId":1,"flowId":2}}`, []string{`1@1 f {"x":{"flowId":1,"flowId":2}}`}},
		{"execute, names in other capitals", jsonl, `{"FlowID":"g","flowId":"f"}`, []string{`1@1 f {"FlowID":"g"}`}},
		{"execute with flow", with(jsonl, "f", Execute), "\ufeff" + ` {"flowId":"kept", "n":1e400} ` + "\r\n",
			[]string{`1@1 f {"flowId":"kept", "n":1e400}`}},
		{"launch", with(jsonl, "", Launch), `{"flowId":"f", "flowVersion":"2.0","inputData":{"Flow.x": 1.50},"name":"n"}`,
			[]string{`1@1 f {"flowId":"f", "flowVersion":"2.0","inputData":{"Flow.x": 1.50},"name":"n"}`}},
		{"launch with flow", with(jsonl, "f", Launch), `{"Flow.x": 1.50}`, []string{`1@1 f {"flowId":"f","inputData":{"Flow.x": 1.50}}`}},

		{"csv, empty", csv, "", nil},
		{"csv, header only", csv, "flowId,a\n", nil},
		{"csv execute", csv, "flowId,a,b\r\nf,1.0,\"x, \"\"y\"\"\nz\"\r\n\r\n   \r\ng,\t,<&>",
			[]string{`1@2 f {"a":"1.0","b":"x, \"y\"\nz"}`, `2@6 g {"a":"\u0009","b":"<&>"}`}},
		{"csv execute with flow", with(csv, "f", Execute), "\ufeff\"a b\",flowId\n1,kept", []string{`1@2 f {"a b":"1","flowId":"kept"}`}},
		{"csv launch", with(csv, "", Launch), "Flow.x,flowId,name,flowVersion,Flow.y\n1,f,n,2.0,3\n,f,,,",
			[]string{`1@2 f {"flowId":"f","flowVersion":"2.0","inputData":{"Flow.x":"1","Flow.y":"3"},"name":"n"}`,
				`2@3 f {"flowId":"f","inputData":{"Flow.x":"","Flow.y":""}}`}},
		{"csv launch, no data", with(csv, "", Launch), "flowId\nf", []string{`1@2 f {"flowId":"f"}`}},
		{"csv launch with flow", with(csv, "f", Launch), "a,flowId,name\n1,f,n\n2,,", []string{
			`1@2 f {"flowId":"f","inputData":{"a":"1"},"name":"n"}`, `2@3 f {"flowId":"f","inputData":{"a":"2"}}`}},
		{"csv, one column of spaces", with(csv, "f", Execute), "a\n  \n\nb", []string{`1@2 f {"a":"  "}`, `2@4 f {"a":"b"}`}},

		{"by content, object", Options{}, "\n \n{\"flowId\":\"f\"}", []string{"1@3 f {}"}},
		{"by content, csv", Options{}, "\n\nflowId\nf", []string{"1@4 f {}"}},
		{"by content, far away", Options{}, strings.Repeat(" \n", 20000) + "flowId\nf", []string{"1@20002 f {}"}},
		{"by content, nothing", Options{}, "\n\n", nil},
		{"by content, other extension", Options{Name: "x.txt"}, "flowId\nf", []string{"1@2 f {}"}},
		{"by extension", Options{Name: "X.NDJSON"}, "flowId", []string{`1! X.NDJSON:1: is not JSON, at byte 2: invalid character 'l' in literal false (expecting 'a')`}},
		{"as told", Options{Name: "x.csv", Format: JSONLines}, `{"flowId":"f"}`, []string{"1@1 f {}"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := show(tt.input, tt.o)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got\n\t%s\nwant\n\t%s", strings.Join(got, "\n\t"), strings.Join(tt.want, "\n\t"))
			}
			for row := range Read(iotest.OneByteReader(strings.NewReader(tt.input)), tt.o) {
				if row.Err == nil && !json.Valid(row.Body) {
					t.Errorf("byte by byte: %s is not JSON", row.Body)
				}
			}
		})
	}
}

// The good row behind each bad one shows that reading goes on.
func TestBadRows(t *testing.T) {
	const next = `{"flowId":"f"}`
	launch := Options{Name: "x", Format: JSONLines, Endpoint: Launch}
	tests := []struct {
		o     Options
		input string
		want  string
	}{
		{Options{}, `{"flowId":"f"`, `is not JSON, at byte 13: unexpected end of JSON input`},
		{Options{}, `{"flowId":"f"} x`, `is not JSON, at byte 16: invalid character 'x' after top-level value`},
		{Options{}, `{"flowId":"f"}{"flowId":"g"}`, `is not JSON, at byte 15: invalid character '{' after top-level value`},
		{Options{}, `{"flowId":"f","n":01}`, `is not JSON, at byte 20: invalid character '1' after object key:value pair`},
		{Options{}, `{"flowId":"f","n":NaN}`, `is not JSON, at byte 19: invalid character 'N' looking for beginning of value`},
		{Options{}, "{\"flowId\":\"f\",\"n\":\"\xff\"}", `is not UTF-8, at byte 20`},
		{Options{}, `[{"flowId":"f"}]`, `is a JSON array; write one object in each line instead`},
		{Options{}, `"f"`, `is not a JSON object`},
		{Options{}, `null`, `is not a JSON object`},
		{Options{Flow: "f"}, `5`, `is not a JSON object`},
		{Options{}, `{}`, `lacks flowId; name it in every row, or once for all with --flow`},
		{Options{}, `{"flowid":"f"}`, `lacks flowId; name it in every row, or once for all with --flow`},
		{Options{}, `{"flowId":"f","a":1,"flowId":"f"}`, `has flowId twice`},
		{Options{}, `{"flowId":"f","flow\u0049d":"f"}`, `has flowId twice`},
		{Options{}, `{"flowId":7}`, `flowId must be a string, not 7`},
		{Options{}, `{"flowId":["` + strings.Repeat("é", 300) + `"]}`, `flowId must be a string, not ["` + strings.Repeat("é", 38) + `…`},
		{Options{}, `{"flowId":""}`, `flowId is empty`},
		{Options{}, `{"flowId":"a/b"}`, `flowId "a/b" must not contain '/'`},
		{Options{}, `{"flowId":"a?b"}`, `flowId "a?b" must not contain '?'`},
		{Options{}, `{"flowId":"a%2fb"}`, `flowId "a%2fb" must not contain '%'`},
		{Options{}, `{"flowId":"a\nb"}`, `flowId "a\nb" must not contain '\n'`},
		{Options{}, `{"flowId":" a"}`, `flowId " a" must not contain ' '`},
		{Options{}, `{"flowId":"é"}`, `flowId "é" must not contain 'é'`},
		{Options{}, `{"flowId":".."}`, `flowId ".." would change the path of the request`},
		{Options{}, `{"flowId":"` + strings.Repeat("a", 201) + `"}`, `flowId has 201 bytes, more than 200`},
		{Options{MaxBody: 9}, `{"flowId":"f","a":"123"}`, `its body has 11 bytes, more than request.bytes.max (9) allows`},
		{launch, `{"flowId":"f","flowid":1}`, `has the unknown member "flowid"; a launch has flowId, flowVersion, inputData and name`},
		{launch, `{"flowId":"f","name":"a","name":"b"}`, `has name twice`},
		{launch, `{"name":"a"}`, `lacks flowId; name it in every row, or once for all with --flow`},
		{launch, `{"flowId":null}`, `flowId must be a string, not null`},
		{launch, `{"flowId":"f","inputData":[1]}`, `inputData must be an object, not [1]`},
	}
	for _, tt := range tests {
		t.Run(tt.input, func(t *testing.T) {
			tt.o.Name, tt.o.Format = "executions.jsonl", JSONLines
			got, err := show("\n"+tt.input+"\n"+next, tt.o)
			if err != nil {
				t.Fatal(err)
			}
			if want := "1! executions.jsonl:2: " + tt.want; len(got) != 2 || got[0] != want {
				t.Errorf("got\n\t%s\nwant\n\t%s", strings.Join(got, "\n\t"), want)
			} else if !strings.HasPrefix(got[1], "2@3 f ") {
				t.Errorf("next row is %s", got[1])
			}
		})
	}
}

func TestBadRowsOfCSV(t *testing.T) {
	tests := []struct{ input, want string }{
		{"f", "has 1 column, the header has 2"},
		{"f,1,2", "has 3 columns, the header has 2"},
		{"\"f\n1\",2,3", "has 3 columns, the header has 2"},
		{"f,1\"2", `is not CSV: bare " in non-quoted-field, at byte 4`},
		{"f,\"1\"2", `is not CSV: extraneous or missing " in quoted-field, at byte 5`},
		{"f,\"1\n2\"3", `is not CSV: extraneous or missing " in quoted-field, at byte 2 of line 4`},
		{"f,\"1\"2,\"", `is not CSV: extraneous or missing " in quoted-field, at byte 5`},
		{"f,1\"2,\"", `is not CSV: bare " in non-quoted-field, at byte 4`},
		{"f,\xff", "column 2 is not UTF-8, at byte 1"},
		{",1", "flowId is empty"},
		{"a b,1", `flowId "a b" must not contain ' '`},
		{"f,12345678901234567890", "its body has 28 bytes, more than request.bytes.max (27) allows"},
	}
	for _, tt := range tests {
		t.Run(tt.input, func(t *testing.T) {
			got, err := show("flowId,a\n\n"+tt.input+"\nf,ok", Options{Name: "in.csv", MaxBody: 27})
			if err != nil {
				t.Fatal(err)
			}
			next := fmt.Sprintf(`2@%d f {"a":"ok"}`, 4+strings.Count(tt.input, "\n"))
			if want := "1! in.csv:3: " + tt.want; len(got) != 2 || got[0] != want || got[1] != next {
				t.Errorf("got\n\t%s\nwant\n\t%s\n\t%s", strings.Join(got, "\n\t"), want, next)
			}
		})
	}
	t.Run("unclosed", func(t *testing.T) {
		got, err := show("flowId,a\nf,1\nf,\"2\nf,3\n", Options{Name: "in.csv"})
		want := []string{`1@2 f {"a":"1"}`, "2! in.csv:3: a quote is opened here and never closed; this row is the rest of the input"}
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("got %q, %v", got, err)
		}
	})
	t.Run("contradiction", func(t *testing.T) {
		got, err := show("flowId,a\ng,1\n", Options{Name: "in.csv", Flow: "f", Endpoint: Launch})
		if want := `1! in.csv:2: names the flow "g", but --flow names "f"`; err != nil || got[0] != want {
			t.Errorf("got %q, %v", got, err)
		}
	})
}

func TestWhatEndsReading(t *testing.T) {
	tests := []struct {
		o     Options
		input string
		want  string
	}{
		{Options{Name: "x.csv"}, "\n,a\n", "x.csv:2: column 1 of the header has no name"},
		{Options{Name: "x.csv"}, "a,b,a\n", `x.csv:1: columns 1 and 3 of the header are both "a"`},
		{Options{Name: "x.csv"}, "a\xff,b\n", "x.csv:1: column 1 of the header is not UTF-8"},
		{Options{Name: "x.csv"}, "flowId;a\n", `x.csv:1: the header has no comma: separate columns by commas, not by ';'`},
		{Options{Name: "x.csv"}, "FlowId,a\n", `x.csv:1: the header lacks a column flowId, it has "FlowId", "a"; add one, or name one flow for all rows with --flow`},
		{Options{Name: "x.csv"}, "a\"b\n", `x.csv:1: is not CSV: bare " in non-quoted-field, at byte 2`},
		{Options{Name: "-"}, "\xff\xfea\x00", "stdin:1: the input is UTF-16; save it as UTF-8"},
		{Options{Flow: "a/b"}, "{}", `flow "a/b" must not contain '/'`},
	}
	for _, tt := range tests {
		rows, err := show(tt.input, tt.o)
		if err == nil || err.Error() != tt.want || len(rows) > 0 {
			t.Errorf("%q:\ngot  %v and rows %q\nwant %s", tt.input, err, rows, tt.want)
		}
	}
}

func TestReadFailing(t *testing.T) {
	broken := errors.New("the disk is on fire")
	for _, f := range []Format{Auto, JSONLines, CSV} {
		for _, start := range []string{"", "flowId\nf\n", "{\"flowId\":\"f\"}\n{\"flow"} {
			r := io.MultiReader(strings.NewReader(start), iotest.ErrReader(broken))
			var last error
			for _, err := range Read(r, Options{Name: "x", Format: f}) {
				if last != nil {
					t.Error("reading goes on behind an error")
				}
				last = err
			}
			_, header := errors.AsType[*RowError](last)
			if !header && (!errors.Is(last, broken) || last.Error() != "reading x: the disk is on fire") {
				t.Errorf("format %d, %q: ended by %v", f, start, last)
			}
		}
	}
}

func TestStopReading(t *testing.T) {
	for _, input := range []string{"flowId\nf\ng\n", "{\"flowId\":\"f\"}\n{\"flowId\":\"g\"}"} {
		n := 0
		for range Read(strings.NewReader(input), Options{}) {
			n++
			break
		}
		if n != 1 {
			t.Errorf("%q: %d rows", input, n)
		}
	}
}

// What was yielded stays as it is while reading goes on.
func TestRowsAreKept(t *testing.T) {
	for _, o := range []Options{
		{Flow: "f", Format: JSONLines}, {Flow: "f", Format: JSONLines, Endpoint: Launch},
		{Format: JSONLines}, {Format: JSONLines, Endpoint: Launch}, {Format: CSV},
	} {
		var input strings.Builder
		if o.Format == CSV {
			input.WriteString("flowId,name\n")
		}
		for i := range 3000 {
			if o.Format == CSV {
				fmt.Fprintf(&input, "f,%06d\n", i)
			} else {
				fmt.Fprintf(&input, "{\"flowId\":\"f\",\"name\":\"%06d\"}\n", i)
			}
		}
		var rows []Row
		for row, err := range Read(strings.NewReader(input.String()), o) {
			if err != nil || row.Err != nil {
				t.Fatal(err, row.Err)
			}
			rows = append(rows, row)
		}
		for i, row := range rows {
			if want := fmt.Sprintf(`"name":"%06d"`, i); row.Flow != "f" || !strings.Contains(string(row.Body), want) {
				t.Fatalf("%+v: row %d is %s now", o, i, row.Body)
			}
		}
	}
}

func TestBodyTooLarge(t *testing.T) {
	const limit = DefaultMaxBody
	fits := `{"a":"` + strings.Repeat("x", limit-8) + `"}`
	over := `{"a":"` + strings.Repeat("x", limit-7) + `"}`
	var rows []Row
	for row, err := range Read(strings.NewReader(fits+"\n"+over), Options{Flow: "f"}) {
		if err != nil {
			t.Fatal(err)
		}
		rows = append(rows, row)
	}
	if len(rows) != 2 || rows[0].Err != nil || len(rows[0].Body) != limit {
		t.Fatalf("the body of %d bytes did not pass: %v", limit, rows[0].Err)
	}
	large, ok := errors.AsType[*BodyTooLargeError](rows[1].Err)
	if !ok || *large != (BodyTooLargeError{Size: limit + 1, Limit: limit}) || rows[1].Flow != "f" || rows[1].Body != nil {
		t.Errorf("got %v, %v", large, rows[1].Err)
	}
}

func TestLongLines(t *testing.T) {
	long := strings.Repeat("x", MaxLine+1)
	tests := []struct{ name, input, want string }{
		{"x.jsonl", `{"a":1}` + "\n" + long + "\n" + `{"a":2}`, "2! x.jsonl:2: is longer than 16 MiB|3@3 f {\"a\":2}"},
		{"x.jsonl", `{"a":1}` + "\n" + long, "2! x.jsonl:2: is longer than 16 MiB"},
		{"x.csv", "a\n1\n" + long + "\n2", "2! x.csv:3: is longer than 16 MiB; is a quote not closed?|3@4 f {\"a\":\"2\"}"},
		{"x.csv", "a\n1\n\"" + long[:MaxLine-10] + "\nlonger than that\n2", "2! x.csv:3: is longer than 16 MiB; is a quote not closed?|3@5 f {\"a\":\"2\"}"},
	}
	for _, tt := range tests {
		got, err := show(tt.input, Options{Name: tt.name, Flow: "f"})
		if err != nil || len(got) < 2 || strings.Join(got[1:], "|") != tt.want {
			t.Errorf("%s: %d rows, %.200q, %v", tt.name, len(got), got[1:], err)
		}
	}
}

// repeat is an endless input.
type repeat struct {
	text string
	at   int
}

func (r *repeat) Read(p []byte) (n int, _ error) {
	for n < len(p) {
		c := copy(p[n:], r.text[r.at:])
		n, r.at = n+c, (r.at+c)%len(r.text)
	}
	return n, nil
}

// heapMeter measures what is in use while its reader is read.
type heapMeter struct {
	r    io.Reader
	read int
	high uint64
}

func (m *heapMeter) Read(p []byte) (int, error) {
	n, err := m.r.Read(p)
	const each = 4 << 20
	if before := m.read / each; (m.read+n)/each > before {
		var stats runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&stats)
		m.high = max(m.high, stats.HeapAlloc)
	}
	m.read += n
	return n, err
}

func TestMemoryIsBounded(t *testing.T) {
	filler := strings.Repeat("x", 1000)
	tests := []struct {
		text string
		size int64
		most uint64
	}{
		{`{"flowId":"f","a":"` + filler + "\"}\n", 16 << 20, 8 << 20},
		{"flowId," + filler + "\n", 16 << 20, 8 << 20},
		{"x", 48 << 20, 40 << 20},
		{"flowId," + filler + "\n\"", 48 << 20, 40 << 20},
	}
	for _, tt := range tests {
		m := &heapMeter{r: io.LimitReader(&repeat{text: tt.text}, tt.size)}
		rows := 0
		for range Read(m, Options{}) {
			rows++
		}
		if m.high > tt.most || m.high == 0 {
			t.Errorf("%.20q: %d rows read with %d KiB on the heap", tt.text, rows, m.high>>10)
		}
	}
}
