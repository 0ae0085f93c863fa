package simulate

import "time"

// Timeline is a run over time, in slots of equal width. The width doubles
// whenever there would be too many of them.
type Timeline struct {
	Width time.Duration
	Slots []Slot

	backlog  int // carried on into slots in which nothing happens
	at       int // of the slot that was used last
	from, to time.Duration
}

// Slot is what happened within one width.
type Slot struct {
	Arrived  int
	Accepted int // by the server
	Refused  int // 429 and 503
	Lost     int
	// Backlog is the most that waited at once.
	Backlog int
	// Waited is how long those waited together that were answered, MaxWait
	// the longest of them.
	Waited, MaxWait time.Duration
	Answered        int
	// Level is how full each of the first limits was: its share over the
	// time, in seconds.
	Level [timelineLimits]float64
}

const (
	timelineSlots  = 720 // at most
	timelineLimits = 4
)

func newTimeline() *Timeline { return &Timeline{Width: time.Second, at: -1} }

// slot returns the slot of t.
func (l *Timeline) slot(t time.Duration) *Slot {
	if t >= l.from && t < l.to {
		return &l.Slots[l.at]
	}
	for t >= l.Width*timelineSlots {
		l.halve()
	}
	l.at = int(t / l.Width)
	l.from = time.Duration(l.at) * l.Width
	l.to = l.from + l.Width
	for len(l.Slots) <= l.at {
		l.Slots = append(l.Slots, Slot{Backlog: l.backlog})
	}
	return &l.Slots[l.at]
}

// halve makes one slot of two.
func (l *Timeline) halve() {
	n := (len(l.Slots) + 1) / 2
	for i := range n {
		s := l.Slots[2*i]
		if 2*i+1 < len(l.Slots) {
			s.add(&l.Slots[2*i+1])
		}
		l.Slots[i] = s
	}
	l.Slots = l.Slots[:n]
	l.Width *= 2
	l.from, l.to = 0, 0
}

func (s *Slot) add(t *Slot) {
	s.Arrived += t.Arrived
	s.Accepted += t.Accepted
	s.Refused += t.Refused
	s.Lost += t.Lost
	s.Backlog = max(s.Backlog, t.Backlog)
	s.Waited += t.Waited
	s.MaxWait = max(s.MaxWait, t.MaxWait)
	s.Answered += t.Answered
	for i := range s.Level {
		s.Level[i] += t.Level[i]
	}
}

// level notes that a limit went evenly from the share a to b.
func (l *Timeline) level(limit int, from, to time.Duration, a, b float64) {
	if limit >= timelineLimits {
		return
	}
	for from < to {
		s := l.slot(from)
		end := min(to, l.to)
		c := a + (b-a)*float64(end-from)/float64(to-from)
		s.Level[limit] += float64(end-from) * 1e-9 * (a + c) / 2
		from, a = end, c
	}
}
