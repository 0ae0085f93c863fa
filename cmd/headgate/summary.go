package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/mattn/go-isatty"

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
			return &exitError{exitNotAllDone, fmt.Errorf("writing the results: %w\nevery row has its outcome in %s: the same command writes them", cerr, r.journal)}
		}
	}
	r.report(summary, counts)
	switch {
	case err != nil:
		return r.stopped(err, open)
	case open > 0:
		fmt.Fprintf(r.stderr, "interrupted: %d of %d rows have no outcome yet\n%s", open, counts.Total(), r.howToGoOn())
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
	return &exitError{code, fmt.Errorf("%w\n%d rows have no outcome yet and nothing is lost\n%s", err, open, strings.TrimSuffix(r.howToGoOn(), "\n"))}
}

func (r *bulkRun) howToGoOn() string {
	switch {
	case r.flags.emulator && r.temporary:
		r.removeJournal()
		return "(the emulator and its journal are gone)\n"
	case r.temporary:
		return fmt.Sprintf("to go on, give the same input again, with --journal %s\n", r.journal)
	}
	return "to go on, give the same command again\n"
}

// report writes the summary.
func (r *bulkRun) report(s *bulk.Summary, counts queue.Counts) {
	w := r.stderr
	fmt.Fprintf(w, "%d rows: %d done", counts.Total(), counts[queue.Done])
	for _, state := range []queue.State{queue.Failed, queue.Expired, queue.Unknown} {
		if counts[state] > 0 {
			fmt.Fprintf(w, ", %d %v", counts[state], state)
		}
	}
	if counts.Open() > 0 {
		fmt.Fprintf(w, ", %d open", counts.Open())
	}
	fmt.Fprintln(w)
	for i, c := range s.Causes() {
		if i == 10 {
			fmt.Fprintf(w, "  and other causes; the results name them\n")
			break
		}
		fmt.Fprintf(w, "  %d %v: %s (%s)\n", c.Count, c.Outcome, c.Reason, rowList(c))
	}
	if s.MaybeTwice > 0 {
		fmt.Fprintf(w, "  %d done rows may have been executed more than once: maybeExecuted in the results\n", s.MaybeTwice)
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
	fmt.Fprintf(w, "  %d requests in %s: %d refused (429), %d sent again, %s\n",
		m.Sent(), short(m.Span()), m.Refused(), m.Retried(), plural(m.Logins(), "login"))
	limit, known := r.flags.tokenLimit()
	if !known || m.Accepted() == 0 {
		return
	}
	// The last answer takes its time after the last permit.
	best := time.Duration(max(0, float64(m.Accepted())-limit.Burst) / limit.Rate * float64(time.Second))
	fmt.Fprintf(w, "  the limit (burst %s, then %s/s) allows them ", number(limit.Burst), number(limit.Rate))
	switch {
	case best == 0:
		fmt.Fprintln(w, "at once")
	case best < time.Second:
		fmt.Fprintf(w, "in %s at best\n", short(best))
	default:
		fmt.Fprintf(w, "in %s at best: %.1f %% over it\n", short(best), 100*(m.Span().Seconds()/best.Seconds()-1))
	}
}

// reportEmulator says what the independent witness saw.
func (r *bulkRun) reportEmulator(w io.Writer, counts queue.Counts) {
	if r.target.emulator == nil {
		return
	}
	e := r.target.emulator.Report()
	fmt.Fprintf(w, "  the emulator saw: %d executed, %d doubled, %d refused, %d early, at most %d in any 100 ms\n",
		e.Executed, e.Doubled, e.Rejected, e.Early, e.Peak)
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

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && isatty.IsTerminal(f.Fd())
}

func isLogin(err error) bool {
	var login *genesys.LoginError
	return errors.As(err, &login)
}
