// Command bench is the contest: headgate beside the clients that people use, in
// front of the same server, in real time over loopback. README.md says how to
// read it and how to add to it.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/headgate/headgate/bench/contender"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// After the first signal the second one ends the process at once.
	context.AfterFunc(ctx, stop)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	var exit *exitError
	switch {
	case err == nil:
	case errors.As(err, &exit):
		if exit.err != nil {
			fmt.Fprintln(os.Stderr, "contest:", exit.err)
		}
		os.Exit(exit.code)
	default:
		fmt.Fprintln(os.Stderr, "contest:", err)
		os.Exit(1)
	}
}

// exitError is an error with the code that the process ends with.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string { return fmt.Sprint(e.err) }
func (e *exitError) Unwrap() error { return e.err }

const (
	exitUsage       = 2
	exitInterrupted = 130
)

func usage(err error) error { return &exitError{exitUsage, err} }

const help = `The contest: headgate beside the clients that people use, in front of the same
emulated server, in real time over loopback.

  go run . -list                          the scenarios and the contenders
  go run . -quick                         a small one, in under three minutes
  go run . -only 'known/*' -runs 1        everybody in one scenario
  go run . -only '*/headgate*'            headgate in all of them
  go run . -out results                   all of it, under 45 minutes, with files

The table goes to standard output, progress to standard error. Ctrl-C ends it
and shows what is finished. Exit codes: 0; 1 if something failed or can't be
trusted; 2 if what was given is wrong; 130 after Ctrl-C.

Options:
`

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("contest", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() {
		fmt.Fprint(flags.Output(), help)
		flags.PrintDefaults()
	}
	list := flags.Bool("list", false, "show the scenarios and the contenders, and run nothing")
	only := flags.String("only", "", "run only these: `SCENARIO/CONTENDER`, with * and ?, several after commas")
	runs := flags.Int("runs", 3, "how often each is run; with -quick once, unless it is given")
	quick := flags.Bool("quick", false, "fewer scenarios, fewer calls, one run")
	parallel := flags.Int("parallel", 16, "how many runs at once; they mostly wait")
	out := flags.String("out", "", "write results.md, results.csv and a picture of each scenario to `DIR`")
	file := flags.String("scenarios", "", "read the scenarios from this `FILE` instead of the built-in ones")
	for _, a := range args {
		// Who asks for help gets it where the output goes.
		if a == "-h" || a == "-help" || a == "--help" {
			flags.SetOutput(stdout)
		}
	}
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil
		}
		return &exitError{exitUsage, nil} // flags has said it
	}
	c := &contest{contenders: contender.All(), runs: *runs, parallel: *parallel, progress: stderr}
	given := false
	flags.Visit(func(f *flag.Flag) { given = given || f.Name == "runs" })
	if *quick && !given {
		c.runs = 1
	}
	switch {
	case flags.NArg() > 0:
		return usage(fmt.Errorf("does not know what to do with %q: it takes options only, see -help", flags.Arg(0)))
	case c.runs < 1 || c.runs > 99:
		return usage(fmt.Errorf("-runs is %d, must be from 1 to 99", c.runs))
	case c.parallel < 1 || c.parallel > 64:
		return usage(fmt.Errorf("-parallel is %d, must be from 1 to 64", c.parallel))
	}
	if err := c.pick(*only); err != nil {
		return usage(err)
	}
	if err := c.read(*file, *quick); err != nil {
		return usage(err)
	}
	if *list {
		return c.show(stdout)
	}
	if *out != "" {
		if err := os.MkdirAll(*out, 0o777); err != nil {
			return usage(err)
		}
	}
	return c.run(ctx, stdout, *out)
}

// pick takes the patterns of -only.
func (c *contest) pick(only string) error {
	if only == "" {
		return nil
	}
	for p := range strings.SplitSeq(only, ",") {
		if !strings.Contains(p, "/") {
			return fmt.Errorf("-only %q: write SCENARIO/CONTENDER, as in 'known/*'", p)
		}
		if _, err := path.Match(p, ""); err != nil {
			return fmt.Errorf("-only %q: %w", p, err)
		}
		c.only = append(c.only, p)
	}
	return nil
}

// read takes the scenarios.
func (c *contest) read(file string, quick bool) error {
	name, text := "scenarios.yaml", builtIn
	if file != "" {
		var err error
		if text, err = os.ReadFile(file); err != nil {
			return err
		}
		name = file
	}
	all, err := parseScenarios(name, text)
	if err != nil {
		return err
	}
	for _, s := range all {
		if quick {
			var ok bool
			if s, ok = s.quick(); !ok {
				continue
			}
		}
		c.scenarios = append(c.scenarios, s)
	}
	if len(c.scenarios) == 0 {
		return fmt.Errorf("%s: no scenario says how many calls it makes in a quick run", name)
	}
	return nil
}

