package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/headgate/headgate"
	"github.com/headgate/headgate/genesys"
	"github.com/headgate/headgate/internal/bulk"
	"github.com/headgate/headgate/internal/progress"
	"github.com/headgate/headgate/internal/queue"
	"github.com/headgate/headgate/internal/sqlite"
)

// runFlags is what the user says to `headgate run`.
type runFlags struct {
	input  string
	format string
	config string

	flow     string
	endpoint bulk.Endpoint
	wait     bool

	region, apiURL, loginURL string

	limit rate
	burst float64

	out, journal string
	skipBad      bool
	dryRun       bool

	concurrency   int
	delivery      headgate.Delivery
	maxRetries    int
	maxWait       span
	retryAfter    span
	maxRetryAfter span
	backoff       headgate.Backoff
	backoffBase   span
	backoffMax    span
	jitter        headgate.Jitter

	emulator      bool
	emulatorLimit rate
	emulatorBurst float64

	progress string
	verbose  bool

	given func(flag string) bool
}

func (p *process) runCommand() *cobra.Command {
	f := runFlags{delivery: headgate.AtLeastOnce}
	cmd := &cobra.Command{
		Use:   "run [flags] FILE|-",
		Short: "Execute every row of a file, paced, retried and never lost",
		Long: `run makes one flow execution of every row of FILE (JSON Lines, or CSV with a
header; - reads standard input), as fast as the limit allows. Rows are written to a
journal before anything is sent: after a crash or Ctrl-C, the same command goes on
where it stopped.

With --flow every row is the payload of that flow. Without it each row names its
own, as flowId, and the rest of the row is the payload; with --endpoint launch the
row is the body of POST /api/v2/flows/executions.

Credentials come from the environment: GENESYSCLOUD_OAUTHCLIENT_ID,
GENESYSCLOUD_OAUTHCLIENT_SECRET and GENESYSCLOUD_REGION (or --region).

Results are written as JSON Lines in the order of the rows, to --out or to standard
output if it is not a terminal. Exit codes: 0 all rows are done; 1 some failed,
expired or are unknown; 2 bad flags or input, nothing was sent; 3 could not log in
or reach the API; 130 interrupted.`,
		Example: `  headgate run --emulator examples/executions.jsonl
  headgate run --region eu-central-1 --flow 6b2f… --out results.jsonl rows.csv
  headgate run --limit 300/min --delivery at-most-once rows.jsonl
  headgate run --dry-run --limit 50/s --burst 100 rows.jsonl`,
		Args: func(_ *cobra.Command, args []string) error {
			switch len(args) {
			case 0:
				return usage("no input: name a FILE, or - for standard input\nsee: headgate run --help")
			case 1:
				f.input = args[0]
				return nil
			}
			return usage("one FILE at a time, got %d", len(args))
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			f.given = func(name string) bool { return cmd.Flags().Changed(name) }
			if f.config != "" {
				if err := readConfig(f.config, cmd.Flags()); err != nil {
					return usage("%w", err)
				}
			}
			if err := f.check(); err != nil {
				return err
			}
			return p.execute(&f)
		},
	}
	fs := cmd.Flags()
	fs.SortFlags = false
	fs.StringVar(&f.flow, "flow", "", "id of the flow that every row is a payload of")
	fs.TextVar(&f.endpoint, "endpoint", bulk.Execute, "execute (architect/flows/{id}/execute) or launch (flows/executions)")
	fs.BoolVar(&f.wait, "wait", false, "follow launches to their end")
	fs.StringVar(&f.format, "format", "auto", "how FILE is written: auto, jsonl or csv")
	fs.BoolVar(&f.skipBad, "skip-bad", false, "record bad rows as failed and go on")
	fs.BoolVar(&f.dryRun, "dry-run", false, "check the input and say how long it will take; send nothing")

	fs.StringVar(&f.region, "region", "", "region of the org, by AWS name or domain (default $"+genesys.EnvRegion+")")
	fs.StringVar(&f.apiURL, "api-url", "", "address of the API instead of the region's; goes with --login-url")
	fs.StringVar(&f.loginURL, "login-url", "", "address of the login")

	fs.Var(&f.limit, "limit", "requests that the server allows (default: the org's own, else the published 300/min)")
	fs.Float64Var(&f.burst, "burst", 0, "burst of the server's token bucket; without it --limit may be any kind of window")

	fs.StringVar(&f.out, "out", "", "file for the results; - is standard output even if it is a terminal")
	fs.StringVar(&f.journal, "journal", "", "journal of the run (default FILE.journal)")

	fs.IntVar(&f.concurrency, "concurrency", 200, "requests under way at once, the waiting ones among them")
	fs.TextVar(&f.delivery, "delivery", headgate.AtLeastOnce, "at-least-once: send again what may have been executed; at-most-once: do not")
	fs.IntVar(&f.maxRetries, "max-retries", 5, "retries of a row after failures that are no refusals; 429s do not count")
	fs.Var(&f.maxWait, "max-wait", "rows that were not sent by then expire (default: never)")
	f.retryAfter = span(5 * time.Second)
	fs.Var(&f.retryAfter, "retry-after", "wait after a 429 without a usable Retry-After")
	f.maxRetryAfter = span(15 * time.Minute)
	fs.Var(&f.maxRetryAfter, "max-retry-after", "longest Retry-After that is waited out in line; rows are parked for longer ones")
	fs.TextVar(&f.backoff, "backoff", headgate.Exponential, "how the wait between retries grows: exponential or constant")
	f.backoffBase, f.backoffMax = span(time.Second), span(time.Minute)
	fs.Var(&f.backoffBase, "backoff-base", "wait before the first retry")
	fs.Var(&f.backoffMax, "backoff-max", "longest wait between retries")
	fs.TextVar(&f.jitter, "jitter", headgate.FullJitter, "jitter of the backoff: full, equal, decorrelated or none")

	fs.BoolVar(&f.emulator, "emulator", false, "run against an emulator in this process: no account, nothing real")
	f.emulatorLimit = rate{50, time.Second, "50/s"}
	fs.Var(&f.emulatorLimit, "emulator-limit", "rate of the emulator's token bucket")
	fs.Float64Var(&f.emulatorBurst, "emulator-burst", 100, "burst of the emulator's token bucket")

	fs.StringVar(&f.config, "config", "", "YAML file with the words of these flags (retry_after: 5)")
	fs.StringVar(&f.progress, "progress", "auto", "progress on standard error: auto, bar, plain, json or none")
	fs.BoolVarP(&f.verbose, "verbose", "v", false, "log every event on standard error")
	return cmd
}

