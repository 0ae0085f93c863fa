package headgate

import (
	"math"

	"github.com/headgate/headgate/internal/bucket"
)

// Reserve keeps a share of each limit's pace for urgent calls: from now on those
// whose Priority is above urgent, which are less urgent, get no more than the
// rest of it, 1 - share, also while nobody urgent is there. What they leave
// fills the bucket, up to its burst, for those who are.
//
// The share is from 0, which ends it, to 1, with which nobody goes but the
// urgent. What lies outside counts as the nearer of them. A limit whose rate is
// not known is not divided. It takes effect for those who are in line, too, and
// may be called at any time.
func (l *Limiter) Reserve(share float64, urgent int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	for _, a := range l.accounts {
		if l.share > 0 {
			l.allow(a, now)
		} else {
			a.allowance = allowance{level: 1, at: now}
		}
	}
	l.share = 0
	if share > 0 { // and is a number
		l.share = min(share, 1)
	}
	l.urgent = int8(min(max(urgent, MostUrgent), LeastUrgent) - MostUrgent)
	l.dispatch(now)
}

// allowance is what the calls that are not urgent may take from a bucket while a
// share of it is kept.
type allowance struct {
	level float64
	at    bucket.Instant
}

// isBulk reports whether calls of priority p leave a share to others.
func (l *Limiter) isBulk(p int8) bool { return l.share > 0 && p > l.urgent }

// allow brings the allowance of a up to now, and returns its rate; 0 if it has
// none. The limiter is locked.
func (l *Limiter) allow(a *account, now bucket.Instant) (rate float64) {
	rate = (1 - l.share) * a.bucket.PerSecond()
	w := &a.allowance
	if d := now - w.at; d > 0 {
		// A timer that is late must not cost pace.
		most := max(2, rate/10)
		w.level = max(w.level, min(most, w.level+rate*d.Seconds()))
		w.at = now
	}
	return rate
}

// allowed returns when the n-th call that is not urgent may take from a.
func (l *Limiter) allowed(a *account, now bucket.Instant, n int) bucket.Instant {
	if l.share == 1 {
		return bucket.Never
	}
	rate := l.allow(a, now)
	missing := float64(n) - a.allowance.level
	if rate == 0 || missing <= 1e-6 {
		return now
	}
	wait := math.Ceil(missing / rate * 1e9)
	if wait >= float64(bucket.Never-now) {
		return bucket.Never
	}
	return now + bucket.Instant(wait)
}

// Pause holds back everybody, however urgent, until Resume. Those in line keep
// their places, and wait no longer than their contexts and Ask.Until allow;
// deadlines are judged as if there were no pause. Permits that were granted
// before are good.
func (l *Limiter) Pause() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.paused = true
	l.dispatch(l.now())
}

// Resume ends a Pause. Those in line go at the pace of their limits.
func (l *Limiter) Resume() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.paused = false
	l.dispatch(l.now())
}

// Paused reports whether the limiter is paused.
func (l *Limiter) Paused() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.paused
}
