package simulate

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func way(t testing.TB, word string) Way {
	for _, w := range Ways() {
		if w.Word == word {
			return w
		}
	}
	t.Fatalf("no way %q", word)
	return Way{}
}

// atOnce is n calls at once, at nine o'clock in Paris.
func atOnce(t testing.TB, n int, limits ...ScenarioLimit) Scenario {
	return Scenario{
		Arrivals: func() Source {
			sent := false
			return func() (Arrival, bool) {
				defer func() { sent = true }()
				return Arrival{Count: n, Class: Normal}, !sent
			}
		},
		Calls: float64(n), Start: time.Date(2026, 1, 15, 9, 0, 0, 0, paris(t)),
		Limits: limits, Credentials: 1, Clients: 1, Callers: 200,
	}
}

// A second credential has a bucket of its own of what counts per credential, and
// none of what counts them together.
func TestWhatIf(t *testing.T) {
	token := ScenarioLimit{Limit: Limit{Rate: 10, Burst: 1}}
	org := ScenarioLimit{Limit: Limit{Rate: 1000, Burst: 1}, Shared: true}
	tight := ScenarioLimit{Limit: Limit{Rate: 10, Burst: 1}, Shared: true}
	window := ScenarioLimit{Limit: Limit{Algorithm: Fixed, Max: 100, Window: 10 * time.Second}}
	for _, test := range []struct {
		name    string
		limits  []ScenarioLimit
		what    string
		seconds float64 // until 1001 calls have drained
	}{
		{"as it is", []ScenarioLimit{token, org}, "credentials=1", 100},
		{"a second credential", []ScenarioLimit{token, org}, "credentials=2", 50},
		{"a second credential of no use", []ScenarioLimit{tight}, "credentials=2", 100},
		{"half as much again", []ScenarioLimit{token}, "limit=+50%", 1000 / 15.0},
		{"a larger burst", []ScenarioLimit{token}, "burst=x101", 90},
		{"twice the rate", []ScenarioLimit{token}, "rate=x2", 50},
		{"a larger window", []ScenarioLimit{window}, "limit=x2", 50},
		{"other limits stay", []ScenarioLimit{org, token}, "limit=x2", 100},
		{"more clients", []ScenarioLimit{token}, "clients=3", 100},
		{"callers", []ScenarioLimit{token}, "concurrency=1", 100},
	} {
		what, err := ParseWhatIf(test.what)
		if err != nil {
			t.Fatal(err)
		}
		s := atOnce(t, 1001, test.limits...)
		rows, err := s.Compare(t.Context(), []Variant{{way(t, "best"), what}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		near(t, test.name+": the time to drain", rows[0].Backlog.Gone.Seconds(), test.seconds, 0.012)
		if len(rows[0].Levels) != len(test.limits) {
			t.Errorf("%s: %d levels", test.name, len(rows[0].Levels))
		}
	}
	for _, text := range []string{"", "limit", "limit=", "limit=-100%", "limit=x0", "rate=xNaN", "credentials=0", "credentials=many", "clients=1001", "retries=2"} {
		if _, err := ParseWhatIf(text); err == nil {
			t.Errorf("%q is taken", text)
		}
	}
}

// What a client is told is what its buckets begin with.
func TestTold(t *testing.T) {
	s := atOnce(t, 1, ScenarioLimit{Limit: Limit{Rate: 10, Burst: 20}}, ScenarioLimit{Limit: Limit{Algorithm: Sliding, Max: 5, Window: time.Second}, Told: Told{How: Hidden}}, ScenarioLimit{Limit: Limit{Rate: 1, Burst: 1}, Told: Told{How: Wrong, Rule: Even(300, time.Minute)}}, ScenarioLimit{Limit: Limit{Rate: 1, Burst: 1}, Told: Told{How: Unknown}})
	for word, want := range map[string]string{
		"headgate": "{10 20 0 0s true false 0} {0 0 0 0s true true 0} {4.75 15 0 0s true false 0} {0 0 0 0s true false 0}",
		"learn":    "{0 0 0 0s true false 0} {0 0 0 0s true true 0} {0 0 0 0s true false 0} {0 0 0 0s true false 0}",
		"off":      "{10 20 0 0s false false 0} {0 0 0 0s false true 0} {4.75 15 0 0s false false 0} {0 0 0 0s false false 0}",
	} {
		c := s.config(Variant{Way: way(t, word)})
		if got := strings.Trim(fmt.Sprint(c.Clients[0].Rules), "[]"); got != want {
			t.Errorf("%s: %s\nwant %s", word, got, want)
		}
	}
}

func TestCompareCountsAndStops(t *testing.T) {
	s := atOnce(t, 100_000, ScenarioLimit{Limit: Limit{Rate: 1000, Burst: 10}})
	var ended atomic.Int64
	variants := []Variant{{Way: way(t, "best")}, {Way: way(t, "loop")}}
	rows, err := s.Compare(t.Context(), variants, &ended)
	if err != nil || ended.Load() != 200_000 {
		t.Errorf("%d ended (%v)", ended.Load(), err)
	}
	again, _ := s.Compare(t.Context(), variants, nil)
	for i := range rows {
		if !reflect.DeepEqual(rows[i].Result, again[i].Result) {
			t.Errorf("row %d differs the second time", i)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if rows, err = s.Compare(ctx, variants, nil); !errors.Is(err, context.Canceled) || !rows[0].Stopped {
		t.Errorf("%v", err)
	}
}

func reported(t testing.TB) *Report {
	s := atOnce(t, 1000, ScenarioLimit{Name: `<&">`, Limit: Limit{Rate: 1, Burst: 10}})
	s.Horizon = 26 * time.Hour
	x2, err := ParseWhatIf("limit=x2")
	if err != nil {
		t.Fatal(err)
	}
	rows, err := s.Compare(t.Context(), []Variant{{Way: way(t, "best")}, {Way: way(t, "headgate")}, {Way: way(t, "best"), WhatIf: x2}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return &Report{About: []string{`1,000 calls <&">`}, Scenario: s, Rows: rows}
}

// Both pictures are well-formed, hold nothing that is not a number, and fetch
// nothing.
func TestPictures(t *testing.T) {
	r := reported(t)
	var svg, page strings.Builder
	if err := errors.Join(r.WriteSVG(&svg), r.WriteHTML(&page)); err != nil {
		t.Fatal(err)
	}
	paths := 0
	d := xml.NewDecoder(strings.NewReader(svg.String()))
	for {
		token, err := d.Token()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatalf("the SVG: %v", err)
		}
		if e, ok := token.(xml.StartElement); ok && e.Name.Local == "path" {
			paths++
		}
	}
	if paths < 4*3 {
		t.Errorf("%d paths", paths)
	}
	for _, text := range []string{svg.String(), page.String()} {
		for _, bad := range []string{"NaN", "Inf", `<&"`, "%!", "@import", "src="} {
			if strings.Contains(text, bad) {
				t.Errorf("a picture has %q", bad)
			}
		}
		for _, good := range []string{"1,000 calls &lt;&amp;&#34;&gt;", ">12:00</text>", "prefers-color-scheme:dark", "what if: limit x2"} {
			if !strings.Contains(text, good) {
				t.Errorf("a picture lacks %q", good)
			}
		}
	}
}

// Ticks are round on the clock on the wall, also where it changes.
func TestTimeTicks(t *testing.T) {
	for date, want := range map[string]string{
		"2026-03-29": "00:00 03:00 06:00 09:00 12:00 15:00 18:00 21:00 00:00",
		"2026-10-25": "00:00 03:00 06:00 09:00 12:00 15:00 18:00 21:00 00:00",
	} {
		start, _ := time.ParseInLocation(time.DateOnly, date, paris(t))
		r := Report{Scenario: Scenario{Start: start}}
		var got []string
		for _, tick := range r.timeTicks(start.AddDate(0, 0, 1).Sub(start)) {
			got = append(got, tick.text)
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s: %v", date, got)
		}
	}
	r := Report{Scenario: Scenario{Start: time.Time{}.Add(90 * time.Second)}}
	ticks := r.timeTicks(5 * time.Minute)
	if len(ticks) != 5 || ticks[0].at != 30*time.Second || ticks[0].text != "2m00s" {
		t.Errorf("without a date: %v", ticks)
	}
	for end := time.Duration(1); end < 2000*24*time.Hour; end *= 3 {
		if n := len(r.timeTicks(end)); n > 12 {
			t.Errorf("%d ticks in %v", n, end)
		}
	}
}

func TestText(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0", 400 * time.Microsecond: "0", 1500 * time.Microsecond: "2ms", 999 * ms: "999ms", 90 * time.Second: "90.0s",
		5*time.Minute + 4*time.Second: "5m04s", 26*time.Hour + 3*time.Minute: "26h03m", 100 * time.Hour: "4d04h",
	} {
		if got := duration(d); got != want {
			t.Errorf("%v is %q, want %q", d, got, want)
		}
	}
	for share, want := range map[float64]string{0: "0%", 0.0012: "0.12%", 0.0312: "3.1%", 0.5: "50%", 14.2: "1420%"} {
		if got := percent(share); got != want {
			t.Errorf("%v is %q, want %q", share, got, want)
		}
	}
	if got := Thousands(1234567); got != "1,234,567" {
		t.Error(got)
	}
}
