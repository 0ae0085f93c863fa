package sqlite

import (
	"path/filepath"
	"testing"

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
