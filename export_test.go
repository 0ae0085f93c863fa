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
