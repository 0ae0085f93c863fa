package bulk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/headgate/headgate"
	"github.com/headgate/headgate/emulator"
	"github.com/headgate/headgate/genesys"
	"github.com/headgate/headgate/headgatetest"
	"github.com/headgate/headgate/internal/deliver"
	"github.com/headgate/headgate/internal/queue"
)

// around makes a base that answers what f has an answer or an error for, and
// leaves the rest to the emulator. n counts the API's requests from 1.
func around(f func(n int, req *http.Request) (*http.Response, error)) func(http.RoundTripper) http.RoundTripper {
	return func(rt http.RoundTripper) http.RoundTripper {
		requests := make(chan int, 1)
		requests <- 0
		return roundTrip(func(req *http.Request) (*http.Response, error) {
			if strings.HasSuffix(req.URL.Path, "/oauth/token") {
				return rt.RoundTrip(req)
			}
			n := <-requests + 1
			requests <- n
			resp, err := f(n, req)
			if resp == nil && err == nil {
				return rt.RoundTrip(req)
			}
			if req.Body != nil {
				req.Body.Close()
			}
			return resp, err
		})
	}
}

func respond(req *http.Request, status int, body string) *http.Response {
	return &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body)), Request: req}
}

var errRefused = &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}

// An API that takes a request and never answers holds nothing up for ever.
func TestTimeout(t *testing.T) {
	silent := func(n int, req *http.Request) (*http.Response, error) {
		if n > 1 {
			return nil, nil
		}
		<-req.Context().Done()
		return nil, req.Context().Err()
	}
	for _, test := range []struct {
		delivery headgate.Delivery
		outcome  string
		took     time.Duration
	}{{headgate.AtLeastOnce, "done", 31 * time.Second}, {headgate.AtMostOnce, "unknown", 30 * time.Second}} {
		synctest.Test(t, func(t *testing.T) {
			o := bench{intake: jsonl(), delivery: test.delivery, base: around(silent), timeout: 30 * time.Second}.run(t, `{"flowId":"f"}`)
			r := o.results[0]
			if o.err != nil || r.Outcome != test.outcome || r.MaybeExecuted != 1 || o.took != test.took {
				t.Errorf("%v: %v, %+v after %v", test.delivery, o.err, r, o.took)
			}
			if test.outcome == "unknown" && r.Reason != "sent, and no answer came: no answer within 30s" {
				t.Errorf("reason %q", r.Reason)
			}
		})
	}
	// Retries end, as for any other failure.
	synctest.Test(t, func(t *testing.T) {
		o := bench{
			intake: jsonl(), delivery: headgate.AtLeastOnce, timeout: 30 * time.Second,
			config: genesys.Config{Retry: headgate.Retry{MaxRetries: 2}},
			base:   around(func(_ int, req *http.Request) (*http.Response, error) { return silent(1, req) }),
		}.run(t, `{"flowId":"f"}`)
		if r := o.results[0]; r.Outcome != "unknown" || r.Attempts != 3 || o.took != 93*time.Second {
			t.Errorf("%+v after %v", r, o.took)
		}
	})
	// The wait for a permit is no part of it.
	synctest.Test(t, func(t *testing.T) {
		o := bench{
			intake: jsonl(), delivery: headgate.AtMostOnce, timeout: time.Second,
			config: genesys.Config{Limits: []headgate.Limit{genesys.TokenLimit(0.1, 1)}},
		}.run(t, "{\"flowId\":\"f\",\"n\":1}\n{\"flowId\":\"f\",\"n\":2}\n{\"flowId\":\"f\",\"n\":3}\n")
		if o.summary.Done != 3 || o.took != 20*time.Second {
			t.Errorf("%+v after %v", o.summary, o.took)
		}
	})
	// A poll is asked again, and the launch is not repeated.
	synctest.Test(t, func(t *testing.T) {
		o := bench{
			intake: launches(), follow: true, timeout: 30 * time.Second,
			base: around(func(n int, req *http.Request) (*http.Response, error) {
				if n == 2 {
					return silent(1, req)
				}
				return nil, nil
			}),
		}.run(t, `{"flowId":"f"}`)
		if r := o.results[0]; r.Outcome != "done" || r.Attempts != 1 || o.took < 31*time.Second {
			t.Errorf("%+v after %v", r, o.took)
		}
	})
}

// stalled is a body that never ends unless ctx does.
type stalled struct {
	io.Reader
	ctx context.Context
}

func (s stalled) Read(p []byte) (int, error) {
	if n, err := s.Reader.Read(p); err == nil {
		return n, nil
	}
	<-s.ctx.Done()
	return 0, context.Cause(s.ctx)
}
func (stalled) Close() error { return nil }

