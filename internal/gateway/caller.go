package gateway

import (
	"sync"
	"sync/atomic"

	"github.com/headgate/headgate/internal/config"
)

// caller is somebody who sends calls through the gateway, for one org. It lives
// as long as the org does: counters outlive a reload of the file.
type caller struct {
	name   string
	conf   atomic.Pointer[config.Caller]
	held   atomic.Int64
	coming coming
}

func (c *caller) weight() float64 { return c.conf.Load().Weight }

// urgencyOf is the urgency of a call: what it asks for, or else what the file
// says, and no better than the caller may have.
func (c *caller) urgencyOf(asked int) int {
	conf := c.conf.Load()
	if asked < 0 {
		asked = conf.Urgency
	}
	return max(asked, conf.MostUrgent)
}

// callers are those of one org.
type callers struct {
	mu     sync.Mutex
	org    *config.Org
	byName map[string]*caller
	guests int
}

const (
	// maxGuests bounds the names that callers without keys give themselves.
	maxGuests = 1000
	// anonymous is a caller without a name.
	anonymous = "anonymous"
)

// apply takes over what a file says of its callers.
func (c *callers) apply(conf *config.Org) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.org = conf
	for name, known := range c.byName {
		known.conf.Store(new(conf.Guest(name)))
	}
	for i := range conf.Callers {
		c.at(conf.Callers[i].Name).conf.Store(&conf.Callers[i])
	}
}

// at finds or makes the caller with that name. The lock is held.
func (c *callers) at(name string) *caller {
	known := c.byName[name]
	if known == nil {
		if c.byName == nil {
			c.byName = map[string]*caller{}
		}
		known = &caller{name: name}
		known.conf.Store(new(c.org.Guest(name)))
		c.byName[name] = known
	}
	return known
}

// named returns a caller that the file names.
func (c *callers) named(name string) *caller {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at(name)
}

// guest returns the caller with a name that it has given itself.
func (c *callers) guest(name string) *caller {
	c.mu.Lock()
	defer c.mu.Unlock()
	if name == "" || len(name) > 64 {
		name = anonymous
	}
	if known := c.byName[name]; known != nil {
		return known
	}
	if c.guests >= maxGuests {
		return c.at(anonymous)
	}
	c.guests++
	return c.at(name)
}

// weight returns the weight of a caller, 0 for one that is not known.
func (c *callers) weight(name string) float64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if known := c.byName[name]; known != nil {
		return known.weight()
	}
	return 0
}
