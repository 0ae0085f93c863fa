package simulate

import (
	"reflect"
	"strings"
	"testing"
	"time"
)

func arrivals(s Source) (all []Arrival) {
	for a, ok := s(); ok; a, ok = s() {
		all = append(all, a)
	}
	return all
}

func TestReadTrace(t *testing.T) {
	const s = time.Second
	nine := time.Date(2026, 1, 15, 9, 0, 0, 0, paris(t))
	for _, test := range []struct {
		name, text string
		zone       *time.Location
		start      time.Time
		want       []Arrival
	}{
		{"RFC 3339", "time\n2026-01-15T09:00:00+01:00\n2026-01-15T08:00:01.5Z\n", nil, nine, []Arrival{{0, 1, 3}, {1500 * ms, 1, 3}}},
		{"all columns, unsorted, other columns", "id,Count,TIME,priority\nx,2,2026-01-15T09:00:01+01:00,-3\ny,1,2026-01-15T09:00:00+01:00,\nz,0,2026-01-15T07:00:00+01:00,4", nil, nine, []Arrival{{0, 1, 3}, {s, 2, 0}}},
		{"forms of ISO 8601", "timestamp\n2026-01-15 09:00:00+0100\n2026-01-15T09:00+01:00\n2026-01-15T09:00:00+01", nil, nine, []Arrival{{0, 1, 3}, {0, 1, 3}, {0, 1, 3}}},
		{"local times", "time\n2026-01-15 09:00\n2026-01-15T09:00:02\n2026-01-15 09:00:03.25", paris(t), nine, []Arrival{{0, 1, 3}, {2 * s, 1, 3}, {3250 * ms, 1, 3}}},
		{"over the change of the clocks", "time\n2026-03-29T01:59:59\n2026-03-29T03:00:00", paris(t), time.Date(2026, 3, 29, 1, 59, 59, 0, paris(t)), []Arrival{{0, 1, 3}, {s, 1, 3}}},
		{"seconds", "time\n100\n101.25", nil, time.Time{}.Add(100 * s), []Arrival{{0, 1, 3}, {1250 * ms, 1, 3}}},
		{"decimal commas", "\ufefftime;count\r\n\"100,5\";2\r\n", nil, time.Time{}.Add(100500 * ms), []Arrival{{0, 2, 3}}},
		{"since 1970", "time\n1768464000.000001\n1768464000", nil, time.Unix(1768464000, 0), []Arrival{{0, 1, 3}, {time.Microsecond, 1, 3}}},
		{"milliseconds", "time\tcount\n1768464000001\t3\n1768464000000\t2", paris(t), nine, []Arrival{{0, 2, 3}, {ms, 3, 3}}},
	} {
		trace, err := ReadTrace("t.csv", strings.NewReader(test.text), test.zone)
		if err != nil {
			t.Errorf("%s: %v", test.name, err)
			continue
		}
		got := arrivals(trace.Source())
		n := 0
		for _, a := range got {
			n += a.Count
		}
		if !reflect.DeepEqual(got, test.want) || !trace.Start.Equal(test.start) || trace.N != n || trace.Span != got[len(got)-1].At || trace.Dated() != (test.start.Year() > 1) {
			t.Errorf("%s: from %v (dated %v) %v, want from %v %v", test.name, trace.Start, trace.Dated(), got, test.start, test.want)
		}
	}
}

// What is wrong is named with its line and its field.
func TestBadTraces(t *testing.T) {
	for text, want := range map[string]string{
		"":                               "t.csv:1: is empty",
		"time":                           "t.csv:1: has no calls",
		"time,count\n5,0":                "t.csv:2: has no calls",
		"when,count\n5,0":                "t.csv:1: no column is called time; there are: when",
		"time,timestamp\n1,1":            "t.csv:1: columns 1 and 2 both say timestamp",
		"time\n1\nsoon":                  "t.csv:3: time \"soon\": takes a time such as",
		"time\n-1":                       "t.csv:2: time \"-1\": takes seconds from 0",
		"time\nNaN":                      "t.csv:2: time \"NaN\": takes seconds",
		"time\n1e300":                    "t.csv:2: time \"1e300\": takes seconds",
		"time\n2026-01-15T09:00:00":      "t.csv:2: time \"2026-01-15T09:00:00\": has no offset: say with --time-zone",
		"time\n2026-13-15T09:00:00Z":     "t.csv:2: time \"2026-13-15T09:00:00Z\": takes a time such as",
		"time\n0001-01-01T00:00:00Z":     "t.csv:2: time \"0001-01-01T00:00:00Z\": takes a year from 1970",
		"time\n1\n2026-01-15T09:00:00Z":  "t.csv:3: time \"2026-01-15T09:00:00Z\" is a date, and the ones before are seconds",
		"time\n1\n1768464000":            "t.csv:3: time \"1768464000\" is seconds since 1970, and",
		"time\n1\n\n1e8":                 "t.csv:4: time \"1e8\" is more than 366 days from another one",
		"time,count\n1,-1":               "t.csv:2: count \"-1\": takes a whole number",
		"time,count\n1,1.5":              "t.csv:2: count \"1.5\": takes",
		"time,count\n1,999999999\n2,9":   "t.csv:3: count: more than 1000000000 calls",
		"time,priority\n1,5":             "t.csv:2: priority \"5\": takes a whole number from -3",
		"time,count\n1,1\n2":             "t.csv:3: wrong number of fields",
		"time,count\n1,1\n\"2\nx,1\n3,1": "t.csv:3: ",
	} {
		_, err := ReadTrace("t.csv", strings.NewReader(text), nil)
		if err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%q: %v\nwant %s…", text, err, want)
		}
	}
	_, err := ReadTrace("t.csv", strings.NewReader("time\n2026-03-29T02:30:00"), paris(t))
	if want := "t.csv:2: time \"2026-03-29T02:30:00\": there is no such time in Europe/Paris"; err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("%v\nwant %s…", err, want)
	}
}
