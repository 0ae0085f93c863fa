package sqlite

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/headgate/headgate/internal/queue"
)

// hold keeps the writer in a transaction until the function that it returns is
// called: meanwhile operations gather.
func hold(t *testing.T, s *Store) (release func()) {
	t.Helper()
	entered, gate := make(chan struct{}), make(chan struct{})
	go s.w.do(context.Background(), &op{run: func(*transaction) error {
		close(entered)
		<-gate
		return nil
	}})
	<-entered
	release = sync.OnceFunc(func() { close(gate) })
	t.Cleanup(release) // before the store's Close
	return release
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); {
		if time.Now().After(end) {
			t.Fatalf("waiting in vain until %s", what)
		}
		<-time.After(time.Millisecond)
	}
}

func (w *writer) inLine() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.waiting)
}

// Operations that gather go together, and each succeeds or fails on its own.
func TestBatchedTogether(t *testing.T) {
	var limiter int
	s := mustOpen(t, filepath.Join(t.TempDir(), "journal"), Options{Reserve: -1, Limiter: func() []byte {
		limiter++
		return fmt.Appendf(nil, "%d", limiter)
	}})
	must(t, s.Add(t.Context(), make([]queue.Execution, 100)))
	if _, err := s.Claim(t.Context(), time.Now(), 50); err != nil {
		t.Fatal(err)
	}
	if v, err := s.Meta(t.Context(), MetaLimiter); v != nil || err != nil {
		t.Errorf("the limiter's state is %q, %v before anything was sent", v, err)
	}

	release := hold(t, s)
	var wg sync.WaitGroup
	errs := make([]error, 100)
	for i := range errs {
		wg.Go(func() {
			errs[i] = s.Update(t.Context(), queue.Update{ID: int64(i) + 1, From: queue.Claimed, To: queue.Sent})
		})
	}
	var poison error
	wg.Go(func() {
		// SQLite refuses this one.
		poison = s.w.do(t.Context(), &op{run: func(*transaction) error {
			_, err := s.w.conn.ExecContext(t.Context(), "INSERT INTO total VALUES (0, 0)") // 0 is taken
			return err
		}})
	})
	waitFor(t, "all are in line", func() bool { return s.w.inLine() == 101 })
	release()
	wg.Wait()
	for i, err := range errs {
		if i < 50 && err != nil {
			t.Errorf("update %d: %v", i+1, err)
		}
		if i >= 50 && !errors.Is(err, queue.ErrStale) {
			t.Errorf("update %d: got %v, want %v", i+1, err, queue.ErrStale)
		}
	}
	if poison == nil || !strings.Contains(poison.Error(), "UNIQUE") {
		t.Errorf("the poisoned operation got %v", poison)
	}
	c, err := s.Counts(t.Context())
	if want := (queue.Counts{queue.Queued: 50, queue.Sent: 50}); c != want || err != nil {
		t.Errorf("Counts: got %v, %v, want %v", c, err, want)
	}
	v, err := s.Meta(t.Context(), MetaLimiter)
	if err != nil || string(v) != fmt.Sprint(limiter) || limiter == 0 {
		t.Errorf("the limiter's state is %q, %v, want %d", v, err, limiter)
	}
}

// The limiter's state is asked once for each transaction in which something is
// sent or has come back from the server, and not for others.
func TestLimiterState(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	var calls int
	s := mustOpen(t, path, Options{Reserve: -1, Limiter: func() []byte { calls++; return fmt.Appendf(nil, "state %d", calls) }})
	must(t, s.Add(t.Context(), make([]queue.Execution, 64)))
	if _, err := s.Claim(t.Context(), time.Now(), 64); err != nil {
		t.Fatal(err)
	}
	release := hold(t, s)
	var wg sync.WaitGroup
	for id := int64(1); id <= 64; id++ {
		wg.Go(func() { s.Update(t.Context(), queue.Update{ID: id, From: queue.Claimed, To: queue.Sent}) })
	}
	// One that fails does not tear the others apart.
	wg.Go(func() { s.Update(t.Context(), queue.Update{ID: 99, From: queue.Claimed, To: queue.Sent}) })
	waitFor(t, "all have gathered", func() bool { return s.w.inLine() == 65 })
	release()
	wg.Wait()
	if calls != 1 {
		t.Errorf("asked %d times for one transaction", calls)
	}
	stored := func(want int) {
		t.Helper()
		if v, err := s.Meta(t.Context(), MetaLimiter); err != nil || string(v) != fmt.Sprintf("state %d", want) {
			t.Errorf("the limiter's state is %q, %v, want that of call %d", v, err, want)
		}
	}
	stored(1)
	// An answer may have closed a gate, and then nothing is sent for long.
	must(t, s.Update(t.Context(), queue.Update{ID: 1, From: queue.Sent, To: queue.Queued}))
	stored(2)
	must(t, s.Update(t.Context(), queue.Update{ID: 2, From: queue.Sent, To: queue.Done}))
	stored(3)
	// So may the answer to a poll.
	must(t, s.Add(t.Context(), make([]queue.Execution, 1)))
	if _, err := s.Claim(t.Context(), time.Now(), 2); err != nil {
		t.Fatal(err)
	}
	must(t, s.SetMeta(t.Context(), "other", []byte("x")))
	stored(3)
	must(t, s.Update(t.Context(), queue.Update{ID: 65, From: queue.Claimed, To: queue.Queued}))
	stored(4)
	// And what nothing in the journal came of, such as a refused login.
	must(t, s.Close())
	s = mustOpen(t, path, small)
	stored(5)
	if calls != 5 {
		t.Errorf("asked %d times", calls)
	}
}

