package simulate

import (
	"math"
	"strings"
	"testing"
	"time"
	_ "time/tzdata"
)

func paris(t testing.TB) *time.Location {
	zone, err := ParseZone("Europe/Paris")
	if err != nil {
		t.Fatal(err)
	}
	return zone
}

func date(text string) time.Time {
	t, err := ParseDate(text)
	if err != nil {
		panic(err)
	}
	return t
}

// hourly counts what a day has by the hours since it began.
func hourly(d *Day, seed uint64) (counts [26]int, total int) {
	next := d.Source(seed)
	last := time.Duration(0)
	for a, ok := next(); ok; a, ok = next() {
		if a.At < last || a.At >= d.End.Sub(d.Start) {
			panic("out of order")
		}
		last = a.At
		counts[a.At/time.Hour] += a.Count
		total += a.Count
	}
	return counts, total
}

// A day on which the clocks change has 23 or 25 hours; the hour that is left out
// has no calls, the one that comes twice has them twice.
func TestDaysOfDaylightSaving(t *testing.T) {
	rates := map[int]float64{1: 1000, 2: 2000, 3: 3000, 22: 4000}
	for _, test := range []struct {
		date  string
		hours int
		want  []int // by the hour since midnight, thousands
	}{
		{"2026-01-15", 24, []int{0, 1, 2, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0}},
		{"2026-03-29", 23, []int{0, 1, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0}},
		{"2026-10-25", 25, []int{0, 1, 2, 2, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0}},
	} {
		p := Profile{Zone: paris(t), Date: date(test.date)}
		for h, n := range rates {
			p.Hours = append(p.Hours, Hours{Clock(h) * day / 24, Clock(h+1) * day / 24, n / 3600})
		}
		p.Batches = []Batch{{9 * day / 24, 1}}
		d, err := p.On()
		if err != nil {
			t.Fatal(err)
		}
		if got := d.End.Sub(d.Start); got != time.Duration(test.hours)*time.Hour {
			t.Errorf("%s has %v", test.date, got)
		}
		counts, _ := hourly(d, 1)
		for h, want := range test.want {
			if want := 1000 * want; math.Abs(float64(counts[h]-want)) > 5*math.Sqrt(float64(want))+1 {
				t.Errorf("%s has %d calls in hour %d, want about %d", test.date, counts[h], h, want)
			}
		}
		if at := d.Start.Add(d.batches[0].At); at.Hour() != 9 {
			t.Errorf("the batch of nine o'clock comes at %v", at)
		}
		p.PerDay = 50_001
		if d, err = p.On(); err != nil {
			t.Fatal(err)
		}
		if _, n := hourly(d, 2); math.Abs(float64(n-50_001)) > 5*math.Sqrt(50_000) || d.N != 50_001 {
			t.Errorf("%s has %d calls, %v expected, want 50001", test.date, n, d.N)
		}
	}
}

// Where the clocks are put forward at midnight the day begins at 01:00.
func TestMidnightThatIsNotThere(t *testing.T) {
	zone, err := ParseZone("America/Santiago")
	if err != nil {
		t.Fatal(err)
	}
	p := Profile{Zone: zone, Date: date("2026-09-06"), Hours: []Hours{{0, day, 1}}}
	d, err := p.On()
	if err != nil {
		t.Fatal(err)
	}
	if d.End.Sub(d.Start) != 23*time.Hour || d.Start.Hour() != 1 || d.Start.Day() != 6 {
		t.Errorf("from %v to %v", d.Start, d.End)
	}
	p.Date = date("2026-09-05")
	if d, err = p.On(); err != nil || d.End.Sub(d.Start) != 24*time.Hour {
		t.Errorf("the day before: from %v to %v (%v)", d.Start, d.End, err)
	}
}

func TestWorkday(t *testing.T) {
	for _, test := range []struct {
		from, to string
		share    float64
	}{{"09:00", "11:00", 0.5}, {"9", "11", 0.25}, {"22", "2", 0.5}, {"00:00", "24:00", 1}, {"18", "20", 0.9}, {"23", "24", 0.1}, {"0", "1", 0.1}} {
		from, to, err := ParseHours(test.from + "-" + test.to)
		if err != nil {
			t.Fatal(err)
		}
		p := Workday(240_000, from, to, test.share)
		p.Zone, p.Date = time.UTC, date("2026-01-15")
		d, err := p.On()
		if err != nil {
			t.Fatal(err)
		}
		inPeak, all := 0.0, 0.0
		for _, s := range d.segments {
			n := s.perSecond * (s.to - s.from).Seconds()
			all += n
			if p.Hours[len(p.Hours)-1].covers(Clock(s.from)) {
				inPeak += n
			}
		}
		if math.Abs(all-240_000) > 1 || math.Abs(inPeak-240_000*test.share) > 1 {
			t.Errorf("%+v: %v calls, %v in the peak", test, all, inPeak)
		}
	}
}

