package sqlite

import (
	"errors"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/headgate/headgate/internal/queue"
)

// A note is there once its execution is, for those alone that were added, and is
// found once the execution has ended.
func TestNotes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	s := mustOpen(t, path, small)
	must(t, s.Add(t.Context(), make([]queue.Execution, 1)))
	must(t, s.AddNoted(t.Context(), []queue.Execution{{Key: "a"}, {}, {Key: "a"}, {}}, "note/"))
	must(t, s.AddNoted(t.Context(), []queue.Execution{{Key: "a"}}, "note/"))
	for id := range int64(12) {
		v, err := s.Meta(t.Context(), NoteKey("note/", id))
		if want := id >= 2 && id <= 4; err != nil || (v != nil) != want {
			t.Errorf("a note of %d: %v, %v", id, v, err)
		}
	}
	ended := func(after int64, n int) []int64 {
		t.Helper()
		ids, err := s.EndedNotes(t.Context(), "note/", after, n)
		must(t, err)
		return ids
	}
	if got := ended(0, 10); len(got) != 0 {
		t.Errorf("ended: %v, and all are queued", got)
	}
	for _, id := range []int64{1, 2, 4} {
		must(t, s.Update(t.Context(), queue.Update{ID: id, From: queue.Queued, To: queue.Expired, At: time.Now()}))
	}
	must(t, s.SetMeta(t.Context(), "note0", []byte{1}))
	must(t, s.SetMeta(t.Context(), NoteKey("note/", 99), []byte{1})) // pruned
	must(t, s.Close())
	s = mustOpen(t, path, small)
	if got := ended(0, 10); !slices.Equal(got, []int64{2, 4, 99}) {
		t.Errorf("ended: %v", got)
	}
	if got := ended(2, 1); !slices.Equal(got, []int64{4}) {
		t.Errorf("one after 2: %v", got)
	}
	must(t, s.SetMeta(t.Context(), NoteKey("note/", 2), nil))
	if got := ended(0, 10); !slices.Equal(got, []int64{4, 99}) {
		t.Errorf("without one that was forgotten: %v", got)
	}
	must(t, s.Close())
	if _, err := s.EndedNotes(t.Context(), "note/", 0, 1); !errors.Is(err, queue.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
	if err := s.AddNoted(t.Context(), make([]queue.Execution, 1), "note/"); !errors.Is(err, queue.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
}
