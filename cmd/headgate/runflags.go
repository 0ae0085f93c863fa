package main

import (
	"time"

	"github.com/spf13/cobra"

	"github.com/headgate/headgate"
	"github.com/headgate/headgate/genesys"
	"github.com/headgate/headgate/internal/bulk"
	"github.com/headgate/headgate/internal/progress"
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

	limit   rate
	burst   float64
	learn   headgate.Learning
	ceiling rate
	learned string

	out, journal string
	skipBad      bool
	dryRun       bool

	concurrency   int
	delivery      headgate.Delivery
	timeout       span
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
		Long: `run makes one flow execution of every row of FILE, as fast as the limit allows.
FILE is JSON Lines (one object a line) or CSV with a header; - reads standard
input. Rows are written to a journal, FILE.journal, before anything is sent: after a
crash or Ctrl-C, the same command goes on where it stopped.

Without --flow each row names its own flow, the rest of the row is the payload:
    {"flowId": "6b2f…", "customer": 17}
With --flow the whole row is the payload of that flow. With --endpoint launch it is
the inputData, and without --flow the body of POST /api/v2/flows/executions.

Credentials come from the environment: ` + genesys.EnvClientID + ` and
` + genesys.EnvClientSecret + `, of an OAuth client with the grant type client
credentials, and ` + genesys.EnvRegion + ` (or --region), such as eu-central-1. With
--emulator none are needed.

Results are written as JSON Lines in the order of the rows: to --out, or to standard
output if that is not a terminal. The summary goes to standard error.

TIME is written 300ms, 2m or as seconds: 5. Everything in full: docs/run.md.

Exit codes: 0 all rows are done; 1 some failed, expired or are unknown, or the
journal or the results could not be written; 2 bad flags or input, nothing was sent;
3 could not log in or reach the API; 130 interrupted.`,
		Example: `  headgate run --emulator examples/executions.jsonl              try it: no account, nothing real
  headgate run --dry-run --limit 50/s --burst 100 rows.jsonl     is it good, and how long will it take?
  headgate run --region eu-central-1 --flow 6b2f… --out results.jsonl rows.csv
  headgate run --limit 300/min --delivery at-most-once rows.jsonl`,
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
	fs.StringVar(&f.flow, "flow", "", "every row is a payload of the flow with this `ID`")
	fs.TextVar(&f.endpoint, "endpoint", bulk.Execute, "`FORM` of the call: execute (architect/flows/{id}/execute) or launch (flows/executions)")
	fs.BoolVar(&f.wait, "wait", false, "with --endpoint launch: follow each flow to its end; every status poll pays from the limit")
	fs.StringVar(&f.format, "format", "auto", "how FILE is written, `FORMAT`: auto (by its extension, else its first byte), jsonl or csv")
	fs.BoolVar(&f.skipBad, "skip-bad", false, "record bad rows as failed and go on; without it a bad row stops everything before it begins")
	fs.BoolVar(&f.dryRun, "dry-run", false, "check FILE and say how long it will take; send nothing, needs no credentials")

	fs.StringVar(&f.region, "region", "", "where the org lives, the region's `NAME` by AWS or its domain (default $"+genesys.EnvRegion+")")
	fs.StringVar(&f.apiURL, "api-url", "", "`URL` of the API in place of the region's, such as a proxy's; goes with --login-url")
	fs.StringVar(&f.loginURL, "login-url", "", "`URL` of the login; goes with --api-url")

	f.limit.learns = true
	fs.Var(&f.limit, "limit", "requests that the server lets one token make: 50/s, 300/min; learn: nothing is told (default: ask the org, else 300/min)")
	fs.Float64Var(&f.burst, "burst", 0, "the server is a token bucket that holds `N`; without it --limit may be any kind of window, and is kept in each")
	fs.TextVar(&f.learn, "learn", headgate.LearnOn, "`on` follows what the server does; off keeps to what was told")
	fs.Var(&f.ceiling, "ceiling", "a rate that is never exceeded, whatever is learned (default: none)")
	fs.StringVar(&f.learned, "learned", "", "`FILE` that keeps what was learned of the limits for the next run; none keeps nothing (default headgate.learned beside the journal)")

	fs.StringVar(&f.out, "out", "", "`FILE` for the results, replaced when every row has an outcome; - is standard output even if that is a terminal")
	fs.StringVar(&f.journal, "journal", "", "`FILE` that keeps the rows and their outcomes (default FILE.journal)")

	fs.IntVar(&f.concurrency, "concurrency", 200, "at most `N` requests under way at once, those that wait for the limit among them")
	fs.TextVar(&f.delivery, "delivery", headgate.AtLeastOnce, "what becomes of a row that may have been executed: `MODE` at-least-once sends it again, at-most-once does not")
	f.timeout = span(5 * time.Minute)
	fs.Var(&f.timeout, "timeout", "how long an attempt may stay unanswered once it has left; after that it may have been executed, and --delivery decides")
	fs.IntVar(&f.maxRetries, "max-retries", 5, "send a row at most `N` times more after errors; a 429 does not count, it is waited out")
	fs.Var(&f.maxWait, "max-wait", "a row that was not sent so long after it was accepted expires (default: never)")
	f.retryAfter = span(5 * time.Second)
	fs.Var(&f.retryAfter, "retry-after", "wait after a 429 that does not say how long, doubled each time in a row")
	f.maxRetryAfter = span(15 * time.Minute)
	fs.Var(&f.maxRetryAfter, "max-retry-after", "rows that meet a longer Retry-After are put aside until it is over")
	fs.TextVar(&f.backoff, "backoff", headgate.Exponential, "`HOW` the wait between retries grows: exponential or constant")
	f.backoffBase, f.backoffMax = span(time.Second), span(time.Minute)
	fs.Var(&f.backoffBase, "backoff-base", "wait before the first retry")
	fs.Var(&f.backoffMax, "backoff-max", "longest wait between retries")
	fs.TextVar(&f.jitter, "jitter", headgate.FullJitter, "`HOW` that wait varies: full, equal, decorrelated or none")

	fs.BoolVar(&f.emulator, "emulator", false, "run against an emulator in this process: no account, nothing real")
	f.emulatorLimit = rate{n: 50, per: time.Second, text: "50/s"}
	fs.Var(&f.emulatorLimit, "emulator-limit", "with --emulator: the rate of its token bucket")
	fs.Float64Var(&f.emulatorBurst, "emulator-burst", 100, "with --emulator: how many its token bucket holds, `N`")

	fs.StringVar(&f.config, "config", "", "YAML `FILE` with these options, with _ for - (retry_after: 5); the command line goes first")
	fs.StringVar(&f.progress, "progress", "auto", "progress on standard error, `HOW`: auto, bar, plain, json or none")
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
	case f.given("burst") && f.limit.text == wordLearn:
		return usage("--burst contradicts --limit learn, which tells nothing")
	case f.limit.text == wordLearn && f.learn == headgate.LearnOff:
		return usage("--limit learn contradicts --learn off: nothing would be known")
	case f.ceiling.text != "" && f.learn == headgate.LearnOff:
		return usage("--ceiling goes with --learn on: with off, what is told is never exceeded")
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
	}{{"timeout", f.timeout}, {"retry-after", f.retryAfter}, {"max-retry-after", f.maxRetryAfter}, {"backoff-base", f.backoffBase}, {"backoff-max", f.backoffMax}} {
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
	return f.addresses()
}

// inputName is what messages call the input.
func (f *runFlags) inputName() string {
	if f.input == "-" {
		return "stdin"
	}
	return f.input
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
	l = genesys.TokenLimit(0, 0)
	switch {
	case f.limit.text == wordLearn:
	case f.limit.text != "" && f.burst > 0:
		l.Rate, l.Burst = f.limit.perSecond(), f.burst
	case f.limit.text != "" && f.learn == headgate.LearnOff:
		l.Rate, l.Burst = headgate.Even(f.limit.n, f.limit.per)
	case f.limit.text != "":
		told := headgate.PerTime(f.limit.n, f.limit.per)
		l.Rate, l.Burst, l.Max, l.Window = told.Rate, told.Burst, told.Max, told.Window
	case f.emulator:
		l.Rate, l.Burst = f.emulatorLimit.perSecond(), f.emulatorBurst
	default:
		return headgate.Limit{}, false
	}
	l.Learn, l.Ceiling = f.learn, f.ceiling.perSecond()
	return l, true
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
		in.Target, in.Client = t.name, t.config.Credentials.ClientID
	}
	return in, nil
}
