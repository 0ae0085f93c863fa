package schedule

import (
	"fmt"
	"strings"
	"testing"
	"time"
	_ "time/tzdata"

	"pgregory.net/rapid"
)

func mustZone(t testing.TB, name string) *time.Location {
	zone, err := ParseZone(name)
	if err != nil {
		t.Fatal(err)
	}
	return zone
}

func mustParse(t testing.TB, zone string, hours ...string) Schedule {
	s, err := Parse(mustZone(t, zone), hours...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Each row is one instant, as UTC, and what holds then and until when.
func TestAt(t *testing.T) {
	const workday = "Mon-Fri 09:00-12:00"
	for _, c := range []struct {
		what, zone, hours, at string
		active                bool
		until                 string
	}{
		{"before", "Europe/Paris", workday, "2026-01-15T07:59:59Z", false, "2026-01-15T08:00:00Z"},
		{"begins", "Europe/Paris", workday, "2026-01-15T08:00:00Z", true, "2026-01-15T11:00:00Z"},
		{"ends", "Europe/Paris", workday, "2026-01-15T11:00:00Z", false, "2026-01-16T08:00:00Z"},
		{"a Friday noon", "Europe/Paris", workday, "2026-01-16T11:00:00Z", false, "2026-01-19T08:00:00Z"},
		{"in summer", "Europe/Paris", workday, "2026-07-15T07:00:00Z", true, "2026-07-15T10:00:00Z"},
		{"over the change in March", "Europe/Paris", workday, "2026-03-27T11:00:00Z", false, "2026-03-30T07:00:00Z"},
		{"over the change in October", "Europe/Paris", workday, "2026-10-23T10:00:00Z", false, "2026-10-26T08:00:00Z"},

		// Paris, 29 March 2026: 02:00 is 03:00. 25 October: 03:00 is 02:00.
		{"hours that do not come", "Europe/Paris", "Sun 02:00-03:00", "2026-03-28T12:00:00Z", false, "2026-04-05T00:00:00Z"},
		{"two weeks long", "Europe/Paris", "Sun 02:00-03:00", "2026-03-22T02:00:00Z", false, "2026-04-05T00:00:00Z"},
		{"cut at their end", "Europe/Paris", "Sun 01:30-02:30", "2026-03-29T00:30:00Z", true, "2026-03-29T01:00:00Z"},
		{"cut at their beginning", "Europe/Paris", "Sun 02:30-04:00", "2026-03-29T00:30:00Z", false, "2026-03-29T01:00:00Z"},
		{"an hour shorter", "Europe/Paris", "Sun 01:00-04:00", "2026-03-29T00:00:00Z", true, "2026-03-29T02:00:00Z"},
		{"an hour longer", "Europe/Paris", "Sun 01:00-04:00", "2026-10-24T23:00:00Z", true, "2026-10-25T03:00:00Z"},
		{"twice: the first", "Europe/Paris", "Sun 02:00-02:30", "2026-10-25T00:00:00Z", true, "2026-10-25T00:30:00Z"},
		{"twice: between", "Europe/Paris", "Sun 02:00-02:30", "2026-10-25T00:30:00Z", false, "2026-10-25T01:00:00Z"},
		{"twice: the second", "Europe/Paris", "Sun 02:00-02:30", "2026-10-25T01:00:00Z", true, "2026-10-25T01:30:00Z"},
		{"a night that is put back", "Europe/Paris", "Sat 22:00-02:30", "2026-10-24T20:00:00Z", true, "2026-10-25T00:30:00Z"},
		{"and goes on", "Europe/Paris", "Sat 22:00-02:30", "2026-10-25T00:30:00Z", false, "2026-10-25T01:00:00Z"},
		{"until it is over", "Europe/Paris", "Sat 22:00-02:30", "2026-10-25T01:00:00Z", true, "2026-10-25T01:30:00Z"},

		// São Paulo, 4 November 2018: 00:00 is 01:00. 18 February 2018: 00:00 is
		// 23:00 of the day before. Since 2019 nothing changes.
		{"no midnight", "America/Sao_Paulo", "Sun 00:00-08:00", "2018-11-04T02:00:00Z", false, "2018-11-04T03:00:00Z"},
		{"midnight twice: almost", "America/Sao_Paulo", "Sat 23:00-24:00", "2018-02-18T01:00:00Z", true, "2018-02-18T03:00:00Z"},
		{"no change any more", "America/Sao_Paulo", workday, "2026-11-02T12:00:00Z", true, "2026-11-02T15:00:00Z"},

		{"half an hour off", "Asia/Kolkata", "daily 09:00-18:00", "2026-03-29T03:30:00Z", true, "2026-03-29T12:30:00Z"},

		// Lord Howe: half an hour. 4 October 2026: 02:00 is 02:30. 5 April: 02:00
		// is 01:30.
		{"half an hour that does not come", "Australia/Lord_Howe", "Sun 02:00-02:30", "2026-10-03T15:00:00Z", false, "2026-10-10T15:00:00Z"},
		{"half an hour that comes twice", "Australia/Lord_Howe", "Sun 01:30-02:00", "2026-04-04T14:30:00Z", true, "2026-04-04T15:30:00Z"},

		// Samoa had no 30 December 2011.
		{"a day that was left out", "Pacific/Apia", "Fri 09:00-17:00", "2011-12-29T12:00:00Z", false, "2012-01-05T19:00:00Z"},

		{"over midnight, on its first day", "UTC", "Fri 22:00-02:00", "2026-01-16T23:59:00Z", true, "2026-01-17T02:00:00Z"},
		{"over midnight, on its second", "UTC", "Fri 22:00-02:00", "2026-01-17T01:59:59Z", true, "2026-01-17T02:00:00Z"},
		{"the morning before", "UTC", "Fri 22:00-02:00", "2026-01-16T01:00:00Z", false, "2026-01-16T22:00:00Z"},
		{"over the end of the week", "UTC", "Sat-Mon 22:00-02:00", "2026-01-18T00:00:00Z", true, "2026-01-18T02:00:00Z"},
		{"until 24:00", "UTC", "Fri 22:00-24:00", "2026-01-16T23:59:00Z", true, "2026-01-17T00:00:00Z"},
		{"until 00:00 is the same", "UTC", "Fri 22:00-00:00", "2026-01-16T23:59:00Z", true, "2026-01-17T00:00:00Z"},
		{"whole days in a row", "UTC", "Mon-Fri 00:00-24:00", "2026-01-14T12:00:00Z", true, "2026-01-17T00:00:00Z"},
		{"always", "Europe/Paris", "daily 00:00-24:00", "2026-01-14T12:00:00Z", true, ""},
		{"always, in two parts", "Europe/Paris", "daily 06:00-18:00; daily 18:00-06:00", "2026-01-14T12:00:00Z", true, ""},
		{"never", "Europe/Paris", "", "2026-01-14T12:00:00Z", false, ""},
		{"overlapping", "UTC", "daily 08:00-12:00; Mon-Fri 10:00-14:00", "2026-01-14T09:00:00Z", true, "2026-01-14T14:00:00Z"},
		{"a list", "UTC", "Mon,Wed 08:00-10:00", "2026-01-12T10:00:00Z", false, "2026-01-14T08:00:00Z"},
		{"within a second", "UTC", "daily 08:00-10:00", "2026-01-12T09:59:59.999999999Z", true, "2026-01-12T10:00:00Z"},
	} {
		var hours []string
		if c.hours != "" {
			hours = strings.Split(c.hours, "; ")
		}
		at, err := time.Parse(time.RFC3339, c.at)
		if err != nil {
			t.Fatal(err)
		}
		active, until := mustParse(t, c.zone, hours...).At(at)
		got := ""
		if !until.IsZero() {
			got = until.UTC().Format(time.RFC3339)
		}
		if active != c.active || got != c.until {
			t.Errorf("%s: %s in %s at %s: %v until %s, want %v until %s", c.what, c.hours, c.zone, c.at, active, got, c.active, c.until)
		}
	}
	if active, until := (Schedule{}).At(time.Now()); active || !until.IsZero() {
		t.Errorf("the zero value: %v, %v", active, until)
	}
}

// reads says whether the hours are shown by a clock that reads like this: the
// definition, written down once more, minute by minute.
func reads(text string, local time.Time) bool {
	days, hours, _ := strings.Cut(text, " ")
	var h1, m1, h2, m2 int
	fmt.Sscanf(hours, "%d:%d-%d:%d", &h1, &m1, &h2, &m2)
	now, from, to := local.Hour()*60+local.Minute(), h1*60+m1, h2*60+m2
	on := func(day time.Weekday) bool { return strings.Contains(days, day.String()[:3]) }
	if from < to {
		return on(local.Weekday()) && from <= now && now < to
	}
	return on(local.Weekday()) && now >= from || on((local.Weekday()+6)%7) && now < to
}

// At says the same as going through the minutes one by one, and nothing changes
// before the time that it gives.
func TestAtAgreesWithTheClock(t *testing.T) {
	zones := []string{"Europe/Paris", "America/Sao_Paulo", "Asia/Kolkata", "Australia/Lord_Howe", "America/New_York", "Pacific/Apia", "UTC"}
	// Around changes of the clock, and anywhere.
	around := [...]string{
		"2026-03-29T01:00:00Z", "2026-10-25T01:00:00Z", "2018-11-04T03:00:00Z", "2018-02-18T02:00:00Z",
		"2026-10-03T15:30:00Z", "2026-04-04T15:00:00Z", "2026-03-08T07:00:00Z", "2011-12-30T10:00:00Z", "2026-07-01T00:00:00Z",
	}
	rapid.Check(t, func(t *rapid.T) {
		zone, err := ParseZone(rapid.SampledFrom(zones).Draw(t, "zone"))
		if err != nil {
			t.Fatal(err)
		}
		minute := rapid.SampledFrom([]int{0, 30, 1, 59, 15})
		hours := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) string {
			var days []string
			for _, d := range rapid.SliceOfNDistinct(rapid.IntRange(0, 6), 1, 7, rapid.ID[int]).Draw(t, "days") {
				days = append(days, time.Weekday(d).String()[:3])
			}
			from, to := rapid.IntRange(0, 23).Draw(t, "from")*60+minute.Draw(t, "minute"), rapid.IntRange(0, 23).Draw(t, "to")*60+minute.Draw(t, "minute")
			if from == to || to == 0 {
				to = 1440
			}
			return fmt.Sprintf("%s %02d:%02d-%02d:%02d", strings.Join(days, ","), from/60, from%60, to/60, to%60)
		}), 1, 3).Draw(t, "hours")
		s, err := Parse(zone, hours...)
		if err != nil {
			t.Fatal(err)
		}
		base, _ := time.Parse(time.RFC3339, rapid.SampledFrom(around[:]).Draw(t, "around"))
		start := base.Add(time.Duration(rapid.IntRange(-3*1440, 3*1440).Draw(t, "minutes")) * time.Minute)
		shown := func(at time.Time) bool {
			for _, text := range hours {
				if reads(text, at.In(zone)) {
					return true
				}
			}
			return false
		}
		active, until := s.At(start)
		if active != shown(start) {
			t.Fatalf("at %v: %v", start.In(zone), active)
		}
		end := until
		if until.IsZero() {
			end = start.Add(15 * 24 * time.Hour)
		}
		for at := start; at.Before(end); at = at.Add(time.Minute) {
			if shown(at) != active {
				t.Fatalf("from %v: %v until %v, but not at %v", start.In(zone), active, until, at.In(zone))
			}
		}
		if !until.IsZero() && shown(until) == active {
			t.Fatalf("from %v: nothing changes at %v", start.In(zone), until.In(zone))
		}
	})
}

