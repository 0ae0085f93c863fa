package bucket

// ring holds the latest instants, the oldest first.
type ring struct {
	buf     []Instant
	head, n int
}

func (r *ring) at(i int) Instant { return r.buf[(r.head+i)%len(r.buf)] }

// push adds t, not before any other, and drops the oldest if there are most
// already.
func (r *ring) push(t Instant, most int) {
	switch {
	case r.n == most:
		r.head = (r.head + 1) % len(r.buf)
		r.n--
	case r.n == len(r.buf): // also if most has grown
		grown := make([]Instant, min(most, max(16, 2*r.n)))
		for i := range r.n {
			grown[i] = r.at(i)
		}
		r.buf, r.head = grown, 0
	}
	r.buf[(r.head+r.n)%len(r.buf)] = t
	r.n++
}

// remove takes out the newest entry equal to t and reports whether there was
// one. It looks from the newest on: what is removed was added lately.
func (r *ring) remove(t Instant) bool {
	for i := r.n - 1; i >= 0 && r.at(i) >= t; i-- {
		if r.at(i) != t {
			continue
		}
		for j := i; j < r.n-1; j++ {
			r.buf[(r.head+j)%len(r.buf)] = r.at(j + 1)
		}
		r.n--
		return true
	}
	return false
}

// keep drops all but the latest most.
func (r *ring) keep(most int) {
	if drop := r.n - most; drop > 0 {
		r.head = (r.head + drop) % len(r.buf)
		r.n = most
	}
}
