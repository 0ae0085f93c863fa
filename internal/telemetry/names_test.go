package telemetry

import (
	"fmt"
	"strings"
	"sync"
	"testing"
)

func TestNamesAreBounded(t *testing.T) {
	made := 0
	n := newNames(3, func(name string) *string { made++; return &name })
	a := n.get("a")
	for i := range 100 {
		n.get(fmt.Sprint("name", i))
	}
	if made != 4 { // a, name0, name1 and other
		t.Errorf("made %d", made)
	}
	if got := n.get("name99"); *got != other {
		t.Errorf("beyond the bound: %q", *got)
	}
	if n.get("a") != a || *n.get("name1") != "name1" {
		t.Error("what was known is not what it was")
	}
	for _, name := range []string{"\xff", "a\nb", strings.Repeat("x", maxName+1)} {
		if got := newNames(3, func(name string) string { return name }).get(name); got != other {
			t.Errorf("%q became %q", name, got)
		}
	}
}

func TestNamesAreMadeOnce(t *testing.T) {
	var mu sync.Mutex
	made := map[string]int{}
	n := newNames(maxLimits, func(name string) *int {
		mu.Lock()
		defer mu.Unlock()
		made[name]++
		return new(int)
	})
	n.get("0")
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range 2 * maxLimits {
				n.get(fmt.Sprint(i))
			}
		})
	}
	wg.Wait()
	// Who comes second finds what the first one has made, or that it is full.
	if n.add("0") != n.get("0") || n.add("one more") != n.get(other) {
		t.Error("made behind another one's back")
	}
	if len(made) != maxLimits+1 {
		t.Errorf("%d names", len(made))
	}
	for name, times := range made {
		if times != 1 {
			t.Errorf("%q was made %d times", name, times)
		}
	}
}
