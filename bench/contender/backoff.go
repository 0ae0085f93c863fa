package contender

import (
	"context"
	"fmt"
	"net/http"
	"strconv"

	"github.com/cenkalti/backoff/v5"
)

// cenkaltiBackoff is cenkalti/backoff as ExampleRetry in its documentation shows
// it for HTTP: Retry with an ExponentialBackOff (0.5 s, times 1.5, randomised by
// half, up to 60 s, for 15 minutes), and RetryAfter for a 429 that says so. The
// example takes every other answer for a success; here it is an error.
var cenkaltiBackoff = Contender{
	ID: "backoff", Title: "cenkalti/backoff", Module: "github.com/cenkalti/backoff/v5",
	About: "its example for HTTP: exponential, Retry-After on 429",
	New: func(s Setup) (Client, error) {
		return backingOff{s.Base}, nil
	},
}

type backingOff struct{ base *http.Transport }

func (b backingOff) Do(ctx context.Context, call Call) (int, error) {
	return backoff.Retry(ctx, func() (int, error) {
		req, err := call.Request(ctx)
		if err != nil {
			return 0, backoff.Permanent(err)
		}
		resp, err := b.base.RoundTrip(req)
		after := ""
		if resp != nil {
			after = resp.Header.Get("Retry-After")
		}
		status, err := finish(resp, err)
		switch {
		case err != nil:
			return 0, err
		case status == http.StatusBadRequest:
			return status, backoff.Permanent(fmt.Errorf("status %d", status))
		case status == http.StatusTooManyRequests:
			if seconds, err := strconv.ParseInt(after, 10, 64); err == nil {
				return status, backoff.RetryAfter(int(seconds))
			}
		}
		if status >= 400 {
			return status, fmt.Errorf("status %d", status)
		}
		return status, nil
	}, backoff.WithBackOff(backoff.NewExponentialBackOff()))
}
