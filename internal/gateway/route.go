package gateway

import (
	"net"
	"net/http"
	"net/url"
	"strings"
	"unicode/utf8"
)

// target is where the path of a request leads.
type target int

const (
	nowhere target = iota
	toAPI          // below /api/, to the platform
	toLogin        // /oauth/token
)

// route says what a request is for.
type route struct {
	org    *org // nil: the path and the host name none
	target target
	path   string // what goes to the platform, as it was escaped
}

const (
	apiPrefix = "/api/"
	loginPath = "/oauth/token"
)

// checkTarget refuses requests whose target could mean something else to whoever
// gets it next than it means here. Whatever passes is sent to the org's own
// host, with the path as it came.
func checkTarget(r *http.Request) *problem {
	if r.Method == http.MethodConnect || r.URL.Host != "" || r.URL.Scheme != "" || r.URL.Opaque != "" || r.URL.User != nil {
		return badRequest.problem("the request's target must be a path, such as /api/v2/users/me: this is no forward proxy")
	}
	if strings.ContainsFunc(r.Method, func(c rune) bool { return !isTokenRune(c) }) {
		return badRequest.problem("the method is none: HTTP/2 lets more through than HTTP/1 could carry")
	}
	if r.Method == http.MethodTrace || r.Method == "TRACK" {
		return wrongMethod.problem("the answer to " + r.Method + " would repeat what only the platform is to see")
	}
	if part := badTarget(r.RequestURI); part != "" {
		return badRequest.problem("the request's target holds " + part + ", which is not passed on")
	}
	if part := badPath(r.URL.EscapedPath()); part != "" {
		return badRequest.problem("the path holds " + part + ", which is not passed on")
	}
	if len(r.Header["Authorization"]) > 1 {
		return badRequest.problem("the header field Authorization: is there more than once")
	}
	return checkUpgrade(r)
}

// checkUpgrade refuses what is no HTTP. An offer of HTTP/2, which some clients
// make with each first request, may be left unanswered (RFC 9110 §7.8), and must
// not travel.
func checkUpgrade(r *http.Request) *problem {
	for _, offer := range r.Header["Upgrade"] {
		if !strings.EqualFold(strings.TrimSpace(offer), "h2c") {
			return badRequest.problem("the header field Upgrade: the gateway speaks HTTP alone")
		}
	}
	r.Header.Del("Upgrade")
	r.Header.Del("HTTP2-Settings")
	return nil
}

// isTokenRune reports whether c may stand in a method (RFC 9110 §5.6.2).
func isTokenRune(c rune) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.ContainsRune("!#$%&'*+-.^_`|~", c)
}

// badTarget returns what is wrong with a target as it came, "" if nothing is. In
// HTTP/2 a space may stand in it, which would end it in HTTP/1.
func badTarget(target string) string {
	for i := range len(target) {
		switch c := target[i]; {
		case c <= ' ' || c == 0x7f:
			return "a control character or a space"
		case c == '#':
			return "a fragment"
		}
	}
	return ""
}

// badPath returns what is wrong with an escaped path, "" if nothing is.
func badPath(path string) string {
	if !strings.HasPrefix(path, "/") {
		return "no slash at its beginning"
	}
	for i := 0; i < len(path); i++ {
		switch c := path[i]; {
		case c == '\\':
			return "a backslash"
		case c <= ' ' || c == 0x7f:
			return "a control character or a space"
		case c == '%':
			if i+2 >= len(path) {
				return "a broken escape"
			}
			switch strings.ToLower(path[i+1 : i+3]) {
			case "2f", "5c":
				return "an escaped slash"
			case "2e":
				return "an escaped dot"
			}
			if path[i+1] == '0' || path[i+1] == '1' || strings.EqualFold(path[i+1:i+3], "7f") {
				return "an escaped control character"
			}
		}
	}
	for segment := range strings.SplitSeq(path[1:], "/") {
		segment, _, _ = strings.Cut(segment, ";") // some servers cut there
		if segment == "." || segment == ".." {
			return "a dot segment"
		}
	}
	if strings.Contains(path, "//") {
		return "an empty segment"
	}
	// Of a byte that is no UTF-8 some servers make a dot or a slash.
	if plain, err := url.PathUnescape(path); err != nil || !utf8.ValidString(plain) {
		return "what is no UTF-8"
	}
	return ""
}

// route finds the org that the path, or else the host, names.
func (s *setting) route(r *http.Request) route {
	path := r.URL.EscapedPath()
	if first, rest, ok := strings.Cut(path[1:], "/"); ok {
		if o := s.byPath["/"+first]; o != nil {
			return route{org: o, target: targetOf("/" + rest), path: "/" + rest}
		}
	}
	return route{org: s.byHost[hostOf(r.Host)], target: targetOf(path), path: path}
}

// plainPath returns path, the end of the request's, unescaped. What is before it
// is as long either way: no org's path has anything to escape.
func plainPath(r *http.Request, path string) string {
	return r.URL.Path[len(r.URL.EscapedPath())-len(path):]
}

// targetOf says what a path without the org's prefix is for. The SDKs have
// prefixes of their own for the login, which is allowed to be there as well.
func targetOf(path string) target {
	switch {
	case strings.HasPrefix(path, apiPrefix):
		return toAPI
	case path == loginPath || path == "/login"+loginPath:
		return toLogin
	}
	return nowhere
}

// hostOf returns the host without its port, in lower case.
func hostOf(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	return strings.ToLower(strings.Trim(host, "[]"))
}
