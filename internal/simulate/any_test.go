package simulate

import (
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/headgate/headgate/internal/bucket"
)

// anyLimit is a limit that stands still, of any size and algorithm, and what was
// told of it: nothing, the truth, or something else.
type anyLimit struct {
	cfg   Config
	told  string // what was told
	right bool   // it is the truth
	ideal float64
}

func (a anyLimit) String() string {
	l, c := a.cfg.Limits[0], a.cfg.Clients[0]
	size := fmt.Sprintf("%.1f/s and %v", l.Rate, l.Burst)
	if l.Max > 0 {
		size = fmt.Sprintf("%d in %v, %s, phase %v", l.Max, l.Window, [...]string{"", "fixed", "sliding"}[l.Algorithm], l.Phase)
	}
	return fmt.Sprintf("%s, told %s, answers after %v, %d calls of %d callers", size, a.told, a.cfg.Service, c.N, c.Callers)
}

// newAnyLimit makes one. It is worked at for 400 s at the least, or for twelve of
// its windows.
func newAnyLimit(seed uint64) anyLimit {
	rng := rand.New(rand.NewPCG(seed, 1))
	// between is as likely in each octave.
	between := func(low, high float64) float64 { return low * math.Exp(rng.Float64()*math.Log(high/low)) }
	var l Limit
	rate, span := between(2, 1000), 400.0
	if rng.IntN(2) == 0 {
		l = Limit{Rate: rate, Burst: max(1, math.Round(rate*between(0.1, 20)))}
	} else {
		seconds := []int{2, 5, 6, 10, 30, 60, 60, 60, 300}[rng.IntN(9)]
		l = Limit{Algorithm: Fixed, Max: int(between(20, 3000)), Window: time.Duration(seconds) * time.Second}
		switch rng.IntN(3) {
		case 0:
			l.Algorithm = Sliding
		case 1:
			l.Phase = time.Duration(1 + rng.Int64N(int64(l.Window-1)))
		}
		rate = float64(l.Max) / l.Window.Seconds()
		span = max(span, 12*l.Window.Seconds())
	}
	a := anyLimit{told: "nothing"}
	rules := nothing
	switch rng.IntN(4) {
	case 0:
	case 1:
		r, b := rate*between(0.3, 3), max(1, math.Round(rate*between(0.1, 10)))
		a.told, rules = fmt.Sprintf("%.1f/s and %v", r, b), told(r, b)
	case 2:
		window, n := cmp.Or(l.Window, time.Minute), rate*between(0.4, 2)
		w := bucket.Rule{Max: max(1, int(n*window.Seconds())), Window: window, Learn: true}
		a.told, rules = fmt.Sprintf("%d in %v", w.Max, window), []bucket.Rule{w}
	default:
		a.told, a.right, rules = "the truth", true, told(l.Rate, l.Burst)
		if l.Max > 0 {
			rules = []bucket.Rule{{Max: l.Max, Window: l.Window, Learn: true}}
		}
	}
	n := int(min(60000, l.Burst+rate*span))
	a.cfg = base(l)
	a.cfg.Seed = seed
	a.cfg.Clients = one(rules, n)
	a.cfg.Clients[0].Callers = []int{200, 200, 20}[rng.IntN(3)]
	a.cfg.Service = []time.Duration{5, 5, 20, 100}[rng.IntN(4)] * ms
	a.ideal = (float64(n) - l.Burst) / rate
	if l.Max > 0 {
		a.ideal = float64((n-1)/l.Max) * l.Window.Seconds()
	}
	// Nor can callers be faster than their answers.
	a.ideal = max(a.ideal, float64(n)*a.cfg.Service.Seconds()/float64(a.cfg.Clients[0].Callers))
	return a
}

// No limit that stands still is used badly or run against for ever, whatever it is
// and whatever was told of it. The scenarios of TestTable are some that matter;
// these are any.
//
//	go test -run TestAnyLimit -v -seeds 2000 .
func TestAnyLimit(t *testing.T) {
	spans, refused := 0.0, 0.0
	runs := 10 * *seedsFlag
	for seed := range runs {
		a := newAnyLimit(uint64(seed))
		r := Run(a.cfg)
		span, share := r.Span.Seconds()/a.ideal, float64(r.Refused)/float64(r.Accepted)
		spans += math.Log(span)
		refused += share
		if r.Accepted != a.cfg.Clients[0].N || r.Early > 0 {
			t.Errorf("%d: %v: %d accepted, %d early", seed, a, r.Accepted, r.Early)
		}
		if span > 5 || share > 0.2 || a.right && (span > 1.5 || share > 0.05) {
			t.Errorf("%d: %v: %.3f of the ideal, %.2f %% refused", seed, a, span, 100*share)
		}
	}
	mean := math.Exp(spans / float64(runs))
	t.Logf("%.3f of the ideal, %.2f %% refused, on the mean", mean, 100*refused/float64(runs))
	if mean > 1.12 || refused/float64(runs) > 0.006 {
		t.Errorf("%.3f of the ideal, %.2f %% refused, on the mean", mean, 100*refused/float64(runs))
	}
}
