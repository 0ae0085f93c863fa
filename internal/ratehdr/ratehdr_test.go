package ratehdr

import (
	"math"
	"net/http"
	"strings"
	"testing"
	"time"
)

var now = time.Date(2026, time.November, 5, 11, 0, 0, 0, time.UTC)

const missing = -1 // in tables: no wait was found

func TestRetryAfter(t *testing.T) {
	gmt := func(d time.Duration) string { return now.Add(d).Format(http.TimeFormat) }
	tests := []struct {
		name   string
		values []string
		date   string
		now    time.Time // the package's now if zero
		want   time.Duration
	}{
		{name: "absent", want: missing},
		{name: "whole", values: []string{"42"}, want: 42 * time.Second},
		{name: "zero", values: []string{"0"}, want: 0},
		{name: "spaces", values: []string{" \t7 "}, want: 7 * time.Second},
		{name: "leading zeros", values: []string{"0000000000000000000000042"}, want: 42 * time.Second},
		{name: "fraction", values: []string{"0.25"}, want: 250 * time.Millisecond},
		{name: "all nanoseconds", values: []string{"1.123456789"}, want: 1123456789},
		{name: "below a nanosecond", values: []string{"1.0000000000001"}, want: 1000000001},
		{name: "fraction of zeros", values: []string{"1.000000000000"}, want: time.Second},
		{name: "the most", values: []string{"2678400"}, want: Max},
		{name: "the most, as a fraction", values: []string{"2678399.9999999999"}, want: Max},

		{name: "empty", values: []string{""}, want: missing},
		{name: "blank", values: []string{"  "}, want: missing},
		{name: "word", values: []string{"soon"}, want: missing},
		{name: "negative", values: []string{"-1"}, want: missing},
		{name: "plus", values: []string{"+1"}, want: missing},
		{name: "NaN", values: []string{"NaN"}, want: missing},
		{name: "Inf", values: []string{"Inf"}, want: missing},
		{name: "hex", values: []string{"0x10"}, want: missing},
		{name: "exponent", values: []string{"1e3"}, want: missing},
		{name: "unit", values: []string{"5s"}, want: missing},
		{name: "no fraction after the point", values: []string{"5."}, want: missing},
		{name: "no digit before the point", values: []string{".5"}, want: missing},
		{name: "two points", values: []string{"1.2.3"}, want: missing},
		{name: "other digits", values: []string{"٤٢"}, want: missing},
		{name: "above the most", values: []string{"2678401"}, want: missing},
		{name: "just above the most", values: []string{"2678400.000000001"}, want: missing},
		{name: "overflows a Duration", values: []string{"10000000000"}, want: missing},
		{name: "overflows an int64", values: []string{strings.Repeat("9", 400)}, want: missing},
		{name: "wraps an int64", values: []string{"18446744073709551617"}, want: missing},

		{name: "the longest counts", values: []string{"3", "9", "5"}, want: 9 * time.Second},
		{name: "the longest readable counts", values: []string{"junk", "4", "-9", "99999999999"}, want: 4 * time.Second},
		{name: "list", values: []string{"3, 8,5"}, want: 8 * time.Second},
		{name: "list with a date", values: []string{"3, " + gmt(time.Minute) + ", 5"}, want: time.Minute},
		{name: "list of commas", values: []string{",,,"}, want: missing},

		{name: "IMF date", values: []string{"Thu, 05 Nov 2026 11:00:42 GMT"}, want: 42 * time.Second},
		{name: "RFC 850 date", values: []string{"Thursday, 05-Nov-26 11:00:42 GMT"}, want: 42 * time.Second},
		{name: "asctime date", values: []string{"Thu Nov  5 11:00:42 2026"}, want: 42 * time.Second},
		{name: "other zone", values: []string{"Thursday, 05-Nov-26 11:00:42 PST"}, want: missing},
		{name: "date now", values: []string{gmt(0)}, want: 0},
		{name: "date in the past", values: []string{gmt(-time.Hour)}, want: 0},
		{name: "date of long ago", values: []string{"Mon, 01 Jan 0001 00:00:00 GMT"}, want: 0},
		{name: "date at the most", values: []string{gmt(Max)}, want: Max},
		{name: "absurd date", values: []string{gmt(Max + time.Second)}, want: missing},
		{name: "date of far away", values: []string{"Fri, 31 Dec 9999 23:59:59 GMT"}, want: missing},
		{name: "rounded up", values: []string{gmt(5 * time.Second)}, now: now.Add(time.Millisecond), want: 5 * time.Second},
		{name: "rounded up to one", values: []string{gmt(5 * time.Second)}, now: now.Add(4999 * time.Millisecond), want: time.Second},

		{name: "Date instead of our clock", values: []string{gmt(30 * time.Second)}, date: gmt(10 * time.Second), want: 20 * time.Second},
		{name: "our clock is behind by hours", values: []string{gmt(7 * time.Hour)}, date: gmt(7*time.Hour - time.Minute), want: time.Minute},
		{name: "our clock is behind by years", values: []string{gmt(time.Minute)}, date: gmt(0), now: now.AddDate(-6, 0, 0), want: time.Minute},
		{name: "past, by the server's clock", values: []string{gmt(time.Hour)}, date: gmt(2 * time.Hour), want: 0},
		{name: "absurd, by the server's clock", values: []string{gmt(Max)}, date: gmt(-time.Hour), want: missing},
		{name: "Date of the epoch", values: []string{gmt(time.Minute)}, date: "Thu, 01 Jan 1970 00:00:00 GMT", want: time.Minute},
		{name: "Date of the future", values: []string{gmt(time.Minute)}, date: gmt(1000 * time.Hour), want: time.Minute},
		{name: "Date is junk", values: []string{gmt(time.Minute)}, date: "yesterday", want: time.Minute},
		{name: "Date is of no matter to seconds", values: []string{"5"}, date: gmt(time.Hour), want: 5 * time.Second},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := http.Header{}
			for _, v := range tt.values {
				h.Add("Retry-After", v)
			}
			if tt.date != "" {
				h.Set("Date", tt.date)
			}
			at := tt.now
			if at.IsZero() {
				at = now
			}
			got, ok := RetryAfter(h, at)
			check(t, got, ok, tt.want)
		})
	}
}

