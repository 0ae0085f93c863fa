package contender

import "golang.org/x/time/rate"

// xTimeRate is golang.org/x/time/rate as its package documentation says: Wait
// before each event, with the rate and the burst of the limit. It has no
// retries of its own: the copied loop does them, and waits for the limiter
// before each. For a window the burst is 1, because a bucket with more would
// overrun it.
var xTimeRate = Contender{
	ID: "x-time-rate", Title: "x/time/rate", Module: "golang.org/x/time", Knows: TheLimit,
	About: "at the told rate and burst, with the retries of the copied loop",
	New: func(s Setup) (Client, error) {
		told := s.Told.share(s.Processes)
		limiter := rate.NewLimiter(rate.Limit(told.PerSecond()), max(1, int(told.Burst)))
		return retries{base: s.Base, before: limiter.Wait}, nil
	},
}
