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
	"github.com/headgate/headgate/internal/deliver"
	"github.com/headgate/headgate/internal/progress"
	"github.com/headgate/headgate/internal/queue"
	"github.com/headgate/headgate/internal/sqlite"
)

// execute is `headgate run`.
func (p *process) execute(f *runFlags) error {
	if f.input != "-" {
		info, err := os.Stat(f.input)
		if err == nil && info.IsDir() {
			err = &os.PathError{Op: "open", Path: f.input, Err: errors.New("is a folder")}
		}
		if err != nil {
			return usage("%w", err)
		}
	}
	// Contexts apart: of taking new rows, and of those in flight.
	take, stop := context.WithCancel(context.Background())
	defer stop()
	do, abort := context.WithCancel(context.Background())
	defer abort()
	r := &bulkRun{process: p, flags: f, abort: abort, stop: stop, began: time.Now()}
	r.console.stderr = p.stderr
	work := func() error { return r.dryRun(take) }
	if !f.dryRun {
		remove, err := r.chooseJournal()
		if err != nil {
			return err
		}
		defer remove()
		journal := r.journal
		if r.temporary {
			journal = ""
		}
		if err := f.apart(p.stdin, p.stdout, journal, r.learnedPath()); err != nil {
			return err
		}
		work = func() error { return r.run(take, do) }
	}
	over := make(chan error, 1)
	go func() { over <- work() }()
	return r.attend(over)
}

// errInterrupted is the end of a run that was interrupted before it sent
// anything.
var errInterrupted = &exitError{exitInterrupted, errors.New("interrupted; nothing was sent")}

// patience is how long work that has nothing in flight may take to end by itself
// after the second signal.
const patience = 500 * time.Millisecond

// attend waits for the work to be over. The first signal stops the taking of
// rows, and whatever comes before it; the second gives up what is in flight.
// Work that still does not end then (its output may be blocked) is left behind.
func (r *bulkRun) attend(over <-chan error) error {
	for n := 1; ; n++ {
		select {
		case err := <-over:
			return err
		case <-r.signals:
		}
		r.notes.interrupted.Store(true)
		r.stop()
		if n == 1 {
			continue
		}
		r.abort()
		if n == 2 && r.inFlight() > 0 {
			continue
		}
		select {
		case err := <-over:
			return err
		case <-time.After(patience):
			return r.leave()
		}
	}
}

// inFlight returns how many rows are on the wire.
func (r *bulkRun) inFlight() int64 {
	store := r.sending.Load()
	if store == nil {
		return 0
	}
	counts, err := store.Counts(context.Background())
	if err != nil {
		return 0
	}
	return counts[queue.Sent]
}

// leave ends a run whose work goes on: nothing of it may be touched.
func (r *bulkRun) leave() error {
	if r.temporary && (r.sending.Load() == nil || r.useless()) {
		r.removeFiles()
	}
	if r.sending.Load() == nil {
		return errInterrupted
	}
	r.console.stop()
	return &exitError{exitInterrupted, fmt.Errorf("interrupted; nothing that was recorded is lost\n%s", r.goOn())}
}

