package contender

import (
	"context"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"
)

// theLoop is what integrations copy from one another, in any language:
//
//	max_retries = 5
//	on 429: sleep(int(headers.get("Retry-After", 2)) + random.uniform(0, 1))
//	on another error: sleep(2 ** attempt)
var theLoop = Contender{
	ID: "loop", Title: "the copied loop",
	About: "5 retries; Retry-After (else 2 s) and up to 1 s; 2ⁿ s after other errors",
	New:   func(s Setup) (Client, error) { return retries{base: s.Base}, nil },
}

// retries is the loop. Those who have a limiter but no retries use it too.
type retries struct {
	base *http.Transport
	// before is called before each attempt; nil: nothing.
	before func(context.Context) error
}

const maxRetries = 5

func (r retries) Do(ctx context.Context, call Call) (int, error) {
	for attempt := 0; ; attempt++ {
		if r.before != nil {
			if err := r.before(ctx); err != nil {
				return 0, err
			}
		}
		req, err := call.Request(ctx)
		if err != nil {
			return 0, err
		}
		resp, err := r.base.RoundTrip(req)
		after := ""
		if resp != nil {
			after = resp.Header.Get("Retry-After")
		}
		status, err := finish(resp, err)
		if err == nil && status < 400 || attempt == maxRetries {
			return status, err
		}
		wait := time.Second << attempt
		if status == http.StatusTooManyRequests {
			seconds, err := strconv.Atoi(after)
			if err != nil {
				seconds = 2
			}
			wait = time.Duration((float64(seconds) + rand.Float64()) * float64(time.Second))
		}
		if err := sleep(ctx, wait); err != nil {
			return status, err
		}
	}
}