// check refuses flags that contradict each other or make no sense.
func (f *runFlags) check() error {
	switch {
	case f.limit.text != "" && f.burst != 0 && !(f.burst >= 1 && f.burst <= 1e9):
		return usage("--burst %v: takes a number of at least 1", f.burst)
	case f.given("burst") && f.limit.text == "":
		return usage("--burst goes with --limit")
	case f.given("burst") && f.burst == 0:
		return usage("--burst 0: takes a number of at least 1")
	case !(f.emulatorBurst >= 1 && f.emulatorBurst <= 1e9):
		return usage("--emulator-burst %v: takes a number of at least 1", f.emulatorBurst)
	case f.wait && f.endpoint != bulk.Launch:
		return usage("--wait goes with --endpoint launch: an execute is answered at its end")
	case f.emulator && (f.region != "" || f.apiURL != "" || f.loginURL != ""):
		return usage("--emulator contradicts --region, --api-url and --login-url")
	case !f.emulator && (f.given("emulator-limit") || f.given("emulator-burst")):
		return usage("--emulator-limit and --emulator-burst go with --emulator")
	case f.region != "" && f.apiURL != "":
		return usage("--region contradicts --api-url: give one of them")
	case (f.apiURL == "") != (f.loginURL == ""):
		return usage("--api-url and --login-url go together")
	case f.concurrency < 1 || f.concurrency > 100_000:
		return usage("--concurrency %d: takes a number from 1 to 100000", f.concurrency)
	case f.maxRetries < 0:
		return usage("--max-retries %d: takes a number of at least 0", f.maxRetries)
	case f.given("max-wait") && f.maxWait == 0:
		return usage("--max-wait 0: takes a time above 0; leave it out for none")
	}
	for _, s := range []struct {
		name  string
		value span
	}{{"retry-after", f.retryAfter}, {"max-retry-after", f.maxRetryAfter}, {"backoff-base", f.backoffBase}, {"backoff-max", f.backoffMax}} {
		if s.value == 0 {
			return usage("--%s 0: takes a time above 0", s.name)
		}
	}
	if _, err := progress.ParseMode(f.progress); err != nil {
		return usage("--progress: %w", err)
	}
	if _, err := f.inputFormat(); err != nil {
		return err
	}
	return nil
}

