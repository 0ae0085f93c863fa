package contender

import (
	"net/http"
	"time"

	"github.com/failsafe-go/failsafe-go"
	"github.com/failsafe-go/failsafe-go/failsafehttp"
	"github.com/failsafe-go/failsafe-go/ratelimiter"
)

// failsafeDefault is failsafe-go's policy for HTTP as its examples use it
// (examples/http_test.go, "with failsafe round tripper"; failsafe-go.dev/http):
// NewRetryPolicyBuilder().Build() in a RoundTripper, which is 2 retries and
// Retry-After.
var failsafeDefault = Contender{
	ID: "failsafe", Title: "failsafe-go", Module: "github.com/failsafe-go/failsafe-go",
	About: "default HTTP retry policy: 2 retries, Retry-After",
	New: func(s Setup) (Client, error) {
		return plain{&http.Client{Transport: failsafehttp.NewRoundTripper(s.Base, failsafehttp.NewRetryPolicyBuilder().Build())}}, nil
	},
}

// failsafeLimiter puts its rate limiter under that policy (package ratelimiter;
// failsafe-go.dev/rate-limiter): smooth for a rate, bursty for a window, with a
// maximum wait, as the documentation says for those who would rather wait than
// be refused. Policies are composed from the outside in, so each retry waits
// for a permit too. A smooth limiter knows no burst.
var failsafeLimiter = Contender{
	ID: "failsafe-limiter", Title: "failsafe-go, rate limiter", Module: "github.com/failsafe-go/failsafe-go", Knows: TheLimit,
	About: "the same over its rate limiter: smooth, bursty for a window",
	New: func(s Setup) (Client, error) {
		told := s.Told.share(s.Processes)
		b := ratelimiter.NewSmoothBuilderWithMaxRate[*http.Response](time.Duration(float64(time.Second) / told.PerSecond()))
		if told.IsWindow() {
			b = ratelimiter.NewBurstyBuilder[*http.Response](uint(told.Max), told.Window)
		}
		policies := []failsafe.Policy[*http.Response]{
			failsafehttp.NewRetryPolicyBuilder().Build(),
			b.WithMaxWaitTime(time.Hour).Build(),
		}
		return plain{&http.Client{Transport: failsafehttp.NewRoundTripper(s.Base, policies...)}}, nil
	},
}