func TestParseSpan(t *testing.T) {
	for text, want := range map[string]string{
		"Mon-Fri 09:00-12:00":         "Mon-Fri 09:00-12:00",
		"  mon-FRI  9-12 ":            "Mon-Fri 09:00-12:00",
		"Monday-Friday 09:00 - 12:00": "Mon-Fri 09:00-12:00",
		"Mon,Wed 08:00-10:00":         "Mon,Wed 08:00-10:00",
		"Fri 22:00-02:00":             "Fri 22:00-02:00",
		"daily 00:00-24:00":           "daily 00:00-24:00",
		"Daily 22:00-00:00":           "daily 22:00-24:00",
		"Sat-Mon 10:00-11:00":         "Mon,Sat,Sun 10:00-11:00",
		"Mon-Sun 10:00-11:00":         "daily 10:00-11:00",
		"Sun,Mon-Wed,Fri 1:00-2:00":   "Mon-Wed,Fri,Sun 01:00-02:00",
	} {
		s, err := ParseSpan(text)
		if err != nil || s.String() != want {
			t.Errorf("%q: %v, %v, want %s", text, s, err, want)
		}
	}
	for text, want := range map[string]string{
		"":                    "is not hours of the week",
		"09:00-12:00":         "is not hours of the week",
		"Mon-Fri":             "is not hours of the week",
		"Mon-Fry 09:00-12:00": `"Mon-Fry" is not a day`,
		"Mo 09:00-12:00":      `"Mo" is not a day`,
		", 09:00-12:00":       `"" is not a day`,
		"Mon 09:00":           "from when to when",
		"Mon 09:60-12:00":     `"09:60" is not a time of day`,
		"Mon 09:00-24:01":     `"24:01" is not a time of day`,
		"Mon 25-26":           `"25" is not a time of day`,
		"Mon 9:5-12":          `"9:5" is not a time of day`,
		"Mon 09:00-09:00":     "has no length",
		"Mon 00:00-00:00":     "has no length",
		"Mon 24:00-02:00":     "begins at 24:00",
		"Mon 9-12-15":         `"12-15" is not a time of day`,
	} {
		if s, err := ParseSpan(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, %v, want %s", text, s, err, want)
		}
	}
}