// dryRun checks the input and says how long it would take.
func (r *bulkRun) dryRun(ctx context.Context) error {
	f := r.flags
	if f.region != "" {
		if _, err := genesys.LookupRegion(f.region); err != nil {
			return usage("%w", err)
		}
	}
	in, err := f.intake(nil)
	if err != nil {
		return err
	}
	input, err := r.open(ctx, f.input)
	if err != nil {
		return r.notFilled(ctx, err)
	}
	defer input.Close()
	job, err := in.Fill(ctx, input, nil)
	if err != nil {
		return r.notFilled(ctx, err)
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
	rows := job.Rows - job.Skipped - job.TooLarge
	forecast := l.Forecast(headgate.Ask{Path: "/api/"}, int(rows))
	fmt.Fprintf(r.stderr, "%s: %s good", f.inputName(), are(rows))
	if job.Skipped > 0 {
		fmt.Fprintf(r.stderr, ", %s bad and would be skipped", are(job.Skipped))
	}
	if job.TooLarge > 0 {
		fmt.Fprintf(r.stderr, ", %s too large (over %d bytes) and would fail unsent", are(job.TooLarge), bulk.DefaultMaxBody)
	}
	switch {
	case !forecast.Bounded:
		fmt.Fprintf(r.stderr, "\nNothing is told of the limit, so that nobody knows how long they take.\nNothing was sent.\n")
	default:
		fmt.Fprintf(r.stderr, "\nAt %s (%s) they take at least %s, plus the last answer.\nNothing was sent.\n",
			allows(limit), source, short(forecast.Wait))
	}
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
	temporary bool // the journal is our own and goes when all is done
	goesOn    bool // an earlier run has begun the journal
	store     *sqlite.Store
	sending   atomic.Pointer[sqlite.Store] // the store, from when rows are sent
	org       *genesys.Org
	meter     bulk.Meter
	began     time.Time
	console   console
	logger    *slog.Logger
	notes     notes
	partial   bool // the summary is not of all rows

	keepNothing bool // the file for what is learned can't be written
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

// run is the whole run, but for signals.
func (r *bulkRun) run(take, do context.Context) (err error) {
	defer r.close()
	defer func() {
		// Nothing was sent, and nobody could go on with what is left.
		if err != nil && r.temporary && r.sending.Load() == nil {
			r.removeJournal()
		}
	}()
	if r.target, err = r.flags.target(r.env); err != nil {
		return err
	}
	if r.intake, err = r.flags.intake(r.target); err != nil {
		return err
	}
	results, err := r.results(take)
	if err != nil {
		return err
	}
	defer results.Abort()
	r.logger = slog.New(slog.DiscardHandler)
	if r.flags.verbose {
		r.logger = slog.New(slog.NewTextHandler(&r.console, &slog.HandlerOptions{Level: slog.LevelDebug}))
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
	return r.dispatch(take, do, counts, recovered, results)
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
	config.Learn, config.Ceiling = f.learn, f.ceiling.perSecond()
	org, err := genesys.Connect(config)
	if err != nil {
		return usage("%w", err)
	}
	if err := r.restore(ctx, org.Limiter); err != nil {
		org.Close()
		return err
	}
	// From here on the journal keeps what this limiter knows.
	r.org = org
	if err := org.Login(ctx); err != nil {
		return r.notConnected(ctx, err)
	}
	if known {
		return nil
	}
	own, err := org.WithOwnLimits(ctx)
	if err != nil {
		var answered *genesys.APIError
		if !errors.As(err, &answered) {
			return r.notConnected(ctx, err)
		}
		fmt.Fprintf(r.stderr, "headgate: %v; going on with the published %d/min\n", err, genesys.TokenPerMinute)
	}
	r.org = own
	return nil
}

// notConnected returns what it leads to that the API can't be used.
func (r *bulkRun) notConnected(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return errInterrupted
	case r.temporary:
		err = fmt.Errorf("%w\nnothing was sent and no journal is kept: give the same input again", err)
	}
	return &exitError{exitUnreachable, err}
}

// failed is an error of the journal before anything is sent.
func (r *bulkRun) failed(err error) error {
	switch {
	case errors.Is(err, context.Canceled):
		return errInterrupted
	case r.goesOn:
		err = fmt.Errorf("%w\nnothing that was recorded is lost: the same command goes on", err)
	default:
		err = fmt.Errorf("%w\nnothing was sent", err)
	}
	return &exitError{exitNotAllDone, err}
}

// observe counts the events and logs them if that is wanted.
func (r *bulkRun) observe(e headgate.Event) {
	r.meter.Observe(e)
	if e.Kind == headgate.Retried && bulk.IsLogin(e) {
		fmt.Fprintf(&r.console, "headgate: logging in: %s; again in %s\n", cause(e), short(e.Wait))
	}
	if r.flags.verbose {
		r.logger.Debug(e.Kind.String(), slog.Any("", e))
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
func (r *bulkRun) dispatch(take, do context.Context, before queue.Counts, recovered queue.Recovered, results resultsFile) error {
	r.sending.Store(r.store)
	run := &bulk.Run{Began: r.began, Store: r.store, Sender: &deliver.Sender{}, Concurrency: r.flags.concurrency, Results: results, Meter: &r.meter}
	if r.org != nil { // else nothing is left to send
		run.Limiter = r.org.Limiter
		run.Ask = headgate.Ask{
			Org: cmp.Or(r.target.config.Org, hostOf(r.org.APIURL)), Client: r.target.config.Credentials.ClientID,
			Token: r.org.Tokens.Name(), Path: genesys.LaunchPath,
		}
		run.Sender = &deliver.Sender{Transport: r.org.Flows().Transport, APIURL: r.org.APIURL, Delivery: r.flags.delivery, Follow: r.flags.wait, Timeout: time.Duration(r.flags.timeout)}
		painter := r.paint(run)
		defer painter.Stop()
		stop := r.keepLearning()
		defer stop()
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
