package contender

import (
	"context"

	"github.com/hashicorp/go-retryablehttp"
)

// retryableHTTP is hashicorp/go-retryablehttp with the defaults of its
// NewClient (README, "Example Use", and the package's documentation): 4
// retries; Retry-After as it comes, else 1 s, 2 s, 4 s … up to 30 s. Only its
// log is turned off, and its connection pool is that of the contest.
var retryableHTTP = Contender{
	ID: "retryablehttp", Title: "go-retryablehttp", Module: "github.com/hashicorp/go-retryablehttp",
	About: "defaults: 4 retries, Retry-After, else 1 s doubled",
	New: func(s Setup) (Client, error) {
		c := retryablehttp.NewClient()
		c.Logger = nil
		c.HTTPClient.Transport = s.Base
		return retryable{c}, nil
	},
}

type retryable struct{ client *retryablehttp.Client }

func (r retryable) Do(ctx context.Context, call Call) (int, error) {
	plain, err := call.Request(ctx)
	if err != nil {
		return 0, err
	}
	req, err := retryablehttp.FromRequest(plain)
	if err != nil {
		return 0, err
	}
	return finish(r.client.Do(req))
}
