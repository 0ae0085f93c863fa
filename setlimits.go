package headgate

import (
	"errors"
	"fmt"
	"slices"
)

// configure makes the limiter's list of limits. An error names the limit and the
// field.
func configure(limits []Limit) ([]known, error) {
	if len(limits) > maxLimits {
		return nil, fmt.Errorf("%d limits, at most %d", len(limits), maxLimits)
	}
	list := make([]known, len(limits))
	for i, limit := range limits {
		if err := limit.Validate(); err != nil {
			return nil, err
		}
		for _, other := range limits[:i] {
			if other.Name == limit.Name && other.Match == limit.Match {
				return nil, fmt.Errorf("limit %q: is there twice", limit.Name)
			}
		}
		list[i] = known{Limit: limit, buckets: i}
	}
	return list, nil
}

// SetLimits puts other limits in the place of those that were configured, while
// the limiter is at work: those in line keep their places, and what is known of
// limits with the same Name and Match is taken over, as [Limiter.Restore] does: no
// bucket is refilled. Of permits that are out, a refusal closes the gate of the
// limit that it names, as ever; that they were accepted teaches nothing any more.
// On an error, which names the limit and the field, nothing has changed.
func (l *Limiter) SetLimits(limits []Limit) error {
	fresh, err := configure(limits)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if slices.Equal(limits, l.configuredLimits()) {
		return nil
	}
	now := l.now()
	states, old, lanes := l.snapshot(now), l.accounts, l.lanes
	l.limits, l.learned, l.last = fresh, 0, nil
	l.accounts, l.lanes = map[accountKey]*account{}, map[laneKey]*lane{}
	l.restore(states, now)
	for _, ln := range lanes {
		ln.retired = true
	}
	for _, ln := range slices.Clone(l.active) {
		for _, w := range ln.waiters() {
			l.move(w, l.laneBeside(ln, w.path), now)
		}
	}
	for _, was := range old {
		for _, a := range l.accounts {
			if a.sameAs(was) {
				a.sent, a.accepted, a.refused = was.sent, was.accepted, was.refused
			}
		}
	}
	l.refuseLate(now)
	l.dispatch(now)
	return nil
}

// configuredLimits returns what the limiter was told. The limiter is locked.
func (l *Limiter) configuredLimits() (limits []Limit) {
	for _, k := range l.limits {
		if !k.learned {
			limits = append(limits, k.Limit)
		}
	}
	return limits
}

// sameAs reports whether a counts what b counts, whatever its limits are now.
func (a *account) sameAs(b *account) bool {
	k, o := a.key, b.key
	return a.name == b.name && k.org == o.org && k.client == o.client && k.token == o.token && k.path == o.path
}

// current is p as one of the limits that hold by now. The limiter is locked.
func (l *Limiter) current(p Permit) Permit {
	if p.lane.retired {
		p.lane, p.seqs = l.laneBeside(p.lane, p.path), seqs{}
	}
	return p
}

// ErrShut is the Err of a [LimitError] after [Limiter.Shut].
var ErrShut = errors.New("the limiter is shut")

// Shut refuses everybody who waits for a permit, and whoever asks from now on: the
// *[LimitError] wraps ErrShut. Permits that were granted are good. It is for a
// process that is about to end: what has not left can be said to have not left.
func (l *Limiter) Shut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.shut = true
	now := l.now()
	for _, ln := range slices.Clone(l.active) {
		for _, w := range ln.waiters() {
			if w.index >= 0 {
				l.refuse(w, now, ErrShut)
			}
		}
	}
}
