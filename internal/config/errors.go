package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Problem is one thing that is wrong with a file, or that its owner should know.
type Problem struct {
	// File is the name of the file.
	File string
	// Line and Column count from 1. They are 1 if it is about something that
	// is not there.
	Line, Column int
	// Field is the path of the field, such as orgs.acme.limits[0].rate; "" for
	// the file as a whole.
	Field string
	// Message says what was given and what it takes. It holds no secret.
	Message string
}

// String writes file:line: field: message.
func (p Problem) String() string {
	where := p.File
	if p.Line > 0 {
		where = fmt.Sprintf("%s:%d", p.File, p.Line)
	}
	if p.Field == "" {
		return where + ": " + p.Message
	}
	return where + ": " + p.Field + ": " + p.Message
}

// Warning is something that works and that its owner should know.
type Warning = Problem

// Errors are all that is wrong with a file, by line. There is at least one.
type Errors []Problem

// Error writes one line for each.
func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i, p := range e {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

func byPlace(problems []Problem) {
	slices.SortStableFunc(problems, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
}
