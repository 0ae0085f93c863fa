package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"
	_ "time/tzdata" // time zones where the system has none: Windows, small images

	"github.com/spf13/cobra"

	"github.com/headgate/headgate/internal/progress"
	"github.com/headgate/headgate/internal/simulate"
)

// simulation is what the flags of `headgate simulate` say.
type simulation struct {
	arrivals, profile string
	perDay            perDay
	peak              hours
	peakShare         float64
	zone              zoneName
	date              dayOfYear

	limits     limitSpecs
	others     otherSpecs
	outages    outageSpecs
	retryAfter choice[simulate.RetryAfter]
	latency    span
	jitter     span

	told                 toldSpecs
	credentials, clients int
	concurrency          int

	policies policySpecs
	whatIfs  whatIfSpecs

	json      bool
	html, svg string
	seed      uint64
	config    string
	progress  string

	given func(flag string) bool
}

func (p *process) simulateCommand() *cobra.Command {
	var s simulation
	cmd := &cobra.Command{
		Use:   "simulate [flags]",
		Short: "Say how long calls would wait, and what another limit would change, without sending any",
		Long: `simulate runs a day of calls through headgate's own buckets and a model of the
server, under a virtual clock: ten million calls take seconds. It says how long calls
would wait, how many would be refused or lost, how full the bucket would be, and what
a second credential or a higher limit would change. Nothing is sent.

Without flags it simulates 100,000 calls on a working day in Paris, half of them from
9 to 11, against the published 300 requests a minute, as a bucket that holds 60.

When do the calls come?   --arrivals FILE, a CSV of calls as they came once, with a
                          header: time, and maybe count and priority
                          or --profile FILE, a YAML of rates by time of day
                          or --per-day, --peak and --peak-share, for a working day
What does the server allow?
  --limit LIMIT           a rate and options:   50/s,burst=100
                                                300/min,algorithm=sliding
    algorithm=bucket|fixed|sliding   a token bucket (default), or a window
    phase=D                          fixed windows follow each other by the clock; the
                                     first is D old at the start
    burst=N                          how many the bucket holds (default a second's)
    per=token|client|org             per=org is shared by all credentials
    name=KEY                         what the report calls it
  --others OTHERS         what others draw from it, a rate or a share and options:
                                                20/s,from=9:00,to=12:00
                                                30%,on=10m,off=20m
    from=T to=T                      time of day, or time since the start
    on=D off=D                       they come and go
    even                             not at random
    limit=KEY                        from which limit (default the first)
What do the clients know? --told known, learn (nothing), hidden (not even that there is
                          a limit), or another rate such as 40/s,burst=80
Who is compared?          --policy best (nobody can be faster), headgate, learn
                          (headgate, told nothing), off (headgate, learning off) and
                          loop (the widely copied one: five attempts, sleep Retry-After)
What if?                  --what-if credentials=2, limit=+50%, limit=x2, rate=x2,
                          burst=x2, clients=4, concurrency=50, or none

Columns: wait is from when a call came until the attempt that counted left; level is
how full the bucket was in the mean, empty the share of the time in which it had no
room; backlog is the most calls that waited at once; gone is when nobody waited any
more. The same input and --seed give the same output. Everything in full:
docs/simulate.md.

Exit codes: 0 done; 1 a file could not be written; 2 bad flags or input;
130 interrupted.`,
		Example: `  headgate simulate                                        what it shows
  headgate simulate --per-day 200000 --peak 09:00-11:00 --peak-share 0.5 --time-zone Europe/Paris
  headgate simulate --arrivals calls.csv --time-zone Europe/Paris --limit 50/s,burst=100 --html day.html
  headgate simulate --profile examples/workday.yaml --others 20%,from=9:00,to=12:00
  headgate simulate --limit 35/s,burst=100 --told 50/s,burst=100 --policy headgate,off,loop --what-if none
  headgate simulate --json | jq '.rows[] | {name, p99: .wait.p99Ms}'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s.given = func(name string) bool { return cmd.Flags().Changed(name) }
			if s.config != "" {
				if err := readConfig(s.config, cmd.Flags()); err != nil {
					return usage("%w", err)
				}
			}
			if err := s.check(); err != nil {
				return err
			}
			return p.simulate(&s)
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVar(&s.arrivals, "arrivals", "", "CSV `FILE` of calls as they came once, - is standard input: columns time, count, priority")
	f.StringVar(&s.profile, "profile", "workday", "`NAME`: workday, or a YAML file of rates by time of day")
	s.perDay = 100_000
	f.Var(&s.perDay, "per-day", "so many calls a day (of --profile FILE: in place of what it says)")
	_ = s.peak.Set("09:00-11:00")
	f.Var(&s.peak, "peak", "when most calls of a workday come")
	f.Float64Var(&s.peakShare, "peak-share", 0.5, "`SHARE` of a workday's calls that come in the peak, from 0 to 1")
	_ = s.zone.Set("Europe/Paris")
	f.Var(&s.zone, "time-zone", "whose clock: a workday's, a profile's, and that of times without an offset in --arrivals")
	_ = s.date.Set("2026-01-15")
	f.Var(&s.date, "date", "which day; it matters where the clocks change")

	_ = s.limits.Set("300/min,burst=60")
	s.limits.given = false
	f.Var(&s.limits, "limit", "a limit of the server, see above; may be given up to 4 times")
	f.Var(&s.others, "others", "what others draw from a limit, see above; may be given several times")
	f.Var(&s.outages, "outage", "the server is out, `FROM-TO` by time of day or since the start: 10:00-10:05; may be given several times")
	s.retryAfter = choice[simulate.RetryAfter]{"ceil", retryAfterForms, simulate.Ceil}
	f.Var(&s.retryAfter, "retry-after", "what a 429 says: ceil (whole seconds), exact, absent, fluctuating (1 to 30 s), padded (up to 5 s too long) or short (half)")
	s.latency, s.jitter = span(200*time.Millisecond), span(50*time.Millisecond)
	f.Var(&s.latency, "latency", "how long the server takes to answer")
	f.Var(&s.jitter, "jitter", "the latency grows by something between 0 and this")

	f.Var(&s.told, "told", "what clients know of the limit, see above; the n-th is of the n-th limit (default known)")
	f.IntVar(&s.credentials, "credentials", 1, "`N` credentials, each with its own bucket of limits that are not per=org")
	f.IntVar(&s.clients, "clients", 1, "`N` processes for each credential, which share nothing; calls go to them in turn")
	f.IntVar(&s.concurrency, "concurrency", 200, "each process has at most `N` calls under way at once, those that wait for the limit among them")

	_ = s.policies.Set("best,headgate,learn,off,loop")
	s.policies.given = false
	f.Var(&s.policies, "policy", "who is compared, see above; several are separated by commas")
	for _, w := range []string{"credentials=2", "limit=+50%", "limit=x2"} {
		_ = s.whatIfs.Set(w)
	}
	s.whatIfs.given = false
	f.Var(&s.whatIfs, "what-if", "what else is simulated, see above; may be given several times")

	f.BoolVar(&s.json, "json", false, "write JSON in place of a table")
	f.StringVar(&s.html, "html", "", "write the table and a picture of the day to `FILE`, which needs nothing else")
	f.StringVar(&s.svg, "svg", "", "write the picture to `FILE`")
	f.Uint64Var(&s.seed, "seed", 1, "`N` from which all that is random comes: the same one gives the same output")
	f.StringVar(&s.config, "config", "", "YAML `FILE` with these options, with _ for - (per_day: 200000); the command line goes first")
	f.StringVar(&s.progress, "progress", "auto", "progress on standard error if it takes long, `HOW`: auto, bar, plain, json or none")
	return cmd
}

var retryAfterForms = map[string]simulate.RetryAfter{
	"ceil": simulate.Ceil, "exact": simulate.Exact, "absent": simulate.Absent,
	"fluctuating": simulate.Fluctuating, "padded": simulate.Padded, "short": simulate.Short,
}

// check refuses flags that contradict each other or make no sense.
func (s *simulation) check() error {
	switch {
	case s.arrivals != "":
		for _, name := range []string{"profile", "per-day", "peak", "peak-share", "date"} {
			if s.given(name) {
				return usage("--arrivals contradicts --%s: a trace says itself when calls come", name)
			}
		}
	case s.profile != "workday" && (s.given("peak") || s.given("peak-share")):
		return usage("--peak and --peak-share are for --profile workday: %s says itself when calls come", s.profile)
	}
	switch {
	case !(s.peakShare > 0 && s.peakShare <= 1):
		return usage("--peak-share %v: takes a share above 0, up to 1", s.peakShare)
	case len(s.limits.list) > 4:
		return usage("--limit: at most 4 of them")
	case len(s.told.list) > len(s.limits.list):
		return usage("--told is given more often than --limit: the n-th says what is known of the n-th limit")
	case s.concurrency < 1 || s.concurrency > 1_000_000:
		return usage("--concurrency %d: takes a number from 1 to 1000000", s.concurrency)
	}
	for name, n := range map[string]int{"credentials": s.credentials, "clients": s.clients} {
		if n < 1 || n > simulate.MaxClients {
			return usage("--%s %d: takes a number from 1 to %d", name, n, simulate.MaxClients)
		}
	}
	says := func(t simulate.Told) bool { return t.How == simulate.Known || t.How == simulate.Wrong }
	off := slices.ContainsFunc(s.policies.list, func(w simulate.Way) bool { return w.Word == "off" })
	if off && s.policies.given && len(s.told.list) == len(s.limits.list) && !slices.ContainsFunc(s.told.list, says) {
		return usage("--policy off keeps to what it is told: it needs a --told that says something")
	}
	if _, err := progress.ParseMode(s.progress); err != nil {
		return usage("--progress: %w", err)
	}
	if s.html == "-" || s.svg == "-" {
		return usage("--html and --svg take a FILE; what goes to standard output is the table, or --json")
	}
	return s.apart()
}

// apart refuses files that would overwrite each other.
func (s *simulation) apart() error {
	var files []namedFile
	for _, f := range []struct{ role, path string }{
		{"--arrivals", s.arrivals}, {"--profile", s.profile}, {"--config", s.config}, {"--html", s.html}, {"--svg", s.svg},
	} {
		if f.path == "" || f.path == "-" {
			continue
		}
		file := fileAt(f.role, f.path)
		for _, other := range files {
			if (f.role == "--html" || f.role == "--svg") && file.same(other) {
				return sameFile(other, file)
			}
		}
		files = append(files, file)
	}
	return nil
}

// simulate runs the command.
func (p *process) simulate(s *simulation) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	over := make(chan struct{})
	defer close(over)
	go func() {
		select {
		case <-p.signals:
			cancel()
		case <-over:
		}
	}()
	report, err := p.simulated(ctx, s)
	if ctx.Err() != nil {
		fmt.Fprintln(p.stderr, "interrupted; nothing was written")
		return &exitError{code: exitInterrupted}
	}
	if err != nil {
		return err
	}
	for _, picture := range []struct {
		path  string
		write func(io.Writer) error
	}{{s.html, report.WriteHTML}, {s.svg, report.WriteSVG}} {
		if picture.path == "" {
			continue
		}
		if err := writeFile(picture.path, picture.write); err != nil {
			return &exitError{exitNotAllDone, err}
		}
		fmt.Fprintf(p.stderr, "picture: %s\n", picture.path)
	}
	if s.json {
		out := json.NewEncoder(p.stdout)
		out.SetIndent("", "  ")
		out.SetEscapeHTML(false)
		err = out.Encode(report.Output())
	} else {
		err = report.WriteText(p.stdout)
	}
	if err != nil {
		return &exitError{exitNotAllDone, err}
	}
	return nil
}

// writeFile writes a file once it is known what goes into it.
func writeFile(path string, write func(io.Writer) error) error {
	var text strings.Builder
	if err := write(&text); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(text.String()), 0o666)
}

// simulated reads the input and simulates.
func (p *process) simulated(ctx context.Context, s *simulation) (*simulate.Report, error) {
	sc, about, err := p.scenario(ctx, s)
	if err != nil {
		return nil, err
	}
	variants := s.variants(sc)
	var ended atomic.Int64
	stop := p.showProgress(ctx, s, int64(sc.Calls*float64(len(variants))), &ended)
	rows, err := sc.Compare(ctx, variants, &ended)
	stop()
	if err != nil {
		return nil, err
	}
	about[0] = fmt.Sprintf("%s calls %s", simulate.Thousands(rows[0].Arrived), about[0])
	return &simulate.Report{About: about, Scenario: *sc, Rows: rows}, nil
}

// showProgress begins to show progress once it takes longer than a moment.
func (p *process) showProgress(ctx context.Context, s *simulation, total int64, ended *atomic.Int64) (stop func()) {
	mode, _ := progress.ParseMode(s.progress)
	begun, over, painted := time.Now(), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(painted)
		select {
		case <-time.After(time.Second):
		case <-over:
			return
		}
		painter := progress.Start(progress.Config{W: p.stderr, Mode: mode, Getenv: p.env, Snapshot: func() progress.Snapshot {
			n, took := ended.Load(), time.Since(begun)
			s := progress.Snapshot{Total: max(total, n), Done: n, Elapsed: took, Rate: float64(n) / took.Seconds()}
			if n > 0 {
				s.Left, s.LeftKnown = time.Duration(float64(took)*(float64(s.Total)/float64(n)-1)), true
			}
			if ctx.Err() != nil {
				s.Note = "stopping"
			}
			return s
		}})
		<-over
		painter.Stop()
	}()
	return func() { close(over); <-painted }
}

// variants are the rows: each policy, then each what-if with the first that is
// headgate's.
func (s *simulation) variants(sc *simulate.Scenario) (all []simulate.Variant) {
	for _, w := range s.policies.list {
		if (w.Word == "headgate" || w.Word == "off") && !s.policies.given && sc.TellsNothing() {
			continue // nothing but the row of learn would make sense
		}
		all = append(all, simulate.Variant{Way: w})
	}
	way := all[0].Way
	for _, v := range all {
		if v.Word != "best" && v.Word != "loop" {
			way = v.Way
			break
		}
	}
	for _, w := range s.whatIfs.list {
		all = append(all, simulate.Variant{Way: way, WhatIf: w})
	}
	return all
}

// scenario makes one of the flags and the input, and says in words what it is.
// The number of calls is still to be put before the first line.
func (p *process) scenario(ctx context.Context, s *simulation) (*simulate.Scenario, []string, error) {
	sc := &simulate.Scenario{
		Seed: s.seed, RetryAfter: s.retryAfter.value, Latency: time.Duration(s.latency), Jitter: time.Duration(s.jitter),
		Credentials: s.credentials, Clients: s.clients, Callers: s.concurrency,
	}
	when, err := p.calls(ctx, s, sc)
	if err != nil {
		return nil, nil, err
	}
	about := []string{when}
	for i, spec := range s.limits.list {
		l := spec.limit
		if i < len(s.told.list) {
			l.Told = s.told.list[i]
		}
		sc.Limits = append(sc.Limits, l)
		line := "limit " + spec.text
		if l.Algorithm == simulate.Bucket {
			line += fmt.Sprintf(" (a bucket of %s, refilled by %s/s)", number(l.Burst), number(l.Rate))
		}
		if i < len(s.told.text) && s.told.text[i] != "known" {
			line += "; clients are told: " + s.told.text[i]
		}
		about = append(about, line)
	}
	for _, o := range s.others.list {
		at := 0
		if o.limit != "" {
			at = slices.IndexFunc(sc.Limits, func(l simulate.ScenarioLimit) bool { return l.Name == o.limit })
			if at < 0 {
				return nil, nil, usage("--others %s: no --limit has name=%s", o.text, o.limit)
			}
		}
		l := &sc.Limits[at]
		t, err := o.traffic(l, sc.Start)
		if err != nil {
			return nil, nil, usage("--others %s: %w", o.text, err)
		}
		l.Others = append(l.Others, t)
		about = append(about, "others draw "+o.text)
	}
	for _, o := range s.outages.list {
		from, to, err := between(o.from, o.to, sc.Start)
		if err != nil {
			return nil, nil, usage("--outage %s: %w", o.text, err)
		}
		sc.Outages = append(sc.Outages, simulate.Outage{From: from, To: to})
		about = append(about, "outage "+o.text)
	}
	clients := plural(int64(s.clients*s.credentials), "client")
	if s.credentials > 1 {
		clients += fmt.Sprintf(" with %d credentials", s.credentials)
	}
	answers := "at once"
	if sc.Latency+sc.Jitter > 0 {
		answers = fmt.Sprintf("after %s to %s", short(sc.Latency), short(sc.Latency+sc.Jitter))
	}
	about = append(about, fmt.Sprintf("%s, at most %d calls under way in each, answers %s", clients, s.concurrency, answers))
	return sc, about, nil
}

// calls fills in when calls come, and says it.
func (p *process) calls(ctx context.Context, s *simulation, sc *simulate.Scenario) (string, error) {
	if s.arrivals != "" {
		return p.trace(ctx, s, sc)
	}
	profile := simulate.Workday(float64(s.perDay), s.peak.from, s.peak.to, s.peakShare)
	name := "workday"
	if s.profile != "workday" {
		text, err := p.read(ctx, s.profile)
		if err != nil {
			return "", usage("%w", err)
		}
		if profile, err = simulate.ReadProfile(s.profile, text); err != nil {
			return "", usage("%w", err)
		}
		if s.given("per-day") {
			profile.PerDay = float64(s.perDay)
		}
		name = s.profile
	}
	if profile.Zone == nil || s.given("time-zone") {
		profile.Zone = s.zone.location
	}
	if profile.Date.IsZero() || s.given("date") {
		profile.Date = s.date.Time
	}
	day, err := profile.On()
	if err != nil {
		return "", usage("%s: %w", name, err)
	}
	sc.Start, sc.Horizon, sc.Calls = day.Start, day.End.Sub(day.Start), day.N
	sc.Arrivals = func() simulate.Source { return day.Source(s.seed) }
	when := fmt.Sprintf("on %s, %s", day.Start.Format("Monday, 2 January 2006"), profile.Zone)
	if sc.Horizon != 24*time.Hour {
		when += fmt.Sprintf(" (a day of %s hours)", number(sc.Horizon.Hours()))
	}
	if rate, at := day.Peak(); rate > 0 {
		when += fmt.Sprintf(", at most %s a second, from %s", number(rate), day.Start.Add(at).Format("15:04"))
	}
	return when, nil
}

func (p *process) trace(ctx context.Context, s *simulation, sc *simulate.Scenario) (string, error) {
	in, err := p.open(ctx, s.arrivals)
	if err != nil {
		return "", usage("%w", err)
	}
	defer in.Close()
	var zone *time.Location
	if s.given("time-zone") {
		zone = s.zone.location
	}
	name := s.arrivals
	if name == "-" {
		name = "stdin"
	}
	trace, err := simulate.ReadTrace(name, in, zone)
	if err != nil {
		return "", usage("%w", err)
	}
	if len(trace.Unused) > 0 && ctx.Err() == nil {
		fmt.Fprintf(p.stderr, "%s: columns that are not used: %s\n", name, strings.Join(trace.Unused, ", "))
	}
	sc.Start, sc.Horizon, sc.Calls, sc.Arrivals = trace.Start, trace.Span, float64(trace.N), trace.Source
	when := fmt.Sprintf("of %s, within %s", name, short(trace.Span))
	if trace.Span == 0 {
		when = fmt.Sprintf("of %s, all at once", name)
	}
	if trace.Dated() {
		when += fmt.Sprintf(", from %s, %s", trace.Start.Format("Monday, 2 January 2006, 15:04"), zoneOf(trace.Start))
	}
	return when, nil
}

// zoneOf returns the name of the zone of t, or its offset.
func zoneOf(t time.Time) string {
	if name := t.Location().String(); name != "" {
		return name
	}
	return t.Format("UTC-07:00")
}

// read returns all of a file.
func (p *process) read(ctx context.Context, path string) ([]byte, error) {
	in, err := p.open(ctx, path)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	return io.ReadAll(in)
}
