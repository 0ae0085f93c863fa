package headgate

// Reserve keeps a share of each limit's pace for urgent calls: from now on those
// whose Priority is above urgent, which are less urgent, get no more than the
// rest of it, 1 - share, also while nobody urgent is there. What they leave
// fills the bucket, up to its burst, for those who are.
//
// The share is from 0, which ends it, to 1, with which nobody goes but the
// urgent. What lies outside counts as the nearer of them. It takes effect for
// those who are in line, too, and may be called at any time.
func (l *Limiter) Reserve(share float64, urgent int) {}

// Pause holds back everybody, however urgent, until Resume. Those in line keep
// their places, and wait no longer than their contexts and Ask.Until allow;
// deadlines are judged as if there were no pause.
func (l *Limiter) Pause() {}

// Resume ends a Pause. Those in line go at the pace of their limits.
func (l *Limiter) Resume() {}

// Paused reports whether the limiter is paused.
func (l *Limiter) Paused() bool { return false }
