package sqlite

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/headgate/headgate/internal/queue"
)

// fillUp adds executions until there is no room, and returns how many.
func fillUp(t *testing.T, s *Store) (n int64) {
	t.Helper()
	for {
		xs := make([]queue.Execution, 10)
		for i := range xs {
			xs[i] = queue.Execution{Body: make([]byte, 2000)}
		}
		err := s.Add(t.Context(), xs)
		if err == nil {
			if n += 10; n > 1e6 {
				t.Fatal("there is no end to the room")
			}
			continue
		}
		if !errors.Is(err, queue.ErrFull) || !strings.Contains(err.Error(), s.path) {
			t.Fatalf("Add on a full disk: got %v, want %v and the path", err, queue.ErrFull)
		}
		for _, x := range xs {
			if x.ID != 0 {
				t.Error("an Add that failed gave an ID")
			}
		}
		return n
	}
}

// testFull is what must hold on a disk that runs full: what is in flight is
// recorded, nothing new is begun, nothing accepted is lost, and it goes on
// when there is room. Its store has 200 executions, 100 of them claimed. stays
// is false if the store may find more room by itself.
func testFull(t *testing.T, s *Store, stays bool, dropped func() bool, makeRoom func()) {
	t.Helper()
	accepted := 200 + fillUp(t, s)
	if !dropped() {
		t.Error("the reserve was not given back")
	}
	// Two records each for 100 in flight, one by one, as they come.
	for id := int64(1); id <= 100; id++ {
		must(t, s.Update(t.Context(), queue.Update{ID: id, From: queue.Claimed, To: queue.Sent, Tally: queue.Tally{Sent: 1}}))
		must(t, s.Update(t.Context(), queue.Update{ID: id, From: queue.Sent, To: queue.Done, At: time.Now(),
			Status: 200, Answer: make([]byte, 100)}))
	}
	must(t, s.SetMeta(t.Context(), "k", []byte("v")))
	if stays {
		if err := s.Add(t.Context(), make([]queue.Execution, 1)); !errors.Is(err, queue.ErrFull) {
			t.Errorf("Add: got %v, want %v", err, queue.ErrFull)
		}
		if xs, err := s.Claim(t.Context(), time.Now(), 1); !errors.Is(err, queue.ErrFull) || len(xs) > 0 {
			t.Errorf("Claim: got %v, %v, want %v", xs, err, queue.ErrFull)
		}
		if !dropped() {
			t.Error("a part of the reserve was left by an attempt to make it")
		}
	}
	want := queue.Counts{queue.Queued: accepted - 100, queue.Done: 100}
	check := func(s *Store) {
		t.Helper()
		var got queue.Counts
		for x, err := range s.Each(t.Context(), queue.Filter{}) {
			must(t, err)
			got[x.State]++
		}
		counts, err := s.Counts(t.Context())
		if got != want || counts != want || err != nil {
			t.Errorf("stored %v, counted %v, %v, want %v", got, counts, err, want)
		}
	}
	check(s)
	makeRoom()
	must(t, s.Add(t.Context(), make([]queue.Execution, 10)))
	want[queue.Queued] += 10
	xs, err := s.Claim(t.Context(), time.Now(), 10)
	if err != nil || len(xs) != 10 {
		t.Errorf("Claim with room again: got %d, %v", len(xs), err)
	}
	want[queue.Queued] -= 10
	want[queue.Claimed] += 10
	check(s)
	must(t, s.Close())
	s = mustOpen(t, s.path, small)
	check(s)
}

func prepareFull(t *testing.T, s *Store) {
	t.Helper()
	must(t, s.Add(t.Context(), make([]queue.Execution, 200)))
	if _, err := s.Claim(t.Context(), time.Now(), 100); err != nil {
		t.Fatal(err)
	}
}

// TestFull needs no disk that is full: SQLite may not make its file larger,
// and giving back the reserve allows it some more.
func TestFull(t *testing.T) {
	var s *Store
	limit := func(pages int) {
		_, err := s.w.conn.ExecContext(context.Background(), fmt.Sprintf("PRAGMA max_page_count=%d", pages))
		must(t, err)
	}
	dropped, full := false, true
	s = mustOpen(t, filepath.Join(t.TempDir(), "journal"), Options{
		afterDrop: func() { dropped = true; limit(600) },
		noReserve: func() error {
			if dropped && full {
				return fmt.Errorf("no reserve: %w", queue.ErrFull)
			}
			return nil
		},
	})
	prepareFull(t, s)
	limit(500)
	testFull(t, s, true, func() bool { return dropped }, func() { full = false; limit(1e6) })
}

// A disk that is full from the start opens all the same: what is there can be
// read, and recorded as far as it fits.
func TestOpenFull(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	s := mustOpen(t, path, small)
	prepareFull(t, s)
	must(t, s.Close())
	full := true
	s = mustOpen(t, path, Options{noReserve: func() error {
		if full {
			return queue.ErrFull
		}
		return nil
	}})
	must(t, s.Update(t.Context(), queue.Update{ID: 1, From: queue.Claimed, To: queue.Queued}))
	if err := s.Add(t.Context(), make([]queue.Execution, 1)); !errors.Is(err, queue.ErrFull) {
		t.Errorf("Add: got %v, want %v", err, queue.ErrFull)
	}
	full = false
	must(t, s.Add(t.Context(), make([]queue.Execution, 1)))
}

// Where there is no room for the reserve, no part of it stays.
func TestReserveWithoutRoom(t *testing.T) {
	dir := t.TempDir()
	r := reserve{path: filepath.Join(dir, "none", "x.reserve"), size: 1000}
	if err := r.make(); err == nil || r.held {
		t.Errorf("make in a folder that is not there: %v", err)
	}
	must(t, r.drop()) // nothing to drop is no error
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}
