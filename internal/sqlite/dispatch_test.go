package sqlite

import (
	"context"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/headgate/headgate/internal/queue"
)

// The dispatcher over the real store, in fake time: the disk takes none of it.
func TestDispatcher(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	synctest.Test(t, func(t *testing.T) {
		s, err := Open(path, small)
		must(t, err)
		defer func() { must(t, s.Close()) }()
		start := time.Now()
		xs := make([]queue.Execution, 300)
		xs[299].Due = start.Add(time.Hour)
		must(t, s.Add(t.Context(), xs))
		d := queue.Dispatcher{Store: s, Concurrency: 100, Send: func(ctx context.Context, x queue.Execution, leave func() error) (queue.Step, error) {
			if err := leave(); err != nil {
				return queue.Step{}, err
			}
			time.Sleep(time.Second)
			if x.ID <= 100 && x.Tally.Sent == 0 {
				return queue.Step{To: queue.Queued, Due: start.Add(time.Minute), Tally: x.Tally}, nil
			}
			return queue.Step{To: queue.Done, Tally: x.Tally}, nil
		}}
		must(t, d.Run(t.Context(), t.Context()))
		if got := time.Since(start); got != time.Hour+time.Second {
			t.Errorf("took %v, want %v", got, time.Hour+time.Second)
		}
		for x, err := range s.Each(t.Context(), queue.Filter{}) {
			must(t, err)
			want := 1
			if x.ID <= 100 {
				want = 2
			}
			if x.State != queue.Done || x.Tally.Sent != want {
				t.Errorf("ended as %+v", x)
			}
			if after := x.Ended.Sub(start); x.ID <= 100 && after != time.Minute+time.Second {
				t.Errorf("execution %d ended after %v", x.ID, after)
			}
		}
	})
}
