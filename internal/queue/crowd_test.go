package queue

import (
	"math/rand/v2"
	"slices"
	"testing"
)

func TestCrowd(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	var c crowd
	var in []Place
	for i := range 10_000 {
		// It grows and gets empty, again and again.
		if len(in) == 0 || rng.IntN(100) < 40+20*(i/100%2) {
			p := Place{rng.IntN(3) - 1, int64(rng.IntN(6))}
			c.add(p)
			in = append(in, p)
		} else {
			k := rng.IntN(len(in))
			c.remove(in[k])
			in = slices.Delete(in, k, k+1)
		}
		want := firstPlace()
		if len(in) > 0 {
			want = slices.MaxFunc(in, Place.Compare)
		}
		if i%3 == 0 { // not each time: what is not asked for is not looked for
			if got := c.worst(); got != want {
				t.Fatalf("after %d changes: worst of %v is %v", i+1, in, got)
			}
		}
	}
}
