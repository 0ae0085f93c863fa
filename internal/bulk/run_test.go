package bulk

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/headgate/headgate"
	"github.com/headgate/headgate/emulator"
	"github.com/headgate/headgate/genesys"
	"github.com/headgate/headgate/headgatetest"
	"github.com/headgate/headgate/internal/deliver"
	"github.com/headgate/headgate/internal/queue"
	"github.com/headgate/headgate/internal/queue/queuetest"
)

// bench is a run of an input against an emulator in memory.
type bench struct {
	emulator emulator.Config
	network  headgatetest.Network
	base     func(http.RoundTripper) http.RoundTripper // around the network
	config   genesys.Config
	intake   Intake
	follow   bool
	delivery headgate.Delivery
	take     time.Duration // 0: until the end
	timeout  time.Duration
}

type outcome struct {
	results []Result
	summary *Summary
	err     error
	report  emulator.Report
	pair    *headgatetest.Pair
	store   queue.Store
	meter   *Meter
	took    time.Duration
}

func (b bench) run(t *testing.T, input string) outcome {
	t.Helper()
	if b.emulator.Limits == nil {
		b.emulator.Limits = []emulator.Limit{{Rate: 50, Burst: 100}}
	}
	pair := headgatetest.NewNetwork(t, b.emulator, b.network)
	store := queuetest.NewMemory()
	defer store.Close()
	if _, err := b.intake.Fill(t.Context(), strings.NewReader(input), store); err != nil {
		t.Fatal(err)
	}
	b.config.Credentials = genesys.Credentials{ClientID: emulator.DefaultClientID, ClientSecret: genesys.NewSecret(emulator.DefaultClientSecret)}
	b.config.APIURL, b.config.LoginURL = pair.URL, pair.URL
	b.config.Base = pair.Transport()
	if b.base != nil {
		b.config.Base = b.base(b.config.Base)
	}
	if b.config.Limits == nil {
		b.config.Limits = []headgate.Limit{genesys.TokenLimit(50, 100)}
	}
	b.config.Retry.Jitter = headgate.NoJitter
	meter := &Meter{}
	b.config.Observer = meter.Observe
	org, err := genesys.Connect(b.config)
	if err != nil {
		t.Fatal(err)
	}
	defer org.Close()
	var out bytes.Buffer
	run := &Run{
		Store: store, Limiter: org.Limiter, Results: &out, Meter: meter,
		Sender: &deliver.Sender{Transport: org.Flows().Transport, APIURL: pair.URL, Delivery: b.delivery, Follow: b.follow, Timeout: b.timeout},
	}
	take, cancel := context.WithCancel(t.Context())
	defer cancel()
	if b.take > 0 {
		timer := time.AfterFunc(b.take, cancel)
		defer timer.Stop()
	}
	start := time.Now()
	o := outcome{pair: pair, store: store, meter: meter}
	o.summary, o.err = run.Do(take, t.Context())
	o.took = time.Since(start)
	o.report = pair.Emulator.Report()
	for line := range strings.Lines(out.String()) {
		var r Result
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatal(err)
		}
		o.results = append(o.results, r)
	}
	return o
}

func jsonl() Intake { return Intake{Options: Options{Name: "rows.jsonl"}} }

func launches() Intake {
	return Intake{Options: Options{Name: "rows.jsonl", Endpoint: Launch}}
}

// The platform's final no: its message and correlation id, and no second try.
func TestFinalAnswersFailAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var input strings.Builder
		statuses := []int{400, 403, 404, 413}
		for _, status := range statuses {
			fmt.Fprintf(&input, `{"flowId":"f","emulatorStatus":%d}`+"\n", status)
		}
		o := bench{intake: jsonl()}.run(t, input.String())
		for i, r := range o.results {
			if r.Outcome != "failed" || r.Status != statuses[i] || r.Attempts != 1 || r.MaybeExecuted != 0 ||
				!strings.Contains(r.Reason, fmt.Sprint(statuses[i])) || !strings.Contains(r.Reason, "correlation id ") {
				t.Errorf("%+v", r)
			}
		}
		if o.err != nil || len(o.results) != 4 || o.report.Arrivals != 4 || o.report.Executed != 0 {
			t.Errorf("%v, %d results, %d arrivals", o.err, len(o.results), o.report.Arrivals)
		}
		if causes := o.summary.Causes(); len(causes) != 4 || o.summary.Failed != 4 {
			t.Errorf("%d causes for %d failed", len(causes), o.summary.Failed)
		}
	})
}

func TestMissingEndpointNamesTheOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := bench{emulator: emulator.Config{Endpoints: emulator.EndpointsLaunch}, intake: jsonl()}.run(t, `{"flowId":"f"}`)
		if r := o.results[0]; r.Outcome != "failed" || !strings.Contains(r.Reason, "try the other form, Launch") {
			t.Errorf("%+v", r)
		}
	})
}

// Answers after which nobody knows whether it ran.
func TestUnansweredRows(t *testing.T) {
	for _, fault := range []emulator.FaultKind{emulator.CutAfter, emulator.InternalError, emulator.UnavailableSilent} {
		for _, test := range []struct {
			delivery headgate.Delivery
			outcome  string
			attempts int
		}{{headgate.AtLeastOnce, "done", 2}, {headgate.AtMostOnce, "unknown", 1}} {
			synctest.Test(t, func(t *testing.T) {
				o := bench{
					emulator: emulator.Config{Script: []emulator.Fault{{Kind: fault, To: 500 * time.Millisecond, Executes: fault == emulator.InternalError}}},
					intake:   jsonl(), delivery: test.delivery,
				}.run(t, `{"flowId":"f"}`)
				r := o.results[0]
				if r.Outcome != test.outcome || r.Attempts != test.attempts || r.MaybeExecuted != 1 || (r.Outcome == "unknown") != (r.Reason != "") {
					t.Errorf("%v, %v: %+v", fault, test.delivery, r)
				}
				if test.delivery == headgate.AtLeastOnce && (o.took != time.Second || o.summary.MaybeTwice != 1 || r.Waits["backoff"] != 1000) {
					t.Errorf("%v: took %v, %d maybe twice, waits %v", fault, o.took, o.summary.MaybeTwice, r.Waits)
				}
			})
		}
	}
}

// Retries end, and what may have run is not called failed.
func TestRetriesEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := bench{
			emulator: emulator.Config{Rates: emulator.Rates{InternalError: 1}}, intake: jsonl(),
			delivery: headgate.AtLeastOnce, config: genesys.Config{Retry: headgate.Retry{MaxRetries: 2}},
		}.run(t, `{"flowId":"f"}`)
		if r := o.results[0]; r.Outcome != "unknown" || r.Attempts != 3 || r.Retries != 2 || r.MaybeExecuted != 3 || o.took != 3*time.Second {
			t.Errorf("%+v after %v", r, o.took)
		}
	})
}

// A 429 is waited out and counts as no retry.
func TestRefusedRows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := bench{
			emulator: emulator.Config{Limits: []emulator.Limit{{Rate: 1, Burst: 1}}}, intake: jsonl(),
			config: genesys.Config{Retry: headgate.Retry{MaxRetries: -1}},
		}.run(t, "{\"flowId\":\"f\",\"n\":1}\n{\"flowId\":\"f\",\"n\":2}\n{\"flowId\":\"f\",\"n\":3}\n")
		if o.err != nil || o.summary.Done != 3 || o.report.Doubled != 0 || o.report.Early != 0 || o.summary.Refused == 0 || o.summary.Retries != 0 {
			t.Errorf("%v, %+v, %d early", o.err, o.summary, o.report.Early)
		}
	})
}

// A Retry-After that nobody waits out in line parks the rows until it is over.
func TestLongRetryAfterParks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := bench{
			emulator: emulator.Config{Script: []emulator.Fault{{Kind: emulator.Unavailable, To: time.Second, RetryAfter: 24 * time.Hour}}},
			intake:   jsonl(),
		}.run(t, "{\"flowId\":\"f\",\"n\":1}\n{\"flowId\":\"f\",\"n\":2}\n")
		if o.summary.Done != 2 || o.report.Early != 0 || o.took < 24*time.Hour || o.took > 24*time.Hour+10*time.Second {
			t.Errorf("%+v after %v", o.summary, o.took)
		}
	})
}

func TestRowsExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		intake := jsonl()
		intake.MaxWait = 2500 * time.Millisecond
		var input strings.Builder
		for i := range 6 {
			fmt.Fprintf(&input, "{\"flowId\":\"f\",\"n\":%d}\n", i)
		}
		o := bench{
			emulator: emulator.Config{Limits: []emulator.Limit{{Rate: 1, Burst: 1}}},
			config:   genesys.Config{Limits: []headgate.Limit{genesys.TokenLimit(1, 1)}}, intake: intake,
		}.run(t, input.String())
		if s := o.summary; s.Done != 3 || s.Expired != 3 || o.report.Executed != 3 || o.took > 3*time.Second {
			t.Errorf("%+v after %v", o.summary, o.took)
		}
		for _, r := range o.results { // which go first is a race
			if r.Outcome == "expired" && (r.Attempts != 0 || r.Reason == "") {
				t.Errorf("%+v", r)
			}
		}
	})
}

