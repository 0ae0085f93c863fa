package bulk

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"maps"
	"strings"
	"testing"
	"unicode/utf8"
)

// Where encoding/csv can read an input as a whole, Read finds the same in it.
func FuzzCSV(f *testing.F) {
	for _, s := range []string{
		"a,b\n1,2\n", "a,b\r\n\"1\r\n\"\"\",2\r\n\r\n3,4", "a\n\"\n\n\"\n", "a,\"b,\"\n,\n", "a,b\n\"\",\"\"\n", "a\n\r\r\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, input []byte) {
		whole := csv.NewReader(bytes.NewReader(input))
		records, err := whole.ReadAll()
		if err != nil || len(records) == 0 || !utf8.Valid(input) || bytes.HasPrefix(input, []byte("\ufeff")) {
			return
		}
		header := records[0]
		if strings.TrimSpace(strings.Join(header, "")) == "" {
			return // Read looks further down for a header
		}
		var want []map[string]string
		for _, record := range records[1:] {
			if len(header) > 1 && strings.TrimSpace(strings.Join(record, "")) == "" {
				return // Read may have taken it for a blank line
			}
			row := map[string]string{}
			for i, name := range header {
				row[name] = record[i]
			}
			want = append(want, row)
		}
		i := 0
		for row, err := range Read(bytes.NewReader(input), Options{Format: CSV, Flow: "f"}) {
			if err != nil {
				return // a header that Read refuses and encoding/csv does not
			}
			var got map[string]string
			if row.Err != nil {
				t.Fatalf("row %d: %v", i, row.Err)
			}
			if err := json.Unmarshal(row.Body, &got); err != nil {
				t.Fatal(err)
			}
			if i >= len(want) || !maps.Equal(got, want[i]) {
				t.Fatalf("row %d is %q, want %q of %q", i, got, want[min(i, len(want)-1)], want)
			}
			i++
		}
		if i != len(want) {
			t.Fatalf("%d rows, want %d", i, len(want))
		}
	})
}
