package progress

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// counted returns how many ended, of how many.
func counted(s Snapshot) string {
	if s.Total <= 0 {
		return group(s.Ended()) + " ended"
	}
	return group(s.Ended()) + "/" + group(s.Total)
}

// speed returns the rate, "" if there is none to tell.
func speed(s Snapshot) string {
	switch {
	case !(s.Rate > 0): // NaN too
		return ""
	case s.Rate < 0.095:
		return strconv.FormatFloat(min(s.Rate*60, 60), 'f', 1, 64) + "/min"
	case s.Rate < 99.95:
		return strconv.FormatFloat(s.Rate, 'f', 1, 64) + "/s"
	}
	return group(int64(min(s.Rate, 1e15)+0.5)) + "/s"
}

// left returns the time left, "" if it is not known or over.
func left(s Snapshot) string {
	if !s.LeftKnown || s.Left <= 0 {
		return ""
	}
	return brief(s.Left) + " left"
}

// percent returns how much ended; 100 % is all of it and nothing less.
func percent(s Snapshot) string {
	if s.Total <= 0 {
		return ""
	}
	return strconv.FormatInt(int64(100*(float64(s.Ended())/float64(s.Total))), 10) + "%"
}

// details returns what else there is to say, the most important first.
func details(s Snapshot) []string {
	var d []string
	add := func(text string) {
		if text != "" {
			d = append(d, clean(text))
		}
	}
	some := func(n int64, what string) {
		if n > 0 {
			add(group(n) + " " + what)
		}
	}
	add(s.Note)
	if s.WaitingFor != "" {
		add("waits for " + s.WaitingFor)
	}
	some(s.Failed, "failed")
	some(s.Expired, "expired")
	some(s.Unknown, "unknown")
	if s.Refused > 0 {
		add(group(s.Refused) + "× 429")
	}
	some(s.Retried, "retried")
	some(s.InFlight, "in flight")
	some(s.Waiting, "waiting")
	return d
}

// group writes n with a comma between thousands.
func group(n int64) string {
	s := strconv.FormatInt(n, 10)
	digits := strings.TrimPrefix(s, "-")
	if len(digits) <= 3 {
		return s
	}
	var b strings.Builder
	b.WriteString(s[:len(s)-len(digits)])
	for i := range len(digits) {
		if i > 0 && (len(digits)-i)%3 == 0 {
			b.WriteByte(',')
		}
		b.WriteByte(digits[i])
	}
	return b.String()
}

// brief writes d in two units at most, rounded up to the second: 9s, 2m05s,
// 1h02m, 3d04h.
func brief(d time.Duration) string {
	s := int64(d / time.Second)
	if d%time.Second > 0 {
		s++
	}
	switch m, h := s/60, s/3600; {
	case s < 60:
		return fmt.Sprintf("%ds", s)
	case m < 60:
		return fmt.Sprintf("%dm%02ds", m, s%60)
	case h < 24:
		return fmt.Sprintf("%dh%02dm", h, m%60)
	default:
		return fmt.Sprintf("%dd%02dh", h/24, h%24)
	}
}

// clean replaces what could move the cursor or hide text: names and messages
// come from servers and files.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\t':
			return ' '
		case unicode.IsControl(r), unicode.Is(unicode.Cf, r), r == utf8.RuneError:
			return '?'
		}
		return r
	}, s)
}

// ascii reports whether the environment's locale can't show other signs.
func ascii(getenv func(string) string) bool {
	for _, name := range []string{"LC_ALL", "LC_CTYPE", "LANG"} {
		if v := strings.ToLower(getenv(name)); v != "" {
			return !strings.Contains(v, "utf-8") && !strings.Contains(v, "utf8")
		}
	}
	return true
}

// toASCII replaces the signs that this package itself uses.
func toASCII(s string) string {
	return strings.NewReplacer("×", "x", "·", "|", "…", "...").Replace(s)
}
