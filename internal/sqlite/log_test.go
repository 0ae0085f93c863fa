package sqlite

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/headgate/headgate/internal/queue"
)

// While a commit is on its way to the disk, nobody hears of it: neither who asked
// for it nor who looks.
func TestNothingIsToldBeforeItIsOnDisk(t *testing.T) {
	var slow atomic.Bool
	syncing, release := make(chan struct{}), make(chan struct{})
	s := mustOpen(t, filepath.Join(t.TempDir(), "journal"), Options{Reserve: -1, syncLog: func(f *os.File) error {
		if slow.Load() {
			syncing <- struct{}{}
			<-release
		}
		return syncData(f)
	}})
	slow.Store(true)
	var asking sync.WaitGroup
	var released atomic.Bool
	ask := func(what string, f func() error) {
		asking.Go(func() {
			if err := f(); err != nil {
				t.Errorf("%s: %v", what, err)
			}
			if !released.Load() {
				t.Errorf("%s told of what is not on the disk", what)
			}
		})
	}
	ask("AddNoted", func() error { return s.AddNoted(t.Context(), make([]queue.Execution, 1), "note.") })
	<-syncing
	slow.Store(false)
	ask("Get", func() error { _, err := s.Get(t.Context(), 1); return err })
	ask("Each", func() (err error) {
		for _, err = range s.Each(t.Context(), queue.Filter{}) {
		}
		return err
	})
	ask("EndedNotes", func() error { _, err := s.EndedNotes(t.Context(), "note.", 0, 1); return err })
	time.Sleep(100 * time.Millisecond)
	released.Store(true)
	close(release)
	asking.Wait()
}

// What has been answered survives a power cut: it is in what was on disk when the
// answer came, through checkpoints and new beginnings of the log.
func TestPowerCut(t *testing.T) {
	dir := t.TempDir()
	path, disk := filepath.Join(dir, "journal"), filepath.Join(dir, "disk")
	syncs := 0
	s := mustOpen(t, path, Options{Reserve: -1, softWAL: 32 << 10, hardWAL: 64 << 10, syncLog: func(*os.File) error {
		syncs++
		for _, end := range []string{"", "-wal"} {
			if err := copyFile(disk+end, path+end); err != nil {
				return err
			}
		}
		return nil
	}})
	for id := int64(1); id <= 60; id++ {
		must(t, s.Add(t.Context(), []queue.Execution{{Body: make([]byte, 4000)}}))
		if id%5 != 0 {
			continue
		}
		after := filepath.Join(dir, "after")
		for _, end := range []string{"", "-wal"} {
			must(t, copyFile(after+end, disk+end))
		}
		cut := mustOpen(t, after, Options{Reserve: -1})
		counts, err := cut.Counts(t.Context())
		must(t, err)
		x, err := cut.Get(t.Context(), id)
		if err != nil || len(x.Body) != 4000 || counts[queue.Queued] != id {
			t.Fatalf("after a power cut: execution %d: %v, %d bytes; %d of %d", id, err, len(x.Body), counts[queue.Queued], id)
		}
		must(t, cut.Close())
	}
	if syncs != 60 {
		t.Errorf("%d syncs for 60 transactions", syncs)
	}
}

func copyFile(to, from string) error {
	r, err := os.Open(from)
	if err != nil {
		return err
	}
	defer r.Close()
	w, err := os.Create(to)
	if err != nil {
		return err
	}
	_, err = io.Copy(w, r)
	return errors.Join(err, w.Close())
}

// After a sync that failed nothing is certain any more, and a sync that succeeds
// afterwards makes nothing certain again.
func TestSyncFails(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	broken := errors.New("the disk is broken")
	fail := false
	s := mustOpen(t, path, Options{syncLog: func(*os.File) error {
		if fail {
			fail = false
			return broken
		}
		return nil
	}})
	add := func() error { return s.Add(t.Context(), make([]queue.Execution, 1)) }
	must(t, add())
	fail = true
	if err := add(); !errors.Is(err, ErrLost) || !errors.Is(err, broken) {
		t.Errorf("got %v, want %v", err, ErrLost)
	}
	for what, err := range map[string]error{
		"Add": add(),
		"Get": func() error { _, err := s.Get(t.Context(), 1); return err }(),
		"Each": func() (err error) {
			for _, err = range s.Each(t.Context(), queue.Filter{}) {
			}
			return err
		}(),
		"EndedNotes": func() error { _, err := s.EndedNotes(t.Context(), "", 0, 1); return err }(),
		"Claim":      func() error { _, err := s.Claim(t.Context(), time.Now(), 1); return err }(),
	} {
		if !errors.Is(err, ErrLost) {
			t.Errorf("%s afterwards: got %v, want %v", what, err, ErrLost)
		}
	}
	must(t, s.Close())
	s = mustOpen(t, path, Options{})
	if _, err := s.Get(t.Context(), 1); err != nil {
		t.Errorf("what was on the disk before: %v", err)
	}
	must(t, add())
}
