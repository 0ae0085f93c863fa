package telemetry

import (
	"math/rand/v2"
	"net/http"
)

// maxCorrelationID is how many bytes of somebody else's id are taken over.
const maxCorrelationID = 64

// CorrelationID returns what the lines of the log about a request have in
// common: its Headgate-Correlation-Id or else its X-Request-Id, if that is 1 to
// 64 of the characters A-Z a-z 0-9 . _ - and does not look like a secret, or else
// 16 hexadecimal digits drawn by lot. They are no secret and can be guessed.
func CorrelationID(r *http.Request) string {
	for _, name := range [...]string{"Headgate-Correlation-Id", "X-Request-Id"} {
		if id := r.Header.Get(name); sane(id) {
			return id
		}
	}
	const digits = "0123456789abcdef"
	var id [16]byte
	n := rand.Uint64()
	for i := range id {
		id[i] = digits[n>>(4*i)&15]
	}
	return string(id[:])
}

func sane(id string) bool {
	if id == "" || len(id) > maxCorrelationID || hasSecret(id) {
		return false
	}
	for i := range len(id) {
		switch c := id[i]; {
		case c >= 'A' && c <= 'Z', c >= 'a' && c <= 'z', c >= '0' && c <= '9', c == '.', c == '_', c == '-':
		default:
			return false
		}
	}
	return true
}
