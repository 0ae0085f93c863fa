package deliver

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/headgate/headgate"
	"github.com/headgate/headgate/genesys"
	"github.com/headgate/headgate/internal/queue"
)

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

func respond(req *http.Request, status int, body string) *http.Response {
	return &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body)), Request: req}
}

// If the gate opens in time, the request has all of its time left.
func TestTimeoutCountsFromTheWire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &Sender{
			Transport: &headgate.Transport{Base: roundTrip(func(req *http.Request) (*http.Response, error) {
				io.Copy(io.Discard, req.Body)
				time.Sleep(40 * time.Second)
				if err := req.Context().Err(); err != nil {
					return nil, err
				}
				return respond(req, 200, "{}"), nil
			})},
			APIURL: "http://api.example", Timeout: time.Minute, Delivery: headgate.AtMostOnce,
		}
		b := s.bound(t.Context(), func() error { return nil })
		defer b.end()
		req, err := s.request(b, queue.Execution{Method: "POST", Path: "/x", Body: []byte("{}")}, "POST", "/x")
		if err != nil {
			t.Fatal(err)
		}
		var tries headgate.Tries
		r := s.Transport.Attempt(req, &tries, func() error {
			err := b.leave()
			time.Sleep(30 * time.Second) // as if for another permit
			return err
		})
		if r.Err != nil || b.over() {
			t.Errorf("%v", r.Err)
		}
	})
}

// What a launch has cost in retries is not held against its polls.
func TestPollsHaveTheirOwnRetries(t *testing.T) {
	var tally queue.Tally
	synctest.Test(t, func(t *testing.T) {
		s := &Sender{APIURL: "http://api.example", Follow: true, Delivery: headgate.AtLeastOnce}
		s.Transport = &headgate.Transport{Base: roundTrip(func(req *http.Request) (*http.Response, error) {
			return respond(req, 200, `{"id":"e"}`), nil
		})}
		x := queue.Execution{ID: 1, Method: "POST", Path: genesys.LaunchPath,
			Tally: queue.Tally{Sent: 4, Retries: 4, LastBackoff: time.Minute, Unauthorized: 1, Unanswered: 1}}
		step, err := s.Send(t.Context(), x, func() error { return nil })
		if err != nil || step.Remote != "e" {
			t.Fatalf("%+v, %v", step, err)
		}
		tally = step.Tally
		if tries := triesOf(tally); tries.Retries != 0 || tries.LastBackoff != 0 || tries.Unauthorized != 0 || tally.Retries != 4 || tally.Unanswered != 1 {
			t.Errorf("%+v", tally)
		}
	})
}
