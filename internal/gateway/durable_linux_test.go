package gateway

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/headgate/headgate/emulator"
	"github.com/headgate/headgate/internal/queue"
	"github.com/headgate/headgate/internal/sqlite"
)

// mountEnv is set in the process that has file systems of its own, noMount its
// exit code if it may not.
const (
	mountEnv = "HEADGATE_TEST_MOUNT"
	noMount  = 77
)

// A disk that fills, for real: a file system of some megabytes in memory, in a
// process with its own table of mounts. What can't be kept is not accepted, what
// waits goes on, and it recovers without a restart.
func TestFullDisk(t *testing.T) {
	if dir := os.Getenv(mountEnv); dir != "" {
		testFullDisk(t, dir)
		return
	}
	attr := &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	if os.Getuid() != 0 {
		attr.Cloneflags |= syscall.CLONE_NEWUSER
		attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	self, err := os.Executable()
	must(t, err)
	cmd := exec.Command(self, "-test.run=^TestFullDisk$", "-test.v", "-test.timeout=1m")
	cmd.Env = append(os.Environ(), mountEnv+"="+t.TempDir())
	cmd.SysProcAttr = attr
	out, err := cmd.CombinedOutput()
	exit, ran := err.(*exec.ExitError)
	switch {
	case err == nil:
		t.Logf("%s", out)
	case ran && exit.ExitCode() == noMount, !ran:
		t.Skipf("no file system of our own here: %v %s", err, out)
	default:
		t.Fatalf("%v\n%s", err, out)
	}
}

func testFullDisk(t *testing.T, dir string) {
	err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, "")
	if err == nil {
		err = syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=24m")
	}
	if err != nil {
		os.Stderr.WriteString(err.Error())
		os.Exit(noMount)
	}
	defer syscall.Unmount(dir, syscall.MNT_DETACH)
	other := filepath.Join(dir, "other")
	must(t, os.WriteFile(other, make([]byte, 8<<20), 0o600))

	b := newBench(t, plan{dir: filepath.Join(dir, "data"), emulator: emulator.Config{Limits: []emulator.Limit{{Rate: 200, Burst: 50}}}})
	o := b.g.setting().orgs[0]
	o.limiter.Pause()
	large := strings.Repeat("x", 50_000)
	accepted := map[string]string{} // by id
	n := 0
	fill := func() problem {
		for {
			n++
			text := fmt.Sprintf(`{"n":%d,"x":%q}`, n, large)
			a := b.do("POST", executePath, text, "Prefer: respond-async", fmt.Sprintf("Idempotency-Key: k%d", n))
			if a.status != 202 {
				return a.problem(t)
			}
			accepted[a.execution(t).ID] = text
			if n > 10_000 {
				t.Fatal("there is no end to the room")
			}
		}
	}
	p := fill()
	if p.Status != 503 || !strings.HasSuffix(p.Type, "/storage") || p.RetryAfter <= 0 {
		t.Errorf("on a full disk: %+v", p)
	}
	t.Logf("after %d: %+v", len(accepted), p)
	if strings.Contains(p.Detail, dir) {
		t.Errorf("it tells where: %s", p.Detail)
	}
	// What waits goes on: what is held, and what is in the dispatcher's hands.
	o.limiter.Resume()
	for i := range 30 {
		if a := b.do("POST", executePath, body(i)); a.status != 200 {
			t.Errorf("held, on a full disk: %d %s", a.status, a.body)
		}
	}
	wait(t, "what was claimed to be executed", func() bool { return o.status().Queue.Done > 0 })
	if a := b.do("GET", "/headgate/v1/executions?limit=5", ""); a.status != 200 {
		t.Errorf("a list, on a full disk: %d %s", a.status, a.body)
	}
	must(t, os.Remove(other))
	wait(t, "room to be found", func() bool {
		a := b.do("POST", executePath, body(1000), "Prefer: respond-async", "Idempotency-Key: late")
		if a.status == 202 {
			accepted[a.execution(t).ID] = body(1000)
		}
		return a.status == 202
	})
	wait(t, "all to be executed", func() bool { return o.status().Queue.Done == int64(len(accepted)) })
	executed := executions(b.emulator)
	for id, text := range accepted {
		if executed[text] != 1 {
			t.Errorf("%s was executed %d times", id, executed[text])
		}
	}
	// 30 were held. Nothing that was refused has been executed.
	if r := b.emulator.Report(); r.Executed != int64(len(accepted))+30 {
		t.Errorf("%d executed, %d accepted and 30 held", r.Executed, len(accepted))
	}
	if o.trouble() != "" {
		t.Errorf("trouble: %s", o.trouble())
	}
}

