package simulate

import "time"

// line is who waits, first come, first served: a ring of groups that came at
// the same instant, so that a batch of a million takes the place of one.
type line struct {
	ring    []group // its length is a power of two
	head, n int
}

type group struct {
	came  time.Duration
	count int
}

func (l *line) at(i int) *group { return &l.ring[(l.head+i)&(len(l.ring)-1)] }

func (l *line) grow() {
	if l.n < len(l.ring) {
		return
	}
	ring := make([]group, max(16, 2*len(l.ring)))
	for i := range l.n {
		ring[i] = *l.at(i)
	}
	l.ring, l.head = ring, 0
}

// push adds count at the end. They must not have come before any other.
func (l *line) push(came time.Duration, count int) {
	if count <= 0 {
		return
	}
	if l.n > 0 {
		if last := l.at(l.n - 1); last.came == came {
			last.count += count
			return
		}
	}
	l.grow()
	l.n++
	*l.at(l.n - 1) = group{came, count}
}

// pop takes the first one. There is one.
func (l *line) pop() (came time.Duration) {
	g := l.at(0)
	came = g.came
	if g.count--; g.count == 0 {
		l.head = (l.head + 1) & (len(l.ring) - 1)
		l.n--
	}
	return came
}

// back puts one back in its place. It looks from the front, because whoever was
// sent came before most of those who were not.
func (l *line) back(came time.Duration) {
	i := 0
	for i < l.n && l.at(i).came < came {
		i++
	}
	if i < l.n && l.at(i).came == came {
		l.at(i).count++
		return
	}
	l.grow()
	l.head = (l.head - 1) & (len(l.ring) - 1)
	l.n++
	for j := range i {
		*l.at(j) = *l.at(j + 1)
	}
	*l.at(i) = group{came, 1}
}
