package simulate

import (
	"bytes"
	"regexp"
	"strings"
	"testing"
	"time"
)

var whereBad = regexp.MustCompile(`^f:[1-9][0-9]*: `)

func FuzzReadTrace(f *testing.F) {
	zone := paris(f)
	f.Fuzz(func(t *testing.T, text []byte, local bool) {
		z := zone
		if !local {
			z = nil
		}
		trace, err := ReadTrace("f", bytes.NewReader(text), z)
		if err != nil {
			if !whereBad.MatchString(err.Error()) {
				t.Fatalf("%q does not say where", err)
			}
			return
		}
		n, last := 0, time.Duration(0)
		for _, a := range arrivals(trace.Source()) {
			if a.At < last || a.Count < 1 || a.Class >= Classes {
				t.Fatalf("%+v after %v", a, last)
			}
			n, last = n+a.Count, a.At
		}
		if n != trace.N || last != trace.Span || n == 0 {
			t.Fatalf("%d calls until %v, it says %d until %v", n, last, trace.N, trace.Span)
		}
	})
}

func FuzzReadProfile(f *testing.F) {
	f.Fuzz(func(t *testing.T, text []byte) {
		p, err := ReadProfile("f", text)
		if err != nil {
			if !whereBad.MatchString(err.Error()) || strings.ContainsAny(err.Error()[:5], "\n") {
				t.Fatalf("%q does not say where", err)
			}
			return
		}
		if p.Zone == nil {
			p.Zone = time.UTC
		}
		if p.Date.IsZero() {
			p.Date = time.Date(2026, 1, 15, 0, 0, 0, 0, time.UTC)
		}
		d, err := p.On()
		if err != nil {
			return
		}
		if hours := d.End.Sub(d.Start).Hours(); hours <= 0 || hours > 48 {
			t.Fatalf("a day of %v hours", hours)
		}
		last, next := time.Duration(0), d.Source(1)
		for range 1000 {
			a, ok := next()
			if !ok {
				break
			}
			if a.At < last || a.At >= d.End.Sub(d.Start)+time.Hour || a.Count < 1 {
				t.Fatalf("%+v after %v", a, last)
			}
			last = a.At
		}
	})
}
