package telemetry

import (
	"net/http"
	"regexp"
	"strings"
	"testing"
)

func TestCorrelationID(t *testing.T) {
	made := regexp.MustCompile(`^[0-9a-f]{16}$`)
	for _, test := range []struct {
		ours, theirs string
		want         string // "": one is made
	}{
		{"", "", ""},
		{"", "a1B2._-z", "a1B2._-z"},
		{"ours", "theirs", "ours"},
		{"", strings.Repeat("x", 64), strings.Repeat("x", 64)},
		{"", strings.Repeat("x", 65), ""},
		{"", "with space", ""},
		{"", "line\nbreak", ""},
		{"", "ä", ""},
		{"", "hg_abcdefgh", ""},
		{"not sane!", "sane", "sane"},
	} {
		r := &http.Request{Header: http.Header{}}
		for name, value := range map[string]string{"Headgate-Correlation-Id": test.ours, "X-Request-Id": test.theirs} {
			if value != "" {
				r.Header.Set(name, value)
			}
		}
		got := CorrelationID(r)
		if test.want != "" && got != test.want || test.want == "" && !made.MatchString(got) {
			t.Errorf("%q, %q: %q, want %q", test.ours, test.theirs, got, test.want)
		}
	}
	r := &http.Request{Header: http.Header{}}
	if one, two := CorrelationID(r), CorrelationID(r); one == two {
		t.Error("the same id twice")
	}
}

func BenchmarkCorrelationID(b *testing.B) {
	r := &http.Request{Header: http.Header{}}
	b.ReportAllocs()
	for b.Loop() {
		CorrelationID(r)
	}
}
