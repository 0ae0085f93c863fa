package headgate

// Waiting returns how many stand in line.
func Waiting(l *Limiter) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, ln := range l.active {
		n += upTo(ln.waiting, priorities-1)
	}
	return n
}

// Learned returns how many limits are known from refusals alone.
func Learned(l *Limiter) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.learned
}

var (
	Template = template
	Folds    = folds
)

// Accounts returns how many buckets are kept.
func Accounts(l *Limiter) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.accounts)
}

// Standings returns of how many callers is kept what they had, in the limiter
// and in its lanes.
func Standings(l *Limiter) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := len(l.standings)
	for _, ln := range l.lanes {
		n += len(ln.queues)
	}
	return n
}