// Nothing is wrong with rows that could not be sent: they stay queued.
func TestUnreachableAPI(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bench{intake: jsonl(), network: headgatetest.Network{Refusals: []headgatetest.Refusal{{From: time.Millisecond}}}}
		b.base = func(rt http.RoundTripper) http.RoundTripper {
			return roundTrip(func(req *http.Request) (*http.Response, error) {
				if strings.HasSuffix(req.URL.Path, "/oauth/token") {
					defer time.Sleep(time.Second) // the login is let through
				}
				return rt.RoundTrip(req)
			})
		}
		o := b.run(t, "{\"flowId\":\"f\",\"n\":1}\n{\"flowId\":\"f\",\"n\":2}\n")
		var unreachable *UnreachableError
		if !errors.As(o.err, &unreachable) || o.summary.Rows != 0 || o.report.Executed != 0 || o.took > time.Minute {
			t.Errorf("%v, %+v", o.err, o.summary)
		}
		counts, err := o.store.Counts(context.Background())
		if err == nil && counts[queue.Queued] != 2 {
			t.Errorf("counts %v", counts)
		}
	})
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

// cut is a body that breaks off.
type cut struct{ io.Reader }

func (c cut) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}
func (cut) Close() error { return nil }

// The answer to an execution that has surely run breaks off: sending it again
// would surely double it.
func TestAnswerThatBreaksOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bench{intake: jsonl(), delivery: headgate.AtLeastOnce}
		b.base = func(rt http.RoundTripper) http.RoundTripper {
			return roundTrip(func(req *http.Request) (*http.Response, error) {
				resp, err := rt.RoundTrip(req)
				if err == nil && strings.HasSuffix(req.URL.Path, "/execute") {
					resp.Body = cut{strings.NewReader(`{"id":`)}
				}
				return resp, err
			})
		}
		o := b.run(t, `{"flowId":"f"}`)
		if r := o.results[0]; r.Outcome != "unknown" || r.Attempts != 1 || r.MaybeExecuted != 1 || !strings.Contains(r.Reason, "broke off") || o.report.Executed != 1 {
			t.Errorf("%+v, %d executed", r, o.report.Executed)
		}
	})
}

func TestLaunchesAreFollowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var input strings.Builder
		for i, end := range []string{"COMPLETED", "FAILED", "ERROR", "TERMINATED"} {
			fmt.Fprintf(&input, `{"flowId":"f","inputData":{"Flow.n":%d,"Flow.emulatorStatus":%q}}`+"\n", i, end)
		}
		o := bench{emulator: emulator.Config{RunTime: 10 * time.Second}, intake: launches(), follow: true}.run(t, input.String())
		for i, want := range []string{"done", "failed", "failed", "failed"} {
			r := o.results[i]
			if r.Outcome != want || r.ID == "" || r.Polls < 3 || r.Polls > 8 || r.Attempts != 1 || (want == "failed") != (r.Reason != "") {
				t.Errorf("%+v", r)
			}
		}
		if o.report.Executed != 4 || o.took < 10*time.Second || o.took > 20*time.Second {
			t.Errorf("%d executed in %v", o.report.Executed, o.took)
		}
	})
}

// Ctrl-C: what is open stays, with its handle, and goes on without being
// launched again.
func TestStopWhileFollowing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := bench{emulator: emulator.Config{RunTime: time.Hour}, intake: launches(), follow: true, take: 30 * time.Second}.
			run(t, `{"flowId":"f","inputData":{"Flow.n":1}}`)
		if o.err != nil || o.summary.Rows != 0 || o.took > 31*time.Second || o.report.Executed != 1 {
			t.Errorf("%v, %+v after %v", o.err, o.summary, o.took)
		}
	})
}

func TestCausesAreCounted(t *testing.T) {
	var s Summary
	for i := range 100 {
		s.add(queue.Execution{ID: int64(i + 1), State: queue.Failed, Reason: fmt.Sprintf("the API answered 400 Bad Request: no (correlation id %d)", i)})
	}
	s.add(queue.Execution{ID: 101, State: queue.Unknown, Reason: "sent, and no answer came: EOF"})
	s.add(queue.Execution{ID: 102, State: queue.Done, Tally: queue.Tally{Unanswered: 1}})
	causes := s.Causes()
	if len(causes) != 2 || causes[0].Count != 100 || len(causes[0].Rows) != maxCauseRows || causes[1].Rows[0] != 101 || s.MaybeTwice != 1 || s.Rows != 102 {
		t.Errorf("%+v, %+v", s, causes)
	}
}
