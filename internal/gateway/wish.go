package gateway

import (
	"fmt"
	"math"
	"net/http"
	"net/textproto"
	"strconv"
	"strings"
	"time"

	"github.com/headgate/headgate"
)

// The header fields of a request by which a caller says how it is to be served.
const (
	fieldPrefer      = "Prefer"             // RFC 7240: respond-async, wait=SECONDS
	fieldPriority    = "Priority"           // RFC 9218: u=0..7
	fieldKey         = "Idempotency-Key"    // draft-ietf-httpapi-idempotency-key-header
	fieldDelivery    = "Headgate-Delivery"  // at-least-once, at-most-once
	fieldDeadline    = "Headgate-Deadline"  // seconds from now, or a date
	fieldCallback    = "Headgate-Callback"  // an URL
	fieldHeadgateKey = "Headgate-Key"       // a caller's key, where Authorization is for the platform
	fieldPrefix      = "Headgate-"          // all that are ours, in requests and answers
	maxKey           = 255                  // bytes of an Idempotency-Key
	maxWaitWish      = 24 * time.Hour       // of Prefer: wait
	maxDeadline      = 366 * 24 * time.Hour // of Headgate-Deadline
)

// defaultUrgency is that of RFC 9218 §4.1.
const defaultUrgency = 3

// wish is what a request asks of the gateway beside being sent.
type wish struct {
	urgency  int // 0 to 7, -1 if it does not say
	async    bool
	wait     time.Duration
	hasWait  bool
	key      string
	delivery *headgate.Delivery
	deadline time.Time
	callback string
}

// fieldError says which header field can't be understood, and what it takes.
type fieldError struct{ field, takes string }

func (e *fieldError) Error() string {
	return fmt.Sprintf("the header field %s can't be understood: it takes %s", e.field, e.takes)
}

// parseWish reads the fields above. now is when a deadline in seconds begins.
func parseWish(h http.Header, now time.Time) (w wish, err error) {
	w.urgency = -1
	if lines := h[fieldPriority]; len(lines) > 0 {
		w.urgency = parseUrgency(lines)
	}
	if lines := h[fieldPrefer]; len(lines) > 0 {
		if err := w.prefer(lines); err != nil {
			return w, err
		}
	}
	if lines := h[fieldKey]; len(lines) > 0 {
		var ok bool
		if w.key, ok = parseKey(lines); !ok {
			return w, &fieldError{fieldKey, fmt.Sprintf("one key of 1 to %d printable ASCII characters, bare or in quotes", maxKey)}
		}
	}
	if text := h.Get(fieldDelivery); text != "" {
		w.delivery = new(headgate.Delivery)
		if w.delivery.UnmarshalText([]byte(text)) != nil {
			return w, &fieldError{fieldDelivery, "at-least-once or at-most-once"}
		}
	}
	if text := h.Get(fieldDeadline); text != "" {
		var ok bool
		if w.deadline, ok = parseDeadline(text, now); !ok {
			return w, &fieldError{fieldDeadline, "seconds from now (such as 600), or a date such as 2026-11-25T09:00:00Z, in the coming year"}
		}
	}
	w.callback = h.Get(fieldCallback)
	return w, nil
}

// parseUrgency returns the urgency of a Priority field, -1 if it has none. What
// is out of range or of another type is left out, as RFC 9218 §4 wants it.
func parseUrgency(lines []string) int {
	urgency := -1
	for _, line := range lines {
		for member := range strings.SplitSeq(line, ",") {
			name, value, _ := strings.Cut(strings.Trim(member, " \t"), "=")
			value, _, _ = strings.Cut(value, ";")
			if name != "u" {
				continue
			}
			urgency = -1 // of several the last counts (RFC 8941 §3.2)
			if value = strings.TrimSpace(value); len(value) == 1 && value[0] >= '0' && value[0] <= '7' {
				urgency = int(value[0] - '0')
			}
		}
	}
	return urgency
}

// prefer reads Prefer fields. Preferences that are not known are not ours; of
// one that is given twice the first counts (RFC 7240 §2).
func (w *wish) prefer(lines []string) error {
	for _, line := range lines {
		for item := range strings.SplitSeq(line, ",") {
			item, _, _ = strings.Cut(item, ";")
			name, value, _ := strings.Cut(item, "=")
			value = strings.Trim(strings.TrimSpace(value), `"`)
			switch strings.ToLower(strings.TrimSpace(name)) {
			case "respond-async":
				w.async = true
			case "wait":
				if w.hasWait {
					continue
				}
				seconds, err := strconv.ParseFloat(value, 64)
				if err != nil || !(seconds >= 0 && seconds <= maxWaitWish.Seconds()) {
					return &fieldError{fieldPrefer, fmt.Sprintf("wait=SECONDS with 0 to %d", int(maxWaitWish.Seconds()))}
				}
				w.wait, w.hasWait = time.Duration(seconds*float64(time.Second)), true
			}
		}
	}
	return nil
}

// parseKey reads an Idempotency-Key: a string of structured fields, or bare, as
// most clients send it.
func parseKey(lines []string) (key string, ok bool) {
	if len(lines) != 1 {
		return "", false
	}
	key = textproto.TrimString(lines[0])
	if len(key) >= 2 && key[0] == '"' && key[len(key)-1] == '"' {
		key = key[1 : len(key)-1]
	}
	if key == "" || len(key) > maxKey {
		return "", false
	}
	for i := range len(key) {
		if key[i] < ' ' || key[i] > '~' || key[i] == '"' || key[i] == '\\' {
			return "", false
		}
	}
	return key, true
}

// parseDeadline reads seconds or a date.
func parseDeadline(text string, now time.Time) (time.Time, bool) {
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		at, err = http.ParseTime(text)
	}
	if err != nil {
		seconds, err := strconv.ParseFloat(text, 64)
		if err != nil || math.IsNaN(seconds) || seconds < 0 || seconds > maxDeadline.Seconds() {
			return time.Time{}, false
		}
		at = now.Add(time.Duration(seconds * float64(time.Second)))
	}
	return at, at.Sub(now) <= maxDeadline
}