// The timeout holds for the answer too.
func TestTimeoutOfAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := bench{
			intake: jsonl(), delivery: headgate.AtLeastOnce, timeout: 30 * time.Second,
			base: around(func(_ int, req *http.Request) (*http.Response, error) {
				resp := respond(req, 200, "")
				resp.Body = stalled{strings.NewReader(`{"id":`), req.Context()}
				return resp, nil
			}),
		}.run(t, `{"flowId":"f"}`)
		if r := o.results[0]; r.Outcome != "unknown" || r.Attempts != 1 || r.MaybeExecuted != 1 || o.took != 30*time.Second {
			t.Errorf("%+v after %v", r, o.took)
		}
	})
}

// Over a real connection: the time counts from when the request goes.
func TestTimeoutOverHTTP(t *testing.T) {
	hang := make(chan struct{})
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		select {
		case <-hang:
		case <-r.Context().Done():
		}
	}))
	defer api.Close()
	defer close(hang)
	s := &deliver.Sender{Transport: &headgate.Transport{}, APIURL: api.URL, Timeout: 100 * time.Millisecond}
	step, err := s.Send(t.Context(), queue.Execution{ID: 1, Method: "POST", Path: "/x", Body: []byte("{}")}, func() error { return nil })
	if err != nil || step.To != queue.Unknown || step.Reason != "sent, and no answer came: no answer within 100ms" {
		t.Errorf("%+v, %v", step, err)
	}
}

// A gate that closes while a request is about to leave may hold it beyond its
// timeout. Nothing left, and no harm is done.
func TestTimeoutBeforeLeaving(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, err := headgate.NewLimiter(headgate.LimiterConfig{Limits: []headgate.Limit{{Name: "api", Rate: 1, Burst: 5}}})
		if err != nil {
			t.Fatal(err)
		}
		sent := 0
		s := &deliver.Sender{
			Transport: &headgate.Transport{Limiter: l, Base: roundTrip(func(req *http.Request) (*http.Response, error) {
				sent++
				return respond(req, 200, "{}"), nil
			})},
			APIURL: "http://api.example", Timeout: time.Second, Delivery: headgate.AtMostOnce,
		}
		leave := func() error {
			// Another one is refused meanwhile.
			permit, err := l.Take(t.Context(), headgate.Ask{Org: "api.example"})
			if err != nil {
				t.Fatal(err)
			}
			permit.Done(headgate.Observation{Status: 429, Refused: true, RetryAfter: time.Minute, HasRetryAfter: true})
			return nil
		}
		step, err := s.Send(t.Context(), queue.Execution{ID: 1, Method: "POST", Path: "/x"}, leave)
		if err != nil || step.To != queue.Queued || step.Tally.Unanswered != 0 || sent != 0 {
			t.Errorf("%+v, %v, %d sent", step, err, sent)
		}
	})
}

// Nor is any if the call is given up while it is held back so: it is recorded as
// sent, and surely was not.
func TestGivenUpBeforeLeaving(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, err := headgate.NewLimiter(headgate.LimiterConfig{Limits: []headgate.Limit{{Name: "api", Rate: 1, Burst: 5}}})
		if err != nil {
			t.Fatal(err)
		}
		s := &deliver.Sender{
			Transport: &headgate.Transport{Limiter: l, Base: roundTrip(func(*http.Request) (*http.Response, error) {
				t.Error("it was sent")
				return nil, io.EOF
			})},
			APIURL: "http://api.example", Delivery: headgate.AtMostOnce,
		}
		ctx, cancel := context.WithCancel(t.Context())
		leave := func() error {
			permit, err := l.Take(t.Context(), headgate.Ask{Org: "api.example"})
			if err != nil {
				t.Fatal(err)
			}
			permit.Done(headgate.Observation{Status: 429, Refused: true, RetryAfter: time.Minute, HasRetryAfter: true})
			time.AfterFunc(time.Second, cancel)
			return nil
		}
		step, err := s.Send(ctx, queue.Execution{ID: 1, Method: "POST", Path: "/x"}, leave)
		if err != nil || step.To != queue.Queued || step.Tally.Unanswered != 0 {
			t.Errorf("%+v, %v", step, err)
		}
	})
}

