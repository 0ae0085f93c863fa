package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/headgate/headgate/emulator"
	"github.com/headgate/headgate/internal/config"
	"github.com/headgate/headgate/internal/keys"
	"github.com/headgate/headgate/internal/sqlite"
)

// reloaded takes over a file with these orgs.
func (b *bench) reloaded(orgs ...config.Org) {
	b.t.Helper()
	f := *b.file
	f.Orgs = orgs
	must(b.t, b.g.Reload(&f))
}

// filled is an org with all that a file would fill in.
func (b *bench) filled(name string, change func(*config.Org)) config.Org {
	o := b.file.Orgs[0]
	o.Name, o.Path, o.Default = name, "/"+name, name == "acme"
	if change != nil {
		change(&o)
	}
	return o
}

// The file is read again and again under load: limits change, an org comes and
// goes, a caller's key changes; no call is dropped and none is lost.
func TestReloadUnderLoad(t *testing.T) {
	b := newBench(t, plan{emulator: emulator.Config{Limits: []emulator.Limit{{Rate: 300, Burst: 100}}, Latency: 10 * time.Millisecond}})
	ctx, stop := context.WithCancel(t.Context())
	var load sync.WaitGroup
	var n, lost, kept atomic.Int64
	for worker := range 16 {
		load.Go(func() {
			for ctx.Err() == nil {
				i := int(n.Add(1))
				if worker%4 == 0 {
					b.later(i)
					kept.Add(1)
				} else if a := b.do("POST", executePath, body(i)); a.status != 200 {
					t.Errorf("call %d: %d %s", i, a.status, a.body)
					lost.Add(1)
				}
			}
		})
	}
	old, _ := keys.New()
	key, hash := old, keys.HashOf(old)
	for i := range 12 {
		rate := []float64{150, 300}[i%2]
		orgs := []config.Org{b.filled("acme", func(o *config.Org) {
			o.Limits = append(o.Limits[:0:0], o.Limits...)
			o.Limits[0].Rate = rate
		})}
		if i%2 == 0 {
			orgs = append(orgs, b.filled("more", func(o *config.Org) {
				o.Callers = []config.Caller{o.Guest("crm")}
				o.Callers[0].Key = hash
			}))
		}
		b.reloaded(orgs...)
		switch a := b.do("GET", "/more/api/v2/organizations/limits/namespaces/flow.executions", "", "Headgate-Key: "+key); {
		case i%2 == 0 && (a.status == 401 || a.header.Get("Content-Type") == "application/problem+json"):
			t.Errorf("the new org's caller: %d %s", a.status, a.body)
		case i%2 == 1 && a.status != 404:
			t.Errorf("the org that has gone: %d %s", a.status, a.body)
		}
		if i%2 == 0 && i > 0 {
			if a := b.do("GET", "/more/api/v2/users/me", "", "Headgate-Key: "+old); a.status != 401 {
				t.Errorf("the key of before: %d %s", a.status, a.body)
			}
		}
		if i%2 == 1 {
			key, hash = keys.New()
		}
		time.Sleep(100 * time.Millisecond)
	}
	stop()
	load.Wait()
	wait(t, "all to be done", func() bool { return b.g.setting().orgs[0].status().Queue.Done == kept.Load() })
	if r := b.emulator.Report(); r.Executed != n.Load() || r.Doubled != 0 {
		t.Errorf("%d executed, %d doubled, of %d", r.Executed, r.Doubled, n.Load())
	}
}

