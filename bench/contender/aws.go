package contender

import (
	"context"
	"fmt"
	"net/http"

	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// awsAdaptive is the AWS SDK for Go v2 in its adaptive retry mode: the one
// mainstream client that learns a rate. retry.NewAdaptiveMode is made once for
// each client, as its documentation asks, and run by the SDK's own loop, the
// Attempt middleware that every service client has (package aws/retry,
// NewAttemptMiddleware). Its defaults: 3 attempts, a retry quota, up to 20 s of
// backoff. It reads no Retry-After, only AWS's own header. Answers from 400 up
// become the error type that service clients see.
var awsAdaptive = Contender{
	ID: "aws-adaptive", Title: "AWS SDK, adaptive", Module: "github.com/aws/aws-sdk-go-v2",
	About: "retry.NewAdaptiveMode in the SDK's attempt middleware, defaults",
	New: func(s Setup) (Client, error) {
		return awsRetryer{
			attempt: retry.NewAttemptMiddleware(retry.NewAdaptiveMode(), func(v any) any { return v }),
			base:    s.Base,
		}, nil
	},
}

type awsRetryer struct {
	attempt *retry.Attempt
	base    *http.Transport
}

func (a awsRetryer) Do(ctx context.Context, call Call) (int, error) {
	send := func(ctx context.Context, _ middleware.FinalizeInput) (out middleware.FinalizeOutput, meta middleware.Metadata, err error) {
		req, err := call.Request(ctx)
		if err != nil {
			return out, meta, err
		}
		resp, err := a.base.RoundTrip(req)
		if err != nil {
			return out, meta, &smithyhttp.RequestSendError{Err: err}
		}
		status, err := finish(resp, nil)
		switch {
		case err != nil:
			return out, meta, &smithyhttp.RequestSendError{Err: err}
		case status >= 400:
			return out, meta, &smithyhttp.ResponseError{Response: &smithyhttp.Response{Response: resp}, Err: fmt.Errorf("status %d", status)}
		}
		out.Result = status
		return out, meta, nil
	}
	out, _, err := a.attempt.HandleFinalize(ctx, middleware.FinalizeInput{}, middleware.FinalizeHandlerFunc(send))
	if err != nil {
		return 0, err
	}
	return out.Result.(int), nil
}
