package main

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/headgate/headgate/internal/bulk"
	"github.com/headgate/headgate/internal/queue"
	"github.com/headgate/headgate/internal/sqlite"
)

// The summary of an interrupted run is of all rows that have an outcome, also
// those behind the first open one.
func TestSummaryOfInterruptedRun(t *testing.T) {
	store, err := sqlite.Open(filepath.Join(t.TempDir(), "j"), sqlite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	now := time.Now()
	err = store.Add(t.Context(), []queue.Execution{
		{Method: "POST", State: queue.Failed, Reason: "of row 1", Ended: now},
		{Method: "POST"},
		{Method: "POST", State: queue.Failed, Reason: "of row 3", Ended: now},
		{Method: "POST", State: queue.Done, Tally: queue.Tally{Sent: 2, Unanswered: 1}, Ended: now},
	})
	if err != nil {
		t.Fatal(err)
	}
	first := bulk.Results{Store: store, W: &bytes.Buffer{}}
	if err := first.Advance(t.Context()); err != nil {
		t.Fatal(err)
	}
	var talk bytes.Buffer
	r := bulkRun{process: &process{stderr: &talk}, flags: &runFlags{}, target: &target{}, store: store}
	err = r.conclude(&first.Summary, nil, plainWriter{&bytes.Buffer{}})
	if exit, ok := err.(*exitError); !ok || exit.code != exitInterrupted {
		t.Errorf("%v", err)
	}
	for _, want := range []string{"4 rows: 1 done, 2 failed, 1 open\n", "of row 1", "of row 3", "1 done row may have been executed more than once", "1 of 4 rows has no outcome yet"} {
		if !strings.Contains(talk.String(), want) {
			t.Errorf("it does not say %q:\n%s", want, talk.String())
		}
	}
}
