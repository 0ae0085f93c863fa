package sqlite

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/headgate/headgate/internal/queue"
)

// childEnv holds the journal's path in the process that is to be killed.
const childEnv = "HEADGATE_TEST_CRASH"

func TestMain(m *testing.M) {
	if path := os.Getenv(childEnv); path != "" {
		if err := crashChild(path, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// crashChild works on the journal until it is killed, and says on out what was
// acknowledged: "ID state permit key", one line each, written after the fact;
// the permit is 0 and the key "-" where there is none.
func crashChild(path string, out io.Writer) error {
	var permits atomic.Int64
	s, err := Open(path, Options{
		Reserve: 4096,
		softWAL: 64 << 10, hardWAL: 256 << 10, // so that checkpoints are killed too
		Limiter: func() []byte { return strconv.AppendInt(nil, permits.Load(), 10) },
	})
	if err != nil {
		return err
	}
	ctx := context.Background()
	v, err := s.Meta(ctx, MetaLimiter)
	if err != nil {
		return err
	}
	if v != nil {
		n, err := strconv.ParseInt(string(v), 10, 64)
		if err != nil {
			return err
		}
		permits.Store(n)
	}
	if _, err := queue.Recover(ctx, s, queue.AtLeastOnce, time.Now()); err != nil {
		return err
	}
	var mu sync.Mutex
	say := func(id int64, state queue.State, permit int64, key string) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Fprintf(out, "%d %d %d %s\n", id, state, permit, key)
	}
	fatal := make(chan error, 1)
	for range 4 {
		go func() {
			for {
				xs := make([]queue.Execution, 1+rand.IntN(5))
				for i := range xs {
					xs[i] = queue.Execution{Method: "POST", Path: "/", Body: bytes.Repeat([]byte("x"), rand.IntN(3000))}
					xs[i].Body = append(xs[i].Body, fmt.Sprint(len(xs[i].Body))...)
					xs[i].Caller = crashCallers[rand.IntN(len(crashCallers))]
					// Some come again, here or in the process after the kill.
					xs[i].Key = fmt.Sprint(rand.IntN(5000))
				}
				if err := s.Add(ctx, xs); err != nil {
					fatal <- err
					return
				}
				for _, x := range xs {
					say(x.ID, queue.Queued, 0, x.Caller+"/"+x.Key)
				}
			}
		}()
		go func() {
			for {
				xs, err := s.Claim(ctx, time.Now(), 3)
				if err != nil {
					fatal <- err
					return
				}
				for _, x := range xs {
					say(x.ID, queue.Claimed, 0, "-")
					permit := permits.Add(1)
					for _, u := range []queue.Update{
						{ID: x.ID, From: queue.Claimed, To: queue.Sent, Tally: queue.Tally{Sent: x.Tally.Sent + 1}},
						{ID: x.ID, From: queue.Sent, To: queue.Done, At: time.Now(), Answer: []byte("ok"),
							Tally: queue.Tally{Sent: x.Tally.Sent + 1}},
					} {
						if err := s.Update(ctx, u); err != nil {
							fatal <- err
							return
						}
						say(x.ID, u.To, permit, "-")
					}
				}
			}
		}()
	}
	return <-fatal
}

// crashCallers are those whose keys must not be confused.
var crashCallers = []string{"a", "b"}

// TestKill kills a process that works on a journal, again and again, and looks
// each time whether all that it was told is there.
func TestKill(t *testing.T) {
	rounds := 30
	if testing.Short() {
		rounds = 8
	}
	self, err := os.Executable()
	must(t, err)
	path := filepath.Join(t.TempDir(), "journal")
	acknowledged, keys := map[int64]queue.State{}, map[string]int64{}
	total := 0
	for round := range rounds {
		cmd := exec.Command(self)
		cmd.Env = append(os.Environ(), childEnv+"="+path)
		var stderr strings.Builder
		cmd.Stderr = &stderr
		out, err := cmd.StdoutPipe()
		must(t, err)
		must(t, cmd.Start())

		// The child goes on while we count, so the moment is anybody's.
		after := 1 + rand.IntN(600)
		lines, permit := 0, int64(0)
		in := bufio.NewScanner(out)
		for in.Scan() {
			var id, p int64
			var state queue.State
			var key string
			if _, err := fmt.Sscan(in.Text(), &id, (*int)(&state), &p, &key); err != nil || !strings.Contains(key, "/") && key != "-" {
				if lines < after {
					t.Fatalf("round %d: the child said %q", round, in.Text())
				}
				break // cut off by the kill
			}
			// Claimed may be told late and be Queued again meanwhile: only
			// what goes on for good is compared.
			if old, ok := acknowledged[id]; !ok || state > old {
				acknowledged[id] = state
			}
			if old, ok := keys[key]; key != "-" && ok && old != id {
				t.Errorf("round %d: the key %s was %d and is now %d", round, key, old, id)
			}
			if key != "-" {
				keys[key] = id
			}
			permit = max(permit, p)
			if lines++; lines == after {
				if round == 0 {
					if _, err := Open(path, small); !errors.Is(err, ErrLocked) {
						t.Errorf("Open while another process works on it: got %v, want %v", err, ErrLocked)
					}
				}
				must(t, cmd.Process.Kill())
			}
		}
		if err := cmd.Wait(); lines < after {
			t.Fatalf("round %d: the child ended by itself: %v\n%s", round, err, stderr.String())
		}
		total += lines
		checkAfterKill(t, path, acknowledged, keys, permit)
		if t.Failed() {
			t.Fatalf("round %d, killed after %d lines", round, lines)
		}
	}
	t.Logf("%d kills, %d acknowledgements, %d executions, %d keys", rounds, total, len(acknowledged), len(keys))
}

func checkAfterKill(t *testing.T, path string, acknowledged map[int64]queue.State, keys map[string]int64, permit int64) {
	t.Helper()
	s, err := Open(path, small)
	must(t, err)
	defer func() { must(t, s.Close()) }()
	var counts queue.Counts
	var last int64
	for x, err := range s.Each(t.Context(), queue.Filter{}) {
		must(t, err)
		if x.ID != last+1 {
			t.Errorf("after %d comes %d", last, x.ID)
		}
		last = x.ID
		counts[x.State]++
		if n := strings.TrimLeft(string(x.Body), "x"); strconv.Itoa(len(x.Body)-len(n)) != n {
			t.Errorf("the body of %d is damaged", x.ID)
		}
		switch want, ok := acknowledged[x.ID]; {
		case ok && want == queue.Done && x.State != queue.Done:
			t.Errorf("%d was acknowledged as done and is %v", x.ID, x.State)
		case ok && want == queue.Sent && x.Tally.Sent == 0:
			t.Errorf("%d was acknowledged as sent and knows nothing of it: %+v", x.ID, x)
		case x.State == queue.Done && string(x.Answer) != "ok":
			t.Errorf("%d is done and has no answer", x.ID)
		}
		acknowledged[x.ID] = x.State // what is there must stay
	}
	for id := range acknowledged {
		if id > last {
			t.Errorf("%d was acknowledged and is gone", id)
		}
	}
	got, err := s.Counts(t.Context())
	if err != nil || got != counts {
		t.Errorf("Counts: got %v, %v, want %v", got, err, counts)
	}
	checkKeysAfterKill(t, s, keys)
	v, err := s.Meta(t.Context(), MetaLimiter)
	if n, _ := strconv.ParseInt(string(v), 10, 64); err != nil || n < permit {
		t.Errorf("the limiter's state is %q, %v; permit %d was used", v, err, permit)
	}
	var result string
	must(t, s.read.QueryRow("PRAGMA integrity_check").Scan(&result))
	if result != "ok" {
		t.Errorf("integrity_check: %s", result)
	}
}

// checkKeysAfterKill adds every key that was acknowledged once more, and looks
// whether what each caller has open is what was counted.
func checkKeysAfterKill(t *testing.T, s *Store, keys map[string]int64) {
	t.Helper()
	open := map[string]queue.Load{}
	for x, err := range s.Each(t.Context(), queue.Filter{}) {
		must(t, err)
		if !x.State.Ended() {
			l := open[x.Caller]
			l.Rows++
			l.Bytes += int64(len(x.Body))
			open[x.Caller] = l
		}
	}
	if load, err := s.Load(t.Context()); err != nil || !maps.Equal(load, open) {
		t.Errorf("Load: got %v, %v, want %v", load, err, open)
	}
	var xs []queue.Execution
	for name := range keys {
		caller, key, _ := strings.Cut(name, "/")
		xs = append(xs, queue.Execution{Caller: caller, Key: key})
	}
	before, err := s.Counts(t.Context())
	must(t, err)
	must(t, s.Add(t.Context(), xs))
	for _, x := range xs {
		if want := keys[x.Caller+"/"+x.Key]; x.ID != want || !x.Existing {
			t.Errorf("key %s of %s was acknowledged as %d, and added again it is %d (existing: %v)", x.Key, x.Caller, want, x.ID, x.Existing)
		}
	}
	if after, err := s.Counts(t.Context()); err != nil || after != before {
		t.Errorf("adding what is there changed %v to %v, %v", before, after, err)
	}
}