func (c *contest) show(w io.Writer) error {
	tab := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tab, "scenario\tideal\tdeadline\t")
	for i := range c.scenarios {
		s := &c.scenarios[i]
		ideal, _ := s.ideal(s.Busy * s.Calls)
		fmt.Fprintf(tab, "%s\t%.1f s\t%v\t%s\n", s.Name, ideal.Seconds(), s.Deadline.Round(time.Second), s.About)
	}
	fmt.Fprintln(tab, "\t\t\t\ncontender\t\t\t")
	for _, who := range c.contenders {
		fmt.Fprintf(tab, "%s\t\t\t%s: %s\n", who.ID, who.Title, who.About)
	}
	return tab.Flush()
}

// run holds the contest and writes what came of it.
func (c *contest) run(ctx context.Context, stdout io.Writer, out string) error {
	r := &results{contest: c}
	redisNote := ""
	// Asked of all contenders first: whether any of the cells needs it.
	needsRedis := slices.ContainsFunc(c.contenders, func(who contender.Contender) bool {
		return who.Redis && slices.ContainsFunc(c.scenarios, func(s Scenario) bool {
			one := cell{scenario: &s, contender: who}
			return one.why() == "" && c.wanted(one)
		})
	})
	if needsRedis {
		var err error
		c.redis, err = startRedis(ctx)
		switch {
		case errors.Is(err, errNoRedis):
			redisNote = "not installed: redis_rate is left out (apt-get install redis-server)"
			fmt.Fprintln(c.progress, "redis-server is", redisNote)
		case err != nil:
			return err
		default:
			defer c.redis.stop()
			redisNote = c.redis.version
		}
	}
	cells := c.cells()
	if len(cells) == 0 {
		return usage(errors.New("nothing to run: -list shows what there is, and who needs a limit to be told has no part where none is"))
	}
	fmt.Fprintf(c.progress, "%d runs, %d at once: %v at most, usually half of it\n", len(cells), c.parallel, c.atMost(cells).Round(time.Second))
	began := time.Now()
	timers := watch()
	outcomes, failed := c.hold(ctx, cells)
	late, latest := timers.end()
	slices.SortStableFunc(outcomes, func(a, b *outcome) int { return a.run - b.run })
	r.outcomes = outcomes
	if ctx.Err() != nil {
		r.cut = fmt.Sprintf("Interrupted: %d of %d runs.", len(outcomes), len(cells))
	} else if failed != nil {
		r.cut = fmt.Sprintf("%d of %d runs failed.", len(cells)-len(outcomes), len(cells))
	}
	r.where = append(where(began),
		line{"runs of each", fmt.Sprintf("%d, %d runs at once, %v in all", c.runs, c.parallel, time.Since(began).Round(time.Second))},
		line{"timers of the machine meanwhile", fmt.Sprintf("99 %% at most %.1f ms late, the latest %.0f ms", late.Seconds()*1e3, latest.Seconds()*1e3)})
	if redisNote != "" {
		r.where = append(r.where, line{"redis-server", redisNote})
	}
	r.where = append(r.where, line{"versions", versions(c.contenders)})
	if err := r.text(stdout); err != nil {
		return err
	}
	if out != "" && len(outcomes) > 0 {
		if err := r.write(out); err != nil {
			return err
		}
	}
	if ctx.Err() != nil {
		return &exitError{exitInterrupted, failed}
	}
	return failed
}

// write writes the files. Each is written beside its place and then moved there.
func (r *results) write(dir string) error {
	files := map[string]func(io.Writer) error{"results.md": r.markdown, "results.csv": r.csv}
	for _, s := range r.held() {
		files[s.Name+".svg"] = func(w io.Writer) error { return r.picture(w, s) }
	}
	for name, write := range files {
		var b bytes.Buffer
		if err := write(&b); err != nil {
			return err
		}
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path+".new", b.Bytes(), 0o666); err != nil {
			return err
		}
		if err := os.Rename(path+".new", path); err != nil {
			return err
		}
	}
	return nil
}

// where says on what the contest was held.
func where(began time.Time) []line {
	return []line{
		{"date", began.Format("2 January 2006")},
		{"machine", fmt.Sprintf("%d cores, %s, %s/%s", runtime.NumCPU(), processor(), runtime.GOOS, runtime.GOARCH)},
		{"Go", strings.TrimPrefix(runtime.Version(), "go")},
	}
}

// processor is what the machine calls its processor, where it says so.
func processor() string {
	text, _ := os.ReadFile("/proc/cpuinfo")
	for l := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(l, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return "processor unknown"
}

// versions lists the modules of the contenders.
func versions(all []contender.Contender) string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	var list []string
	for _, who := range all {
		for _, d := range info.Deps {
			// A module that is replaced is the code beside this one.
			if text := d.Path + " " + d.Version; d.Path == who.Module && d.Replace == nil && !slices.Contains(list, text) {
				list = append(list, text)
			}
		}
	}
	return strings.Join(list, ", ")
}
