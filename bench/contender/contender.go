// Package contender holds the clients that the contest runs, one in each file.
// Each is used as its own documentation says, which its doc comment names.
package contender

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"time"
)

// Knows says what a contender has to be told before it can be used.
type Knows int

// The values of [Knows].
const (
	Nothing     Knows = iota // it plays everywhere
	TheLimit                 // it plays where the scenario says what the documentation says
	SomeFiction              // it plays where the scenario has something wrong to tell
)

// Contender is one client of the contest.
type Contender struct {
	ID     string // for filters and files
	Title  string // for tables
	About  string // how it is used, in a line
	Module string // whose version stands in the results
	Knows  Knows
	// Redis says that it needs Setup.Redis.
	Redis bool
	// New makes the client of one process. The client is used by many
	// callers at once; if it is an io.Closer it is closed after them.
	New func(Setup) (Client, error)
}

// All returns the contenders in the order of the tables.
func All() []Contender {
	return []Contender{
		headgateKnown, headgateLearn, headgateWrong,
		xTimeRate, failsafeLimiter, redisRate,
		awsAdaptive, theLoop, retryableHTTP, failsafeDefault, cenkaltiBackoff,
	}
}

// Setup is what the client of a process gets.
type Setup struct {
	// Base is the connection pool of this process.
	Base *http.Transport
	// Name is what the server calls its limit, and Per what it counts, in a
	// word of emulator.Per.
	Name, Per string
	// Told is what the process believes of that limit; nil if it is told
	// nothing.
	Told *Limit
	// Processes is how many such processes draw on the limit. One that can
	// neither learn nor ask takes its share of what it is told.
	Processes int
	// Redis is the address of a server that all processes share, and Key
	// names the limit there.
	Redis, Key string
}

// Limit is a limit as documentation states it: a token bucket (Rate and Burst)
// or a window (Max and Window).
type Limit struct {
	Rate   float64       `yaml:"rate"`
	Burst  float64       `yaml:"burst"`
	Max    int           `yaml:"max"`
	Window time.Duration `yaml:"window"`
}

// IsWindow says whether it is a window.
func (l Limit) IsWindow() bool { return l.Max > 0 }

// PerSecond is how many requests a second it allows in the long run.
func (l Limit) PerSecond() float64 {
	if l.IsWindow() {
		return float64(l.Max) / l.Window.Seconds()
	}
	return l.Rate
}

// share is the part of one of n processes that know nothing of each other.
func (l Limit) share(n int) Limit {
	l.Rate /= float64(n)
	l.Burst = max(1, l.Burst/float64(n))
	if l.IsWindow() {
		l.Max = max(1, l.Max/n)
	}
	return l
}

// Call is one execution to be made.
type Call struct {
	URL    string
	Bearer string
	Body   []byte
}

// Request returns an attempt at it.
func (c Call) Request(ctx context.Context) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.URL, bytes.NewReader(c.Body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+c.Bearer)
	req.Header.Set("Content-Type", "application/json")
	return req, nil
}

// Client makes calls. Do returns the status of the last answer, or an error if
// the client has no answer to give. It returns soon after ctx has ended.
type Client interface {
	Do(ctx context.Context, call Call) (status int, err error)
}

// doer is what most clients are: something that takes a request.
type doer interface {
	Do(*http.Request) (*http.Response, error)
}

// plain calls a doer once.
type plain struct{ doer }

func (p plain) Do(ctx context.Context, call Call) (int, error) {
	req, err := call.Request(ctx)
	if err != nil {
		return 0, err
	}
	return finish(p.doer.Do(req))
}

// finish reads an answer to its end, so that its connection is used again.
func finish(resp *http.Response, err error) (int, error) {
	if resp == nil {
		return 0, err
	}
	defer resp.Body.Close()
	_, readErr := io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, errors.Join(err, readErr)
}

// sleep waits for d, unless ctx ends.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
