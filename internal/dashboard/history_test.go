package dashboard

import (
	"math"
	"testing"
	"time"
)

var noon = time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)

func at(s int) time.Time { return noon.Add(time.Duration(s) * time.Second) }

func of(sent uint64, level float64) []Org {
	return []Org{{Name: "o", Limits: []Limit{{Name: "l", Sent: sent, Level: level}}, Callers: []Caller{{Name: "c", Sent: sent}}}}
}

func TestRates(t *testing.T) {
	h := newHistory(100)
	for _, row := range []struct {
		second int
		sent   uint64
		rate   float32
	}{
		{0, 1000, nan}, // what came before is not known
		{1, 1010, 10},
		{3, 1050, 20}, // a view was late
		{4, 1050, 0},
		{5, 7, 7}, // the count has begun again
	} {
		h.add(at(row.second), of(row.sent, 1))
		got := h.newest("o", limitKey{name: "l"}).rates[0]
		if got != row.rate && !(math.IsNaN(float64(got)) && math.IsNaN(float64(row.rate))) {
			t.Errorf("second %d: %v/s, want %v", row.second, got, row.rate)
		}
	}
}

// A limit that goes leaves a gap and then its place, one that comes has none
// of the past, and every column is as long as the times.
func TestLimitsComeAndGo(t *testing.T) {
	h := newHistory(4)
	h.add(at(0), of(0, 1))
	h.add(at(1), of(0, 2))
	h.add(at(2), []Org{{Name: "o", Limits: []Limit{{Name: "new", Level: 5}}}})
	times, columns := h.columns("o")
	levels := func(name string) (list []float32) {
		for _, p := range columns[limitKey{name: name}] {
			list = append(list, p.level)
		}
		return list
	}
	same := func(name string, want ...float32) {
		t.Helper()
		got := levels(name)
		if len(got) != len(want) || len(got) != 0 && len(got) != len(times) {
			t.Fatalf("%s: %v at %d times, want %v", name, got, len(times), want)
		}
		for i := range got {
			if got[i] != want[i] && !(math.IsNaN(float64(got[i])) && math.IsNaN(float64(want[i]))) {
				t.Fatalf("%s: %v, want %v", name, got, want)
			}
		}
	}
	same("l", 1, 2, nan)
	same("new", nan, nan, 5)
	for i := 3; i < 5; i++ {
		h.add(at(i), []Org{{Name: "o", Limits: []Limit{{Name: "new", Level: float64(i)}}}})
	}
	times, columns = h.columns("o")
	same("l", 2, nan, nan, nan)
	same("new", nan, 5, 3, 4)
	h.add(at(5), []Org{{Name: "o"}})
	times, columns = h.columns("o")
	same("l")
	h.add(at(6), nil)
	if times, columns = h.columns("o"); len(times) != 4 || len(columns) != 0 {
		t.Errorf("an org that has gone leaves %d times and %v", len(times), columns)
	}
}

func TestShares(t *testing.T) {
	h := newHistory(1000)
	for s := range 100 {
		// One sends 2 a second, the other began at 50 with 3 a second.
		callers := []Caller{{Name: "a", Sent: uint64(2 * s)}}
		if s >= 50 {
			callers = append(callers, Caller{Name: "b", Sent: uint64(3 * (s - 49))})
		}
		h.add(at(s), []Org{{Name: "o", Callers: callers}})
		if s == 20 {
			if sent, over := h.shares("o"); sent["a"] != 40 || over != 20*time.Second {
				t.Errorf("after 20 s: %v over %v", sent, over)
			}
		}
	}
	sent, over := h.shares("o")
	if sent["a"] != 120 || sent["b"] != 150 || over != time.Minute {
		t.Errorf("%v over %v", sent, over)
	}
	if rate := h.rate("o"); rate != 5 {
		t.Errorf("of late %v/s", rate)
	}
	if sent, over := h.shares("nobody"); sent != nil || over != 0 {
		t.Errorf("of an org that is not there: %v over %v", sent, over)
	}
}

// What is kept does not grow with time.
func TestHistoryIsBounded(t *testing.T) {
	h := newHistory(50)
	for s := range 5000 {
		h.add(at(s), of(uint64(s), 1))
	}
	o := h.orgs["o"]
	l := o.limits[limitKey{name: "l"}]
	if cap(h.at) > 200 || cap(l.points) > 200 || cap(o.sent) > 300 {
		t.Errorf("after 5,000 views there is room for %d times, %d points and %d counts", cap(h.at), cap(l.points), cap(o.sent))
	}
}

func BenchmarkAdd(b *testing.B) {
	h := newHistory(600)
	orgs := make([]Org, 50)
	for i := range orgs {
		orgs[i].Name = string(rune('a' + i))
		for j := range 4 {
			orgs[i].Limits = append(orgs[i].Limits, Limit{Name: string(rune('a' + j))})
		}
		for j := range 20 {
			orgs[i].Callers = append(orgs[i].Callers, Caller{Name: string(rune('a' + j))})
		}
	}
	b.ReportAllocs()
	for s := 0; b.Loop(); s++ {
		h.add(at(s), orgs)
	}
}