func (f *runFlags) inputFormat() (bulk.Format, error) {
	switch f.format {
	case "auto":
		return bulk.Auto, nil
	case "jsonl":
		return bulk.JSONLines, nil
	case "csv":
		return bulk.CSV, nil
	}
	return 0, usage("--format %q: takes auto, jsonl or csv", f.format)
}

func (f *runFlags) retry() headgate.Retry {
	retry := headgate.Retry{
		RetryAfter: time.Duration(f.retryAfter), MaxRetryAfter: time.Duration(f.maxRetryAfter),
		MaxRetries: f.maxRetries, Backoff: f.backoff, Jitter: f.jitter,
		Base: time.Duration(f.backoffBase), Max: time.Duration(f.backoffMax),
	}
	if f.maxRetries == 0 {
		retry.MaxRetries = -1
	}
	return retry
}

// tokenLimit returns the limit that the flags give; ok is false if the org is
// to be asked for its own.
func (f *runFlags) tokenLimit() (l headgate.Limit, ok bool) {
	switch {
	case f.limit.text != "" && f.burst > 0:
		return genesys.TokenLimit(f.limit.perSecond(), f.burst), true
	case f.limit.text != "":
		return genesys.TokenLimit(headgate.Even(f.limit.n, f.limit.per)), true
	case f.emulator:
		return genesys.TokenLimit(f.emulatorLimit.perSecond(), f.emulatorBurst), true
	}
	return headgate.Limit{}, false
}

// execute is `headgate run`.
func (p *process) execute(f *runFlags) error {
	// Contexts apart: of taking new rows, and of those in flight.
	take, stop := context.WithCancel(context.Background())
	defer stop()
	do, abort := context.WithCancel(context.Background())
	defer abort()

	if f.input != "-" {
		if _, err := os.Stat(f.input); err != nil {
			return usage("%w", err)
		}
	}
	target, err := f.target(p.env)
	if err != nil && !f.dryRun {
		return err
	}
	intake, err := f.intake(target)
	if err != nil {
		return err
	}
	if f.dryRun {
		return p.dryRun(f, intake)
	}

	r := &bulkRun{process: p, flags: f, target: target, intake: intake, abort: abort, stop: stop}
	ended := make(chan struct{})
	defer close(ended)
	go r.heedSignals(ended)
	defer r.close()
	return r.run(take, do)
}

func (f *runFlags) intake(t *target) (bulk.Intake, error) {
	format, err := f.inputFormat()
	if err != nil {
		return bulk.Intake{}, err
	}
	in := bulk.Intake{
		Options: bulk.Options{Name: f.input, Format: format, Flow: f.flow, Endpoint: f.endpoint},
		MaxWait: time.Duration(f.maxWait), SkipBad: f.skipBad,
	}
	if t != nil {
		in.Target = t.name
	}
	return in, nil
}

func (p *process) open(name string) (io.ReadCloser, error) {
	if name == "-" {
		return io.NopCloser(p.stdin), nil
	}
	file, err := os.Open(name)
	if err != nil {
		return nil, usage("%w", err)
	}
	return file, nil
}

