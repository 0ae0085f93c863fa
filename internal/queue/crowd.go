package queue

import "math"

// crowd knows the worst place among those who are in it.
type crowd struct {
	at    map[Place]int // how many have which place
	last  Place         // the worst, unless stale
	stale bool
}

func (c *crowd) add(p Place) {
	if c.at == nil {
		c.at = map[Place]int{}
	}
	c.at[p]++
	if len(c.at) == 1 || c.last.Before(p) {
		c.last, c.stale = p, false
	}
}

func (c *crowd) remove(p Place) {
	if c.at[p]--; c.at[p] > 0 {
		return
	}
	delete(c.at, p)
	c.stale = c.stale || p == c.last
}

// worst returns the worst place, the best possible if nobody is there. It looks
// through all of them only after the worst has gone.
func (c *crowd) worst() Place {
	if !c.stale && len(c.at) > 0 {
		return c.last
	}
	c.last, c.stale = firstPlace(), false
	for p := range c.at {
		if c.last.Before(p) {
			c.last = p
		}
	}
	return c.last
}

// firstPlace is before that of any execution.
func firstPlace() Place { return Place{math.MinInt, math.MinInt64} }

func earlier(a, b Place) Place {
	if b.Before(a) {
		return b
	}
	return a
}
