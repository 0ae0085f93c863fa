package bulk

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
)

func FuzzRead(f *testing.F) {
	for _, s := range []string{
		"", "flowId,a\nf,1\n", "\ufeffflowId,name\r\nf,\"x\r\ny\"\"\"\r\n", "flowId,a\nf,\"1\"2\nf,\"",
		`{"flowId":"f","a":[{"b":"}\\\""},-1.5e-3,null]}`, `{"flow\u0049d":"f" , "inputData" : {} }`,
		"{\"flowId\":\"a/b\"}\n[1]\n\n{", "\xff\xfe", "{\"a\":\"\xff\"}",
	} {
		for e := range 4 {
			f.Add([]byte(s), e%2 == 0, e/2, 0)
			f.Add([]byte(s), e%2 == 0, e/2, 20)
		}
	}
	f.Fuzz(func(t *testing.T, input []byte, named bool, kind, most int) {
		o := Options{Endpoint: Endpoint(kind & 1), Format: Format(uint(kind) / 2 % 3), MaxBody: most}
		if named {
			o.Flow = "flow-1"
		}
		n, line := int64(0), 0
		for row, err := range Read(bytes.NewReader(input), o) {
			if err != nil {
				if _, ok := errors.AsType[*RowError](err); !ok {
					t.Fatal(err)
				}
				continue
			}
			if n++; row.N != n || row.Line <= line && n > 1 {
				t.Fatalf("row %d in line %d follows row %d in line %d", row.N, row.Line, n-1, line)
			}
			line = row.Line
			if row.Err != nil {
				if bad, ok := errors.AsType[*RowError](row.Err); !ok || bad.Line != row.Line || row.Body != nil {
					t.Fatalf("%+v", row)
				}
				continue
			}
			limit := most
			if limit <= 0 {
				limit = DefaultMaxBody
			}
			if !json.Valid(row.Body) || len(row.Body) > limit || row.Body[0] != '{' || checkFlow(row.Flow) != "" {
				t.Fatalf("flow %q, body %q", row.Flow, row.Body)
			}
			if o.Endpoint == Launch {
				var body struct {
					FlowID string `json:"flowId"`
				}
				if err := json.Unmarshal(row.Body, &body); err != nil || body.FlowID != row.Flow {
					t.Fatalf("the body of flow %q names %q, %v", row.Flow, body.FlowID, err)
				}
			}
		}
	})
}

func BenchmarkRead(b *testing.B) {
	inputs := map[string]string{
		"jsonl": `{"flowId":"` + idA + `","Flow.customer":"c-1234","Flow.amount":12.50,"Flow.tags":["a","b"]}` + "\n",
		"csv":   "flowId,customer,amount\n" + strings.Repeat(idA+",c-1234,12.50\n", 1),
	}
	for name, text := range inputs {
		b.Run(name, func(b *testing.B) {
			header, row, _ := strings.Cut(text, "\n")
			r := io.Reader(&repeat{text: text})
			if row != "" {
				r = io.MultiReader(strings.NewReader(header+"\n"), &repeat{text: row})
			}
			b.ReportAllocs()
			next := 0
			for row, err := range Read(r, Options{}) {
				if err != nil || row.Err != nil {
					b.Fatal(err, row.Err)
				}
				if !b.Loop() {
					break
				}
				next++
			}
			b.ReportMetric(float64(next)/b.Elapsed().Seconds(), "rows/s")
		})
	}
}