// dryRun checks the input and says how long it would take.
func (p *process) dryRun(f *runFlags, in bulk.Intake) error {
	input, err := p.open(f.input)
	if err != nil {
		return err
	}
	defer input.Close()
	job, err := in.Fill(context.Background(), input, nil)
	if err != nil {
		return usage("%w", err)
	}
	limit, known := f.tokenLimit()
	source := "given"
	if !known {
		limit, source = genesys.Limits()[0], "published; the org's own was not asked"
	}
	l, err := headgate.NewLimiter(headgate.LimiterConfig{Limits: []headgate.Limit{limit}})
	if err != nil {
		return usage("%w", err)
	}
	rows := job.Rows - job.Skipped
	forecast := l.Forecast(headgate.Ask{Path: "/api/"}, int(rows))
	fmt.Fprintf(p.stderr, "%s: %d rows are good", in.Name, rows)
	if job.Skipped > 0 {
		fmt.Fprintf(p.stderr, ", %d are bad and would be skipped", job.Skipped)
	}
	fmt.Fprintf(p.stderr, "\nAt %s/s and a burst of %s (%s) they take at least %s, plus the last answer.\nNothing was sent.\n",
		number(limit.Rate), number(limit.Burst), source, short(forecast.Wait))
	return nil
}

// bulkRun is one `headgate run` that sends something.
type bulkRun struct {
	*process
	flags  *runFlags
	target *target
	intake bulk.Intake
	stop   context.CancelFunc // of taking rows
	abort  context.CancelFunc // of what is in flight

	journal   string
	temporary bool // the journal goes when all is done
	goesOn    bool // an earlier run has begun the journal
	store     *sqlite.Store
	org       *genesys.Org
	meter     bulk.Meter
	painter   *progress.Painter
	notes     notes
	logger    *slog.Logger
}

func (r *bulkRun) close() {
	if r.org != nil {
		r.org.Close()
	}
	if r.store != nil {
		r.store.Close()
	}
	r.target.close()
}

// heedSignals stops the taking of rows at the first signal and gives up what is
// in flight at the second.
func (r *bulkRun) heedSignals(ended <-chan struct{}) {
	for n := 0; ; n++ {
		select {
		case <-ended:
			return
		case <-r.signals:
		}
		if n == 0 {
			r.notes.interrupted.Store(true)
			r.stop()
		} else {
			r.abort()
		}
	}
}

func (r *bulkRun) run(take, do context.Context) error {
	r.logger = slog.New(slog.DiscardHandler)
	if err := r.openJournal(take); err != nil {
		return err
	}
	recovered, err := queue.Recover(do, r.store, r.queueDelivery(), time.Now())
	if err != nil {
		return r.failed(err)
	}
	counts, err := r.store.Counts(do)
	if err != nil {
		return r.failed(err)
	}
	if counts.Open() > 0 {
		if err := r.connect(take); err != nil {
			return err
		}
	}
	return r.dispatch(take, do, counts, recovered)
}

func (r *bulkRun) queueDelivery() queue.Delivery {
	if r.flags.delivery == headgate.AtMostOnce {
		return queue.AtMostOnce
	}
	return queue.AtLeastOnce
}

// openJournal opens the journal and sees to it that it holds the input's rows.
func (r *bulkRun) openJournal(ctx context.Context) error {
	f := r.flags
	r.journal = f.journal
	switch {
	case r.journal != "":
	case f.emulator:
		// The emulator forgets everything when the process ends.
		r.temporary = true
		r.journal = filepath.Join(os.TempDir(), fmt.Sprintf("headgate-%d.journal", os.Getpid()))
	case f.input == "-":
		r.temporary = true
		r.journal = "headgate-" + time.Now().Format("20060102T150405") + ".journal"
	default:
		r.journal = f.input + ".journal"
	}
	input, err := r.open(f.input)
	if err != nil {
		return err
	}
	defer input.Close()
	if err := r.openStore(); err != nil {
		return err
	}
	begun, filled, err := bulk.JobOf(ctx, r.store)
	switch {
	case err != nil:
		return r.failed(err)
	case filled:
		r.goesOn = true
		return r.sameJob(ctx, begun, input)
	}
	if counts, err := r.store.Counts(ctx); err != nil {
		return r.failed(err)
	} else if counts.Total() > 0 {
		// Interrupted while it was filled; nothing of it was sent.
		r.removeJournal()
		if err := r.openStore(); err != nil {
			return err
		}
	}
	if _, err := r.intake.Fill(ctx, input, r.store); err != nil {
		r.removeJournal()
		return r.notFilled(ctx, err)
	}
	return nil
}

