// Package ratehdr reads what an answer says about when to come again, and
// writes it.
//
// Its parsers are given text from servers that may be wrong, broken or
// hostile, and their results become waits. So every wait that they return is
// from 0 to [Max], whatever they are given; what can't be read, is negative,
// overflows or is above Max is reported as missing, never clamped: a caller
// that finds nothing falls back to its own backoff, which is a better guess
// than a number that makes no sense.
package ratehdr

import (
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Max is the longest wait that is believed: 31 days, the longest month, for
// quotas that are counted by the month. Anything above is read as missing.
const Max = 31 * 24 * time.Hour

// dateTrust is how far from our clock an answer's Date may be and still
// overrule the clock in every case.
const dateTrust = 24 * time.Hour

// dateForms are the three forms of RFC 9110, section 5.6.7. They are spelled
// out because [http.ParseTime] accepts any zone in the second one and reads
// it as GMT.
var dateForms = [...]string{
	http.TimeFormat,
	"Monday, 02-Jan-06 15:04:05 GMT",
	time.ANSIC,
}

// RetryAfter returns the wait that h asks for in Retry-After; ok is false if
// it asks for none, or for none that can be believed.
//
// It reads seconds, whole ("42") or with a fraction ("0.25", which RFC 9110
// does not know and servers send), and HTTP dates. Of several values, in
// several fields or joined by commas, the longest readable wait counts.
//
// A date is taken relative to the answer's own Date, so that a clock that is
// wrong here does no harm, and rounded up to the second; without a Date it
// is relative to now. A Date that is more than a day from now is believed
// only if the Retry-After makes sense beside it. A date in the past is a
// wait of 0.
func RetryAfter(h http.Header, now time.Time) (wait time.Duration, ok bool) {
	for _, list := range h["Retry-After"] {
		for list != "" {
			var item string
			item, list = cutItem(list)
			w, valid := parseItem(item, h, now)
			if valid {
				wait, ok = max(wait, w), true
			}
		}
	}
	return wait, ok
}

// Format returns wait as the value of a Retry-After field: whole seconds,
// never less than wait. A negative wait is "0".
//
// For waits up to [Max], [RetryAfter] reads the value back.
func Format(wait time.Duration) string {
	if wait <= 0 {
		return "0"
	}
	s := int64(wait / time.Second)
	if wait%time.Second > 0 {
		s++
	}
	return strconv.FormatInt(s, 10)
}

// cutItem cuts the first item off a comma-separated list. The comma after
// the name of a day belongs to a date.
func cutItem(list string) (item, rest string) {
	i := strings.IndexByte(list, ',')
	if i < 0 {
		return list, ""
	}
	if letters(strings.Trim(list[:i], " \t")) {
		j := strings.IndexByte(list[i+1:], ',')
		if j < 0 {
			return list, ""
		}
		i += 1 + j
	}
	return list[:i], list[i+1:]
}

func letters(s string) bool {
	for i := range len(s) {
		if !letter(s[i]) {
			return false
		}
	}
	return s != ""
}

func parseItem(s string, h http.Header, now time.Time) (time.Duration, bool) {
	s = strings.Trim(s, " \t")
	if s == "" {
		return 0, false
	}
	if digit(s[0]) {
		w, n, ok := seconds(s)
		if !ok || n != len(s) {
			return 0, false
		}
		return w, true
	}
	at, ok := parseDate(s)
	if !ok {
		return 0, false
	}
	return until(at, h, now)
}

// until returns the wait from the moment of the answer to at.
func until(at time.Time, h http.Header, now time.Time) (time.Duration, bool) {
	wait := at.Sub(now)
	if v := h["Date"]; len(v) > 0 {
		if date, ok := parseDate(strings.Trim(v[0], " \t")); ok {
			w := at.Sub(date)
			sensible := w >= 0 && w <= Max
			near := date.Sub(now).Abs() <= dateTrust
			if sensible || near {
				wait = w
			}
		}
	}
	switch {
	case wait <= 0:
		return 0, true
	case wait > Max:
		return 0, false
	}
	if part := wait % time.Second; part > 0 {
		wait += time.Second - part
	}
	return wait, true
}

func parseDate(s string) (time.Time, bool) {
	for _, form := range dateForms {
		if t, err := time.Parse(form, s); err == nil {
			return t, true
		}
	}
	return time.Time{}, false
}

func digit(c byte) bool { return '0' <= c && c <= '9' }

// seconds reads a number of seconds, digits with an optional fraction, at
// the start of s, and returns it with the number of bytes read. A fraction
// below a nanosecond is rounded up. It does not allocate.
func seconds[T string | []byte](s T) (wait time.Duration, n int, ok bool) {
	const most = int64(Max / time.Second)
	var whole int64
	for n < len(s) && digit(s[n]) {
		whole = min(whole*10+int64(s[n]-'0'), most+1)
		n++
	}
	if n == 0 {
		return 0, 0, false
	}
	var nanos int64
	if n+1 < len(s) && s[n] == '.' && digit(s[n+1]) {
		n++
		unit, up := int64(time.Second), int64(0)
		for n < len(s) && digit(s[n]) {
			d := int64(s[n] - '0')
			n++
			if unit /= 10; unit > 0 {
				nanos += d * unit
			} else if d > 0 {
				up = 1
			}
		}
		nanos += up
	}
	if whole > most || whole == most && nanos > 0 {
		return 0, n, false
	}
	return time.Duration(whole)*time.Second + time.Duration(nanos), n, true
}
