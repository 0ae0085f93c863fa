package telemetry

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// loggers writes to each kind of handler, without the time.
func loggers(text, json io.Writer) []*slog.Logger {
	o := &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}
	return []*slog.Logger{
		slog.New(Redact(slog.NewTextHandler(text, o))),
		slog.New(Redact(slog.NewJSONHandler(json, o))),
	}
}

// valuer gives a value away when it is asked.
type valuer struct{ secret string }

func (v valuer) LogValue() slog.Value {
	return slog.GroupValue(slog.String("inner", v.secret), slog.Any("err", errors.New(v.secret)))
}

type pair struct{ Name, Value string }

// places are where a secret may stand in a log.
var places = map[string]func(l *slog.Logger, s string){
	"message": func(l *slog.Logger, s string) { l.Info("sent " + s) },
	"string":  func(l *slog.Logger, s string) { l.Info("x", "header", s) },
	"key":     func(l *slog.Logger, s string) { l.Info("x", s, 1) },
	"error":   func(l *slog.Logger, s string) { l.Info("x", "err", fmt.Errorf("posting: %w", errors.New(s))) },
	"group":   func(l *slog.Logger, s string) { l.Info("x", slog.Group("g", slog.Group("h", "v", s))) },
	"valuer":  func(l *slog.Logger, s string) { l.Info("x", "v", valuer{s}) },
	"header":  func(l *slog.Logger, s string) { l.Info("x", "h", http.Header{"Authorization": {s}}) },
	"struct":  func(l *slog.Logger, s string) { l.Info("x", "p", pair{"Authorization", s}) },
	"pointer": func(l *slog.Logger, s string) { l.Info("x", "p", &pair{"Authorization", s}) },
	"nested":  func(l *slog.Logger, s string) { l.Info("x", "p", []any{map[string]*pair{"p": {"a", s}}}) },
	"bytes":   func(l *slog.Logger, s string) { l.Info("x", "body", []byte(s)) },
	"with":    func(l *slog.Logger, s string) { l.With("header", s).Info("x") },
	"in with": func(l *slog.Logger, s string) { l.WithGroup(s).Info("x", "a", 1) },
	"deep":    func(l *slog.Logger, s string) { l.WithGroup("g").With("a", 1).WithGroup("h").Info("x", "v", s) },
}

func TestRedact(t *testing.T) {
	const token = "q7Zr-Xw_9.T~e+s/t0="
	for _, s := range []string{
		"Bearer " + token, "bearer  " + token, "BEARER\t" + token, `Authorization: "Bearer ` + token + `"`,
		"bearer=" + token, "Bearer%20" + token, "authorization=Basic+" + token, "Basic " + token,
		"x Bearer " + token + ", Basic " + token, "hg_" + token, "?key=hg_" + token, "HG_" + token,
	} {
		for place, write := range places {
			var text, json bytes.Buffer
			for _, l := range loggers(&text, &json) {
				write(l, s)
			}
			for _, out := range []string{text.String(), json.String()} {
				if strings.Contains(out, "q7Zr-Xw_9") || !strings.Contains(out, mask) {
					t.Errorf("%q as %s: %s", s, place, out)
				}
			}
		}
	}
}

func TestRedactLeavesTheRest(t *testing.T) {
	var with, without bytes.Buffer
	o := &slog.HandlerOptions{Level: slog.LevelInfo, AddSource: true}
	at := time.Date(2026, 11, 25, 9, 0, 0, 0, time.UTC)
	for _, h := range []slog.Handler{Redact(slog.NewJSONHandler(&with, o)), slog.NewJSONHandler(&without, o)} {
		if h.Enabled(t.Context(), slog.LevelDebug) {
			t.Error("the level is gone")
		}
		r := slog.NewRecord(at, slog.LevelWarn, "gate closed", 0)
		r.AddAttrs(slog.Int("n", 1), slog.Duration("wait", time.Second), slog.String("limit", "token.rate.per.minute"),
			slog.Any("err", io.ErrUnexpectedEOF), slog.Any("p", pair{"a", "b"}), slog.Any("nil", nil), slog.Bool("b", true), slog.Time("t", at))
		if err := h.WithAttrs([]slog.Attr{slog.String("org", "acme")}).WithGroup("g").Handle(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	if with.String() != without.String() {
		t.Errorf("%s is not %s", &with, &without)
	}
}

// Whatever stands around it and wherever it stands, no secret passes.
func FuzzRedact(f *testing.F) {
	f.Add("", "q7ZrXw9", "", uint8(0))
	f.Add("Authorization: ", "a.b-c", "\n", uint8(1))
	f.Add("\xff\"", "0", `\`, uint8(2))
	f.Add("Bearer Basic ", "hg_", " hg_", uint8(3))
	f.Add("hg", "Bearer", "Basic", uint8(0))
	f.Add("BAsiC ", "0", "", uint8(3))
	f.Add("Basic x", "0", "", uint8(0))
	everywhere := slices.Sorted(maps.Keys(places))
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	f.Fuzz(func(t *testing.T, before, seed, after string, form uint8) {
		if seed == "" {
			t.Skip()
		}
		// Long enough that it is nowhere by chance.
		var token strings.Builder
		for i := range 24 {
			token.WriteByte(alphabet[(int(seed[i%len(seed)])+7*i)%len(alphabet)])
		}
		tail := token.String()
		if strings.Contains(before+after, tail) {
			t.Skip()
		}
		var s string
		switch form % 4 {
		case 0:
			s = "Bearer " + tail
		case 1:
			tail = base64.StdEncoding.EncodeToString([]byte("caller:" + tail))
			s = "Basic " + tail
		case 2:
			s = "hg_" + tail
		case 3:
			s = "bEARER\t" + tail
		}
		place := everywhere[int(form/4)%len(everywhere)]
		var text, json bytes.Buffer
		for _, l := range loggers(&text, &json) {
			places[place](l, before+s+after)
		}
		for _, out := range []string{text.String(), json.String()} {
			// Half of it would be too much already.
			if strings.Contains(out, tail[:12]) || strings.Contains(out, tail[12:]) {
				t.Errorf("%q as %s: %s", before+s+after, place, out)
			}
		}
	})
}

func BenchmarkRedact(b *testing.B) {
	l := slog.New(Redact(slog.NewJSONHandler(io.Discard, nil)))
	b.ReportAllocs()
	for b.Loop() {
		l.Info("gate closed", "limit", "token.rate.per.minute", "wait", time.Second, "org", "acme", "id", "0123456789abcdef")
	}
}
