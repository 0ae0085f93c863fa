package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/mattn/go-isatty"

	"github.com/headgate/headgate"
	"github.com/headgate/headgate/genesys"
	"github.com/headgate/headgate/internal/bulk"
	"github.com/headgate/headgate/internal/progress"
	"github.com/headgate/headgate/internal/queue"
)

// notes are what the progress shows first.
type notes struct {
	interrupted atomic.Bool
}

func (n *notes) text(s progress.Snapshot) string {
	if n.interrupted.Load() {
		return fmt.Sprintf("stopping: %d in flight may end; Ctrl-C again gives them up", s.InFlight)
	}
	return ""
}

func resumed(before queue.Counts, recovered queue.Recovered) string {
	s := fmt.Sprintf("going on: %d of %d rows have an outcome", before.Total()-before.Open(), before.Total())
	if recovered.Resent > 0 {
		s += fmt.Sprintf("; %d were sent and not answered, and are sent again", recovered.Resent)
	}
	if recovered.Unknown > 0 {
		s += fmt.Sprintf("; %d were sent and not answered, and are unknown", recovered.Unknown)
	}
	return s
}

// conclude says how the run went and returns what it leads to.
func (r *bulkRun) conclude(summary *bulk.Summary, err error, results resultsFile) error {
	counts, cerr := r.store.Counts(context.Background())
	if err == nil {
		err = cerr
	}
	open := counts.Open()
	if err == nil && open == 0 {
		if cerr := results.Commit(); cerr != nil {
			return &exitError{exitNotAllDone, fmt.Errorf("writing the results: %w\nevery row has its outcome; to write them, %s", cerr, strings.TrimPrefix(r.goOn(), "to go on, "))}
		}
	}
	if open > 0 && cerr == nil {
		summary = r.summaryOfAll(summary)
	}
	r.report(summary, counts)
	switch {
	case err != nil:
		return r.stopped(err, open)
	case open > 0:
		fmt.Fprintf(r.stderr, "interrupted: %d of %s no outcome yet\n%s\n", open, have(open, counts.Total()), r.goOn())
		r.forget()
		return &exitError{code: exitInterrupted}
	}
	if r.temporary {
		r.removeJournal()
	}
	if counts[queue.Done] < counts.Total() {
		return &exitError{code: exitNotAllDone}
	}
	return nil
}

// stopped returns what an error that ended the run early leads to.
func (r *bulkRun) stopped(err error, open int64) error {
	code := exitNotAllDone
	var unreachable *bulk.UnreachableError
	if errors.As(err, &unreachable) || isLogin(err) {
		code = exitUnreachable
	}
	text := r.goOn()
	r.forget()
	return &exitError{code, fmt.Errorf("%w\n%s no outcome yet and nothing is lost\n%s", err, have(open, open), text)}
}

// goOn says how to go on.
func (r *bulkRun) goOn() string {
	switch {
	case r.flags.emulator && r.temporary:
		return "(the emulator and its journal are gone)"
	case r.useless():
		return "nothing was sent and no journal is kept: give the same input again"
	case r.temporary:
		return fmt.Sprintf("to go on, give the same input again, with --journal %s", r.journal)
	}
	return "to go on, give the same command again"
}

// useless reports whether nobody could go on with the journal, or need to.
func (r *bulkRun) useless() bool {
	return r.temporary && (r.flags.emulator || r.meter.Sent() == 0)
}

// forget removes a journal that goOn did not name.
func (r *bulkRun) forget() {
	if r.useless() {
		r.removeJournal()
	}
}

// summaryOfAll returns the summary of all rows that have an outcome, where s is
// that of the rows before the first open one. It does not take long: whoever
// interrupts a run of a million rows wants it to end.
func (r *bulkRun) summaryOfAll(s *bulk.Summary) *bulk.Summary {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	all := bulk.Results{Store: endedOnly{r.store}, W: io.Discard}
	if err := all.Advance(ctx); err != nil {
		r.partial = true
		return s
	}
	return &all.Summary
}

// endedOnly is a store as if there were no open executions.
type endedOnly struct{ queue.Store }

// Each yields the executions that have an outcome.
func (s endedOnly) Each(ctx context.Context, f queue.Filter) iter.Seq2[queue.Execution, error] {
	f.States = []queue.State{queue.Done, queue.Failed, queue.Expired, queue.Unknown}
	return s.Store.Each(ctx, f)
}

// report writes the summary.
func (r *bulkRun) report(s *bulk.Summary, counts queue.Counts) {
	w := r.stderr
	fmt.Fprintf(w, "%s: %d done", plural(counts.Total(), "row"), counts[queue.Done])
	for _, state := range []queue.State{queue.Failed, queue.Expired, queue.Unknown} {
		if counts[state] > 0 {
			fmt.Fprintf(w, ", %d %v", counts[state], state)
		}
	}
	if counts.Open() > 0 {
		fmt.Fprintf(w, ", %d open", counts.Open())
	}
	fmt.Fprintln(w)
	if r.partial && (len(s.Causes()) > 0 || s.MaybeTwice > 0) {
		fmt.Fprintf(w, "  of the first %d rows:\n", s.Rows)
	}
	for i, c := range s.Causes() {
		if i == 10 {
			fmt.Fprintf(w, "  and other causes; the results name them\n")
			break
		}
		fmt.Fprintf(w, "  %d %v: %s (%s)\n", c.Count, c.Outcome, c.Reason, rowList(c))
	}
	if s.MaybeTwice > 0 {
		fmt.Fprintf(w, "  %s may have been executed more than once: maybeExecuted in the results\n", plural(s.MaybeTwice, "done row"))
	}
	if r.meter.Sent() > 0 {
		r.reportPace(w)
	}
	r.reportEmulator(w, counts)
	switch {
	case r.flags.out != "" && r.flags.out != "-" && counts.Open() == 0:
		fmt.Fprintf(w, "results: %s\n", r.flags.out)
	case r.flags.out == "" && isTerminal(r.stdout) && counts.Open() == 0 && !r.temporary:
		fmt.Fprintf(w, "results: not shown on a terminal; the same command with --out FILE writes them and sends nothing\n")
	}
}

