package telemetry

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"regexp"
	"strings"
)

// opener is what a secret follows: the scheme of a bearer token or of Basic
// credentials with what separates it from them however it is written, or begins
// with: the prefix of the gateway's keys.
var opener = regexp.MustCompile(`(?i)(?:bearer|basic)(?:[\s"'\\:=+,\[(]|%20|%22|%3a|\\[nrt])+|hg_`)

// token is what credentials are written in (token68 of RFC 7235, and "%" for
// those that were escaped).
const token = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~+/%="

// mask is what stands for a secret.
const mask = "[masked]"

// mayHold reports whether s has what every secret begins with. It is quick,
// because nearly every line of a log ends here.
func mayHold(s string) bool {
	for i := range len(s) {
		switch s[i] | 0x20 { // in lower case, if it is a letter
		case 'b':
			if hasPrefixFold(s[i:], "bearer") || hasPrefixFold(s[i:], "basic") {
				return true
			}
		case 'h':
			if hasPrefixFold(s[i:], "hg_") {
				return true
			}
		}
	}
	return false
}

func hasPrefixFold(s, prefix string) bool {
	return len(s) >= len(prefix) && strings.EqualFold(s[:len(prefix)], prefix)
}

func hasSecret(s string) bool { return masked(s) != s }

// masked masks too much rather than too little: "basic thing" is masked, and in
// "basic bearer x" both "bearer", which might be the secret of the first, and "x".
func masked(s string) string {
	if !mayHold(s) {
		return s
	}
	var b strings.Builder
	done := 0
	for _, at := range opener.FindAllStringIndex(s, -1) {
		start := at[1]
		if start < done {
			continue // within what was masked
		}
		end := len(s) - len(strings.TrimLeft(s[start:], token))
		if end == start {
			continue
		}
		b.WriteString(s[done:start])
		b.WriteString(mask)
		done = end
	}
	b.WriteString(s[done:])
	return b.String()
}

// Redact returns a handler that masks, in messages, keys and values, what looks
// like a bearer token, Basic credentials or a key of the gateway, and hands the
// rest to h as it is. It is a last line of defence: nobody is to log a secret.
func Redact(h slog.Handler) slog.Handler { return redacting{h} }

type redacting struct{ slog.Handler }

func (r redacting) Handle(ctx context.Context, record slog.Record) error {
	clean := slog.NewRecord(record.Time, record.Level, masked(record.Message), record.PC)
	record.Attrs(func(a slog.Attr) bool {
		clean.AddAttrs(redact(a))
		return true
	})
	return r.Handler.Handle(ctx, clean)
}

func (r redacting) WithAttrs(attrs []slog.Attr) slog.Handler {
	return redacting{r.Handler.WithAttrs(redactAll(attrs))}
}

func (r redacting) WithGroup(name string) slog.Handler {
	return redacting{r.Handler.WithGroup(masked(name))}
}

func redactAll(attrs []slog.Attr) []slog.Attr {
	clean := make([]slog.Attr, len(attrs))
	for i, a := range attrs {
		clean[i] = redact(a)
	}
	return clean
}

func redact(a slog.Attr) slog.Attr {
	v := a.Value.Resolve()
	switch v.Kind() {
	case slog.KindString:
		v = slog.StringValue(masked(v.String()))
	case slog.KindGroup:
		v = slog.GroupValue(redactAll(v.Group())...)
	case slog.KindAny:
		v = redactAny(v)
	}
	return slog.Attr{Key: masked(a.Key), Value: v}
}

// redactAny looks at each form in which a handler may write a value, and makes
// it a string if there is something in one of them.
func redactAny(v slog.Value) slog.Value {
	text := fmt.Sprintf("%+v", v.Any())
	if b, ok := v.Any().([]byte); ok {
		text = string(b)
	}
	if hasSecret(text) {
		return slog.StringValue(masked(text))
	}
	if _, ok := v.Any().(error); ok {
		return v
	}
	if b, err := json.Marshal(v.Any()); err == nil && hasSecret(string(b)) {
		return slog.StringValue(masked(string(b)))
	}
	return v
}
