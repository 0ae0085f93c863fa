package config

import (
	"errors"
	"math"
	"net"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"

	"github.com/headgate/headgate"
	"github.com/headgate/headgate/internal/keys"
)

// kind is what a single value can be.
type kind[T any] struct {
	takes  string
	bare   bool // not in quotes
	secret bool // messages don't repeat it
	// parse returns errKind, or what is wrong in its own words.
	parse func(text string) (T, error)
}

// errKind is an error that the kind's takes says all about.
var errKind = errors.New("")

// one is a key with a single value.
func one[T any](name string, into *T, k kind[T]) key {
	return key{name: name, takes: k.takes, read: func(r *reader, v value) {
		if x, ok := take(r, v, k); ok {
			*into = x
		}
	}}
}

// take reads a single value.
func take[T any](r *reader, v value, k kind[T]) (x T, ok bool) {
	w, ok := scalar(v.node)
	if !ok {
		r.wrong(v, k.takes)
		return x, false
	}
	if w.quoted && k.bare {
		r.bad(v, "is a text in quotes: takes %s", k.takes)
		return x, false
	}
	x, err := k.parse(w.text)
	switch {
	case err == nil:
		return x, true
	case err != errKind:
		r.bad(v, "%v", err)
	case w.text == "":
		r.bad(v, "is empty: takes %s", k.takes)
	case k.secret || r.hide:
		r.bad(v, "takes %s", k.takes)
	default:
		r.bad(v, "%q: takes %s", r.shown(w.text), k.takes)
	}
	return x, false
}

// several is a key with one value, or several with commas between, or a list.
func several[T any](name string, into *[]T, k kind[T]) key {
	takes := k.takes + ", or a list of them"
	return key{name: name, takes: takes, read: func(r *reader, v value) {
		*into = nil
		add := func(v value) {
			if x, ok := take(r, v, k); ok {
				*into = append(*into, x)
			}
		}
		w, ok := scalar(v.node)
		if !ok || !strings.Contains(w.text, ",") {
			r.oneOrList(v, add)
			return
		}
		for i, part := range strings.Split(w.text, ",") {
			add(value{&ast.StringNode{Value: strings.TrimSpace(part)}, v.field + "[" + strconv.Itoa(i) + "]", v.at})
		}
	}}
}

// oneOrList calls f with a single value, or with each of a list.
func (r *reader) oneOrList(v value, f func(value)) {
	if list, ok := v.node.(*ast.SequenceNode); ok && len(list.Values) > 0 {
		r.each(v, list, f)
		return
	}
	f(v)
}

var (
	flag = kind[bool]{takes: "true or false", bare: true, parse: func(s string) (bool, error) {
		switch strings.ToLower(s) {
		case "true":
			return true, nil
		case "false":
			return false, nil
		}
		return false, errKind
	}}
	keyHash = kind[keys.Hash]{takes: keys.ErrHash.Error(), secret: true, parse: func(s string) (keys.Hash, error) {
		h, err := keys.ParseHash(s)
		switch {
		case err == nil:
			return h, nil
		case keys.Check(s) == nil:
			return h, errors.New("is the key itself, which now counts as known to others: make another with headgate key new, and write the hash that it prints")
		}
		return h, errKind
	}}
)

// pathOf is the path of a file or a folder.
func pathOf(what string) kind[string] {
	return kind[string]{takes: "the path of a " + what, parse: func(s string) (string, error) {
		if strings.TrimSpace(s) == "" || strings.ContainsRune(s, 0) {
			return "", errKind
		}
		return s, nil
	}}
}

// called is a text of another description.
func called(takes string, pattern *regexp.Regexp) kind[string] {
	return kind[string]{takes: takes, parse: func(s string) (string, error) {
		if !pattern.MatchString(s) {
			return "", errKind
		}
		return s, nil
	}}
}

// count is a whole number from least to most.
func count[T int | int64](least, most T) kind[T] {
	takes := "a whole number from " + strconv.FormatInt(int64(least), 10)
	if int64(most) < math.MaxInt32 {
		takes += " to " + strconv.FormatInt(int64(most), 10)
	}
	return kind[T]{takes: takes, bare: true, parse: func(s string) (T, error) {
		n, err := strconv.ParseInt(strings.ReplaceAll(s, "_", ""), 10, 64)
		if err != nil || n < int64(least) || n > int64(most) {
			return 0, errKind
		}
		return T(n), nil
	}}
}

// number is a number from least to most.
func number(least, most float64) kind[float64] {
	takes := "a number from " + strconv.FormatFloat(least, 'g', -1, 64) + " to " + strconv.FormatFloat(most, 'f', -1, 64)
	return kind[float64]{takes: takes, bare: true, parse: func(s string) (float64, error) {
		n, err := strconv.ParseFloat(s, 64)
		if err != nil || !(n >= least && n <= most) {
			return 0, errKind
		}
		return n, nil
	}}
}

// span is a time of at least least.
func span(least time.Duration) kind[time.Duration] {
	takes := "a time such as 300ms, 5m, 7d or 5 (seconds)"
	if least > time.Nanosecond {
		takes += ", at least " + least.String()
	}
	return kind[time.Duration]{takes: takes, parse: func(s string) (time.Duration, error) {
		d, ok := parseSpan(s)
		if !ok || d < least {
			return 0, errKind
		}
		return d, nil
	}}
}

// maxSpan is longer than anything here lasts.
const maxSpan = 10 * 365 * 24 * time.Hour