func TestReadProfile(t *testing.T) {
	p, err := ReadProfile("day.yaml", []byte(`# a day
time_zone: Europe/Paris
date: 2026-03-29
per_day: 200_000
hours:
  09:00-11:00: 20/s   # the peak
  "11-22": 600/min
  22-6: 100/h
batches:
  06:30: 5000
`))
	if err != nil {
		t.Fatal(err)
	}
	if p.Zone.String() != "Europe/Paris" || p.Date.Format(time.DateOnly) != "2026-03-29" || p.PerDay != 200_000 ||
		len(p.Hours) != 3 || p.Hours[1].PerSecond != 10 || p.Hours[2] != (Hours{22 * day / 24, 6 * day / 24, 100.0 / 3600}) ||
		p.Batches[0] != (Batch{6*day/24 + day/48, 5000}) {
		t.Errorf("%+v", p)
	}
}

// What is wrong is named with its line and its field.
func TestBadProfiles(t *testing.T) {
	for text, want := range map[string]string{
		"":                                      "day.yaml:1: neither hours nor batches",
		"- 1":                                   "day.yaml:1: a profile takes lines",
		"hours: 5":                              "day.yaml:1: hours takes lines such as 09:00-11:00: 20/s",
		"hours:\n  9-11: 5\n  10-12: 5":         "day.yaml:3: hours: 10-12 overlaps with 09:00-11:00",
		"hours:\n  22-6: 5\n  0-1: 5":           "day.yaml:3: hours: 0-1 overlaps",
		"hours:\n  9-9: 5":                      "day.yaml:2: hours: \"9-9\" has no length",
		"hours:\n  9-25: 5":                     "day.yaml:2: hours: \"25\" is not a time of day",
		"hours:\n  9:00-9:61: 5":                "day.yaml:2: hours: \"9:61\" is not a time of day",
		"hours:\n  nine: 5":                     "day.yaml:2: hours: \"nine\": write from when to when",
		"hours:\n  9-11: -5":                    "day.yaml:2: hours 9-11: \"-5\" is not a rate",
		"hours:\n  9-11: 5/fortnight":           "day.yaml:2: hours 9-11: \"5/fortnight\" has the unknown unit",
		"hours:\n  9-11: [5]":                   "day.yaml:2: hours 9-11 takes one value",
		"hours:\n  9-11:":                       "day.yaml:2: hours 9-11 takes one value",
		"hours:\n  9-11: 1e9/s":                 "day.yaml:2: hours 9-11: \"1e9/s\" is more than",
		"time_zone: Paris\nhours:\n  9-11: 5":   "day.yaml:1: time_zone: \"Paris\" is not a time zone",
		"hours:\n  9-11: 5\ndate: 29.3.2026":    "day.yaml:3: date: \"29.3.2026\" is not a date",
		"hours:\n  9-11: 5\nper_day: many":      "day.yaml:3: per_day: \"many\" is not a number of calls",
		"hours:\n  9-11: 5\nperday: 5":          "day.yaml:3: unknown word \"perday\"",
		"batches:\n  9: 0":                      "day.yaml:2: batches 9: \"0\" is not a number of calls",
		"batches:\n  24:00: 5":                  "day.yaml:2: batches: 24:00 is the next day",
		"hours:\n  9-11: 5\n bad: [":            "day.yaml:3: ",
		"hours:\n  9-11: 5\nhours:\n  11-12: 5": "day.yaml:3: ",
	} {
		_, err := ReadProfile("day.yaml", []byte(text))
		if err == nil || !strings.HasPrefix(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: %v\nwant %s…", text, err, want)
		}
	}
	p := Profile{Zone: time.UTC, Date: date("2026-01-15"), PerDay: 10, Batches: []Batch{{0, 11}}}
	if _, err := p.On(); err == nil || !strings.Contains(err.Error(), "the batches have 11 calls, the day 10") {
		t.Errorf("%v", err)
	}
}