func TestRetryAfterWithoutHeader(t *testing.T) {
	got, ok := RetryAfter(nil, now)
	check(t, got, ok, missing)
}

func TestInMessage(t *testing.T) {
	tests := []struct {
		text string
		want time.Duration
	}{
		{"Rate limit exceeded the maximum. Retry the request in [42] seconds", 42 * time.Second},
		{"Rate limit exceeded the maximum. Retry the request in 42 seconds.", 42 * time.Second},
		{`{"message":"Rate limit exceeded the maximum. Retry the request in [7] seconds","code":"too.many.requests.retry.after","status":429}`, 7 * time.Second},
		{`{"limit":{"value":300},"message":"retry in 3 seconds"}`, 3 * time.Second},
		{"Retry the request in [0] seconds", 0},
		{"Retry the request in [1] second", time.Second},
		{"RETRY THE REQUEST IN [2] SECONDS", 2 * time.Second},
		{"please retry your request after 1.5s", 1500 * time.Millisecond},
		{"Please try again in 20s. Contact us", 20 * time.Second},
		{"Retry after: 9 sec", 9 * time.Second},
		{"retry in 5 seconds, or better retry in 8 seconds, or retry in 2 seconds", 8 * time.Second},
		{"retry retry in 5 seconds", 5 * time.Second},

		{"", missing},
		{"Rate limit exceeded the maximum [300] requests within [60] seconds", missing},
		{"Retry the request in [300] requests within [60] seconds", missing},
		{"Retry the request in [-5] seconds", missing},
		{"Retry the request in [NaN] seconds", missing},
		{"Retry the request in [0x10] seconds", missing},
		{"Retry the request in [1e3] seconds", missing},
		{"Retry the request in [10000000000] seconds", missing},
		{"Retry the request in [2678401] seconds", missing},
		{"Retry the request in [] seconds", missing},
		{"Retry the request in [5 seconds", missing},
		{"Retry the request in 5] seconds", missing},
		{"Retry the request in [5] minutes", missing},
		{"Retry the request in 5 sessions", missing},
		{"Retry the request in [5]", missing},
		{"Retry the request in", missing},
		{"Retry", missing},
		{"a nonretry in 5 seconds", missing},
		{"retry,in 5 seconds", missing},
		{"retrying in 5 seconds", missing},
		{"try in 5 seconds", missing},
	}
	for _, tt := range tests {
		got, ok := InMessage([]byte(tt.text))
		t.Run(tt.text, func(t *testing.T) { check(t, got, ok, tt.want) })
	}
}

func TestFormat(t *testing.T) {
	tests := []struct {
		wait time.Duration
		want string
	}{
		{0, "0"},
		{-time.Hour, "0"},
		{math.MinInt64, "0"},
		{1, "1"},
		{time.Second, "1"},
		{time.Second + 1, "2"},
		{41*time.Second + 999*time.Millisecond, "42"},
		{Max, "2678400"},
		{math.MaxInt64, "9223372037"},
	}
	for _, tt := range tests {
		if got := Format(tt.wait); got != tt.want {
			t.Errorf("Format(%d) = %q, want %q", tt.wait, got, tt.want)
		}
	}
}

func TestAllocations(t *testing.T) {
	h := http.Header{"Retry-After": {"42"}}
	body := []byte(`{"message":"Rate limit exceeded the maximum. Retry the request in [42] seconds"}`)
	if n := testing.AllocsPerRun(100, func() { RetryAfter(h, now) }); n != 0 {
		t.Errorf("RetryAfter of whole seconds allocates %v times", n)
	}
	if n := testing.AllocsPerRun(100, func() { InMessage(body) }); n != 0 {
		t.Errorf("InMessage allocates %v times", n)
	}
}

func check(t *testing.T, got time.Duration, ok bool, want time.Duration) {
	t.Helper()
	if want == missing {
		if ok || got != 0 {
			t.Errorf("got %v, %v; want 0, false", got, ok)
		}
		return
	}
	if !ok || got != want {
		t.Errorf("got %v, %v; want %v, true", got, ok, want)
	}
}

func BenchmarkRetryAfter(b *testing.B) {
	for _, v := range []string{"42", "0.25", "Thu, 05 Nov 2026 11:00:42 GMT"} {
		b.Run(v, func(b *testing.B) {
			h := http.Header{"Retry-After": {v}, "Date": {"Thu, 05 Nov 2026 11:00:00 GMT"}}
			b.ReportAllocs()
			for b.Loop() {
				if _, ok := RetryAfter(h, now); !ok {
					b.Fatal("not read")
				}
			}
		})
	}
}

func BenchmarkInMessage(b *testing.B) {
	body := []byte(`{"message":"Rate limit exceeded the maximum. Retry the request in [42] seconds","code":"too.many.requests.retry.after","status":429,"contextId":"1b2c","details":[],"errors":[]}`)
	b.ReportAllocs()
	for b.Loop() {
		if _, ok := InMessage(body); !ok {
			b.Fatal("not read")
		}
	}
}
