package gateway

import (
	"encoding/json"
	"net/http"
	"testing"
)

// What is stored is JSON, whatever stands in it.
func TestEncodeExtra(t *testing.T) {
	odd := []string{"", "application/json", `a"b\c`, "<&>", "tab\t", "\x00\x1f\x7f", "ünï\u2028", "\xff\xfe", "{}", `\`, `\"`}
	for _, callback := range odd {
		for _, value := range odd {
			for _, h := range []http.Header{
				{}, {"User-Agent": {value}}, {"Accept": {value, callback}, "If-Match": {value}, "User-Agent": {"x"}},
			} {
				want, err := json.Marshal(extra{Header: h, Callback: callback})
				must(t, err)
				request := h.Clone()
				request["Authorization"], request["Content-Type"] = []string{"secret"}, []string{}
				if got := encodeExtra(request, callback); string(got) != string(want) {
					t.Errorf("%q, %q: %s, want %s", h, callback, got, want)
				}
			}
		}
	}
}
