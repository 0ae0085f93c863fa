package headgate

import "time"

// Forecast says when a permit could be had.
type Forecast struct {
	// Limit is the limit that would be waited for, "" if there is none.
	Limit string
	// Wait is how long, RetryAfter how much of it the server has asked for.
	Wait, RetryAfter time.Duration
	// Bounded: a limit with a known rate takes part in it. If not, Wait
	// knows of nothing but the server's Retry-After.
	Bounded bool
}

// Forecast returns when the last of n permits could be had if they were all
// asked for now and nobody else asked, whatever stands in line already. It
// takes nothing.
func (l *Limiter) Forecast(ask Ask, n int) Forecast {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	l.sweep()
	ln := l.laneFor(&ask)
	t := l.ready(ln, now, max(n, 1)-1, l.isBulk(ask.level()))
	f := Forecast{Wait: t.at - now}
	if f.Wait > 0 {
		f.Limit = t.by.name
	}
	if gate, closed := t.by.bucket.Gate(now); closed {
		f.RetryAfter = gate - now
	}
	for _, a := range ln.accounts {
		f.Bounded = f.Bounded || a.bucket.Paced()
	}
	return f
}
