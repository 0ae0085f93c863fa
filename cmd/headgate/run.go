package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/headgate/headgate"
	"github.com/headgate/headgate/genesys"
	"github.com/headgate/headgate/internal/bulk"
	"github.com/headgate/headgate/internal/progress"
	"github.com/headgate/headgate/internal/queue"
	"github.com/headgate/headgate/internal/sqlite"
)

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
	console   console
	logger    *slog.Logger
	notes     notes
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
	r.console.stderr = r.stderr
	r.logger = slog.New(slog.DiscardHandler)
	if r.flags.verbose {
		r.logger = slog.New(slog.NewTextHandler(&r.console, nil))
	}
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
		fmt.Fprintf(&r.console, "headgate: logging in: %s; again in %s\n", cause(e), short(e.Wait))
	}
	if r.flags.verbose {
		r.logger.Info(e.Kind.String(), slog.Any("", e))
	}
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
	run := &bulk.Run{Store: r.store, Sender: &bulk.Sender{}, Concurrency: r.flags.concurrency, Results: results, Meter: &r.meter}
	if r.org != nil { // else nothing is left to send
		run.Limiter = r.org.Limiter
		run.Ask = headgate.Ask{
			Org: cmp.Or(r.target.config.Org, hostOf(r.org.APIURL)), Client: r.target.config.Credentials.ClientID,
			Token: r.org.Tokens.Name(), Path: genesys.LaunchPath,
		}
		run.Sender = &bulk.Sender{Transport: r.org.Flows().Transport, APIURL: r.org.APIURL, Delivery: r.flags.delivery, Follow: r.flags.wait}
		painter := r.paint(run)
		defer painter.Stop()
		if r.goesOn {
			painter.Println(resumed(before, recovered))
		}
	}
	summary, err := run.Do(take, do)
	r.console.stop()
	return r.conclude(summary, err, results)
}

// paint shows the progress until it is stopped.
func (r *bulkRun) paint(run *bulk.Run) *progress.Painter {
	mode, _ := progress.ParseMode(r.flags.progress) // checked before
	painter := progress.Start(progress.Config{W: r.stderr, Mode: mode, Snapshot: func() progress.Snapshot {
		s := run.Progress()
		s.Note = r.notes.text(s)
		return s
	}})
	r.console.painter.Store(painter)
	return painter
}

// console is where to talk to the user: above the progress, while there is one.
type console struct {
	stderr  io.Writer
	painter atomic.Pointer[progress.Painter]
}

// Write writes whole lines.
func (c *console) Write(b []byte) (int, error) {
	if p := c.painter.Load(); p != nil {
		return p.Write(b)
	}
	return c.stderr.Write(b)
}

// stop ends the progress.
func (c *console) stop() {
	if p := c.painter.Load(); p != nil {
		p.Stop()
	}
}

func hostOf(url string) string {
	_, host, _ := strings.Cut(url, "://")
	host, _, _ = strings.Cut(host, "/")
	return host
}