func TestParseZone(t *testing.T) {
	for _, name := range []string{"", "Local", "Europe/Lyon", "../../etc/passwd", "CEST+2"} {
		if _, err := ParseZone(name); err == nil || !strings.Contains(err.Error(), "Europe/Paris") {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestString(t *testing.T) {
	if got := mustParse(t, "Europe/Paris", "Mon-Fri 9-12", "Mon-Fri 14-18").String(); got != "Mon-Fri 09:00-12:00; Mon-Fri 14:00-18:00 (Europe/Paris)" {
		t.Error(got)
	}
	if got := (Schedule{}).String(); got != "" {
		t.Error(got)
	}
}

func FuzzParseSpan(f *testing.F) {
	for _, text := range []string{"Mon-Fri 09:00-12:00", "Mon,Wed 8-10", "Fri 22:00-02:00", "daily 00:00-24:00", "sunday-monday 23:59-0:00", "Mon 9-12-15", " -"} {
		f.Add(text, int64(1774746000))
	}
	zone := mustZone(f, "Europe/Paris")
	f.Fuzz(func(t *testing.T, text string, at int64) {
		s, err := ParseSpan(text)
		if err != nil {
			if len(err.Error()) > 1000 {
				t.Fatalf("an error of %d bytes", len(err.Error()))
			}
			return
		}
		again, err := ParseSpan(s.String())
		if err != nil || again != s {
			t.Fatalf("%q is %v, and that is %v, %v", text, s, again, err)
		}
		now := time.Unix(at%(1<<33), 0)
		active, until := New(zone, s).At(now)
		if !until.IsZero() && !until.After(now) {
			t.Fatalf("%v at %v: until %v", s, now, until)
		}
		if until.IsZero() && (!active || s.String() != "daily 00:00-24:00") && s.from != s.to%day {
			t.Fatalf("%v never changes after %v", s, now)
		}
	})
}

func BenchmarkAt(b *testing.B) {
	s := mustParse(b, "Europe/Paris", "Mon-Fri 09:00-12:00", "Mon-Fri 14:00-18:00")
	now := time.Date(2026, 3, 27, 18, 30, 0, 0, time.UTC)
	b.ReportAllocs()
	for b.Loop() {
		s.At(now)
	}
}