// notFilled returns what an input that can't be used leads to.
func (r *bulkRun) notFilled(ctx context.Context, err error) error {
	var bad *bulk.BadInput
	switch {
	case ctx.Err() != nil:
		return &exitError{exitInterrupted, errors.New("interrupted; nothing was sent")}
	case errors.As(err, &bad):
		return usage("%w\nnothing was sent; --skip-bad records bad rows as failed and goes on", bad)
	case errors.Is(err, queue.ErrFull):
		return &exitError{exitNotAllDone, fmt.Errorf("%w; nothing was sent", err)}
	}
	return usage("%w", err)
}

func (r *bulkRun) openStore() error {
	store, err := sqlite.Open(r.journal, sqlite.Options{Limiter: r.limiterState})
	switch {
	case errors.Is(err, queue.ErrFull):
		return &exitError{exitNotAllDone, err}
	case errors.Is(err, sqlite.ErrLocked):
		return usage("%w: wait for it to end, or choose another --journal", err)
	case err != nil:
		return usage("%w; choose another --journal, or remove it if it is yours", err)
	}
	r.store = store
	return nil
}

func (r *bulkRun) removeJournal() {
	r.store.Close()
	r.store = nil
	for _, suffix := range []string{"", "-wal", "-shm", ".lock", ".reserve"} {
		os.Remove(r.journal + suffix)
	}
}

// sameJob refuses a journal that was begun for something else.
func (r *bulkRun) sameJob(ctx context.Context, begun bulk.Job, input io.Reader) error {
	digest := bulk.NewDigest(input)
	if _, err := io.Copy(io.Discard, digest); err != nil {
		return usage("reading %s: %w", r.flags.input, err)
	}
	want := bulk.Job{Content: digest.Fingerprint(), Target: r.target.name, Flow: r.flags.flow, Endpoint: r.flags.endpoint.String()}
	if d := begun.Differs(want); d != "" {
		return usage("%s was begun on %s for %s: %s\ngo on with what it was begun for, or choose another --journal; nothing was sent",
			r.journal, begun.Begun.Local().Format(time.DateTime), begun.Input, d)
	}
	return nil
}

// limiterState is what the journal keeps of the limiter.
func (r *bulkRun) limiterState() []byte {
	if r.org == nil {
		return nil
	}
	state, err := json.Marshal(r.org.Limiter.Snapshot())
	if err != nil {
		return nil
	}
	return state
}

// connect logs in, asks for the limits, and takes over what the journal knows
// of the buckets.
func (r *bulkRun) connect(ctx context.Context) error {
	f := r.flags
	config := r.target.config
	config.Retry = f.retry()
	config.AtMostOnce = f.delivery == headgate.AtMostOnce
	config.Observer = r.observe
	config.Logger = r.logger
	config.Base = transport(f.concurrency)
	limit, known := f.tokenLimit()
	if known {
		config.Limits = []headgate.Limit{limit}
	}
	org, err := genesys.Connect(config)
	if err != nil {
		return usage("%w", err)
	}
	r.org = org
	if err := r.restore(ctx); err != nil {
		return err
	}
	if err := org.Login(ctx); err != nil {
		if ctx.Err() != nil {
			return &exitError{exitInterrupted, errors.New("interrupted; nothing was sent")}
		}
		return &exitError{exitUnreachable, err}
	}
	if known {
		return nil
	}
	own, err := org.WithOwnLimits(ctx)
	if err != nil {
		var answered *genesys.APIError
		if !errors.As(err, &answered) {
			return &exitError{exitUnreachable, err}
		}
		fmt.Fprintf(r.stderr, "headgate: %v; going on with the published %d/min\n", err, genesys.TokenPerMinute)
	}
	r.org = own
	return nil
}