// Some servers repeat what they were sent. The token does not stay.
func TestTokenIsNotKept(t *testing.T) {
	for _, test := range []struct {
		name string
		make func(token string) string
	}{
		{"as it is", func(token string) string {
			return fmt.Sprintf(`{"authorization":"Bearer %s","token":%q}`, token, token)
		}},
		{"in the cut", func(token string) string {
			return strings.Repeat("x", deliver.MaxAnswer-len(token)/2) + token + strings.Repeat("y", 200<<10)
		}},
		{"in the last read", func(token string) string { // 64 KiB more than is kept
			return token + strings.Repeat("x", deliver.MaxAnswer+64<<10-len(token)-len(token)/2) + token + strings.Repeat("y", 200<<10)
		}},
		{"half, then nothing", func(token string) string { return "Bearer " + token[:len(token)/2] }},
	} {
		for _, status := range []int{200, 400, 500} {
			synctest.Test(t, func(t *testing.T) {
				var token string
				o := bench{intake: jsonl(), base: around(func(_ int, req *http.Request) (*http.Response, error) {
					token = strings.TrimPrefix(req.Header.Get("Authorization"), "Bearer ")
					return respond(req, status, test.make(token)), nil
				})}.run(t, `{"flowId":"f"}`)
				r := o.results[0]
				kept := string(r.Answer) + r.Reason + r.ID
				if len(token) < 20 || strings.Contains(kept, token[:8]) || len(r.Answer) == 0 {
					t.Errorf("%s, %d: the answer holds the token, or nothing", test.name, status)
				}
			})
		}
	}
	synctest.Test(t, func(t *testing.T) {
		var token string
		o := bench{intake: jsonl(), base: around(func(_ int, req *http.Request) (*http.Response, error) {
			token = strings.TrimPrefix(req.Header.Get("Authorization"), "Bearer ")
			return nil, fmt.Errorf("malformed HTTP response %q", token)
		})}.run(t, `{"flowId":"f"}`)
		if r := o.results[0]; strings.Contains(r.Reason, token) || !strings.Contains(r.Reason, "malformed") {
			t.Errorf("%+v", r)
		}
	})
}

// A launch whose status can't be had for a while is followed all the same.
func TestFailedPolls(t *testing.T) {
	for _, fail := range []struct {
		name string
		f    func(n int, req *http.Request) (*http.Response, error)
	}{
		{"500", func(_ int, req *http.Request) (*http.Response, error) { return respond(req, 500, ""), nil }},
		{"EOF", func(int, *http.Request) (*http.Response, error) { return nil, io.ErrUnexpectedEOF }},
		{"401", func(_ int, req *http.Request) (*http.Response, error) { return respond(req, 401, ""), nil }},
		{"refused", func(int, *http.Request) (*http.Response, error) { return nil, errRefused }},
	} {
		synctest.Test(t, func(t *testing.T) {
			o := bench{
				emulator: emulator.Config{RunTime: time.Hour}, intake: launches(), follow: true,
				// Nine in a row, then now and then.
				base: around(func(n int, req *http.Request) (*http.Response, error) {
					if n > 1 && n < 11 || n > 11 && n%3 == 0 {
						return fail.f(n, req)
					}
					return nil, nil
				}),
				config: genesys.Config{Retry: headgate.Retry{MaxRetries: 2}},
			}.run(t, `{"flowId":"f"}`)
			if o.err != nil || len(o.results) != 1 {
				t.Fatalf("%s: %v, %d results", fail.name, o.err, len(o.results))
			}
			if r := o.results[0]; r.Outcome != "done" || r.Attempts != 1 || fail.name != "401" && r.Retries < 9 {
				t.Errorf("%s: %+v", fail.name, r)
			}
		})
	}
	for _, status := range []int{400, 403, 404} {
		synctest.Test(t, func(t *testing.T) {
			o := bench{intake: launches(), follow: true, base: around(func(n int, req *http.Request) (*http.Response, error) {
				if n > 1 {
					return respond(req, status, ""), nil
				}
				return nil, nil
			})}.run(t, `{"flowId":"f"}`)
			if r := o.results[0]; r.Outcome != "unknown" || r.Polls != 1 || !strings.Contains(r.Reason, fmt.Sprint(status)) {
				t.Errorf("%+v", r)
			}
		})
	}
}

// The API goes away for a while in the middle of a run and comes back.
func TestUnreachableForAWhile(t *testing.T) {
	for _, test := range []struct {
		name string
		away time.Duration
		ends bool
	}{{"a minute", time.Minute, false}, {"for good", 0, true}} {
		synctest.Test(t, func(t *testing.T) {
			b := bench{intake: jsonl()}
			if test.ends {
				b.network.Refusals = []headgatetest.Refusal{{From: 2 * time.Second}}
			} else {
				b.network.Refusals = []headgatetest.Refusal{{From: 2 * time.Second, To: 2*time.Second + test.away}}
			}
			b.config.Limits = []headgate.Limit{genesys.TokenLimit(1, 1)}
			b.config.Retry.MaxRetries = 1
			var input strings.Builder
			for i := range 10 {
				fmt.Fprintf(&input, "{\"flowId\":\"f\",\"n\":%d}\n", i)
			}
			o := b.run(t, input.String())
			var unreachable *UnreachableError
			if errors.As(o.err, &unreachable) != test.ends || o.report.Doubled != 0 {
				t.Fatalf("%s: %v after %v", test.name, o.err, o.took)
			}
			counts, err := o.store.Counts(context.Background())
			if err == nil && counts[queue.Failed]+counts[queue.Unknown] > 0 {
				t.Errorf("%s: %v", test.name, counts)
			}
			if !test.ends && o.summary.Done != 10 {
				t.Errorf("%s: %+v", test.name, o.summary)
			}
			if test.ends && (o.took < 2*time.Minute || o.took > 3*time.Minute || o.report.Executed == 0) {
				t.Errorf("gave up after %v", o.took)
			}
		})
	}
}

