package simulate

import (
	"slices"
	"testing"
	"time"

	"github.com/headgate/headgate/internal/bucket"
)

// Which phases a learner goes through, on servers that do one thing each.
func TestPhases(t *testing.T) {
	b50 := Limit{Rate: 50, Burst: 100}
	window := Limit{Algorithm: Fixed, Max: 300, Window: 6 * time.Second}
	rises := Limit{Rate: 25, Burst: 100, Changes: []Change{{10 * time.Second, 100, 100}}}
	for _, row := range []struct {
		name string
		cfg  Config
		want []string // in this order; others may be in between
	}{
		{"nothing told", single(b50, nothing, 1000), []string{"ramp", "search", "track"}},
		{"slow", single(Limit{Rate: 5, Burst: 20}, nothing, 300), []string{"ramp", "search", "contend", "track"}},
		{"told", single(b50, told(50, 100), 2000), []string{"trust", "track"}},
		{"told far too much", single(Limit{Rate: 4, Burst: 100}, told(50, 100), 300), []string{"trust", "search", "contend"}},
		{"told, and the bucket is not ours", single(Limit{Rate: 50, Burst: 20}, told(50, 100), 500), []string{"trust", "search", "track"}},
		{"told, and an outage", func() Config {
			c := single(b50, told(50, 100), 400)
			c.Outages = []Outage{{time.Second, 2 * time.Second}}
			return c
		}(), []string{"trust", "track"}},
		{"rises", single(rises, nothing, 2000), []string{"ramp", "search", "track", "search", "track"}},
		{"window", single(window, nothing, 1000), []string{"ramp", "window"}},
		{"told a window, is a bucket", single(Limit{Rate: 30, Burst: 20}, []bucket.Rule{{Max: 300, Window: 6 * time.Second, Learn: true}}, 500), []string{"window", "track"}},
		{"looks like a window, is a bucket", single(Limit{Rate: 20, Burst: 100}, nothing, 1000, Padded), []string{"ramp", "window", "search"}},
		{"two compete", func() Config {
			c := single(Limit{Rate: 20, Burst: 40}, nothing, 500)
			c.Clients = append(c.Clients, c.Clients[0])
			return c
		}(), []string{"ramp", "search", "contend"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			var went []string
			Watch(row.cfg, func(s Sample) {
				if now := s.Bucket.Estimate(s.At).Learning; s.Client == 0 && (len(went) == 0 || went[len(went)-1] != now) {
					went = append(went, now)
				}
			})
			rest := went
			for _, phase := range row.want {
				i := slices.Index(rest, phase)
				if i < 0 {
					t.Fatalf("it went through %v, want %v", went, row.want)
				}
				rest = rest[i+1:]
			}
			t.Log(went)
		})
	}
}

func single(l Limit, rules []bucket.Rule, n int, ra ...RetryAfter) Config {
	c := base(l)
	c.Clients = one(rules, n)
	if len(ra) > 0 {
		c.RetryAfter = ra[0]
	}
	return c
}