// An org that a file does not name any more lets what is held go on and keeps
// what is queued. Named again it goes on with it: while it was about to leave,
// and when it has gone.
func TestOrgComesBack(t *testing.T) {
	b := newBench(t, plan{})
	acme := b.filled("acme", nil)
	more := b.filled("more", nil)
	b.reloaded(acme, more)
	o := b.g.setting().org("more")
	o.limiter.Pause()
	held := make(chan answerTo, 1)
	go func() { held <- b.do("POST", "/more"+executePath, body(1)) }()
	wait(t, "a call to be held", func() bool { return inLine(o) == 1 })
	for i := range 5 {
		if a := b.do("POST", "/more"+executePath, body(10+i), "Prefer: respond-async"); a.status != 202 {
			t.Fatalf("answered %d: %s", a.status, a.body)
		}
	}
	b.reloaded(acme)
	if a := b.do("POST", "/more"+executePath, body(2)); a.status != 404 {
		t.Errorf("an org that has gone: %d %s", a.status, a.body)
	}
	b.reloaded(acme, more) // it has not gone yet
	if b.g.setting().org("more") != o {
		t.Error("it was opened beside itself")
	}
	b.reloaded(acme)
	o.limiter.Resume()
	if a := <-held; a.status != 200 {
		t.Errorf("held: %d %s", a.status, a.body)
	}
	for range 20 { // while it goes, and when it has gone
		b.reloaded(acme, more)
		b.reloaded(acme)
	}
	b.reloaded(acme, more)
	wait(t, "what was queued to be done", func() bool { return b.g.setting().org("more").status().Queue.Done == 5 })
	if r := b.emulator.Report(); r.Executed != 6 || r.Doubled != 0 {
		t.Errorf("%d executed, %d doubled", r.Executed, r.Doubled)
	}
}

// SIGTERM under load: what is on the wire is answered, what is held is served
// within the drain time or told that it was not sent, what is queued stays and
// is executed by the next process.
func TestTerminate(t *testing.T) {
	srv, url := emulate(t, emulator.Config{Limits: []emulator.Limit{{Rate: 50, Burst: 10, Per: emulator.PerClient}}, Latency: 50 * time.Millisecond})
	s := serving{API: url, Address: freeAddress(t), Data: t.TempDir(), Rate: 50, Burst: 10, Drain: time.Second}
	base := "http://" + s.Address
	cmd := s.spawn(t)
	var promises []promise
	for n := range 40 {
		p, err := stubborn(t.Context(), base, promise{n: n}, "")
		must(t, err)
		promises = append(promises, p)
	}
	var crowd sync.WaitGroup
	var served, refused, broken atomic.Int64
	var mu sync.Mutex
	unsent := map[string]bool{}
	for n := range 200 {
		crowd.Go(func() {
			resp, err := client.Post(base+executePath, "application/json", strings.NewReader(body(1000+n)))
			if err != nil {
				broken.Add(1)
				mu.Lock()
				unsent[body(1000+n)] = true
				mu.Unlock()
				return
			}
			defer resp.Body.Close()
			text, _ := io.ReadAll(resp.Body)
			var p problem
			switch {
			case resp.StatusCode == 200:
				served.Add(1)
			case resp.StatusCode == 503 && json.Unmarshal(text, &p) == nil && strings.HasSuffix(p.Type, "draining"):
				refused.Add(1)
				mu.Lock()
				unsent[body(1000+n)] = true
				mu.Unlock()
			default:
				t.Errorf("held: %d %s", resp.StatusCode, text)
			}
		})
	}
	wait(t, "held calls to be served", func() bool {
		executed, n := executions(srv), 0
		for call := range 200 {
			n += executed[body(1000+call)]
		}
		return n > 5
	})
	start := time.Now()
	must(t, cmd.Process.Signal(syscall.SIGTERM))
	crowd.Wait()
	if err := cmd.Wait(); err != nil {
		t.Errorf("it ended with %v", err)
	}
	took := time.Since(start)
	executed := executions(srv)
	for call := range unsent {
		if executed[call] > 0 {
			t.Errorf("%s was executed, and its caller not told", call)
		}
	}
	t.Logf("ended after %v: %d served, %d told that they were not sent, %d found the door closed", took, served.Load(), refused.Load(), broken.Load())
	if served.Load() == 0 || refused.Load() == 0 || broken.Load() > 20 {
		t.Error("not what was to be shown")
	}
	if took > 10*time.Second {
		t.Errorf("took %v", took)
	}
	last := s.spawn(t)
	for _, p := range promises {
		wait(t, "the end of "+p.id, func() bool {
			v, ok := look(base, p.id)
			return ok && v.State == "done"
		})
	}
	must(t, last.Process.Signal(syscall.SIGTERM))
	must(t, last.Wait())
	executed = executions(srv)
	for _, p := range promises {
		if executed[body(p.n)] != 1 {
			t.Errorf("%s was executed %d times", p.id, executed[body(p.n)])
		}
	}
	if r := srv.Report(); r.Rejected > 1 || r.Early > 0 {
		t.Errorf("%d refused, %d early", r.Rejected, r.Early)
	}
}