// reportPace sets what happened beside what the limit allowed.
func (r *bulkRun) reportPace(w io.Writer) {
	m := &r.meter
	polls, unavailable := "", ""
	if m.Polls() > 0 {
		polls = fmt.Sprintf(" (%s among them)", plural(m.Polls(), "poll"))
	}
	if m.Unavailable() > 0 {
		unavailable = fmt.Sprintf("%d told to come later (503), ", m.Unavailable())
	}
	fmt.Fprintf(w, "  %s%s in %s: %d refused (429), %s%d sent again, %s\n",
		plural(m.Sent(), "request"), polls, short(m.Span()), m.Refused(), unavailable, m.Retried(), plural(m.Logins(), "login"))
	r.reportLearned(w)
	limit, known := r.flags.tokenLimit()
	if !known || limit.Rate == 0 && limit.Max == 0 || m.Accepted() == 0 || r.flags.wait {
		return // polls take their time, whatever the limit allows
	}
	// The last answer takes its time after the last permit.
	best := time.Duration(max(0, float64(m.Accepted())-limit.Burst) / limit.Rate * float64(time.Second))
	if limit.Max > 0 {
		best = time.Duration((m.Accepted()-1)/int64(limit.Max)) * limit.Window
	}
	if limit.Ceiling > 0 {
		best = max(best, time.Duration(float64(m.Accepted()-1)/limit.Ceiling*float64(time.Second)))
	}
	fmt.Fprintf(w, "  the limit (%s) allows them ", allows(limit))
	switch {
	case best == 0:
		fmt.Fprintln(w, "at once")
	case best < time.Second:
		fmt.Fprintf(w, "in %s at best\n", short(best))
	case m.Span() < best:
		fmt.Fprintf(w, "in %s at best: there was more to be had\n", short(best))
	default:
		fmt.Fprintf(w, "in %s at best: %.1f %% over it\n", short(best), 100*(m.Span().Seconds()/best.Seconds()-1))
	}
}

// allows says what is told of a limit.
func allows(l headgate.Limit) string {
	s := fmt.Sprintf("burst %s, then %s/s", number(l.Burst), number(l.Rate))
	if l.Max > 0 {
		s = fmt.Sprintf("%d in any %s", l.Max, short(l.Window))
	}
	if l.Ceiling > 0 {
		s += fmt.Sprintf(", never above %s/s", number(l.Ceiling))
	}
	return s
}

// reportLearned says what was learned of limits beyond what was told.
func (r *bulkRun) reportLearned(w io.Writer) {
	if r.org == nil {
		return
	}
	for _, e := range r.org.Limiter.Estimates() {
		switch e.Learning {
		case "search", "track", "contend":
		case "window":
			if e.Algorithm == headgate.Window && len(e.Templates) == 0 && e.RateSure > 0.5 {
				continue // as it was told
			}
		default:
			continue
		}
		fmt.Fprintf(w, "  learned: %v\n", e)
		for _, t := range e.Templates {
			fmt.Fprintf(w, "    nobody had told of it; it is drawn on by %s\n", t)
		}
	}
}

// reportEmulator says what the independent witness saw.
func (r *bulkRun) reportEmulator(w io.Writer, counts queue.Counts) {
	if r.target.emulator == nil {
		return
	}
	fmt.Fprintf(w, "  %s\n", emulatorSaw(r.target.emulator.Report()))
}

func rowList(c *bulk.Cause) string {
	var b strings.Builder
	b.WriteString("row ")
	for i, n := range c.Rows {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(strconv.FormatInt(n, 10))
	}
	if c.Count > int64(len(c.Rows)) {
		b.WriteString(", …")
	}
	return b.String()
}

// short writes a duration with as many digits as one wants to read.
func short(d time.Duration) string {
	switch {
	case d >= time.Minute:
		return strings.TrimSuffix(d.Round(time.Second).String(), "0s")
	case d >= time.Second:
		return fmt.Sprintf("%.2f s", d.Seconds())
	}
	return fmt.Sprintf("%d ms", d.Milliseconds())
}

// number writes a float without needless digits.
func number(f float64) string {
	return strconv.FormatFloat(math.Round(f*1000)/1000, 'f', -1, 64)
}

func plural(n int64, word string) string {
	if n == 1 {
		return "1 " + word
	}
	return fmt.Sprintf("%d %ss", n, word)
}

// have writes "4 rows have", of which n are meant.
func have(n, rows int64) string {
	verb := "have"
	if n == 1 {
		verb = "has"
	}
	return plural(rows, "row") + " " + verb
}

// are writes a number of rows with its verb.
func are(rows int64) string {
	if rows == 1 {
		return "1 row is"
	}
	return fmt.Sprintf("%d rows are", rows)
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && isatty.IsTerminal(f.Fd())
}

func isLogin(err error) bool {
	var login *genesys.LoginError
	return errors.As(err, &login)
}
