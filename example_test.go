package headgate_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/headgate/headgate"
	"github.com/headgate/headgate/emulator"
)

// A client whose requests keep to a bucket of 50/s and 100, and one that is told
// nothing and still holds everybody back while the server says so.
func ExampleTransport() {
	client := &http.Client{Transport: &headgate.Transport{
		Limits: []headgate.Limit{{Name: "api", Rate: 50, Burst: 100}},
	}}
	cautious := &http.Client{Transport: &headgate.Transport{}}
	_, _ = client, cautious
}

// What a call may wait for, and what the refusal says.
func ExampleLimitError() {
	limiter, err := headgate.NewLimiter(headgate.LimiterConfig{
		Limits: []headgate.Limit{{Name: "api", Rate: 1, Burst: 1}},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
	defer cancel()
	for range 2 {
		permit, err := limiter.Take(ctx, headgate.Ask{})
		var limit *headgate.LimitError
		if errors.As(err, &limit) {
			fmt.Printf("%s: not before %v\n", limit.Limit, limit.Wait.Round(time.Second))
			continue
		}
		fmt.Println("sent")
		permit.Done(headgate.Observation{Status: 200})
	}
	// Output:
	// sent
	// api: not before 1s
}

// One call of a batch that must not be executed twice, before the others.
func ExampleWithCall() {
	once := headgate.AtMostOnce
	ctx := headgate.WithCall(context.Background(), headgate.Call{
		Priority: headgate.MostUrgent,
		MaxWait:  10 * time.Second,
		Delivery: &once,
	})
	req, err := http.NewRequestWithContext(ctx, "POST", "https://api.example.com/things", strings.NewReader("{}"))
	_, _ = req, err
}

// The emulator is an http.Handler.
func Example_emulator() {
	srv, err := emulator.New(emulator.Config{Limits: []emulator.Limit{{Rate: 50, Burst: 100}}})
	if err != nil {
		fmt.Println(err)
		return
	}
	_ = srv.API() // for http.ListenAndServe, or httptest.NewServer
	fmt.Println(srv.Report().Executed)
	// Output: 0
}
