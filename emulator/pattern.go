package emulator

import (
	"fmt"
	"slices"
	"strings"
)

// pattern is a parsed Match: an optional method and the path's segments.
type pattern struct {
	method   string
	segments []string // nil matches everything under /api
}

func validatePattern(field, s string) error {
	if s == "" {
		return nil
	}
	p := parsePattern(s)
	if len(p.segments) == 0 || p.segments[0] != "" {
		return fmt.Errorf("emulator: %s must be a path that begins with /, or a method, a space and such a path, got %q", field, s)
	}
	if slices.Contains(p.segments[:len(p.segments)-1], "**") {
		return fmt.Errorf("emulator: %s may have ** only at its end, got %q", field, s)
	}
	return nil
}

func parsePattern(s string) pattern {
	if s == "" {
		return pattern{}
	}
	var p pattern
	path := s
	if method, rest, ok := strings.Cut(s, " "); ok {
		p.method, path = method, rest
	}
	p.segments = strings.Split(path, "/")
	return p
}

func (p pattern) matches(method, path string) bool {
	if p.segments == nil {
		return path == "/api" || strings.HasPrefix(path, "/api/")
	}
	if p.method != "" && p.method != method {
		return false
	}
	more := true
	for _, seg := range p.segments {
		if seg == "**" {
			return true
		}
		if !more {
			return false
		}
		var have string
		have, path, more = strings.Cut(path, "/")
		if seg != have && (seg != "*" || have == "") {
			return false
		}
	}
	return !more
}
