package sqlite

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/headgate/headgate/internal/queue"
	"github.com/headgate/headgate/internal/queue/queuetest"
)

// Not the default reserve: the suite opens hundreds of stores.
var small = Options{Reserve: 4096}

func TestStore(t *testing.T) {
	queuetest.Run(t, func(tb testing.TB, dir string) queue.Store {
		tb.Helper()
		s, err := Open(filepath.Join(dir, "journal"), small)
		if err != nil {
			tb.Fatalf("Open: %v", err)
		}
		return s
	})
}

// How many are ahead is right through all that can happen to an execution, and
// after a restart.
func TestAhead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	s := mustOpen(t, path, small)
	check := func(what string, want [4]int64) {
		t.Helper()
		for range 2 {
			var got [4]int64
			for p := range got {
				got[p] = s.Ahead(p)
			}
			if all, own := s.LoadOf(""); all.Rows != want[3] || own != all {
				t.Errorf("%s: all callers have %v open, the only one %v, want %d", what, all, own, want[3])
			}
			if got != want {
				t.Errorf("%s: %v are ahead of priorities 0 to 3, want %v", what, got, want)
			}
			must(t, s.Close())
			s = mustOpen(t, path, small)
		}
	}
	now := time.Now()
	must(t, s.Add(t.Context(), []queue.Execution{
		{Priority: 1}, {Priority: 1, Key: "a"}, {Priority: 3}, {Priority: 3, Due: now.Add(time.Hour)},
		{Priority: 3, State: queue.Done}, {Priority: 1, Key: "a"},
	}))
	check("queued", [4]int64{0, 2, 2, 4})
	_, err := s.Claim(t.Context(), now, 1)
	must(t, err)
	check("claimed", [4]int64{0, 2, 2, 4})
	must(t, s.Update(t.Context(), queue.Update{ID: 1, From: queue.Claimed, To: queue.Sent, At: now}))
	check("sent", [4]int64{0, 2, 2, 4})
	must(t, s.Update(t.Context(), queue.Update{ID: 1, From: queue.Sent, To: queue.Unknown, At: now}))
	check("unknown", [4]int64{0, 1, 1, 3})
	must(t, s.Update(t.Context(), queue.Update{ID: 1, From: queue.Unknown, To: queue.Queued, At: now}))
	check("resolved", [4]int64{0, 2, 2, 4})
	must(t, s.Update(t.Context(), queue.Update{ID: 4, From: queue.Queued, To: queue.Expired, At: now}))
	check("expired", [4]int64{0, 2, 2, 3})
}