// Who knows nothing of the limits leaves what is stored as it is.
func TestLimiterStateOfNobody(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	s := mustOpen(t, path, Options{Reserve: -1, Limiter: func() []byte { return []byte("known") }})
	must(t, s.Close())
	s = mustOpen(t, path, Options{Reserve: -1, Limiter: func() []byte { return nil }})
	must(t, s.Add(t.Context(), make([]queue.Execution, 1)))
	must(t, s.Close())
	s = mustOpen(t, path, small)
	if v, err := s.Meta(t.Context(), MetaLimiter); err != nil || string(v) != "known" {
		t.Errorf("the limiter's state is %q, %v", v, err)
	}
}

// A context ends the wait for a turn, and then nothing was changed.
func TestContextWhileWaiting(t *testing.T) {
	s := mustOpen(t, filepath.Join(t.TempDir(), "journal"), small)
	release := hold(t, s)
	first := make(chan error, 1)
	go func() { first <- s.Add(t.Context(), make([]queue.Execution, 1)) }()
	waitFor(t, "the first is in line", func() bool { return s.w.inLine() == 1 })
	ctx, cancel := context.WithCancel(t.Context())
	errs := make(chan error, 2)
	go func() { errs <- s.Add(ctx, make([]queue.Execution, 1)) }()
	go func() { _, err := s.Claim(ctx, time.Now(), 1); errs <- err }()
	waitFor(t, "both are in line", func() bool { return s.w.inLine() == 3 })
	cancel()
	for range 2 {
		if err := <-errs; !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want %v", err, context.Canceled)
		}
	}
	release()
	must(t, <-first)
	c, err := s.Counts(t.Context())
	if want := (queue.Counts{queue.Queued: 1}); c != want || err != nil {
		t.Errorf("Counts: got %v, %v, want %v", c, err, want)
	}
}

// The log starts anew: while writing and reading go on it does not grow past
// its bound, and Close leaves none.
func TestWALBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	const soft, hard = 128 << 10, 512 << 10
	s := mustOpen(t, path, Options{Reserve: -1, softWAL: soft, hardWAL: hard})
	stop := make(chan struct{})
	var readers sync.WaitGroup
	readers.Go(func() {
		for {
			for _, err := range s.Each(t.Context(), queue.Filter{}) {
				if err != nil {
					t.Errorf("Each: %v", err)
				}
			}
			select {
			case <-stop:
				return
			default:
			}
		}
	})
	var writers sync.WaitGroup
	var mu sync.Mutex
	var written, most int64
	for range 8 {
		writers.Go(func() {
			for range 100 {
				x := queue.Execution{Body: make([]byte, 6000)}
				must(t, s.Add(t.Context(), []queue.Execution{x}))
				mu.Lock()
				written += 6000
				if info, err := os.Stat(path + "-wal"); err == nil {
					most = max(most, info.Size())
				}
				mu.Unlock()
			}
		})
	}
	writers.Wait()
	close(stop)
	readers.Wait()
	if most < soft {
		t.Errorf("the log never grew beyond %d: this test tests nothing", most)
	}
	// The bound begins the remedy; what is written until it takes effect is
	// some transactions.
	t.Logf("the log grew to %d of %d written", most, written)
	if most > 4*hard {
		t.Errorf("the log grew to %d of %d written, want about %d", most, written, hard)
	}
	must(t, s.Close())
	if info, err := os.Stat(path + "-wal"); err == nil && info.Size() > 0 {
		t.Errorf("Close left a log of %d bytes", info.Size())
	}
}
