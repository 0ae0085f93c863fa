package headgate_test

import (
	"math"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/headgate/headgate"
)

func TestKeysHaveTheirOwnBuckets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, per := range []headgate.Per{headgate.PerToken, headgate.PerClient, headgate.PerOrg, headgate.PerPath} {
			one := limit("one", 1, 1)
			one.Per = per
			l := newLimiter(t, headgate.LimiterConfig{Limits: []headgate.Limit{one}})
			ask := headgate.Ask{Org: "o", Client: "c", Token: "t", Path: "/p"}
			other := map[headgate.Per]headgate.Ask{
				headgate.PerToken:  {Org: "o", Client: "c", Token: "u", Path: "/p"},
				headgate.PerClient: {Org: "o", Client: "d", Token: "t", Path: "/p"},
				headgate.PerOrg:    {Org: "p", Client: "c", Token: "t", Path: "/p"},
				headgate.PerPath:   {Org: "o", Client: "c", Token: "t", Path: "/q"},
			}
			for _, a := range []headgate.Ask{ask, other[per]} {
				if _, err := l.Take(t.Context(), ahead(a)); err != nil {
					t.Errorf("%v: %v", per, err)
				}
			}
			if _, err := l.Take(t.Context(), ahead(ask)); err == nil {
				t.Errorf("%v: the same key has a second bucket", per)
			}
		}
	})
}

func TestWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter(t, headgate.LimiterConfig{Limits: []headgate.Limit{{Name: "w", Max: 3, Window: 6 * time.Second}}})
		c := newCrowd()
		for i := range 2 {
			c.take(t.Context(), l, i, headgate.Ask{}, answered)
		}
		time.Sleep(time.Second)
		for i := range 6 {
			c.take(t.Context(), l, i+2, headgate.Ask{}, answered)
		}
		c.wg.Wait()
		for i, want := range []time.Duration{0, 0, 1000, 6025, 6025, 7025, 12050, 12050} {
			if got := c.went[i]; got != want*time.Millisecond {
				t.Errorf("caller %d went after %v, want %v", i, got, want*time.Millisecond)
			}
		}
	})
}

// Whatever comes, no span of time sees more permits than the limits allow.
func TestNeverMoreThanTheLimits(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		rate := rapid.Float64Range(0.5, 200).Draw(rt, "rate")
		burst := rapid.Float64Range(1, 50).Draw(rt, "burst")
		window := headgate.Limit{Name: "w", Match: "/w", Max: rapid.IntRange(1, 20).Draw(rt, "max"), Window: time.Duration(rapid.IntRange(1, 5000).Draw(rt, "window")) * time.Millisecond}
		gaps := rapid.SliceOfN(rapid.IntRange(0, 300), 1, 60).Draw(rt, "gaps")
		synctest.Test(t, func(t *testing.T) {
			l := newLimiter(t, headgate.LimiterConfig{Limits: []headgate.Limit{{Name: "b", Rate: rate, Burst: burst}, window}})
			c := newCrowd()
			for i, gap := range gaps {
				time.Sleep(time.Duration(gap) * time.Millisecond)
				path := "/b"
				if i%3 == 0 {
					path = "/w"
				}
				c.take(t.Context(), l, i, headgate.Ask{Path: path, Priority: i % 3}, answered)
			}
			c.wg.Wait()
			var all, windowed []time.Duration
			for i, d := range c.went {
				all = append(all, d)
				if i%3 == 0 {
					windowed = append(windowed, d)
				}
			}
			slices.Sort(all)
			slices.Sort(windowed)
			for i := range all {
				for j := i; j < len(all); j++ {
					if n, most := float64(j-i+1), burst+rate*(all[j]-all[i]).Seconds(); n > most+1e-3 {
						rt.Fatalf("%v permits within %v, the bucket has %v", n, all[j]-all[i], most)
					}
				}
			}
			for i := range len(windowed) - window.Max {
				if d := windowed[i+window.Max] - windowed[i]; d < window.Window {
					rt.Fatalf("%d permits within %v", window.Max+1, d)
				}
			}
		})
	})
}

