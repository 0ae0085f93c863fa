package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/headgate/headgate"
	"github.com/headgate/headgate/internal/bulk"
	"github.com/headgate/headgate/internal/queue"
	"github.com/headgate/headgate/internal/sqlite"
)

// chooseJournal says where the journal is. The caller must call remove at the end
// of the run, however it ends.
func (r *bulkRun) chooseJournal() (remove func(), err error) {
	f := r.flags
	remove = func() {}
	switch {
	case f.journal != "":
		r.journal = f.journal
	case f.emulator:
		// The emulator forgets everything when the process ends.
		dir, err := os.MkdirTemp("", "headgate-")
		if err != nil {
			return nil, &exitError{exitNotAllDone, fmt.Errorf("making a folder for the journal: %w", err)}
		}
		r.temporary = true
		r.journal = filepath.Join(dir, "journal")
		remove = func() { os.RemoveAll(dir) }
	case f.input == "-":
		r.temporary = true
		r.journal = "headgate-" + time.Now().Format("20060102T150405-") + strings.ToLower(rand.Text()[:6]) + ".journal"
	default:
		r.journal = f.input + ".journal"
	}
	return remove, nil
}

// openJournal opens the journal and sees to it that it holds the input's rows.
func (r *bulkRun) openJournal(ctx context.Context) error {
	input, err := r.open(ctx, r.flags.input)
	if err != nil {
		return r.notFilled(ctx, err)
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
	if err := r.empty(ctx); err != nil {
		return err
	}
	if err := r.store.SetMeta(ctx, metaFilling, []byte("1")); err != nil {
		r.removeJournal()
		return r.notFilled(ctx, err)
	}
	if _, err := r.intake.Fill(ctx, input, r.store); err != nil {
		r.removeJournal()
		return r.notFilled(ctx, err)
	}
	return nil
}

// metaFilling is the key in a journal under which stands, from before the first
// row on, that a run fills it. It counts while there is no bulk.Job.
const metaFilling = "filling"

// empty makes a journal that was not filled ready to be. One that a run was
// filling when it ended is begun anew: nothing of it was sent. What holds
// anything else is none of ours.
func (r *bulkRun) empty(ctx context.Context) error {
	filling, err := r.store.Meta(ctx, metaFilling)
	if err != nil {
		return r.failed(err)
	}
	limiter, err := r.store.Meta(ctx, sqlite.MetaLimiter)
	if err != nil {
		return r.failed(err)
	}
	counts, err := r.store.Counts(ctx)
	switch {
	case err != nil:
		return r.failed(err)
	case filling == nil && (counts.Total() > 0 || limiter != nil):
		return usage("%s holds executions, but it is not the journal of a run: choose another --journal; nothing was sent or changed", r.journal)
	case counts.Total() > 0:
		r.removeJournal()
		return r.openStore()
	}
	return nil
}

// notFilled returns what an input that can't be used leads to.
func (r *bulkRun) notFilled(ctx context.Context, err error) error {
	var bad *bulk.BadInput
	switch {
	case ctx.Err() != nil:
		return errInterrupted
	case errors.As(err, &bad):
		return usage("%w\nnothing was sent; --skip-bad records bad rows as failed and goes on", bad)
	case errors.Is(err, queue.ErrFull):
		return &exitError{exitNotAllDone, fmt.Errorf("%w; nothing was sent", err)}
	}
	return usage("%w", err)
}

// lockPatience is how long a journal may stay locked by a run that is just
// ending: one that was killed holds its lock until the system is done with it.
const lockPatience = time.Second

func (r *bulkRun) openStore() error {
	store, err := sqlite.Open(r.journal, sqlite.Options{Limiter: r.limiterState})
	for until := time.Now().Add(lockPatience); errors.Is(err, sqlite.ErrLocked) && time.Now().Before(until); {
		time.Sleep(20 * time.Millisecond)
		store, err = sqlite.Open(r.journal, sqlite.Options{Limiter: r.limiterState})
	}
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

// removeJournal removes the journal, open or not.
func (r *bulkRun) removeJournal() {
	if r.store != nil {
		r.store.Close()
		r.store = nil
	}
	r.removeFiles()
}

func (r *bulkRun) removeFiles() {
	for _, suffix := range journalFiles {
		os.Remove(r.journal + suffix)
	}
}

// sameJob refuses a journal that was begun for something else.
func (r *bulkRun) sameJob(ctx context.Context, begun bulk.Job, input io.Reader) error {
	digest := bulk.NewDigest(input)
	if _, err := io.Copy(io.Discard, digest); ctx.Err() != nil {
		return errInterrupted
	} else if err != nil {
		return usage("reading %s: %w", r.flags.input, err)
	}
	want := bulk.Job{Content: digest.Fingerprint(), Target: r.target.name, Client: r.intake.Client, MaxWait: r.intake.MaxWait, Flow: r.flags.flow, Endpoint: r.flags.endpoint.String()}
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

// restore takes over what an earlier run of the journal had spent, and what others
// have learned.
func (r *bulkRun) restore(ctx context.Context, limiter *headgate.Limiter) error {
	state, err := r.store.Meta(ctx, sqlite.MetaLimiter)
	if err != nil {
		return r.failed(err)
	}
	var states []headgate.State
	if len(state) > 0 {
		if err := json.Unmarshal(state, &states); err != nil {
			fmt.Fprintf(r.stderr, "headgate: what the journal knows of the limits can't be read and is left out: %v\n", err)
			states = nil
		}
	}
	limiter.Restore(latest(states, r.loadLearned()))
	return nil
}
