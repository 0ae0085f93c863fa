package ratehdr

import "time"

// InMessage returns the wait that the message of an error asks for, for
// servers that leave Retry-After out. text may be the message, or the whole
// body as it came. It knows the wording of Genesys Cloud,
//
//	Rate limit exceeded the maximum. Retry the request in [42] seconds
//
// with or without the brackets, and its usual relatives: "retry" or "try
// again", optionally "the request" or "your request", "in" or "after", the
// number, and "s", "sec" or "seconds", in capitals or not. If it is there
// several times, the longest wait counts.
//
// The older wording, "Rate limit exceeded the maximum [300] requests within
// [60] seconds", is missing here: 300 is the limit, and 60 the length of its
// window, which bounds the wait from above and is as a rule far too long.
// Backoff finds the end of the window sooner.
func InMessage(text []byte) (wait time.Duration, ok bool) {
	for i := range text {
		if c := text[i] | 0x20; c != 'r' && c != 't' || i > 0 && letter(text[i-1]) {
			continue
		}
		if w, valid := request(text[i:]); valid {
			wait, ok = max(wait, w), true
		}
	}
	return wait, ok
}

// request reads one request to come again at the start of s.
func request(s []byte) (time.Duration, bool) {
	s, ok := word(s, "retry")
	if !ok {
		if s, ok = word(s, "try"); !ok {
			return 0, false
		}
		if s, ok = word(s, "again"); !ok {
			return 0, false
		}
	}
	for _, filler := range [...]string{"the", "your", "this", "request"} {
		s, _ = word(s, filler)
	}
	if s, ok = word(s, "in"); !ok {
		if s, ok = word(s, "after"); !ok {
			return 0, false
		}
	}
	bracket := len(s) > 0 && s[0] == '['
	if bracket {
		s = s[1:]
	}
	wait, n, ok := seconds(s)
	if !ok {
		return 0, false
	}
	s = s[n:]
	if bracket {
		if len(s) == 0 || s[0] != ']' {
			return 0, false
		}
		s = s[1:]
	}
	for len(s) > 0 && s[0] == ' ' {
		s = s[1:]
	}
	for _, unit := range [...]string{"seconds", "second", "secs", "sec", "s"} {
		if _, ok := word(s, unit); ok {
			return wait, true
		}
	}
	return 0, false
}

// word takes a lower-case word, in capitals or not, and the spaces and
// colons after it off the start of s.
func word(s []byte, w string) (rest []byte, ok bool) {
	if len(s) < len(w) {
		return s, false
	}
	for i := range len(w) {
		if s[i]|0x20 != w[i] {
			return s, false
		}
	}
	rest = s[len(w):]
	if len(rest) > 0 && letter(rest[0]) {
		return s, false
	}
	for len(rest) > 0 && (rest[0] == ' ' || rest[0] == ':') {
		rest = rest[1:]
	}
	return rest, true
}

func letter(c byte) bool {
	c |= 0x20
	return 'a' <= c && c <= 'z'
}