// restore takes over what an earlier run of the journal had spent.
func (r *bulkRun) restore(ctx context.Context) error {
	state, err := r.store.Meta(ctx, sqlite.MetaLimiter)
	if err != nil {
		return r.failed(err)
	}
	var states []headgate.State
	if len(state) == 0 {
		return nil
	}
	if err := json.Unmarshal(state, &states); err != nil {
		fmt.Fprintf(r.stderr, "headgate: what the journal knows of the limits can't be read and is left out: %v\n", err)
		return nil
	}
	r.org.Limiter.Restore(states)
	return nil
}

// failed is an error of the journal while rows are open.
func (r *bulkRun) failed(err error) error {
	if errors.Is(err, context.Canceled) {
		return &exitError{exitInterrupted, errors.New("interrupted")}
	}
	return &exitError{exitNotAllDone, fmt.Errorf("%w\nnothing that was recorded is lost: the same command goes on", err)}
}

// observe counts the events and logs them if that is wanted.
func (r *bulkRun) observe(e headgate.Event) {
	r.meter.Observe(e)
	if e.Kind == headgate.Retried && bulk.IsLogin(e) {
		fmt.Fprintf(r.messages(), "headgate: logging in: %s; again in %s\n", cause(e), short(e.Wait))
	}
	if r.flags.verbose {
		r.logger.Info(e.Kind.String(), "event", e)
	}
}

// messages is where to talk to the user.
func (r *bulkRun) messages() io.Writer {
	if r.painter != nil {
		return r.painter
	}
	return r.stderr
}

// cause says why an attempt has to be made again.
func cause(e headgate.Event) string {
	if e.Err != nil {
		return e.Err.Error()
	}
	return fmt.Sprintf("answered %d", e.Status)
}

// dispatch carries the rows to their outcomes and says how it went.
func (r *bulkRun) dispatch(take, do context.Context, before queue.Counts, recovered queue.Recovered) error {
	results, err := r.results()
	if err != nil {
		return err
	}
	defer results.Abort()
	run := &bulk.Run{
		Store: r.store, Concurrency: r.flags.concurrency, Results: results, Meter: &r.meter,
	}
	if r.org != nil {
		run.Limiter = r.org.Limiter
		run.Ask = headgate.Ask{Org: cmp.Or(r.target.config.Org, hostOf(r.org.APIURL)), Client: r.target.config.Credentials.ClientID,
			Token: r.org.Tokens.Name(), Path: genesys.LaunchPath}
		run.Sender = &bulk.Sender{Transport: r.org.Flows().Transport, APIURL: r.org.APIURL, Delivery: r.flags.delivery, Follow: r.flags.wait}
	} else {
		run.Sender = &bulk.Sender{}
	}
	if r.org != nil {
		mode, _ := progress.ParseMode(r.flags.progress)
		r.painter = progress.Start(progress.Config{W: r.stderr, Mode: mode, Snapshot: func() progress.Snapshot {
			s := run.Progress()
			s.Note = r.notes.text(s)
			return s
		}})
		if r.flags.verbose {
			*r.logger = *slog.New(slog.NewTextHandler(r.painter, nil))
		}
		if r.goesOn {
			r.painter.Println(resumed(before, recovered))
		}
	}
	summary, err := run.Do(take, do)
	if r.painter != nil {
		r.painter.Stop()
	}
	return r.conclude(summary, err, results)
}

// results is where the results go.
func (r *bulkRun) results() (resultsFile, error) {
	out := r.flags.out
	switch {
	case out == "-":
		return plainWriter{r.stdout}, nil
	case out != "":
		file, err := bulk.CreateOut(out)
		if err != nil {
			return nil, usage("--out: %w", err)
		}
		return file, nil
	}
	if isTerminal(r.stdout) {
		return plainWriter{io.Discard}, nil
	}
	return plainWriter{r.stdout}, nil
}

// resultsFile is a bulk.OutFile or what stands for one.
type resultsFile interface {
	io.Writer
	Commit() error
	Abort()
}

type plainWriter struct{ io.Writer }

func (plainWriter) Commit() error { return nil }
func (plainWriter) Abort()        {}

func hostOf(url string) string {
	_, host, _ := strings.Cut(url, "://")
	host, _, _ = strings.Cut(host, "/")
	return host
}
