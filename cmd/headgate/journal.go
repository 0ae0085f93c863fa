package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/headgate/headgate"
	"github.com/headgate/headgate/internal/bulk"
	"github.com/headgate/headgate/internal/queue"
	"github.com/headgate/headgate/internal/sqlite"
)

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