// An answer that is cut says so.
func TestLongAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, size := range []int{deliver.MaxAnswer, deliver.MaxAnswer + 1, 3 << 20} {
			o := bench{intake: jsonl(), base: around(func(_ int, req *http.Request) (*http.Response, error) {
				return respond(req, 200, `"`+strings.Repeat("x", size-2)+`"`), nil
			})}.run(t, `{"flowId":"f"}`)
			r := o.results[0]
			cut := size > deliver.MaxAnswer
			if r.Outcome != "done" || cut != (r.AnswerBytes == int64(size)) || cut != strings.Contains(r.Reason, fmt.Sprintf("has %d bytes", size)) || len(r.Answer) > deliver.MaxAnswer+10 {
				t.Errorf("%d: %s, %d, %q, %d", size, r.Outcome, r.AnswerBytes, r.Reason, len(r.Answer))
			}
		}
		// The state of a flow is found in an answer that is too long to keep.
		o := bench{intake: launches(), follow: true, base: around(func(n int, req *http.Request) (*http.Response, error) {
			if n == 1 {
				return nil, nil
			}
			return respond(req, 200, `{"id":"e","outputData":{"x":"`+strings.Repeat("x", 2<<20)+`"},"status":"COMPLETED"}`), nil
		})}.run(t, `{"flowId":"f"}`)
		if r := o.results[0]; r.Outcome != "done" || r.AnswerBytes < 2<<20 || r.Polls != 1 {
			t.Errorf("%s, %d bytes, %d polls", r.Outcome, r.AnswerBytes, r.Polls)
		}
	})
}

// What is counted as accepted is what the limit let through of the executions.
func TestMeter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := bench{
			emulator: emulator.Config{RunTime: 10 * time.Second}, intake: launches(), follow: true,
			base: around(func(n int, req *http.Request) (*http.Response, error) {
				switch n {
				case 1:
					return nil, errRefused
				case 2:
					resp := respond(req, 503, "")
					resp.Header.Set("Retry-After", "1")
					return resp, nil
				}
				return nil, nil
			}),
		}.run(t, `{"flowId":"f"}`)
		m := o.meter
		if o.summary.Done != 1 || m.Accepted() != 1 || m.Unavailable() != 1 || m.Refused() != 0 || m.Polls() != o.summary.Polls || m.Polls() < 3 || m.Sent() != m.Polls()+3 {
			t.Errorf("%+v; accepted %d, unavailable %d, polls %d, sent %d", o.summary, m.Accepted(), m.Unavailable(), m.Polls(), m.Sent())
		}
	})
}

// Rows of one job are not those of another.
func TestJobDiffers(t *testing.T) {
	job := Job{Target: "t", Client: "c", MaxWait: time.Minute}
	for _, test := range []struct {
		change func(*Job)
		want   string
	}{
		{func(*Job) {}, ""},
		{func(j *Job) { j.Client = "d" }, "OAuth client c, not d"},
		{func(j *Job) { j.MaxWait = 0 }, "with --max-wait 1m0s, not without"},
		{func(j *Job) { j.MaxWait = time.Hour }, "with --max-wait 1m0s, not with --max-wait 1h0m0s"},
	} {
		want := job
		test.change(&want)
		if got := job.Differs(want); (got == "") != (test.want == "") || !strings.Contains(got, test.want) {
			t.Errorf("got %q, want %q", got, test.want)
		}
	}
	in := jsonl()
	in.Client, in.MaxWait, in.MaxBody, in.SkipBad = "c", time.Minute, 10, true
	got, err := in.Fill(t.Context(), strings.NewReader(`{"flowId":"f","long":"xxxxxxxxxx"}`+"\n7\n"+`{"flowId":"f"}`+"\n"), nil)
	if err != nil || got.Client != "c" || got.MaxWait != time.Minute || got.Rows != 3 || got.Skipped != 1 || got.TooLarge != 1 {
		t.Errorf("%+v, %v", got, err)
	}
}