// fillJournal writes a journal with n executions that are queued.
func fillJournal(t *testing.T, path string, n int) {
	t.Helper()
	s, err := sqlite.Open(path, sqlite.Options{})
	must(t, err)
	now := time.Now()
	for done := 0; done < n; {
		xs := make([]queue.Execution, min(1000, n-done))
		for i := range xs {
			done++
			xs[i] = queue.Execution{
				Caller: fmt.Sprint("caller-", done%20), Key: fmt.Sprint("key-", done), Accepted: now,
				Method: "POST", Path: executePath, Body: []byte(body(done)), Delivery: queue.AtLeastOnce,
				Extra: []byte(`{"header":{"Content-Type":["application/json"]}}`),
			}
		}
		must(t, s.Add(t.Context(), xs))
	}
	must(t, s.Close())
}

// queuedFigures are those of a process that starts with a full journal.
type queuedFigures struct {
	first  time.Duration // from the start to the first execution
	peak   float64       // MB of memory
	each   time.Duration // of processor, for one execution
	second float64       // executions in a second
}

// startQueued starts a process with n queued and looks at it until many have been
// executed.
func startQueued(t *testing.T, n, many int) (f queuedFigures) {
	t.Helper()
	srv, url := emulate(t, emulator.Config{Limits: fast, LedgerRows: -1})
	s := serving{API: url, Address: freeAddress(t), Data: t.TempDir(), Rate: 1e6, Burst: 1e6, Drain: time.Second}
	fillJournal(t, filepath.Join(s.Data, "acme.journal"), n)
	start := time.Now()
	cmd := s.spawn(t)
	defer func() {
		cmd.Process.Kill()
		cmd.Wait()
	}()
	wait(t, "the first execution", func() bool { return srv.Report().Executed > 0 })
	f.first = time.Since(start)
	wait(t, "it to be warm", func() bool { return srv.Report().Executed >= int64(many/4) })
	began, used, from := time.Now(), processor(t, cmd.Process.Pid), srv.Report().Executed
	wait(t, "executions", func() bool { return srv.Report().Executed >= int64(many) })
	done := srv.Report().Executed - from
	f.each = (processor(t, cmd.Process.Pid) - used) / time.Duration(done)
	f.second = float64(done) / time.Since(began).Seconds()
	f.peak = float64(peakMemory(t, cmd.Process.Pid)) / 1e6
	return f
}

// processor is the time of processors that a process has used.
func processor(t *testing.T, pid int) time.Duration {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	must(t, err)
	_, rest, _ := strings.Cut(string(text), ") ")
	fields := strings.Fields(rest)
	user, _ := strconv.Atoi(fields[11])
	system, _ := strconv.Atoi(fields[12])
	return time.Duration(user+system) * 10 * time.Millisecond
}

// peakMemory is the most memory that a process has had, in bytes.
func peakMemory(t *testing.T, pid int) int64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	must(t, err)
	_, rest, _ := strings.Cut(string(text), "VmHWM:")
	n, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
	must(t, err)
	return n * 1024
}

// A gateway starts with a million queued as with ten thousand.
func TestMillionQueued(t *testing.T) {
	few, many, count := 2_000, 20_000, 1_000
	if *figures {
		few, many, count = 20_000, 1_000_000, 10_000
	}
	a := startQueued(t, few, count)
	b := startQueued(t, many, count)
	t.Logf("%d queued: first after %v, peak %.0f MB, %v of processor each, %.0f/s", few, a.first, a.peak, a.each, a.second)
	t.Logf("%d queued: first after %v, peak %.0f MB, %v of processor each, %.0f/s", many, b.first, b.peak, b.each, b.second)
	if b.first > 5*time.Second || b.peak > 300 {
		t.Errorf("the first after %v, %.0f MB: want 5 s and 300 MB at most", b.first, b.peak)
	}
	if *figures && float64(b.each) > 1.5*float64(a.each) {
		t.Errorf("each costs %v, and %v with a few", b.each, a.each)
	}
}