// A gateway that was closed leaves no goroutine behind, however much it did.
func TestCloseLeavesNothing(t *testing.T) {
	hook := newReceiver(t)
	b := newBench(t, plan{change: hook.allow})
	b.end() // what all of them share is there now
	client.CloseIdleConnections()
	wait(t, "rest", func() bool { return runtime.NumGoroutine() < 40 })
	before := runtime.NumGoroutine()
	for range 3 {
		b.open(nil)
		b.reloaded(b.filled("acme", nil), b.filled("more", nil))
		for i := range 20 {
			b.later(i, "Headgate-Callback: "+hook.URL)
			b.do("POST", "/more"+executePath, body(100+i))
		}
		b.g.setting().orgs[0].limiter.Pause()
		b.later(50)
		b.reloaded(b.filled("acme", nil))
		b.end()
		client.CloseIdleConnections()
		b.api.CloseClientConnections()
		hook.CloseClientConnections()
	}
	defer func() {
		if t.Failed() {
			text := make([]byte, 1<<16)
			t.Logf("%s", text[:runtime.Stack(text, true)])
		}
	}()
	end := time.Now().Add(10 * time.Second)
	for runtime.NumGoroutine() > before+2 && time.Now().Before(end) {
		time.Sleep(10 * time.Millisecond)
	}
	if n := runtime.NumGoroutine(); n > before+2 {
		t.Errorf("%d goroutines, %d before", n, before)
	}
}

// What can't be opened is said, with what is wrong and where.
func TestOpenRefuses(t *testing.T) {
	b := newBench(t, plan{})
	if _, err := Open(Config{File: b.file}); !errors.Is(err, sqlite.ErrLocked) || !strings.Contains(err.Error(), "another gateway") || !strings.Contains(err.Error(), b.file.Data) {
		t.Errorf("a second gateway on the same data: %v", err)
	}
	if a := b.do("POST", executePath, body(1), "Prefer: respond-async"); a.status != 202 {
		t.Errorf("the first one then: %d %s", a.status, a.body)
	}
	refuses := func(what string, prepare func(dir string), want string) {
		t.Helper()
		dir := t.TempDir()
		prepare(dir)
		f := *b.file
		f.Data = filepath.Join(dir, "data")
		before := runtime.NumGoroutine()
		g, err := Open(Config{File: &f})
		if err == nil {
			g.Close()
			t.Fatalf("%s: it was opened", what)
		}
		if !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), dir) {
			t.Errorf("%s: %v", what, err)
		}
		wait(t, what+": goroutines to end", func() bool { return runtime.NumGoroutine() <= before })
	}
	refuses("a file in place of the folder", func(dir string) {
		must(t, os.WriteFile(filepath.Join(dir, "data"), nil, 0o600))
	}, "not a directory")
	refuses("a foreign file in place of a journal", func(dir string) {
		must(t, os.Mkdir(filepath.Join(dir, "data"), 0o700))
		must(t, os.WriteFile(filepath.Join(dir, "data", "acme.journal"), []byte(strings.Repeat("not ours ", 100)), 0o600))
	}, "not a headgate journal")
	if os.Getuid() != 0 {
		refuses("a folder that can't be written to", func(dir string) { must(t, os.Mkdir(filepath.Join(dir, "data"), 0o500)) }, "permission denied")
	}
}