func parseSpan(s string) (d time.Duration, ok bool) {
	if n, err := strconv.ParseFloat(s, 64); err == nil {
		if !(n >= 0 && n <= maxSpan.Seconds()) {
			return 0, false
		}
		return time.Duration(n * float64(time.Second)), true
	}
	if days, rest, found := strings.Cut(s, "d"); found {
		n, err := strconv.ParseUint(days, 10, 16)
		d, s = time.Duration(n)*24*time.Hour, rest
		if err != nil || s == "" {
			return d, err == nil && d <= maxSpan
		}
	}
	more, err := time.ParseDuration(s)
	return d + more, err == nil && more >= 0 && more <= maxSpan && d+more <= maxSpan
}

// size is a number of bytes of at least least.
func size(least int64) kind[int64] {
	return kind[int64]{takes: "a size such as 64KiB, 32MiB, 4GiB, 512kB or bytes, at least " + strconv.FormatInt(least, 10), parse: func(s string) (int64, error) {
		n, ok := parseSize(s)
		if !ok || n < least {
			return 0, errKind
		}
		return n, nil
	}}
}

var units = map[string]float64{
	"": 1, "b": 1, "kb": 1e3, "mb": 1e6, "gb": 1e9, "tb": 1e12,
	"kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "tib": 1 << 40,
}

func parseSize(s string) (int64, bool) {
	i := len(s)
	for i > 0 && (s[i-1] >= 'a' && s[i-1] <= 'z' || s[i-1] >= 'A' && s[i-1] <= 'Z') {
		i--
	}
	unit, ok := units[strings.ToLower(s[i:])]
	n, err := strconv.ParseFloat(strings.ReplaceAll(strings.TrimSpace(s[:i]), "_", ""), 64)
	n *= unit
	if !ok || err != nil || !(n >= 0 && n <= 1<<50) {
		return 0, false
	}
	return int64(n), true
}

// share is 30% or 0.3: above 0, at most 1.
var share = kind[float64]{takes: "a share such as 30% or 0.3, above 0 and at most 100%", parse: func(s string) (float64, error) {
	digits, percent := strings.CutSuffix(s, "%")
	n, err := strconv.ParseFloat(strings.TrimSpace(digits), 64)
	if percent {
		n /= 100
	}
	if err != nil || !(n > 0 && n <= 1) {
		return 0, errKind
	}
	return n, nil
}}

// rate is so many for each time; learned is the word that tells nothing.
type rate struct {
	n       float64
	per     time.Duration
	learned bool
}

func (r rate) perSecond() float64 {
	if r.per == 0 {
		return 0
	}
	return r.n / r.per.Seconds()
}

const wordLearn = "learn"

func rates(learned bool) kind[rate] {
	takes := "a rate such as 50/s or 300/min"
	if learned {
		takes += ", or " + wordLearn
	}
	return kind[rate]{takes: takes, parse: func(s string) (r rate, err error) {
		if learned && s == wordLearn {
			return rate{learned: true}, nil
		}
		r.n, r.per, err = headgate.ParseRate(s)
		if err != nil || r.perSecond() > 1e9 {
			return rate{}, errKind
		}
		return r, nil
	}}
}

// wordOf is one of the words of an enumeration.
func wordOf[T any, P interface {
	*T
	UnmarshalText([]byte) error
}](takes string) kind[T] {
	return kind[T]{takes: takes, parse: func(s string) (x T, err error) {
		if P(&x).UnmarshalText([]byte(s)) != nil {
			return x, errKind
		}
		return x, nil
	}}
}

var hostName = regexp.MustCompile(`^([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?$`)

// host is the name of a host without a port, host with one too.
var (
	host = kind[string]{takes: "the name of a host such as acme.gw.example.com, without https:// and port", parse: func(s string) (string, error) {
		s = strings.ToLower(s)
		if ip := net.ParseIP(s); ip != nil {
			return s, nil
		}
		if len(s) > 253 || !hostName.MatchString(s) {
			return "", errKind
		}
		return s, nil
	}}
	hostAndPort = kind[string]{takes: "the name of a host such as hooks.example.com, with a port if it is not the usual one, without https://", parse: func(s string) (string, error) {
		name, port, err := net.SplitHostPort(s)
		if err != nil {
			if name, err = host.parse(s); strings.Contains(name, ":") {
				name = "[" + name + "]" // as in an address
			}
			return name, err
		}
		name, err = host.parse(name)
		if n, nerr := strconv.ParseUint(port, 10, 16); err != nil || nerr != nil || n == 0 {
			return "", errKind
		}
		return net.JoinHostPort(name, port), nil
	}}
	listenAddress = kind[string]{takes: "an address such as 127.0.0.1:8080, [::1]:8080 or :8080 (every address of the machine)", parse: func(s string) (string, error) {
		name, port, err := net.SplitHostPort(s)
		if _, perr := strconv.ParseUint(port, 10, 16); err != nil || perr != nil {
			return "", errKind
		}
		if name != "" && net.ParseIP(name) == nil {
			if name, err = host.parse(name); err != nil {
				return "", errKind
			}
		}
		return net.JoinHostPort(name, port), nil
	}}
	// address is that of an API. Its messages never repeat what was given:
	// there may be a password in it.
	address = kind[string]{takes: "an address such as https://api.mypurecloud.ie, without a user, a query or a fragment", secret: true, parse: func(s string) (string, error) {
		u, err := url.Parse(s)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.User != nil ||
			u.RawQuery != "" || u.ForceQuery || strings.Contains(s, "#") {
			return "", errKind
		}
		u.Host = strings.ToLower(u.Host)
		return strings.TrimRight(u.String(), "/"), nil
	}}
)

// isLoopback reports whether only this machine reaches an address.
func isLoopback(address string) bool {
	name, _, err := net.SplitHostPort(address)
	if err != nil {
		name = address
	}
	ip := net.ParseIP(name)
	return name == "localhost" || ip != nil && ip.IsLoopback()
}