func TestLimitValidation(t *testing.T) {
	for _, test := range []struct {
		limit headgate.Limit
		says  string
	}{
		{headgate.Limit{Rate: 1, Burst: 1}, "Name"},
		{headgate.Limit{Name: "x", Burst: 1}, "Rate is 0"},
		{headgate.Limit{Name: "x", Rate: -1, Burst: 1}, "Rate is -1"},
		{headgate.Limit{Name: "x", Rate: math.NaN(), Burst: 1}, "Rate is NaN"},
		{headgate.Limit{Name: "x", Rate: math.Inf(1), Burst: 1}, "Rate is +Inf"},
		{headgate.Limit{Name: "x", Rate: 1, Burst: 0.5}, "Burst is 0.5"},
		{headgate.Limit{Name: "x", Rate: 1, Burst: math.NaN()}, "Burst is NaN"},
		{headgate.Limit{Name: "x", Max: -1, Window: 1}, "Max is -1"},
		{headgate.Limit{Name: "x", Max: 1}, "Window is 0"},
		{headgate.Limit{Name: "x", Max: headgate.MaxWindow + 1, Window: 1}, "Max is"},
		{headgate.Limit{Name: "x", Rate: 1, Burst: 1, Max: 1, Window: 1}, "both"},
		{headgate.Limit{Name: "x", Rate: 1, Burst: 1, Match: "api"}, "Match"},
		{headgate.Limit{Name: "x", Rate: 1, Burst: 1, Per: 9}, "Per"},
	} {
		if _, err := headgate.NewLimiter(headgate.LimiterConfig{Limits: []headgate.Limit{test.limit}}); err == nil || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%+v: got %v, want it to say %q", test.limit, err, test.says)
		}
	}
}

func TestParseRate(t *testing.T) {
	for s, want := range map[string]struct {
		n   float64
		per time.Duration
	}{"50": {50, time.Second}, "50/s": {50, time.Second}, "300/min": {300, time.Minute}, "0.5/h": {0.5, time.Hour}, "9/d": {9, 24 * time.Hour}} {
		if n, per, err := headgate.ParseRate(s); n != want.n || per != want.per || err != nil {
			t.Errorf("%q: %v per %v, %v", s, n, per, err)
		}
	}
	for _, s := range []string{"", "0", "-1", "NaN", "Inf", "1e999", "50/fortnight", "x/s", "/s"} {
		if n, per, err := headgate.ParseRate(s); err == nil {
			t.Errorf("%q: %v per %v, want an error", s, n, per)
		}
	}
}

// However a server counts n per minute, a client that goes by Even is within it.
func TestEvenFitsEveryAlgorithm(t *testing.T) {
	for _, n := range []int{1, 2, 10, 19, 20, 21, 300} {
		synctest.Test(t, func(t *testing.T) {
			rate, burst := headgate.Even(float64(n), time.Minute)
			l := exact(t, headgate.Limit{Name: "even", Rate: rate, Burst: burst})
			var went []time.Time
			for range 3*n + 2 {
				p, err := l.Take(t.Context(), headgate.Ask{})
				if err != nil {
					t.Fatal(err)
				}
				answered(p)
				went = append(went, time.Now())
			}
			for i := range len(went) - n {
				if d := went[i+n].Sub(went[i]); d < time.Minute {
					t.Errorf("%d/min: %d requests within %v", n, n+1, d)
				}
			}
		})
	}
}

func TestUnusedPermitIsReturnedToTheWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := exact(t, headgate.Limit{Name: "w", Max: 3, Window: 10 * time.Second})
		var permits []headgate.Permit
		for range 3 {
			p, _ := l.Take(t.Context(), headgate.Ask{})
			permits = append(permits, p)
			time.Sleep(time.Second)
		}
		permits[1].Return() // after 3 s
		c := newCrowd()
		for i := range 3 {
			c.take(t.Context(), l, i, headgate.Ask{}, answered)
		}
		c.wg.Wait()
		// Taken at 0 and 2 s before, three seconds ago and one.
		for i, want := range []time.Duration{0, 7025, 9025} {
			if c.went[i] != want*time.Millisecond {
				t.Errorf("caller %d went after %v, want %v", i, c.went[i], want*time.Millisecond)
			}
		}
	})
}
